using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>The daemon owns nothing that dies with it.</summary>
public sealed class RestartUnderLoadTests
{
    [Theory(Timeout = 60_000)]
    [InlineData(Terminate)]
    [InlineData(Kill)]
    public async Task A_restart_at_rest_is_not_noticed_by_clients(int signal)
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        await using LoadRun load = await StartedAsync(pair.Load(500)), keepalive = await StartedAsync(pair.Load(100) with { Mode = LoadMode.Keepalive });
        HeldConnection held = await pair.HoldAsync();
        await pair.FlipByEditAsync(Config("v2"));
        PairStatus before = await pair.UntilAsync(s => s is { State: "steady", Retired.Length: 1 }, "the undo window should end, generation 1 drain");

        Assert.Equal(signal == Terminate ? 0 : 128 + signal, await pair.EndDaemonAsync(signal));
        for (int i = 0; i < 20; i++) Assert.Equal("v2", await pair.ServedByAsync()); // There is no daemon now.
        pair.StartDaemon();

        PairStatus after = await pair.UntilAsync(s => s.State == "steady", "the daemon should be back");
        Assert.Equal((before.Active!.Pid, before.Active.Number, before.Active.Number), (after.Active!.Pid, after.Active.Number, after.Redirect.Generation));
        Assert.Equal(before.Retired[0].Pid, Assert.Single(after.Retired).Pid);
        Assert.Null(after.Fault);
        Assert.Equal(before.LastFlip!.Id, after.LastFlip!.Id);
        await held.StaysAsync();
        Assert.Equal(3, (await pair.FlipByEditAsync(Config("v3"))).Active!.Number);
        held.Dispose();
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "all should drain");
        Assert.Single(pair.HaproxyPids());
        await PassedAsync(load);
        await PassedAsync(keepalive);
    }

    [Theory(Timeout = 60_000)]
    [InlineData(Terminate)]
    [InlineData(Kill)]
    public async Task A_restart_in_the_undo_window_keeps_the_way_back(int signal)
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { Watch = "{ undo: 60s }" });
        await using LoadRun load = await StartedAsync(pair.Load(500));
        PairStatus before = await pair.FlipByEditAsync(Config("v2"));
        Assert.Equal("watching", before.State);

        await pair.RestartDaemonAsync(signal);

        PairStatus after = await pair.UntilAsync(s => s.State == "watching", "the undo window should be open still");
        Assert.Equal((before.Active!.Pid, before.Previous!.Pid, 2), (after.Active!.Pid, after.Previous!.Pid, after.Redirect.Generation));
        Assert.Equal(before.UndoEnds, after.UndoEnds);
        FlipRecord back = await pair.RollbackAsync();
        Assert.Equal("rolled-back", back.Outcome);
        Assert.Equal("v1", await pair.ServedByAsync());
        Assert.Equal(before.Previous.Pid, (await pair.StatusAsync()).Active!.Pid);
        Assert.Equal("v3", await pair.FlippedAsync("v3"));
        await PassedAsync(load);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_second_daemon_on_the_same_state_refuses_and_the_first_goes_on()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        NetnsProcess second = pair.StartAnotherDaemon();
        Assert.Equal(1, await second.Exit(Patience));
        Assert.Contains("another flipcontrollerd holds its lock", second.Output + second.Errors, StringComparison.Ordinal);
        Assert.Equal("v2", await pair.FlippedAsync("v2"));
        Said status = await pair.FlipctlAsync("status");
        Assert.Equal(0, status.ExitCode);
    }
}
