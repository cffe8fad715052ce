using System.Buffers.Binary;
using System.Net;
using System.Runtime.InteropServices;
using FlipController.Core;

namespace FlipController.Linux.Kernel;

/// <summary>States of a TCP socket: include/net/tcp_states.h, the TCPF_ bits.</summary>
[Flags]
public enum TcpStates : uint
{
    None = 0,
    Established = 1 << 1, // TCPF_ESTABLISHED
    SynSent = 1 << 2, // TCPF_SYN_SENT
    SynReceived = 1 << 3, // TCPF_SYN_RECV
    FinWait1 = 1 << 4, // TCPF_FIN_WAIT1
    FinWait2 = 1 << 5, // TCPF_FIN_WAIT2
    TimeWait = 1 << 6, // TCPF_TIME_WAIT
    Close = 1 << 7, // TCPF_CLOSE
    CloseWait = 1 << 8, // TCPF_CLOSE_WAIT
    LastAck = 1 << 9, // TCPF_LAST_ACK
    Listen = 1 << 10, // TCPF_LISTEN
    Closing = 1 << 11, // TCPF_CLOSING

    /// <summary>Somebody may still get or send a byte of data: what a drain waits for.</summary>
    Live = Established | CloseWait | FinWait1 | FinWait2,
}

/// <param name="Inode">As in /proc/PID/fd; 0 when no process holds the socket (an orphan, a request, TIME_WAIT).</param>
/// <param name="ReceiveQueue">Bytes not read yet; of a listener: connections nobody has accepted yet.</param>
/// <param name="SendQueue">Bytes not acknowledged yet; of a listener: how many connections may wait.</param>
/// <param name="V6Only">Of an IPv6 listener: it takes no IPv4; null when it does not apply.</param>
public sealed record TcpSocket(
    IPEndPoint Local, IPEndPoint Remote, TcpStates State, uint Inode, uint ReceiveQueue, uint SendQueue, uint Uid, bool? V6Only);

/// <summary>
/// The kernel's list of TCP sockets, and of UDP ones that receive, IPv4 and IPv6, of the namespace of the thread that made this.
/// Equivalent to <c>ss -tan</c>, which asks the same way: include/uapi/linux/inet_diag.h, net/ipv4/inet_diag.c. One thread at a time.
/// </summary>
public sealed partial class SockDiag : IDisposable
{
    private const ushort ByFamily = 20; // SOCK_DIAG_BY_FAMILY, include/uapi/linux/sock_diag.h
    private const byte Tcp = 6; // IPPROTO_TCP
    private const byte Udp = 17; // IPPROTO_UDP
    private const byte Inet = 2; // AF_INET
    private const byte Inet6 = 10; // AF_INET6
    private const ushort RequestBytecode = 1; // INET_DIAG_REQ_BYTECODE
    private const ushort SkV6Only = 11; // INET_DIAG_SKV6ONLY
    private const byte SourcePortAtLeast = 2; // INET_DIAG_BC_S_GE
    private const byte SourcePortAtMost = 3; // INET_DIAG_BC_S_LE

    private readonly NetlinkSocket _netlink;

    public SockDiag() : this(new NetlinkSocket(NetlinkProtocol.SockDiag)) { }

    private SockDiag(NetlinkSocket netlink) => _netlink = netlink;

    /// <summary>For tests: <see cref="NetlinkSocket.Over"/>.</summary>
    internal static SockDiag Over(NetlinkSocket netlink) => new(netlink);

    public void Dispose() => _netlink.Dispose();

    /// <summary>Every listener, of every process.</summary>
    public IReadOnlyList<TcpSocket> Listeners() => Sockets(TcpStates.Listen, null);

    /// <summary>Sockets in one of the states; with <paramref name="localPorts"/>, only those, chosen by the kernel.</summary>
    public IReadOnlyList<TcpSocket> Sockets(TcpStates states, PortBlock? localPorts) => Sockets(states, localPorts, Tcp);

    private List<TcpSocket> Sockets(TcpStates states, PortBlock? localPorts, byte protocol)
    {
        List<TcpSocket> sockets = [];
        foreach (byte family in (ReadOnlySpan<byte>)[Inet, Inet6])
            sockets.AddRange(Dump(family, states, localPorts, () => new List<TcpSocket>(), (list, _, payload) =>
            {
                if (payload.Length >= Marshal.SizeOf<DiagMessage>()) list.Add(Read(payload));
            }, protocol: protocol));
        return sockets;
    }

    /// <summary>
    /// UDP sockets that take datagrams from anybody, which the kernel calls closed. Among them are such that only send: their port was
    /// chosen by the kernel.
    /// </summary>
    public IReadOnlyList<TcpSocket> Receivers(PortBlock? localPorts = null) => Sockets(TcpStates.Close, localPorts, Udp);

