using System.Collections.Immutable;

namespace FlipController.Core.Machine;

/// <summary>The machine of one pair: pure, the only place that decides.</summary>
/// <remarks>
/// <code>
///   Cold ──► Preparing ──► Gating ──► Switching ──► Watching ──► Steady ──► (Preparing ...)
///                │            │           │             │
///                └── failed ──┴───────────┴─► Steady    └─ worse, dead, rollback ─► Returning ──► Steady
///                             (nothing moved)
///   Restoring: the kernel's rule is not what it should be; set again, then Steady.
///   Faulted:   nothing lives; Preparing again by itself, later and later, or at once when anything changes.
///   Steady, Watching, Faulted ── release ─► Releasing ── unmanaged server proven, rule gone ─► Released ── adopt ─► Preparing
/// </code>
/// How each step fails:
/// Preparing, Gating: the standby is discarded, the active generation is not touched, the reason is kept. When the active one
/// dies meanwhile the standby goes on, measured against nothing. Switching: a refused transaction changes nothing; a standby
/// that dies around it is left again at once. Watching: the new side dies or does worse and traffic returns; the previous dies
/// and the window is over. Returning: a refused transaction is tried again while both live. Releasing: an unmanaged server that
/// does not prove itself changes nothing. When what was adopted dies and nothing is warm, the rule goes first: NEW connections are
/// the unmanaged server's until another generation is proven. An event that makes no sense in a
/// state is ignored by name: a daemon that holds traffic must not crash on a surprise.
/// </remarks>
public static partial class PairMachine
{
    // Three deaths within a minute of the start each.
    private const int CrashLoop = 3;
    private static readonly TimeSpan s_young = TimeSpan.FromMinutes(1);

    public static Decision Decide(PairState s, PairEvent e)
    {
        Decision decision = Answered(s, e);
        return decision is Next next ? Concluded(next, e.At) : decision;
    }

    private static Decision Answered(PairState s, PairEvent e)
    {
        // Some events mean the same wherever the pair is.
        switch (e.Kind)
        {
            case PairEventKind.Restarted:
                return Resume(s, (Restarted)e);
            case PairEventKind.GenerationDied
                when s.Retired.FirstOrDefault(r => r.Generation.Number == ((GenerationDied)e).Number) is { } gone:
                return new Next(s with { Retired = s.Retired.Remove(gone) }, [new Drained(gone.Generation)]);
            case PairEventKind.RetryDue when ((RetryDue)e).Ticket != s.RetryTicket:
                return new Ignored("something else was begun since");
            case PairEventKind.RetryDue:
                s = s with { RetryTicket = null };
                break;
            case PairEventKind.DrainDue:
                return s.Retired.FirstOrDefault(r => r.Generation.Number == ((DrainDue)e).Number) is { } late
                    ? new Next(s, [new Close(late.Generation, "its drain deadline came")])
                    : new Ignored("that generation has drained");
            case PairEventKind.Prepared when s.Phase is not Preparing p || p.Run.Number != ((Prepared)e).Generation.Number:
                // The flip it was made for was given up while it started.
                return new Next(s, [new Discard(((Prepared)e).Generation.Number)]);
            case PairEventKind.DrainAsked:
                return Drain(s, (DrainAsked)e);
            case PairEventKind.DrainCancelled:
                return CancelDrain(s, (DrainCancelled)e);
            case PairEventKind.Undrained:
                return Undrain(s, (Undrained)e);
            case PairEventKind.RulesChanged:
                // Where the rule is being changed by ourselves, what it says is found out when that has ended.
                return s is { Active: { } active, Phase: Preparing or Gating or Watching or Steady or Releasing { IsProven: false } }
                    ? new Next(s, [new Inspect(active)])
                    : new Ignored("nothing is to be led anywhere, or that is being changed");
            case PairEventKind.FlipAsked when IsRefusedByHold(s, ((FlipAsked)e).Wish):
                return new Denied(Refusal.SlotHeld);
            case PairEventKind.RestraintChanged:
                return Restrain(s, (RestraintChanged)e);
            case PairEventKind.FlipAsked when s.Phase is Steady or Watching && !IsLive(s, ((FlipAsked)e).Wish)
                && ((FlipAsked)e).Wish.Trigger == FlipTrigger.Files && (IsBlocked(s) || IsHeldBack(s, ((FlipAsked)e).Wish)):
                return new Next(Waiting(s, ((FlipAsked)e).Wish), []);
            default:
                break;
        }
        return s.Phase.Kind switch
        {
            PhaseKind.Cold => InCold(s, e),
            PhaseKind.Preparing => InPreparing(s, (Preparing)s.Phase, e),
            PhaseKind.Gating => InGating(s, (Gating)s.Phase, e),
            PhaseKind.Switching => InSwitching(s, (Switching)s.Phase, e),
            PhaseKind.Watching => InWatching(s, (Watching)s.Phase, e),
            PhaseKind.Returning => InReturning(s, (Returning)s.Phase, e),
            PhaseKind.Restoring => InRestoring(s, (Restoring)s.Phase, e),
            PhaseKind.Steady => InSteady(s, e),
            PhaseKind.Faulted => InFaulted(s, e),
            PhaseKind.Releasing => InReleasing(s, (Releasing)s.Phase, e),
            PhaseKind.Released => InReleased(s, e),
        };
    }

