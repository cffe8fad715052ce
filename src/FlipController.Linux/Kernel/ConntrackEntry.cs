using System.Buffers.Binary;
using System.Runtime.CompilerServices;

namespace FlipController.Linux.Kernel;

/// <summary>
/// One entry of conntrack, of a dump or of an event, as far as it is looked at here. Nothing is allocated for it. Constants and
/// nesting: include/uapi/linux/netfilter/nfnetlink_conntrack.h; what is in which message: net/netfilter/nf_conntrack_netlink.c.
/// <code>
///   nfgenmsg | CTA_TUPLE_ORIG  { CTA_TUPLE_IP { src, dst }  CTA_TUPLE_PROTO { num, sport, dport } }
///            | CTA_TUPLE_REPLY { the same, as the answers have it: its source port is the private port }
///            | CTA_PROTOINFO { CTA_PROTOINFO_TCP { state ... } }  CTA_MARK  CTA_ID  CTA_TIMESTAMP { start } ...
/// </code>
/// </summary>
internal struct ConntrackEntry
{
    internal const ushort TupleOriginal = 1; // CTA_TUPLE_ORIG
    internal const ushort TupleReply = 2; // CTA_TUPLE_REPLY
    internal const ushort MarkAttribute = 8; // CTA_MARK
    private const ushort ProtocolInfo = 4; // CTA_PROTOINFO
    private const ushort ProtocolInfoTcp = 1; // CTA_PROTOINFO_TCP
    private const ushort TcpStateAttribute = 1; // CTA_PROTOINFO_TCP_STATE
    internal const ushort IdAttribute = 12; // CTA_ID
    private const ushort Timestamp = 20; // CTA_TIMESTAMP
    private const ushort TimestampStart = 1; // CTA_TIMESTAMP_START
    private const ushort TupleAddresses = 1; // CTA_TUPLE_IP
    internal const ushort TuplePorts = 2; // CTA_TUPLE_PROTO
    private const ushort V4Source = 1; // CTA_IP_V4_SRC; CTA_IP_V4_DST is 2
    private const ushort V6Source = 3; // CTA_IP_V6_SRC; CTA_IP_V6_DST is 4
    internal const ushort Protocol = 1; // CTA_PROTO_NUM
    private const ushort SourcePort = 2; // CTA_PROTO_SRC_PORT
    internal const ushort DestinationPort = 3; // CTA_PROTO_DST_PORT

    // include/uapi/linux/netfilter/nf_conntrack_tcp.h. Everything after ESTABLISHED only waits for a timer: FIN_WAIT and TIME_WAIT
    // last two minutes after the last byte, and a drain that counted them would never end on a busy port.
    private const byte SynSent = 1; // TCP_CONNTRACK_SYN_SENT
    private const byte SynReceived = 2; // TCP_CONNTRACK_SYN_RECV
    private const byte Established = 3; // TCP_CONNTRACK_ESTABLISHED
    private const byte SynSent2 = 9; // TCP_CONNTRACK_SYN_SENT2, a simultaneous open

    /// <summary>Null: not TCP, or an event that does not say.</summary>
    internal byte? State;
    internal uint Mark, Id;
    internal Peer Client;
    internal ushort PrivatePort;
    /// <summary>Nanoseconds since 1970; 0: the kernel does not keep it (net.netfilter.nf_conntrack_timestamp).</summary>
    internal long StartNanoseconds;

    internal readonly bool IsOpening => State is SynSent or SynReceived or SynSent2;

    internal readonly bool IsLive => State is SynSent or SynReceived or SynSent2 or Established;

    /// <param name="message">What comes after the nlmsghdr.</param>
    internal static ConntrackEntry Read(ReadOnlySpan<byte> message)
    {
        ConntrackEntry entry = default;
        NetlinkAttributes outer = Attributes(message);
        while (outer.Next())
        {
            switch (outer.Type)
            {
                case TupleOriginal:
                    entry.Client = Source(outer.Value);
                    break;
                case TupleReply:
                    entry.PrivatePort = Source(outer.Value).Port;
                    break;
                case ProtocolInfo:
                    entry.State = TcpState(outer.Value);
                    break;
                case MarkAttribute when outer.Value.Length >= sizeof(uint):
                    entry.Mark = BinaryPrimitives.ReadUInt32BigEndian(outer.Value);
                    break;
                case IdAttribute when outer.Value.Length >= sizeof(uint):
                    entry.Id = BinaryPrimitives.ReadUInt32BigEndian(outer.Value);
                    break;
                case Timestamp:
                    entry.StartNanoseconds = Start(outer.Value);
                    break;
            }
        }
        return entry;
    }

    /// <summary>Only <see cref="State"/> and <see cref="Mark"/>: to count.</summary>
    internal static ConntrackEntry ReadState(ReadOnlySpan<byte> message)
    {
        ConntrackEntry entry = default;
        NetlinkAttributes outer = Attributes(message);
        while (outer.Next())
        {
            if (outer.Type == ProtocolInfo) entry.State = TcpState(outer.Value);
            if (outer.Type != MarkAttribute || outer.Value.Length < sizeof(uint)) continue;
            entry.Mark = BinaryPrimitives.ReadUInt32BigEndian(outer.Value);
            if (entry.State is not null) break; // everything else costs more than it
        }
        return entry;
    }

