using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>Draining by hand, and at the deadline.</summary>
public sealed class DrainTests
{
    private static readonly PairYaml s_byHand = new() { FlipsByItself = false };

    private static async Task<PairUnderTest> FlippedAsync(PairYaml yaml, int held)
    {
        PairUnderTest pair = await StartAsync(yaml);
        for (int i = 0; i < held; i++) await pair.HoldAsync();
        pair.Write(Config("v2"));
        await pair.FlipAsync();
        await pair.UntilAsync(s => s.Retired.Any(r => r.Leaving?.Step == "draining"), "the first generation should drain");
        return pair;
    }

    [Fact(Timeout = 90_000)]
    public async Task The_active_slot_is_emptied_after_the_other_has_taken_over_and_nothing_else_is_cut()
    {
        await using PairUnderTest pair = await StartAsync(s_byHand);
        HeldConnection held = await pair.HoldAsync(), held6 = await pair.HoldAsync(pair.Services[1]);
        await using LoadRun load = await StartedAsync(pair.Load(300));
        await using LoadRun kept = await StartedAsync(pair.Load(100) with { Mode = LoadMode.Keepalive, Connections = 8 });

        DrainRecord drain = await pair.DrainAsync(new DrainRequest("blue", "1s", Reason: "memory is replaced"));

        Assert.Equal(("drained", Slot.Blue, "memory is replaced"), (drain.Outcome, drain.Slot, drain.Reason));
        Assert.Equal([1], drain.Generations);
        Assert.Equal(2, drain.Closed);
        Assert.False(await held.EchoesAsync());
        Assert.False(await held6.EchoesAsync());
        PairStatus status = await pair.StatusAsync();
        Assert.Equal(("steady", "green", "drain"), (status.State, status.Active!.Slot, status.LastFlip!.Trigger));
        Assert.Empty(status.Retired);
        Assert.Null(status.Drain);
        Assert.Single(pair.HaproxyPids());
        await PassedAsync(load);
        await PassedAsync(kept);
    }

    [Fact(Timeout = 90_000)]
    public async Task A_drain_that_nobody_can_take_over_from_moves_nothing_and_says_why()
    {
        await using PairUnderTest pair = await StartAsync(s_byHand with
        {
            Gate = "{ timeout: 2s, probes: [ { http: { service: \":80\", path: /health, expect: 200 } } ] }",
        });
        HeldConnection held = await pair.HoldAsync();
        using HttpClient client = pair.Client();
        await client.PostAsync("/health/down", null);

        Said said = await pair.FlipctlAsync("drain", Name, "1", "--hold-slot");

        Assert.Equal(1, said.ExitCode);
        Assert.Contains("503", said.Error, StringComparison.Ordinal);
        PairStatus status = await pair.StatusAsync();
        Assert.Equal((1, null, null), (status.Active!.Number, status.HeldSlot, status.Drain));
        await held.StaysAsync();
    }

    [Fact(Timeout = 90_000)]
    public async Task A_held_slot_stays_down_flips_are_refused_and_a_change_of_the_files_waits()
    {
        await using PairUnderTest pair = await StartAsync();
        DrainRecord drain = await pair.DrainAsync(new DrainRequest("blue", HoldSlot: true, SkipUndo: true));
        Assert.Equal("drained", drain.Outcome);
        Assert.Equal(Slot.Blue, (await pair.StatusAsync()).HeldSlot);
        Said flip = await pair.FlipctlAsync("flip", Name), rollback = await pair.FlipctlAsync("rollback", Name), again = await pair.FlipctlAsync("drain", Name, "green");
        Assert.Equal((3, 3, 3), (flip.ExitCode, rollback.ExitCode, again.ExitCode));
        Assert.Contains("held for maintenance", flip.Error, StringComparison.Ordinal);

        pair.Write(Config("v2"));
        await pair.UntilAsync(s => s.Pending, "the change should wait");
        await pair.RestartDaemonAsync(Kill);
        PairStatus status = await pair.UntilAsync(s => s.Pending, "the change should wait after a restart, too");
        Assert.Equal(("steady", Slot.Blue, "v1"), (status.State, status.HeldSlot, await pair.ServedByAsync()));

        Assert.Equal(0, (await pair.FlipctlAsync("undrain", Name)).ExitCode);
        status = await pair.UntilAsync(s => s.Active?.Slot == "blue", "the change that waited should go to the slot that was held");
        Assert.Null(status.HeldSlot);
        Assert.Equal("v2", await pair.ServedByAsync());
    }

