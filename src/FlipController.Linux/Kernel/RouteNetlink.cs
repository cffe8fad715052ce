using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;

namespace FlipController.Linux.Kernel;

/// <param name="Kind">veth, ifb, bridge, ...; null for hardware.</param>
/// <param name="Alias">What an administrator, or we, wrote beside it.</param>
/// <param name="PortOf">The kind of what it is a port of: bridge, bond, vrf; null when it is nobody's.</param>
/// <param name="HasEthernet">Its packets begin with an Ethernet header.</param>
internal sealed record Link(int Index, string Name, string? Kind, string? Alias, string? PortOf, bool IsUp, bool IsLoopback, bool HasEthernet);

/// <param name="Queued">Packets in it now.</param>
/// <param name="Backlog">Their bytes.</param>
/// <param name="Dropped">Packets, since it was made.</param>
/// <param name="Sent">Packets, since it was made.</param>
internal readonly record struct QdiscStatistics(uint Queued, uint Backlog, uint Dropped, uint Sent);

internal sealed record Qdisc(int Device, TcHandle Handle, TcHandle Parent, string Kind, QdiscStatistics Statistics);

/// <summary>
/// Devices, queueing disciplines and filters by mark, of the network namespace of the thread that opened it; any one thread at a
/// time. Add fails if present (EEXIST), Delete fails if absent.
/// Constants: include/uapi/linux/rtnetlink.h, if_link.h, pkt_sched.h, pkt_cls.h, gen_stats.h.
/// </summary>
internal sealed partial class RouteNetlink : IDisposable
{
    private const ushort NewLink = 16, DelLink = 17, GetLink = 18; // RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK
    internal const ushort NewQdisc = 36; // RTM_NEWQDISC
    private const ushort DelQdisc = 37, GetQdisc = 38; // RTM_DELQDISC, RTM_GETQDISC
    private const ushort NewFilter = 44; // RTM_NEWTFILTER
    private const ushort LinkName = 3, LinkQueueLength = 13, LinkInfo = 18, LinkAlias = 20; // IFLA_IFNAME, _TXQLEN, _LINKINFO, _IFALIAS
    private const ushort InfoKind = 1, InfoPortKind = 4; // IFLA_INFO_KIND, IFLA_INFO_SLAVE_KIND
    private const ushort Kind = 1, Options = 2, Statistics2 = 7; // TCA_KIND, TCA_OPTIONS, TCA_STATS2
    private const ushort StatisticsBasic = 1, StatisticsQueue = 3; // TCA_STATS_BASIC, TCA_STATS_QUEUE
    private const ushort FwClass = 1, FwMask = 5; // TCA_FW_CLASSID, TCA_FW_MASK
    private const uint Up = 1, Loopback = 8; // IFF_UP, IFF_LOOPBACK: include/uapi/linux/if.h
    private const ushort Ethernet = 1; // ARPHRD_ETHER: include/uapi/linux/if_arp.h
    private const ushort AllProtocols = 3; // ETH_P_ALL: include/uapi/linux/if_ether.h
    private const NetlinkFlags Asked = NetlinkFlags.Request | NetlinkFlags.Acknowledge;

    private readonly NetlinkSocket _netlink;

    internal RouteNetlink() : this(new NetlinkSocket(NetlinkProtocol.Route)) { }

    private RouteNetlink(NetlinkSocket netlink) => _netlink = netlink;

    /// <summary>For tests: <see cref="NetlinkSocket.Over"/>.</summary>
    internal static RouteNetlink Over(NetlinkSocket netlink) => new(netlink);

    internal int Fd => _netlink.Fd;

    public void Dispose() => _netlink.Dispose();

    internal IReadOnlyList<Link> Links() => _netlink.Dump("list the network devices", ListLinks(), () => new List<Link>(), static (links, type, payload) =>
    {
        if (type == NewLink && ReadLink(payload) is { } link) links.Add(link);
    });

    /// <summary>The device and the words beside it, in one write: it never stands there without them.</summary>
    internal void AddLink(string name, string kind, uint queueLength, string alias) =>
        _netlink.Request($"add device {name} of kind {kind}", AddLink(name, kind, queueLength), SetAlias(name, alias));

    internal void SetUp(Link link) => _netlink.Request($"set device {link.Name} up", SetUp(link.Index));

    internal void SetDown(Link link) => _netlink.Request($"set device {link.Name} down", SetDown(link.Index));

    internal void DeleteLink(Link link) => _netlink.Request($"delete device {link.Name}", DeleteLink(link.Index));

    /// <summary>Of one device; those the kernel made by itself (noqueue, pfifo_fast) have handle 0.</summary>
    internal IReadOnlyList<Qdisc> Qdiscs(int device) => _netlink.Dump("list the qdiscs", ListQdiscs(device), () => new List<Qdisc>(), (qdiscs, type, payload) =>
    {
        // Kernels before 4.18 list all devices' whatever was asked for.
        if (type == NewQdisc && ReadQdisc(payload) is { } qdisc && qdisc.Device == device) qdiscs.Add(qdisc);
    });