    private static Decision InCold(PairState s, PairEvent e) => e switch
    {
        FlipAsked asked => Begin(s, asked.Wish, e.At, null),
        RollbackAsked => new Denied(Refusal.NothingToReturnTo),
        ReleaseAsked => new Denied(Refusal.NothingToRelease),
        _ => Meaningless(s, e),
    };

    private static Decision InPreparing(PairState s, Preparing phase, PairEvent e)
    {
        switch (e)
        {
            case FlipAsked asked:
                return Wait(s, asked.Wish);
            case Prepared prepared:
                // From here on the standby is the way forward, so the undo window of the flip before it ends.
                return RetireGeneration(s with { Phase = new Gating(phase.Run, prepared.Generation) }, phase.Undo?.Previous, e.At)
                    .Then(phase.Undo is null ? [] : [new Unwatch()])
                    .Then(new Prove(phase.Run, prepared.Generation, Comparable(s.Active, phase.Run)));
            case PrepareFailed failed when failed.Number == phase.Run.Number:
                return End(s, phase.Run, phase.Undo, failed.Unchanged ? null : failed.Why, e.At);
            case RollbackAsked asked when phase.Undo is { } undo && s.Active is not null:
                var given = Ended(phase.Run, "failed", e.At, null, "given up: an operator rolled back before it was ready");
                return Return(
                        s with { LastFlip = given }, undo, "rolled-back", asked.Reason ?? "an operator rolled back", [asked.Request], false)
                    .Before(new Record(given), new Answer(phase.Run.Wish.Requests, given));
            case RollbackAsked:
                return new Denied(Refusal.FlipUnderWay);
            case UndoElapsed elapsed when phase.Undo is { } undo && s.Active?.Number == elapsed.Number:
                return RetireGeneration(s with { Phase = phase with { Undo = null } }, undo.Previous, e.At).Before(new Unwatch());
            case GenerationDied died when died.Number == s.Active?.Number && phase.Undo is { } undo:
                // The previous one is warm: back at once; the change that was being prepared waits for that.
                return Return(WaitingAgain(s, phase.Run.Wish), undo, "returned", $"generation {died.Number} {died.How}", [], true);
            case GenerationDied died when died.Number == s.Active?.Number:
                return Deserted(s, died, []);
            case GenerationDied died when died.Number == phase.Undo?.Previous.Number:
                return new Next(s with { Phase = phase with { Undo = null } }, [new Unwatch()]);
            case ReleaseAsked:
                return new Denied(Refusal.BusyForRelease);
            default:
                // WorseFound: the watch repeats it while it holds, and Watching acts on it if this flip fails.
                return Meaningless(s, e);
        }
    }

