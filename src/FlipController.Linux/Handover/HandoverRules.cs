using System.Collections.Immutable;
using System.Globalization;
using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;
using System.Text;
using FlipController.Core;

namespace FlipController.Linux.Handover;

/// <summary>What is done with an opening SYN (and with a UDP sender that nobody knows).</summary>
public enum OpeningRule
{
    /// <summary>Served here and noted: its retransmission must stay here too.</summary>
    Note,
    /// <summary>Led to the peer while the lease holds; otherwise as <see cref="Note"/>.</summary>
    Divert,
    /// <summary>Served here; what was led to the peer before still is.</summary>
    Keep,
}

/// <summary>The other node, on the link that clients come in by.</summary>
/// <param name="Hardware">Its device's own address: what comes from there is never led anywhere.</param>
/// <param name="V4">Its own IPv4 address there; null: it has none, and VIPs of IPv4 cannot be led to it.</param>
/// <param name="V6">The same for IPv6; link-local will do.</param>
public sealed record PeerNode(PhysicalAddress Hardware, IPAddress? V4, IPAddress? V6);

/// <param name="Protocol">The IP protocol: 6 or 17.</param>
/// <param name="Client">Who has connected.</param>
/// <param name="Vip">To which address and front port.</param>
public readonly record struct FourTuple(byte Protocol, IPEndPoint Client, IPEndPoint Vip);

/// <summary>A front port at a VIP whose NEW connections are led to the peer.</summary>
/// <param name="Rule">Of a UDP one: what becomes of senders that are known already.</param>
public readonly record struct VipService(IPAddress Vip, int Port, Transport Transport, UdpRule Rule);

/// <summary>
/// The rules of a handover, as nft(8) text: one chain where packets come in, before conntrack and before routing has seen them.
/// <code>
///   DEVICE --&gt; ingress, netdev chain "clients"
///               | from the peer's hardware address: never led anywhere, so no packet can go round
///               | opening SYN  --&gt; "opening4": noted, led to the peer (and its four-tuple kept in "moved4"), or served here
///               | in moved4    --&gt; to the peer: it is a connection that the peer has
///               | in old4      --&gt; to the peer: the second chance of a connection that it had before the VIP came here
///               v
///         conntrack, redirect, sockets
/// </code>
/// Why fwd (net/netfilter/nft_fwd_netdev.c) and not a mark with a routing rule before the local table: it needs no ip_forward, no ip
/// rule moved, no rp_filter off, no conntrack entry and no notrack, and decrements the TTL. And why sets of four-tuples and not
/// conntrack's mark: conntrack sees one direction only, calls the client's next packet invalid and forgets.
/// The lease: "alive" has elements with a timeout that only the daemon renews, each time the peer has proven that it serves. A daemon that
/// is killed or hangs, or a peer that is silent, and the kernel serves NEW connections here again by itself.
/// </summary>
public static class HandoverRules
{
    public const string Table = "flipcontroller-handover";
    internal const string LedCounter = "led";

    /// <summary>In the middle of what nft calls priorities: whoever filters what comes in has had his say.</summary>
    private const int Priority = 0;

    /// <summary>Four-tuples in one set: 120 MB of kernel memory at most.</summary>
    private const int MostFlows = 1 << 20;

    /// <summary>As long as a client repeats its SYN: Linux gives up after 63 s (tcp_syn_retries 5) or 127 s (6).</summary>
    private const string NotedTime = "130s";

    /// <summary>Nobody may have sent anything for so long and be led on still; tcp_keepalive_time is 2 h.</summary>
    private const string MovedTime = "3h";

    /// <summary>After the client's FIN or RST: what else it sends, and the rest of what it is sent.</summary>
    private const string ClosingTime = "5m";

    /// <summary>As conntrack keeps a stream (nf_conntrack_udp_timeout_stream), and a little more.</summary>
    private const string SenderTime = "3m";

    private const int ElementsPerCommand = 500;

