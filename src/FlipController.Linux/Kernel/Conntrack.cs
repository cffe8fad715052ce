using System.Buffers.Binary;
using System.Net;
using System.Net.NetworkInformation;

namespace FlipController.Linux.Kernel;

/// <param name="Live">In SYN_SENT, SYN_RECV or ESTABLISHED: somebody may still be served.</param>
/// <param name="Opening">Of those, in SYN_SENT or SYN_RECV: a retransmitted SYN still goes where the first one went.</param>
/// <param name="All">With those that only wait to be forgotten.</param>
public readonly record struct ConntrackCounts(int Live, int Opening, int All);

/// <summary>
/// Counts TCP connections that conntrack remembers with a mark. Equivalent to <c>conntrack -L -p tcp -m MARK/MASK</c>, IPv4 and
/// IPv6 in one dump; only the matching entries leave the kernel. Constants: include/uapi/linux/netfilter/nfnetlink_conntrack.h.
/// It answers for the namespace of the thread that made it, for one thread at a time.
/// </summary>
public sealed class Conntrack : IDisposable
{
    private const ushort Get = 1 << 8 | 1; // NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET
    private const ushort TupleOriginal = 1; // CTA_TUPLE_ORIG
    private const ushort TupleReply = 2; // CTA_TUPLE_REPLY
    private const ushort ProtocolInfo = 4; // CTA_PROTOINFO
    private const ushort ProtocolInfoTcp = 1; // CTA_PROTOINFO_TCP
    private const ushort TcpState = 1; // CTA_PROTOINFO_TCP_STATE
    private const ushort Mark = 8; // CTA_MARK
    private const ushort MarkMask = 21; // CTA_MARK_MASK

    // include/uapi/linux/netfilter/nf_conntrack_tcp.h. Everything after ESTABLISHED only waits for a timer: FIN_WAIT and TIME_WAIT
    // last two minutes after the last byte, and a drain that counted them would never end on a busy port.
    private const byte SynSent = 1; // TCP_CONNTRACK_SYN_SENT
    private const byte SynReceived = 2; // TCP_CONNTRACK_SYN_RECV
    private const byte Established = 3; // TCP_CONNTRACK_ESTABLISHED
    private const byte SynSent2 = 9; // TCP_CONNTRACK_SYN_SENT2, a simultaneous open

    private readonly NetlinkSocket _netlink;

    private Conntrack(NetlinkSocket netlink) => _netlink = netlink;

    /// <summary>Null when this kernel has no netfilter netlink.</summary>
    public static Conntrack? Open()
    {
        try
        {
            return new Conntrack(new NetlinkSocket(NetlinkProtocol.Netfilter));
        }
        catch (KernelException e) when (e.Errno == Errno.ProtocolNotSupported)
        {
            return null;
        }
    }

    public void Dispose() => _netlink.Dispose();

    /// <summary>Null when ctnetlink is not there to be asked.</summary>
    public ConntrackCounts? Count(uint mark, uint mask)
    {
        Span<byte> buffer = stackalloc byte[64];
        NetlinkMessage message = new(buffer, Get, NetlinkFlags.None);
        message.Header(0u); // struct nfgenmsg: family AF_UNSPEC, version NFNETLINK_V0, res_id 0
        message.PutBigEndian(Mark, mark);
        message.PutBigEndian(MarkMask, mask);
        try
        {
            Tally tally = _netlink.Dump($"count conntrack entries with mark 0x{mark:x}/0x{mask:x}", message, () => new Tally(),
                static (tally, _, payload) => tally.Add(payload[4..]));
            return new ConntrackCounts(tally.Live, tally.Opening, tally.All);
        }
        // A subsystem that is not registered is EINVAL: nfnetlink_rcv_msg() in net/netfilter/nfnetlink.c.
        catch (KernelException e) when (e.Errno is Errno.Invalid or Errno.NotSupported)
        {
            return null;
        }
    }

    /// <summary>
    /// Connections in the middle of being opened to these ports of this host that nothing redirects: a SYN that is sent again goes
    /// there. A walk over every entry of the host. Null when ctnetlink is not there to be asked.
    /// </summary>
    public int? OpeningTo(IReadOnlySet<int> ports)
    {
        HashSet<IPAddress> local = [.. NetworkInterface.GetAllNetworkInterfaces().SelectMany(i => i.GetIPProperties().UnicastAddresses)
            .Select(a => new IPAddress(a.Address.GetAddressBytes()))]; // without the zone of a link-local one
        Span<byte> buffer = stackalloc byte[32];
        NetlinkMessage message = new(buffer, Get, NetlinkFlags.None);
        message.Header(0u);
        try
        {
            return _netlink.Dump("count conntrack entries", message, () => new int[1], (count, _, payload) =>
            {
                ReadOnlySpan<byte> entry = payload[4..];
                if (Tally.Tcp(entry) is not (SynSent or SynReceived or SynSent2)) return;
                if (End(entry, TupleOriginal, destination: true) is not { } to || !ports.Contains(to.Port)) return;
                // The reply comes from where it was sent to: no NAT.
                if (to.Equals(End(entry, TupleReply, destination: false)) && (IPAddress.IsLoopback(to.Address) || local.Contains(to.Address))) count[0]++;
            })[0];
        }
        catch (KernelException e) when (e.Errno is Errno.Invalid or Errno.NotSupported)
        {
            return null;
        }
    }

    private static IPEndPoint? End(ReadOnlySpan<byte> entry, ushort tuple, bool destination)
    {
        IPAddress? address = null;
        int port = -1;
        NetlinkAttributes outer = new(entry);
        while (outer.Next())
        {
            if (outer.Type != tuple) continue;
            NetlinkAttributes parts = new(outer.Value);
            while (parts.Next())
            {
                NetlinkAttributes fields = new(parts.Value);
                while (fields.Next())
                {
                    // CTA_TUPLE_IP: CTA_IP_V4_SRC, V4_DST, V6_SRC, V6_DST; CTA_TUPLE_PROTO: CTA_PROTO_NUM, SRC_PORT, DST_PORT.
                    if (parts.Type == 1 && fields.Type is >= 1 and <= 4 && fields.Type % 2 == 0 == destination) address = new IPAddress(fields.Value);
                    if (parts.Type == 2 && fields.Type == (destination ? 3 : 2)) port = BinaryPrimitives.ReadUInt16BigEndian(fields.Value);
                }
            }
        }
        return address is null || port < 0 ? null : new IPEndPoint(address, port);
    }

    private sealed class Tally
    {
        internal int Live, Opening, All;

        internal void Add(ReadOnlySpan<byte> entry)
        {
            if (Tcp(entry) is not { } state) return;
            All++;
            if (state is SynSent or SynReceived or SynSent2) Opening++;
            if (state is SynSent or SynReceived or SynSent2 or Established) Live++;
        }

        /// <summary>Null for an entry that is not TCP.</summary>
        internal static byte? Tcp(ReadOnlySpan<byte> entry)
        {
            NetlinkAttributes outer = new(entry);
            while (outer.Next())
            {
                if (outer.Type != ProtocolInfo) continue;
                NetlinkAttributes info = new(outer.Value);
                while (info.Next())
                {
                    if (info.Type != ProtocolInfoTcp) continue;
                    NetlinkAttributes tcp = new(info.Value);
                    while (tcp.Next())
                    {
                        if (tcp.Type == TcpState && tcp.Value.Length >= 1) return tcp.Value[0];
                    }
                }
            }
            return null;
        }
    }
}