    private static Decision InGating(PairState s, Gating phase, PairEvent e)
    {
        switch (e)
        {
            case FlipAsked asked:
                return Wait(s, asked.Wish);
            case RollbackAsked:
                return new Denied(Refusal.FlipUnderWay);
            case GatePassed passed when passed.Number == phase.Candidate.Number:
                return new Next(
                    s with { Phase = new Switching(phase.Run, phase.Candidate, false, passed.Fate) }, [new Switch(phase.Candidate, s.Active)]);
            case GateFailed failed when failed.Number == phase.Candidate.Number:
                return End(s, phase.Run, null, failed.Why, e.At).Before(new Discard(phase.Candidate.Number));
            case GenerationDied died when died.Number == phase.Candidate.Number:
                return End(s, phase.Run, null, $"generation {died.Number} {died.How} before it was proven", e.At)
                    .Before(new Discard(phase.Candidate.Number));
            case GenerationDied died when died.Number == s.Active?.Number:
                // Nothing to compare with any more, and nobody to wait for: the standby has only itself to prove.
                return Deserted(s, died, [new Prove(phase.Run, phase.Candidate, null)]);
            case ReleaseAsked:
                return new Denied(Refusal.BusyForRelease);
            default:
                return Meaningless(s, e);
        }
    }

    private static Decision InSwitching(PairState s, Switching phase, PairEvent e)
    {
        switch (e)
        {
            case FlipAsked asked:
                return Wait(s, asked.Wish);
            case RollbackAsked:
                return new Denied(Refusal.FlipUnderWay);
            case Switched switched when switched.Number == phase.Candidate.Number:
                return Arrived(s, phase, switched);
            case SwitchFailed failed when failed.Number == phase.Candidate.Number && s.Active is null && !phase.CandidateDied:
                // Only the standby lives: giving it up would leave nobody.
                return TryLater(s with { Fault = failed.Why });
            case SwitchFailed failed when failed.Number == phase.Candidate.Number:
                return End(s, phase.Run, null, failed.Why, e.At).Before(new Discard(phase.Candidate.Number));
            case RetryDue:
                return phase.CandidateDied
                    ? End(s, phase.Run, null, $"generation {phase.Candidate.Number} died before NEW connections could go to it", e.At)
                        .Before(new Discard(phase.Candidate.Number))
                    : new Next(s, [new Switch(phase.Candidate, s.Active)]);
            case GenerationDied died when died.Number == phase.Candidate.Number:
                return new Next(s with { Phase = phase with { CandidateDied = true } }, []);
            case GenerationDied died when died.Number == s.Active?.Number:
                return new Next(s with { Active = null, Fault = DeathFault(died) }, []);
            case ReleaseAsked:
                return new Denied(Refusal.BusyForRelease);
            default:
                return Meaningless(s, e);
        }
    }

    private static Decision InWatching(PairState s, Watching phase, PairEvent e)
    {
        UndoWindow undo = phase.Undo;
        switch (e)
        {
            case FlipAsked { Wish.Trigger: FlipTrigger.Adopt } asked when s is { IsAdopted: true, Active: { } served }:
                return Adopted(s, served, asked.Wish, e.At);
            case FlipAsked asked when IsLive(s, asked.Wish):
                return Live(s, asked.Wish);
            case FlipAsked asked:
                return Begin(s, asked.Wish, e.At, undo);
            case RollbackAsked asked:
                return Return(s, undo, "rolled-back", asked.Reason ?? "an operator rolled back", [asked.Request], false);
            case WorseFound worse when worse.Number == s.Active?.Number:
                return Return(s, undo, "returned", worse.Why, [], false);
            case GenerationDied died when died.Number == s.Active?.Number:
                return Return(s, undo, "returned", $"generation {died.Number} {died.How}", [], true);
            case FoundSilent silent when silent.Number == s.Active?.Number:
                return Return(s, undo, "returned", $"generation {silent.Number} {silent.How}", [], false);
            case GenerationDied died when died.Number == undo.Previous.Number:
                return new Next(s with { Phase = new Steady() }, [new Unwatch()]);
            case UndoElapsed elapsed when elapsed.Number == s.Active?.Number:
                return RetireGeneration(s with { Phase = new Steady() }, undo.Previous, e.At).Before(new Unwatch());
            case ReleaseAsked asked:
                return Release(s, asked, undo);
            default:
                return Meaningless(s, e);
        }
    }

