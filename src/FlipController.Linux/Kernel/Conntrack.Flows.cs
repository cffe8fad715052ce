using System.Net;
using System.Net.NetworkInformation;
using FlipController.Core;

namespace FlipController.Linux.Kernel;

// A flow of UDP goes where its first datagram went for as long as its entry lives, and every datagram gives that another 30 s, or 120
// (nf_conntrack_udp_timeout, nf_conntrack_udp_timeout_stream): one that never pauses stays for ever. Without the entry its next datagram
// is a first one again, and meets the rules as they are now. What is on its way meanwhile has the old entry still, and arrives where the
// old rules sent it.
public sealed partial class Conntrack
{
    private const ushort Delete = Subsystem | 2; // IPCTNL_MSG_CT_DELETE
    private const ushort Zone = 18; // CTA_ZONE
    private const ushort Filter = 25; // CTA_FILTER, since 5.8
    private const ushort OriginalFlags = 1; // CTA_FILTER_ORIG_FLAGS
    private const uint ByProtocol = 1 << 3; // CTA_FILTER_F_CTA_PROTO_NUM, include/net/netfilter/nf_conntrack.h
    private const uint ByDestinationPort = 1 << 5; // CTA_FILTER_F_CTA_PROTO_DST_PORT
    private const byte Udp = 17; // IPPROTO_UDP
    private const byte Inet = 2, Inet6 = 10; // AF_INET, AF_INET6

    /// <param name="Tuple">CTA_TUPLE_ORIG as it came.</param>
    private sealed record Flow(byte[] Tuple, uint Id, ushort Zone);

    /// <summary>
    /// Forgets UDP flows to front addresses. Equivalent to <c>conntrack -D -p udp --orig-port-dst PORT</c> for those that do not stay. Of flows
    /// without a bit of the mask only such are asked about that nobody translates, to an address of this host (of the calling
    /// thread's namespace).
    /// </summary>
    /// <param name="stays">Of a service and the flow's mark under the mask.</param>
    /// <returns>How many there were; null when ctnetlink is not there to be asked.</returns>
    public int? ForgetFlows(IReadOnlyCollection<Service> services, uint mask, Func<Service, uint, bool> stays)
    {
        try
        {
            int found = 0;
            var local = new Lazy<HashSet<IPAddress>>(LocalAddresses);
            foreach (byte family in (ReadOnlySpan<byte>)[Inet, Inet6])
            {
                Service[] ofFamily = [.. services.Where(s => !s.IsTcp && (family == Inet ? s.CoversIPv4 : s.CoversIPv6))];
                if (ofFamily.Length == 0) continue;
                int[] ports = [.. ofFamily.Select(s => s.Port).Distinct()];
                List<Flow> flows = Flows(
                    family, ports, payload => Front(payload, ofFamily, mask, local) is var (service, mark) && !stays(service, mark));
                foreach (Flow flow in flows) Forget(family, flow);
                found += flows.Count;
            }
            return found;
        }
        catch (KernelException e) when (IsAbsent(e))
        {
            return null;
        }
    }

    private delegate bool FlowFilter(ReadOnlySpan<byte> payload);

    /// <summary>
    /// Chosen by the kernel among all it remembers, in one walk: with one port no other entry leaves it, with several no other than of UDP.
    /// </summary>
    private List<Flow> Flows(byte family, int[] ports, FlowFilter isMeant)
    {
        Span<byte> buffer = stackalloc byte[128];
        NetlinkMessage message = new(buffer, Get, NetlinkFlags.None);
        message.Header((uint)family);
        int tuple = message.BeginNest(ConntrackEntry.TupleOriginal), protocol = message.BeginNest(ConntrackEntry.TuplePorts);
        message.Put(ConntrackEntry.Protocol, Udp);
        if (ports.Length == 1) message.Put(ConntrackEntry.DestinationPort, [(byte)(ports[0] >> 8), (byte)ports[0]]);
        message.EndNest(protocol);
        message.EndNest(tuple);
        int filter = message.BeginNest(Filter);
        message.Put(OriginalFlags, ports.Length == 1 ? ByProtocol | ByDestinationPort : ByProtocol);
        message.EndNest(filter);
        return _netlink.Dump("list conntrack entries of UDP", message, () => new List<Flow>(), (flows, _, payload) =>
        {
            // Kernels before 5.8 know no filter and list everything.
            if (ConntrackEntry.ProtocolOf(payload) == Udp && isMeant(payload) && Read(payload) is { } flow) flows.Add(flow);
        });
    }

    /// <summary>The front address a flow is for, and its mark; null: for none of ours.</summary>
    private static (Service Service, uint Mark)? Front(ReadOnlySpan<byte> payload, Service[] services, uint mask, Lazy<HashSet<IPAddress>> local)
    {
        if (ConntrackEntry.End(payload, ConntrackEntry.TupleOriginal, destination: true) is not { } to) return null;
        IPAddress address = to.Address;
        Service? service = services.Where(s => s.Port == to.Port && (s.IsWildcard || Peer.Of(new IPEndPoint(s.Address, s.Port)).Equals(to)))
            .MinBy(s => s.Breadth);
        if (service is null) return null;
        uint mark = ConntrackEntry.Read(payload).Mark & mask;
        // Others may send to the same port of another host through this one, or translate it.
        if (mark == 0 && (!to.Equals(ConntrackEntry.End(payload, ConntrackEntry.TupleReply, destination: false))
            || !(IPAddress.IsLoopback(address) || local.Value.Contains(address)))) return null;
        return (service, mark);
    }

    private static Flow? Read(ReadOnlySpan<byte> payload)
    {
        byte[]? tuple = null;
        ushort zone = 0;
        NetlinkAttributes attributes = ConntrackEntry.Attributes(payload);
        while (attributes.Next())
        {
            if (attributes.Type == ConntrackEntry.TupleOriginal) tuple = attributes.Value.ToArray();
            else if (attributes.Type == Zone && attributes.Value.Length >= 2) zone = (ushort)(attributes.Value[0] << 8 | attributes.Value[1]);
        }
        return tuple is null ? null : new Flow(tuple, ConntrackEntry.Read(payload).Id, zone);
    }

    /// <summary>Tolerates absence; with its id it is the very entry, and not the one that came after it.</summary>
    private void Forget(byte family, Flow flow)
    {
        Span<byte> buffer = stackalloc byte[256];
        NetlinkMessage message = new(buffer, Delete, NetlinkFlags.None);
        message.Header((uint)family);
        message.Put((ushort)(ConntrackEntry.TupleOriginal | NetlinkMessage.NestedFlag), flow.Tuple);
        message.PutBigEndian(ConntrackEntry.IdAttribute, flow.Id);
        if (flow.Zone != 0) message.Put(Zone, [(byte)(flow.Zone >> 8), (byte)flow.Zone]);
        try
        {
            _netlink.Request("forget a UDP flow", message);
        }
        catch (KernelException e) when (e.Errno == Errno.NoEntry)
        {
            // It has ended by itself.
        }
    }

    private static HashSet<IPAddress> LocalAddresses() =>
        [.. NetworkInterface.GetAllNetworkInterfaces().SelectMany(i => i.GetIPProperties().UnicastAddresses)
            .Select(a => new IPAddress(a.Address.GetAddressBytes()))]; // without the zone of a link-local one
}
