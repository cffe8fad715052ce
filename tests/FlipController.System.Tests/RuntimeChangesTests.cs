using System.Collections.Immutable;
using System.Text.Json;
using FlipController.Core;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>The whole daemon and changes made on the active HAProxy's admin socket with socat.</summary>
public sealed class RuntimeChangesTests
{
    private const int Limit = 120_000;
    private const string Servers = "server s1 127.0.0.1:8080 check inter 2s\n  server s2 127.0.0.1:8080 weight 10 check inter 2s\n  server s3 127.0.0.1:8080 check inter 2s";

    private static async Task<PairUnderTest> StartedAsync(string rule, string watch = "{ undo: 1s }")
    {
        Require.Program("socat");
        PairUnderTest started = await PairUnderTest.StartAsync(new PairYaml { Continuity = $"{{ runtime_changes: {rule} }}", Watch = watch, FlipsByItself = false }, before: pair =>
        {
            pair.Files.Write("hosts.map", "one.example.org a\ntwo.example.org b\n");
            pair.Files.Write("bad.acl", "192.0.2.1\n");
            pair.Write(Config(pair, "v1"));
        });
        // When nobody serves, serving does not wait for it for longer than a second; what is changed before it is not known as a change.
        string baseline = Path.Combine(started.Files["run"], PairUnderTest.Name, "g00001", "runtime-baseline.json");
        await Eventually.True(() => File.Exists(baseline), PairUnderTest.Patience, "what its files give should be written down");
        return started;
    }

    private static string Config(PairUnderTest pair, string label, string servers = Servers) => PairUnderTest.Config(label, backend: servers, frontend: $"""
        acl bad src -f {pair.Files["bad.acl"]}
          http-request deny if bad
          http-response set-header X-Mapped %[str(one.example.org),map({pair.Files["hosts.map"]})]
        """);

    private static async Task SayAsync(PairUnderTest pair, params string[] commands)
    {
        string socket = await SocketAsync(pair);
        foreach (string command in commands)
            Assert.Equal("", pair.Nets.Server.Exec("sh", "-c", $"echo '{command}' | socat - UNIX-CONNECT:{socket}").Trim());
    }

    private static async Task<string> AskAsync(PairUnderTest pair, string command) =>
        pair.Nets.Server.Exec("sh", "-c", $"echo '{command}' | socat - UNIX-CONNECT:{await SocketAsync(pair)}");

    private static async Task<string> SocketAsync(PairUnderTest pair) => $"{pair.Files["run"]}/{PairUnderTest.Name}/g{(await pair.StatusAsync()).Active!.Number:00000}.sock";

    private static async Task<PlanReport> PlanAsync(PairUnderTest pair, int exitCode)
    {
        Said said = await pair.FlipctlAsync("plan", PairUnderTest.Name, "--json", "--exit-code");
        Assert.True(said.ExitCode == exitCode, said.Output + said.Error);
        return JsonSerializer.Deserialize(said.Output, WireJson.Default.PlanReport)!;
    }

    private static string[] Sentences(PairUnderTest pair) =>
    [
        $"ACL {pair.Files["bad.acl"]} has new 192.0.2.9", $"map {pair.Files["hosts.map"]} has changed one.example.org",
        "server app/s1 is in maintenance", "server app/s2 has weight 3 instead of 10",
    ];

    private static async Task ChangeAsync(PairUnderTest pair) => await SayAsync(pair, "set server app/s1 state maint", "set server app/s2 weight 3",
        $"set map {pair.Files["hosts.map"]} one.example.org changed", $"add acl {pair.Files["bad.acl"]} 192.0.2.9");

