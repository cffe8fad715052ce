using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Linux.Redirect;

namespace FlipController.Linux;

/// <summary>What FlipController leaves in the kernel, for when nobody is to take care of it any more.</summary>
public static class KernelTraces
{
    public const string Table = NftRuleset.Table;

    /// <summary>Removes them, tolerating their absence; each line is one thing removed.</summary>
    /// <exception cref="Core.FlipException">They are still there.</exception>
    public static IReadOnlyList<string> Remove()
    {
        using NftRedirect redirect = NftRedirect.Open();
        NftState state = redirect.ReadAll();
        if (ReferenceEquals(state, NftState.Nothing)) return [];
        redirect.Remove();
        return
        [
            $"table {Table}",
            .. state.Pairs.Values.Select(p => p.Active is { } active
                ? $"pair {p.Pair}: new connections went to generation {active}, port {Ports(p.Generations.GetValueOrDefault(active, []))}"
                : $"pair {p.Pair}: its rule was empty"),
        ];
    }

    private static string Ports(ImmutableArray<ServicePort> ports) =>
        string.Join(", ", ports.Select(s => $"{s.Service} -> {s.PrivatePort}"));
}
