using System.Collections.Immutable;
using System.Net;
using System.Text.Json;
using FlipController.Linux.Redirect;

namespace FlipController.Linux.Handover;

/// <summary>
/// <see cref="HandoverRules"/> in the kernel, in the network namespace of the thread that opened it. It remembers nothing. One thread at a
/// time.
/// </summary>
public sealed class HandoverTable : IDisposable
{
    private readonly NftLibrary _nft;

    private HandoverTable(NftLibrary nft) => _nft = nft;

    /// <exception cref="Core.FlipException">No libnftables, or no netfilter in this kernel.</exception>
    public static HandoverTable Open() => new(NftLibrary.Open());

    public void Dispose() => _nft.Dispose();

    public void Make(string device, PeerNode peer, ImmutableArray<IPAddress> vips, ImmutableArray<VipService> services, OpeningRule opening) =>
        _nft.Run($"make table netdev {HandoverRules.Table}", HandoverRules.Make(device, peer, vips, services, opening));

    public void Renew(TimeSpan lease) => _nft.Run("renew the lease of the peer", HandoverRules.Renew(lease));

    public void Note(IEnumerable<FourTuple> flows)
    {
        foreach (string command in HandoverRules.Note(flows)) _nft.Run("note the handshakes under way", command);
    }

    public void AddOld(IEnumerable<FourTuple> flows)
    {
        foreach (string command in HandoverRules.Old(flows)) _nft.Run("name the peer's connections", command);
    }

    public void ForgetOld() => _nft.Run("forget the peer's connections", HandoverRules.ForgetOld());

    /// <summary>Packets led to the peer since the table was made; null: there is no table.</summary>
    public long? Led()
    {
        using JsonDocument? listing = _nft.Query("read the counter of a handover", $"list counters table netdev {HandoverRules.Table}");
        if (listing is null) return null;
        foreach (JsonElement item in listing.RootElement.GetProperty("nftables").EnumerateArray())
            if (item.TryGetProperty("counter", out JsonElement counter) && counter.GetProperty("name").GetString() == HandoverRules.LedCounter)
                return counter.GetProperty("packets").GetInt64();
        return 0;
    }

    /// <summary>False: there was none.</summary>
    public bool Remove()
    {
        if (Led() is null) return false;
        _nft.Run($"remove table netdev {HandoverRules.Table}", HandoverRules.Remove());
        return true;
    }
}