    [Fact(Timeout = Limit)]
    public async Task Carried_they_survive_flip_after_flip_until_they_are_taken_back()
    {
        await using PairUnderTest pair = await StartedAsync("carry");
        Assert.Empty((await PlanAsync(pair, 0)).RuntimeChanges);
        await ChangeAsync(pair);
        PlanReport plan = await PlanAsync(pair, 0);
        Assert.Equal(Sentences(pair), plan.RuntimeChanges.Select(c => $"{c.Subject} {c.Text}").Order(StringComparer.Ordinal));
        Assert.All(plan.RuntimeChanges, c => Assert.Equal((true, null), (c.Carried, c.Why)));
        for (int flip = 0; flip < 3; flip++)
        {
            FlipRecord record = await pair.FlipAsync();
            Assert.Equal(Sentences(pair), record.Carried!.Value.Order(StringComparer.Ordinal));
            Assert.Null(record.Lost);
            string state = await AskAsync(pair, "show servers state app");
            Assert.Matches(@"app \d+ s1 127\.0\.0\.1 \d 1 ", state);
            Assert.Matches(@"app \d+ s2 127\.0\.0\.1 \d 0 3 10 ", state);
            Assert.Contains("one.example.org changed", await AskAsync(pair, $"show map {pair.Files["hosts.map"]}"));
            Assert.Contains("192.0.2.9", await AskAsync(pair, $"show acl {pair.Files["bad.acl"]}"));
            using HttpResponseMessage answer = await pair.Client().GetAsync("/");
            Assert.Equal("changed", answer.Headers.GetValues("X-Mapped").Single());
            // The daemon's own memory is not needed for it.
            if (flip == 1) await pair.RestartDaemonAsync(PairUnderTest.Kill);
        }
        // The new file wins where it says something else.
        pair.Write(Config(pair, "v2", Servers.Replace("weight 10", "weight 20", StringComparison.Ordinal)));
        FlipRecord edited = await pair.FlipAsync();
        Assert.Equal(["server app/s2 has weight 3 instead of 10: the new file says 20"], edited.Lost!.Value);
        Assert.Equal(3, edited.Carried!.Value.Length);
        await SayAsync(pair, "set server app/s1 state ready", $"set map {pair.Files["hosts.map"]} one.example.org a", $"del acl {pair.Files["bad.acl"]} 192.0.2.9");
        FlipRecord clean = await pair.FlipAsync();
        Assert.Null(clean.Carried);
        Assert.Null(clean.Lost);
    }

    [Fact(Timeout = Limit)]
    public async Task Named_they_are_in_plan_flip_history_and_log()
    {
        await using PairUnderTest pair = await StartedAsync("name");
        await ChangeAsync(pair);
        PlanReport plan = await PlanAsync(pair, 1);
        Assert.Equal(Sentences(pair), plan.RuntimeChanges.Select(c => $"{c.Subject} {c.Text}").Order(StringComparer.Ordinal));
        Assert.All(plan.RuntimeChanges, c => Assert.False(c.Carried));
        Said told = await pair.FlipctlAsync("plan", PairUnderTest.Name);
        Assert.Contains("would be lost: server app/s1 is in maintenance", told.Output);
        Said flipped = await pair.FlipctlAsync("flip", PairUnderTest.Name);
        Assert.Equal(0, flipped.ExitCode);
        Assert.Contains("  lost: server app/s2 has weight 3 instead of 10\n", flipped.Output);
        ImmutableArray<FlipRecord> history = (await pair.HistoryAsync()).Flips;
        Assert.Equal(Sentences(pair), history[^1].Lost!.Value.Order(StringComparer.Ordinal));
        Assert.Null(history[^1].Carried);
        Assert.Contains("lost: server app/s1 is in maintenance", (await pair.FlipctlAsync("history", PairUnderTest.Name)).Output);
        await pair.SaysAsync("does not have the runtime change: server app/s1 is in maintenance");
        Assert.Matches(@"app \d+ s1 127\.0\.0\.1 \d 0 ", await AskAsync(pair, "show servers state app"));
        Assert.Null((await pair.FlipAsync()).Lost);
    }

