using System.Net;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using static FlipController.Linux.Kernel.ConnectionTable;

namespace FlipController.Linux.Kernel;

/// <summary>A mark whose connections are counted.</summary>
internal sealed class FollowedMark(uint mark, uint mask, ushort owner, bool tellsOfAll)
{
    /// <summary>Every connection with it began while somebody listened: each has its events.</summary>
    internal readonly bool TellsOfAll = tellsOfAll;
    internal readonly uint Mark = mark, Mask = mask;
    /// <summary>Stands for it in the table; another's once it is not followed any more.</summary>
    internal readonly ushort Owner = owner;
    internal int Live, Opening;
    /// <summary>Found by a dump, and no event has told of them: it may be that none ever will.</summary>
    internal int Unheard;
    internal bool NeedsDump = true;
    /// <summary>When the last dump began.</summary>
    internal DateTimeOffset DumpedAt;
}

/// <summary>
/// What is known of connections under some marks, as the kernel's messages tell it. No socket and no clock; one thread at a time.
/// </summary>
internal sealed class LedgerBook
{
    private const ushort Delete = Conntrack.Subsystem | 2; // IPCTNL_MSG_CT_DELETE; IPCTNL_MSG_CT_NEW is 0, for changes too
    private const NetlinkFlags Created = NetlinkFlags.Create | NetlinkFlags.Exclusive; // what tells a NEW event from an UPDATE

    private readonly (ulong, ulong) _seed = (RandomSeed(), RandomSeed());
    private readonly ConnectionTable _table = new();
    private readonly Dictionary<uint, FollowedMark> _marks = [];
    private FollowedMark?[] _owners = new FollowedMark?[16];
    private byte _stamp;

    internal IReadOnlyCollection<FollowedMark> Marks => _marks.Values;

    /// <summary>Milliseconds since 1970: when the messages that come now are read.</summary>
    internal long Now { get; set; }

    /// <summary>Connections from before are told of as well: a dump finds none that is <see cref="FollowedMark.Unheard"/>.</summary>
    internal bool EventsTellOfAll { get; set; }

    internal FollowedMark? Find(uint mark) => _marks.GetValueOrDefault(mark);

    /// <summary>It must not be there yet.</summary>
    internal void Add(uint mark, uint mask, bool tellsOfAll = false)
    {
        int owner = Array.IndexOf(_owners, null);
        if (owner < 0)
        {
            owner = _owners.Length;
            Array.Resize(ref _owners, owner * 2);
        }
        _marks.Add(mark, _owners[owner] = new FollowedMark(mark, mask, (ushort)owner, tellsOfAll));
    }

    /// <summary>Tolerates absence.</summary>
    internal bool Remove(uint mark)
    {
        if (!_marks.Remove(mark, out FollowedMark? gone)) return false;
        _table.Sweep(c => c.Owner == gone.Owner);
        _owners[gone.Owner] = null;
        return true;
    }

    internal FirstSeen? FirstSeen(uint mark, IPEndPoint peer, int privatePort)
    {
        if (Find(mark) is not { } followed) return null;
        return _table.Oldest(Peer.Of(peer).Key((ushort)privatePort, _seed), followed.Owner) is { } connection
            ? new FirstSeen(DateTimeOffset.FromUnixTimeMilliseconds(connection.FirstSeen), connection.Flags.HasFlag(ConnectionFlags.Exact))
            : null;
    }

    /// <summary>An event, with its nlmsghdr. False: it is none.</summary>
    internal bool TakeEvent(ReadOnlySpan<byte> message)
    {
        if (message.Length < NetlinkMessage.HeaderLength) return false;
        ushort type = MemoryMarshal.Read<ushort>(message[4..]);
        var flags = (NetlinkFlags)MemoryMarshal.Read<ushort>(message[6..]);
        ConntrackEntry entry = ConntrackEntry.Read(message[NetlinkMessage.HeaderLength..]);
        if (OwnerOf(entry.Mark) is not { } owner) return true; // it was followed a moment ago
        ulong key = entry.Client.Key(entry.PrivatePort, _seed);
        if (type == Delete) Forget(key, entry.Id);
        else if (entry.State is null) Hear(ref _table.Find(key, entry.Id)); // another change than that of its state
        else if (!entry.IsLive) Forget(key, entry.Id);
        else Keep(owner, key, entry, created: (flags & Created) == Created, heard: true);
        return true;
    }

