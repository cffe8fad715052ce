using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using System.Net;

namespace FlipController.Load;

internal static class RunVerb
{
    public static Command Create()
    {
        var defaults = new LoadOptions { Targets = [] };
        var target = new Option<IPEndPoint[]>("--target")
        {
            Description = "ADDR:PORT or [ADDR6]:PORT; several are taken in turn",
            Required = true,
            CustomParser = Endpoints,
        };
        var rate = new Option<double>("--rate") { Description = "requests a second", DefaultValueFactory = _ => defaults.Rate };
        var closed = new Option<int?>("--closed-loop")
        {
            Description = "so many clients, each asking again when its connection has ended, as ab does; in place of --rate",
        };
        var requests = new Option<long?>("--requests") { Description = "a closed loop ends after so many, or after --duration" };
        var duration = new Option<TimeSpan>("--duration")
        {
            Description = "as 250ms, 12s, 5m",
            CustomParser = Duration,
            DefaultValueFactory = _ => defaults.Duration,
        };
        var mode = new Option<LoadMode>("--mode")
        {
            Description = "a connection for every request, connections used again, or connections that stay",
            DefaultValueFactory = _ => defaults.Mode,
        };
        var connections = new Option<int>("--connections")
        {
            Description = "how many keepalive and long keep",
            DefaultValueFactory = _ => defaults.Connections,
        };
        var path = new Option<string>("--path") { DefaultValueFactory = _ => defaults.Path };
        var host = new Option<string?>("--host") { Description = "the Host header (default: the target)" };
        var status = new Option<int?>("--status") { Description = "the only right status (default: any 2xx)" };
        var expect = new Option<string?>("--expect")
        {
            Description = "the body: a text it contains, length:N, sha256:HEX, or bytes:N:SEED",
        };
        var timeout = new Option<TimeSpan>("--timeout") { CustomParser = Duration, DefaultValueFactory = _ => defaults.Timeout };
        var servedBy = new Option<string>("--served-by")
        {
            Description = "the response header whose values are counted",
            DefaultValueFactory = _ => defaults.ServedByHeader,
        };
        var @long = new Option<LongTraffic>("--long")
        {
            Description = "what long connections do",
            DefaultValueFactory = _ => defaults.Long,
        };
        var download = new Option<int>("--download-rate")
        {
            Description = "bytes a second of a long download",
            DefaultValueFactory = _ => defaults.DownloadRateBytes,
        };
        var inFlight = new Option<int?>("--max-in-flight")
        {
            Description = "open at a time (fresh) or waiting for one connection; past it a request counts as overrun",
        };
        var netns = new Option<string?>("--netns") { Description = "the network namespace to connect from" };
        var json = new Option<bool>("--json") { Description = "the result as JSON" };
        var progress = new Option<bool>("--progress") { Description = "a line a second on stderr" };

        var command = new Command("run", "Sends requests on a fixed schedule, or in a closed loop. Exit code 0 only if none failed.")
        {
            target, rate, closed, requests, duration, mode, connections, path, host, status, expect, timeout, servedBy, @long, download, inFlight, netns,
            json, progress,
        };
        command.SetAction(async (parsed, cancelled) =>
        {
            var options = new LoadOptions
            {
                Targets = parsed.GetRequiredValue(target), Rate = parsed.GetValue(rate), ClosedLoop = parsed.GetValue(closed),
                Requests = parsed.GetValue(requests), Duration = parsed.GetValue(duration),
                Mode = parsed.GetValue(mode), Connections = parsed.GetValue(connections), Path = parsed.GetRequiredValue(path),
                Host = parsed.GetValue(host), Status = parsed.GetValue(status), Timeout = parsed.GetValue(timeout),
                Expect = parsed.GetValue(expect) is { } text ? Expectation.Parse(text) : Expectation.Any,
                ServedByHeader = parsed.GetRequiredValue(servedBy), Long = parsed.GetValue(@long),
                DownloadRateBytes = parsed.GetValue(download),
                MaxInFlight = parsed.GetValue(inFlight), Namespace = parsed.GetValue(netns),
            };
            try
            {
                var result = await Run(options, parsed.GetValue(progress), cancelled);
                await Console.Out.WriteLineAsync(parsed.GetValue(json) ? result.ToJson() : Text(result));
                return result.Passed ? 0 : 1;
            }
            catch (Exception e) when (e is ArgumentException or IOException or System.ComponentModel.Win32Exception)
            {
                await Console.Error.WriteLineAsync($"flipload: {e.Message}");
                return e is ArgumentException ? 2 : 1;
            }
        });
        return command;
    }

