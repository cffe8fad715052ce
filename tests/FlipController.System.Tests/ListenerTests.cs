using System.Globalization;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>What only generations that listen on the front addresses themselves have to show.</summary>
[Collection(Alone)]
public sealed class ListenerTests
{
    private const string Listener = "{ method: listener }";

    private static readonly PairYaml s_yaml = new() { Redirect = Listener, Drain = "{ deadline: 1h, max_retired: 8 }" };

    [Fact(Timeout = 120_000)]
    public async Task Nobody_meets_a_standby_that_does_not_pass_its_gate()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(s_yaml with
        {
            Gate = "{ timeout: 2s, probes: [{ http: { service: \":80\", path: /ready, expect: 404 } }] }",
        });
        await using LoadRun load = await StartedAsync(pair.Load(400)), local = await StartedAsync(pair.LocalLoad(200));
        pair.Write(Config("v2", frontend: "http-request return status 503 if { path /ready }"));
        PairStatus failed = await pair.UntilAsync(s => s.LastFlip?.Outcome == "failed", "its gate should refuse it");
        Assert.Contains("was answered 503", failed.LastFlip!.Error!, StringComparison.Ordinal);
        Assert.Equal(["v1"], (await PassedAsync(load)).ServedBy.Keys);
        Assert.Equal(["v1"], (await PassedAsync(local)).ServedBy.Keys);
        Assert.Equal("v3", await pair.FlippedAsync("v3"));
    }

    [Fact(Timeout = 120_000)]
    public async Task When_the_active_one_is_killed_the_kernel_gives_the_next_connection_to_the_previous_one()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(s_yaml with { Watch = "{ undo: 5m }" });
        HeldConnection held = await pair.HoldAsync();
        Assert.Equal("v2", await pair.FlippedAsync("v2"));
        PairStatus status = await pair.StatusAsync();
        using var dead = System.Diagnostics.Process.GetProcessById(status.Active!.Pid);
        // Nobody but the kernel: the daemon cannot look.
        pair.SignalDaemon(Signals.Stop);
        dead.Kill();
        // Its first thread may be over before the last one lets go of the listeners.
        await Eventually.True(() => pair.Nets.Server.Exec("ss", "-Htln", "sport", "=", ":80").Split('\n', StringSplitOptions.RemoveEmptyEntries).Length == 2, Patience, () => "it listens still");
        for (int i = 0; i < 50; i++) Assert.Equal("v1", await pair.ServedByAsync());
        pair.SignalDaemon(Signals.Continue);
        status = await pair.UntilAsync(s => s is { State: "steady", LastFlip.Outcome: "returned" }, "it should be back");
        Assert.Equal(1, status.Active!.Number);
        await held.StaysAsync();
        Assert.Equal("v3", await pair.FlippedAsync("v3"));
        await held.StaysAsync();
    }

    [Fact(Timeout = 120_000)]
    public async Task A_HAProxy_that_somebody_starts_beside_gets_nothing_and_stands_in_the_way_of_a_flip()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(s_yaml);
        await using LoadRun load = await StartedAsync(pair.Load(300));
        // In the undo window's end, when one is left, as at the start.
        Assert.Equal("v2", await pair.FlippedAsync("v2"));
        await pair.UntilAsync(s => s is { State: "steady", Previous: null }, "it rests");
        await pair.SaysAsync("generation 1 .* is draining");
        using NetnsProcess stranger = pair.Nets.Server.Start("haproxy", "-db", "-f", pair.Files.Write("stranger.cfg", Config("stranger")));
        await Eventually.True(() => pair.Nets.Server.Exec("ss", "-Htlnp", "sport", "=", ":80").Contains($"pid={stranger.Pid},", StringComparison.Ordinal), Patience, () => "it does not listen");
        for (int i = 0; i < 50; i++) Assert.Equal("v2", await pair.ServedByAsync());
        pair.Write(Config("v3"));
        PairStatus failed = await pair.UntilAsync(s => s.LastFlip?.Outcome == "failed", "nobody more may listen there");
        Assert.Contains($"generation 2 and process {stranger.Pid} listen on *:80", failed.LastFlip!.Error!, StringComparison.Ordinal);
        stranger.Signal(Terminate);
        await stranger.Exit(Patience);
        Assert.Equal("done", (await pair.FlipAsync()).Outcome);
        Assert.Equal("v3", await pair.ServedByAsync());
        Assert.DoesNotContain("stranger", (await PassedAsync(load)).ServedBy.Keys);
    }

    [Fact(Timeout = 120_000)]
    public async Task Who_is_on_which_side_is_told_by_whose_socket_it_is()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(s_yaml);
        for (int i = 0; i < 5; i++) await pair.HoldAsync(pair.Services[i < 3 ? 0 : 1]);
        Assert.Equal("v2", await pair.FlippedAsync("v2"));
        for (int i = 0; i < 2; i++) await pair.HoldAsync(pair.Services[1]);
        ConnectionsReport report = await pair.ConnectionsAsync();
        Assert.Equal([(1, (int?)null, (int?)5), (2, null, 2)], report.Generations.OrderBy(g => g.Number).Select(g => (g.Number, g.Counts.Conntrack, g.Counts.Sockets)));
        Assert.Equal([("*:80", 3), ("[::]:80 v6only", 4)], report.Connections.GroupBy(r => r.Service).Select(g => (g.Key, g.Count())).Order());
        await pair.UntilAsync(s => s.Retired is [{ Connections: { Sockets: 5, Haproxy: 5 } }] && s.Active!.Connections is { Sockets: 2, Haproxy: 2 }, "each has its own");
    }

    [Fact(Timeout = 180_000)]
    public async Task The_method_changes_where_a_release_lies_between_and_no_connection_fails()
    {
        await using PairUnderTest pair = await AdoptionTests.BesideAsync("-W -D", "{}");
        await using LoadRun load = await StartedAsync(pair.Load(500));
        await AdoptionTests.DoneAsync(pair, "adopt", "--stop");
        string yaml = File.ReadAllText(pair.Files["flipcontroller.yaml"]);
        pair.Files.Write("flipcontroller.yaml", yaml.Replace("redirect: {}", $"redirect: {Listener}", StringComparison.Ordinal));
        pair.SignalDaemon(Hangup);
        await pair.SaysAsync("reload refused.*redirect.method listener needs generations that listen on the front addresses.*`flipctl release edge`");
        Assert.Equal("nftables", (await pair.StatusAsync()).Redirect.Method);
        await AdoptionTests.DoneAsync(pair, "release");
        pair.SignalDaemon(Hangup);
        await pair.SaysAsync("was read again");
        await AdoptionTests.DoneAsync(pair, "adopt", "--stop");
        Assert.Equal("listener", (await pair.StatusAsync()).Redirect.Method);
        pair.Write(Config("v2"));
        Assert.Equal("done", (await pair.FlipAsync()).Outcome);
        Assert.Equal("v2", await pair.ServedByAsync());
        await PassedAsync(load);
    }

    [Fact(Timeout = 120_000)]
    public async Task An_adopted_one_that_still_listens_leaves_no_room_for_a_flip()
    {
        await using PairUnderTest pair = await AdoptionTests.BesideAsync("-D", Listener);
        await using LoadRun load = await StartedAsync(pair.Load(300));
        await AdoptionTests.DoneAsync(pair, "adopt");
        Assert.Equal("v1", await pair.ServedByAsync());
        pair.Write(Config("v2"));
        Said refused = await pair.FlipctlAsync("flip", Name);
        Assert.NotEqual(0, refused.ExitCode);
        Assert.Contains("an adopted HAProxy is told to by `flipctl adopt edge --stop`", refused.Output + refused.Error, StringComparison.Ordinal);
        await AdoptionTests.DoneAsync(pair, "adopt", "--stop");
        Assert.Equal("done", (await pair.FlipAsync()).Outcome);
        Assert.Equal("v2", await pair.ServedByAsync());
        await PassedAsync(load);
    }

    /// <summary>Whoever may ask a HAProxy for its listeners keeps them open no longer than it listens itself.</summary>
    [Fact(Timeout = 120_000)]
    public async Task Listeners_that_are_exposed_to_a_successor_are_closed_all_the_same()
    {
        string Exposing(PairUnderTest pair, string label) => Config(label, global: $"stats socket {pair.Files["stats.sock"]} mode 600 level admin expose-fd listeners");
        await using PairUnderTest pair = await PairUnderTest.StartAsync(s_yaml, p => p.Write(Exposing(p, "v1")));
        await using LoadRun load = await StartedAsync(pair.Load(400));
        HeldConnection held = await pair.HoldAsync();
        for (int i = 2; i < 6; i++)
        {
            await pair.FlipByEditAsync(Exposing(pair, $"v{i}"));
            Assert.Equal($"v{i}", await pair.ServedByAsync());
            await held.StaysAsync();
        }
        await PassedAsync(load);
    }

    [Fact(Timeout = 60_000)]
    public async Task What_it_cannot_do_is_refused_with_its_place()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(s_yaml with { FlipsByItself = false });
        foreach ((string line, string why) in ((string, string)[])
        [
            ("bind :8000 shards 2", "has shards"),
            ("bind 10.9.0.1:80", "share connections"),
        ])
        {
            pair.Write(Config("v2", frontend: line));
            Said said = await pair.FlipctlAsync("flip", Name);
            Assert.NotEqual(0, said.ExitCode);
            Assert.Contains(why, said.Output + said.Error, StringComparison.Ordinal);
            Assert.Equal("v1", await pair.ServedByAsync());
        }
        pair.Write(Config("v2", global: "noreuseport"));
        Said noreuseport = await pair.FlipctlAsync("flip", Name);
        Assert.Contains(string.Create(CultureInfo.InvariantCulture, $"{pair.ConfigFile}:3: noreuseport keeps two generations"), noreuseport.Output + noreuseport.Error, StringComparison.Ordinal);
        pair.Write(Config("v2") + "log-forward syslog\n  dgram-bind :514\n  log 127.0.0.1:5140 local0\n");
        Said datagrams = await pair.FlipctlAsync("flip", Name);
        Assert.Contains("takes datagrams, and redirect.method listener moves TCP connections only", datagrams.Output + datagrams.Error, StringComparison.Ordinal);
    }
}
