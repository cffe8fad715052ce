using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Core.Machine;

namespace FlipController.Daemon;

/// <summary>What a drain now would do: the machine itself is asked, and nothing of what it says is done.</summary>
internal static class DrainPlan
{
    /// <exception cref="RefusedException">It would be refused.</exception>
    public static ImmutableArray<string> Steps(PairState s, DrainWish wish, PairOptions options, DateTimeOffset now)
    {
        Decision decision = PairMachine.Decide(s, new DrainAsked(now, wish));
        if (decision is Denied denied) throw new RefusedException($"pair {s.Pair}: {denied.Refusal.Sentence(s.Pair)}");
        var next = (Next)decision;
        if (next.State.Drain is not { } order) return [.. Held(next.State, wish), "there is nothing to drain"];
        var steps = ImmutableArray.CreateBuilder<string>();
        if (next.Effects.OfType<Prepare>().FirstOrDefault() is { } prepare)
        {
            steps.Add($"generation {prepare.Run.Number} is started in the {prepare.Run.Slot.Name()} slot with the configuration that {s.Active} runs");
            steps.Add($"it proves itself at the gate (at most {Durations.Format(options.Gate.Timeout)}); if it cannot, nothing moves and the drain fails");
            steps.Add($"NEW connections go to it; the open ones stay on {s.Active}");
            steps.Add(wish.SkipUndo ? "no undo window (--no-undo)"
                : $"undo window: {s.Active} stays warm for {Durations.Format(options.Watch.Undo)}; if the new side does worse, traffic returns and the drain fails");
        }
        foreach (Generation generation in s.Generations.Where(g => order.Generations.Contains(g.Number)))
        {
            RetiredGeneration? retired = s.Retired.FirstOrDefault(r => r.Generation.Number == generation.Number);
            steps.Add(retired is null ? $"soft stop of {generation}: no new connections, the open ones finish" : $"{generation} leaves already");
            steps.Add(Deadline(generation, retired, wish, options, now));
        }
        steps.AddRange(Held(next.State, wish));
        return steps.ToImmutable();
    }

    private static string Deadline(Generation generation, RetiredGeneration? retired, DrainWish wish, PairOptions options, DateTimeOffset now)
    {
        DateTimeOffset since = retired?.At ?? now;
        ImmutableArray<DrainDeadline> deadlines = DrainDeadline.Of(
            options.Drain, generation.Ports, since, wish.Deadline is { } d ? now + d : retired?.ClosesAt);
        if (deadlines.IsEmpty) return $"what is connected to {generation} is waited for without end (drain.at_deadline: keep)";
        IEnumerable<string> parts = deadlines.Where(x => x.At > now || x.Services.IsEmpty).Select(x =>
            $"{(x.Services.IsEmpty ? "what is left" : string.Join(", ", x.Services.Select(p => p.Service)))} after {Rounded(x.At - now)}");
        return $"still connected to {generation} is closed over {Durations.Format(options.Drain.Spread)}, the longest idle first: "
            + $"{string.Join("; ", parts)}; then its process ends";
    }

    private static string Rounded(TimeSpan span) =>
        Durations.Format(TimeSpan.FromSeconds(Math.Max(0, Math.Ceiling(span.TotalSeconds))));

    private static IEnumerable<string> Held(PairState s, DrainWish wish) => wish.Hold && s.HeldSlot is { } slot
        ? [$"nothing starts in the {slot.Name()} slot and flips are refused until `flipctl undrain {s.Pair}`"] : [];
}
