using System.Globalization;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Gate;

namespace FlipController.Linux.Redirect;

// The same as in nftables, in the tables nat and filter of iptables, and once more in those of ip6tables:
//
//   nat PREROUTING, first ── to an address of this host ──> FLIP-SERVICES ─ opening SYN, UDP ─> FLIP-P-edge ──goto──> FLIP-G-edge-7
//                                                             ^   (the next pair when nothing matched)  ONE rule,     each service: the
//   nat OUTPUT, first ── to an address of this host ──> FLIP-LOCAL                                      A FLIP        connection's mark,
//                                                             │                                         REPLACES IT   DNAT to its
//                                     our marked probes pass by                                                       private port
//                                                             └── opening SYN ──> FLIP-L-edge: what a retired generation has closed
//   filter INPUT, first ──> FLIP-GUARD ── not from lo, opening SYN or UDP to a private port, not redirected ──> refused

/// <summary>The words of the rules for iptables-restore(8), and nothing else: no I/O. A text of each is for one address family.</summary>
internal static class IptablesRuleset
{
    internal const string Ours = "FLIP-", Services = "FLIP-SERVICES", Local = "FLIP-LOCAL", Guard = "FLIP-GUARD";
    internal const string PairPrefix = "FLIP-P-", GenerationPrefix = "FLIP-G-", LoopsPrefix = "FLIP-L-";
    internal const string Nat = "nat", Filter = "filter";
    internal const int Priority = -100; // NF_IP_PRI_NAT_DST, linux/netfilter_ipv4.h; -100 in OUTPUT, too
    internal const string Commit = "COMMIT\n";
    private const int LongestName = 12; // of a pair in a chain's name, which has 28 bytes with the prefix and a generation's number
    private const int HashDigits = 8;

    /// <param name="there">What is in the kernel now: chains that are there are not flushed, but for those this text fills anew.</param>
    /// <param name="removed">Chains that nothing names any more.</param>
    internal static string Base(IptablesListing there, IEnumerable<PairPorts> pairs, IReadOnlyCollection<string> removed)
    {
        PairPorts[] sorted = [.. pairs.OrderBy(pair => pair.Name, StringComparer.Ordinal)];
        StringBuilder text = new();
        Line($"*{Nat}");
        foreach (string chain in (string[])[Services, Local, .. removed]) Line($":{chain} - [0:0]");
        foreach (string chain in sorted.SelectMany(p => (string[])[PairChain(p.Name), LoopsChain(p.Name)]).Where(c => !there.Has(Nat, c)))
            Line($":{chain} - [0:0]");
        Hook(Nat, "PREROUTING", Services, " -m addrtype --dst-type LOCAL");
        Hook(Nat, "OUTPUT", Local, " -m addrtype --dst-type LOCAL");
        // What this host sends with our mark meets the front address itself: proof of whoever listens there, past the redirect.
        Line($"-A {Local} -m mark --mark 0x{PassingSocket.Mark:x} -j RETURN");
        Line($"-A {Local} -j {Services}");
        foreach (PairPorts pair in sorted)
        {
            Line($"-A {Local} {OpeningSyn} {Comment($"pair {Spelled(pair.Name)}, its loops")} -j {LoopsChain(pair.Name)}");
            foreach (string met in (string[])[OpeningSyn, "-p udp"]) Line($"-A {Services} {met} {Comment($"pair {Spelled(pair.Name)}")} -j {PairChain(pair.Name)}");
        }
        foreach (string chain in removed) Line($"-X {chain}");
        text.Append(Commit);
        Line($"*{Filter}");
        Line($":{Guard} - [0:0]");
        Hook(Filter, "INPUT", Guard, "");
        foreach (PairPorts pair in sorted)
        {
            Guarded(pair.Name, "blue", pair.Blue);
            Guarded(pair.Name, "green", pair.Green);
        }
        text.Append(Commit);
        return text.ToString();

        void Line(string line) => text.Append(line).Append('\n');

        // First: NAT is decided once, by the first rule that does, and others' firewalls accept.
        void Hook(string table, string hook, string chain, string match)
        {
            if (!there.Leads(table, hook, chain)) Line($"-I {hook} 1{match} {Comment("flipcontroller")} -j {chain}");
        }

        void Guarded(string pair, string slot, PortBlock ports)
        {
            if (ports.Count == 0) return;
            string comment = Comment($"pair {Spelled(pair)} {slot}");
            Line(string.Create(CultureInfo.InvariantCulture, $"-A {Guard} ! -i lo -p tcp --dport {ports.First}:{ports.Last} --syn -m conntrack ! --ctstate DNAT {comment} -j REJECT --reject-with tcp-reset"));
            // In the original direction: an answer that comes to such a port was asked for from there.
            Line(string.Create(CultureInfo.InvariantCulture, $"-A {Guard} ! -i lo -p udp --dport {ports.First}:{ports.Last} -m conntrack ! --ctstate DNAT --ctdir ORIGINAL {comment} -j REJECT"));
        }
    }