    /// <summary>UDP sockets, of one peer alone too.</summary>
    public IReadOnlyList<TcpSocket> Datagrams(PortBlock localPorts) => Sockets(TcpStates.Close | TcpStates.Established, localPorts, Udp);

    /// <summary>Connections to the ports that may still carry data.</summary>
    public IReadOnlyList<TcpSocket> Connections(PortBlock localPorts) => Sockets(TcpStates.Live, localPorts);

    /// <summary>How many sockets there are in the states; nothing is kept, so that a million connections cost no memory.</summary>
    public int Count(TcpStates states, PortBlock localPorts) => CountByPort(states, localPorts).Values.Sum();

    public IReadOnlyDictionary<int, int> CountByPort(TcpStates states, PortBlock localPorts)
    {
        Dictionary<int, int> counts = [];
        foreach (byte family in (ReadOnlySpan<byte>)[Inet, Inet6])
        {
            Dictionary<int, int> some = Dump(family, states, localPorts, () => new Dictionary<int, int>(), (byPort, _, payload) =>
            {
                if (payload.Length < Marshal.SizeOf<DiagMessage>()) return;
                int port = BinaryPrimitives.ReadUInt16BigEndian(payload[4..]);
                byPort[port] = byPort.GetValueOrDefault(port) + 1;
            });
            foreach ((int port, int count) in some) counts[port] = counts.GetValueOrDefault(port) + count;
        }
        return counts;
    }

    /// <summary>
    /// Handshakes that wait for the client's last ACK, by listening port: they belong to the listener, and die with it. The kernel
    /// keeps them as requests (TCP_NEW_SYN_RECV) and lists them as SYN_RECV with inode 0.
    /// </summary>
    public IReadOnlyDictionary<int, int> HandshakesByPort(PortBlock localPorts) => CountByPort(TcpStates.SynReceived, localPorts);

    private T Dump<T>(byte family, TcpStates states, PortBlock? ports, Func<T> begin, DumpReader<T> read, byte extensions = 0, byte protocol = Tcp)
    {
        Span<byte> buffer = stackalloc byte[128];
        NetlinkMessage message = new(buffer, ByFamily, NetlinkFlags.None);
        message.Header(new DiagRequest { Family = family, Protocol = protocol, Extensions = extensions, States = (uint)states });
        if (ports is { } block)
        {
            // A program of two jumps; a socket is listed when the end is reached exactly, and not when a jump goes 4 bytes past it
            // (inet_diag_bc_run). The port of a comparison stands in the second word's "no".
            Span<ushort> program =
            [
                Op(SourcePortAtLeast, 8), 20, 0, (ushort)block.First,
                Op(SourcePortAtMost, 8), 12, 0, (ushort)Math.Min(block.Last, 65535),
            ];
            message.Put(RequestBytecode, MemoryMarshal.AsBytes(program));
        }
        return _netlink.Dump($"list {(protocol == Udp ? "UDP" : "TCP")} sockets", message, begin, read);

        static ushort Op(byte code, byte yes) =>
            MemoryMarshal.Read<ushort>([code, yes]); // struct inet_diag_bc_op: code u8, yes u8, no u16
    }

    private static TcpSocket Read(ReadOnlySpan<byte> payload)
    {
        DiagMessage message = MemoryMarshal.Read<DiagMessage>(payload);
        bool? v6Only = null;
        NetlinkAttributes attributes = new(payload[Marshal.SizeOf<DiagMessage>()..]);
        while (attributes.Next())
        {
            if (attributes.Type == SkV6Only && attributes.Value.Length >= 1) v6Only = attributes.Value[0] != 0;
        }
        int addressLength = message.Family == Inet ? 4 : 16;
        return new TcpSocket(
            EndPoint(payload.Slice(8, addressLength), payload[4..]), EndPoint(payload.Slice(24, addressLength), payload[6..]),
            (TcpStates)(1u << message.State), message.Inode, message.ReceiveQueue, message.SendQueue, message.Uid, v6Only);

        static IPEndPoint EndPoint(ReadOnlySpan<byte> address, ReadOnlySpan<byte> port) =>
            new(new IPAddress(address), BinaryPrimitives.ReadUInt16BigEndian(port));
    }

    [StructLayout(LayoutKind.Sequential)]
    private unsafe struct DiagRequest // struct inet_diag_req_v2
    {
        internal byte Family, Protocol, Extensions, Pad;
        internal uint States;
        private fixed byte _id[48]; // struct inet_diag_sockid, not looked at in a dump
    }

    [StructLayout(LayoutKind.Sequential)]
    private unsafe struct DiagMessage // struct inet_diag_msg
    {
        internal byte Family, State, Timer, Retransmits;
        private fixed byte _id[48]; // sport be16, dport be16, src be32[4], dst be32[4], if u32, cookie u32[2]
        internal uint Expires, ReceiveQueue, SendQueue, Uid, Inode;
    }
}
