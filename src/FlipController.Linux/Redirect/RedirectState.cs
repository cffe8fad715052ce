using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Linux.Gate;

namespace FlipController.Linux.Redirect;

/// <summary>What of ours is in the kernel.</summary>
/// <param name="BaseComplete">The hooks are there and lead to the services; false also when nothing is there at all.</param>
/// <param name="ProbesPass">What this host sends with <see cref="PassingSocket.Mark"/> is not redirected; not so in tables of earlier versions.</param>
public sealed record RedirectState(bool BaseComplete, bool ProbesPass, ImmutableSortedDictionary<string, PairRules> Pairs)
{
    public static RedirectState Nothing { get; } = new(false, false, ImmutableSortedDictionary<string, PairRules>.Empty);

    /// <summary>NEW connections for this pair really go to a generation: every step from the hooks to its chain is there.</summary>
    public int? Active(string pair) =>
        BaseComplete && Pairs.TryGetValue(pair, out PairRules? state) && state.Reached ? state.Active : null;
}

/// <param name="Active">The generation its one rule names; null when there is no rule.</param>
/// <param name="Reached">The services lead to its chain.</param>
/// <param name="Generations">By number, with what each chain does with each service, in the order of the rules.</param>
/// <param name="Blue">The guarded ports; null when there is no guard.</param>
/// <param name="Loops">Where connections of retired generations to themselves go.</param>
public sealed record PairRules(
    string Pair, int? Active, bool Reached, ImmutableSortedDictionary<int, ImmutableArray<ServicePort>> Generations,
    PortBlock? Blue, PortBlock? Green, ImmutableArray<LoopRoute> Loops)
{
    /// <summary>Those that are guarded.</summary>
    internal PairPorts Ports => new(Pair, Blue ?? default, Green ?? default);
}

/// <summary>A pair's private ports, which are shut to the outside; a block of none has no guard.</summary>
public sealed record PairPorts(string Name, PortBlock Blue, PortBlock Green);
