using System.Collections.Immutable;
using System.Globalization;
using System.Text;
using System.Text.Json;
using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;

namespace FlipController.Linux.Hold;

// table inet flipcontroller-hold: one for everybody in the network namespace who holds
//
//   hook prerouting -300 ── not from lo ──┐  opening SYN to a           ┌> incoming ──┐  tcp dport @ports-edge   hold-edge
//                                         ├─ local address ─────────────┤             ├─────────────────────────────> queue, or drop
//   hook output     -300 ─────────────────┘                             └> local ─────┘
//
// - Who is held is decided by the set alone. It is empty; to close is to put the ports in, WITH A TIMEOUT, to open is to empty it.
//   If nobody does, the kernel does when the time is over.
// - Before conntrack (-200) and NAT: what is let go is judged by the rules of that moment.
// - A base chain that goes takes every packet with it that waits in ANY queue of the namespace (nf_queue_nf_hook_drop): they are made
//   before anything is held and outlive the hold as long as anybody may have packets waiting.

/// <summary>What a look for holds without an owner found and did.</summary>
/// <param name="Owners">Of these the process is gone; their rules and sets are too, now.</param>
/// <param name="Kept">Why the table is still there, in words; null when it is gone.</param>
/// <param name="WasThere">The table was, before.</param>
public sealed record HoldLeftovers(ImmutableArray<string> Owners, string? Kept, bool WasThere);

/// <summary>
/// One owner's part of the hold's table: a set of the ports that are held at this moment and a chain for who goes there. It belongs to
/// the network namespace of the thread that made it; one thread at a time.
/// </summary>
public sealed class HoldTable : IDisposable
{
    internal const string Name = "flipcontroller-hold";
    private const string Table = $"inet {Name}";
    private const string Incoming = "incoming", Local = "local";
    private const string ChainPrefix = "hold-", SetPrefix = "ports-";
    private const string Priority = "-300"; // NF_IP_PRI_RAW

    private readonly HoldScope _scope;
    private readonly NftLibrary _nft;
    private readonly NetlinkSocket _netlink;
    private readonly NfQueueList _queues;
    private readonly HoldLock _owner;
    private readonly string _path;
    private readonly HoldBatches _batches;
    private HoldLock? _shared;

    private HoldTable(
        HoldScope scope, NftLibrary nft, NetlinkSocket netlink, NfQueueList queues, HoldLock owner, HoldLock shared, string path)
    {
        (_scope, _nft, _netlink, _queues, _owner, _shared, _path) = (scope, nft, netlink, queues, owner, shared, path);
        _batches = new HoldBatches(Name, SetPrefix + NftRuleset.Spell(scope.Owner), scope.Ports, scope.Max);
    }

    /// <param name="queue">The queue's number; null: packets are dropped and counted.</param>
    /// <exception cref="FlipException">Nothing is left of it then.</exception>
    internal static HoldTable Prepare(HoldScope scope, int? queue)
    {
        string path = HoldLock.PathOf();
        HoldTable table = Open(scope, path);
        try
        {
            table.RemoveRules(); // of one that was killed
            table.Make(queue);
            return table;
        }
        catch
        {
            table.Dispose();
            throw;
        }
    }

    private static HoldTable Open(HoldScope scope, string path)
    {
        List<IDisposable> made = [];
        try
        {
            HoldLock shared = Made(HoldLock.TakeShared(path));
            HoldLock owner = Made(HoldLock.Take(HoldLock.PathOf(scope.Owner), exclusive: true) ?? throw new FlipException(
                $"cannot hold for {scope.Owner}: another process holds for it already; nothing new is held; wait until that one has ended"));
            NetlinkSocket netlink = Made(new NetlinkSocket(NetlinkProtocol.Netfilter));
            NftBatch.CheckRights(netlink); // libnftables would tell the standard error, too
            return new HoldTable(scope, Made(NftLibrary.Open()), netlink, Made(NfQueueList.Open()), owner, shared, path);
        }
        catch
        {
            for (int i = made.Count - 1; i >= 0; i--) made[i].Dispose();
            HoldLock.Clear(path);
            throw;
        }

        T Made<T>(T thing) where T : IDisposable
        {
            made.Add(thing);
            return thing;
        }
    }

    /// <summary>Hot. The ports are in the set afterwards, for the scope's time; or an errno, and they are not.</summary>
    internal int Close(bool rehearse = false) => _batches.Close(_netlink.Fd, rehearse);

    /// <summary>Hot. The set is empty afterwards; or an errno.</summary>
    internal int Open(bool rehearse = false) => _batches.Open(_netlink.Fd, rehearse);

