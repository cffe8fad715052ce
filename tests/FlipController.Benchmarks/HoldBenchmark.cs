using System.Diagnostics;
using System.Globalization;
using System.Net;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;

namespace FlipController.Benchmarks;

/// <param name="Requests">At least so many while it is reloaded, and while it is protected; a fifth of them without a restart.</param>
/// <param name="Restarts">At least so many in the same two ways; fewer in those that cost a client a second or fail.</param>
/// <param name="Clients">Of the closed loop.</param>
/// <param name="Ways">Empty: all of them.</param>
internal sealed record HoldOptions(
    string Method, long Requests, int Restarts, int Clients, string Flipctl, string Output, IReadOnlyCollection<RestartWay> Ways);

/// <summary>
/// The experiment of Yelp's "True zero downtime HAProxy reloads" (2015): one HAProxy is restarted every 100 ms while clients in another
/// namespace ask as ab does, each again as soon as it has its answer. One way of restarting after another, and all that failed.
/// </summary>
internal static class HoldBenchmark
{
    private const int MostDrops = 20;

    private static readonly TimeSpan s_between = TimeSpan.FromMilliseconds(100);

    /// <summary>Every 100 ms a client's SYN would be dropped each time that it comes again.</summary>
    private static readonly TimeSpan s_betweenDrops = TimeSpan.FromSeconds(4);

    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(200), s_tell = TimeSpan.FromSeconds(15);

    /// <summary>A SYN that was dropped three times comes again after seven seconds: late, but no failure.</summary>
    private static readonly TimeSpan s_timeout = TimeSpan.FromSeconds(15), s_longest = TimeSpan.FromHours(3);

    public static string Output(string method) => Path.Combine(Readme.Root(), $"tests/results/hold-{method}.json");

