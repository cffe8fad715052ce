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
        List<string> removed = [];
        using (NftRedirect nft = NftRedirect.Open()) removed.AddRange(Remove(nft));
        foreach (IptablesVariant variant in Enum.GetValues<IptablesVariant>())
        {
            using IptablesRedirect? iptables = Redirects.OpenWhereRulesAre(variant);
            if (iptables is not null) removed.AddRange(Remove(iptables));
        }
        return removed;
    }

    private static IEnumerable<string> Remove(PairRedirect redirect)
    {
        RedirectState state = redirect.ReadAll();
        if (ReferenceEquals(state, RedirectState.Nothing)) return [];
        redirect.Remove();
        return
        [
            redirect.Place,
            .. state.Pairs.Values.Select(p => p.Active is { } active
                ? $"pair {p.Pair}: new connections went to generation {active}, port {Ports(p.Generations.GetValueOrDefault(active, []))}"
                : $"pair {p.Pair}: its rule was empty"),
        ];
    }

    private static string Ports(ImmutableArray<ServicePort> ports) =>
        string.Join(", ", ports.Select(s => $"{s.Service} -> {s.PrivatePort}"));
}
