using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using FlipController.Load;
using FlipController.Tests.Shared;

namespace FlipController.Benchmarks;

/// <summary>
/// A node is emptied, its VIPs move, it is brought back: by stopping keepalived, by the rules with TEE and CONNMARK that people write, and
/// by `flipctl handover`; one after the other in one run, under new connections and long-lived ones that stay busy and never end.
/// </summary>
internal static partial class HandoverBenchmark
{
    private const double NewPerSecond = 300, EchoesPerSecond = 2000;
    private const int Busy = 200, AnswerMilliseconds = 50;
    private static readonly TimeSpan s_emptying = TimeSpan.FromSeconds(5), s_maintenance = TimeSpan.FromSeconds(5), s_patience = TimeSpan.FromSeconds(60);
    private static readonly (string Group, string Name)[] s_receivedTwice = [("TcpExt", "TCPDSACKOldSent"), ("TcpExt", "TCPDSACKOfoSent")];

    /// <param name="Copied">Packets that were made anew to send them to the peer.</param>
    /// <param name="Led">Packets that were routed to the peer.</param>
    /// <param name="Twice">TCP segments that a receiver had already.</param>
    /// <param name="Retransmitted">TCP segments that were sent again, by clients and nodes.</param>
    private sealed record Figures(string Way, long New, long Failed, double SlowestMilliseconds, long Cut, long KeptFailed, long Copied, long Led, long Twice, long Retransmitted)
    {
        public Figures And(Figures other) => new(Way, New + other.New, Failed + other.Failed, Math.Max(SlowestMilliseconds, other.SlowestMilliseconds), Cut + other.Cut,
            KeptFailed + other.KeptFailed, Copied + other.Copied, Led + other.Led, Twice + other.Twice, Retransmitted + other.Retransmitted);
    }

    /// <param name="programs">Where flipcontrollerd and flipctl are; null: they are published.</param>
    public static async Task<int> RunAsync(bool writeReadme, int rounds, string[] ways, string? programs)
    {
        if (ways.Contains("handover")) programs ??= await Published.BothAsync();
        List<Figures> all = [];
        for (int round = 0; round < rounds; round++)
        {
            for (int i = 0; i < ways.Length; i++)
            {
                Console.Error.WriteLine($"round {round + 1} of {rounds}: {ways[i]}");
                Figures figures = await MeasureAsync(ways[i], programs);
                if (round == 0) all.Add(figures);
                else all[i] = all[i].And(figures);
            }
        }
        string table = Table(all, rounds);
        Console.WriteLine(table);
        if (writeReadme) Readme.Write("handover", table);
        return all.Where(f => f.Way.Contains("flipctl", StringComparison.Ordinal)).All(f => f is { Failed: 0, KeptFailed: 0, Cut: 0 }) ? 0 : 1;
    }

    private static async Task<Figures> MeasureAsync(string way, string? programs)
    {
        using TwoNodes nodes = await TwoNodes.StartAsync(new TwoNodesOptions
        {
            WithDaemons = way == "handover", Programs = programs,
            Handover = string.Create(CultureInfo.InvariantCulture, $"deadline: {s_emptying.TotalSeconds}s, second_chance: 10m"),
        });
        return way switch
        {
            "plain" => await MeasureAsync(nodes, "keepalived stopped, then started", new Plain(nodes)),
            "tee" => await MeasureAsync(nodes, "TEE and CONNMARK rules, then a tracked device down", new Tee(nodes)),
            "handover" => await MeasureAsync(nodes, "`flipctl handover start`, then `cancel`", new Handover(nodes)),
            _ => throw new ArgumentException($"there is no way \"{way}\": plain, tee, handover"),
        };
    }

    /// <summary>How an operator does it. Each returns when the VIPs are where they should be.</summary>
    private abstract class Way(TwoNodes nodes)
    {
        protected TwoNodes Nodes => nodes;

        public long Copied { get; protected set; }

        public long Led { get; protected set; }

        /// <summary>Before anybody connects: what an operator would have set up once.</summary>
        public virtual void Prepare()
        {
        }

        public abstract Task EmptyAsync();

        public abstract Task BringBackAsync();
    }

    private sealed class Plain(TwoNodes nodes) : Way(nodes)
    {
        public override async Task EmptyAsync()
        {
            await Nodes.A.StopKeepalivedAsync();
            await Nodes.HasVipsAsync(Nodes.B);
        }

        public override Task BringBackAsync()
        {
            Nodes.A.StartKeepalived();
            return Nodes.HasVipsAsync(Nodes.A);
        }
    }