    public static async Task<int> RunAsync(HoldOptions options)
    {
        using NetnsPair nets = Netns.Pair();
        using var files = new TempDir();
        using NetnsProcess backend = nets.Server.Start(Programs.Load, "serve", "--listen", "127.0.0.1:8080", "--name", "app");
        await Eventually.True(() => backend.Output.Contains("listening", StringComparison.Ordinal), TimeSpan.FromSeconds(60), () => backend.Errors);
        var haproxy = new RestartedHaproxy(nets, files, options.Flipctl, options.Method);
        haproxy.Start();
        List<HoldRow> rows = [];
        var run = new HoldRun(options.Method, Machine.Kernel, Machine.IsEmulated, Environment.ProcessorCount, options.Clients, rows);
        Directory.CreateDirectory(Path.GetDirectoryName(options.Output)!);
        foreach (RestartWay way in Enum.GetValues<RestartWay>())
        {
            if (options.Ways.Count > 0 && !options.Ways.Contains(way)) continue;
            // Once, counted nowhere: every program's pages are in memory afterwards.
            _ = await RowAsync(nets, haproxy, way, options.Clients, 100, way == RestartWay.None ? 0 : 1);
            (long requests, int restarts) = way switch
            {
                RestartWay.None => (options.Requests / 5, 0),
                RestartWay.Reload or RestartWay.Protect => (options.Requests, options.Restarts),
                RestartWay.Drop => (0L, Math.Min(options.Restarts, MostDrops)),
                RestartWay.Bare => (0L, Math.Max(1, options.Restarts / 10)),
            };
            Console.Error.WriteLine($"{HoldTable.Name(way, options.Method)}: at least {requests} requests and {restarts} restarts");
            HoldRow row = await RowAsync(nets, haproxy, way, options.Clients, requests, restarts);
            rows.Add(row);
            File.WriteAllText(options.Output, run.ToJson()); // what an hour gave is not lost with the rest
            Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"  {row.Requests} requests, {row.Failed} failed, {row.Restarts} restarts in {row.Seconds:0} s{(row.Commands.Count > 0 ? $", each p50 {row.Commands.P50:0} ms, at most {row.Commands.Max:0} ms" : "")}"));
        }
        Console.WriteLine(HoldTable.Of(run));
        return rows.All(r => r.FailedCommands == 0 && (r.Failed == 0 || r.Way is not (RestartWay.None or RestartWay.Protect))) ? 0 : 1;
    }

    private static async Task<HoldRow> RowAsync(NetnsPair nets, RestartedHaproxy haproxy, RestartWay way, int clients, long requests, int restarts)
    {
        var options = new LoadOptions
        {
            Targets = [new IPEndPoint(nets.ServerV4, 80), new IPEndPoint(nets.ServerV6, 80)], ClosedLoop = clients, Duration = s_longest,
            Timeout = s_timeout, Expect = Expectation.Contains("app"),
        };
        using NetnsProcess load = nets.Client.Start(Programs.Load, [.. options.ToArguments(), "--progress"]);
        await Eventually.True(() => load.HasExited || Asked(load) > 0, TimeSpan.FromMinutes(1), () => $"the load should run: {load.Errors}");
        List<ProtectReport> reports = [];
        var commands = new Histogram();
        var told = Stopwatch.StartNew();
        int done = 0, failed = 0;
        while (done < restarts || Asked(load) < requests)
        {
            if (load.HasExited) throw new InvalidOperationException($"the load ended: {load.Output}{load.Errors}");
            if (told.Elapsed > s_tell)
            {
                told.Restart();
                Console.Error.WriteLine($"  {done} restarts; the load: {Last(load)}");
            }
            if (way == RestartWay.None)
            {
                await Task.Delay(s_look);
                continue;
            }
            await Task.Delay(way == RestartWay.Drop ? s_betweenDrops : s_between);
            var watch = Stopwatch.StartNew();
            try
            {
                if (await haproxy.RestartAsync(way) is { } report)
                {
                    reports.Add(report);
                    if (report.OpenedBy != "command" || !report.Warnings.IsEmpty)
                        Console.Error.WriteLine($"  opened by {report.OpenedBy} after {report.WindowUs / 1000} ms: {string.Join("; ", report.Warnings)}");
                }
            }
            catch (Exception e) when (e is InvalidOperationException or TimeoutException)
            {
                failed++;
                Console.Error.WriteLine(e.Message);
                if (failed > restarts / 10) throw;
            }
            commands.Record((long)watch.Elapsed.TotalMicroseconds);
            done++;
        }
        load.Terminate(); // it waits for what is under way
        await load.Exit(s_timeout + TimeSpan.FromSeconds(30));
        LoadResult result = LoadResult.FromJson(load.Output);
        foreach (FailureSample sample in result.Samples.Take(5)) Console.Error.WriteLine($"  at {sample.AtMs:0} ms {sample.Target}: {sample.Failure}: {sample.Message}");
        return new HoldRow(way, result.Requests, result.Failed, Failures(result), way == RestartWay.None ? 0 : done, failed, result.Seconds, result.Latency, commands.Read(), Windows(reports));
    }

    /// <summary>What the load said last: a line a second.</summary>
    private static long Asked(NetnsProcess load)
    {
        return long.TryParse(Last(load).Split(' ')[0], NumberStyles.None, CultureInfo.InvariantCulture, out long asked) ? asked : 0;
    }

    private static string Last(NetnsProcess load)
    {
        string said = load.Errors.TrimEnd('\n');
        return said[(said.LastIndexOf('\n') + 1)..];
    }

    private static Dictionary<string, long> Failures(LoadResult r) => new (string Name, long Count)[]
    {
        ("refused", r.Refused), ("reset", r.Reset), ("timed out", r.TimedOut), ("cut", r.Truncated), ("wrong content", r.WrongContent),
        ("wrong status", r.WrongStatus), ("no source port", r.PortsExhausted), ("other", r.Other + r.Overrun),
    }.Where(f => f.Count > 0).ToDictionary(f => f.Name, f => f.Count);

    private static HoldWindows? Windows(List<ProtectReport> reports)
    {
        if (reports.Count == 0) return null;
        var windows = new Histogram();
        foreach (ProtectReport report in reports) windows.Record(report.WindowUs);
        return new HoldWindows(
            windows.Read(), reports.Sum(r => r.Held), reports.Max(r => r.LongestWaitUs) / 1000.0, reports.Sum(r => r.Dropped),
            reports.Sum(r => (long)r.NotAccepted), reports.Count(r => r.OpenedBy != "command"));
    }
}
