using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;
using static FlipController.Fuzz.FuzzTargets;

namespace FlipController.Fuzz;

/// <summary>What the kernel says: netlink over a pair of sockets with us at its end, files of /proc, libnftables' listings.</summary>
internal sealed unsafe partial class KernelTargets : IDisposable
{
    private const int Acknowledgements = 4;
    private const uint Mark = 0x00100700, MarkMask = 0x00ff0700;

    private readonly (int Ours, int Kernel) _queuePair = Pair();
    private readonly NfQueue _queue;
    private LedgerBook _book = new();
    private int _events;

    public KernelTargets() => _queue = NfQueue.Over(_queuePair.Ours);

    public void Dispose()
    {
        // Not the queue: it would wait for an answer to its farewell.
        _ = Libc.Close(_queuePair.Kernel);
        _ = Libc.Close(_queuePair.Ours);
    }

    public IEnumerable<FuzzTarget> All()
    {
        byte[] entry = Entry();
        yield return new("netlink-answer", 30, [Error(0), Error(1, "no such thing"), [.. Error(-2), .. Error(0)]], content => Answered(content, netlink =>
            netlink.Request("do it", new NetlinkMessage(new byte[64], 0x20, NetlinkFlags.None))));
        yield return new("sock-diag", 30, [Dump(20, Socket(2, 10)), Dump(20, Socket(10, 1))], content => Answered(content, netlink =>
        {
            using SockDiag sockets = SockDiag.Over(netlink);
            switch (content.Length % 4)
            {
                case 0: _ = sockets.Sockets(TcpStates.Live, null).Count; break;
                case 1: _ = sockets.CountByPort(TcpStates.Live, new PortBlock(21000, 64)).Count; break;
                case 2: _ = sockets.Unaccepted([21000, 21001]); break;
                default:
                    long sum = 0;
                    sockets.Walk(TcpStates.Live, new PortBlock(21000, 64), 0, (int _, scoped in TcpSocketView socket) =>
                        sum += socket.LocalPort + socket.PeerPort + socket.Inode + socket.ReceiveQueue + socket.SendQueue + (long)socket.State
                            + (socket.Info.IdleMs ?? 0) + (long)(socket.Info.BytesReceived ?? 0) + (long)(socket.Info.BytesAcknowledged ?? 0)
                            + socket.Id.Peer.Port + socket.Local.ToString().Length + socket.Peer.ToString().Length);
                    break;
            }
        }));
        yield return new("links-and-qdiscs", 30, [Dump(16, LinkMessage()), Dump(36, QdiscMessage())], content => Answered(content, netlink =>
        {
            using RouteNetlink route = RouteNetlink.Over(netlink);
            if (content.Length % 2 == 0) _ = route.Links().Count;
            else _ = route.Qdiscs(3).Count;
        }));
        yield return new("conntrack-dump", 30, [Dump(1 << 8, entry)], content => Answered(content, netlink =>
        {
            using Conntrack conntrack = Conntrack.Over(netlink);
            _ = conntrack.Count(Mark, MarkMask);
        }));
        yield return new("conntrack-events", 200, [Message(1 << 8, 0, entry), Message(1 << 8, (NetlinkFlags)0x600, entry), Message(1 << 8 | 2, 0, entry)], content =>
        {
            // What is kept of them is for a generation's life; here it is thrown away now and then.
            if (++_events % 5000 == 0) _book = new LedgerBook();
            if (_book.Find(Mark) is null) _book.Add(Mark, MarkMask);
            bool taken = _book.TakeEvent(content);
            ReadOnlySpan<byte> payload = content.AsSpan(Math.Min(16, content.Length));
            _ = ConntrackEntry.ReadState(payload).IsLive | ConntrackEntry.Read(payload).IsOpening;
            _ = ConntrackEntry.End(payload, ConntrackEntry.TupleOriginal, destination: true)?.Address;
            _ = ConntrackEntry.End(payload, ConntrackEntry.TupleReply, destination: false)?.Address;
            Demand(_book.Find(Mark) is { Live: >= 0, Opening: >= 0 }, "fewer than no connections");
            return taken;
        });
        yield return new("nfqueue", 60, [Message(3 << 8, 0, [0, 0, 0x11, 0xf8, 11, 0, 1, 0, 0, 0, 0, 7, 8, 0, 1, 0]), Error(2)], content =>
        {
            Say(_queuePair.Kernel, content);
            bool some = false;
            while (_queue.Next(out _, out _) != NfQueueEvent.None) some = true;
            return some;
        });
        yield return new("nfqueue-list", 80, Bytes(" 4600   31337     3 1    0     0     0       17  1\n 4601   5     0 2 65531     4     5       17  1\n"),
            content => NfQueueList.Parse(Text(content)).Count > 0);
        yield return new("nft-listing", 40, Bytes(Listing), content =>
        {
            try
            {
                using JsonDocument listing = JsonDocument.Parse(content);
                RedirectState state = NftListing.Parse(listing.RootElement);
                return state.BaseComplete && state.Active("edge") is not null;
            }
            catch (Exception e) when (e is JsonException or FlipException)
            {
                return false;
            }
        });
    }

