using System.Globalization;
using System.Text.Json;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>Two real nodes with real keepalived: one is emptied, the VIPs move, and everything comes back, under load.</summary>
[Collection(PairUnderTest.Alone)]
public sealed class HandoverTests(ITestOutputHelper output)
{
    private static readonly TimeSpan s_patience = PairUnderTest.Patience;

    /// <summary>Of the long test; a figure's run sets 20.</summary>
    private static readonly int s_rounds = int.TryParse(Environment.GetEnvironmentVariable("FLIP_HANDOVERS"), CultureInfo.InvariantCulture, out int rounds) ? rounds : 2;

    [Fact(Timeout = 1_200_000)]
    public async Task A_node_is_emptied_the_VIPs_move_and_come_back_and_nobody_notices()
    {
        using TwoNodes nodes = await NodesAsync();
        await using LoadRun fresh = await PairUnderTest.StartedAsync(TwoNodesTests.Fresh(nodes, 100)), busy = await PairUnderTest.StartedAsync(TwoNodesTests.Busy(nodes, 200, 400));
        await Eventually.True(() => busy.Now.Ok > 800, s_patience, () => $"{busy.Now}");
        for (int round = 1; round <= s_rounds; round++)
        {
            await FlipctlAsync(nodes.A, "handover", "start", "--deadline", "1s", "--no-wait");
            await PhaseAsync(nodes.A, "leaving");
            await nodes.HasVipsAsync(nodes.B);
            await MoreAsync(fresh, 100);
            await MoreAsync(busy, 400);
            await FlipctlAsync(nodes.A, "handover", "cancel", "--no-wait");
            await nodes.HasVipsAsync(nodes.A);
            await PhaseAsync(nodes.A, "none");
            await PhaseAsync(nodes.B, "none");
            await MoreAsync(fresh, 100);
            await MoreAsync(busy, 400);
        }
        LoadResult news = await PairUnderTest.PassedAsync(fresh), kept = await PairUnderTest.PassedAsync(busy);
        Assert.Equal(200, kept.Connections); // none was made anew
        Assert.Equal(["a", "b"], news.ServedBy.Keys.Order());
        Assert.Equal(["a"], kept.ServedBy.Keys);
        Untouched(nodes);
        output.WriteLine($"FIGURE handover: {s_rounds} rounds, {news.Ok} new connections, {news.Failed} failed; 200 long-lived, {kept.Ok} exchanges, {kept.Failed} cut");
    }

    [Fact(Timeout = 300_000)]
    public async Task A_node_with_nobody_left_is_away_until_it_is_brought_back()
    {
        using TwoNodes nodes = await NodesAsync();
        await using LoadRun fresh = await PairUnderTest.StartedAsync(TwoNodesTests.Fresh(nodes, 100));
        await MoreAsync(fresh, 50);
        (int code, string said, string errors) = await nodes.A.FlipctlAsync("handover", "start");
        Assert.True(code == 0, said + errors + nodes.A.Said() + nodes.B.Said());
        Assert.Contains("nobody is left here", said, StringComparison.Ordinal);
        Assert.Contains("the peer has the VIPs", errors, StringComparison.Ordinal);
        await nodes.HasVipsAsync(nodes.B);
        Assert.Equal("100", (await File.ReadAllTextAsync(nodes.A.TrackFile)).Trim());
        Untouched(nodes); // already: nothing is left of it but the lowered priority
        HandoverReport away = await ReportAsync(nodes.A);
        Assert.Equal(("away", 0, false, true), (away.Phase, away.Left, away.Failed, away.Lowered));
        Assert.Equal(3, (await nodes.A.FlipctlAsync("handover", "start")).ExitCode);

        // A restart changes nothing about it.
        nodes.A.Daemon!.Signal(Signals.Kill);
        nodes.A.StartDaemon();
        await PhaseAsync(nodes.A, "away");
        await MoreAsync(fresh, 50);
        await nodes.HasVipsAsync(nodes.B);

        (code, said, errors) = await nodes.A.FlipctlAsync("handover", "cancel");
        Assert.True(code == 0, said + errors + nodes.A.Said() + nodes.B.Said());
        await nodes.HasVipsAsync(nodes.A);
        await PhaseAsync(nodes.B, "none");
        await MoreAsync(fresh, 50);
        await PairUnderTest.PassedAsync(fresh);
        Assert.Equal("0", (await File.ReadAllTextAsync(nodes.A.TrackFile)).Trim());
        Assert.Equal("0", (await File.ReadAllTextAsync(nodes.B.TrackFile)).Trim());
        Untouched(nodes);
    }