    /// <summary>Makes a generation's chain; nothing goes there yet.</summary>
    internal static string AddGeneration(string pair, int number, uint mark, uint mask, IEnumerable<ServicePort> ports, bool v6)
    {
        if (mask == 0 || (mark & ~mask) != 0)
            throw new ArgumentException($"mark 0x{mark:x8} has bits outside the mask 0x{mask:x8}", nameof(mark));
        string chain = GenerationChain(pair, number);
        StringBuilder text = new($"*{Nat}\n:{chain} - [0:0]\n");
        // A specific address before the wildcards, as the kernel chooses among listeners (compute_score in net/ipv4/inet_hashtables.c).
        foreach (ServicePort port in ports.OrderBy(p => p.Service.Breadth).Where(p => v6 ? p.Service.CoversIPv6 : p.Service.CoversIPv4))
            Lead(text, chain, port.Service, port.Service.Port, mark, mask, port.PrivatePort, GenerationComment(pair, number, port.Service));
        return text.Append(Commit).ToString();
    }

    /// <summary>What retired generations connect to themselves for; what was there before goes.</summary>
    internal static string Loops(string pair, uint mark, uint mask, IEnumerable<LoopRoute> routes, bool v6)
    {
        string chain = LoopsChain(pair);
        StringBuilder text = new($"*{Nat}\n:{chain} - [0:0]\n");
        foreach (LoopRoute route in routes.Where(r => v6 ? r.Service.CoversIPv6 : r.Service.CoversIPv4))
            Lead(text, chain, route.Service, route.ClosedPort, mark, mask, route.OpenPort, LoopComment(pair, route));
        return text.Append(Commit).ToString();
    }

    private static void Lead(StringBuilder text, string chain, Service service, int port, uint mark, uint mask, int to, string comment)
    {
        IPAddress address = service.Address;
        if (address.IsIPv4MappedToIPv6) address = address.MapToIPv4();
        // Without the zone of a link-local address, which is no part of the packet.
        string match = string.Create(CultureInfo.InvariantCulture,
            $"-A {chain}{(service.IsWildcard ? "" : $" -d {new IPAddress(address.GetAddressBytes())}")} -p {(service.IsTcp ? "tcp" : "udp")} --dport {port} {Comment(comment)}");
        text.Append(CultureInfo.InvariantCulture, $"{match} -j CONNMARK --set-xmark 0x{mark:x}/0x{mask:x}\n{match} -j DNAT --to-destination :{to}\n");
    }

    internal static string RemoveChains(IEnumerable<string> chains)
    {
        string[] all = [.. chains];
        return $"*{Nat}\n{string.Concat(all.Select(c => $":{c} - [0:0]\n"))}{string.Concat(all.Select(c => $"-X {c}\n"))}{Commit}";
    }

    /// <summary>The flip, but for its last word: a chain that is named with a colon is empty before the rules that follow.</summary>
    internal static string SwitchUncommitted(string pair, int to) =>
        $"*{Nat}\n:{PairChain(pair)} - [0:0]\n-A {PairChain(pair)} {Comment($"pair {Spelled(pair)}: NEW connections")} -g {GenerationChain(pair, to)}\n";

    internal static string Clear(string pair) => $"*{Nat}\n:{PairChain(pair)} - [0:0]\n{Commit}";

    /// <summary>Everything of ours, as it is there.</summary>
    internal static string Remove(IptablesListing there)
    {
        StringBuilder text = new();
        foreach (string table in (string[])[Nat, Filter])
        {
            string[] chains = [.. there.Chains(table).Where(c => c.StartsWith(Ours, StringComparison.Ordinal))];
            if (chains.Length == 0) continue;
            text.Append(CultureInfo.InvariantCulture, $"*{table}\n");
            foreach (string chain in chains) text.Append(CultureInfo.InvariantCulture, $":{chain} - [0:0]\n");
            foreach (string hook in there.HooksToOurs(table)) text.Append(CultureInfo.InvariantCulture, $"-D {hook}\n");
            foreach (string chain in chains) text.Append(CultureInfo.InvariantCulture, $"-X {chain}\n");
            text.Append(Commit);
        }
        return text.ToString();
    }

    internal static string PairChain(string pair) => PairPrefix + Token(pair);

    internal static string LoopsChain(string pair) => LoopsPrefix + Token(pair);

    internal static string GenerationChain(string pair, int number) =>
        string.Create(CultureInfo.InvariantCulture, $"{GenerationPrefix}{Token(pair)}-{number}");

    internal static string GenerationComment(string pair, int number, Service service) =>
        string.Create(CultureInfo.InvariantCulture, $"pair {Spelled(pair)} generation {number}: {service}");

    internal static string LoopComment(string pair, LoopRoute route) =>
        string.Create(CultureInfo.InvariantCulture, $"pair {Spelled(pair)} loop of generation {route.Generation}: {route.Service}");

    /// <summary>A pair's name in a chain's: cut where it is long, with a part of its SHA-256 in the place of the rest.</summary>
    private static string Token(string pair)
    {
        string spelled = Spelled(pair);
        return spelled.Length <= LongestName
            ? spelled
            : $"{spelled[..(LongestName - HashDigits - 1)]}~{Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(pair)))[..HashDigits]}";
    }

    /// <summary>Without spaces or quotes, in every comment: those tell whose a cut name is.</summary>
    private static string Spelled(string pair) => NftRuleset.Spell(pair);

    private const string OpeningSyn = "-p tcp --syn";

    private static string Comment(string text) => $"-m comment --comment \"{text}\"";
}
