using System.Diagnostics;

namespace FlipController.Linux.Kernel;

/// <summary>
/// Connections in one array of 24 bytes each: open addressing, linear probing, at most three quarters full, no tombstones. The key is
/// random already (<see cref="Peer.Key"/>), so its low bits are the place. Several connections may have one key (one client port
/// towards two front addresses); the kernel's id tells them apart. One thread at a time.
/// </summary>
internal sealed class ConnectionTable
{
    private const int Smallest = 64;

    /// <param name="FirstSeen">Milliseconds since 1970.</param>
    internal record struct Connection(ulong Key, uint Id, ushort Owner, ConnectionFlags Flags, byte Stamp, long FirstSeen);

    [Flags]
    internal enum ConnectionFlags : byte
    {
        Empty = 0,
        Used = 1,
        Opening = 2,
        /// <summary>First seen is when it began, not only when it was noticed.</summary>
        Exact = 4,
        /// <summary>Found by a dump, and no event has told of it yet.</summary>
        Unheard = 8,
    }

    private Connection[] _places = new Connection[Smallest];

    internal int Count { get; private set; }

    internal int Capacity => _places.Length;

    /// <summary>All places, the empty ones too; keys, ids and flags stay as they are.</summary>
    internal Span<Connection> Places => _places;

    /// <summary>The connection's place, to be read and changed until something is added or removed; null when it is not there.</summary>
    internal ref Connection Find(ulong key, uint id)
    {
        for (int i = Home(key); ; i = Next(i))
        {
            ref Connection place = ref _places[i];
            if (place.Flags == ConnectionFlags.Empty) return ref System.Runtime.CompilerServices.Unsafe.NullRef<Connection>();
            if (place.Key == key && place.Id == id) return ref place;
        }
    }

    /// <summary>The oldest connection of an owner with a key.</summary>
    internal Connection? Oldest(ulong key, ushort owner)
    {
        Connection? oldest = null;
        for (int i = Home(key); _places[i].Flags != ConnectionFlags.Empty; i = Next(i))
        {
            Connection place = _places[i];
            if (place.Key == key && place.Owner == owner && (oldest is null || place.FirstSeen < oldest.Value.FirstSeen)) oldest = place;
        }
        return oldest;
    }

    /// <summary>It must not be there yet.</summary>
    internal void Add(in Connection connection)
    {
        if ((Count + 1) * 4L > _places.Length * 3L) Resize(_places.Length * 2);
        Put(connection);
        Count++;
    }

    /// <summary>Tolerates absence.</summary>
    internal bool Remove(ulong key, uint id)
    {
        for (int i = Home(key); _places[i].Flags != ConnectionFlags.Empty; i = Next(i))
        {
            if (_places[i].Key != key || _places[i].Id != id) continue;
            RemoveAt(i);
            ShrinkIfSparse();
            return true;
        }
        return false;
    }

    /// <summary>Removes every connection that <paramref name="gone"/> says is gone.</summary>
    internal void Sweep(Predicate<Connection> gone)
    {
        for (int i = 0; i < _places.Length;)
        {
            // What moves into the place of one that was removed is looked at too; what comes round from the beginning has been.
            if (_places[i].Flags != ConnectionFlags.Empty && gone(_places[i])) RemoveAt(i);
            else i++;
        }
        ShrinkIfSparse();
    }

    private int Home(ulong key) => (int)key & _places.Length - 1;

    private int Next(int place) => place + 1 & _places.Length - 1;

    private void Put(in Connection connection)
    {
        int i = Home(connection.Key);
        while (_places[i].Flags != ConnectionFlags.Empty) i = Next(i);
        _places[i] = connection;
        Debug.Assert(connection.Flags.HasFlag(ConnectionFlags.Used));
    }

    /// <summary>Closes the gap, so that a search may stop at the first empty place.</summary>
    private void RemoveAt(int gap)
    {
        int mask = _places.Length - 1;
        for (int i = Next(gap); _places[i].Flags != ConnectionFlags.Empty; i = Next(i))
        {
            // It may move to the gap unless its home lies after the gap: compared by distance, since the array is a ring.
            if ((i - Home(_places[i].Key) & mask) < (i - gap & mask)) continue;
            _places[gap] = _places[i];
            gap = i;
        }
        _places[gap] = default;
        Count--;
    }

    private void ShrinkIfSparse()
    {
        int length = _places.Length;
        while (length > Smallest && Count * 8L < length) length /= 2;
        if (length < _places.Length) Resize(length);
    }

    private void Resize(int length)
    {
        Connection[] old = _places;
        _places = new Connection[length];
        foreach (ref readonly Connection connection in old.AsSpan())
            if (connection.Flags != ConnectionFlags.Empty) Put(connection);
    }
}
