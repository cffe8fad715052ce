using System.CommandLine;
using FlipController.Core;
using FlipController.Core.Keepalived;
using Spectre.Console;

namespace FlipController.Cli;

internal static class StatusVerb
{
    public static Verb Create()
    {
        Argument<string?> pair = Arguments.OptionalPair();
        return new Verb("status", "Shows where new connections go, who is still on the other side, and what is wrong",
            ["flipctl status", "flipctl status edge", "flipctl status --json | jq -r '.pairs[] | .name + \" \" + .state'"],
            (call, cancel) => RunAsync(call, call.Value(pair), cancel)) { pair };
    }

    private static async Task<ExitCode> RunAsync(Call call, string? pair, CancellationToken cancel)
    {
        if (pair is null)
        {
            StatusReport report = await call.Daemon.StatusAsync(cancel);
            if (call.Terminal.Printed(report)) return ExitCode.Done;
            foreach (PairStatus status in report.Pairs) Print(call.Terminal.Console, status);
            if (report.Pairs.IsEmpty) call.Terminal.Line("no pairs");
            Print(call.Terminal.Console, report);
            return ExitCode.Done;
        }
        PairStatus one = await call.Daemon.PairAsync(pair, cancel);
        if (!call.Terminal.Printed(one)) Print(call.Terminal.Console, one);
        return ExitCode.Done;
    }

    /// <summary>What is about the node as a whole.</summary>
    private static void Print(IAnsiConsole console, StatusReport report)
    {
        foreach (VrrpStanding s in report.Keepalived ?? [])
        {
            string colour = s.State switch { VrrpState.Master => "green", VrrpState.Backup => "yellow", _ => "red" };
            string priority = s.Priority is { } value ? $", priority {value}" : "";
            console.MarkupLineInterpolated(
                $"keepalived   {s.Kind.ToString().ToLowerInvariant()} {s.Name} [{colour}]{s.State.ToString().ToUpperInvariant()}[/]{priority}, since {Phrases.Clock(s.Since)} ({s.Source.ToString().ToLowerInvariant()})");
        }
        if (report.Node is { Reasons.IsEmpty: false } node)
            console.MarkupLineInterpolated($"node         [yellow]keepalived is told that this node should not have the addresses: {string.Join("; ", node.Reasons)}[/]");
        if (report.Handover is { Phase: not "none" } handover)
            console.MarkupLineInterpolated($"handover     [yellow]{handover.Phase}: {HandoverVerb.Now(handover)}{(handover.Note is null ? "" : $"; {handover.Note}")}[/]");
        if (report.Handover?.Receiving is { } receiving) console.MarkupLineInterpolated($"handover     [yellow]the peer hands over to this node ({receiving.Phase})[/]");
        if (report.Node?.Fault is { } fault) console.MarkupLineInterpolated($"node         [red]{fault}[/]");
    }

