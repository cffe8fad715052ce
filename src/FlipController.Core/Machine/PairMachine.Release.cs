using System.Collections.Immutable;

namespace FlipController.Core.Machine;

/// <summary>Giving NEW connections back to an unmanaged server.</summary>
public static partial class PairMachine
{
    private static Decision InReleasing(PairState s, Releasing phase, PairEvent e)
    {
        switch (e)
        {
            case FlipAsked asked:
                return Wait(s, asked.Wish);
            case RollbackAsked:
                return new Denied(Refusal.ReleaseUnderWay);
            case ReleaseAsked asked:
                ReleaseRun joined = phase.Run with { Requests = phase.Run.Requests.Add(asked.Request) };
                return new Next(s with { Phase = phase with { Run = joined } }, []);
            case FallbackProven proven when proven.Id == phase.Run.Id && !phase.IsProven:
                return new Next(s with { Phase = phase with { IsProven = true } }, [new ClearRedirect(s.Active)]);
            case FallbackFailed failed when failed.Id == phase.Run.Id && !phase.IsProven:
                return Kept(s, phase, failed.Why, e.At);
            case Cleared cleared when phase.IsProven:
                return GivenBack(s, phase, cleared.Hold, cleared.OldSideConnections, e.At);
            case ClearFailed failed when phase.IsProven:
                // With nobody of ours left the unmanaged server is the only way on.
                return s.Active is null ? TryLater(s with { Fault = failed.Why }) : Kept(s, phase, failed.Why, e.At);
            case RetryDue when phase.IsProven:
                return new Next(s, [new ClearRedirect(s.Active)]);
            case UndoElapsed elapsed when phase.Undo is { } undo && s.Active?.Number == elapsed.Number:
                return RetireGeneration(s with { Phase = phase with { Undo = null } }, undo.Previous, e.At).Before(new Unwatch());
            case GenerationDied died when died.Number == phase.Undo?.Previous.Number:
                return new Next(s with { Phase = phase with { Undo = null } }, [new Unwatch()]);
            case GenerationDied died when died.Number == s.Active?.Number && phase is { IsProven: false, Undo: { } undo }:
                string why = $"generation {died.Number} {died.How} meanwhile";
                FlipRecord given = Ended(phase.Run, "failed", e.At, null, why);
                return Return(s with { LastFlip = given }, undo, "returned", $"generation {died.Number} {died.How}", [], true)
                    .Before(new Record(given), new Answer(phase.Run.Requests, given));
            case GenerationDied died when died.Number == s.Active?.Number:
                return Deserted(s, died, []);
            default:
                return Meaningless(s, e);
        }
    }

    private static Decision InReleased(PairState s, PairEvent e)
    {
        switch (e)
        {
            case FlipAsked { Wish.Trigger: FlipTrigger.Operator or FlipTrigger.Adopt } asked:
                return Begin(s, asked.Wish, e.At, null);
            case FlipAsked:
                return new Ignored("NEW connections go to the unmanaged server");
            case RollbackAsked:
                return new Denied(Refusal.AlreadyReleased);
            case ReleaseAsked asked:
                return new Next(s, [new Answer([asked.Request],
                    Ended(new ReleaseRun(s.LastFlipId, asked.Reason, [], null, e.At), "unchanged", e.At, null, null))]);
            default:
                return Meaningless(s, e);
        }
    }

    private static Next Release(PairState s, ReleaseAsked asked, UndoWindow? undo)
    {
        var run = new ReleaseRun(s.LastFlipId + 1, asked.Reason, [asked.Request], s.Active?.Number, asked.At, asked.Unit);
        return new Next(
            s with { LastFlipId = run.Id, RetryTicket = null, Phase = new Releasing(run, undo, IsProven: false) },
            [new ProveFallback(run, s.Active)]);
    }

    /// <summary>The release came to nothing: everything stays as it was.</summary>
    private static Next Kept(PairState s, Releasing phase, string why, DateTimeOffset at)
    {
        FlipRecord flip = Ended(phase.Run, "failed", at, null, why);
        s = s with { LastFlip = flip };
        Next next = s.Active is null ? Revive(s, s.Fault ?? why, at)
            : phase.Undo is { } undo && Due(s) is { } wish ? Begin(s, wish, at, undo)
            : phase.Undo is not null ? new Next(Rested(s) with { Phase = new Watching(phase.Undo) }, [])
            : Settle(s, at);
        return next.Before(new Record(flip), new Answer(phase.Run.Requests, flip));
    }

    private static Next GivenBack(PairState s, Releasing phase, HoldReport hold, int? oldSideConnections, DateTimeOffset at)
    {
        FlipRecord flip = Ended(phase.Run, "done", at, hold, null) with { OldSideConnections = oldSideConnections };
        Next previous = RetireGeneration(s, phase.Undo?.Previous, at);
        Next active = RetireGeneration(previous.State, s.Active, at);
        PairState rests = active.State with
        {
            Active = null, LastFlip = flip, Fault = null, Attempts = 0, RetryTicket = null, LeftContent = null,
            LastGood = null, BeforeLast = null,
            IsAdopted = false, IsReleased = true,
        };
        return Settle(rests, at).Before(
            [new Unwatch(), .. previous.Effects, .. active.Effects, new Record(flip), new Answer(phase.Run.Requests, flip)]);
    }

    private static FlipRecord Ended(ReleaseRun run, string outcome, DateTimeOffset at, HoldReport? hold, string? error) =>
        new(run.Id, "release", run.From, null, outcome, run.Started, (long)(at - run.Started).TotalMilliseconds, hold, run.Reason, error);
}
