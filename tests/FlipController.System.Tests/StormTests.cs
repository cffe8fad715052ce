using System.Net;
using System.Text.Json;
using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>Too much at once: the work is bounded, the last word counts, and nothing is left over.</summary>
public sealed class StormTests
{
    private const string Bad = "frontend web\n  bind :80\n  no-such-keyword\n";
    private const int Limit = 3_600_000;

    [Theory(Timeout = 120_000)]
    [InlineData(false), InlineData(true)]
    public async Task Two_hundred_writes_in_ten_seconds_end_with_the_last_one_live(bool everySecondIsBad)
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        await using LoadRun load = await StartedAsync(pair.Load(500));
        // Fewer where it is only shown that bad ones do not get in the way.
        int writes = everySecondIsBad ? 60 : 200;
        for (int i = 1; i <= writes; i++)
        {
            pair.Write(everySecondIsBad && i % 2 == 1 ? Bad : Config($"v{i}"), (Edit)(i % 3));
            // Twenty a second, by the load's clock.
            long asked = load.Now.Requests;
            await Eventually.True(() => load.Now.Requests >= asked + 25, Patience, "the load goes on");
        }
        await Eventually.True(async () => await pair.ServedByAsync() == $"v{writes}", Patience, () => pair.DaemonLog);
        await pair.UntilAsync(s => s is { State: "steady", Fault: null, Pending: false, Retired: [] }, "it should rest");
        FlipRecord[] flips = [.. (await pair.HistoryAsync()).Flips];
        Show($"{writes} writes{(everySecondIsBad ? ", every second one bad" : "")}: {flips.Count(f => f.Outcome == "done")} flips done, {flips.Count(f => f.Outcome == "failed")} failed, "
            + $"the highest generation is {(await pair.StatusAsync()).Active!.Number}");
        // One at a time: the next began no sooner than the one before had ended.
        foreach (var (one, next) in flips.OrderBy(f => f.Id).Zip(flips.OrderBy(f => f.Id).Skip(1)))
            Assert.True(next.Started >= one.Started.AddMilliseconds(one.DurationMs - 1), $"{one} and {next} at once");
        await NothingIsLeftAsync(pair);
        await PassedAsync(load);
    }

    [Fact(Timeout = 60_000)]
    public async Task Fifty_flips_asked_for_at_once_are_two_and_everybody_is_answered()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        await using LoadRun load = await StartedAsync(pair.Load(500));
        (HttpStatusCode Code, string Text)[] answers = await Task.WhenAll(Enumerable.Range(0, 50)
            .Select(_ => pair.PostAsync("flip", new FlipRequest(), WireJson.Default.FlipRequest)));
        Assert.All(answers, a => Assert.Equal(HttpStatusCode.OK, a.Code));
        FlipRecord[] told = [.. answers.Select(a => JsonSerializer.Deserialize(a.Text, WireJson.Default.FlipAnswer)!.Flip!)];
        Assert.All(told, f => Assert.Equal("done", f.Outcome));
        // The first is under way when the others come; what waits is one.
        Assert.InRange(told.Select(f => f.Id).Distinct().Count(), 1, 3);
        Assert.InRange((await pair.StatusAsync()).Active!.Number, 2, 4);
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "it should rest");
        await NothingIsLeftAsync(pair);
        await PassedAsync(load);
    }

    /// <summary>FLIP_FLIPS=N: so many instead of a few.</summary>
    [Fact(Timeout = Limit)]
    public async Task After_many_flips_nothing_has_grown()
    {
        bool measured = int.TryParse(Environment.GetEnvironmentVariable("FLIP_FLIPS"), out int flips);
        if (!measured) flips = 28;
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { FlipsByItself = false });
        await using LoadRun load = await StartedAsync(pair.Load(200) with { Duration = TimeSpan.FromMilliseconds(Limit) });
        // What is compiled, pooled and cached on the way is there after some.
        for (int i = 0; i < flips / 4; i++) await pair.FlipAsync();
        var (before, memory) = await AtRestAsync(pair);
        for (int i = flips / 4; i < flips; i++) await pair.FlipAsync();
        var (after, grown) = await AtRestAsync(pair);
        Show($"{flips} flips: descriptors {before.Values.Sum()} and {after.Values.Sum()}, memory {memory >> 20} and {grown >> 20} MiB after a quarter and after all of them");
        Assert.Equal(Told(before), Told(after));
        Assert.InRange(grown, 0, memory + (32 << 20));
        await NothingIsLeftAsync(pair);
        await PassedAsync(load);
    }

    private static async Task<(IReadOnlyDictionary<string, int> Descriptors, long Bytes)> AtRestAsync(PairUnderTest pair)
    {
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "it should rest");
        await NothingIsLeftAsync(pair);
        // Those of requests that have just been answered are closed a moment later.
        IReadOnlyDictionary<string, int> descriptors = pair.DaemonDescriptors();
        long lowest = long.MaxValue;
        for (int look = 0; look < 20; look++)
        {
            await pair.StatusAsync();
            if (pair.DaemonDescriptors() is var now && now.Values.Sum() < descriptors.Values.Sum()) descriptors = now;
            lowest = Math.Min(lowest, ProcessMemory.Resident(pair.DaemonPid)!.Value);
        }
        return (descriptors, lowest);
    }

    private static string Told(IReadOnlyDictionary<string, int> descriptors) => string.Join(", ", descriptors.OrderBy(d => d.Key, StringComparer.Ordinal).Select(d => $"{d.Key} {d.Value}"));

    private static async Task NothingIsLeftAsync(PairUnderTest pair)
    {
        await pair.OneIsLeftAsync();
        string generations = pair.Files[$"run/{PairUnderTest.Name}"];
        await Eventually.True(() => Directory.GetDirectories(generations).Length <= 1, Patience, () => $"left in {generations}: {string.Join(' ', Directory.GetFileSystemEntries(generations))}");
    }
}
