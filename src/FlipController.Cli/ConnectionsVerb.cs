using System.CommandLine;
using System.Globalization;
using FlipController.Core;

namespace FlipController.Cli;

internal static class ConnectionsVerb
{
    private const string DefaultNetworks = "24,64", DefaultInterval = "1s";

    // More often than ten times a second nobody can read, and each look costs the daemon one.
    private static readonly TimeSpan ShortestInterval = TimeSpan.FromMilliseconds(100);

    public static Option<string?> Peer() => new("--peer")
    {
        Description = "Only of this client: ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT or ADDRESS/PREFIX", HelpName = "ADDR",
    };

    public static Option<string?> Service() => new("--service")
    {
        Description = "Only to this front address, as `status` shows it", HelpName = "ADDR",
    };

    public static Verb Create()
    {
        Argument<string> pair = Arguments.Pair();
        Option<int?> generation = Arguments.Generation("Only on this generation", pair);
        Option<string?> peer = Peer();
        Option<string?> service = Service();
        Option<string?> older = Arguments.Duration("--older", "Only those that are open for longer than this");
        Option<string> sort = new Option<string>("--sort")
        {
            Description = "What comes first: the longest idle or open, the most bytes both ways, or the lowest peer", HelpName = "idle|age|bytes|peer", DefaultValueFactory = _ => "idle",
        }.AcceptOnlyFromAmong("idle", "age", "bytes", "peer");
        var limit = new Option<int>("--limit") { Description = "Show only the first N", HelpName = "N", DefaultValueFactory = _ => 20 };
        limit.Validators.Add(Arguments.AtLeastOne);
        var networks = new Option<string?>("--networks")
        {
            Description = $"Sum them up by the client's network; the lengths of the prefixes may be said ({DefaultNetworks})",
            HelpName = "V4,V6", Arity = ArgumentArity.ZeroOrOne,
        };
        networks.Validators.Add(result =>
        {
            if (result.Tokens is [var token] && !ArePrefixes(token.Value))
                result.AddError($"--networks: \"{token.Value}\" is no pair of prefix lengths, 0 to 32 and 0 to 128: {DefaultNetworks}");
        });
        var watch = new Option<string?>("--watch")
        {
            Description = $"Look again and again, this often ({DefaultInterval}), until interrupted; with --json one document a line",
            HelpName = "D", Arity = ArgumentArity.ZeroOrOne,
        };
        watch.Validators.Add(result =>
        {
            if (result.Tokens is not [var token]) return;
            if (!Durations.TryParse(token.Value, out TimeSpan interval))
                result.AddError($"--watch: \"{token.Value}\" is no duration, which is one number and one unit: 500ms, 2s");
            else if (interval < ShortestInterval || interval > TimeSpan.FromHours(1))
                result.AddError($"--watch: \"{token.Value}\" must be between {Durations.Format(ShortestInterval)} and 1h");
        });
        return new Verb("connections",
            "Shows who is connected, and so who blocks a drain: what the kernel and HAProxy count, and each client with its age, "
            + "idle time and bytes",
            [
                "flipctl connections edge", "flipctl connections edge --generation 6 --sort age --limit 5",
                "flipctl connections edge --older 1h --service :443 --watch", "flipctl connections edge --networks 16,48",
                "flipctl connections edge --json --limit 1000 | jq -r '.connections[].peer'",
            ],
            (call, cancel) =>
            {
                string query = Query(
                    ("generation", call.Value(generation)?.ToString(CultureInfo.InvariantCulture)), ("peer", call.Value(peer)),
                    ("service", call.Value(service)), ("older", call.Value(older)), ("sort", call.Value(sort)),
                    ("limit", call.Value(limit).ToString(CultureInfo.InvariantCulture)),
                    ("networks", call.Parsed.GetResult(networks) is null ? null : call.Value(networks) ?? DefaultNetworks));
                return call.Parsed.GetResult(watch) is null ? OnceAsync(call, call.Value(pair)!, query, call.Value(limit), cancel)
                    : WatchAsync(call, call.Value(pair)!, query, call.Value(limit), call.Value(watch) ?? DefaultInterval, cancel);
            }) { pair, generation, peer, service, older, sort, limit, networks, watch };
    }

    private static async Task<ExitCode> OnceAsync(Call call, string pair, string query, int limit, CancellationToken cancel)
    {
        ConnectionsReport report = await call.Daemon.ConnectionsAsync(pair, query, cancel);
        if (!call.Terminal.Printed(report)) Print(call.Terminal, ConnectionsTable.Lines(report, limit));
        return ExitCode.Done;
    }

    private static async Task<ExitCode> WatchAsync(
        Call call, string pair, string query, int limit, string every, CancellationToken cancel)
    {
        _ = Durations.TryParse(every, out TimeSpan interval);
        var block = new LiveBlock(call.Terminal);
        try
        {
            while (true)
            {
                Task next = Task.Delay(interval, cancel);
                ConnectionsReport report = await call.Daemon.ConnectionsAsync(pair, query, cancel);
                if (!call.Terminal.Printed(report))
                {
                    IReadOnlyList<string> lines = [Phrases.Clock(report.At), .. ConnectionsTable.Lines(report, limit)];
                    if (call.Terminal.IsLive) block.Draw(lines);
                    else Print(call.Terminal, [.. lines, ""]);
                }
                await call.Terminal.Output.FlushAsync(cancel);
                await next;
            }
        }
        catch (OperationCanceledException) when (cancel.IsCancellationRequested)
        {
            return ExitCode.Done;
        }
    }

    private static void Print(Terminal terminal, IEnumerable<string> lines)
    {
        foreach (string line in lines) terminal.Line(line);
    }

    private static string Query(params (string Key, string? Value)[] filters) =>
        string.Join('&', filters.Where(f => f.Value is not null).Select(f => $"{f.Key}={Uri.EscapeDataString(f.Value!)}"));

    private static bool ArePrefixes(string text) => text.Split(',') is [var four, var six]
        && int.TryParse(four, NumberStyles.None, CultureInfo.InvariantCulture, out int v4) && v4 <= 32
        && int.TryParse(six, NumberStyles.None, CultureInfo.InvariantCulture, out int v6) && v6 <= 128;
}
