using System.Collections.Immutable;
using System.Text.Json;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Redirect;

/// <summary>
/// The redirect by nftables. Everything it reads, it reads from the kernel; it remembers nothing. It acts in the network namespace
/// of the thread that opened it. Calls from several threads take turns; pairs that want no turns have one each.
/// </summary>
public sealed class NftRedirect : PairRedirect
{
    private readonly Lock _turn = new();
    private readonly Lock _switchTurn = new(); // a flip does not wait while another thread reads a long listing
    private readonly NftLibrary _nft;
    private readonly NetlinkSocket _netlink;

    private NftRedirect(NftLibrary nft, NetlinkSocket netlink)
    {
        _nft = nft;
        _netlink = netlink;
    }

    /// <exception cref="FlipException">No libnftables, or no netfilter in this kernel.</exception>
    public static NftRedirect Open()
    {
        NftLibrary nft = NftLibrary.Open();
        try
        {
            return new NftRedirect(nft, new NetlinkSocket(NetlinkProtocol.Netfilter));
        }
        catch
        {
            nft.Dispose();
            throw;
        }
    }

    public override void Dispose()
    {
        lock (_turn) _nft.Dispose();
        lock (_switchTurn) _netlink.Dispose();
    }

    public override string Method => "nftables";

    public override string Place => $"table {NftRuleset.Table}";

    public override int Priority => NftRuleset.Priority;

    /// <remarks>One transaction.</remarks>
    public override void EnsureBase(IReadOnlyCollection<PairPorts> pairs, bool removeOthers = false)
    {
        lock (_turn)
        {
            RedirectState state = Read();
            List<PairPorts> wanted = [.. pairs];
            List<string> removed = [];
            foreach (PairRules other in state.Pairs.Values.Where(p => pairs.All(pair => pair.Name != p.Pair)))
            {
                if (removeOthers) removed.AddRange(Chains(other));
                else wanted.Add(other.Ports);
            }
            _nft.Run("make the redirect's table", NftRuleset.Base(wanted, removed));
        }
    }

    public override string Describe(string pair, int number, uint mark, uint mask, ImmutableArray<ServicePort> ports) =>
        NftRuleset.AddGeneration(pair, number, mark, mask, ports);

    public override string DescribeSwitch(string pair, int number) => NftRuleset.Switch(pair, number);

    public override void AddGeneration(string pair, int number, uint mark, uint mask, ImmutableArray<ServicePort> ports)
    {
        lock (_turn)
            _nft.Run($"add the chain of generation {number} of pair {pair}", NftRuleset.AddGeneration(pair, number, mark, mask, ports));
    }

    public override void RemoveGeneration(string pair, int number) =>
        Tolerant($"remove the chain of generation {number} of pair {pair}", NftRuleset.RemoveGeneration(pair, number));

    public override void SetLoops(string pair, uint mark, uint mask, ImmutableArray<LoopRoute> routes)
    {
        lock (_turn) _nft.Run($"lead on the loops of pair {pair}", NftRuleset.Loops(pair, mark, mask, routes));
    }

    public override PreparedSwitch PrepareSwitch(string pair, int toNumber) => new BatchSwitch(
        pair, toNumber, new NftSwitchBatch(NftRuleset.PairChain(pair), NftRuleset.GenerationChain(pair, toNumber)), _netlink, _switchTurn,
        batch => $"at \"{NftRuleset.Switch(pair, toNumber).Split('\n')[batch.FailedAtDelete ? 0 : 1]}\"");

    public override void Clear(string pair) => Tolerant($"clear the redirect of pair {pair}", NftRuleset.Clear(pair));

    public override void RemovePair(string pair)
    {
        lock (_turn)
        {
            RedirectState state = Read();
            if (!state.Pairs.TryGetValue(pair, out PairRules? there)) return;
            PairPorts[] others = [.. state.Pairs.Values.Where(p => p.Pair != pair).Select(p => p.Ports)];
            _nft.Run($"remove the rules of pair {pair}", others.Length == 0 ? NftRuleset.Remove() : NftRuleset.Base(others, Chains(there)));
        }
    }

    public override void Remove()
    {
        lock (_turn) _nft.Run("remove the redirect's table", NftRuleset.Remove());
    }

    /// <summary>Instead of everything of ours one rule that does nothing but keep conntrack and NAT at work for what is open on these ports.</summary>
    internal void TranslateFor(PortBlock ports)
    {
        lock (_turn) _nft.Run("leave what open connections need", NftRuleset.TranslateFor(ports));
    }

    /// <summary>For which ports that rule was left; null: it was not.</summary>
    internal PortBlock? TranslatesFor
    {
        get
        {
            lock (_turn) return _nft.List("list what is left", $"list table {NftRuleset.Table}") is { } listing ? NftRuleset.TranslatedPorts(listing) : null;
        }
    }

    public override RedirectState ReadAll()
    {
        lock (_turn) return Read();
    }

    private static IEnumerable<string> Chains(PairRules pair) =>
    [
        NftRuleset.PairChain(pair.Pair), NftRuleset.LoopsChain(pair.Pair),
        .. pair.Generations.Keys.Select(number => NftRuleset.GenerationChain(pair.Pair, number)),
    ];

    private RedirectState Read()
    {
        using JsonDocument? listing = _nft.Query("list the redirect's table", $"list table {NftRuleset.Table}");
        return listing is null ? RedirectState.Nothing : NftListing.Parse(listing.RootElement);
    }

    private void Tolerant(string operation, string commands)
    {
        lock (_turn)
        {
            try
            {
                _nft.Run(operation, commands);
            }
            catch (KernelException e) when (e.Errno == Errno.NoEntry)
            {
                // No such table or chain: as asked for.
            }
        }
    }
}