    [Fact(Timeout = 90_000)]
    public async Task A_dry_run_tells_the_steps_and_does_nothing()
    {
        await using PairUnderTest pair = await StartAsync(s_byHand);
        Said said = await pair.FlipctlAsync("drain", Name, "blue", "--deadline", "5m", "--hold-slot", "--dry-run");

        Assert.Equal(0, said.ExitCode);
        foreach (string part in new[] { "generation 2", "green", "gate", "undo window", "soft stop", "5m", "undrain" })
            Assert.Contains(part, said.Output, StringComparison.Ordinal);
        PairStatus status = await pair.StatusAsync();
        Assert.Equal((1, 1, null), (status.Active!.Number, status.LastFlip!.Id, status.HeldSlot));
    }

    [Fact(Timeout = 90_000)]
    public async Task A_cancelled_drain_gives_what_leaves_its_configured_time_back()
    {
        await using PairUnderTest pair = await FlippedAsync(s_byHand with { Drain = "{ deadline: 10m }" }, 1);
        Task<(HttpStatusCode Code, string Text)> drain = pair.PostAsync("drain", new DrainRequest("1", "1h"), WireJson.Default.DrainRequest);
        PairStatus status = await pair.UntilAsync(s => s.Drain is not null, "the drain should be under way");
        Assert.InRange(status.Retired.Single().Closes!.Value, DateTimeOffset.UtcNow + TimeSpan.FromMinutes(50), DateTimeOffset.UtcNow + TimeSpan.FromMinutes(70));

        Said said = await pair.FlipctlAsync("drain", Name, "--cancel");
        Assert.Equal(0, said.ExitCode);
        Assert.Equal(HttpStatusCode.UnprocessableEntity, (await drain).Code);
        status = await pair.StatusAsync();
        Assert.InRange(status.Retired.Single().Closes!.Value, DateTimeOffset.UtcNow, DateTimeOffset.UtcNow + TimeSpan.FromMinutes(11));
        Assert.Equal(3, (await pair.FlipctlAsync("drain", Name, "--cancel")).ExitCode);
    }

    [Fact(Timeout = 90_000)]
    public async Task An_interrupted_flipctl_leaves_the_drain_going()
    {
        await using PairUnderTest pair = await FlippedAsync(s_byHand, 1);
        NetnsProcess flipctl = pair.Nets.Server.Start(Programs.Cli, "--socket", pair.Socket, "drain", Name, "1", "--deadline", "10m");
        await pair.UntilAsync(s => s.Drain is not null, "the drain should be under way");
        flipctl.Signal(Signals.Interrupt);

        Assert.Equal(130, await flipctl.Exit(Patience));
        Assert.Contains("goes on", flipctl.Errors, StringComparison.Ordinal);
        Assert.NotNull((await pair.StatusAsync()).Drain);
    }

    [Fact(Timeout = 90_000)]
    public async Task Each_service_has_its_own_deadline()
    {
        await using PairUnderTest pair = await StartAsync(s_byHand with { Drain = "{ deadline: 10m, services: { \"[::]:80 v6only\": 3s }, spread: 1s }" });
        HeldConnection v4 = await pair.HoldAsync(), v6 = await pair.HoldAsync(pair.Services[1]);
        pair.Write(Config("v2"));
        await pair.FlipAsync();
        await pair.UntilAsync(s => s.Retired is [{ Leaving.Deadlines: { } d }] && d.ContainsKey("[::]:80 v6only"), "the deadline of IPv6 should be told");
        await pair.UntilAsync(s => s.Retired is [{ Leaving.Closed: 1 }], "what came by IPv6 should be closed");

        Assert.False(await v6.EchoesAsync());
        await v4.StaysAsync();
        PairStatus status = await pair.UntilAsync(s => s.Retired is [{ Leaving.Step: "draining" }], "the rest should drain on");
        Assert.Null(status.Retired[0].Leaving!.Deadlines);
        Assert.InRange(status.Retired[0].Closes!.Value - DateTimeOffset.UtcNow, TimeSpan.FromMinutes(9), TimeSpan.FromMinutes(10));
        Assert.Contains((await pair.DrainCurveAsync(1)).Marks, m => m.Kind == "deadline");
    }

