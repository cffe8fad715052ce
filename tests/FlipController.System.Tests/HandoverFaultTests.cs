using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>Something dies at a random instant of a handover: NEW connections are answered again soon, and afterwards nothing of it is left.</summary>
[Collection(PairUnderTest.Alone)]
public sealed class HandoverFaultTests(ITestOutputHelper output)
{
    private static readonly TimeSpan s_patience = PairUnderTest.Patience;

    /// <summary>A second of ours, and three advertisements of 0.2 s with their skew (RFC 5798, 6.1).</summary>
    private static readonly TimeSpan s_recovery = TimeSpan.FromSeconds(1 + (3 * 0.2) + 0.2);

    /// <summary>Instants each; a figure's run sets more.</summary>
    private static readonly int s_times = int.TryParse(Environment.GetEnvironmentVariable("FLIP_HANDOVER_FAULTS"), CultureInfo.InvariantCulture, out int times) ? times : 1;

    [Theory(Timeout = 1_200_000)]
    [InlineData("daemon of a")]
    [InlineData("daemon of b")]
    [InlineData("keepalived of a")]
    [InlineData("keepalived of b")]
    [InlineData("haproxy of b")]
    [InlineData("cable of a")]
    [InlineData("cable of b")]
    public async Task NEW_connections_recover_and_nothing_is_left(string what)
    {
        Require.Netns();
        Require.Program("haproxy");
        Require.Program("keepalived");
        int seed = Environment.TickCount;
        var random = new Random(seed);
        using TwoNodes nodes = await TwoNodes.StartAsync(new TwoNodesOptions { Handover = "deadline: 1s, second_chance: 5s" });
        for (int time = 1; time <= s_times; time++)
        {
            await using LoadRun busy = await PairUnderTest.StartedAsync(TwoNodesTests.Busy(nodes, 20, 100)), fresh = await PairUnderTest.StartedAsync(TwoNodesTests.Fresh(nodes, 100));
            await Eventually.True(() => busy.Now.Ok > 100, s_patience, () => $"{busy.Now}");
            bool startsBack = random.Next(2) == 0;
            await nodes.A.FlipctlAsync("handover", "start", "--no-wait");
            if (startsBack)
            {
                await PhasesAsync(nodes.A, "leaving", "away");
                await nodes.A.FlipctlAsync("handover", "cancel", "--no-wait");
            }
            // Whatever is done in the next two seconds, it is somewhere in it.
            long more = fresh.Now.Ok + random.Next(200);
            await Eventually.True(() => fresh.Now.Ok >= more, s_patience, () => $"{fresh.Now}");
            HandoverReport? at = await TryReportAsync(nodes.A);
            Break(nodes, what);
            var since = Stopwatch.StartNew();
            await Eventually.True(() => since.Elapsed >= s_recovery, s_patience, "time should pass");
            await using (LoadRun after = await PairUnderTest.StartedAsync(TwoNodesTests.Fresh(nodes, 100)))
            {
                await Eventually.True(() => after.Now.Ok >= 200 || after.Now.Failed > 0, s_patience, () => $"{after.Now}\n{nodes.A.Said()}\n{nodes.B.Said()}");
                LoadResult result = await PairUnderTest.EndedAsync(after);
                Assert.True(result.Failed == 0, $"{what} at {at} (seed {seed}, {time}): {result.ToJson()}\n{nodes.A.Said()}\n{nodes.B.Said()}");
            }
            Mend(nodes, what);
            await NothingIsLeftAsync(nodes, $"{what} at {at} (seed {seed}, {time})");
            await nodes.HasVipsAsync(nodes.A);
            output.WriteLine($"FIGURE {what} at {at?.Phase}{(startsBack ? " on the way back" : "")}: {fresh.Now.Failed} of {fresh.Now.Ok} failed meanwhile");
        }
    }

    private static void Break(TwoNodes nodes, string what)
    {
        TwoNodes.Node node = what.EndsWith('a') ? nodes.A : nodes.B;
        switch (what.Split(' ')[0])
        {
            case "daemon":
                node.Daemon!.Signal(Signals.Kill);
                break;
            case "keepalived":
                node.Keepalived!.Signal(Signals.Kill);
                break;
            case "haproxy":
                node.Net.Exec("pkill", "-KILL", "-f", $"^haproxy.*{node["run"]}");
                break;
            default:
                nodes.Cable(node, isIn: false);
                break;
        }
    }

    private static void Mend(TwoNodes nodes, string what)
    {
        TwoNodes.Node node = what.EndsWith('a') ? nodes.A : nodes.B;
        switch (what.Split(' ')[0])
        {
            case "daemon":
                node.StartDaemon();
                break;
            case "keepalived":
                node.StartKeepalived();
                break;
            case "cable":
                nodes.Cable(node, isIn: true);
                break;
        }
    }

    /// <summary>Cancelled, and not waited for who is still led anywhere.</summary>
    private static async Task NothingIsLeftAsync(TwoNodes nodes, string when)
    {
        await Eventually.True(async () =>
        {
            if (await TryReportAsync(nodes.A) is not { } a || await TryReportAsync(nodes.B) is not { } b) return false;
            if (a.Phase is "proving" or "emptying" or "moving" or "leaving" or "away") await nodes.A.FlipctlAsync("handover", "cancel", "--no-wait");
            if (a.Phase == "returning") await nodes.A.FlipctlAsync("handover", "finish");
            // It brings a back; only then is it asked to let go of what is left.
            if (a.Phase == "none" && b.Phase is "returning" or "away") await nodes.B.FlipctlAsync("handover", "finish");
            return await TryReportAsync(nodes.A) is { Phase: "none", Receiving: null } && await TryReportAsync(nodes.B) is { Phase: "none", Receiving: null };
        }, s_patience * 3, () => $"{when}\n{nodes.A.Said()}\n{nodes.B.Said()}");
        HandoverTests.Untouched(nodes);
    }

    private static async Task<HandoverReport?> TryReportAsync(TwoNodes.Node node)
    {
        (int code, string said, _) = await node.FlipctlAsync("--json", "handover", "status");
        return code == 0 ? JsonSerializer.Deserialize(said, WireJson.Default.HandoverReport) : null;
    }

    private static Task PhasesAsync(TwoNodes.Node node, params string[] phases) =>
        Eventually.True(async () => await TryReportAsync(node) is { } report && phases.Contains(report.Phase), s_patience, node.Said);
}
