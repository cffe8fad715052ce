using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace FlipController.Linux.Kernel;

/// <param name="Device">Index of the device that has it.</param>
/// <param name="Prefix">Bits.</param>
/// <param name="Protocol">Who has set it, as <c>ip address</c> shows it behind <c>proto</c>; 0: nobody said, or the kernel is older than 5.18.</param>
/// <param name="IsLinkLocal">Of this link alone.</param>
internal sealed record DeviceAddress(int Device, IPAddress Address, int Prefix, byte Protocol, bool IsLinkLocal);

/// <summary>IPV4_DEVCONF_ in include/uapi/linux/ip.h.</summary>
internal enum IPv4Setting : ushort { ArpAnnounce = 18, ArpIgnore = 19 }

// Addresses and routes. Constants: include/uapi/linux/if_addr.h, rtnetlink.h.
internal sealed partial class RouteNetlink
{
    private const ushort NewAddress = 20, DelAddress = 21, GetAddress = 22; // RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR
    private const ushort NewRoute = 24, GetRoute = 26; // RTM_NEWROUTE, RTM_GETROUTE
    private const ushort AddressAddress = 1, AddressLocal = 2, AddressFlags = 8, AddressProtocol = 11; // IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS, IFA_PROTO
    private const uint NoDuplicateDetection = 2; // IFA_F_NODAD
    private const ushort RouteDestination = 1, RouteDevice = 4, RouteGateway = 5; // RTA_DST, RTA_OIF, RTA_GATEWAY
    private const ushort LinkHardwareAddress = 1, LinkFamilies = 26, InetSettings = 1; // IFLA_ADDRESS, IFLA_AF_SPEC, IFLA_INET_CONF
    private const byte LinkScope = 253, HostScope = 254; // RT_SCOPE_LINK, RT_SCOPE_HOST
    private const byte Inet = 2, Inet6 = 10; // AF_INET, AF_INET6

    /// <summary>Every address of every device.</summary>
    internal IReadOnlyList<DeviceAddress> Addresses() => _netlink.Dump("list the addresses", Message(GetAddress, NetlinkFlags.None, new AddressHeader()),
        () => new List<DeviceAddress>(), static (addresses, type, payload) =>
        {
            if (type == NewAddress && ReadAddress(payload) is { } address) addresses.Add(address);
        });

    /// <summary>Equivalent to: <c>ip address add ADDRESS/32|128 dev DEVICE proto PROTOCOL scope host nodad</c>. What is there already stays.</summary>
    /// <param name="protocol">Who sets it; kernels before 5.18 do not keep it.</param>
    internal void AddHostAddress(string operation, int device, IPAddress address, byte protocol)
    {
        try
        {
            _netlink.Request(operation, AddressMessage(NewAddress, Asked | NetlinkFlags.Create | NetlinkFlags.Exclusive, device, address, protocol));
        }
        catch (KernelException e) when (e.Errno == Errno.Exists)
        {
            // As it should be.
        }
    }

    /// <summary>Equivalent to: <c>ip address delete ADDRESS/32|128 dev DEVICE</c>. False: it is not there.</summary>
    internal bool DeleteHostAddress(string operation, int device, IPAddress address)
    {
        try
        {
            _netlink.Request(operation, AddressMessage(DelAddress, Asked, device, address, null));
            return true;
        }
        catch (KernelException e) when (e.Errno is Errno.AddressNotAvailable)
        {
            return false;
        }
    }

    /// <summary>The device by which packets to an address leave, and the router they go to first; null: there is none. Equivalent to <c>ip route get</c>.</summary>
    internal (int Device, IPAddress? Router)? RouteTo(IPAddress address)
    {
        bool v4 = address.AddressFamily == AddressFamily.InterNetwork;
        NetlinkMessage message = Message(GetRoute, NetlinkFlags.Request, new RouteHeader { Family = v4 ? Inet : Inet6, DestinationLength = (byte)(v4 ? 32 : 128) });
        message.Put(RouteDestination, address.GetAddressBytes());
        var found = new (int Device, IPAddress? Router)?[1];
        try
        {
            _netlink.Ask($"find the route to {address}", message, found, static (found, type, payload) =>
            {
                if (type != NewRoute || payload.Length < Marshal.SizeOf<RouteHeader>()) return;
                int device = 0;
                IPAddress? router = null;
                NetlinkAttributes attributes = new(payload[Marshal.SizeOf<RouteHeader>()..]);
                while (attributes.Next())
                {
                    if (attributes.Type == RouteDevice && attributes.Value.Length >= 4) device = MemoryMarshal.Read<int>(attributes.Value);
                    if (attributes.Type == RouteGateway && attributes.Value.Length is 4 or 16) router = new IPAddress(attributes.Value);
                }
                if (device != 0) found[0] = (device, router);
            });
        }
        catch (KernelException e) when (e.Errno is Errno.NetworkUnreachable or Errno.HostUnreachable)
        {
            return null;
        }
        return found[0];
    }