    private const string Listing = """
        {"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}}, {"table": {"family": "inet", "name": "flipcontroller", "handle": 1}},
        {"chain": {"family": "inet", "table": "flipcontroller", "name": "services", "handle": 1}}, {"chain": {"name": "pair-edge"}}, {"chain": {"name": "generation-edge-7"}},
        {"chain": {"name": "loops-edge"}}, {"chain": {"name": "prerouting", "type": "nat", "hook": "prerouting", "prio": -105, "policy": "accept"}},
        {"rule": {"chain": "services", "handle": 9, "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "flags"}}, "right": "syn"}}, {"jump": {"target": "pair-edge"}}]}},
        {"rule": {"chain": "services", "expr": [{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "udp"}}, {"jump": {"target": "pair-edge"}}]}},
        {"rule": {"chain": "pair-edge", "expr": [{"goto": {"target": "generation-edge-7"}}]}},
        {"rule": {"chain": "prerouting", "expr": [{"jump": {"target": "services"}}]}},
        {"rule": {"chain": "output", "expr": [{"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 1179404624}}, {"return": null}]}},
        {"rule": {"chain": "output", "expr": [{"jump": {"target": "services"}}]}},
        {"rule": {"chain": "guard", "comment": "edge blue", "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"range": [21000, 21063]}}}]}},
        {"rule": {"chain": "loops-edge", "comment": "6 127.0.0.1:8443", "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22001}}, {"dnat": {"port": 21000}}]}},
        {"rule": {"chain": "generation-edge-7", "comment": "*:80", "expr": [{"mangle": {"key": {"ct": {"key": "mark"}}, "value": 1}}, {"dnat": {"port": 21001}}]}}]}
        """;

    /// <summary>Gives it the bytes as the kernel's first datagram and then what ends any wait.</summary>
    private static bool Answered(byte[] content, Action<NetlinkSocket> ask)
    {
        (int ours, int kernel) = Pair();
        using NetlinkSocket netlink = NetlinkSocket.Over(ours);
        try
        {
            Say(kernel, content);
            for (uint sequence = 1; sequence <= Acknowledgements; sequence++) Say(kernel, Error(0, sequence: sequence));
            ask(netlink);
            return true;
        }
        catch (KernelException)
        {
            return false;
        }
        finally
        {
            _ = Libc.Close(kernel);
        }
    }

    private static (int Ours, int Kernel) Pair()
    {
        int* pair = stackalloc int[2];
        Demand(SocketPair(1, 2 | Libc.CloseOnExec, 0, pair) == 0, "no pair of sockets"); // AF_UNIX, SOCK_DGRAM
        return (pair[0], pair[1]);
    }

    private static void Say(int kernel, byte[] content)
    {
        fixed (byte* data = content) Demand(Libc.SendTo(kernel, data, (nuint)content.Length, 0, null, 0) == content.Length, "the socket takes no more");
    }

