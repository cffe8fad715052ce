using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;

namespace FlipController.Linux;

/// <summary>What FlipController leaves in the kernel, for when nobody is to take care of it any more.</summary>
public static class KernelTraces
{
    public const string Table = NftRuleset.Table;

    /// <summary>Removes them, tolerating their absence.</summary>
    /// <param name="cut">The connections that are open through them may be reset.</param>
    /// <exception cref="FlipException">They are still there.</exception>
    public static RemovedTraces Remove(bool cut)
    {
        using NftRedirect nft = NftRedirect.Open();
        List<PairRedirect> redirects = [nft];
        try
        {
            foreach (IptablesVariant variant in Enum.GetValues<IptablesVariant>())
                if (Redirects.OpenWhereRulesAre(variant) is { } iptables) redirects.Add(iptables);
            (PairRedirect Redirect, RedirectState State)[] there = [.. redirects.Select(r => (r, r.ReadAll())).Where(r => !ReferenceEquals(r.Item2, RedirectState.Nothing))];
            PortBlock? left = nft.TranslatesFor, span = Span([.. there.SelectMany(r => Ports(r.State)), .. left is { } block ? [block] : Array.Empty<PortBlock>()]);
            int open = span is { } ports && !cut ? Open(ports) : 0;
            if (open > 0) nft.TranslateFor(span!.Value);
            foreach ((PairRedirect redirect, _) in there.Where(r => open == 0 || r.Redirect != nft)) redirect.Remove();
            return new RemovedTraces(
                [.. there.Where(r => open == 0 || left is null || r.Redirect != nft).SelectMany(r => Lines(r.Redirect, r.State))], open);
        }
        finally
        {
            foreach (PairRedirect redirect in redirects.Skip(1)) redirect.Dispose();
        }
    }

    /// <summary>Private ports of its pairs.</summary>
    private static IEnumerable<PortBlock> Ports(RedirectState state) =>
        state.Pairs.Values.SelectMany(p => (PortBlock?[])[p.Blue, p.Green]).OfType<PortBlock>().Where(b => b.Count > 0)
            .Concat(state.Pairs.Values.SelectMany(p => p.Generations.Values).SelectMany(g => g).Select(p => new PortBlock(p.PrivatePort, 1)));

    private static PortBlock? Span(PortBlock[] blocks) =>
        blocks.Length == 0 ? null : new PortBlock(blocks.Min(b => b.First), blocks.Max(b => b.Last) - blocks.Min(b => b.First) + 1);

    /// <summary>Connections that may have been redirected, and then need the kernel's translation to their end.</summary>
    private static int Open(PortBlock ports)
    {
        using var sockets = new SockDiag();
        return sockets.Count(TcpStates.Live, ports);
    }

    private static IEnumerable<string> Lines(PairRedirect redirect, RedirectState state) =>
    [
        redirect.Place,
        .. state.Pairs.Values.Select(p => p.Active is { } active
            ? $"pair {p.Pair}: new connections went to generation {active}, port {Ports(p.Generations.GetValueOrDefault(active, []))}"
            : $"pair {p.Pair}: its rule was empty"),
    ];

    private static string Ports(ImmutableArray<ServicePort> ports) =>
        string.Join(", ", ports.Select(s => $"{s.Service} -> {s.PrivatePort}"));
}

/// <param name="Removed">Each line is one thing that was removed.</param>
/// <param name="KeptOpen">
/// So many connections go on by a rule that is left, a hook without any effect but that the kernel goes on translating them: who removes
/// the last rule with conntrack in it, when nobody else has one (a firewall's `ct state`, a container engine's NAT), has them reset,
/// nf_ct_netns_put in net/netfilter/nf_conntrack_proto.c. 0: nothing is left.
/// </param>
public sealed record RemovedTraces(IReadOnlyList<string> Removed, int KeptOpen);
