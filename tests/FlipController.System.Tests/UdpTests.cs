using System.Diagnostics;
using System.Globalization;
using System.Net;
using FlipController.Core;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>Syslog over UDP through a real HAProxy: who sends from one port for ever follows a flip, and nothing is lost or doubled.</summary>
[Collection(Alone)]
public sealed class UdpTests
{
    private const int Rate = 20_000, Senders = 50, FirstPort = 514, Ports = 10, Behind = 5514;

    /// <summary>Each generation hands its datagrams on to its own receiver, or all to one.</summary>
    private static string Forwarding(string label, int to = Behind, int ports = 1) => Config(label) + $"""
        log-forward syslog
          dgram-bind :{FirstPort}-{FirstPort + ports - 1}
          dgram-bind :::{FirstPort}-{FirstPort + ports - 1} v6only
          log 127.0.0.1:{to} len 1024 local0

        """;

    private static Task<PairUnderTest> StartAsync(PairYaml? yaml = null, int ports = 1) =>
        PairUnderTest.StartAsync(yaml, p => p.Write(Forwarding("v1", ports: ports)));

    private static IPEndPoint[] Fronts(PairUnderTest pair, int ports = 1) =>
        [.. Enumerable.Range(FirstPort, ports).SelectMany(p => new IPEndPoint[] { new(pair.Nets.ServerV4, p), new(pair.Nets.ServerV6, p) })];

    /// <summary>Several sockets, since HAProxy leaves each with the kernel's usual buffer, which 277 messages fill.</summary>
    [Fact(Timeout = 120_000)]
    public async Task A_stream_from_fifty_fixed_ports_loses_and_doubles_nothing_in_flips()
    {
        await using PairUnderTest pair = await StartAsync(ports: Ports);
        using SyslogReceiver behind = SyslogReceiver.Start(pair.Nets.Server, Behind);
        using var senders = new SyslogSenders(pair.Nets.Client, Senders, Fronts(pair, Ports));
        senders.Start(Rate);
        await Eventually.True(() => senders.Sent > Rate * 2, Patience, () => $"the stream should flow: {senders.Sent} sent");
        long sentThen = senders.Sent;
        var clock = Stopwatch.StartNew();
        int first = (await pair.StatusAsync()).Active!.Number;
        for (int i = 0; i < 10; i++)
        {
            await pair.FlipByEditAsync(Forwarding($"v{i + 2}", ports: Ports));
            // The old side is told to stop, with the stream going on.
            if (i == 4) await pair.RestartDaemonAsync(Kill);
            await pair.UntilAsync(s => s is { State: "steady", Previous: null, Retired: [] }, "the old side should go");
        }
        double perSecond = (senders.Sent - sentThen) / clock.Elapsed.TotalSeconds;
        senders.Stop();
        await AllCameOnceAsync(pair, senders, behind);
        Show($"{senders.Sent} sent at {perSecond:0} a second through 10 flips, {behind.Distinct} came, {behind.Count - behind.Distinct} twice");
        Assert.Equal(first + 10, (await pair.StatusAsync()).Active!.Number);
        Assert.True(perSecond > Rate / 2.0 / Slowness, $"only {perSecond:0} messages a second were sent");
    }