    [Fact(Timeout = 90_000)]
    public async Task What_is_kept_past_its_deadline_is_waited_for_and_can_be_closed_by_hand()
    {
        await using PairUnderTest pair = await FlippedAsync(s_byHand with { Drain = "{ deadline: 1s, at_deadline: keep }" }, 2);
        await pair.UntilAsync(s => s.Retired is [{ Leaving.Step: "kept" }], "it should be kept");
        ConnectionsReport report = await pair.ConnectionsAsync("?generation=1");
        Assert.Equal((2, 2), (report.Total, report.Matched));

        Assert.Equal(HttpStatusCode.Conflict, (await pair.PostAsync("close", new CloseRequest(Generation: 2), WireJson.Default.CloseRequest)).Code);
        Assert.Equal(HttpStatusCode.BadRequest, (await pair.PostAsync("close", new CloseRequest(), WireJson.Default.CloseRequest)).Code);
        CloseAnswer one = await pair.CloseAsync(new CloseRequest(Peer: report.Connections[0].Peer));
        Assert.Equal((1, 1), (one.Matched, one.Closed));
        CloseAnswer rest = await pair.CloseAsync(new CloseRequest(Older: "0s"));
        Assert.Equal((1, 1), (rest.Matched, rest.Closed));
        await pair.UntilAsync(s => s.Retired.IsEmpty, "then nothing keeps it");
    }

    [Theory(Timeout = 90_000)]
    [InlineData("--peer", "")]
    [InlineData("--older", "")]
    [InlineData("--service", "")]
    [InlineData("--service", ":99")]
    [InlineData("--peer", "010.77.0.1")]
    public async Task A_filter_that_is_empty_or_nonsense_closes_nobody(string option, string value)
    {
        await using PairUnderTest pair = await StartAsync(s_byHand);
        HeldConnection held = await pair.HoldAsync();
        Assert.Equal(2, (await pair.FlipctlAsync("close", Name, option, value, "--force")).ExitCode);
        Assert.Equal(2, (await pair.FlipctlAsync("connections", Name, option, value)).ExitCode);
        Assert.Equal(HttpStatusCode.BadRequest, (await pair.PostAsync("close", new CloseRequest(
            Peer: option == "--peer" ? value : null, Older: option == "--older" ? value : null, Service: option == "--service" ? value : null, Force: true),
            WireJson.Default.CloseRequest)).Code);
        await held.StaysAsync();
    }

    [Fact(Timeout = 90_000)]
    public async Task A_client_that_never_reads_is_gone_soon_after_the_deadline_and_a_finished_drain_can_be_drawn()
    {
        await using PairUnderTest pair = await StartAsync(s_byHand with { Drain = "{ deadline: 10m, spread: 1s }" });
        using Socket deaf = await pair.ConnectAsync(pair.Services[0]);
        await deaf.SendAsync("GET /bytes/80000000?seed=7 HTTP/1.1\r\nHost: service\r\n\r\n"u8.ToArray());
        await Eventually.True(() => deaf.Available > 0, Patience, "the answer should begin");
        pair.Write(Config("v2"));
        await pair.FlipAsync();
        await pair.UntilAsync(s => s.Retired is [{ Leaving.Step: "draining" }], "it should drain");

        var clock = System.Diagnostics.Stopwatch.StartNew();
        DrainRecord drain = await pair.DrainAsync(new DrainRequest("1", "1s"));
        Assert.Equal(("drained", 1), (drain.Outcome, drain.Closed));
        Assert.InRange(clock.Elapsed, TimeSpan.FromSeconds(1), TimeSpan.FromSeconds(15));

        Said drawn = await pair.FlipctlAsync("history", Name, "2", "--plot", pair.Files["drain.svg"]);
        Assert.True(drawn.ExitCode == 0, drawn.Error);
        Assert.Contains("<svg", File.ReadAllText(pair.Files["drain.svg"]), StringComparison.Ordinal);
    }

