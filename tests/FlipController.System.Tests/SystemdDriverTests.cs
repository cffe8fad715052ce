using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>The promises hold where systemd runs the HAProxys; for it stands <see cref="StandInUnits"/>, the HAProxys and the unit's text are real.</summary>
[Collection(Alone)]
public sealed class SystemdDriverTests
{
    private static readonly PairYaml s_units = new() { Haproxy = ", driver: systemd" };

    private static string UnitOf(int number) => $"flipcontroller-haproxy@edge-g{number:00000}.service";

    private static Task<PairUnderTest> StartAsync(PairYaml? yaml = null, Action<PairUnderTest>? before = null, Func<PairStatus, bool>? until = null) =>
        PairUnderTest.StartAsync(yaml ?? s_units, p =>
        {
            p.UseUnits();
            before?.Invoke(p);
        }, until);

    /// <summary>The generations' units run, and of none that is gone anything is left.</summary>
    private static async Task TidyAsync(PairUnderTest pair)
    {
        PairStatus status = await pair.StatusAsync();
        GenerationStatus?[] all = [status.Active, status.Previous, .. status.Retired];
        string[] running = [.. all.OfType<GenerationStatus>().Select(g => g.Unit).OfType<string>().Order()];
        await Eventually.True(() => pair.Units!.States.Where(u => u.Value != "inactive").Select(u => u.Key).Order().SequenceEqual(running), Patience,
            () => $"expected {string.Join(' ', running)}, found {string.Join(' ', pair.Units!.States)}\n{pair.DaemonLog}");
    }