    [Fact(Timeout = 120_000)]
    public async Task A_stream_goes_over_to_the_pair_that_adopts_and_back_without_a_loss()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { FlipsByItself = false }, p =>
        {
            p.Write(Forwarding("v1", ports: Ports));
            NetnsProcess haproxy = p.Nets.Server.Start("haproxy", "-D", "-f", p.Files.Write("unmanaged.cfg", Forwarding("unmanaged", ports: Ports)));
            Assert.Equal(0, haproxy.Exit(Patience).GetAwaiter().GetResult());
        }, s => s.Fault is not null);
        using SyslogReceiver behind = SyslogReceiver.Start(pair.Nets.Server, Behind);
        using var senders = new SyslogSenders(pair.Nets.Client, Senders, Fronts(pair, Ports));
        await AllArriveAsync(senders, behind);
        senders.Start(Rate / 4);
        for (int i = 0; i < 2; i++)
        {
            foreach (string[] verb in (string[][])[["adopt", PairUnderTest.Name, "--stop"], ["release", PairUnderTest.Name]])
            {
                Said said = await pair.FlipctlAsync(verb);
                Assert.True(said.ExitCode == 0, $"{verb[0]}: {said.Error}\n{pair.DaemonLog}");
                long then = senders.Sent;
                await Eventually.True(() => senders.Sent > then + Rate / 4, Patience, "the stream goes on");
            }
        }
        await pair.UntilAsync(s => s.Retired.IsEmpty, "every generation should go");
        senders.Stop();
        await AllCameOnceAsync(pair, senders, behind);
    }

    [Fact(Timeout = 60_000)]
    public async Task Known_senders_follow_a_flip_and_a_rollback_at_once()
    {
        await using PairUnderTest pair = await StartAsync(new PairYaml { FlipsByItself = false, Watch = "{ undo: 10m }" });
        using SyslogReceiver one = SyslogReceiver.Start(pair.Nets.Server, Behind), two = SyslogReceiver.Start(pair.Nets.Server, Behind + 1);
        using var senders = new SyslogSenders(pair.Nets.Client, Senders, Fronts(pair));
        await AllArriveAsync(senders, one);
        pair.Write(Forwarding("v2", Behind + 1));
        await pair.FlipAsync();
        await AllArriveAsync(senders, two);
        await pair.RollbackAsync();
        await AllArriveAsync(senders, one);
        Assert.Equal((2L * Senders, Senders), (one.Count, two.Count));
    }

    [Fact(Timeout = 60_000)]
    public async Task Senders_that_stick_stay_until_the_old_side_stops_listening()
    {
        await using PairUnderTest pair = await StartAsync(new PairYaml { FlipsByItself = false, Watch = "{ undo: 10m }", Redirect = "{ udp: { \":514\": stick } }" });
        using SyslogReceiver one = SyslogReceiver.Start(pair.Nets.Server, Behind), two = SyslogReceiver.Start(pair.Nets.Server, Behind + 1);
        using var known = new SyslogSenders(pair.Nets.Client, Senders, Fronts(pair));
        await AllArriveAsync(known, one);
        pair.Write(Forwarding("v2", Behind + 1));
        await pair.FlipAsync();
        await AllArriveAsync(known, one);
        using (var local = new SyslogSenders(pair.Nets.Server, Senders, Fronts(pair))) await AllArriveAsync(local, two);

        known.Start(2000);
        await pair.DrainAsync(new DrainRequest());
        await Eventually.True(() => two.Distinct > Senders, Patience, "they go to the new side");
        known.Stop();
        await Eventually.True(() => one.Distinct + two.Distinct >= known.Sent, Patience, () => $"{known.Sent} sent, {one.Distinct} and {two.Distinct} came");
        Assert.Equal(0, known.Refused);
    }

    [Fact(Timeout = 60_000)]
    public async Task When_the_active_one_dies_its_senders_go_to_its_successor_though_they_stick()
    {
        await using PairUnderTest pair = await StartAsync(new PairYaml { Redirect = "{ udp: { \"udp@:514\": stick } }" });
        using SyslogReceiver behind = SyslogReceiver.Start(pair.Nets.Server, Behind);
        using var senders = new SyslogSenders(pair.Nets.Client, Senders, Fronts(pair));
        await AllArriveAsync(senders, behind);
        PairStatus before = await pair.StatusAsync();
        using (var process = Process.GetProcessById(before.Active!.Pid)) process.Kill();
        await pair.UntilAsync(s => s.Active is { } active && active.Number > before.Active.Number && s.Standby is null, "another one should serve");
        // While nobody listened there was nobody to hear them.
        int lost = senders.SentBy(0);
        await Eventually.True(() =>
        {
            for (int i = 0; i < Senders; i++) senders.Send(i);
            return Enumerable.Range(0, Senders).All(s => behind.Has(s, lost));
        }, Patience, "every sender should be heard again");
    }

    [Fact(Timeout = 60_000)]
    public async Task A_word_about_an_address_that_is_not_bound_refuses_the_flip_and_the_ports_behind_are_shut()
    {
        await using PairUnderTest pair = await StartAsync(new PairYaml { Redirect = "{ udp: { \":515\": stick } }" }, ports: 2);
        pair.Write(Forwarding("v2"));
        PairStatus status = await pair.UntilAsync(s => s.LastFlip?.Outcome == "failed", "the flip should be refused");
        Assert.Contains("redirect.udp names :515, which the HAProxy configuration does not bind on UDP; there are udp@*:514, udp@[::]:514 v6only",
            status.Fault, StringComparison.Ordinal);
        int port = status.Active!.Ports["udp@*:514"];
        using SyslogReceiver behind = SyslogReceiver.Start(pair.Nets.Server, Behind);
        using var outside = new SyslogSenders(pair.Nets.Client, 1, [new(pair.Nets.ServerV4, port)]);
        await Eventually.True(() => { outside.Send(0); return outside.Refused > 0; }, Patience, "a private port should refuse datagrams from outside");
        using var inside = new SyslogSenders(pair.Nets.Server, 1, [new(IPAddress.Loopback, port)]);
        await AllArriveAsync(inside, behind);
    }

    /// <summary>One more of each sender, until it has come.</summary>
    private static async Task AllArriveAsync(SyslogSenders senders, SyslogReceiver to)
    {
        List<(int Sender, int Number)> sent = [];
        for (int i = 0; i < senders.Count; i++) sent.Add((i, senders.Send(i)));
        await Eventually.True(() => sent.All(s => to.Has(s.Sender, s.Number)), Patience, () => $"{sent.Count(s => to.Has(s.Sender, s.Number))} of {sent.Count} came");
    }

    private static async Task AllCameOnceAsync(PairUnderTest pair, SyslogSenders senders, SyslogReceiver behind)
    {
        long full = 0;
        await Eventually.True(() => behind.Distinct + (full = NotTaken(pair)) >= senders.Sent, Patience, () =>
            $"datagrams were lost: {senders.Sent} sent, {behind.Distinct} came, and for {full} there was no room in a socket's buffer");
        Assert.Equal((0L, 0, 0), (behind.Count - behind.Distinct, behind.Times.Values.Count(times => times > 1), senders.Refused));
        // What HAProxy would have lost without a flip, too, when it did not get a processor for so long.
        Assert.True(full == 0, $"for {full} datagrams there was no room in a socket's buffer");
    }

    /// <summary>How many datagrams found no room in a socket of the server: a line of names above one of numbers for IPv4, a line each for IPv6.</summary>
    private static long NotTaken(PairUnderTest pair)
    {
        string[][] four = [.. File.ReadLines($"/proc/{pair.DaemonPid}/net/snmp").Where(l => l.StartsWith("Udp:", StringComparison.Ordinal)).Select(l => l.Split(' '))];
        string six = File.ReadLines($"/proc/{pair.DaemonPid}/net/snmp6").Single(l => l.StartsWith("Udp6RcvbufErrors", StringComparison.Ordinal));
        return Number(four[1][Array.IndexOf(four[0], "RcvbufErrors")]) + Number(six.Split((char[])[' ', '\t'], StringSplitOptions.RemoveEmptyEntries)[1]);

        static long Number(string text) => long.Parse(text, CultureInfo.InvariantCulture);
    }
}