    /// <summary>
    /// New connections are copied to the peer and dropped here; what is open stays, until nobody is left or the patience ends. A connection
    /// whose SYN was dropped never enters conntrack, so each of its packets is NEW again and copied again; its FIN and RST are INVALID and
    /// marked by hand (tcp_conntracks[] in net/netfilter/nf_conntrack_proto_tcp.c).
    /// </summary>
    private sealed class Tee(TwoNodes nodes) : Way(nodes)
    {
        private const string Chain = "DRAIN";

        private (string Program, string Vip, string Peer)[] Families =>
        [
            ("iptables", $"{Nodes.VipV4}", $"{Nodes.B.V4}"), ("ip6tables", $"{Nodes.VipV6}", $"{Nodes.B.V6}"),
        ];

        public override void Prepare()
        {
            foreach (TwoNodes.Node node in Nodes.Both)
                foreach (string device in (string[])["all", TwoNodes.Device]) node.Net.Sysctl($"net.ipv4.conf.{device}.rp_filter", "0");
            // The peer owns the VIPs too, and does not say so.
            foreach (string device in (string[])["all", "lo", TwoNodes.Device])
            {
                Nodes.B.Net.Sysctl($"net.ipv4.conf.{device}.arp_ignore", "1");
                Nodes.B.Net.Sysctl($"net.ipv4.conf.{device}.arp_announce", "2");
            }
            Nodes.B.Net.Ip("address", "add", $"{Nodes.VipV4}/32", "dev", "lo");
            Nodes.B.Net.Ip("address", "add", $"{Nodes.VipV6}/128", "dev", "lo", "nodad");
            // conntrack must know what is open when the rules come: whatever asks for it makes it look.
            foreach (var (program, _, _) in Families) Nodes.A.Net.Exec(program, "-t", "mangle", "-A", "PREROUTING", "-m", "conntrack", "--ctstate", "INVALID");
        }

        public override async Task EmptyAsync()
        {
            foreach (var (program, vip, peer) in Families)
            {
                void Rule(params string[] words) => Nodes.A.Net.Exec(program, ["-t", "mangle", .. words]);
                Rule("-N", Chain);
                Rule("-A", Chain, "-m", "conntrack", "--ctstate", "NEW", "-j", "CONNMARK", "--set-mark", "1");
                Rule("-A", Chain, "-j", "CONNMARK", "--restore-mark");
                foreach (string flag in (string[])["FIN", "RST"])
                    Rule("-A", Chain, "-p", "tcp", "--tcp-flags", flag, flag, "-m", "conntrack", "--ctstate", "INVALID", "-j", "MARK", "--set-mark", "1");
                Rule("-A", Chain, "-m", "mark", "--mark", "1", "-j", "TEE", "--gateway", peer);
                Rule("-A", Chain, "-m", "mark", "--mark", "1", "-j", "DROP");
                Rule("-A", "PREROUTING", "-i", TwoNodes.Device, "-d", vip, "-p", "tcp", "--dport", $"{TwoNodes.ServicePort}", "-j", Chain);
            }
            long end = Environment.TickCount64 + (long)s_emptying.TotalMilliseconds;
            while (Environment.TickCount64 < end && Established() > 0) await Task.Delay(100);
            Nodes.A.Net.Ip("link", "set", TwoNodes.Dummy, "down");
            await Nodes.HasVipsAsync(Nodes.B);
        }

        public override Task BringBackAsync()
        {
            foreach (var (program, vip, _) in Families)
            {
                // "pkts bytes target ...": what the rule with TEE has seen.
                foreach (string line in Nodes.A.Net.Exec(program, "-t", "mangle", "-nvxL", Chain).Split('\n').Where(l => l.Contains(" TEE ", StringComparison.Ordinal)))
                    Copied += long.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[0], CultureInfo.InvariantCulture);
                Nodes.A.Net.Exec(program, "-t", "mangle", "-D", "PREROUTING", "-i", TwoNodes.Device, "-d", vip, "-p", "tcp", "--dport", $"{TwoNodes.ServicePort}", "-j", Chain);
                Nodes.A.Net.Exec(program, "-t", "mangle", "-F", Chain);
                Nodes.A.Net.Exec(program, "-t", "mangle", "-X", Chain);
            }
            Nodes.A.Net.Ip("link", "set", TwoNodes.Dummy, "up");
            return Nodes.HasVipsAsync(Nodes.A);
        }