    private static void Print(IAnsiConsole console, PairStatus pair)
    {
        string colour = pair.Fault is not null || pair.State == "faulted" ? "red" : pair.State is "steady" or "released" ? "green" : "yellow";
        string to = pair.State == "released" ? "new connections go to the unmanaged HAProxy"
            : pair.Active is null ? "no active generation"
            : string.Join(", ", [.. pair.Active.Ports.Select(p => $"{p.Key} -> {p.Value}"), .. (pair.Fronts ?? []).Select(f => $"{f.Path} -> {Path.GetFileName(f.LeadsTo) ?? "not our link"}")]);
        console.MarkupLineInterpolated($"[bold]{pair.Name}[/]  [{colour}]{pair.State}[/]  {to}");
        Table table = new Table().NoBorder().HideFooters();
        foreach (string heading in new[] { "  side", "slot", "gen", "pid", "since", "config", "conntrack", "sockets", "haproxy", "memory", "" })
            table.AddColumn(new TableColumn(new Text(heading, new Style(decoration: Decoration.Dim))) { NoWrap = heading.Length > 0 });
        Row("active", pair.Active, "");
        Row("standby", pair.Standby, "being proven");
        string undo = pair.UndoEnds is { } ends ? $"undo for another {Phrases.Span(ends - DateTimeOffset.Now)}" : "";
        Row("previous", pair.Previous, pair.Previous?.Leaving is { } warm ? Left(warm, undo) : undo);
        foreach (GenerationStatus retired in pair.Retired)
            Row("retired", retired, retired.Leaving is { } leaving ? Left(leaving, "")
                : retired.Closes is { } closes ? $"closes in {Phrases.Span(closes - DateTimeOffset.Now)}" : "");
        if (table.Rows.Count > 0) console.Write(table);
        foreach (GenerationStatus generation in ((GenerationStatus?[])[pair.Active, pair.Standby, pair.Previous, .. pair.Retired]).OfType<GenerationStatus>())
        {
            if (generation.Unit is { } unit) console.MarkupLineInterpolated($"  unit       generation {generation.Number}: {unit}");
            foreach (string why in generation.Connections.Why ?? [])
                console.MarkupLineInterpolated($"  why        generation {generation.Number}: {why}");
        }
        if (pair.Drain is { } drain) console.MarkupLineInterpolated($"  [yellow]drain      {About(drain)}[/]");
        if (pair.HeldSlot is { } held)
            console.MarkupLineInterpolated($"  [yellow]held       {held.Name()}: nothing starts there and flips are refused, until `flipctl undrain {pair.Name}`[/]");
        // The kernel's rule is what counts: say so when it is not what was meant.
        if (pair.Redirect.Generation != pair.Active?.Number)
        {
            string kernel = Phrases.Number(pair.Redirect.Generation), active = Phrases.Number(pair.Active?.Number);
            console.MarkupLineInterpolated(
                $"  [red]redirect   the kernel sends new connections to generation {kernel}, the active one is {active}[/]");
        }
        if (pair.Unmanaged is { } unmanaged) console.MarkupLineInterpolated($"  unmanaged  {About(unmanaged, pair.State == "released")}");
        console.MarkupLineInterpolated($"  hold       {pair.Hold.Method} ({pair.Hold.Configured}: {pair.Hold.Why})");
        if (pair.LastFlip is { } flip)
        {
            string way = $"{Phrases.Number(flip.From)} -> {Phrases.Number(flip.To)}";
            string took = $"window {Phrases.Window(flip.Hold)}, {flip.DurationMs} ms in all{Because(flip)}";
            console.MarkupLineInterpolated(
                $"  last flip  {flip.Id} {flip.Outcome} {Phrases.Ago(flip.Started)}, {flip.Trigger}, {way}, {took}");
        }
        if (pair.HeldBack is { } restraint) console.MarkupLineInterpolated($"  [yellow]pending    a changed file waits, as {restraint}; `flipctl flip {pair.Name}` goes all the same[/]");
        else if (pair.Pending) console.MarkupLine("  [yellow]pending    a newer change waits for this flip to end[/]");
        foreach (string warning in pair.Warnings) console.MarkupLineInterpolated($"  [yellow]warning    {warning}[/]");
        if (pair.Fault is not null) console.MarkupLineInterpolated($"  [red]fault      {pair.Fault}[/]");
        console.WriteLine();

        void Row(string side, GenerationStatus? generation, string remark)
        {
            if (generation is null) return;
            string sha = generation.ConfigSha256;
            ConnectionCounts open = generation.Connections;
            string[] cells =
            [
                $"  {side}", generation.Slot, Phrases.Number(generation.Number), Phrases.Number(generation.Pid),
                Phrases.Clock(generation.Since), sha.Length > 12 ? sha[..12] : sha,
                Phrases.Count(open.Conntrack), Phrases.Count(open.Sockets), open.Haproxy is null && generation.Version is null ? "-" : Phrases.Count(open.Haproxy),
                generation.MemoryBytes is { } memory ? Phrases.MiB(memory) : "", remark,
            ];
            table.AddRow([.. cells.Select(c => new Text(c))]);
        }
    }

    private static string About(UnmanagedStatus unmanaged, bool serves)
    {
        string process = unmanaged.Pid is { } pid ? $"process {pid}" : "not running";
        string role = unmanaged switch
        {
            { Listens: true } when serves => "has the new connections",
            { Listens: true, ToldToStop: true } => "told to stop, still listens on the front addresses",
            { Listens: true } => "listens on the front addresses: the fallback",
            { ToldToStop: true } => "told to stop, listens no more",
            _ => "does not listen on the front addresses",
        };
        return $"{unmanaged.Name} ({process}), {role}, {unmanaged.Connections} connections";
    }

    /// <summary>The undo window is told better than its step.</summary>
    private static string Left(LeavingStatus leaving, string undo) => leaving is { Step: "warm" } && undo.Length > 0
        ? $"warm, {undo}" : Phrases.Leaving(leaving, DateTimeOffset.Now);

    private static string About(DrainStatus drain)
    {
        string generations = Phrases.Those(drain.Generations);
        string target = drain.Slot is { } slot ? $"{slot.Name()}{(drain.Generations.IsEmpty ? "" : $" ({generations})")}" : generations;
        string deadline = drain.Deadline is { } d ? Durations.Format(d) : "as configured";
        return $"{drain.Id}: {target}, deadline {deadline}, began {Phrases.Ago(drain.Started)}{(drain.Reason is null ? "" : $" ({drain.Reason})")}";
    }

    private static string Because(FlipRecord flip) => (flip.Reason, flip.Error) switch
    {
        (null, null) => "",
        ({ } reason, null) => $" ({reason})",
        (null, { } error) => $": {error}",
        ({ } reason, { } error) => $" ({reason}): {error}",
    };
}
