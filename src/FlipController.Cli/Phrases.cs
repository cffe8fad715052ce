using System.Globalization;
using FlipController.Core;

namespace FlipController.Cli;

/// <summary>Numbers and times as a person says them.</summary>
internal static class Phrases
{
    public static string Count(int? count) => count?.ToString(CultureInfo.InvariantCulture) ?? "?";

    public static string Clock(DateTimeOffset at) => at.ToLocalTime().ToString("yyyy-MM-dd HH:mm:ss", CultureInfo.InvariantCulture);

    /// <summary>The two largest units: <c>2h 5m</c>, <c>12s</c>, <c>0.8s</c>.</summary>
    public static string Span(TimeSpan span)
    {
        if (span < TimeSpan.Zero) span = TimeSpan.Zero;
        return span switch
        {
            { TotalDays: >= 1 } => $"{span.Days}d {span.Hours}h",
            { TotalHours: >= 1 } => $"{span.Hours}h {span.Minutes}m",
            { TotalMinutes: >= 1 } => $"{span.Minutes}m {span.Seconds}s",
            { TotalSeconds: >= 10 } => $"{span.Seconds}s",
            _ => string.Create(CultureInfo.InvariantCulture, $"{span.TotalSeconds:0.0}s"),
        };
    }

    public static string Ago(DateTimeOffset at) => $"{Span(DateTimeOffset.Now - at)} ago";

    public static string Number(int? generation) => generation?.ToString(CultureInfo.InvariantCulture) ?? "none";

    public static string Window(HoldReport? hold) => hold is null ? "-"
        : hold.Held == 0 ? $"{hold.WindowUs} us ({hold.Method})"
        : $"{hold.WindowUs} us ({hold.Method}, {hold.Held} waited, the longest {hold.LongestWaitUs} us)";

    /// <summary>How a flip ended, for the one who asked for it.</summary>
    public static string Ended(string pair, FlipRecord flip) => flip.Outcome switch
    {
        "unchanged" when flip.Trigger == "release" => $"{pair}: nothing to do; new connections go to the unmanaged HAProxy already",
        "unchanged" when flip.Trigger == "adopt" => $"{pair}: new connections go to the pair already",
        "done" when flip.Trigger == "release" => $"{pair}: new connections go to the unmanaged HAProxy (before: generation {Number(flip.From)}); "
            + $"window {Window(flip.Hold)}, {flip.DurationMs} ms in all{StayBehind(flip)}",
        "unchanged" => $"{pair}: nothing to do; generation {Number(flip.From ?? flip.To)} already has the configuration on disk",
        // Its record is the flip's own: what went from A to B has gone back to A, and its duration is the flip's, undo window and all.
        "rolled-back" => $"{pair}: new connections go back to generation {Number(flip.From)} "
            + $"(flip {flip.Id} to generation {Number(flip.To)} is undone); window {Window(flip.Hold)}{StayBehind(flip)}",
        "done" => $"{pair}: new connections go to generation {Number(flip.To)} (before: {Number(flip.From)}); "
            + $"window {Window(flip.Hold)}, {flip.DurationMs} ms in all{StayBehind(flip)}",
        _ => $"{pair}: flip {flip.Id} {flip.Outcome}{(flip.Error is null ? "" : $": {flip.Error}")}",
    };

    /// <summary>How far a generation that leaves is: <c>draining, in 4m 12s: what is left is closed over 30s; 3 closed</c>.</summary>
    public static string Leaving(LeavingStatus leaving, DateTimeOffset now)
    {
        string then = (leaving.Then, leaving.Until) switch
        {
            ({ } next, { } until) => $", in {Span(until - now)}: {next}",
            ({ } next, null) => $", next: {next}",
            (null, { } until) => $", for another {Span(until - now)} at most",
            (null, null) => "",
        };
        string closed = leaving.Closed > 0 ? $"; {leaving.Closed} closed" : "";
        string others = string.Concat(leaving.Deadlines?.Select(d => $"; {d.Key} closes in {Span(d.Value - now)}") ?? []);
        return $"{leaving.Step}{then}{closed}{others}";
    }

    /// <summary>One look at a generation that leaves.</summary>
    public static string Look(DrainLook look, DateTimeOffset now)
    {
        string of = look.Leaving.AtBegin is { } all && all >= look.Connections ? $" of {all}" : "";
        return $"generation {look.Generation} ({look.Slot}): {look.Connections}{of} connections, {Leaving(look.Leaving, now)}";
    }

    /// <summary>How a drain ended, or what was accepted, for the one who asked.</summary>
    public static string Ended(string pair, DrainRecord drain)
    {
        string target = drain.Slot is { } slot ? slot.Name() : drain.Generations is [] ? "" : Those(drain.Generations);
        string named = drain.Slot is not null && drain.Generations is not [] ? $"{target} ({Those(drain.Generations)})" : target;
        string took = Span(TimeSpan.FromMilliseconds(drain.DurationMs));
        string closed = drain.Closed switch { 0 => "", 1 => "; 1 connection had to be closed", int n => $"; {n} connections had to be closed" };
        return drain.Outcome switch
        {
            "drained" => $"{pair}: {named} {(drain.Slot is null && drain.Generations.Length > 1 ? "have" : "has")} no connection and is stopped, after {took}{closed}",
            "unchanged" => $"{pair}: nothing to drain{(target.Length == 0 ? "" : $" in {target}")}",
            "cancelled" => $"{pair}: drain {drain.Id} was cancelled after {took}; what was told to stop goes on leaving as configured",
            _ => $"{pair}: drain {drain.Id} {drain.Outcome}{(drain.Error is null ? "" : $": {drain.Error}")}",
        };
    }

    public static string Those(IEnumerable<int> generations)
    {
        int[] numbers = [.. generations];
        return $"{(numbers.Length == 1 ? "generation" : "generations")} {string.Join(", ", numbers)}";
    }

    /// <summary>In the unit that leaves one to four digits: <c>512 B</c>, <c>1.4 MiB</c>.</summary>
    public static string Bytes(long bytes)
    {
        string[] units = ["B", "KiB", "MiB", "GiB", "TiB"];
        double size = bytes;
        int unit = 0;
        for (; size >= 999.5 && unit < units.Length - 1; unit++) size /= 1024;
        return string.Create(CultureInfo.InvariantCulture, $"{(unit == 0 || size >= 99.95 ? $"{size:0}" : $"{size:0.0}")} {units[unit]}");
    }

    /// <summary>Memory, all in one unit so that rows compare: <c>38 MiB</c>.</summary>
    public static string MiB(long bytes) => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1048576.0:0} MiB");

    /// <summary>Seconds as <see cref="Span"/>; <c>?</c> when they are not known.</summary>
    public static string Seconds(double? seconds) => seconds is { } s ? Span(TimeSpan.FromSeconds(s)) : "?";

    /// <summary>What became of the old side's runtime changes, a line each.</summary>
    public static IEnumerable<string> Runtime(FlipRecord flip) =>
        (flip.Carried?.Select(c => $"carried: {c}") ?? []).Concat(flip.Lost?.Select(l => $"lost: {l}") ?? []);

    private static string StayBehind(FlipRecord flip) =>
        flip.OldSideConnections is > 0 and int open ? $"; {open} open connections stay on the old side" : "";
}
