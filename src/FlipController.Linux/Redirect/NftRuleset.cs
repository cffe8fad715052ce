using System.Globalization;
using System.Net;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Gate;

namespace FlipController.Linux.Redirect;

// table inet flipcontroller
//
//   hook prerouting -105 ──┐  fib daddr type local                                      generation-edge-7
//                          ├────────────────────> services ── opening SYN ──> pair-edge ──goto──> each service: set the
//   hook output     -105 ──┤                         │        or UDP          ONE rule,           connection's mark, DNAT to
//   (local clients; our    │                         │        (jump)          A FLIP REPLACES IT  its private port
//   marked probes pass by) │                         │
//                          │                         └─ ... jump to the next pair when nothing matched
//                          │                                                  generation-edge-6
//                          │                                                  (still there: the undo, and whom it serves stay)
//                          └─ from output alone ── opening SYN ──> loops-edge: to a port that a retired generation has closed and
//                                                                  still connects to itself: DNAT to the active one's
//   hook input -5: guard ── not from lo, opening SYN or UDP to a private port, not redirected ──> refused
//
// - The pair's chain is all a flip touches, however many services come or go with it: their matches are in the generation's chain,
//   which is complete before the flip and never changes while it exists. No set or map is involved that a lookup could miss during
//   a commit (nftables' lookup race, kernels before 6.17).
// - Only the opening SYN is looked at. conntrack calls a packet in the middle of a connection it never saw "new" as well
//   (nf_conntrack_tcp_loose), and to redirect that would cut a connection that was there before us.
// - Of UDP these hooks see the first datagram of a flow that conntrack does not know (any more): the others go where it went.
// - 5 before dstnat (-100): NAT is decided once, by the first chain that binds, and container engines hook at dstnat.
// - Marks: other bits than ours are left alone.

/// <summary>The words of the rules, and nothing else: no I/O.</summary>
internal static class NftRuleset
{
    internal const string Table = "inet flipcontroller";
    internal const int Priority = -105; // of both nat hooks
    internal const string Services = "services";
    internal const string Guard = "guard";
    private const int LongestSpelled = 100; // it stands in rule comments too, which hold 128 bytes (NFTNL_UDATA_COMMENT_MAXLEN)
    private const string PairPrefix = "pair-";
    private const string LoopsPrefix = "loops-";
    private const string GenerationPrefix = "generation-";
    internal const string OpenComment = "keeps open connections translated: ";
    internal const string OpeningSyn = "tcp flags & (fin|syn|rst|ack) == syn";

    /// <summary>
    /// Makes or completes everything but generations and what each pair's one rule says; removes <paramref name="removed"/>, chains
    /// that nothing names any more. One transaction, right whatever was there before.
    /// </summary>
    internal static string Base(IEnumerable<PairPorts> pairs, IEnumerable<string> removed)
    {
        PairPorts[] sorted = [.. pairs.OrderBy(pair => pair.Name, StringComparer.Ordinal)];
        StringBuilder text = new();
        Line($"add table {Table}");
        Line($"add chain {Table} {Services}");
        foreach (PairPorts pair in sorted)
        {
            Line($"add chain {Table} {PairChain(pair.Name)}");
            Line($"add chain {Table} {LoopsChain(pair.Name)}");
        }
        foreach (string hook in (string[])["prerouting", "output"])
            Line(string.Create(CultureInfo.InvariantCulture, $"add chain {Table} {hook} {{ type nat hook {hook} priority {Priority}; policy accept; }}"));
        Line($"add chain {Table} {Guard} {{ type filter hook input priority -5; policy accept; }}");
        foreach (string hook in (string[])["prerouting", "output"])
        {
            Line($"flush chain {Table} {hook}");
            // What this host sends with our mark meets the front address itself: proof of whoever listens there, past the redirect.
            if (hook == "output") Line($"add rule {Table} {hook} meta mark 0x{PassingSocket.Mark:x8} return");
            Line($"add rule {Table} {hook} fib daddr type local jump {Services}");
            if (hook != "output") continue;
            foreach (PairPorts pair in sorted)
                Line($"add rule {Table} {hook} fib daddr type local {OpeningSyn} jump {LoopsChain(pair.Name)}");
        }
        Line($"flush chain {Table} {Services}");
        foreach (PairPorts pair in sorted)
        {
            Line($"add rule {Table} {Services} {OpeningSyn} jump {PairChain(pair.Name)}");
            Line($"add rule {Table} {Services} meta l4proto udp jump {PairChain(pair.Name)}");
        }
        Line($"flush chain {Table} {Guard}");
        foreach (PairPorts pair in sorted)
        {
            Guarded(pair.Name, "blue", pair.Blue);
            Guarded(pair.Name, "green", pair.Green);
        }
        // A chain is deleted after whatever jumps to it: a pair's before its generations', as the caller lists them.
        foreach (string chain in removed)
        {
            Line($"add chain {Table} {chain}"); // so that the rest is right when somebody else took it away
            Line($"flush chain {Table} {chain}");
            Line($"delete chain {Table} {chain}");
        }
        return text.ToString();

        void Line(string line) => text.Append(CultureInfo.InvariantCulture, $"{line}\n");

        void Guarded(string pair, string slot, PortBlock ports)
        {
            if (ports.Count == 0) return;
            Line($"add rule {Table} {Guard} iifname != \"lo\" tcp dport {Range(ports)} {OpeningSyn} ct status & dnat == 0 "
                + $"reject with tcp reset comment \"{Spell(pair)} {slot}\"");
            // In the original direction: an answer that comes to such a port was asked for from there.
            Line($"add rule {Table} {Guard} iifname != \"lo\" udp dport {Range(ports)} ct direction original ct status & dnat == 0 "
                + $"reject comment \"{Spell(pair)} {slot}\"");
        }
    }