    internal void AddQdisc(string operation, int device, TcHandle parent, TcHandle handle, string kind, ReadOnlySpan<byte> options) =>
        _netlink.Request(operation, AddQdisc(device, parent, handle, kind, options));

    internal void DeleteQdisc(string operation, int device, TcHandle parent, TcHandle handle) =>
        _netlink.Request(operation, DeleteQdisc(device, parent, handle));

    internal void AddFwFilter(string operation, int device, TcHandle parent, ushort preference, uint mark, uint mask, TcHandle target) =>
        _netlink.Request(operation, AddFwFilter(device, parent, preference, mark, mask, target));

    internal void Request(string operation, NetlinkMessage message) => _netlink.Request(operation, message);

    internal void Request(string operation, NetlinkMessage first, NetlinkMessage second) => _netlink.Request(operation, first, second);

    /// <summary>Equivalent to: <c>ip link add NAME txqueuelen N type KIND</c>.</summary>
    internal static NetlinkMessage AddLink(string name, string kind, uint queueLength)
    {
        NetlinkMessage message = Message(NewLink, Asked | NetlinkFlags.Create | NetlinkFlags.Exclusive, new LinkHeader());
        message.Put(LinkQueueLength, queueLength);
        message.PutText(LinkName, name);
        int info = message.BeginPlainNest(LinkInfo);
        message.Put(InfoKind, Encoding.UTF8.GetBytes(kind));
        message.EndNest(info);
        return message;
    }

    /// <summary>Equivalent to: <c>ip link set NAME alias TEXT</c>, which asks for the device's number before.</summary>
    internal static NetlinkMessage SetAlias(string name, string alias)
    {
        NetlinkMessage message = Message(NewLink, Asked, new LinkHeader());
        message.PutText(LinkName, name);
        message.Put(LinkAlias, Encoding.UTF8.GetBytes(alias));
        return message;
    }

    /// <summary>Equivalent to: <c>ip link set NAME up</c>.</summary>
    internal static NetlinkMessage SetUp(int device) => Message(NewLink, Asked, new LinkHeader { Index = device, Flags = Up, Change = Up });

    /// <summary>Equivalent to: <c>ip link set NAME down</c>.</summary>
    internal static NetlinkMessage SetDown(int device) => Message(NewLink, Asked, new LinkHeader { Index = device, Change = Up });

    /// <summary>Equivalent to: <c>ip link delete NAME</c>.</summary>
    internal static NetlinkMessage DeleteLink(int device) => Message(DelLink, Asked, new LinkHeader { Index = device });

    /// <summary>Equivalent to: <c>tc qdisc add dev D parent|root P handle H KIND</c>.</summary>
    internal static NetlinkMessage AddQdisc(int device, TcHandle parent, TcHandle handle, string kind, ReadOnlySpan<byte> options) =>
        WithOptions(NewQdisc, Asked | NetlinkFlags.Create | NetlinkFlags.Exclusive, new TcHeader(device, handle, parent), kind, options);

    /// <summary>Equivalent to: <c>tc qdisc replace dev D parent|root P handle H KIND</c>.</summary>
    internal static NetlinkMessage ReplaceQdisc(int device, TcHandle parent, TcHandle handle, string kind, ReadOnlySpan<byte> options) =>
        WithOptions(NewQdisc, Asked | NetlinkFlags.Create | NetlinkFlags.Replace, new TcHeader(device, handle, parent), kind, options);

    /// <summary>Equivalent to: <c>tc qdisc change dev D parent|root P handle H KIND</c>.</summary>
    internal static NetlinkMessage ChangeQdisc(int device, TcHandle parent, TcHandle handle, string kind, ReadOnlySpan<byte> options) =>
        WithOptions(NewQdisc, Asked, new TcHeader(device, handle, parent), kind, options);

    /// <summary>Equivalent to: <c>tc qdisc delete dev D parent|root P [handle H]</c>.</summary>
    internal static NetlinkMessage DeleteQdisc(int device, TcHandle parent, TcHandle handle) =>
        Message(DelQdisc, Asked, new TcHeader(device, handle, parent));

    /// <summary>
    /// Asks for one qdisc with its statistics. Before 6.4 the kernel answered to whoever listens for changes, and to the one who asked
    /// only with NLM_F_ECHO: qdisc_notify() in net/sched/sch_api.c.
    /// </summary>
    internal static NetlinkMessage ReadQdisc(int device, TcHandle parent, TcHandle handle) =>
        Message(GetQdisc, Asked | NetlinkFlags.Echo, new TcHeader(device, handle, parent));

    /// <summary>Equivalent to: <c>tc qdisc show dev D</c>.</summary>
    internal static NetlinkMessage ListQdiscs(int device) => Message(GetQdisc, NetlinkFlags.None, new TcHeader(device, default, default));