    private static Decision InReturning(PairState s, Returning phase, PairEvent e)
    {
        switch (e)
        {
            case FlipAsked asked:
                return Wait(s, asked.Wish);
            case RollbackAsked:
                return new Denied(Refusal.ReturnUnderWay);
            case Switched switched when switched.Number == phase.Target.Number:
                return Returned(s, phase, switched);
            case SwitchFailed failed when failed.Number == phase.Target.Number && phase.TargetDied:
                return StayOrRevive(s, phase, failed.Why, e.At);
            case SwitchFailed failed when failed.Number == phase.Target.Number:
                return TryLater(s with { Fault = $"NEW connections cannot be returned to {phase.Target}: {failed.Why}" });
            case RetryDue:
                return phase.TargetDied
                    ? StayOrRevive(s, phase, $"{phase.Target} died before NEW connections could return to it", e.At)
                    : new Next(s, [new Switch(phase.Target, s.Active)]);
            case GenerationDied died when died.Number == phase.Target.Number:
                return new Next(s with { Phase = phase with { TargetDied = true } }, []);
            case GenerationDied died when died.Number == s.Active?.Number:
                return new Next(s with { Phase = phase with { LeftDied = true } }, []);
            case ReleaseAsked:
                return new Denied(Refusal.BusyForRelease);
            default:
                return Meaningless(s, e);
        }
    }

    private static Decision InRestoring(PairState s, Restoring phase, PairEvent e)
    {
        switch (e)
        {
            case FlipAsked asked:
                return Wait(s, asked.Wish);
            case RollbackAsked:
                return new Denied(Refusal.FlipUnderWay);
            case Switched or SwitchFailed when phase.ActiveDied:
                return Revive(s, s.Fault!, e.At);
            case Switched switched when switched.Number == s.Active?.Number:
                return Settle(s with { Fault = null, Attempts = 0 }, e.At);
            case SwitchFailed failed when failed.Number == s.Active?.Number:
                return TryLater(s with { Fault = failed.Why });
            case RetryDue when s.Active is { } active:
                return new Next(s, [new Switch(active, null)]);
            case GenerationDied died when died.Number == s.Active?.Number && s.RetryTicket is null:
                // The switch to it is ordered: never a second one before its answer.
                return new Next(s with { Fault = DeathFault(died), Phase = new Restoring(ActiveDied: true) }, []);
            case GenerationDied died when died.Number == s.Active?.Number:
                return Revive(s, DeathFault(died), e.At);
            case ReleaseAsked:
                return new Denied(Refusal.BusyForRelease);
            default:
                return Meaningless(s, e);
        }
    }

    private static Decision InSteady(PairState s, PairEvent e)
    {
        switch (e)
        {
            case FlipAsked { Wish.Trigger: FlipTrigger.Adopt } asked when s is { IsAdopted: true, Active: { } served }:
                return Adopted(s, served, asked.Wish, e.At);
            case FlipAsked asked when IsLive(s, asked.Wish):
                return Live(s, asked.Wish);
            case FlipAsked asked:
                return Begin(s, asked.Wish, e.At, null);
            case RollbackAsked asked:
                return LateRollback(s, asked);
            case GenerationDied died when died.Number == s.Active?.Number:
                return Crashed(s, s.Active, died);
            case FoundSilent silent when silent.Number == s.Active?.Number && IsBlocked(s):
                return new Next(s with { Fault = $"{SilenceFault(silent)} as soon as the slot that is held is free" }, []);
            case FoundSilent silent when silent.Number == s.Active?.Number:
                // Its connections are its own as long as it lives: another one is started beside it, and proven as ever.
                return Begin(s with { Fault = SilenceFault(silent) }, RevivalWish(s), e.At, null);
            case ReleaseAsked asked:
                return Release(s, asked, null);
            default:
                return Meaningless(s, e);
        }
    }

    private static Decision InFaulted(PairState s, PairEvent e) => e switch
    {
        FlipAsked asked => Begin(s, asked.Wish, e.At, null),
        RollbackAsked asked => LateRollback(s, asked),
        RetryDue => Begin(s, RevivalWish(s), e.At, null),
        ReleaseAsked asked => Release(s, asked, null),
        _ => Meaningless(s, e),
    };

