using System.Collections.Immutable;
using System.Diagnostics;

namespace FlipController.Core.Machine;

/// <summary>The controller was away.</summary>
public static partial class PairMachine
{
    /// <summary>
    /// The controller was away. What is saved says what was intended, <paramref name="e"/> what is: dead generations are dropped,
    /// the kernel's rule tells whether a switch had happened, and whatever was under way is taken up or begun anew.
    /// </summary>
    private static Next Resume(PairState s, Restarted e)
    {
        var effects = ImmutableArray.CreateBuilder<Effect>();
        bool Lives(Generation? g) => g is not null && e.Alive.Contains(g.Number);

        s = s with { MaxRetired = e.MaxRetired, RetryTicket = null };
        foreach (RetiredGeneration retired in s.Retired)
        {
            if (Lives(retired.Generation)) effects.Add(new Retire(retired.Generation, retired.At, retired.ClosesAt));
            else
            {
                s = s with { Retired = s.Retired.Remove(retired) };
                effects.Add(new Drained(retired.Generation));
            }
        }
        effects.AddRange(PastTheBound(s));
        Phase was = s.Phase;
        Generation? active = Lives(s.Active) ? s.Active : null;
        if (s.Active is not null && active is null) s = s with { Fault = $"{s.Active} was found dead when the controller started" };
        Next next = Resumed();
        return next.Before([.. effects]);

        Next Resumed()
        {
            switch (was)
            {
                case Preparing p:
                    s = WaitingAgain(s, p.Run.Wish);
                    effects.Add(new Discard(p.Run.Number));
                    return WithUndo(p.Undo, keepWindow: false);
                case Gating g when Lives(g.Candidate) && (active is null || e.RedirectTo == active.Number):
                    return new Next(s with { Active = active }, [new Prove(g.Run, g.Candidate, Comparable(active, g.Run))]);
                case Gating g:
                    s = WaitingAgain(s, g.Run.Wish);
                    effects.Add(new Discard(g.Candidate.Number));
                    return OnActive();
                case Switching w when Lives(w.Candidate) && e.RedirectTo == w.Candidate.Number:
                    // The transaction was done and nobody was left to hear of it.
                    return Arrived(s with { Active = active }, w with { CandidateDied = false },
                        new Switched(e.At, w.Candidate.Number, new HoldReport("unknown", 0, 0, 0), null));
                case Switching w when Lives(w.Candidate):
                    return new Next(
                        s with { Active = active, Phase = new Gating(w.Run, w.Candidate) }, [new Prove(w.Run, w.Candidate, Comparable(active, w.Run))]);
                case Switching w:
                    s = WaitingAgain(s, w.Run.Wish);
                    effects.Add(new Discard(w.Candidate.Number));
                    return OnActive();
                case Watching w:
                    return WithUndo(w.Undo, keepWindow: true);
                case Returning r when Lives(r.Target):
                    return new Next(
                        s with { Phase = r with { LeftDied = active is null, TargetDied = false } }, [new Switch(r.Target, active)]);
                case Returning r:
                    effects.Add(new Discard(r.Target.Number));
                    return OnActive();
                case Cold:
                    return Begin(s, s.Pending ?? new FlipWish(FlipTrigger.Start, null, true, null, null, []), e.At, null);
                case Steady or Restoring or Faulted:
                    return OnActive();
                case Releasing { IsProven: true } r when e.RedirectTo is null:
                    // The transaction was done and nobody was left to hear of it.
                    return GivenBack(s with { Active = active }, r, new HoldReport("unknown", 0, 0, 0), null, e.At);
                case Releasing r when active is null || e.RedirectTo == active.Number:
                    UndoWindow? undo = Lives(r.Undo?.Previous) ? r.Undo : null;
                    return new Next(
                        s with { Active = active, Phase = r with { Undo = undo, IsProven = false } },
                        [.. undo is not null && active is not null ? [new Watch(undo, active)] : (Effect[])[],
                            .. active is null ? ToFallback(s) : [], new ProveFallback(r.Run, active)]);
                case Releasing r:
                    FlipRecord ended = Ended(r.Run, "failed", e.At, null, "the rules were gone when the controller started; they are set again");
                    s = s with { LastFlip = ended };
                    effects.Add(new Record(ended));
                    return WithUndo(r.Undo, keepWindow: false);
                case Released:
                    return new Next(s, [.. Unredirected()]);
                default:
                    throw new UnreachableException(was.Name);
            }
        }

        // A switch that nobody heard of, to a generation that is dead now.
        Effect[] Unredirected() => e.RedirectTo is null ? [] : [new ClearRedirect(null)];

        Next WithUndo(UndoWindow? undo, bool keepWindow)
        {
            bool warm = Lives(undo?.Previous);
            if (active is null && warm)
                return Return(s, undo!, "returned", $"{s.Active} was found dead when the controller started", [], true);
            if (active is not null && e.RedirectTo == active.Number && warm && keepWindow)
                return new Next(s with { Phase = new Watching(undo!) }, [new Watch(undo!, active)]);
            if (!warm) return OnActive();
            Next retired = RetireGeneration(s, undo!.Previous, e.At);
            s = retired.State;
            effects.AddRange(retired.Effects);
            return OnActive();
        }

        Next OnActive()
        {
            if (active is null && s.IsReleased) return Settle(s with { Active = null }, e.At).Before(Unredirected());
            if (active is null) return Revive(s, s.Fault ?? "nothing was found alive when the controller started", e.At);
            s = s with { Active = active };
            return e.RedirectTo == active.Number
                ? Settle(s, e.At)
                : new Next(s with { Phase = new Restoring(ActiveDied: false) }, [new Switch(active, null)]);
        }
    }
}
