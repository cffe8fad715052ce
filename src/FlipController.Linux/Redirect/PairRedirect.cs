using System.Collections.Immutable;
using System.Diagnostics;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Redirect;

/// <summary>
/// What sends NEW connections to a generation, by rules of the kernel. Everything it reads, it reads from the kernel; it remembers
/// nothing that this could not tell. Calls from several threads take turns.
/// </summary>
public abstract class PairRedirect : IDisposable
{
    /// <summary>What it is, for people: "nftables".</summary>
    public abstract string Method { get; }

    /// <summary>Where its rules are, for people: "table inet flipcontroller".</summary>
    public abstract string Place { get; }

    /// <summary>Of its nat hooks: whoever is met before them decides first.</summary>
    public abstract int Priority { get; }

    /// <summary>
    /// The hooks of each pair, its chain and the guard of its ports are there afterwards. What each pair's rule says and the generations
    /// stay as they are, and so does every pair not named, unless <paramref name="removeOthers"/>.
    /// Hooks are registered and, in a namespace, connections tracked from now on: not to be called while a queue holds packets, which
    /// loses them when a hook goes away.
    /// </summary>
    public abstract void EnsureBase(IReadOnlyCollection<PairPorts> pairs, bool removeOthers = false);

    /// <summary>The commands that make a generation's chain, for a person to read.</summary>
    public abstract string Describe(string pair, int number, uint mark, uint mask, ImmutableArray<ServicePort> ports);

    /// <summary>The commands of a flip to it.</summary>
    public abstract string DescribeSwitch(string pair, int number);

    /// <summary>
    /// Before a generation is started that will listen on these front addresses itself: NEW connections stay with who gets them now,
    /// whoever begins to listen. Where generations listen on ports of their own there is nothing to do.
    /// </summary>
    /// <exception cref="FlipException">Nobody more may listen there.</exception>
    public virtual Task MakeRoomAsync(string pair, IReadOnlyCollection<Service> services, CancellationToken stop) => Task.CompletedTask;

    /// <summary>Somebody has stopped listening on these front addresses; nothing to do where generations have ports of their own.</summary>
    public virtual void Settle(string pair, IReadOnlyCollection<Service> services) { }

    /// <summary>Makes a generation's chain, to which nothing leads yet. Fails when it exists (EEXIST).</summary>
    public abstract void AddGeneration(string pair, int number, uint mark, uint mask, ImmutableArray<ServicePort> ports);

    /// <summary>Makes a generation's chain anew that somebody has changed, though it may be the active one.</summary>
    public virtual void RestoreGeneration(string pair, int number, uint mark, uint mask, ImmutableArray<ServicePort> ports)
    {
        if (ReadAll().Pairs.TryGetValue(pair, out PairRules? there) && there.Active == number) Clear(pair); // it cannot go while the rule names it
        RemoveGeneration(pair, number);
        AddGeneration(pair, number, mark, mask, ports);
    }

    /// <summary>Tolerates absence. Fails (EBUSY) while it is the active one.</summary>
    public abstract void RemoveGeneration(string pair, int number);

    /// <summary>
    /// Connections of this host to ports that retired generations have closed go where these say, from one instant to the next, and no
    /// others do.
    /// </summary>
    /// <param name="mark">The active generation's, or 0.</param>
    public abstract void SetLoops(string pair, uint mark, uint mask, ImmutableArray<LoopRoute> routes);

    /// <summary>Everything about a flip that can be done before it.</summary>
    public abstract PreparedSwitch PrepareSwitch(string pair, int toNumber);

    /// <summary>Takes the pair's one rule away: NEW connections go to whoever listens on the front addresses. Tolerates absence.</summary>
    public abstract void Clear(string pair);

    /// <summary>Nothing of this pair is left. Tolerates absence.</summary>
    public abstract void RemovePair(string pair);

    /// <summary>Nothing of ours is left. Tolerates absence.</summary>
    public abstract void Remove();

    public abstract RedirectState ReadAll();

    public abstract void Dispose();

    /// <summary>The generation NEW connections really go to; null when any step of the way to it is missing.</summary>
    public int? ReadActive(string pair) => ReadAll().Active(pair);

    /// <summary>The numbers of the generations that have a chain.</summary>
    public ImmutableSortedSet<int> Generations(string pair) =>
        ReadAll().Pairs.TryGetValue(pair, out PairRules? state) ? [.. state.Generations.Keys] : [];
}

/// <summary>One flip, ready to run. Good for any number of commits; belongs to the redirect that made it.</summary>
public abstract class PreparedSwitch(string pair, int to) : IDisposable
{
    public string Pair { get; } = pair;

    public int To { get; } = to;

    /// <summary>How long the last run took, of <see cref="Stopwatch.Frequency"/>.</summary>
    public long ElapsedTicks { get; protected set; }

    public TimeSpan Elapsed => Stopwatch.GetElapsedTime(0, ElapsedTicks);

    /// <summary>
    /// Has the very transaction checked, and forgotten: tens of milliseconds, for a time when nothing is held. Throws what a commit would
    /// run into.
    /// </summary>
    /// <exception cref="FlipException">It would not be taken.</exception>
    public abstract void Rehearse();

    /// <summary>What may not happen in the window and must not happen long before it; a commit does it when nobody has.</summary>
    public virtual void MakeReady() { }

    /// <summary>The flip. 0, or an errno, and then NEW connections go where they went before. Allocates and logs nothing.</summary>
    public abstract int Commit();

    /// <summary>The last run's failure in words.</summary>
    public abstract FlipException Failure();

    public virtual void Dispose() { }
}
