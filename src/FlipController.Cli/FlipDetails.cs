using System.Collections.Immutable;
using System.Text.Json.Serialization;
using FlipController.Core;
using FlipController.Linux.Files;
using FlipController.Linux.Hold;

namespace FlipController.Cli;

/// <summary>flipctl history PAIR ID --json.</summary>
/// <param name="Drain">How the side that NEW connections left by this flip drained; null: it did not, or that is not kept any more.</param>
internal sealed record FlipDetails(string Pair, FlipRecord Flip, DrainCurve? Drain)
{
    private const int Columns = 72, Rows = 10;

    public static async Task<ExitCode> ShowAsync(Call call, string pair, int id, string? plot, CancellationToken cancel)
    {
        ImmutableArray<FlipRecord> flips = (await call.Daemon.HistoryAsync(pair, cancel)).Flips;
        FlipRecord flip = flips.LastOrDefault(f => f.Id == id)
            ?? throw new VerbFailure(ExitCode.Usage, $"history: pair {pair} has no flip {id} in its history, {Kept(flips)}");
        DrainsReport drains = await call.Daemon.DrainsAsync(pair, cancel);
        // Of two the later one: what a rollback has given its connections back leaves again by another flip.
        DrainCurve? curve = drains.Drains.LastOrDefault(d => d.Flip == id) is { } known
            ? await call.Daemon.DrainCurveAsync(pair, known.Generation, cancel) : null;
        if (plot is not null)
        {
            if (curve is null)
                throw new VerbFailure(ExitCode.Failed,
                    $"history: no drain that followed flip {id} of pair {pair} is kept, so there is nothing to draw; {plot} was not written");
            string picture = CurveSvg.Document(curve, DateTimeOffset.Now);
            if (plot == "-") call.Terminal.Output.Write(picture);
            else OutputFile.Write(plot, picture);
            if (plot == "-") return ExitCode.Done;
        }
        if (call.Terminal.Printed(new FlipDetails(pair, flip, curve))) return ExitCode.Done;
        foreach (string line in Lines(pair, flip, curve, Terminal.IsUtf8, DateTimeOffset.Now)) call.Terminal.Line(line);
        if (plot is not null) call.Terminal.Line($"drawn into {plot}{(curve!.Ended is null ? ", so far: it leaves still" : "")}");
        return ExitCode.Done;
    }

    public static IEnumerable<string> Lines(string pair, FlipRecord flip, DrainCurve? curve, bool blocks, DateTimeOffset now)
    {
        yield return $"{pair}: flip {flip.Id}";
        (string Name, string? Value)[] facts =
        [
            ("started", Phrases.Clock(flip.Started)), ("trigger", flip.Trigger), ("from", Phrases.Number(flip.From)), ("to", Phrases.Number(flip.To)),
            ("outcome", flip.Outcome), ("window", Phrases.Window(flip.Hold)), ("took", $"{flip.DurationMs} ms"), ("reason", flip.Reason),
            ("error", flip.Error), ("stayed", flip.OldSideConnections is { } open ? $"{open} connections on the old side" : null),
        ];
        foreach ((string name, string? value) in facts.Where(f => f.Value is not null)) yield return $"  {name,-9}{value}";
        foreach (string line in Phrases.Runtime(flip)) yield return $"  {line}";
        if (curve is null)
        {
            yield return "  drain    none that is kept followed it";
            yield break;
        }
        yield return $"  drain    generation {curve.Generation} ({curve.Slot}): {CurveSvg.Summary(curve, now)}";
        foreach (DrainMark mark in curve.Marks) yield return $"    +{Phrases.Span(TimeSpan.FromSeconds(mark.AtS)),-9} {mark.Kind,-9} {mark.Text}";
        foreach (string line in Curve.Lines(curve.Samples, Columns, Rows, blocks)) yield return $"  {line}";
    }

    private static string Kept(ImmutableArray<FlipRecord> flips) => flips switch
    {
        [] => "which is empty",
        [var only] => $"which has {only.Id} alone",
        _ => $"which has {flips[0].Id} to {flips[^1].Id}",
    };
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(FlipDetails))]
[JsonSerializable(typeof(PlugState))]
[JsonSerializable(typeof(ImmutableArray<PlugState>))]
internal sealed partial class FlipDetailsJson : JsonSerializerContext;