    [Fact(Timeout = 120_000)]
    public async Task Flips_roll_back_and_drain_under_load_each_generation_in_a_unit_of_its_own()
    {
        await using PairUnderTest pair = await StartAsync(s_units with { Watch = "{ undo: 2s }" });
        await using LoadRun load = await StartedAsync(pair.Load(300));
        await using LoadRun open = await StartedAsync(pair.Load(100) with { Mode = LoadMode.Long, Long = LongTraffic.Echo, Connections = 30, Expect = Expectation.Any });
        HeldConnection one = await pair.HoldAsync();
        PairStatus first = await pair.StatusAsync();
        Assert.Equal((UnitOf(1), first.Active!.Pid), (first.Active.Unit, pair.Units!.MainOf(UnitOf(1))));
        Said shown = await pair.FlipctlAsync("status", Name);
        Assert.Contains($"generation 1: {UnitOf(1)}", shown.Output, StringComparison.Ordinal);
        Assert.Equal("v2", await pair.FlippedAsync("v2"));
        Assert.Equal("rolled-back", (await pair.RollbackAsync()).Outcome);
        Assert.Equal("v1", await pair.ServedByAsync());
        for (int i = 3; i < 7; i++) Assert.Equal($"v{i}", await pair.FlippedAsync($"v{i}"));
        await one.StaysAsync();
        PairStatus status = await pair.UntilAsync(s => s is { State: "steady" } && s.Retired.Any(r => r.Number == 1), "the first should drain");
        Assert.All(status.Retired, r => Assert.Equal(UnitOf(r.Number), r.Unit));
        one.Dispose();
        await PassedAsync(open);
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "nobody should be left");
        await pair.OneIsLeftAsync();
        await TidyAsync(pair);
        await PassedAsync(load);
        Assert.DoesNotContain(pair.Units.Asked, l => l.Contains("reset-failed", StringComparison.Ordinal)); // each ended well
    }

    /// <summary>What the unit leaves HAProxy is enough for it, and a drop-in of an operator's counts from the next generation on.</summary>
    [Fact(Timeout = 60_000)]
    public async Task HAProxy_has_the_units_rights_and_limits_and_becomes_another_user_in_a_jail()
    {
        string Jailed(PairUnderTest pair, string label) => Config(label, global: $"user nobody\n  group nogroup\n  chroot {pair.Files["jail"]}");
        await using PairUnderTest pair = await StartAsync(before: p =>
        {
            Directory.CreateDirectory(p.Files["jail"]);
            p.Write(Jailed(p, "v1"));
        });
        int pid = (await pair.StatusAsync()).Active!.Pid;
        string status = File.ReadAllText($"/proc/{pid}/status");
        Assert.Contains("NoNewPrivs:\t1", status, StringComparison.Ordinal);
        Assert.Matches(@"\nUid:\t65534\s", status);
        pair.Units!.DropIn("limits", "LimitNOFILE=15000");
        await pair.FlipByEditAsync(Jailed(pair, "v2"));
        Assert.Equal("v2", await pair.ServedByAsync());
        Assert.Matches(@"Max open files +\d+ +15000 ", File.ReadAllText($"/proc/{(await pair.StatusAsync()).Active!.Pid}/limits"));
        await pair.OneIsLeftAsync();
        await TidyAsync(pair);
    }

    [Fact(Timeout = 180_000)]
    public async Task The_daemon_may_be_killed_anywhere()
    {
        await using PairUnderTest pair = await StartAsync(s_units with { Drain = "{ deadline: 2h }" });
        await using LoadRun load = await StartedAsync(pair.Load(300));
        HeldConnection held = await pair.HoldAsync();
        int i = 0;
        foreach (string state in new[] { "steady", "preparing", "gating", "switching", "watching", "preparing" })
        {
            string label = $"k{i++}";
            PairStatus before = await pair.UntilAsync(s => s.State == "steady", "the pair should rest");
            if (state != "steady")
            {
                pair.Write(Config(label));
                await Eventually.True(async () => (await pair.StatusAsync()) is { } s && (s.State == state || s.Active!.Number > before.Active!.Number), Patience,
                    () => $"the pair should be {state}, or be done");
            }
            Assert.Equal(128 + Kill, await pair.EndDaemonAsync(Kill));
            Assert.NotNull(await pair.ServedByAsync());
            pair.StartDaemon();
            PairStatus after = await pair.UntilAsync(s => s.State is "steady" or "watching", "the daemon should go on");
            if (state == "steady") Assert.Equal((before.Active!.Pid, before.LastFlip!.Id), (after.Active!.Pid, after.LastFlip!.Id));
            else await Eventually.True(async () => await pair.ServedByAsync() == label, Patience, () => $"{label} should be served; {pair.DaemonLog}");
        }
        await held.StaysAsync();
        Assert.Equal("v1", held.ServedBy);
        held.Dispose();
        await pair.OneIsLeftAsync();
        await TidyAsync(pair);
        await PassedAsync(load);
    }

    [Fact(Timeout = 120_000)]
    public async Task Another_driver_counts_from_the_next_generation_on_and_both_kinds_live_side_by_side()
    {
        await using PairUnderTest pair = await StartAsync(new PairYaml());
        await using LoadRun load = await StartedAsync(pair.Load(300));
        HeldConnection one = await pair.HoldAsync();
        Assert.Null((await pair.StatusAsync()).Active!.Unit);
        await pair.ReconfigureAsync(s_units);
        Assert.Equal("v2", await pair.FlippedAsync("v2"));
        PairStatus status = await pair.UntilAsync(s => s is { State: "steady", Retired: [_] }, "the first should drain");
        Assert.Equal((null, UnitOf(2)), (status.Retired[0].Unit, status.Active!.Unit));
        HeldConnection other = await pair.HoldAsync();
        // The very same after a restart, whatever the configuration says.
        await pair.ReconfigureAsync(new PairYaml { Config = Config("v2") });
        await pair.RestartDaemonAsync(Kill);
        status = await pair.UntilAsync(s => s is { State: "steady", Retired: [_] }, "both should be found");
        Assert.Equal((null, UnitOf(2)), (status.Retired[0].Unit, status.Active!.Unit));
        Assert.Equal("v3", await pair.FlippedAsync("v3"));
        await pair.UntilAsync(s => s is { State: "steady", Retired.Length: 2, Active.Unit: null }, "both should drain");
        await one.StaysAsync();
        await other.StaysAsync();
        one.Dispose();
        other.Dispose();
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "both should end");
        await pair.OneIsLeftAsync();
        await TidyAsync(pair);
        await PassedAsync(load);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_unit_that_is_stopped_by_hand_is_replaced_and_one_in_the_undo_window_gives_the_traffic_back()
    {
        await using PairUnderTest pair = await StartAsync(s_units with { Watch = "{ undo: 30s }" });
        PairStatus before = await pair.StatusAsync();
        pair.Nets.Server.Exec(pair.Units!.Systemctl, "stop", before.Active!.Unit!);
        PairStatus after = await pair.UntilAsync(s => s is { State: "steady", Active.Number: 2 }, "another should serve");
        Assert.Equal("death", after.LastFlip!.Trigger);
        Assert.Equal("v1", await pair.ServedByAsync());
        await pair.FlipByEditAsync(Config("v2"));
        pair.Nets.Server.Exec(pair.Units.Systemctl, "stop", UnitOf(3));
        after = await pair.UntilAsync(s => s is { State: "steady", LastFlip.Outcome: "returned" }, "the traffic should go back");
        Assert.Contains("generation 3 died", after.LastFlip!.Error, StringComparison.Ordinal);
        Assert.Equal("v1", await pair.ServedByAsync());
        // One that is killed leaves a failed unit, which is forgotten.
        Signals.Send(after.Active!.Pid, Kill);
        await pair.UntilAsync(s => s is { State: "steady", Active.Number: 4 }, "another should serve");
        await pair.OneIsLeftAsync();
        await TidyAsync(pair);
        Assert.Contains($"systemctl reset-failed {UnitOf(2)}", pair.Units.Asked);
    }

    [Fact(Timeout = 120_000)]
    public async Task Adopting_and_giving_back_work_as_they_do()
    {
        await using PairUnderTest pair = await AdoptionTests.BesideAsync("-W -D", haproxy: s_units.Haproxy, before: p => p.UseUnits());
        await using LoadRun load = await StartedAsync(pair.Load(300));
        HeldConnection held = await pair.HoldAsync();
        await AdoptionTests.DoneAsync(pair, "adopt", "--stop");
        Assert.Equal("v1", await pair.ServedByAsync());
        Assert.Equal(UnitOf((await pair.StatusAsync()).Active!.Number), (await pair.StatusAsync()).Active!.Unit);
        for (int i = 2; i < 4; i++)
        {
            pair.Write(Config($"v{i}"));
            await pair.FlipAsync();
            Assert.Equal($"v{i}", await pair.ServedByAsync());
        }
        await held.StaysAsync();
        await AdoptionTests.DoneAsync(pair, "release");
        Assert.Equal(AdoptionTests.Unmanaged, await pair.ServedByAsync());
        await PassedAsync(load);
    }

    [Fact(Timeout = 120_000)]
    public async Task What_systemd_does_not_do_is_told_and_the_active_one_is_not_touched()
    {
        await using PairUnderTest pair = await StartAsync(s_units with { FlipsByItself = false });
        await using LoadRun load = await StartedAsync(pair.Load(300));
        int active = (await pair.StatusAsync()).Active!.Pid;
        StandInUnits units = pair.Units!;

        units.Remove();
        await RefusedAsync($"systemd knows no {StandInUnits.Template}; install config/systemd/");
        units.Mask();
        await RefusedAsync($"{StandInUnits.Template} is masked; say `systemctl unmask");
        units.Install();
        units.DropIn("mine", "Restart=always\nRuntimeMaxSec=1h");
        await RefusedAsync("has Restart=always and must have Restart=no: systemd would start again", "RuntimeMaxSec=1h and must have RuntimeMaxSec=infinity");
        units.RemoveDropIn("mine");
        units.DropIn("wrong", "EnvironmentFile=\nEnvironmentFile=/run/flipcontroller/%I/unit.env");
        await RefusedAsync("reads /run/flipcontroller/edge/g0000", "a drop-in of flipcontroller-haproxy@.service must say so");
        units.RemoveDropIn("wrong");
        units.Gone("Failed to connect to bus: Host is down");
        await RefusedAsync("cannot ask systemd for flipcontroller-haproxy@edge-g0000", "Failed to connect to bus: Host is down", "flipctl doctor");
        units.Answer();
        // Accepted by haproxy -c; what it says only when it starts is in the journal.
        pair.Write(Config("v2", global: "chroot /nonexistent"));
        await RefusedAsync("HAProxy does not start in flipcontroller-haproxy@edge-g0000", "exit code 1", "chroot(/nonexistent)");
        pair.Write(Config("v3"));
        await pair.FlipAsync();
        Assert.Equal("v3", await pair.ServedByAsync());
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "the first should end");
        await pair.OneIsLeftAsync();
        await TidyAsync(pair);
        await PassedAsync(load);

        async Task RefusedAsync(params string[] words)
        {
            Said said = await pair.FlipctlAsync("flip", Name);
            Assert.Equal(1, said.ExitCode);
            Assert.All(words.Append($"NEW connections go on to generation 1 (blue), which was not touched."), w => Assert.Contains(w, said.Error.ReplaceLineEndings(" "), StringComparison.Ordinal));
            Assert.Equal(active, (await pair.StatusAsync()).Active!.Pid);
        }
    }

    [Fact(Timeout = 120_000)]
    public async Task A_start_that_hangs_is_given_up_and_taken_back()
    {
        await using PairUnderTest pair = await StartAsync(s_units with { FlipsByItself = false });
        pair.Units!.Hang("start");
        Said said = await pair.FlipctlAsync("flip", Name);
        Assert.Equal(1, said.ExitCode);
        Assert.Contains($"cannot start {UnitOf(2)}: cannot run", said.Error, StringComparison.Ordinal);
        Assert.Contains("no end after 20 s, it was killed", said.Error, StringComparison.Ordinal);
        pair.Units.Answer();
        await pair.FlipAsync();
        Assert.Equal(UnitOf(3), (await pair.StatusAsync()).Active!.Unit);
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "the first should end");
        await pair.OneIsLeftAsync();
        await TidyAsync(pair);
        await Eventually.True(() => Directory.GetDirectories(Path.Combine(pair.Files["run"], Name), "g*").Length == 1, Patience, () => "directories are left");
    }
}