    /// <summary>Makes a generation's chain; nothing goes there yet. <c>create</c> fails when it exists.</summary>
    internal static string AddGeneration(string pair, int number, uint mark, uint mask, IEnumerable<ServicePort> ports)
    {
        if (mask == 0 || (mark & ~mask) != 0)
            throw new ArgumentException($"mark 0x{mark:x8} has bits outside the mask 0x{mask:x8}", nameof(mark));
        string chain = GenerationChain(pair, number);
        StringBuilder text = new();
        text.Append(CultureInfo.InvariantCulture, $"create chain {Table} {chain}\n");
        // A specific address before the wildcards, as the kernel chooses among listeners (compute_score in net/ipv4/inet_hashtables.c).
        foreach (ServicePort port in ports.OrderBy(p => p.Service.Breadth))
        {
            text.Append(CultureInfo.InvariantCulture,
                $"add rule {Table} {chain} {Match(port.Service)} {SetMark(mark, mask)} dnat to :{port.PrivatePort} comment \"{port.Service}\"\n");
        }
        return text.ToString();
    }

    /// <summary>
    /// What retired generations connect to themselves for is served by the active one, whose mark it gets; what was there before goes.
    /// </summary>
    internal static string Loops(string pair, uint mark, uint mask, IEnumerable<LoopRoute> routes)
    {
        string chain = LoopsChain(pair);
        StringBuilder text = new();
        text.Append(CultureInfo.InvariantCulture, $"flush chain {Table} {chain}\n");
        foreach (LoopRoute route in routes)
        {
            text.Append(CultureInfo.InvariantCulture,
                $"add rule {Table} {chain} {Match(route.Service with { Port = route.ClosedPort })} {SetMark(mark, mask)} dnat to :{route.OpenPort} comment \"{route.Generation} {route.Service}\"\n");
        }
        return text.ToString();
    }

    private static string SetMark(uint mark, uint mask) =>
        mask == uint.MaxValue ? $"ct mark set 0x{mark:x8}" : $"ct mark set ct mark & 0x{~mask:x8} | 0x{mark:x8}";

    /// <summary>Right whether it exists or not, as long as the table does. The kernel refuses (EBUSY) while a rule names it.</summary>
    internal static string RemoveGeneration(string pair, int number)
    {
        string chain = GenerationChain(pair, number);
        return $"add chain {Table} {chain}\nflush chain {Table} {chain}\ndelete chain {Table} {chain}\n";
    }

    /// <summary>The flip.</summary>
    internal static string Switch(string pair, int to) =>
        $"flush chain {Table} {PairChain(pair)}\nadd rule {Table} {PairChain(pair)} goto {GenerationChain(pair, to)}\n";

    internal static string Clear(string pair) => $"flush chain {Table} {PairChain(pair)}\n";

    /// <summary>Right whether it exists or not.</summary>
    internal static string Remove() => $"add table {Table}\ndelete table {Table}\n";

    /// <summary>One transaction; right whether anything was there or not.</summary>
    internal static string TranslateFor(PortBlock ports) => string.Create(CultureInfo.InvariantCulture,
        $"{Remove()}add table {Table}\nadd chain {Table} open {{ type nat hook prerouting priority {Priority}; policy accept; }}\nadd rule {Table} open ct state new comment \"{OpenComment}{ports}\"\n");