    /// <summary>One end of one of its two tuples.</summary>
    internal static Peer? End(ReadOnlySpan<byte> message, ushort tuple, bool destination)
    {
        NetlinkAttributes outer = Attributes(message);
        while (outer.Next())
            if (outer.Type == tuple) return Of(outer.Value, destination);
        return null;
    }

    /// <summary>Of the original direction: IPPROTO_TCP, IPPROTO_UDP, ...; null: it is not told.</summary>
    internal static byte? ProtocolOf(ReadOnlySpan<byte> message)
    {
        NetlinkAttributes outer = Attributes(message);
        while (outer.Next())
        {
            if (outer.Type != TupleOriginal) continue;
            NetlinkAttributes tuple = new(outer.Value);
            while (tuple.Next())
            {
                if (tuple.Type != TuplePorts) continue;
                NetlinkAttributes ports = new(tuple.Value);
                while (ports.Next())
                    if (ports.Type == Protocol && ports.Value.Length >= 1) return ports.Value[0];
            }
        }
        return null;
    }

    // struct nfgenmsg: family u8, version u8, res_id u16.
    internal static NetlinkAttributes Attributes(ReadOnlySpan<byte> message) => new(message[Math.Min(4, message.Length)..]);

    private static byte? TcpState(ReadOnlySpan<byte> info)
    {
        NetlinkAttributes protocols = new(info);
        while (protocols.Next())
        {
            if (protocols.Type != ProtocolInfoTcp) continue;
            NetlinkAttributes tcp = new(protocols.Value);
            while (tcp.Next())
                if (tcp.Type == TcpStateAttribute && tcp.Value.Length >= 1) return tcp.Value[0];
        }
        return null;
    }

    private static long Start(ReadOnlySpan<byte> timestamp)
    {
        NetlinkAttributes times = new(timestamp);
        while (times.Next())
            if (times.Type == TimestampStart && times.Value.Length >= sizeof(long)) return BinaryPrimitives.ReadInt64BigEndian(times.Value);
        return 0;
    }

    private static Peer Source(ReadOnlySpan<byte> tuple) => Of(tuple, destination: false);

    private static Peer Of(ReadOnlySpan<byte> tuple, bool destination)
    {
        Peer end = default;
        ushort four = V4Source, six = V6Source, port = SourcePort;
        if (destination) (four, six, port) = (V4Source + 1, V6Source + 1, DestinationPort);
        NetlinkAttributes parts = new(tuple);
        while (parts.Next())
        {
            if (parts.Type is not (TupleAddresses or TuplePorts)) continue;
            NetlinkAttributes fields = new(parts.Value);
            while (fields.Next())
            {
                if (parts.Type == TuplePorts)
                {
                    if (fields.Type == port && fields.Value.Length >= 2) end.Port = BinaryPrimitives.ReadUInt16BigEndian(fields.Value);
                }
                else if (fields.Type == four && fields.Value.Length == 4 || fields.Type == six && fields.Value.Length == 16)
                {
                    end.SetAddress(fields.Value);
                }
            }
        }
        return end;
    }
}

/// <summary>
/// An address and port without an object. IPv4 is kept as the IPv6 address it is mapped to, since the sockets of a listener that takes
/// both families show it that way.
/// </summary>
internal struct Peer : IEquatable<Peer>
{
    private ulong _high, _low;

    internal ushort Port;

    internal static Peer Of(System.Net.IPEndPoint end)
    {
        Span<byte> bytes = stackalloc byte[16];
        end.Address.TryWriteBytes(bytes, out int length);
        Peer peer = new() { Port = (ushort)end.Port };
        peer.SetAddress(bytes[..length]);
        return peer;
    }

    /// <param name="bytes">4 or 16, as on the wire.</param>
    internal void SetAddress(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length == 4)
        {
            (_high, _low) = (0, 0xffff_0000_0000ul | BinaryPrimitives.ReadUInt32BigEndian(bytes)); // ::ffff:0:0/96
            return;
        }
        _high = BinaryPrimitives.ReadUInt64BigEndian(bytes);
        _low = BinaryPrimitives.ReadUInt64BigEndian(bytes[8..]);
    }

    internal readonly System.Net.IPAddress Address
    {
        get
        {
            Span<byte> bytes = stackalloc byte[16];
            BinaryPrimitives.WriteUInt64BigEndian(bytes, _high);
            BinaryPrimitives.WriteUInt64BigEndian(bytes[8..], _low);
            var address = new System.Net.IPAddress(bytes);
            return address.IsIPv4MappedToIPv6 ? address.MapToIPv4() : address;
        }
    }

    /// <summary>
    /// A number that stands for this peer at a private port. Seeded: who can choose addresses and ports cannot choose numbers that meet.
    /// </summary>
    internal readonly ulong Key(ushort privatePort, (ulong First, ulong Second) seed)
    {
        ulong address = Fold(_high ^ seed.First, _low ^ seed.Second);
        return Fold(address ^ seed.Second, ((ulong)Port << 16 | privatePort) ^ seed.First);
    }

    // Both halves of the product, so that every bit of either side reaches every bit of the result.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong Fold(ulong a, ulong b)
    {
        ulong high = Math.BigMul(a, b, out ulong low);
        return high ^ low;
    }

    public readonly bool Equals(Peer other) => _high == other._high && _low == other._low && Port == other.Port;

    public override readonly bool Equals(object? obj) => obj is Peer other && Equals(other);

    public override readonly int GetHashCode() => HashCode.Combine(_high, _low, Port);
}
