using System.Diagnostics;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>A pair takes over from a HAProxy that it did not start, and gives back, while clients notice nothing.</summary>
[Collection(Alone)]
public sealed class AdoptionTests
{
    internal const string Unmanaged = "unmanaged";

    // What is open stays open for as long as a test may last.
    private static readonly PairYaml s_yaml = new() { FlipsByItself = false, Drain = "{ deadline: 10m, max_retired: 64 }" };

    [Theory(Timeout = 300_000)]
    [InlineData("-W -D")]
    [InlineData("-D")]
    public async Task Ten_times_there_and_back_under_load_nothing_fails_and_nothing_is_cut(string how)
    {
        await using PairUnderTest pair = await BesideAsync(how);
        await using LoadRun load = await StartedAsync(pair.Load(2000));
        await using LoadRun open = await StartedAsync(pair.Load(200) with
        {
            Mode = LoadMode.Long, Long = LongTraffic.Echo, Connections = 200, Expect = Expectation.Any,
        });
        List<HeldConnection> held = [];
        var took = Stopwatch.StartNew();
        for (int i = 0; i < 10; i++)
        {
            held.Add(await pair.HoldAsync(pair.Services[i % 2]));
            Assert.Equal(Unmanaged, held[^1].ServedBy);
            await DoneAsync(pair, "adopt", "--stop");
            Assert.Equal("v1", await pair.ServedByAsync());
            Assert.False((await pair.StatusAsync()).Unmanaged!.Listens);
            held.Add(await pair.HoldAsync(pair.Services[i % 2]));
            Assert.Equal("v1", held[^1].ServedBy);
            await DoneAsync(pair, "release");
            Assert.Equal(Unmanaged, await pair.ServedByAsync());
            // All of them each time, or HAProxy's own tunnel timeout ends them.
            foreach (HeldConnection connection in held) await connection.StaysAsync();
        }
        Show($"{how}: ten times there and back in {took.Elapsed.TotalSeconds:0.0} s");
        LoadResult stayed = await PassedAsync(open);
        Assert.Equal(200, stayed.Connections);
        Assert.Equal([Unmanaged], stayed.ServedBy.Keys);
        LoadResult result = await PassedAsync(load);
        Assert.Equal(["unmanaged", "v1"], result.ServedBy.Keys.Order());
    }

    [Fact(Timeout = 120_000)]
    public async Task Without_stop_it_stays_as_the_fallback_and_gets_what_comes_when_the_rules_go()
    {
        await using PairUnderTest pair = await BesideAsync("-D", "{ lost: report }");
        await using LoadRun load = await StartedAsync(pair.Load(500));
        await DoneAsync(pair, "adopt");
        Assert.Equal("v1", await pair.ServedByAsync());
        UnmanagedStatus? fallback = (await pair.StatusAsync()).Unmanaged;
        Assert.True(fallback is { Listens: true, ToldToStop: false });
        pair.Nets.Server.Exec("nft", "flush", "chain", "inet", "flipcontroller", "pair-edge");
        Assert.Equal(Unmanaged, await pair.ServedByAsync());
        await PassedAsync(load);
    }

    [Fact(Timeout = 240_000)]
    public async Task Kills_all_along_an_adoption_and_a_release_lose_no_connection_and_both_end_when_said_again()
    {
        await using PairUnderTest pair = await BesideAsync("-W -D");
        await using LoadRun load = await StartedAsync(pair.Load(500));
        await using LoadRun open = await StartedAsync(pair.Load(50) with
        {
            Mode = LoadMode.Long, Long = LongTraffic.Echo, Connections = 50, Expect = Expectation.Any,
        });
        List<string> found = [];
        for (int i = 0; i < 5; i++)
        {
            found.Add(await InterruptedAsync(pair, load, 70 * i, "adopt", "--stop"));
            Assert.Equal("v1", await pair.ServedByAsync());
            Assert.False((await pair.StatusAsync()).Unmanaged!.Listens);
            found.Add(await InterruptedAsync(pair, load, 70 * i, "release"));
            Assert.Equal(Unmanaged, await pair.ServedByAsync());
        }
        Show($"killed while {string.Join(", ", found)}");
        Assert.True(found.Distinct().Count() >= 3, string.Join(", ", found));
        await PassedAsync(open);
        await PassedAsync(load);
    }