    [Fact(Timeout = Limit)]
    public async Task What_was_changed_inside_the_undo_window_goes_back_with_the_traffic()
    {
        await using PairUnderTest pair = await StartedAsync("carry", "{ undo: 1m }");
        await SayAsync(pair, "set server app/s2 weight 3", $"add acl {pair.Files["bad.acl"]} 192.0.2.9");
        FlipRecord flip = await pair.FlipAsync();
        Assert.Equal(2, flip.Carried!.Value.Length);
        await SayAsync(pair, "set server app/s1 state maint", "set server app/s2 weight 10", $"add map {pair.Files["hosts.map"]} three.example.org c",
            "disable frontend web");
        FlipRecord back = await pair.RollbackAsync();
        Assert.Equal("rolled-back", back.Outcome);
        string state = await AskAsync(pair, "show servers state app");
        Assert.Matches(@"app \d+ s1 127\.0\.0\.1 \d 1 ", state);
        Assert.Matches(@"app \d+ s2 127\.0\.0\.1 \d 0 10 10 ", state);
        Assert.Contains("three.example.org c", await AskAsync(pair, $"show map {pair.Files["hosts.map"]}"));
        Assert.Contains("192.0.2.9", await AskAsync(pair, $"show acl {pair.Files["bad.acl"]}"));
        Assert.Contains("\nweb,FRONTEND,,,0,", await AskAsync(pair, "show stat"));
        Assert.Contains(",PAUSED,", await AskAsync(pair, "show stat"));
        // And on with it: the frontend does not listen, which the next standby's gate must not see.
        await pair.UntilAsync(s => s.State == "steady", "the way back should end");
        flip = await pair.FlipAsync();
        Assert.Contains("frontend web is disabled", flip.Carried!.Value);
        Assert.Contains(",PAUSED,", await AskAsync(pair, "show stat"));
    }

    /// <summary>With <c>load-server-state-from-file</c> the servers of a standby begin as the active one's are, and those of a cold start as the last ones were.</summary>
    [Theory(Timeout = Limit)]
    [InlineData("name")]
    [InlineData("carry")]
    public async Task A_server_state_is_handed_on_and_outlives_everything(string rule)
    {
        Require.Program("socat");
        await using PairUnderTest pair = await PairUnderTest.StartAsync(
            new PairYaml { Continuity = $"{{ runtime_changes: {rule} }}", FlipsByItself = false }, before: pair => pair.Write(PairUnderTest.Config("v1",
                global: $"server-state-file {pair.Files["user-state"]}", backend: $"load-server-state-from-file global\n  {Servers}")));
        await SayAsync(pair, "set server app/s1 state maint", "set server app/s2 weight 3");
        string[] sentences = ["server app/s1 is in maintenance", "server app/s2 has weight 3 instead of 10"];
        for (int flip = 0; flip < 2; flip++)
        {
            FlipRecord record = await pair.FlipAsync();
            Assert.Equal(sentences, record.Carried!.Value);
            Assert.Null(record.Lost);
            await AsChangedAsync();
        }
        // Nothing of ours lives any more: as after a reboot.
        await pair.EndDaemonAsync(PairUnderTest.Terminate);
        foreach (int pid in pair.HaproxyPids()) pair.Nets.Server.Exec("kill", "-9", $"{pid}");
        await Eventually.True(() => pair.HaproxyPids().Length == 0, PairUnderTest.Patience, () => "HAProxy should be gone");
        pair.StartDaemon();
        await pair.UntilAsync(s => s.State == "steady" && s.Active is not null, "it should serve again");
        await AsChangedAsync();

        async Task AsChangedAsync()
        {
            string state = await AskAsync(pair, "show servers state app");
            Assert.Matches(@"app \d+ s1 127\.0\.0\.1 \d 1 ", state);
            Assert.Matches(@"app \d+ s2 127\.0\.0\.1 \d 0 3 10 ", state);
        }
    }
}