    // ---- what the states share

    /// <summary>A flip starts. The undo window stays open until its standby is up.</summary>
    private static Next Begin(PairState s, FlipWish wish, DateTimeOffset at, UndoWindow? undo)
    {
        // Two places: the standby goes where the active one is not. A warm or retiring generation may still listen there;
        // its ports are left alone (see PortBlocks).
        Slot slot = (s.Active?.Slot ?? s.HeldSlot)?.Other() ?? Slot.Blue;
        // What runs again runs with the program it had.
        ChosenBinary? binary = wish.FromGeneration is null || wish.FromGeneration == s.LastGood ? wish.Binary ?? s.Binary
            : wish.FromGeneration == s.BeforeLast ? s.BeforeLastBinary : null;
        var run = new FlipRun(s.LastFlipId + 1, wish, s.LastNumber + 1, slot, s.Active?.Number, at, binary);
        return new Next(
            s with
            {
                LastNumber = run.Number, LastFlipId = run.Id, RetryTicket = null, Phase = new Preparing(run, undo),
                // What runs already is started again: a change that is held back goes on waiting.
                Pending = wish.FromGeneration is not null && IsHeldBack(s, s.Pending) ? s.Pending : null,
            },
            [new Prepare(run, s.Active, s.IsAdopted || wish.Trigger == FlipTrigger.Adopt)]);
    }

    private static PairState Waiting(PairState s, FlipWish wish) =>
        s with { Pending = s.Pending?.ReplacedBy(wish) ?? wish };

    /// <summary>A flip that had begun goes back to wait, behind no newer wish.</summary>
    private static PairState WaitingAgain(PairState s, FlipWish begun) =>
        s with { Pending = s.Pending is { } newer ? begun.ReplacedBy(newer) : begun };

    /// <summary>What is asked for has been done.</summary>
    private static Next Adopted(PairState s, Generation active, FlipWish wish, DateTimeOffset at) => new(s, [new Answer(wish.Requests,
        new FlipRecord(s.LastFlipId, "adopt", active.Number, active.Number, "unchanged", at, 0, null, wish.Reason, null))]);

    private static Next Wait(PairState s, FlipWish wish) => Joined(s, wish) ?? new Next(Waiting(s, wish), []);

    /// <summary>An adoption asked for while one is under way is that one.</summary>
    private static Next? Joined(PairState s, FlipWish wish)
    {
        if (wish.Trigger != FlipTrigger.Adopt) return null;
        FlipRun Both(FlipRun run) => run with { Wish = run.Wish with { Requests = run.Wish.Requests.AddRange(wish.Requests) } };
        return s.Phase switch
        {
            Preparing { Run.Wish.Trigger: FlipTrigger.Adopt } p => new Next(s with { Phase = p with { Run = Both(p.Run) } }, []),
            Gating { Run.Wish.Trigger: FlipTrigger.Adopt } g => new Next(s with { Phase = g with { Run = Both(g.Run) } }, []),
            Switching { Run.Wish.Trigger: FlipTrigger.Adopt } w => new Next(s with { Phase = w with { Run = Both(w.Run) } }, []),
            _ => null,
        };
    }

    /// <summary>
    /// The files hold what runs already, or what was just gone back from: nothing to do for a change seen on disk; an operator's
    /// word always counts.
    /// </summary>
    private static bool IsLive(PairState s, FlipWish wish) =>
        wish.Trigger == FlipTrigger.Files && wish.ContentSha256 is { } sha
        && s.Active is { } active && (sha == active.ContentSha256 || sha == s.LeftContent);

    private static Decision Live(PairState s, FlipWish wish)
    {
        // The bad change was taken back on disk: what was wrong is wrong no more.
        bool mended = s.Fault is not null && wish.ContentSha256 != s.LeftContent;
        // So was one that was held back: it waits no more.
        bool withdrawn = s.Pending is { Trigger: FlipTrigger.Files };
        if (!mended && !withdrawn) return new Ignored("the files hold what the active generation runs, or what was gone back from");
        return new Next(s with { Fault = mended ? null : s.Fault, Pending = withdrawn ? null : s.Pending }, []);
    }