    [Fact(Timeout = 120_000)]
    public async Task Asked_for_twice_it_is_one_adoption_and_a_wrong_unit_is_not_remembered()
    {
        await using PairUnderTest pair = await BesideAsync("-D");
        Task<Said> stopping = pair.FlipctlAsync("adopt", PairUnderTest.Name, "--stop");
        await pair.UntilAsync(s => s.State is "gating" or "switching" or "steady", "the adoption should begin");
        Said plain = await pair.FlipctlAsync("adopt", PairUnderTest.Name), stopped = await stopping;
        Assert.Equal((0, 0), (plain.ExitCode, stopped.ExitCode));
        Assert.False((await pair.StatusAsync()).Unmanaged!.Listens);
        Assert.Single((await pair.HistoryAsync()).Flips, f => f is { Trigger: "adopt", Outcome: "done" });

        Said wrong = await pair.FlipctlAsync("release", PairUnderTest.Name, "--unit", "nobodys-own.service");
        Assert.Equal(1, wrong.ExitCode);
        Assert.Equal("v1", await pair.ServedByAsync());
        await DoneAsync(pair, "release");
        Assert.Equal(Unmanaged, await pair.ServedByAsync());
        Assert.Equal(3, (await pair.FlipctlAsync("flip", PairUnderTest.Name)).ExitCode);
        Assert.Null((await pair.StatusAsync()).Fault);
    }

    /// <summary>A daemon that finds its front addresses taken by a HAProxy of the same files but for its name.</summary>
    internal static async Task<PairUnderTest> BesideAsync(string how, string redirect = "{}", string haproxy = "", Action<PairUnderTest>? before = null)
    {
        PairUnderTest pair = await PairUnderTest.StartAsync(s_yaml with { Redirect = redirect, Haproxy = haproxy }, p =>
        {
            before?.Invoke(p);
            NetnsProcess haproxy = p.Nets.Server.Start("haproxy", [.. how.Split(' '), "-f", p.Files.Write("unmanaged.cfg", Config(Unmanaged))]);
            Assert.Equal(0, haproxy.Exit(Patience).GetAwaiter().GetResult());
        }, s => s.Fault is not null);
        PairStatus found = await pair.StatusAsync();
        Assert.Contains("is in use: haproxy (process ", found.Fault, StringComparison.Ordinal);
        Assert.Null(found.Redirect.Generation);
        Assert.Equal(Unmanaged, await pair.ServedByAsync());
        return pair;
    }

    internal static async Task DoneAsync(PairUnderTest pair, params string[] verb)
    {
        Said said = await pair.FlipctlAsync([verb[0], PairUnderTest.Name, .. verb[1..]]);
        Assert.True(said is { ExitCode: 0, Error: "" }, $"{string.Join(' ', verb)}: exit code {said.ExitCode}: {said.Error}{said.Output}\n{pair.DaemonLog}");
    }

    /// <summary>Says it, kills the daemon so many requests of the load later, starts it, and says it again, which must succeed.</summary>
    /// <returns>In what state the next daemon found the pair.</returns>
    private static async Task<string> InterruptedAsync(PairUnderTest pair, LoadRun load, long requests, params string[] verb)
    {
        NetnsProcess asked = pair.Nets.Server.Start(Programs.Cli, ["--socket", pair.Socket, verb[0], PairUnderTest.Name, .. verb[1..]]);
        string before = (await pair.StatusAsync()).State;
        await Eventually.True(async () => asked.HasExited || (await pair.StatusAsync()).State != before, Patience, () => $"{verb[0]} does not begin");
        long began = load.Now.Requests;
        await Eventually.True(() => load.Now.Requests >= began + requests, Patience, "the load goes on");
        await pair.RestartDaemonAsync(Kill);
        string state = System.Text.RegularExpressions.Regex.Match(pair.DaemonLog, "was ([a-z]+), found").Groups[1].Value;
        await asked.Exit(Patience);
        await DoneAsync(pair, verb);
        return state;
    }
}