    /// <summary>Everything but what the sets have come to hold; said again it changes nothing but <paramref name="opening"/>.</summary>
    public static string Make(string device, PeerNode peer, ImmutableArray<IPAddress> vips, ImmutableArray<VipService> services, OpeningRule opening)
    {
        var text = new StringBuilder();
        Line(text, $"add table netdev {Table}");
        Line(text, $"add counter netdev {Table} {LedCounter}");
        Line(text, $"add set netdev {Table} alive {{ type inet_proto; flags timeout; }}");
        foreach (Family family in Family.All)
        {
            IPAddress[] own = [.. vips.Where(v => v.AddressFamily == family.Addresses)];
            string flow = $"type inet_proto . {family.Type} . inet_service . {family.Type} . inet_service; size {MostFlows}";
            Line(text, $"add set netdev {Table} vips{family} {{ type {family.Type}; }}");
            foreach (string set in (string[])["tcp", "move", "stick"])
                Line(text, $"add set netdev {Table} {set}{family} {{ type {family.Type} . inet_service; }}");
            Line(text, $"add set netdev {Table} noted{family} {{ {flow}; flags dynamic,timeout; timeout {NotedTime}; }}");
            Line(text, $"add set netdev {Table} moved{family} {{ {flow}; flags dynamic,timeout; timeout {MovedTime}; }}");
            Line(text, $"add set netdev {Table} closing{family} {{ {flow}; flags dynamic,timeout; timeout {ClosingTime}; }}");
            Line(text, $"add set netdev {Table} old{family} {{ {flow}; flags dynamic; }}");
            foreach (string chain in (string[])["tcp", "opening", "udp"]) Line(text, $"add chain netdev {Table} {chain}{family}");
            if (own.Length > 0) Line(text, $"add element netdev {Table} vips{family} {{ {string.Join(", ", own.Select(v => v.ToString()))} }}");
        }
        Line(text, $"add chain netdev {Table} clients {{ type filter hook ingress device \"{device}\" priority {Priority}; policy accept; }}");
        Line(text, $"flush chain netdev {Table} clients");
        Line(text, $"add rule netdev {Table} clients ether saddr {Spell(peer.Hardware)} return");
        foreach (Family family in Family.All)
        {
            Line(text, $"add rule netdev {Table} clients {family.Header} daddr @vips{family} meta l4proto tcp goto tcp{family}");
            Line(text, $"add rule netdev {Table} clients {family.Header} daddr @vips{family} meta l4proto udp goto udp{family}");
        }
        Rules(text, device, peer, services, opening);
        return text.ToString();
    }

    /// <summary>Other services or another rule for opening SYNs, in one transaction; connections that are known go on as they go.</summary>
    private static void Rules(StringBuilder text, string device, PeerNode peer, ImmutableArray<VipService> services, OpeningRule opening)
    {
        foreach (Family family in Family.All)
        {
            Elements($"tcp{family}", services.Where(s => s.Transport == Transport.Tcp));
            Elements($"move{family}", services.Where(s => s.Transport != Transport.Tcp && s.Rule == UdpRule.Move));
            Elements($"stick{family}", services.Where(s => s.Transport != Transport.Tcp && s.Rule == UdpRule.Stick));
            foreach (string chain in (string[])["tcp", "opening", "udp"]) Line(text, $"flush chain netdev {Table} {chain}{family}");
            if ((family.Addresses == AddressFamily.InterNetwork ? peer.V4 : peer.V6) is not { } next) continue;
            string lead = $"counter name {LedCounter} fwd {family.Header} to {Plain(next)} device \"{device}\"";
            string flow = $"meta l4proto . {family.Header} saddr . th sport . {family.Header} daddr . th dport";

            Rule($"tcp{family}", $"tcp flags & (fin|syn|rst|ack) == syn goto opening{family}");
            Rule($"tcp{family}", $"{flow} @closing{family} update @closing{family} {{ {flow} }} {lead}");
            Rule($"tcp{family}", $"tcp flags & (fin|rst) != 0 {flow} @moved{family} delete @moved{family} {{ {flow} }} update @closing{family} {{ {flow} }} {lead}");
            Rule($"tcp{family}", $"{flow} @moved{family} update @moved{family} {{ {flow} }} {lead}");
            Rule($"tcp{family}", $"{flow} @old{family} {lead}");

            // A SYN begins something new, whatever had the same four-tuple before; but one that was led on is repeated to whom it was led.
            Rule($"opening{family}", $"delete @old{family} {{ {flow} }}");
            Rule($"opening{family}", $"meta l4proto @alive {flow} @moved{family} {lead}");
            if (opening == OpeningRule.Divert)
            {
                Rule($"opening{family}", $"{flow} @noted{family} return");
                Rule($"opening{family}", $"{family.Header} daddr . tcp dport @tcp{family} meta l4proto @alive update @moved{family} {{ {flow} }} {lead}");
            }
            Rule($"opening{family}", $"delete @moved{family} {{ {flow} }}");
            Rule($"opening{family}", $"delete @closing{family} {{ {flow} }}");
            if (opening != OpeningRule.Keep) Rule($"opening{family}", $"add @noted{family} {{ {flow} }}");

            if (opening == OpeningRule.Divert) Rule($"udp{family}", $"{family.Header} daddr . udp dport @move{family} meta l4proto @alive {lead}");
            Rule($"udp{family}", $"meta l4proto @alive {flow} @moved{family} update @moved{family} {{ {flow} timeout {SenderTime} }} {lead}");
            Rule($"udp{family}", $"{flow} @old{family} {lead}");
            if (opening == OpeningRule.Divert)
            {
                Rule($"udp{family}", $"{flow} @noted{family} update @noted{family} {{ {flow} timeout {SenderTime} }} return");
                Rule($"udp{family}", $"{family.Header} daddr . udp dport @stick{family} meta l4proto @alive update @moved{family} {{ {flow} timeout {SenderTime} }} {lead}");
            }
            if (opening != OpeningRule.Keep)
                Rule($"udp{family}", $"{family.Header} daddr . udp dport @stick{family} update @noted{family} {{ {flow} timeout {SenderTime} }}");

            void Elements(string set, IEnumerable<VipService> of)
            {
                Line(text, $"flush set netdev {Table} {set}");
                string[] elements = [.. of.Where(s => s.Vip.AddressFamily == family.Addresses)
                    .Select(s => string.Create(CultureInfo.InvariantCulture, $"{s.Vip} . {s.Port}"))];
                if (elements.Length > 0) Line(text, $"add element netdev {Table} {set} {{ {string.Join(", ", elements)} }}");
            }
        }

        void Rule(string chain, string rule) => Line(text, $"add rule netdev {Table} {chain} {rule}");
    }