    /// <summary>Of the change that waits, that of the files alone: nobody has said that it shall be.</summary>
    private static bool IsHeldBack(PairState s, FlipWish? wish) => wish is not null && s.Restraint?.HoldsBack(wish) == true;

    private static Decision Restrain(PairState s, RestraintChanged e)
    {
        if (e.Restraint == s.Restraint) return new Ignored("that is known");
        s = s with { Restraint = e.Restraint };
        return s.Phase is Steady or Watching or Faulted && Due(s) is { } wish ? Begin(s, wish, e.At, (s.Phase as Watching)?.Undo) : new Next(s, []);
    }

    /// <summary>A flip ended before it moved anything. <paramref name="why"/> null: there was nothing to change.</summary>
    private static Next End(PairState s, FlipRun run, UndoWindow? undo, string? why, DateTimeOffset at)
    {
        FlipRecord flip = Ended(run, why is null ? "unchanged" : "failed", at, null, why);
        ImmutableArray<Effect> told = why is null
            ? [new Answer(run.Wish.Requests, flip)]
            : [new Record(flip), new Answer(run.Wish.Requests, flip)];
        s = why is null ? s with { Fault = null } : s with { Fault = why, LastFlip = flip };
        if (s.Active is not null && undo is not null)
        {
            return Due(s) is { } wish ? Begin(s, wish, at, undo).Before([.. told])
                : new Next(Rested(s) with { Phase = new Watching(undo) }, told);
        }
        return Settle(s, at).Before([.. told]);
    }

    /// <summary>Nothing is under way: the waiting change begins, or the pair rests.</summary>
    private static Next Settle(PairState s, DateTimeOffset at)
    {
        if (s is { IsReleased: true, Active: null })
        {
            return s.Pending is { Trigger: FlipTrigger.Operator or FlipTrigger.Adopt } again
                ? Begin(s, again, at, null)
                : new Next(s with { Pending = null, Phase = new Released() }, []);
        }
        if (Due(s) is { } wish) return Begin(s, wish, at, null);
        s = Rested(s);
        return s.Active is not null
            ? new Next(s with { Phase = new Steady() }, [])
            : TryLater(s with { Phase = new Faulted() });
    }

    private static Next Arrived(PairState s, Switching phase, Switched e)
    {
        Generation? previous = s.Active;
        FlipRecord flip = Ended(phase.Run, "done", e.At, e.Hold, null) with
        {
            OldSideConnections = e.OldSideConnections, Carried = phase.Fate?.Carried, Lost = phase.Fate?.Lost,
        };
        ImmutableArray<Effect> told = [new Record(flip), new Answer(phase.Run.Wish.Requests, flip)];
        s = s with
        {
            Active = phase.Candidate, LastFlip = flip, Fault = null, Attempts = 0,
            Crashes = phase.Run.Wish.Trigger == FlipTrigger.Death ? s.Crashes : 0,
            // After a late rollback the files on disk still hold what was left: a restart must not take it up again.
            LeftContent = phase.Run.Wish.Trigger switch
            {
                FlipTrigger.Rollback => previous?.ContentSha256 ?? s.LeftContent,
                FlipTrigger.Drain => s.LeftContent,
                _ => null,
            },
            BeforeLast = previous?.Number ?? s.LastGood, LastGood = phase.Candidate.Number,
            Binary = phase.Run.Binary, BeforeLastBinary = s.Binary,
            IsAdopted = s.IsAdopted || phase.Run.Wish.Trigger == FlipTrigger.Adopt, IsReleased = false,
        };
        if (phase.CandidateDied)
        {
            string died = $"generation {phase.Candidate.Number} died while NEW connections were moved to it";
            return previous is null
                ? Revive(s, died, e.At).Before([.. told])
                : Return(s, new UndoWindow(phase.Run, previous, e.At), "returned", died, [], true).Before([.. told]);
        }
        if (previous is null) return Settle(s, e.At).Before([.. told]);
        // A way back to one that did not answer is none.
        if (IsLeftAtOnce(s, previous) || phase.Run.Wish.Trigger == FlipTrigger.Death)
        {
            Next left = RetireGeneration(s, previous, e.At);
            return Settle(left.State, e.At).Before([.. told, .. left.Effects]);
        }
        var undo = new UndoWindow(phase.Run, previous, e.At);
        Next next = Due(s) is { } wish
            ? Begin(s, wish, e.At, undo)
            : new Next(Rested(s) with { Phase = new Watching(undo) }, []);
        return next.Before([.. told, new Watch(undo, phase.Candidate)]);
    }