    /// <summary>What <see cref="TakeDumped"/> gets between this and <see cref="EndDump"/> is all there is.</summary>
    internal void BeginDump()
    {
        if (++_stamp != 0) return;
        // It came round: one of another mark could bear it still from then.
        foreach (ref Connection connection in _table.Places) connection.Stamp = 0;
        _stamp = 1;
    }

    /// <summary>An entry of a dump, without its nlmsghdr.</summary>
    internal void TakeDumped(in ConntrackEntry entry)
    {
        if (OwnerOf(entry.Mark) is { } owner) Keep(owner, entry.Client.Key(entry.PrivatePort, _seed), entry, created: false, heard: false);
    }

    /// <summary>What was known of these marks and was not in the dump is gone.</summary>
    internal void EndDump(IEnumerable<FollowedMark> asked, DateTimeOffset began)
    {
        FollowedMark[] still = [.. asked.Where(f => _owners[f.Owner] == f)];
        HashSet<ushort> owners = [.. still.Select(f => f.Owner)];
        _table.Sweep(c =>
        {
            if (c.Stamp == _stamp || !owners.Contains(c.Owner)) return false;
            Count(c, -1);
            return true;
        });
        foreach (FollowedMark followed in still) (followed.NeedsDump, followed.DumpedAt) = (false, began);
    }

    private FollowedMark? OwnerOf(uint mark)
    {
        foreach (FollowedMark? followed in _owners)
            if (followed is not null && (mark & followed.Mask) == followed.Mark) return followed;
        return null;
    }

    private void Forget(ulong key, uint id)
    {
        ref Connection connection = ref _table.Find(key, id);
        if (Unsafe.IsNullRef(ref connection)) return;
        Count(connection, -1);
        _table.Remove(key, id);
    }

    private void Hear(ref Connection connection)
    {
        if (Unsafe.IsNullRef(ref connection)) return;
        Count(connection, -1);
        connection.Flags &= ~ConnectionFlags.Unheard;
        Count(connection, 1);
    }

    private void Keep(FollowedMark owner, ulong key, in ConntrackEntry entry, bool created, bool heard)
    {
        ConnectionFlags opening = entry.IsOpening ? ConnectionFlags.Opening : 0;
        long began = entry.StartNanoseconds > 0 ? entry.StartNanoseconds / 1_000_000 : Now;
        ConnectionFlags exact = created || entry.StartNanoseconds > 0 ? ConnectionFlags.Exact : 0;
        ref Connection known = ref _table.Find(key, entry.Id);
        if (Unsafe.IsNullRef(ref known))
        {
            ConnectionFlags unheard = heard || EventsTellOfAll || owner.TellsOfAll ? 0 : ConnectionFlags.Unheard;
            Connection connection = new(key, entry.Id, owner.Owner, ConnectionFlags.Used | opening | exact | unheard, _stamp, began);
            _table.Add(connection);
            Count(connection, 1);
            return;
        }
        Count(known, -1);
        // When it was first seen outlives every dump; an exact instant is better than a guess.
        if (exact != 0 && !known.Flags.HasFlag(ConnectionFlags.Exact)) known.FirstSeen = Math.Min(known.FirstSeen, began);
        known.Flags = known.Flags & ~ConnectionFlags.Opening | opening | exact;
        if (heard) known.Flags &= ~ConnectionFlags.Unheard;
        (known.Owner, known.Stamp) = (owner.Owner, _stamp);
        Count(known, 1);
    }

    private void Count(in Connection connection, int by)
    {
        FollowedMark owner = _owners[connection.Owner]!;
        owner.Live += by;
        if (connection.Flags.HasFlag(ConnectionFlags.Opening)) owner.Opening += by;
        if (connection.Flags.HasFlag(ConnectionFlags.Unheard)) owner.Unheard += by;
    }

    private static ulong RandomSeed() => MemoryMarshal.Read<ulong>(RandomNumberGenerator.GetBytes(sizeof(ulong)));
}