    [Fact(Timeout = 90_000)]
    public async Task A_HAProxy_that_hangs_while_it_drains_is_ended_at_its_deadline_and_keeps_nobody_waiting()
    {
        const int stopped = 19; // SIGSTOP
        await using PairUnderTest pair = await FlippedAsync(s_byHand with { Drain = "{ deadline: 10m, spread: 1s }" }, 2);
        int pid = (await pair.StatusAsync()).Retired[0].Pid;
        Assert.True(Signals.Send(pid, stopped));
        await pair.UntilAsync(s => s.Retired is [{ Connections.Haproxy: null }], "it should be seen to be mute");
        var clock = System.Diagnostics.Stopwatch.StartNew();
        PairStatus status = await pair.StatusAsync();
        Assert.InRange(clock.Elapsed, TimeSpan.Zero, TimeSpan.FromSeconds(5));
        Assert.Equal(2, status.Retired[0].Connections.Sockets);

        clock.Restart();
        Assert.Equal("drained", (await pair.DrainAsync(new DrainRequest("1", "1s"))).Outcome);
        Assert.InRange(clock.Elapsed, TimeSpan.FromSeconds(1), TimeSpan.FromSeconds(20));
        Assert.Single(pair.HaproxyPids());
    }

    [Fact(Timeout = 90_000)]
    public async Task On_the_active_one_connections_are_closed_only_by_force()
    {
        await using PairUnderTest pair = await StartAsync(s_byHand);
        HeldConnection held = await pair.HoldAsync(), other = await pair.HoldAsync(pair.Services[1]);
        Said refused = await pair.FlipctlAsync("close", Name, "--generation", "1", "--peer", held.Local.ToString());
        Assert.Equal(3, refused.ExitCode);
        await held.StaysAsync();

        Said forced = await pair.FlipctlAsync("close", Name, "--peer", held.Local.ToString(), "--force");
        Assert.Equal(0, forced.ExitCode);
        Assert.False(await held.EchoesAsync());
        await other.StaysAsync();
    }

    [Fact(Timeout = 120_000)]
    public async Task Sixty_connections_on_each_of_five_generations_are_listed_and_closed_in_order_and_the_active_ones_stay()
    {
        const int each = 60;
        await using PairUnderTest pair = await StartAsync(s_byHand with { Watch = "{ undo: 1s }", Drain = "{ deadline: 10m, spread: 3s, max_retired: 5 }" });
        var held = new Dictionary<int, List<HeldConnection>>();
        for (int generation = 1; generation <= 5; generation++)
        {
            if (generation > 1)
            {
                pair.Write(Config($"v{generation}"));
                await pair.FlipAsync();
            }
            held[generation] = [];
            for (int i = 0; i < each; i++) held[generation].Add(await pair.HoldAsync(pair.Services[i % 2]));
        }
        PairStatus status = await pair.UntilAsync(
            s => s.State == "steady" && s.Retired.Length == 4 && s.Retired.All(r => r.Leaving?.Step == "draining")
                && s.Retired.Append(s.Active!).All(g => g.Connections is { Conntrack: each, Sockets: each, Haproxy: each }),
            $"four generations should drain, each with {each} connections by every count");
        foreach (GenerationStatus g in status.Retired.Append(status.Active!))
        {
            Assert.True(g.MemoryBytes > 1_000_000);
            ConnectionsReport own = await pair.ConnectionsAsync($"?generation={g.Number}&limit=1000&sort=peer");
            Assert.Equal(
                held[g.Number].Select(h => h.Local.ToString()).Order(), own.Connections.Select(c => c.Peer).Order());
            Assert.All(own.Connections, c => Assert.Equal(("web", "app", "established"), (c.Frontend, c.Backend, c.State)));
        }
        // Half of the first generation's speak: they are the less idle ones, to be closed last.
        HashSet<IPEndPoint> lively = [.. held[1].Where((_, i) => i % 4 < 2).Select(h => h.Local)];
        foreach (HeldConnection speaking in held[1].Where(h => lively.Contains(h.Local))) await speaking.StaysAsync();
        Task<IPEndPoint[]> order = ClosingOrderAsync(held[1]);

        Assert.Equal("drained", (await pair.DrainAsync(new DrainRequest("1", "1s"))).Outcome);
        IPEndPoint[] closed = await order;
        Assert.Equal(each, closed.Length);
        // Some are closed in the same step: a few may be heard of out of order.
        Assert.InRange(closed.Take(each / 2).Count(lively.Contains), 0, 3);
        status = await pair.StatusAsync();
        Assert.Equal([2, 3, 4], status.Retired.Select(r => r.Number));

        for (int generation = 2; generation <= 4; generation++)
            Assert.Equal(each, (await pair.DrainAsync(new DrainRequest(generation.ToString(), "1s"))).Closed);
        bool[] alive = await Task.WhenAll(held[5].Select(h => h.EchoesAsync()));
        Assert.All(alive, Assert.True);
        Assert.Single(pair.HaproxyPids());
        DrainCurve curve = await pair.DrainCurveAsync(1);
        Assert.Equal((each, 0, each), (curve.Samples[0].Connections, curve.Samples[^1].Connections, curve.Closed));
        Assert.Contains(curve.Samples, s => s.Connections is > 0 and < each);
        Assert.True(curve.Marks.Select(m => m.Kind).SequenceEqual(["retired", "deadline", "closing", "ended"]), JsonSerializer.Serialize(curve));
    }