    private static Next Return(
        PairState s, UndoWindow undo, string outcome, string cause, ImmutableArray<long> requests, bool leftDied) =>
        new(s with { Phase = new Returning(undo.Run, undo.Previous, outcome, cause, requests, leftDied, false) },
            [new Unwatch(), new Switch(undo.Previous, s.Active)]);

    private static Next Returned(PairState s, Returning phase, Switched e)
    {
        Generation left = s.Active!;
        bool byItself = phase.Outcome == "returned";
        FlipRecord flip = Ended(phase.Run, phase.Outcome, e.At, e.Hold, phase.Cause) with
        {
            Reason = byItself ? phase.Run.Wish.Reason : phase.Cause,
            Error = byItself ? phase.Cause : null,
            OldSideConnections = e.OldSideConnections,
        };
        ImmutableArray<Effect> told = [new Record(flip), new Answer(phase.Requests, flip)];
        s = s with
        {
            Active = phase.Target, LastFlip = flip, LastGood = phase.Target.Number, BeforeLast = null, Attempts = 0,
            Binary = s.BeforeLastBinary, BeforeLastBinary = s.Binary,
            LeftContent = left.ContentSha256,
            Fault = byItself ? $"NEW connections went back to {phase.Target}: {phase.Cause}" : null,
        };
        if (phase.TargetDied && !phase.LeftDied)
            return new Next(
                s with
                {
                    Active = left, LastGood = left.Number, Binary = s.BeforeLastBinary, Phase = new Restoring(ActiveDied: false),
                    Fault = $"{phase.Target} died as NEW connections returned to it",
                },
                [.. told, new Switch(left, null)]);
        Next retired = phase.LeftDied
            ? new Next(s, [new Discard(left.Number)])
            : RetireGeneration(s, left, e.At);
        Next next = phase.TargetDied
            ? Revive(retired.State, $"{phase.Target} died as NEW connections returned to it", e.At)
            : Settle(retired.State, e.At);
        return next.Before([.. told, .. retired.Effects]);
    }

    /// <summary>
    /// The way back is gone: stay on the generation that was to be left, if it lives. The rule is set to it once more, because an
    /// earlier order to return may have been carried out without a restarted controller hearing of it.
    /// </summary>
    private static Next StayOrRevive(PairState s, Returning phase, string why, DateTimeOffset at)
    {
        FlipRecord flip = Ended(phase.Run, "done", at, null, why);
        s = s with { Fault = why, LastFlip = flip };
        Next next = phase.LeftDied
            ? Revive(s, why, at)
            : new Next(s with { Phase = new Restoring(ActiveDied: false) }, [new Switch(s.Active!, null)]);
        return next.Before(
            new Record(flip), new Answer(phase.Requests, flip with { Outcome = "failed" }), new Discard(phase.Target.Number));
    }

    private static string DeathFault(GenerationDied died) =>
        $"generation {died.Number}, which had the traffic, {died.How}; NEW connections wait for another to start";

    private static string SilenceFault(FoundSilent silent) =>
        $"generation {silent.Number}, which has the traffic, {silent.How}; another is started beside it";

    /// <summary>Whom the candidate is compared with: not one that does not answer.</summary>
    private static Generation? Comparable(Generation? active, FlipRun run) => run.Wish.Trigger == FlipTrigger.Death ? null : active;