    /// <summary>What was run into first since the last <see cref="Close"/> began; null: nothing.</summary>
    internal KernelException? Failure => _batches.Failure(_scope.Owner);

    /// <summary>How many packets went to this owner's chain.</summary>
    internal long Count()
    {
        using JsonDocument? listing = _nft.Query("list the hold's chain", $"list chain {Table} {ChainOf(_scope.Owner)}");
        if (listing is null) return 0;
        foreach ((_, JsonElement rule) in Rules(listing))
            foreach (JsonElement expression in rule.GetProperty("expr").EnumerateArray())
                if (expression.TryGetProperty("counter", out JsonElement counter)) return counter.GetProperty("packets").GetInt64();
        return 0;
    }

    /// <summary>Nobody goes to this owner's chain any more, which is gone. Tolerates absence. The base chains stay.</summary>
    internal void RemoveRules() => RemoveHold(_nft, _scope.Owner);

    /// <summary>Its rules go, if <see cref="RemoveRules"/> has not been there before, and the table, if nobody else can miss it.</summary>
    public void Dispose()
    {
        if (_shared is null) return;
        try
        {
            RemoveRules();
            _owner.Dispose();
            _shared.Dispose();
            _ = RemoveTable(_nft, _queues, _path, _ => true);
        }
        catch (FlipException)
        {
            // Its set empties itself and nobody is held; the next one who comes removes it.
            _owner.Dispose();
            _shared.Dispose();
            HoldLock.Clear(_path);
        }
        _shared = null;
        _queues.Dispose();
        _netlink.Dispose();
        _nft.Dispose();
    }

    /// <summary>Whoever has a hold in the calling thread's network namespace.</summary>
    internal static IReadOnlyList<string> Owners()
    {
        using NftLibrary nft = NftLibrary.Open();
        return Owners(nft);
    }

    /// <summary>
    /// Opens and removes every hold of the calling thread's network namespace whose process is gone, lets go who waits in it, and then
    /// removes the table, unless somebody holds or packets wait in a queue, whoever's it is.
    /// </summary>
    public static HoldLeftovers RemoveAll()
    {
        using NftLibrary nft = NftLibrary.Open();
        using NfQueueList queues = NfQueueList.Open();
        bool wasThere;
        using (JsonDocument? listing = List(nft)) wasThere = listing is not null;
        ImmutableArray<string>.Builder removed = ImmutableArray.CreateBuilder<string>();
        foreach (string owner in Owners(nft))
        {
            using HoldLock? taken = HoldLock.TryTake(HoldLock.PathOf(owner), exclusive: true);
            if (taken is null) continue;
            RemoveHold(nft, owner);
            removed.Add(owner);
        }
        if (wasThere && queues.Read().Count > 0)
        {
            GracePeriod.Wait(); // who was between a rule and its queue is in the queue
            OrphanedGuards.Fire();
        }
        // Of those who were killed before they had made anything.
        string path = HoldLock.PathOf();
        foreach (string file in Directory.GetFiles("/run", $"{Path.GetFileNameWithoutExtension(path)}-*.lock")) HoldLock.Clear(file);
        return new HoldLeftovers(removed.ToImmutable(), RemoveTable(nft, queues, path, line => line.Waiting > 0), wasThere);
    }

    /// <returns>Why it is still there; null when it is not.</returns>
    private static string? RemoveTable(NftLibrary nft, NfQueueList queues, string path, Func<NfQueueLine, bool> forbids)
    {
        using HoldLock? alone = HoldLock.TryTake(path, exclusive: true);
        if (alone is null) return $"the empty chains of table {Table} stay, as somebody else holds connections";
        using (JsonDocument? listing = List(nft))
        {
            if (listing is null) return null;
        }
        if (Owners(nft) is [var owner, ..]) return $"table {Table} stays, as there is a hold of {owner} in it";
        if (queues.Read().Where(forbids).Select(line => (int?)line.Number).FirstOrDefault() is { } number)
            return $"the empty chains of table {Table} stay, as removing them could lose packets that wait in NFQUEUE {number}";
        nft.Run("remove the hold's table", $"delete table {Table}");
        return null;
    }