    /// <summary>Equivalent to: <c>tc filter add dev D parent P protocol all prio N handle MARK/MASK fw classid TARGET</c>.</summary>
    internal static NetlinkMessage AddFwFilter(int device, TcHandle parent, ushort preference, uint mark, uint mask, TcHandle target)
    {
        NetlinkMessage message = Message(NewFilter, Asked | NetlinkFlags.Create | NetlinkFlags.Exclusive,
            new TcHeader(device, new TcHandle(mark), parent, Info(preference, AllProtocols)));
        message.PutText(Kind, "fw");
        int options = message.BeginPlainNest(Options);
        message.Put(FwMask, mask);
        message.Put(FwClass, target.Value);
        message.EndNest(options);
        return message;
    }

    /// <summary>struct tcmsg's last word; the protocol in network order.</summary>
    private static uint Info(ushort preference, ushort protocol) => (uint)preference << 16 | BinaryPrimitives.ReverseEndianness(protocol);

    private static NetlinkMessage ListLinks() => Message(GetLink, NetlinkFlags.None, new LinkHeader());

    private static NetlinkMessage Message<T>(ushort type, NetlinkFlags flags, T header) where T : unmanaged
    {
        NetlinkMessage message = new(new byte[512], type, flags);
        message.Header(header);
        return message;
    }

    private static NetlinkMessage WithOptions(ushort type, NetlinkFlags flags, TcHeader header, string kind, ReadOnlySpan<byte> options)
    {
        NetlinkMessage message = Message(type, flags, header);
        message.PutText(Kind, kind);
        if (options.Length > 0) message.Put(Options, options);
        return message;
    }

    private static Link? ReadLink(ReadOnlySpan<byte> payload)
    {
        if (payload.Length < Marshal.SizeOf<LinkHeader>()) return null;
        LinkHeader header = MemoryMarshal.Read<LinkHeader>(payload);
        string name = "";
        string? kind = null, alias = null, portOf = null;
        NetlinkAttributes attributes = new(payload[Marshal.SizeOf<LinkHeader>()..]);
        while (attributes.Next())
        {
            switch (attributes.Type)
            {
                case LinkName: name = Text(attributes.Value); break;
                case LinkAlias: alias = Text(attributes.Value); break;
                case LinkInfo:
                    NetlinkAttributes info = new(attributes.Value);
                    while (info.Next())
                    {
                        if (info.Type == InfoKind) kind = Text(info.Value);
                        if (info.Type == InfoPortKind) portOf = Text(info.Value);
                    }
                    break;
            }
        }
        return new Link(header.Index, name, kind, alias, portOf, (header.Flags & Up) != 0, (header.Flags & Loopback) != 0, header.Type == Ethernet);
    }

    private static Qdisc? ReadQdisc(ReadOnlySpan<byte> payload)
    {
        if (payload.Length < Marshal.SizeOf<TcHeader>()) return null;
        TcHeader header = MemoryMarshal.Read<TcHeader>(payload);
        string kind = "";
        NetlinkAttributes attributes = new(payload[Marshal.SizeOf<TcHeader>()..]);
        while (attributes.Next())
            if (attributes.Type == Kind) kind = Text(attributes.Value);
        return new Qdisc(header.Device, header.Handle, header.Parent, kind, ReadStatistics(payload));
    }

    /// <summary>Out of an RTM_NEWQDISC; allocates nothing.</summary>
    internal static QdiscStatistics ReadStatistics(ReadOnlySpan<byte> payload)
    {
        uint queued = 0, backlog = 0, dropped = 0, sent = 0;
        NetlinkAttributes attributes = new(payload[Math.Min(payload.Length, 20)..]); // struct tcmsg
        while (attributes.Next())
        {
            if (attributes.Type != Statistics2) continue;
            NetlinkAttributes statistics = new(attributes.Value);
            while (statistics.Next())
            {
                ReadOnlySpan<byte> value = statistics.Value;
                if (statistics.Type == StatisticsBasic && value.Length >= 12) // struct gnet_stats_basic: bytes u64, packets u32
                    sent = MemoryMarshal.Read<uint>(value[8..]);
                if (statistics.Type == StatisticsQueue && value.Length >= 12) // struct gnet_stats_queue: qlen, backlog, drops, ...
                {
                    queued = MemoryMarshal.Read<uint>(value);
                    backlog = MemoryMarshal.Read<uint>(value[4..]);
                    dropped = MemoryMarshal.Read<uint>(value[8..]);
                }
            }
        }
        return new QdiscStatistics(queued, backlog, dropped, sent);
    }

    private static string Text(ReadOnlySpan<byte> value) => Encoding.UTF8.GetString(value.TrimEnd((byte)0));

    [StructLayout(LayoutKind.Sequential)]
    private struct LinkHeader // struct ifinfomsg
    {
        internal byte Family, Pad;
        internal ushort Type;
        internal int Index;
        internal uint Flags, Change;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct TcHeader(int device, TcHandle handle, TcHandle parent, uint info = 0) // struct tcmsg
    {
        internal byte Family, Pad1;
        internal ushort Pad2;
        internal int Device = device;
        internal TcHandle Handle = handle, Parent = parent;
        internal uint Info = info;
    }
}