    /// <summary>
    /// What dies young again and again is started later and later: each start costs the host what its clients need, and changes nothing.
    /// </summary>
    private static Next Crashed(PairState s, Generation active, GenerationDied died)
    {
        TimeSpan age = died.At - active.Since;
        s = s with { Crashes = age < s_young ? s.Crashes + 1 : 1 };
        if (s.Crashes < CrashLoop || s.Pending is not null) return Revive(s, DeathFault(died), died.At);
        string fault = $"crash loop: generation {died.Number}, which had the traffic, {died.How} {(int)age.TotalSeconds} s after its start, as {s.Crashes - 1} "
            + "in a row before it did; it is started again later and later, and at once when its files change";
        return TryLater(s with { Active = null, Fault = fault, Attempts = s.Crashes - CrashLoop, Phase = new Faulted() }).Before(ToFallback(s));
    }

    /// <summary>Nothing lives: what last did well is started again, unless a newer wish waits.</summary>
    private static Next Revive(PairState s, string fault, DateTimeOffset at)
    {
        s = s with { Active = null, Fault = fault };
        FlipWish wish = s.Pending is { } waits && !(IsHeldBack(s, waits) && s.LastGood is not null) ? waits : RevivalWish(s);
        return Begin(s, wish, at, null).Before(ToFallback(s));
    }

    /// <summary>The active one died, and another is on its way already.</summary>
    private static Next Deserted(PairState s, GenerationDied died, ReadOnlySpan<Effect> then) =>
        new(s with { Active = null, Fault = DeathFault(died) }, [.. ToFallback(s), .. then]);

    /// <summary>Where an unmanaged server still listens, NEW connections are its own until another generation is proven.</summary>
    private static Effect[] ToFallback(PairState s) => s.IsAdopted ? [new ClearRedirect(null)] : [];

    private static FlipWish RevivalWish(PairState s) =>
        new(FlipTrigger.Death, null, true, null, s.LastGood, []);

    private static Decision LateRollback(PairState s, RollbackAsked asked) => IsBlocked(s) ? new Denied(Refusal.SlotHeld)
        : s.BeforeLast is { } number
        ? Begin(s, new FlipWish(FlipTrigger.Rollback, asked.Reason, true, null, number, [asked.Request]), asked.At, null)
        : new Denied(Refusal.NothingToReturnTo);

    private static Next RetireGeneration(PairState s, Generation? generation, DateTimeOffset at)
    {
        if (generation is null) return new Next(s, []);
        DateTimeOffset? closesAt = s.Drain is { Wish.Deadline: { } deadline } order && order.Generations.Contains(generation.Number)
            ? at + deadline : null;
        ImmutableArray<RetiredGeneration> retired = s.Retired.Add(new RetiredGeneration(generation, at, closesAt));
        return new Next(s with { Retired = retired }, [new Retire(generation, at, closesAt), .. PastTheBound(s with { Retired = retired })]);
    }

    /// <summary>Past the bound the oldest goes; it stays listed until its process is gone.</summary>
    private static IEnumerable<Effect> PastTheBound(PairState s) => s.Retired.Take(Math.Max(0, s.Retired.Length - s.MaxRetired))
        .Select(r => new Close(r.Generation, $"more than {s.MaxRetired} retired generations (drain.max_retired)"));

    private static FlipRecord Ended(FlipRun run, string outcome, DateTimeOffset at, HoldReport? hold, string? error) =>
        new(run.Id, run.Wish.Trigger.ToString().ToLowerInvariant(), run.From, run.Number, outcome, run.Started,
            (long)(at - run.Started).TotalMilliseconds, hold, run.Wish.Reason, error);

    /// <summary>RetryDue comes after a while that grows with the attempts; the ticket tells it from one that was overtaken.</summary>
    private static Next TryLater(PairState s)
    {
        int attempt = s.Attempts + 1;
        int ticket = s.LastNumber * 1000 + attempt;
        return new Next(s with { Attempts = attempt, RetryTicket = ticket }, [new RetryLater(attempt, ticket)]);
    }

    private static Ignored Meaningless(PairState s, PairEvent e) => new($"{e.Kind} means nothing while {s.Phase.Name}");

    private static Next Before(this Next next, params ReadOnlySpan<Effect> effects) =>
        next with { Effects = [.. effects, .. next.Effects] };

    private static Next Then(this Next next, params ReadOnlySpan<Effect> effects) =>
        next with { Effects = [.. next.Effects, .. effects] };
}