    /// <summary>The lease, for so long from now.</summary>
    public static string Renew(TimeSpan lease)
    {
        string time = string.Create(CultureInfo.InvariantCulture, $"{(long)lease.TotalMilliseconds}ms");
        return $"flush set netdev {Table} alive\nadd element netdev {Table} alive {{ tcp timeout {time}, udp timeout {time} }}\n";
    }

    /// <summary>Handshakes that this node has begun: their SYNs may come again.</summary>
    public static IEnumerable<string> Note(IEnumerable<FourTuple> flows) => Add("noted", flows);

    /// <summary>Connections of the peer, which are led there wherever they come in.</summary>
    public static IEnumerable<string> Old(IEnumerable<FourTuple> flows) => Add("old", flows);

    public static string ForgetOld() => string.Concat(Family.All.Select(f => $"flush set netdev {Table} old{f}\n"));

    public static string Remove() => $"delete table netdev {Table}\n";

    private static IEnumerable<string> Add(string set, IEnumerable<FourTuple> flows) =>
        from byFamily in flows.GroupBy(f => f.Vip.AddressFamily)
        from some in byFamily.Chunk(ElementsPerCommand)
        select $"add element netdev {Table} {set}{Family.Of(byFamily.Key)} {{ {string.Join(", ", some.Select(Spell))} }}\n";

    private static string Spell(FourTuple flow) => string.Create(CultureInfo.InvariantCulture,
        $"{flow.Protocol} . {Plain(flow.Client.Address)} . {flow.Client.Port} . {Plain(flow.Vip.Address)} . {flow.Vip.Port}");

    /// <summary>Without the scope of a link-local one.</summary>
    private static IPAddress Plain(IPAddress address) => new(address.GetAddressBytes());

    internal static string Spell(PhysicalAddress hardware) => string.Join(':', hardware.GetAddressBytes().Select(b => b.ToString("x2", CultureInfo.InvariantCulture)));

    private static void Line(StringBuilder text, string command) => text.Append(command).Append('\n');

    /// <summary>Its number stands in the names of sets and chains.</summary>
    private sealed record Family(AddressFamily Addresses, string Header, string Type, int Number)
    {
        internal static readonly Family[] All =
            [new(AddressFamily.InterNetwork, "ip", "ipv4_addr", 4), new(AddressFamily.InterNetworkV6, "ip6", "ipv6_addr", 6)];

        internal static Family Of(AddressFamily family) => All.Single(f => f.Addresses == family);

        public override string ToString() => Number.ToString(CultureInfo.InvariantCulture);
    }
}
