using System.Collections.Immutable;
using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Handover;

/// <summary>
/// Where the VIPs are, and their second place on lo, by which a node's sockets at a VIP go on while another node has it. Of the network
/// namespace of the thread that opened it. One thread at a time.
/// </summary>
public sealed class VipPlaces : IDisposable
{
    /// <summary>
    /// How the addresses that we set say so: <c>proto</c> of ip-address(8), of which 0 to 3 are the kernel's (include/uapi/linux/if_addr.h).
    /// </summary>
    public const byte Protocol = 0xf1;

    private readonly RouteNetlink _route = new();

    public void Dispose() => _route.Dispose();

    /// <summary>Those that are on a device other than lo.</summary>
    public ImmutableArray<IPAddress> Held(ImmutableArray<IPAddress> vips)
    {
        int loopback = Loopback();
        HashSet<IPAddress> held = [.. _route.Addresses().Where(a => a.Device != loopback).Select(a => a.Address)];
        return [.. vips.Where(held.Contains)];
    }

    /// <summary>Every address of this host.</summary>
    public IReadOnlySet<IPAddress> Own() => _route.Addresses().Select(a => a.Address).ToHashSet();

    /// <summary>Those that are on lo, whoever has set them.</summary>
    public ImmutableArray<IPAddress> OnLoopback(ImmutableArray<IPAddress> vips)
    {
        int loopback = Loopback();
        HashSet<IPAddress> there = [.. _route.Addresses().Where(a => a.Device == loopback).Select(a => a.Address)];
        return [.. vips.Where(there.Contains)];
    }

    public void AddToLoopback(IPAddress vip) => _route.AddHostAddress($"add {vip} to lo", Loopback(), vip, Protocol);

    /// <summary>False: it was not there.</summary>
    public bool DeleteFromLoopback(IPAddress vip) => _route.DeleteHostAddress($"delete {vip} from lo", Loopback(), vip);

    /// <summary>Addresses on lo that say they are ours: kernels before 5.18 keep no such word.</summary>
    public ImmutableArray<IPAddress> Ours()
    {
        int loopback = Loopback();
        return [.. _route.Addresses().Where(a => a.Device == loopback && a.Protocol == Protocol).Select(a => a.Address)];
    }

    /// <summary>The device that a peer is reached by without a router between.</summary>
    /// <exception cref="FlipException">There is none.</exception>
    public string DeviceTo(IPAddress peer)
    {
        if (_route.RouteTo(peer) is not { } way) throw new FlipException($"cannot find the device of the peer: there is no route to {peer}; nothing was changed; mend the route, or peer.address");
        if (way.Router is { } router)
            throw new FlipException($"cannot hand over to {peer}: it is reached by way of the router {router}, and packets are led on within one link only; nothing was changed; name the link both nodes have in common by peer.address and handover.device");
        return _route.Links().First(l => l.Index == way.Device).Name;
    }

    /// <summary>The device by which packets to it leave, whatever routers there are; null: there is no route.</summary>
    public string? WayTo(IPAddress address) => _route.RouteTo(address) is { } way ? _route.Links().First(l => l.Index == way.Device).Name : null;

    /// <summary>How a node of the same link leads packets to this one.</summary>
    /// <param name="vips">They move, and are no way to tell one node from the other.</param>
    /// <exception cref="FlipException">There is no such device, or it has no hardware address.</exception>
    public PeerNode Self(string device, ImmutableArray<IPAddress> vips)
    {
        Link link = _route.Links().FirstOrDefault(l => l.Name == device)
            ?? throw new FlipException($"cannot hand over by way of device {device}: there is none; nothing was changed; mend handover.device");
        if (_route.HardwareAddress(link.Index) is not { } hardware)
            throw new FlipException($"cannot hand over by way of device {device}: it has no Ethernet address; nothing was changed; mend handover.device");
        DeviceAddress[] own = [.. _route.Addresses().Where(a => a.Device == link.Index && !vips.Contains(a.Address)).OrderByDescending(a => a.IsLinkLocal)];
        return new PeerNode(hardware, own.FirstOrDefault(a => a.Address.AddressFamily == AddressFamily.InterNetwork)?.Address,
            own.FirstOrDefault(a => a.Address.AddressFamily == AddressFamily.InterNetworkV6)?.Address);
    }

    private int Loopback() => _route.Links().First(l => l.IsLoopback).Index;
}
