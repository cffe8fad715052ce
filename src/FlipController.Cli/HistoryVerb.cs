using System.CommandLine;
using FlipController.Core;
using Spectre.Console;

namespace FlipController.Cli;

internal static class HistoryVerb
{
    public static Verb Create()
    {
        Argument<string?> pair = Arguments.OptionalPair();
        var limit = new Option<int>("--limit")
        {
            Description = "Show only the newest N of each pair", HelpName = "N", DefaultValueFactory = _ => 20,
        };
        limit.Validators.Add(result =>
        {
            // The library leaves words that are no number to itself, and says so.
            if (result.Tokens is [var token] && int.TryParse(token.Value, out int number) && number < 1)
                result.AddError("--limit must be at least 1");
        });
        return new Verb("history", "Shows past flips with their reports, newest last",
            ["flipctl history edge", "flipctl history --limit 5", "flipctl history edge --json | jq '.flips[].hold.window_us'"],
            (call, cancel) => RunAsync(call, call.Value(pair), call.Value(limit), cancel)) { pair, limit };
    }

    private static async Task<ExitCode> RunAsync(Call call, string? pair, int limit, CancellationToken cancel)
    {
        var reports = new List<HistoryReport>();
        IEnumerable<string> pairs = pair is not null ? [pair] : (await call.Daemon.StatusAsync(cancel)).Pairs.Select(p => p.Name);
        foreach (string name in pairs)
        {
            HistoryReport report = await call.Daemon.HistoryAsync(name, cancel);
            reports.Add(report with { Flips = [.. report.Flips.TakeLast(limit)] });
        }
        bool printed = pair is not null ? call.Terminal.Printed(reports[0]) : call.Terminal.Printed(new HistoriesReport([.. reports]));
        if (printed) return ExitCode.Done;
        foreach (HistoryReport report in reports) Print(call.Terminal.Console, report);
        return ExitCode.Done;
    }

    private static void Print(IAnsiConsole console, HistoryReport report)
    {
        console.MarkupLineInterpolated($"[bold]{report.Pair}[/]{(report.Flips.IsEmpty ? "  no flip yet" : "")}");
        if (report.Flips.IsEmpty) return;
        Table table = new Table().NoBorder();
        foreach (string heading in new[] { "  flip", "started", "trigger", "from", "to", "outcome", "window", "took", "why" })
            table.AddColumn(new TableColumn(new Text(heading, new Style(decoration: Decoration.Dim))) { NoWrap = heading != "why" });
        foreach (FlipRecord flip in report.Flips)
        {
            string[] cells =
            [
                $"  {flip.Id}", Phrases.Clock(flip.Started), flip.Trigger, Phrases.Number(flip.From), Phrases.Number(flip.To), flip.Outcome,
                Phrases.Window(flip.Hold), $"{flip.DurationMs} ms",
                string.Join("; ", new[] { flip.Reason, flip.Error }.Where(t => t is not null).Concat(Phrases.Runtime(flip))),
            ];
            bool bad = flip.Outcome is "failed" or "returned";
            table.AddRow([.. cells.Select((c, i) => new Text(c, bad && i == 5 ? new Style(Color.Red) : null))]);
        }
        console.Write(table);
    }
}
