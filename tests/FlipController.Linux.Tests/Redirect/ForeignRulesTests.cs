using System.Collections.Immutable;
using System.Net;
using System.Text.Json;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Linux.Redirect;
using FlipController.Linux.Tests.Kernel;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Redirect;

/// <summary>What rules of others do to a pair, asked of rules that the kernel has.</summary>
public sealed partial class ForeignRulesTests
{
    private const uint Mask = 0x00ffff00;
    private static readonly Service[] s_fronts = [new(IPAddress.Any, 80), new(IPAddress.Parse("10.9.0.1"), 80), new(IPAddress.IPv6Any, 443, V6Only: true)];

    [Fact(Timeout = 60_000)]
    public async Task A_translation_before_ours_is_named_with_the_front_addresses_that_it_can_match() => await Task.Run(() =>
    {
        const string four = "*:80, 10.9.0.1:80", all = "*:80, 10.9.0.1:80, [::]:443 v6only";
        using TestNetwork network = TestNetwork.Create("f");
        using ForeignRules others = network.Run(ForeignRules.Open);
        foreach ((string rule, string expected) in ((string, string)[])
                 [
                     ("tcp dport 80 redirect to :99", $"takes {four}"),
                     ("tcp dport 81 redirect to :99", ""),
                     ("udp dport 80 redirect to :99", ""),
                     ("udp dport != 80 redirect to :99", ""),
                     ("meta l4proto udp redirect", ""),
                     ("th dport 80 meta l4proto { tcp, udp } redirect", $"takes {four}"),
                     ("meta l4proto tcp redirect to :99", $"takes {all}"),
                     ("tcp dport 70-90 redirect", $"takes {four}"),
                     ("tcp dport != 80 redirect", "takes [::]:443 v6only"),
                     ("tcp dport { 22, 440-450 } redirect", "takes [::]:443 v6only"),
                     ("tcp dport { 22, 8080-8090 } redirect", ""),
                     ("tcp dport >= 443 redirect", "takes [::]:443 v6only"),
                     ("tcp dport @ports redirect", $"may take {all}"),
                     ("tcp dport & 1 == 0 redirect", $"may take {all}"),
                     ("iifname \"eth0\" tcp dport 80 redirect", $"may take {four}"),
                     ("ct state new limit rate 5/second redirect", $"may take {all}"),
                     ("fib daddr type local tcp dport 443 redirect", "takes [::]:443 v6only"),
                     ("fib daddr type broadcast tcp dport 443 redirect", ""),
                     ("ip daddr 10.9.0.1 tcp dport 80 dnat to 10.0.0.1", "takes *:80, 10.9.0.1:80"),
                     ("ip daddr 10.9.0.2 tcp dport 80 dnat to 10.0.0.1", "may take *:80"),
                     ("ip daddr { 10.1.0.0/16, 10.2.0.1-10.2.0.9 } dnat to 10.0.0.1", "may take *:80"),
                     ("ip daddr != 10.9.0.0/24 dnat to 10.0.0.1", "may take *:80"),
                     ("ip6 daddr fd09::/64 tcp dport 443 dnat to fd09::9", "may take [::]:443 v6only"),
                     ("meta nfproto ipv6 redirect", "takes [::]:443 v6only"),
                     ("ip daddr . tcp dport { 10.9.0.3 . 80, 10.9.0.1 . 81 } redirect", "may take *:80"),
                     ("meta nfproto ipv4 dnat ip to tcp dport map { 80 : 10.0.0.1, 81 : 10.0.0.2 }", $"takes {four}"),
                     ("meta nfproto ipv4 dnat ip to tcp dport map { 81 : 10.0.0.2 }", ""),
                     ("meta nfproto ipv4 dnat ip to tcp dport map @targets", $"may take {four}"),
                     ("jump there", $"takes {all}"),
                     ("tcp dport 443 goto there; tcp dport 443 redirect", "takes [::]:443 v6only"),
                     ("tcp dport vmap { 80 : jump there, 22 : accept }", $"takes {four}"),
                     ("tcp dport vmap @verdicts", $"may take {all}"),
                     ("tcp dport { 80, 443 } accept; redirect", ""),
                     ("ip daddr 10.9.0.1 return; tcp dport 80 redirect", "may take *:80"), // of all that *:80 means some have gone
                     ("tcp dport 80 counter log; snat to 10.0.0.1", ""),
                 ])
        {
            string hook = rule.Contains("snat", StringComparison.Ordinal) ? "input" : "prerouting";
            network.Exec("nft", "flush ruleset; table inet foreign { set ports { type inet_service; elements = { 22 }; }; "
                + "map targets { type inet_service : ipv4_addr; }; map verdicts { type inet_service : verdict; elements = { 22 : goto there }; }; "
                + $"chain there {{ meta l4proto tcp redirect to :99; }}; chain c {{ type nat hook {hook} priority -150; {rule.Replace("snat to", "snat ip to", StringComparison.Ordinal)}; }}; }}");
            ImmutableArray<Interference> found = others.Look(s_fronts, Mask);
            string said = string.Join(" | ", found.Select(i => Fronts().Match(i.What) is { Success: true } m ? $"{m.Groups[1].Value} {m.Groups[2].Value}" : i.What).Distinct());
            Assert.True(said == expected, $"{rule}: \"{said}\", not \"{expected}\"; {string.Join("; ", found)}");
        }
    });