    /// <summary>A device's own hardware address; null: it has none of 6 bytes.</summary>
    internal PhysicalAddress? HardwareAddress(int device)
    {
        var found = new PhysicalAddress?[1];
        _netlink.Ask($"read device {device}", Message(GetLink, NetlinkFlags.Request, new LinkHeader { Index = device }), found, static (found, type, payload) =>
        {
            if (type != NewLink || payload.Length < Marshal.SizeOf<LinkHeader>()) return;
            NetlinkAttributes attributes = new(payload[Marshal.SizeOf<LinkHeader>()..]);
            while (attributes.Next())
                if (attributes.Type == LinkHardwareAddress && attributes.Value.Length == 6) found[0] = new PhysicalAddress(attributes.Value.ToArray());
        });
        return found[0];
    }

    /// <summary>Equivalent to: <c>sysctl net.ipv4.conf.DEVICE.SETTING=VALUE</c>, without /proc. inet_set_link_af() in net/ipv4/devinet.c.</summary>
    internal void SetIPv4Setting(string operation, int device, IPv4Setting setting, int value)
    {
        NetlinkMessage message = Message(NewLink, Asked, new LinkHeader { Index = device });
        int families = message.BeginNest(LinkFamilies), inet = message.BeginNest(Inet), settings = message.BeginNest(InetSettings);
        message.Put((ushort)setting, (uint)value);
        message.EndNest(settings);
        message.EndNest(inet);
        message.EndNest(families);
        _netlink.Request(operation, message);
    }

    private static NetlinkMessage AddressMessage(ushort type, NetlinkFlags flags, int device, IPAddress address, byte? protocol)
    {
        bool v4 = address.AddressFamily == AddressFamily.InterNetwork;
        NetlinkMessage message = Message(type, flags, new AddressHeader
        {
            Family = v4 ? Inet : Inet6, Prefix = (byte)(v4 ? 32 : 128), Scope = HostScope, Flags = (byte)NoDuplicateDetection, Device = device,
        });
        byte[] bytes = address.GetAddressBytes();
        message.Put(AddressLocal, bytes);
        message.Put(AddressAddress, bytes);
        if (protocol is { } by)
        {
            message.Put(AddressFlags, NoDuplicateDetection);
            message.Put(AddressProtocol, by);
        }
        return message;
    }

    private static DeviceAddress? ReadAddress(ReadOnlySpan<byte> payload)
    {
        if (payload.Length < Marshal.SizeOf<AddressHeader>()) return null;
        AddressHeader header = MemoryMarshal.Read<AddressHeader>(payload);
        IPAddress? local = null, address = null;
        byte protocol = 0;
        NetlinkAttributes attributes = new(payload[Marshal.SizeOf<AddressHeader>()..]);
        while (attributes.Next())
        {
            switch (attributes.Type)
            {
                case AddressLocal when attributes.Value.Length is 4 or 16: local = new IPAddress(attributes.Value); break;
                case AddressAddress when attributes.Value.Length is 4 or 16: address = new IPAddress(attributes.Value); break;
                case AddressProtocol when attributes.Value.Length >= 1: protocol = attributes.Value[0]; break;
            }
        }
        // Of a point-to-point device IFA_ADDRESS is the other end; IPv6 has no IFA_LOCAL otherwise.
        return (local ?? address) is { } own ? new DeviceAddress(header.Device, own, header.Prefix, protocol, header.Scope == LinkScope) : null;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct AddressHeader // struct ifaddrmsg
    {
        internal byte Family, Prefix, Flags, Scope;
        internal int Device;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct RouteHeader // struct rtmsg
    {
        internal byte Family, DestinationLength, SourceLength, TypeOfService, Table, Protocol, Scope, Type;
        internal uint Flags;
    }
}
