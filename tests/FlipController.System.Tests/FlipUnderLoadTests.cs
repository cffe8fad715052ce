using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>The first promise: NEW connections move, and none is refused, reset or cut.</summary>
public sealed class FlipUnderLoadTests
{
    [Fact(Timeout = 180_000)]
    public async Task A_hundred_flips_by_edits_lose_no_connection_and_leave_nothing_behind()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        await pair.FlipByEditAsync(PairUnderTest.Config("warm"));
        int descriptors = pair.DaemonDescriptors();
        await using LoadRun remote = LoadRun.Start(pair.Load(600)), local = LoadRun.Start(pair.LocalLoad(100));
        int first = (await pair.StatusAsync()).Active!.Number;
        long began = Environment.TickCount64;
        for (int i = 0; i < 100; i++) await pair.FlipByEditAsync(PairUnderTest.Config($"v{i}"), (Edit)(i % 3));
        long took = Environment.TickCount64 - began;
        remote.Stop();
        local.Stop();
        LoadResult far = await remote.Completion, near = await local.Completion;

        TestContext.Current.TestOutputHelper?.WriteLine($"100 flips in {took} ms\n{far.ToJson()}\n{near.ToJson()}");
        Assert.True(far.Passed, far.ToJson());
        Assert.True(near.Passed, near.ToJson());
        Assert.Equal((0, 0), (far.LateResets, near.LateResets));
        PairStatus after = await pair.UntilAsync(s => s is { State: "steady", Retired: [], Previous: null }, "every old generation should drain");
        Assert.Equal(first + 100, after.Active!.Number);
        Assert.Equal(100, (await pair.HistoryAsync()).Flips.Count(f => f is { Outcome: "done", Trigger: "files" } && f.To > first));
        await Eventually.True(() => pair.HaproxyPids().Length == 1, PairUnderTest.Patience, () => $"HAProxys left: {string.Join(' ', pair.HaproxyPids())}");
        await Eventually.True(() => pair.GenerationChains().Length == 1, PairUnderTest.Patience, () => $"chains left: {string.Join(' ', pair.GenerationChains())}");
        await Eventually.True(() => pair.DaemonDescriptors() <= descriptors + 10, PairUnderTest.Patience,
            () => $"the daemon has {pair.DaemonDescriptors()} descriptors, {descriptors} before");
    }
}
