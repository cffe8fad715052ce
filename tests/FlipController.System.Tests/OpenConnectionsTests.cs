using System.Diagnostics;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>What is open stays where it is, whole, until it ends by itself or its drain does.</summary>
public sealed class OpenConnectionsTests
{
    [Fact(Timeout = 90_000)]
    public async Task A_download_that_lasts_through_three_flips_arrives_whole()
    {
        const int length = 20_000_000;
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { FlipsByItself = false });
        using HttpClient client = pair.Client();
        using HttpResponseMessage answer = await client.GetAsync($"/bytes/{length}?seed=7", HttpCompletionOption.ResponseHeadersRead);
        Assert.Equal("v1", answer.Headers.GetValues("X-Served-By").Single());
        var hurry = new TaskCompletionSource();
        Task<int> download = WholeAsync(answer, 7, hurry.Task);
        for (int i = 2; i <= 4; i++)
        {
            pair.Write(Config($"v{i}"));
            await pair.FlipAsync();
            Assert.Equal($"v{i}", await pair.ServedByAsync());
        }
        PairStatus status = await pair.StatusAsync();
        Assert.False(download.IsCompleted, "the download was over before the third flip");
        Assert.Equal([1], status.Retired.Where(r => r.Connections.Sockets > 0).Select(r => r.Number));
        hurry.SetResult();
        Assert.Equal(length, await download);
        await pair.UntilAsync(s => s.Retired.All(r => r.Number != 1), "the first generation should be gone once the download is");
    }

    /// <param name="hurry">Until then some 0.8 MB/s are read.</param>
    private static async Task<int> WholeAsync(HttpResponseMessage answer, ulong seed, Task hurry)
    {
        await using Stream body = await answer.Content.ReadAsStreamAsync();
        using var pace = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        byte[] buffer = new byte[16 * 1024];
        int position = 0;
        while (await body.ReadAsync(buffer) is var read and > 0)
        {
            Assert.True(Content.Matches(buffer.AsSpan(0, read), seed, position), $"a wrong byte after {position}");
            position += read;
            if (!hurry.IsCompleted) await Task.WhenAny(pace.WaitForNextTickAsync().AsTask(), hurry);
        }
        return position;
    }

    [Fact(Timeout = 90_000)]
    public async Task Websockets_and_downloads_go_on_through_flips_and_the_retirement_of_their_generation()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { FlipsByItself = false });
        HeldConnection held = await pair.HoldAsync(), held6 = await pair.HoldAsync(pair.Services[1]);
        await using LoadRun load = await StartedAsync(pair.Load(100) with
        {
            Mode = LoadMode.Long, Connections = 12, Duration = TimeSpan.FromSeconds(10), Expect = Expectation.Any,
        });
        for (int i = 2; i <= 4; i++)
        {
            pair.Write(Config($"v{i}"));
            await pair.FlipAsync();
            await pair.UntilAsync(s => s.State == "steady", "the undo window should end");
        }
        await pair.UntilAsync(s => s.Retired.Any(r => r.Number == 1), "the first generation should be retired, with its connections");
        Assert.Equal(("v1", true, true), (held.ServedBy, await held.EchoesAsync(), await held6.EchoesAsync()));
        LoadResult result = await load.Completion;
        await PassedAsync(load);
        Assert.Equal(12, result.Connections);
        Assert.Equal(["v1"], result.ServedBy.Keys);
        await held.StaysAsync();
        held.Dispose();
        held6.Dispose();
        await pair.UntilAsync(s => s.Retired.IsEmpty, "the first generation should go when its last connection has");
        Assert.Single(pair.HaproxyPids());
    }

    [Fact(Timeout = 120_000)]
    public async Task Keepalive_clients_lose_nothing_in_ten_flips_and_soft_stops()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { FlipsByItself = false });
        await using LoadRun load = await StartedAsync(pair.Load(500) with { Mode = LoadMode.Keepalive, Connections = 32 });
        await using LoadRun local = await StartedAsync(pair.LocalLoad(100) with { Mode = LoadMode.Keepalive, Connections = 8 });
        for (int i = 2; i <= 11; i++)
        {
            pair.Write(Config($"v{i}"));
            await pair.FlipAsync();
            await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "the generation before should be soft-stopped and drain");
        }
        LoadResult result = await PassedAsync(load);
        await PassedAsync(local);
        Assert.Equal(11, result.ServedBy.Count);
    }

    [Fact(Timeout = 60_000)]
    public async Task An_HTTP_client_with_one_connection_notices_nothing()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { FlipsByItself = false });
        using HttpClient client = pair.Client();
        Assert.Equal("v1", await ServedAsync(client));
        pair.Write(Config("v2"));
        await pair.FlipAsync();
        Assert.Equal("v1", await ServedAsync(client)); // The open connection stays where it is, as long as it is warm.
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "the old generation should drain");
        Assert.Equal("v2", await ServedAsync(client));
    }

    private static async Task<string> ServedAsync(HttpClient client)
    {
        using HttpResponseMessage answer = await client.GetAsync("/");
        Assert.True(answer.IsSuccessStatusCode);
        return answer.Headers.GetValues("X-Served-By").Single();
    }

    [Fact(Timeout = 90_000)]
    public async Task Draining_generations_never_stand_in_the_way_and_past_max_retired_the_oldest_is_closed()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml
        {
            FlipsByItself = false, Watch = "{ undo: 60s }", Drain = "{ deadline: 5m, max_retired: 2 }",
        });
        await using LoadRun load = await StartedAsync(pair.Load(300));
        List<HeldConnection> held = [await pair.HoldAsync()];
        for (int i = 2; i <= 5; i++)
        {
            // Each flip comes in the undo window of the one before, and every generation has a connection that does not end.
            pair.Write(Config($"v{i}"));
            var clock = Stopwatch.StartNew();
            await pair.FlipAsync();
            Show($"flip {i} took {clock.ElapsedMilliseconds} ms");
            Assert.InRange(clock.Elapsed, TimeSpan.Zero, TimeSpan.FromSeconds(8));
            held.Add(await pair.HoldAsync());
            Assert.Equal($"v{i}", held[^1].ServedBy);
        }
        // Active 5, previous 4, retired 3 and 2; 1 is one too many.
        PairStatus status = await pair.UntilAsync(s => s.Retired.Length == 2, "the oldest should be closed");
        Assert.Equal((5, 4), (status.Active!.Number, status.Previous!.Number));
        Assert.Equal([2, 3], status.Retired.Select(r => r.Number));
        bool[] open = await Task.WhenAll(held.Select(h => h.EchoesAsync()));
        Assert.Equal([false, true, true, true, true], open);
        await pair.SaysAsync(@"generation 1 \(blue\) is closed with [1-9][0-9]* connections: more than 2 retired generations \(drain.max_retired\)");
        Assert.Equal(4, pair.HaproxyPids().Length);
        await PassedAsync(load);
    }

    [Fact(Timeout = 60_000)]
    public async Task At_the_drain_deadline_what_is_left_is_closed()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { FlipsByItself = false, Drain = "{ deadline: 2s }" });
        HeldConnection held = await pair.HoldAsync();
        pair.Write(Config("v2"));
        await pair.FlipAsync();
        PairStatus status = await pair.UntilAsync(s => s.Retired.Length == 1, "the old generation should be retired");
        Assert.NotNull(status.Retired[0].Closes);
        await held.StaysAsync();
        await pair.UntilAsync(s => s.Retired.IsEmpty, "it should be closed at its deadline");
        Assert.InRange(DateTimeOffset.UtcNow, status.Retired[0].Closes!.Value, status.Retired[0].Closes!.Value + TimeSpan.FromSeconds(5));
        Assert.False(await held.EchoesAsync());
        Assert.Single(pair.HaproxyPids());
    }
}