        private int Established() => Nodes.A.Net.Exec("ss", "-Htn", "state", "established", "sport", "=", $":{TwoNodes.ServicePort}").Split('\n', StringSplitOptions.RemoveEmptyEntries).Length;
    }

    private sealed class Handover(TwoNodes nodes) : Way(nodes)
    {
        public override async Task EmptyAsync()
        {
            await SayAsync("handover", "start", "--no-wait");
            await Nodes.HasVipsAsync(Nodes.B);
        }

        public override async Task BringBackAsync()
        {
            using (JsonDocument status = JsonDocument.Parse(await SayAsync("--json", "handover", "status"))) Led = status.RootElement.GetProperty("packets_led").GetInt64();
            await SayAsync("handover", "cancel", "--no-wait"); // what is open never ends here, and is led for as long
            await Nodes.HasVipsAsync(Nodes.A);
        }

        private async Task<string> SayAsync(params string[] arguments)
        {
            var (code, output, errors) = await Nodes.A.FlipctlAsync(arguments);
            return code == 0 ? output : throw new InvalidOperationException($"flipctl {string.Join(' ', arguments)} exited {code}: {errors}\n{Nodes.A.Said()}\n{Nodes.B.Said()}");
        }
    }

    private static async Task<Figures> MeasureAsync(TwoNodes nodes, string name, Way way)
    {
        way.Prepare();
        var fresh = new LoadOptions { Targets = nodes.Services, Rate = NewPerSecond, Duration = TimeSpan.FromHours(1), Timeout = TimeSpan.FromSeconds(10), Path = $"/slow/{AnswerMilliseconds}" };
        LoadOptions kept = fresh with { Path = "/", Mode = LoadMode.Long, Long = LongTraffic.Echo, Connections = Busy, Rate = EchoesPerSecond };
        using NetnsProcess news = Started(nodes, fresh), busy = Started(nodes, kept);
        await RunsAsync(news, 2 * NewPerSecond);
        await RunsAsync(busy, 2 * EchoesPerSecond);
        long twice = Sum(nodes, s_receivedTwice), again = Sum(nodes, [("Tcp", "RetransSegs")]);
        await way.EmptyAsync();
        await Task.Delay(s_maintenance);
        await way.BringBackAsync();
        await Task.Delay(s_maintenance);
        LoadResult made = await EndedAsync(news), stayed = await EndedAsync(busy);
        return new Figures(name, made.Requests, made.Failed, made.Latency.Max, Math.Max(0, stayed.Connections - Busy), stayed.Failed, way.Copied, way.Led,
            Sum(nodes, s_receivedTwice) - twice, Sum(nodes, [("Tcp", "RetransSegs")]) - again);
    }

    private static NetnsProcess Started(TwoNodes nodes, LoadOptions options) => nodes.Client.Start(Programs.Load, [.. options.ToArguments(), "--progress"]);

    private static Task RunsAsync(NetnsProcess load, double ok) => Eventually.True(
        () => Progress().Matches(load.Errors).LastOrDefault() is { } line && long.Parse(line.Groups[1].Value, CultureInfo.InvariantCulture) >= ok,
        s_patience, () => $"the load should get answers: {load.Errors}");

    private static async Task<LoadResult> EndedAsync(NetnsProcess load)
    {
        load.Terminate();
        await load.Exit(s_patience);
        return LoadResult.FromJson(load.Output);
    }

    private static long Sum(TwoNodes nodes, (string Group, string Name)[] counters) =>
        (from net in (Netns[])[nodes.Client, nodes.A.Net, nodes.B.Net] from counter in counters select TwoNodes.Counter(net, counter.Group, counter.Name)).Sum();

    private static string Table(List<Figures> all, int rounds)
    {
        StringBuilder text = new();
        text.Append(CultureInfo.InvariantCulture, $"""
            {rounds} rounds of each in turns, summed: {NewPerSecond} new connections/s, each answered after {AnswerMilliseconds} ms, and {Busy} long-lived ones that echo {EchoesPerSecond} times a second together and never end, IPv4 and IPv6 in equal parts; the node is given
            {s_emptying.TotalSeconds} s to empty, the VIPs move, {s_maintenance.TotalSeconds} s later it is brought back. keepalived advertises every 0.2 s. Linux {Machine.Kernel}, {Environment.ProcessorCount} processors for two nodes and all clients.

            | | new connections | failed | slowest, ms | long-lived | cut | packets copied to the peer | routed to it | received twice | sent again |
            |---|---|---|---|---|---|---|---|---|---|

            """);
        foreach (Figures f in all)
            text.Append(CultureInfo.InvariantCulture,
                $"| {f.Way} | {f.New:#,0} | {f.Failed:#,0} | {f.SlowestMilliseconds:#,0} | {Busy * rounds:#,0} | {f.Cut:#,0} | {f.Copied:#,0} | {f.Led:#,0} | {f.Twice:#,0} | {f.Retransmitted:#,0} |\n");
        text.Append("\nCut: each was made anew and could be cut again, by the move there and by the move back. Received twice: TCP segments that the receiver had already. Sent again: TCP segments, by clients and nodes.\n");
        return text.ToString();
    }

    [GeneratedRegex(@"\d+ requests, (\d+) ok")]
    private static partial Regex Progress();
}