    /// <summary>Of that rule, in whatever nft prints; null: it is not there.</summary>
    internal static PortBlock? TranslatedPorts(string listing)
    {
        int at = listing.IndexOf(OpenComment, StringComparison.Ordinal);
        string[] ends = at < 0 ? [] : listing[(at + OpenComment.Length)..].Split('"')[0].Split('-');
        return ends.Length == 2 && int.TryParse(ends[0], NumberStyles.None, CultureInfo.InvariantCulture, out int first)
            && int.TryParse(ends[1], NumberStyles.None, CultureInfo.InvariantCulture, out int last) && last >= first ? new PortBlock(first, last - first + 1) : null;
    }

    internal static string PairChain(string pair) => PairPrefix + Spell(pair);

    internal static string LoopsChain(string pair) => LoopsPrefix + Spell(pair);

    internal static string GenerationChain(string pair, int number) =>
        string.Create(CultureInfo.InvariantCulture, $"{GenerationPrefix}{Spell(pair)}-{number}");

    /// <summary>Null for a chain that is not a pair's.</summary>
    internal static string? PairOf(string chain) =>
        chain.StartsWith(PairPrefix, StringComparison.Ordinal) ? Unspell(chain[PairPrefix.Length..]) : null;

    /// <summary>Null for a chain that is not a pair's for its loops.</summary>
    internal static string? LoopsOf(string chain) =>
        chain.StartsWith(LoopsPrefix, StringComparison.Ordinal) ? Unspell(chain[LoopsPrefix.Length..]) : null;

    /// <summary>Null for a chain that is not a generation's.</summary>
    internal static (string Pair, int Number)? GenerationOf(string chain)
    {
        int dash = chain.LastIndexOf('-');
        return chain.StartsWith(GenerationPrefix, StringComparison.Ordinal) && dash > GenerationPrefix.Length
            && int.TryParse(chain.AsSpan(dash + 1), NumberStyles.None, CultureInfo.InvariantCulture, out int number)
            ? (Unspell(chain[GenerationPrefix.Length..dash]), number)
            : null;
    }

    /// <summary>
    /// A pair's name as nft takes it in an identifier: letters, digits, dot, dash and underscore are themselves, any other byte of its
    /// UTF-8 is /XX. With the prefix it never is a reserved word (nft 1.0.6 refuses "tcp" or "ip" as a chain, even quoted).
    /// </summary>
    internal static string Spell(string pair) => Spelling(pair) is { Length: > 0 and <= LongestSpelled } text
        ? text
        : throw new ArgumentException($"a pair's name \"{pair}\" must be 1 to {LongestSpelled} bytes long", nameof(pair));

    /// <summary>It is a name as <see cref="Spell"/> writes it.</summary>
    internal static bool IsSpelled(string text) => text.Length is > 0 and <= LongestSpelled && Spelling(Unspell(text)) == text;

    private static string Spelling(string pair)
    {
        StringBuilder text = new();
        foreach (byte b in Encoding.UTF8.GetBytes(pair))
        {
            if (char.IsAsciiLetterOrDigit((char)b) || b is (byte)'-' or (byte)'_' or (byte)'.') text.Append((char)b);
            else text.Append(CultureInfo.InvariantCulture, $"/{b:X2}");
        }
        return text.ToString();
    }

    internal static string Unspell(string spelled)
    {
        if (!spelled.Contains('/', StringComparison.Ordinal)) return spelled;
        List<byte> bytes = [];
        for (int i = 0; i < spelled.Length; i++)
        {
            if (spelled[i] == '/' && i + 2 < spelled.Length
                && byte.TryParse(spelled.AsSpan(i + 1, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out byte b))
            {
                bytes.Add(b);
                i += 2;
            }
            else
            {
                bytes.Add((byte)spelled[i]);
            }
        }
        return Encoding.UTF8.GetString([.. bytes]);
    }

    private static string Match(Service service)
    {
        string port = string.Create(CultureInfo.InvariantCulture, $"{(service.IsTcp ? "tcp" : "udp")} dport {service.Port}");
        IPAddress address = service.Address;
        if (address.Equals(IPAddress.Any)) return $"meta nfproto ipv4 {port}";
        if (address.Equals(IPAddress.IPv6Any)) return service.V6Only ? $"meta nfproto ipv6 {port}" : port;
        if (address.IsIPv4MappedToIPv6) address = address.MapToIPv4();
        // Without the zone of a link-local address, which is no part of the packet.
        return service.CoversIPv4 ? $"ip daddr {address} {port}" : $"ip6 daddr {new IPAddress(address.GetAddressBytes())} {port}";
    }

    private static string Range(PortBlock ports) =>
        string.Create(CultureInfo.InvariantCulture, $"{(ports.Count == 1 ? $"{ports.First}" : $"{ports.First}-{ports.Last}")}");
}