    [Fact(Timeout = 60_000)]
    public async Task Only_what_is_met_before_ours_is_told_with_its_rule_and_its_way_out() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("f");
        NftRedirect redirect = network.Own(NftRedirect.Open);
        redirect.EnsureBase([new PairPorts("edge", new PortBlock(21000, 64), new PortBlock(22000, 64))]);
        redirect.AddGeneration("edge", 1, 0x00100100, Mask, [new ServicePort(s_fronts[0], 21000)]);
        Assert.Equal(0, redirect.PrepareSwitch("edge", 1).Commit());
        network.Serve("0.0.0.0", 21000, "ours");
        network.Serve("0.0.0.0", 99, "theirs");
        using ForeignRules others = network.Run(ForeignRules.Open);
        Assert.Empty(others.Look(s_fronts, Mask)); // our own are nobody else's
        // As Docker and firewalld have theirs.
        network.Exec("nft", "table ip nat { chain DOCKER { iifname != \"docker0\" tcp dport 80 counter dnat to 172.17.0.2:80; }; "
            + "chain PREROUTING { type nat hook prerouting priority dstnat; fib daddr type local jump DOCKER; }; "
            + "chain OUTPUT { type nat hook output priority -100; ip daddr != 127.0.0.0/8 fib daddr type local jump DOCKER; }; }; "
            + "table inet firewalld { chain nat_PREROUTING { type nat hook prerouting priority dstnat + 10; tcp dport 80 redirect to :8080; }; "
            + "chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; ct mark set ct mark or 0x1; }; }");
        Assert.Empty(others.Look(s_fronts, Mask));
        network.Exec("nft", "table ip late { chain out { type nat hook output priority -104; tcp dport 80 redirect to :99; }; }");
        Assert.Empty(others.Look(s_fronts, Mask));
        Assert.Equal("ours", network.Ask("127.0.0.1", 80));
        network.Exec("nft", "table ip early { chain out { type nat hook output priority -106; tcp dport 80 redirect to :99; }; chain same { type nat hook prerouting priority -105; tcp dport 80 redirect to :98; }; "
            + "chain filter { type filter hook prerouting priority -150; tcp dport 80 accept; }; }");
        string[] said = [.. others.Look([s_fronts[0]], Mask).Select(i => i.ToString())];
        Assert.Equal("theirs", network.Ask("127.0.0.1", 80));
        Assert.Equal(2, said.Length);
        Assert.Matches("^the rule ip early out handle [0-9]+, `tcp dport 80 redirect to :99`, is met before ours .in output at priority -106; ours are at -105. "
            + "and takes NEW connections to \\*:80, which then do not reach the pair; except the front address in that rule, or give its base chain a priority above -105 .dstnat is -100.$", said[0]);
        Assert.Matches("^the rule ip early same handle [0-9]+, `tcp dport 80 redirect to :98`, .* and may take NEW connections", said[1]);
        Assert.Empty(others.Look([], Mask));
        // nft itself cannot name such a table in its own language.
        Shell.RunWithInput("""
            { "nftables": [ { "flush": { "ruleset": null } }, { "add": { "table": { "family": "ip", "name": "policy" } } },
              { "add": { "chain": { "family": "ip", "table": "policy", "name": "c", "type": "nat", "hook": "prerouting", "prio": -110 } } },
              { "add": { "rule": { "family": "ip", "table": "policy", "chain": "c", "expr": [ { "match": { "op": "==", "left": { "payload": { "protocol": "tcp", "field": "dport" } }, "right": 80 } }, { "redirect": null } ] } } } ] }
            """, "ip", "netns", "exec", network.Name, "nft", "-j", "-f", "-");
        Assert.Matches("^the rule ip policy c handle [0-9]+, `.*\"redirect\".*`, is met before ours", Assert.Single(others.Look([s_fronts[0]], Mask)).What);
        // More than anybody reads.
        network.Exec("nft", $"flush ruleset; table ip early {{ chain c {{ type nat hook prerouting priority -106; {string.Concat(Enumerable.Repeat("tcp dport 80 iifname \"eth1\" redirect; ", 9))} }}; }}");
        said = [.. others.Look(s_fronts, Mask).Select(i => i.What)];
        Assert.Equal((5, "5 more rules of others before ours"), (said.Length, said[^1]));
    });

    [Fact(Timeout = 60_000)]
    public async Task Whoever_sets_our_bits_of_connection_marks_is_named() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("f");
        using ForeignRules others = network.Run(ForeignRules.Open);
        foreach ((string rule, string? bits) in ((string, string?)[])
                 [
                     ("ct mark set 0x1", "0xffffffff"), ("ct mark set meta mark", "0xffffffff"), ("ct mark set meta mark & 0xff", "0xffffffff"),
                     ("ct mark set ct mark or 0x1", null), ("ct mark set ct mark or 0x10100", "0x00010100"), ("ct mark set ct mark and 0xffff00ff", "0x0000ff00"),
                     ("ct mark set ct mark and 0xffffff00 xor 0x5", null), ("ct mark set ct mark and 0xff000000 or 0x7", "0x00ffffff"),
                     ("meta mark set ct mark", null), ("ct mark 0x100 meta mark set 0x100", null), ("ct mark set meta mark map { 1 : 2 }", "0xffffffff"),
                 ])
        {
            network.Exec("nft", $"flush ruleset; table ip routing {{ chain c {{ type filter hook prerouting priority mangle; {rule}; }}; }}");
            Interference? found = others.Look(s_fronts, Mask).SingleOrDefault();
            Assert.True(bits is null == found is null && (bits is null || found!.What.Contains($"`, sets the bits {bits} of connection marks, of which 0x00ffff00 ", StringComparison.Ordinal)), $"{rule}: {found}");
            if (found is null) continue;
            Assert.StartsWith("the rule ip routing c handle ", found.What, StringComparison.Ordinal);
            Assert.StartsWith("set redirect.mark_mask to bits", found.Remedy, StringComparison.Ordinal);
        }
    });

    /// <summary>What iptables-nft makes is in the same tables; nft knows of its extensions only the name.</summary>
    [Fact(Timeout = 60_000)]
    public async Task Rules_of_iptables_are_looked_at_by_the_names_of_their_targets()
    {
        Require.Netns();
        Require.Program("iptables-nft");
        await Task.Run(() =>
        {
            using TestNetwork network = TestNetwork.Create("f");
            using ForeignRules others = network.Run(ForeignRules.Open);
            void Iptables(string arguments) => network.Exec(["iptables-nft", .. arguments.Split(' ')]);
            Iptables("-t nat -N WEB");
            Iptables("-t nat -A WEB -p tcp -m tcp --dport 81 -j DNAT --to-destination 10.0.0.1:80");
            Iptables("-t nat -A WEB -p tcp -m tcp --dport 443 -j DNAT --to-destination 10.0.0.1:80");
            Iptables("-t nat -A WEB -p tcp -m multiport --dports 22,25 -j REDIRECT --to-ports 99");
            Iptables("-t nat -A PREROUTING -j WEB");
            Assert.Empty(others.Look(s_fronts, Mask)); // its own hooks are at -100
            network.Exec("nft", "add chain ip nat early { type nat hook prerouting priority -110; }; add rule ip nat early jump WEB");
            Assert.Matches("^the rule ip nat WEB handle [0-9]+, `.*(redirect|REDIRECT).*`, .* and may take NEW connections to", Assert.Single(others.Look([s_fronts[0]], Mask)).What);
            Assert.Matches("^the rule ip nat WEB handle [0-9]+, `.*(dnat|DNAT).*`, .* and takes NEW connections to",
                Assert.Single(others.Look([new Service(IPAddress.Any, 443)], Mask)).What);
            network.Exec("nft", "flush ruleset");
            Iptables("-t mangle -A PREROUTING -j CONNMARK --set-xmark 0x1/0x1");
            Assert.Matches("^the rule ip mangle PREROUTING handle [0-9]+, `.*(CONNMARK|ct mark set).*`, may set any bit of connection marks", Assert.Single(others.Look(s_fronts, Mask)).What);
        });
    }

    [Theory]
    [InlineData("""{ "xt": { "type": "target", "name": "DNAT" } }""", true)]
    [InlineData("""{ "xt": { "type": "target", "name": "LOG" } }""", null)]
    [InlineData("""{ "xt": { "type": "match", "name": "multiport" } }, { "xt": { "type": "target", "name": "REDIRECT" } }""", false)]
    [InlineData("""{ "xt": null }""", true)] // libnftables 1.0.2: its text tells
    [InlineData("""{ "synproxy": null }, { "redirect": null }""", false)] // what nobody knew yet
    [InlineData("""{ "match": { "op": "==", "left": { "payload": { "base": "th", "offset": 16, "len": 8 } }, "right": 0 } }, { "redirect": null }""", false)]
    [InlineData("""{ "jump": { "target": "c" } }, { "jump": { "target": "gone" } }, { "vmap": { "key": { "meta": { "key": "mark" } }, "data": "@gone" } }""", null)]
    public void What_a_listing_has_is_taken_as_it_is(string expressions, bool? certain)
    {
        using JsonDocument listing = JsonDocument.Parse($$"""
            { "nftables": [ { "metainfo": {} }, { "table": { "family": "ip", "name": "t", "handle": 1 } },
              { "chain": { "family": "ip", "table": "t", "name": "c", "handle": 1, "type": "nat", "hook": "prerouting", "prio": -110, "policy": "accept" } },
              { "rule": { "family": "ip", "table": "t", "chain": "c", "handle": 2, "expr": [ {{expressions}} ] } } ] }
            """);
        EarlierTranslation[] found = [.. new ForeignRuleset(listing.RootElement).Earlier([s_fronts[0]])];
        Assert.Equal(certain, found.SingleOrDefault()?.Certain);
    }

    [GeneratedRegex(@"and (takes|may take) NEW connections to (.*), which then")]
    private static partial Regex Fronts();
}