    [Fact(Timeout = 300_000)]
    public async Task Cancelled_in_the_middle_what_went_to_the_peer_stays_there_until_it_ends()
    {
        using TwoNodes nodes = await NodesAsync();
        await using LoadRun before = await PairUnderTest.StartedAsync(TwoNodesTests.Busy(nodes, 20, 100));
        await MoreAsync(before, 100);
        await FlipctlAsync(nodes.A, "handover", "start", "--deadline", "10m", "--no-wait");
        await PhaseAsync(nodes.A, "emptying");
        await DivertsAsync(nodes.A, true);
        await using LoadRun there = await PairUnderTest.StartedAsync(TwoNodesTests.Busy(nodes, 20, 100));
        await using LoadRun fresh = await PairUnderTest.StartedAsync(TwoNodesTests.Fresh(nodes, 100));
        await MoreAsync(fresh, 50);
        await MoreAsync(there, 100);
        HandoverReport emptying = await ReportAsync(nodes.A);
        Assert.Equal(2, emptying.VipsHere.Length);
        Assert.True(emptying is { Left: >= 20, AtPeer: >= 20, PacketsLed: > 100 }, $"{emptying}");
        Assert.NotNull((await ReportAsync(nodes.B)).Receiving);

        await FlipctlAsync(nodes.A, "handover", "cancel", "--no-wait");
        await PhaseAsync(nodes.A, "returning");
        long news = fresh.Now.Ok;
        await MoreAsync(there, 100);
        await MoreAsync(before, 100);
        await MoreAsync(fresh, 50);
        LoadResult kept = await PairUnderTest.PassedAsync(there), old = await PairUnderTest.PassedAsync(before), made = await PairUnderTest.PassedAsync(fresh);
        Assert.Equal((20, 20), (kept.Connections, old.Connections));
        Assert.Equal(["b"], kept.ServedBy.Keys);
        Assert.Equal(["a"], old.ServedBy.Keys);
        Assert.Equal(["a", "b"], made.ServedBy.Keys.Order());
        await PhaseAsync(nodes.A, "none");
        await Eventually.True(async () => (await ReportAsync(nodes.B)).Receiving is null, s_patience, () => nodes.A.Said() + nodes.B.Said());
        await nodes.HasVipsAsync(nodes.A);
        Untouched(nodes);
    }