    private void Make(int? queue)
    {
        string chain = ChainOf(_scope.Owner);
        string target = queue is { } number ? string.Create(CultureInfo.InvariantCulture, $"queue num {number} bypass") : "counter drop";
        string targetRule = $"add rule {Table} {chain} {target}\n";
        const string operation = "make the hold's table";
        // By itself: of a transaction that fails the kernel takes new base chains away again, and with them what waits in any queue.
        _nft.Run(operation, Base);
        try
        {
            _nft.Run(operation, Text(targetRule));
        }
        catch (KernelException e) when (e.Errno == Errno.NoEntry && queue is not null)
        {
            // No nft_queue in this kernel: the NFQUEUE of xtables does the same, but the nft program has no words for it.
            _nft.Run(operation, Text(""));
            int errno = HoldBatches.AddXtQueue(_netlink.Fd, Name, chain, (ushort)queue.Value);
            if (errno == 0) return;
            throw new KernelException($"add a rule that leads to NFQUEUE {queue}", errno,
                "the kernel has neither nft_queue nor nft_compat with xt_NFQUEUE");
        }
    }

    private const string Base = $$"""
        add table {{Table}}
        add chain {{Table}} {{Incoming}}
        add chain {{Table}} {{Local}}
        add chain {{Table}} prerouting { type filter hook prerouting priority {{Priority}}; policy accept; }
        add chain {{Table}} output { type filter hook output priority {{Priority}}; policy accept; }
        """;

    private string Text(string targetRule)
    {
        string chain = ChainOf(_scope.Owner), set = SetPrefix + NftRuleset.Spell(_scope.Owner);
        StringBuilder text = new();
        text.Append(CultureInfo.InvariantCulture, $$"""
            flush chain {{Table}} prerouting
            flush chain {{Table}} output
            add rule {{Table}} prerouting iifname != "lo" {{NftRuleset.OpeningSyn}} fib daddr type local jump {{Incoming}}
            add rule {{Table}} output {{NftRuleset.OpeningSyn}} fib daddr type local jump {{Local}}
            add set {{Table}} {{set}} { type inet_service; flags timeout; }
            add chain {{Table}} {{chain}}

            """);
        text.Append(targetRule);
        if (_scope.Incoming) text.Append(CultureInfo.InvariantCulture, $"add rule {Table} {Incoming} tcp dport @{set} jump {chain}\n");
        if (_scope.Local) text.Append(CultureInfo.InvariantCulture, $"add rule {Table} {Local} tcp dport @{set} jump {chain}\n");
        return text.ToString();
    }

    private static string ChainOf(string owner) => ChainPrefix + NftRuleset.Spell(owner);

    private static JsonDocument? List(NftLibrary nft) => nft.Query("list the hold's table", $"list table {Table}");

    private static List<string> Owners(NftLibrary nft)
    {
        List<string> owners = [];
        using JsonDocument? listing = List(nft);
        if (listing is null) return owners;
        foreach (JsonElement item in listing.RootElement.GetProperty("nftables").EnumerateArray())
        {
            if (item.TryGetProperty("chain", out JsonElement chain) && chain.GetProperty("name").GetString() is { } name
                && name.StartsWith(ChainPrefix, StringComparison.Ordinal)) owners.Add(NftRuleset.Unspell(name[ChainPrefix.Length..]));
        }
        return owners;
    }

    /// <summary>What leads to it first, then the rest, in one transaction. Tolerates absence.</summary>
    private static void RemoveHold(NftLibrary nft, string owner)
    {
        string chain = ChainOf(owner), set = SetPrefix + NftRuleset.Spell(owner);
        StringBuilder text = new();
        using (JsonDocument? listing = List(nft))
        {
            if (listing is null) return;
            foreach ((string from, JsonElement rule) in Rules(listing))
            {
                if (!rule.GetProperty("expr").EnumerateArray().Any(Leads)) continue;
                text.Append(CultureInfo.InvariantCulture, $"delete rule {Table} {from} handle {rule.GetProperty("handle").GetInt64()}\n");
            }
        }
        text.Append(CultureInfo.InvariantCulture, $$"""
            add chain {{Table}} {{chain}}
            flush chain {{Table}} {{chain}}
            delete chain {{Table}} {{chain}}
            add set {{Table}} {{set}} { type inet_service; flags timeout; }
            delete set {{Table}} {{set}}

            """);
        try
        {
            nft.Run($"remove the hold of {owner}", text.ToString());
        }
        catch (KernelException e) when (e.Errno == Errno.NoEntry)
        {
            // Somebody else removed the table meanwhile.
        }

        bool Leads(JsonElement expression) =>
            expression.TryGetProperty("jump", out JsonElement jump) && jump.GetProperty("target").GetString() == chain;
    }

    private static IEnumerable<(string Chain, JsonElement Rule)> Rules(JsonDocument listing)
    {
        foreach (JsonElement item in listing.RootElement.GetProperty("nftables").EnumerateArray())
            if (item.TryGetProperty("rule", out JsonElement rule)) yield return (rule.GetProperty("chain").GetString()!, rule);
    }
}
