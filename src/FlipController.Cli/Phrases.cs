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

    /// <summary>What became of the old side's runtime changes, a line each.</summary>
    public static IEnumerable<string> Runtime(FlipRecord flip) =>
        (flip.Carried?.Select(c => $"carried: {c}") ?? []).Concat(flip.Lost?.Select(l => $"lost: {l}") ?? []);

    private static string StayBehind(FlipRecord flip) =>
        flip.OldSideConnections is > 0 and int open ? $"; {open} open connections stay on the old side" : "";
}
