using System.CommandLine;
using System.Globalization;
using FlipController.Core;
using Spectre.Console;

namespace FlipController.Cli;

internal static class HistoryVerb
{
    public static Verb Create()
    {
        Argument<string?> pair = Arguments.OptionalPair();
        var id = new Argument<int?>("ID")
        {
            Description = "A flip's number: that one in full, and how the side it left drained", Arity = ArgumentArity.ZeroOrOne,
        };
        var limit = new Option<int>("--limit")
        {
            Description = "Show only the newest N of each pair", HelpName = "N", DefaultValueFactory = _ => 20,
        };
        limit.Validators.Add(Arguments.AtLeastOne);
        var plot = new Option<string?>("--plot")
        {
            Description = "With ID: draw that drain into this file, as SVG; - for standard output", HelpName = "FILE",
        };
        var verb = new Verb("history", "Shows past flips with their reports, newest last; one by its ID in full, with the drain that followed it",
            ["flipctl history edge", "flipctl history --limit 5", "flipctl history edge --json | jq '.flips[].hold.window_us'",
                "flipctl history edge 12", "flipctl history edge 12 --plot drain.svg", "flipctl history 12 --plot - | display   # of the only pair"],
            (call, cancel) => RunAsync(call, call.Value(pair), call.Value(id), call.Value(limit), call.Value(plot), cancel)) { pair, id, limit, plot };
        verb.Validators.Add(result =>
        {
            if (result.Children.Any(c => c.Errors.Any())) return;
            bool one = result.GetResult(id)?.Tokens.Count > 0;
            if (one && result.GetResult(limit) is { Implicit: false })
                result.AddError("--limit shortens the list of flips, ID shows one; both together mean nothing");
            else if (Said(plot) is { } file && result.GetResult(pair)?.Tokens.Count is not > 0)
                result.AddError($"--plot {file} draws how the side that a flip left drained: that flip's ID is missing");
            else if (Said(plot) == "-" && result.GetValue(GlobalOptions.Json))
                result.AddError("--plot - and --json both want standard output");

            string? Said(Option<string?> option) => result.GetResult(option) is { Tokens: [var token, ..] } ? token.Value : null;
        });
        return verb;
    }

    private static async Task<ExitCode> RunAsync(Call call, string? pair, int? id, int limit, string? plot, CancellationToken cancel)
    {
        (pair, id) = await MeantAsync(call, pair, id, cancel);
        if (id is { } one) return await FlipDetails.ShowAsync(call, pair!, one, plot, cancel);
        if (plot is not null)
            throw new VerbFailure(ExitCode.Usage,
                $"history: --plot {plot} draws how the side that a flip left drained: that flip's ID is missing; nothing was done; see `flipctl history --help`");
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

    /// <summary>A number alone is a flip of the only pair, unless a pair has that name.</summary>
    private static async Task<(string? Pair, int? Id)> MeantAsync(Call call, string? word, int? id, CancellationToken cancel)
    {
        if (id is not null || !int.TryParse(word, NumberStyles.None, CultureInfo.InvariantCulture, out int number)) return (word, id);
        string[] names = [.. (await call.Daemon.StatusAsync(cancel)).Pairs.Select(p => p.Name)];
        if (names.Contains(word)) return (word, null);
        return names is [var only] ? (only, number) : throw new VerbFailure(ExitCode.Usage,
            $"history: which pair's flip {number} is meant is not clear: there are {names.Length} pairs ({string.Join(", ", names)}); "
            + $"say `flipctl history PAIR {number}`");
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
