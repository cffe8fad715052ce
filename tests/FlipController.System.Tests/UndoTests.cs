using System.Diagnostics;
using System.Net;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>The way back: by hand while it is warm and when it is not, and by itself when the new side does worse.</summary>
public sealed class UndoTests
{
    private static readonly PairYaml s_warm = new() { Watch = "{ undo: 60s, parity_grace: 1s }" };

    [Fact(Timeout = 60_000)]
    public async Task Rolling_back_in_the_undo_window_returns_to_the_very_process_that_served_before()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(s_warm);
        await using LoadRun load = await StartedAsync(pair.Load(500));
        GenerationStatus first = (await pair.StatusAsync()).Active!;
        await pair.FlipByEditAsync(Config("v2"));
        Assert.Equal(2, pair.HaproxyPids().Length);

        Said said = await pair.FlipctlAsync("--json", "rollback", PairUnderTest.Name, "--reason", "v2 is slow");

        Assert.Equal((0, ""), (said.ExitCode, said.Error));
        Assert.Equal("v1", await pair.ServedByAsync());
        PairStatus status = await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "the left generation should drain");
        Assert.Equal((first.Number, first.Pid, first.Number), (status.Active!.Number, status.Active.Pid, status.Redirect.Generation));
        Assert.Equal(("rolled-back", "v2 is slow", null), (status.LastFlip!.Outcome, status.LastFlip.Reason, status.Fault));
        Assert.Equal([first.Pid], pair.HaproxyPids());
        LoadResult result = await PassedAsync(load);
        Assert.Equal(["v1", "v2"], result.ServedBy.Keys.Order());
        // What was gone back from lies on disk still, and a restart does not take it up.
        await pair.RestartDaemonAsync(Terminate);
        Assert.Equal("v1", await pair.ServedByAsync());
        await pair.FlipByEditAsync(Config("v3"));
    }

    [Fact(Timeout = 60_000)]
    public async Task Rolling_back_after_the_undo_window_starts_the_earlier_configuration_again()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        await using LoadRun load = await StartedAsync(pair.Load(500));
        GenerationStatus first = (await pair.StatusAsync()).Active!;
        await pair.FlipByEditAsync(Config("v2"));
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "the undo window should end");

        FlipRecord flip = await pair.RollbackAsync();

        Assert.Equal(("done", "rollback", 3), (flip.Outcome, flip.Trigger, flip.To));
        Assert.Equal("v1", await pair.ServedByAsync());
        GenerationStatus again = (await pair.StatusAsync()).Active!;
        Assert.Equal((3, first.ConfigSha256), (again.Number, again.ConfigSha256));
        Assert.NotEqual(first.Pid, again.Pid);
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "the undo window should end");
        await pair.RestartDaemonAsync(Terminate);
        await pair.UntilAsync(s => s.State == "steady", "the daemon should be back");
        Assert.Equal("v1", await pair.ServedByAsync());
        Assert.Equal(3, (await pair.StatusAsync()).Active!.Number);
        await PassedAsync(load);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_generation_that_answers_errors_is_left_by_itself_with_the_ratio_as_reason()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(s_warm);
        GenerationStatus first = (await pair.StatusAsync()).Active!;
        await using LoadRun load = await StartedAsync(pair.Load(300));
        var clock = Stopwatch.StartNew();
        pair.Write(Config("bad", frontend: "http-request deny deny_status 503 if { rand(100) lt 70 }"));
        PairStatus status = await ReturnedAsync(pair, first);
        Show($"back {clock.ElapsedMilliseconds} ms after the edit");
        Assert.Matches(@"^[0-9.]+ ?% of its answers are 5xx \([0-9]+ of [0-9]+\), 0.0 ?% on the generation before", status.LastFlip!.Error);
        Assert.Equal("v1", await pair.ServedByAsync());
        LoadResult result = await EndedAsync(load);
        Assert.Equal(result.Failed, result.WrongStatus);
        Assert.InRange(result.Failed, 1, 1500);
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "the left generation should drain");
        await using LoadRun after = await StartedAsync(pair.Load(300));
        await PassedAsync(after);
        // A better one flips as usual.
        Assert.Null((await pair.FlipByEditAsync(Config("good"))).Fault);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_generation_that_cannot_reach_its_server_is_left_by_itself()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(s_warm, p => p.Write(Tcp(8080)));
        GenerationStatus first = (await pair.StatusAsync()).Active!;
        await using LoadRun load = await StartedAsync(pair.Load(300));
        pair.Write(Tcp(8099));
        PairStatus status = await ReturnedAsync(pair, first);
        Assert.Contains("of its requests could not reach a server", status.LastFlip!.Error, StringComparison.Ordinal);
        LoadResult result = await EndedAsync(load);
        Assert.InRange(result.Failed, 1, 1500);
        await using LoadRun after = await StartedAsync(pair.Load(300));
        await PassedAsync(after);
    }

    private static string Tcp(int port) => $"""
        defaults
          mode tcp
          timeout connect 1s
          timeout client 30s
          timeout server 30s
        frontend web
          bind :80
          bind :::80 v6only
          default_backend app
        backend app
          retries 0
          server s1 127.0.0.1:{port}

        """;

    [Fact(Timeout = 60_000)]
    public async Task When_the_new_generation_is_killed_traffic_is_back_at_once()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(s_warm);
        GenerationStatus first = (await pair.StatusAsync()).Active!;
        await using LoadRun load = await StartedAsync(pair.Load(500));
        PairStatus flipped = await pair.FlipByEditAsync(Config("v2"));
        long asked = load.Now.Requests;
        await Eventually.True(() => load.Now.Requests > asked + 100, Patience, "some more requests");

        var clock = Stopwatch.StartNew();
        Signals.Send(flipped.Active!.Pid, Kill);
        PairStatus status = await ReturnedAsync(pair, first);
        Show($"status shows the return {clock.ElapsedMilliseconds} ms after the kill");

        Assert.Contains($"generation 2 died (process {flipped.Active.Pid})", status.LastFlip!.Error, StringComparison.Ordinal);
        Assert.Equal("v1", await pair.ServedByAsync());
        LoadResult result = await EndedAsync(load);
        Show($"killed under {result.Rate:0} new connections/s: {result.Failed} of {result.Requests} failed, refused {result.Refused} ({1000 * result.Refused / result.Rate:0} ms without a listener), "
            + $"reset {result.Reset}, truncated {result.Truncated}");
        // Those open on the killed process are lost, and those that came before the rule was replaced.
        Assert.InRange(result.Failed, 0, 100);
        Assert.Equal(result.Failed, result.Refused + result.Reset + result.Truncated);
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "the pair should rest");
        Assert.Equal([first.Pid], pair.HaproxyPids());
        await Eventually.True(() => pair.GenerationChains().Length == 1, Patience, () => $"chains left: {string.Join(' ', pair.GenerationChains())}");
    }

    [Fact(Timeout = 60_000)]
    public async Task A_server_that_goes_down_only_on_the_new_side_brings_traffic_back()
    {
        Backend? checkedOnly = null;
        const string sound = "server s2 127.0.0.1:8080 check inter 2s\n  server s1 127.0.0.1:8080 check inter 200ms fall 2";
        await using PairUnderTest pair = await PairUnderTest.StartAsync(s_warm, p =>
        {
            checkedOnly = Backend.Start(new BackendOptions { Namespace = p.Nets.Server.Name, Listen = [new(IPAddress.Loopback, 8082)] });
            p.Write(Config("v1", backend: sound));
        });
        using Backend health = checkedOnly!;
        GenerationStatus first = (await pair.StatusAsync()).Active!;
        await using LoadRun load = await StartedAsync(pair.Load(300));
        PairStatus flipped = await pair.FlipByEditAsync(Config("v2", backend: sound + " port 8082"));
        Assert.Equal("watching", flipped.State);
        health.Dispose();
        var clock = Stopwatch.StartNew();
        PairStatus status = await ReturnedAsync(pair, first);
        Show($"parity lost: back after {clock.ElapsedMilliseconds} ms (grace 1000 ms)");
        Assert.Contains("server app/s1 is UP on the generation before and DOWN on the new one", status.LastFlip!.Error, StringComparison.Ordinal);
        await PassedAsync(load);
    }

    /// <summary>It flipped, and went back by itself to the process that had served before.</summary>
    private static async Task<PairStatus> ReturnedAsync(PairUnderTest pair, GenerationStatus first)
    {
        PairStatus status = await pair.UntilAsync(s => s.LastFlip?.Outcome == "returned", "traffic should go back by itself", TimeSpan.FromSeconds(30));
        Assert.Equal((first.Number, first.Pid, first.Number), (status.Active!.Number, status.Active.Pid, status.Redirect.Generation));
        Assert.Contains("went back to generation 1", status.Fault, StringComparison.Ordinal);
        return status;
    }
}