    private static async Task<LoadResult> Run(LoadOptions options, bool progress, CancellationToken cancelled)
    {
        await using var run = LoadRun.Start(options);
        await using var registration = cancelled.Register(run.Stop);
        using var tick = new PeriodicTimer(TimeSpan.FromSeconds(1));
        while (progress && await Task.WhenAny(run.Completion, tick.WaitForNextTickAsync(CancellationToken.None).AsTask()) != run.Completion)
        {
            var now = run.Now;
            var underWay = now.Requests - now.Ok - now.Failed;
            await Console.Error.WriteLineAsync($"{now.Requests} requests, {now.Ok} ok, {now.Failed} failed, {underWay} under way");
        }
        return await run.Completion;
    }

    private static string Text(LoadResult r)
    {
        (string Name, long Count)[] failures =
        [
            ("refused", r.Refused), ("reset", r.Reset), ("timed out", r.TimedOut), ("truncated", r.Truncated),
            ("wrong content", r.WrongContent), ("wrong status", r.WrongStatus), ("overrun", r.Overrun), ("no source port", r.PortsExhausted), ("other", r.Other),
        ];
        (string Name, long Count)[] notes = [("raced", r.Raced), ("reconnected", r.Reconnected), ("late resets", r.LateResets)];
        var lines = new List<string>
        {
            Say($"{r.Requests} requests in {r.Seconds:0.0} s over {r.Connections} connections: {r.Ok} ok, {r.Failed} failed"),
        };
        lines.AddRange(failures.Concat(notes).Where(f => f.Count > 0).Select(f => $"  {f.Name}: {f.Count}"));
        foreach (var (name, p) in new[] { ("latency", r.Latency), ("connect", r.Connect), ("own lag", r.Lag) })
        {
            if (p.Count == 0) continue;
            lines.Add(Say($"{name,-8} ms  p50 {p.P50:0.000}  p90 {p.P90:0.000}  p99 {p.P99:0.000}  p99.9 {p.P999:0.000}  max {p.Max:0.000}"));
        }
        lines.AddRange(r.ServedBy.OrderBy(s => s.Value.FirstMs).Select(s =>
            Say($"served by {s.Key}: {s.Value.Count}, from {s.Value.FirstMs:0} to {s.Value.LastMs:0} ms")));
        lines.AddRange(r.Samples.Select(s => Say($"at {s.AtMs:0} ms {s.Target}: {s.Message}")));
        lines.Add(Say($"own processor time: {r.CpuPercent:0.0} % of one"));
        return string.Join('\n', lines);

        static string Say(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
    }

    internal static IPEndPoint[] Endpoints(ArgumentResult argument)
    {
        List<IPEndPoint> endpoints = [];
        foreach (var token in argument.Tokens)
        {
            if (IPEndPoint.TryParse(token.Value, out var endpoint) && token.Value.Contains(':')) endpoints.Add(endpoint);
            else argument.AddError($"\"{token.Value}\" is not ADDR:PORT or [ADDR6]:PORT");
        }
        return [.. endpoints];
    }

    private static TimeSpan Duration(ArgumentResult argument)
    {
        if (Durations.TryParse(argument.Tokens[0].Value, out var value)) return value;
        argument.AddError($"\"{argument.Tokens[0].Value}\" is not a duration such as 250ms, 12s or 5m");
        return default;
    }
}