    [Theory(Timeout = 300_000)]
    [InlineData("haproxy")]
    [InlineData("daemon")]
    [InlineData("cable")]
    public async Task A_peer_that_is_lost_in_the_middle_gets_no_NEW_connection_a_second_later(string what)
    {
        using TwoNodes nodes = await NodesAsync();
        await using LoadRun old = await PairUnderTest.StartedAsync(TwoNodesTests.Busy(nodes, 20, 100));
        await MoreAsync(old, 100);
        await FlipctlAsync(nodes.A, "handover", "start", "--deadline", "10m", "--no-wait");
        await PhaseAsync(nodes.A, "emptying");
        await DivertsAsync(nodes.A, true);
        // Of whoever answers, nobody is asked for more than an answer.
        await using LoadRun fresh = await PairUnderTest.StartedAsync(TwoNodesTests.Fresh(nodes, 100));
        await Eventually.True(() => fresh.Now.Ok > 50, s_patience, "in time");
        switch (what)
        {
            case "haproxy":
                nodes.B.Net.Exec("pkill", "-KILL", "-f", $"^haproxy.*{nodes.B["run"]}");
                break;
            case "daemon":
                nodes.B.Daemon!.Signal(Signals.Kill);
                break;
            default:
                nodes.Cable(nodes.B, isIn: false);
                break;
        }
        await using LoadRun after = await AfterASecondAsync(nodes);
        await MoreAsync(after, 200);
        LoadResult result = await PairUnderTest.PassedAsync(after);
        if (what != "haproxy") Assert.Equal(["a"], result.ServedBy.Keys); // the daemon of that one starts it again at once
        LoadResult ended = await PairUnderTest.EndedAsync(fresh);
        if (what == "daemon") Assert.Equal(0, ended.Failed);
        Assert.Equal(20, (await PairUnderTest.PassedAsync(old)).Connections);

        if (what == "daemon") nodes.B.StartDaemon();
        nodes.Cable(nodes.B, isIn: true);
        await Eventually.True(async () => (await nodes.A.FlipctlAsync("handover", "cancel", "--no-wait")).ExitCode is 0 or 3, s_patience, () => nodes.A.Said() + nodes.B.Said());
        await nodes.A.FlipctlAsync("handover", "finish");
        await PhaseAsync(nodes.A, "none");
        await nodes.HasVipsAsync(nodes.A);
        await Eventually.True(async () => (await ReportAsync(nodes.B)).Receiving is null, s_patience, () => nodes.A.Said() + nodes.B.Said());
        Untouched(nodes);
    }

    [Fact(Timeout = 300_000)]
    public async Task A_daemon_that_is_killed_lets_NEW_connections_come_home_and_goes_on_where_it_was()
    {
        using TwoNodes nodes = await NodesAsync();
        await using LoadRun old = await PairUnderTest.StartedAsync(TwoNodesTests.Busy(nodes, 20, 100)), fresh = await PairUnderTest.StartedAsync(TwoNodesTests.Fresh(nodes, 100));
        await MoreAsync(old, 100);
        await FlipctlAsync(nodes.A, "handover", "start", "--deadline", "10m", "--no-wait");
        await PhaseAsync(nodes.A, "emptying");
        await DivertsAsync(nodes.A, true);
        await using LoadRun there = await PairUnderTest.StartedAsync(TwoNodesTests.Busy(nodes, 20, 100));
        await MoreAsync(there, 100);
        nodes.A.Daemon!.Signal(Signals.Kill);
        // Nobody renews the lease: the kernel serves them here.
        await Eventually.True(() => !nodes.A.Net.Exec("nft", "list", "set", "netdev", "flipcontroller-handover", "alive").Contains("expires", StringComparison.Ordinal), s_patience, "the lease should end");
        await using (LoadRun home = await PairUnderTest.StartedAsync(TwoNodesTests.Fresh(nodes, 100)))
        {
            await MoreAsync(home, 50);
            Assert.Equal(["a"], (await PairUnderTest.PassedAsync(home)).ServedBy.Keys);
        }
        await MoreAsync(there, 100); // what the peer has it keeps
        nodes.A.StartDaemon();
        await PhaseAsync(nodes.A, "emptying");
        await DivertsAsync(nodes.A, true);
        await using (LoadRun away = await PairUnderTest.StartedAsync(TwoNodesTests.Fresh(nodes, 100)))
        {
            await MoreAsync(away, 50);
            Assert.Contains("b", (await PairUnderTest.PassedAsync(away)).ServedBy.Keys);
        }
        await FlipctlAsync(nodes.A, "handover", "cancel", "--no-wait");
        await MoreAsync(there, 50);
        foreach (LoadRun run in (LoadRun[])[old, there]) Assert.Equal(20, (await PairUnderTest.PassedAsync(run)).Connections);
        await PairUnderTest.PassedAsync(fresh);
        await PhaseAsync(nodes.A, "none");
        Untouched(nodes);
    }