    private static byte[] Message(ushort type, NetlinkFlags flags, byte[] payload, uint sequence = 1)
    {
        byte[] message = new byte[NetlinkMessage.HeaderLength + NetlinkMessage.Align(payload.Length)];
        BinaryPrimitives.WriteInt32LittleEndian(message, NetlinkMessage.HeaderLength + payload.Length);
        BinaryPrimitives.WriteUInt16LittleEndian(message.AsSpan(4), type);
        BinaryPrimitives.WriteUInt16LittleEndian(message.AsSpan(6), (ushort)flags);
        BinaryPrimitives.WriteUInt32LittleEndian(message.AsSpan(8), sequence);
        payload.CopyTo(message, NetlinkMessage.HeaderLength);
        return message;
    }

    private static byte[] Dump(ushort type, byte[] payload) =>
        [.. Message(type, NetlinkFlags.Multi, payload), .. Message(type, NetlinkFlags.Multi, payload), .. Message(NetlinkType.Done, NetlinkFlags.Multi, [0, 0, 0, 0])];

    /// <summary>With the request's header behind the number and the kernel's words as an attribute.</summary>
    private static byte[] Error(int errno, string? words = null, uint sequence = 1)
    {
        byte[] number = new byte[4 + NetlinkMessage.HeaderLength];
        BinaryPrimitives.WriteInt32LittleEndian(number, -errno);
        number[4] = NetlinkMessage.HeaderLength;
        return Message(NetlinkType.Error, NetlinkFlags.AcknowledgeAttributes, words is null ? number : [.. number, .. Attribute(1, [.. Encoding.UTF8.GetBytes(words), 0])], sequence);
    }

    private static byte[] Attribute(ushort type, params byte[][] parts)
    {
        byte[] value = [.. parts.SelectMany(p => p)];
        byte[] attribute = new byte[NetlinkMessage.Align(4 + value.Length)];
        BinaryPrimitives.WriteUInt16LittleEndian(attribute, (ushort)(4 + value.Length));
        BinaryPrimitives.WriteUInt16LittleEndian(attribute.AsSpan(2), type);
        value.CopyTo(attribute, 4);
        return attribute;
    }

    private static byte[] Entry()
    {
        byte[] Tuple(ushort type, byte[] from, byte[] to, byte[] source, byte[] destination) => Attribute(type,
            Attribute(1, Attribute(1, from), Attribute(2, to)), Attribute(2, Attribute(1, [6]), Attribute(2, source), Attribute(3, destination)));
        return
        [
            2, 0, 0, 0,
            .. Tuple(1, [10, 0, 0, 1], [10, 0, 0, 2], [0x80, 1], [0, 80]), .. Tuple(2, [10, 0, 0, 2], [10, 0, 0, 1], [0x52, 8], [0x80, 1]),
            .. Attribute(4, Attribute(1, Attribute(1, [3]))), .. Attribute(8, [0, 0x10, 7, 0]), .. Attribute(12, [1, 2, 3, 4]),
            .. Attribute(20, Attribute(1, [0, 0, 0, 1, 2, 3, 4, 5])),
        ];
    }

    private static byte[] Socket(byte family, byte state)
    {
        byte[] message = new byte[72];
        (message[0], message[1], message[4], message[5], message[8], message[24], message[68]) = (family, state, 0x52, 8, 127, 10, 9);
        return [.. message, .. Attribute(2, new byte[160]), .. Attribute(11, [1])];
    }

    private static byte[] LinkMessage() =>
    [
        0, 0, 1, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        .. Attribute(3, "eth0\0"u8.ToArray()), .. Attribute(20, "of ours\0"u8.ToArray()), .. Attribute(18, Attribute(1, "ifb\0"u8.ToArray()), Attribute(4, "bridge\0"u8.ToArray())),
    ];

    private static byte[] QdiscMessage() =>
    [
        0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0,
        .. Attribute(1, "plug\0"u8.ToArray()), .. Attribute(7, Attribute(1, new byte[16]), Attribute(3, new byte[20])),
    ];

    [LibraryImport("libc", EntryPoint = "socketpair")]
    private static partial int SocketPair(int domain, int type, int protocol, int* pair);
}