    private static async Task<IPEndPoint[]> ClosingOrderAsync(IEnumerable<HeldConnection> held)
    {
        var closed = new System.Collections.Concurrent.ConcurrentQueue<IPEndPoint>();
        await Task.WhenAll(held.Select(async h =>
        {
            await h.ClosedAsync();
            closed.Enqueue(h.Local);
        }));
        return [.. closed];
    }

    [Fact(Timeout = 90_000)]
    public async Task A_reload_sets_another_deadline_and_HAProxy_can_still_be_asked()
    {
        const int hangup = 1;
        await using PairUnderTest pair = await FlippedAsync(s_byHand with { Drain = "{ deadline: 10m, spread: 1s }" }, 2);
        string yaml = File.ReadAllText(pair.Files["flipcontroller.yaml"]);
        pair.Files.Write("flipcontroller.yaml", yaml.Replace("deadline: 10m", "deadline: 9m", StringComparison.Ordinal));
        pair.SignalDaemon(hangup);
        PairStatus status = await pair.UntilAsync(
            s => s.Retired is [{ Leaving.Step: "draining" } r] && r.Closes < r.Leaving.Until + TimeSpan.FromSeconds(1) && r.Closes < DateTimeOffset.UtcNow + TimeSpan.FromMinutes(9.2),
            "the new deadline should count");
        Assert.Equal(2, status.Retired[0].Connections.Sockets);
        await pair.UntilAsync(s => s.Retired is [{ Connections.Haproxy: 2 }], "HAProxy should still be asked");

        pair.Files.Write("flipcontroller.yaml", yaml.Replace("deadline: 10m", "deadline: 1s", StringComparison.Ordinal));
        pair.SignalDaemon(hangup);
        await pair.UntilAsync(s => s.Retired.IsEmpty, "a deadline that has passed should come at once");
        Assert.Equal(2, (await pair.DrainCurveAsync(1)).Closed);
        Assert.Single(pair.HaproxyPids());
    }

    [Fact(Timeout = 90_000)]
    public async Task A_drain_goes_on_under_another_controller()
    {
        await using PairUnderTest pair = await FlippedAsync(s_byHand with { Drain = "{ deadline: 8s, spread: 1s }" }, 2);
        HeldConnection late = await pair.HoldAsync();
        await pair.RestartDaemonAsync(Kill);
        PairStatus status = await pair.UntilAsync(s => s.Retired is [{ Connections.Sockets: 2 }], "its connections should still be seen");
        Assert.Null(status.Retired[0].Connections.Haproxy);
        Assert.Contains(status.Retired[0].Connections.Why!.Value, w => w.Contains("earlier run of the controller", StringComparison.Ordinal));

        await pair.UntilAsync(s => s.Retired.IsEmpty, "its deadline should come all the same");
        await late.StaysAsync();
        DrainCurve curve = await pair.DrainCurveAsync(1);
        Assert.NotNull(curve.Ended);
        Assert.Equal(2, curve.Closed);
    }
}