    [Fact(Timeout = 300_000)]
    public async Task What_cannot_be_handed_over_is_refused_with_the_reason_and_nothing_is_done()
    {
        using TwoNodes nodes = await NodesAsync();
        (int code, _, string errors) = await nodes.B.FlipctlAsync("handover", "start");
        Assert.Equal(3, code);
        Assert.Contains("does not have the VIPs", errors, StringComparison.Ordinal);
        (code, _, errors) = await nodes.A.FlipctlAsync("handover", "cancel");
        Assert.Equal(3, code);
        Assert.Contains("there is no handover", errors, StringComparison.Ordinal);
        (code, _, errors) = await nodes.A.FlipctlAsync("handover", "start", "--threshold", "-1");
        Assert.Equal(2, code);
        (code, _, errors) = await nodes.A.FlipctlAsync("handover", "status", "--deadline", "1s");
        Assert.Equal(2, code);
        nodes.B.Daemon!.Signal(Signals.Kill);
        (code, _, errors) = await nodes.A.FlipctlAsync("handover", "start");
        Assert.Equal(1, code);
        Assert.Contains("the peer cannot take over", errors, StringComparison.Ordinal);
        await nodes.HasVipsAsync(nodes.A);
        Untouched(nodes);
    }

    internal static async Task<TwoNodes> NodesAsync(TwoNodesOptions? options = null)
    {
        Require.Netns();
        Require.Program("haproxy");
        Require.Program("keepalived");
        return await TwoNodes.StartAsync(options ?? new TwoNodesOptions { Handover = "deadline: 1m, second_chance: 10m" });
    }

    private static async Task<LoadRun> AfterASecondAsync(TwoNodes nodes)
    {
        long since = Environment.TickCount64;
        await Eventually.True(() => Environment.TickCount64 - since > 1000, s_patience, "in time");
        return await PairUnderTest.StartedAsync(TwoNodesTests.Fresh(nodes, 100));
    }

    internal static async Task MoreAsync(LoadRun run, long more)
    {
        long before = run.Now.Ok;
        await Eventually.True(() => run.Now.Ok >= before + more || run.Now.Failed > 0, s_patience, () => $"{run.Now}");
    }

    internal static async Task FlipctlAsync(TwoNodes.Node node, params string[] arguments)
    {
        (int code, string said, string errors) = await node.FlipctlAsync(arguments);
        Assert.True(code == 0, $"flipctl {string.Join(' ', arguments)}: {code}\n{said}{errors}\n{node.Said()}");
    }

    internal static async Task<HandoverReport> ReportAsync(TwoNodes.Node node)
    {
        (int code, string said, string errors) = await node.FlipctlAsync("--json", "handover", "status");
        Assert.True(code == 0, errors);
        return JsonSerializer.Deserialize(said, WireJson.Default.HandoverReport)!;
    }

    internal static async Task PhaseAsync(TwoNodes.Node node, string phase)
    {
        HandoverReport? last = null;
        await Eventually.True(async () =>
        {
            (int code, string said, _) = await node.FlipctlAsync("--json", "handover", "status");
            if (code != 0) return false; // the daemon is being started
            last = JsonSerializer.Deserialize(said, WireJson.Default.HandoverReport);
            return last!.Phase == phase;
        }, s_patience, () => $"{node.Name} should be {phase} and is {last}\n{node.Said()}");
    }

    internal static Task DivertsAsync(TwoNodes.Node node, bool diverts) =>
        Eventually.True(async () => (await ReportAsync(node)).Diverts == diverts, s_patience, node.Said);

    /// <summary>Nothing of a handover is in the kernel of either node, and what was changed for it is as it was.</summary>
    internal static void Untouched(TwoNodes nodes)
    {
        foreach (TwoNodes.Node node in nodes.Both)
        {
            Assert.DoesNotContain("netdev", node.Net.Exec("nft", "list", "tables"), StringComparison.Ordinal);
            string loopback = node.Net.Ip("-oneline", "address", "show", "dev", "lo");
            Assert.DoesNotContain(nodes.VipV4.ToString(), loopback, StringComparison.Ordinal);
            Assert.DoesNotContain(nodes.VipV6.ToString(), loopback, StringComparison.Ordinal);
            foreach (string setting in (string[])["arp_ignore", "arp_announce"])
                Assert.Equal("0", node.Net.Exec("cat", $"/proc/sys/net/ipv4/conf/{TwoNodes.Device}/{setting}").Trim());
        }
    }
}
