using System.Diagnostics;
using System.Text.Json;
using FlipController.Core;
using FlipController.Core.Keepalived;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>The daemon beside a keepalived that is real, in the server's namespace, with its peer in the client's.</summary>
public sealed class KeepalivedTests
{
    private const int Limit = 180_000;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30) * PairUnderTest.Slowness;
    private const string Vip = "10.77.0.100";

    [Fact(Timeout = Limit)]
    public async Task A_node_that_is_not_master_holds_changed_files_back_and_maintenance_and_a_death_give_the_addresses_away()
    {
        Require.Program("keepalived");
        await using PairUnderTest pair = await PairUnderTest.StartAsync(
            new PairYaml
            {
                Top = "keepalived: { fifo: '{dir}/vrrp.fifo', track_file: { path: '{dir}/track' } }\nevents: { fifo: '{dir}/events.fifo' }",
                More = ["keepalived: { instance: VI_1, role: master-only }", "hooks: { notify: ['{dir}/notify', more] }"],
            },
            p =>
            {
                string script = p.Files.Write("notify", $"#!/bin/sh\necho \"$@\" >>{p.Files["notified"]}\n");
                File.SetUnixFileMode(script, UnixFileMode.UserRead | UnixFileMode.UserExecute);
            });
        await Eventually.True(() => File.ReadAllText(pair.Files["track"]) == "0\n", s_patience, "the track file should say that all is well");
        StartKeepalived(pair, "a");
        StartKeepalived(pair, "b");
        await UntilStateAsync(pair, VrrpState.Master);
        Assert.True(HasVip(pair.Nets.Server));
        Assert.Equal("v2", await pair.FlippedAsync("v2")); // by itself, as MASTER

        // Maintenance: the other node has the addresses, and a changed file waits.
        Said on = await pair.FlipctlAsync("maintenance", "on", "--reason", "new disk");
        Assert.True(on.ExitCode == 0, on.Error);
        Assert.Equal("100\n", File.ReadAllText(pair.Files["track"]));
        await UntilStateAsync(pair, VrrpState.Backup);
        await Eventually.True(() => HasVip(pair.Nets.Client) && !HasVip(pair.Nets.Server), s_patience, "the address should move");
        pair.Write(PairUnderTest.Config("v3"));
        await pair.UntilAsync(s => s.HeldBack == "instance VI_1 of keepalived is BACKUP here, and role is master-only", "the change should wait, visibly");
        Assert.Equal("v2", await pair.ServedByAsync());
        Said status = await pair.FlipctlAsync("status");
        Assert.Contains("a changed file waits, as instance VI_1 of keepalived is BACKUP here", status.Output);
        Assert.Contains("maintenance: new disk", status.Output);
        Assert.Contains("VI_1 BACKUP", status.Output);
        Said check = await pair.FlipctlAsync("check");
        Assert.Equal((1, "flipctl: check: maintenance: new disk\n"), (check.ExitCode, check.Error));
        await pair.FlipAsync(); // an operator's word goes all the same
        Assert.Equal("v3", await pair.ServedByAsync());

        // Nothing of that is forgotten by a daemon that is killed, and nothing is said to keepalived meanwhile.
        pair.Write(PairUnderTest.Config("v4"));
        await pair.UntilAsync(s => s.HeldBack is not null, "the next change should wait");
        await pair.EndDaemonAsync(PairUnderTest.Kill);
        Assert.Equal("100\n", File.ReadAllText(pair.Files["track"]));
        pair.StartDaemon();
        await pair.UntilAsync(s => s.HeldBack is not null, "the change should go on waiting");
        Assert.True((await pair.ReportAsync()).Node is { Lowered: true, Maintenance.Reason: "new disk", TrackFile: 100 });
        Assert.Equal("v3", await pair.ServedByAsync());

        Said off = await pair.FlipctlAsync("maintenance", "off");
        Assert.True(off.ExitCode == 0, off.Error);
        await UntilStateAsync(pair, VrrpState.Master);
        await pair.UntilAsync(s => s.HeldBack is null && s.LastFlip is { Trigger: "files", Outcome: "done" }, "what waited should go when the node is MASTER");
        Assert.Equal("v4", await pair.ServedByAsync());
        await Eventually.True(() => HasVip(pair.Nets.Server) && !HasVip(pair.Nets.Client), s_patience, "the address should come back");

        // A service that dies: keepalived is told at once, and again when it serves.
        PairStatus serving = await pair.UntilAsync(s => s.State == "steady", "the flip should be over");
        System.Diagnostics.Process.GetProcessById(serving.Active!.Pid).Kill();
        await pair.SaysAsync("should not have the addresses.*: pair edge has no healthy active side");
        await Eventually.True(() => File.ReadAllText(pair.Files["track"]) == "0\n", s_patience, "it serves again");
        await Eventually.True(() => Notified(pair).LastOrDefault(n => n is "more PAIR edge FAULT 0" or "more PAIR edge MASTER 0") is "more PAIR edge MASTER 0"
                && Notified(pair).Contains("more PAIR edge FAULT 0"), s_patience,
            () => $"FAULT, then MASTER, should be told at last:\n{string.Join("\n", Notified(pair))}");
        // The first flip and the first look at its health come in either order.
        Assert.Contains("more PAIR edge MASTER 0", Notified(pair).Take(2));
        foreach (string told in new[] { "PAIR edge SWITCHED 0", "PAIR edge MAINTENANCE 0", "PAIR edge NORMAL 0", "INSTANCE VI_1 BACKUP", "INSTANCE VI_1 MASTER" })
            Assert.Contains(Notified(pair), n => n.StartsWith($"more {told}", StringComparison.Ordinal));
        using var events = new FileStream(pair.Files["events.fifo"], FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite, 0);
        byte[] some = new byte[64 * 1024];
        Assert.Contains("PAIR \"edge\" FAULT 0\n", System.Text.Encoding.UTF8.GetString(some, 0, await events.ReadAsync(some)));
    }

    [Fact(Timeout = Limit)]
    public async Task Notify_hands_over_or_leaves_in_under_a_second_and_check_knows_a_dead_controller_from_a_dead_service()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { Top = "keepalived: {}", More = ["keepalived: { instance: VI_1, stop: freeze }"] });
        string config = pair.Files["flipcontroller.yaml"];
        await NotifiedAsync(pair, config, "MASTER");
        await UntilStateAsync(pair, VrrpState.Master);
        // Handed over, or on a busy host left and taken up a moment later.
        Assert.True(Assert.Single((await pair.ReportAsync()).Keepalived!.Value).Source is VrrpSource.Notify or VrrpSource.Left);
        Said wrong = await pair.FlipctlAsync("notify", "INSTANCE", "VI_1", "KING");
        Assert.Equal(2, wrong.ExitCode);
        Said healthy = await pair.FlipctlAsync("check");
        Assert.Equal((0, ""), (healthy.ExitCode, healthy.Error));
        Said noWay = await pair.FlipctlAsync("maintenance", "on");
        Assert.Equal(3, noWay.ExitCode);

        // The daemon hangs.
        pair.SignalDaemon(19); // SIGSTOP
        await NotifiedAsync(pair, config, "BACKUP", "left for the daemon");
        pair.SignalDaemon(18); // SIGCONT
        await UntilStateAsync(pair, VrrpState.Backup);

        // It is dead.
        await pair.EndDaemonAsync(PairUnderTest.Kill);
        await NotifiedAsync(pair, config, "FAULT", "left for the daemon");
        await NotifiedAsync(pair, config, "STOP", "left for the daemon");
        Said alone = await pair.FlipctlAsync("check", "--config", config);
        Assert.True(alone is { ExitCode: 0 } && alone.Error.Contains("this is what flipctl found itself", StringComparison.Ordinal), $"{alone}");
        pair.StartDaemon();
        await UntilStateAsync(pair, VrrpState.Stop);
        Assert.Empty(Directory.EnumerateFiles(pair.Files["state/keepalived"]));
        pair.Write(PairUnderTest.Config("v2"));
        await pair.UntilAsync(s => s.HeldBack?.Contains("keepalived.stop: freeze", StringComparison.Ordinal) == true, "no changed file should flip by itself");

        await pair.EndDaemonAsync(PairUnderTest.Kill);
        foreach (int pid in pair.Nets.Server.Pids("haproxy")) System.Diagnostics.Process.GetProcessById(pid).Kill();
        await Eventually.True(() => pair.Nets.Server.Pids("haproxy").Length == 0, s_patience, "HAProxy should be gone");
        Said dead = await pair.FlipctlAsync("check", "--config", config);
        Assert.True(dead is { ExitCode: 1 } && dead.Error.Contains("pair edge: nothing of it lives and listens", StringComparison.Ordinal), $"{dead}");
    }

    [Fact(Timeout = Limit)]
    public async Task The_master_follows_only_what_the_backup_has_proven_and_an_operators_word_does_not_wait()
    {
        await using PairUnderTest a = await PairUnderTest.StartAsync(
            new PairYaml
            {
                Top = "keepalived: {}\npeer: { listen: '10.77.0.2:9108', address: '10.77.0.1:9108', key: '{dir}/peer.key' }",
                More = ["keepalived: { instance: VI_1, role: backup-first }"],
            },
            p => File.SetUnixFileMode(p.Files.Write("peer.key", new string('k', 40)), UnixFileMode.UserRead));
        // The other node has the same file under the same path, as two nodes have.
        string b = a.Files.Write("b.yaml", $$"""
            control: { socket: {{a.Files["b.sock"]}} }
            state: {{a.Files["b-state"]}}
            runtime: {{a.Files["b-run"]}}
            keepalived: {}
            peer: { listen: '10.77.0.1:9108', address: '10.77.0.2:9108', key: '{{a.Files["peer.key"]}}' }
            pairs:
              edge:
                haproxy: { config: [{{a.ConfigFile}}], settle: 10ms }
                gate: { timeout: 10s }
                watch: { undo: 3s }
                keepalived: { instance: VI_1, role: backup-first }

            """);
        NetnsProcess other = a.Nets.Client.Start(Programs.Daemon, b, "--verbose");
        await OtherAsync(s => s is { State: "steady" }, "the other node should serve");
        await OnOtherAsync("notify", "INSTANCE", "VI_1", "BACKUP", "100", "--config", b);
        await a.FlipctlAsync("notify", "INSTANCE", "VI_1", "MASTER", "150", "--config", a.Files["flipcontroller.yaml"]);
        await UntilStateAsync(a, VrrpState.Master);

        a.Write(PairUnderTest.Config("v2"));
        await a.UntilAsync(s => s.HeldBack?.Contains("the peer has flipped to them, and its undo window is open", StringComparison.Ordinal) == true, "the MASTER should wait for the undo window of the BACKUP");
        Assert.Equal("v1", await a.ServedByAsync());
        PairStatus followed = await a.UntilAsync(s => s.LastFlip is { Trigger: "files", Outcome: "done" }, "the MASTER should follow");
        FlipRecord led = (await OtherAsync(s => s.State == "steady", "the BACKUP should be at rest")).LastFlip!;
        Assert.Equal(("files", "done"), (led.Trigger, led.Outcome));
        Assert.True(followed.LastFlip!.Started >= led.Started + TimeSpan.FromSeconds(3), $"{led.Started} and then {followed.LastFlip.Started}");
        Assert.Equal("v2", await a.ServedByAsync());

        // Nobody answers: the change waits, and says why.
        other.Signal(PairUnderTest.Kill);
        await other.Exit(s_patience);
        await a.UntilAsync(s => s.State == "steady", "the flip should be over");
        a.Write(PairUnderTest.Config("v3"));
        await a.UntilAsync(s => s.HeldBack?.Contains("does not say whether it has proven them", StringComparison.Ordinal) == true, "the change should wait");
        await a.FlipAsync();
        Assert.Equal("v3", await a.ServedByAsync());

        async Task<Ran> OnOtherAsync(params string[] arguments) => await FlipctlProcess.FlipctlAsync([.. arguments, "--socket", a.Files["b.sock"]]);

        async Task<PairStatus> OtherAsync(Func<PairStatus, bool> condition, string what)
        {
            Ran last = new(0, "", "");
            PairStatus? status = null;
            await Eventually.True(async () =>
            {
                last = await OnOtherAsync("status", "edge", "--json");
                status = last.ExitCode == 0 ? JsonSerializer.Deserialize(last.Output, WireJson.Default.PairStatus) : null;
                return status is not null && condition(status);
            }, s_patience, () => $"{what}: {last}\n{other.Output}{other.Errors}");
            return status!;
        }
    }

    /// <summary>The best of three, as the machine is not ours alone; all three must be taken.</summary>
    private static async Task NotifiedAsync(PairUnderTest pair, string config, string state, string said = "")
    {
        var best = TimeSpan.MaxValue;
        for (int i = 0; i < 3; i++)
        {
            var watch = Stopwatch.StartNew();
            Said notified = await pair.FlipctlAsync("notify", "INSTANCE", "VI_1", state, "100", "--config", config);
            if (watch.Elapsed < best) best = watch.Elapsed;
            Assert.True(notified.ExitCode == 0 && notified.Error.Contains(said, StringComparison.Ordinal), $"{state}: {notified}");
        }
        TestContext.Current.SendDiagnosticMessage($"notify {state} {said}: {best.TotalMilliseconds:0} ms");
        Assert.True(best < TimeSpan.FromSeconds(1) * PairUnderTest.Slowness, $"{state}: {best.TotalMilliseconds:0} ms at best");
    }

    private static async Task UntilStateAsync(PairUnderTest pair, VrrpState state)
    {
        StatusReport? last = null;
        await Eventually.True(async () =>
        {
            try
            {
                last = await pair.ReportAsync();
            }
            catch (HttpRequestException)
            {
                return false; // it does not listen yet
            }
            return last.Keepalived?.SingleOrDefault(k => k.Name == "VI_1")?.State == state;
        }, s_patience, () => $"VI_1 should be {state}; {JsonSerializer.Serialize(last?.Keepalived)}\n{pair.DaemonLog}");
    }

    private static string[] Notified(PairUnderTest pair) => File.Exists(pair.Files["notified"]) ? File.ReadAllLines(pair.Files["notified"]) : [""];

    private static bool HasVip(Netns netns) => netns.Ip("-o", "address", "show", "dev", "veth0").Contains($" {Vip}/", StringComparison.Ordinal);

    /// <summary>As it is shipped, with the addresses of this place, and quicker.</summary>
    private static void StartKeepalived(PairUnderTest pair, string node)
    {
        Netns netns = node == "a" ? pair.Nets.Server : pair.Nets.Client;
        string mark = node == "a" ? "" : ".b";
        string text = File.ReadAllText(Path.Combine(Repository.Root, $"config/keepalived/node-{node}.unicast.preempt.conf"))
            .Replace("/run/flipcontroller/vrrp.fifo", pair.Files[$"vrrp.fifo{mark}"], StringComparison.Ordinal)
            .Replace("/run/flipcontroller/keepalived.track", pair.Files[$"track{mark}"], StringComparison.Ordinal)
            .Replace("eth0", "veth0", StringComparison.Ordinal).Replace("advert_int 1", "advert_int 0.1", StringComparison.Ordinal)
            .Replace("10.0.0.100", Vip, StringComparison.Ordinal).Replace("fd00::100", "fd00:77::100", StringComparison.Ordinal)
            .Replace("10.0.0.1\n", $"{pair.Nets.ServerV4}\n", StringComparison.Ordinal).Replace("10.0.0.2\n", $"{pair.Nets.ClientV4}\n", StringComparison.Ordinal);
        if (node == "b") pair.Files.Write("track.b", "0\n");
        netns.Start("keepalived", "-n", "-l", "-D", "-G", "-P", "-f", pair.Files.Write($"keepalived-{node}.conf", text),
            "-p", pair.Files[$"keepalived-{node}.pid"], "-r", pair.Files[$"vrrp-{node}.pid"]);
    }
}
