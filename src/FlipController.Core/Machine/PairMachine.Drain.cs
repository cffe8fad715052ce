using System.Collections.Immutable;

namespace FlipController.Core.Machine;

/// <summary>Emptying a slot or a generation by hand.</summary>
/// <remarks>
/// A drain is no state of its own: it is an order beside the state, which is done when none of its generations lives, and has failed
/// when the pair comes to rest with one of them active. What is active is left first, by a flip to the configuration it runs; the
/// previous one is retired at once; what is retired already only gets another deadline.
/// </remarks>
public static partial class PairMachine
{
    private static Decision Drain(PairState s, DrainAsked asked)
    {
        DrainWish wish = asked.Wish;
        ImmutableArray<int> targets = TargetsOf(s, wish);
        if (s.Drain is { } running) return IsTheSame(s, running, wish, targets) ? Joined(s, running, asked) : new Denied(Refusal.DrainUnderWay);
        bool leavesActive = s.Active is { } active && targets.Contains(active.Number);
        bool leavesPrevious = s.Phase.Previous is { } previous && targets.Contains(previous.Number);
        bool atRest = s.Phase is Steady or Watching;
        bool standsBy = s.Phase.Standby is { } standby && targets.Contains(standby.Number);
        if (standsBy || ((leavesActive || leavesPrevious) && !atRest)) return new Denied(Refusal.BusyForDrain);
        Slot? slot = wish.Slot ?? s.Generations.FirstOrDefault(g => targets.Contains(g.Number))?.Slot;
        if (wish.Hold && slot is null) return new Denied(Refusal.NothingToHold);
        if (wish.Hold && !atRest && s.Phase is not (Released or Faulted)) return new Denied(Refusal.BusyForDrain);
        // Its other slot is shut: nobody could take over.
        if ((leavesActive || wish.Hold) && s.HeldSlot is { } held && held != slot) return new Denied(Refusal.SlotHeld);

        var order = new DrainOrder(s.LastDrainId + 1, wish, targets, asked.At, s.HeldSlot);
        s = s with { LastDrainId = order.Id, Drain = order, HeldSlot = wish.Hold ? slot : s.HeldSlot };
        Next next = WithDeadline(s, order, asked.At);
        s = next.State;
        if (leavesActive)
        {
            // Connections move, the configuration does not: what stands on disk now may be anything.
            var move = new FlipWish(FlipTrigger.Drain, wish.Reason, true, null, s.Active!.Number, []);
            return Begin(s, move, asked.At, (s.Phase as Watching)?.Undo).Before([.. next.Effects]);
        }
        if (!leavesPrevious) return next;
        Next retired = RetireGeneration(s with { Phase = new Steady() }, s.Phase.Previous, asked.At);
        return retired.Before([.. next.Effects, new Unwatch()]);
    }

    private static ImmutableArray<int> TargetsOf(PairState s, DrainWish wish)
    {
        if (wish.Slot is { } slot) return [.. s.Generations.Where(g => g.Slot == slot).Select(g => g.Number).Order()];
        if (wish.Generation is { } number) return [.. s.Generations.Select(g => g.Number).Where(n => n == number)];
        if (s.Phase.Previous is { } previous) return [previous.Number];
        return [.. s.Retired.Select(r => r.Generation.Number).Order()];
    }

    /// <summary>The same words, or the same generations as far as they are still there. What it holds is no less than what is asked for.</summary>
    private static bool IsTheSame(PairState s, DrainOrder running, DrainWish wish, ImmutableArray<int> targets)
    {
        if (wish.Hold && !running.Wish.Hold) return false;
        return (wish.Slot, wish.Generation) == (running.Wish.Slot, running.Wish.Generation)
            || targets.SequenceEqual(running.Generations.Where(n => s.Generations.Any(g => g.Number == n)));
    }

    /// <summary>The same asked for once more: whoever asks gets the same answer, and the newer deadline counts.</summary>
    private static Next Joined(PairState s, DrainOrder running, DrainAsked asked)
    {
        DrainOrder both = running with
        {
            Wish = running.Wish with
            {
                Requests = running.Wish.Requests.AddRange(asked.Wish.Requests), Deadline = asked.Wish.Deadline ?? running.Wish.Deadline,
                SkipUndo = running.Wish.SkipUndo || asked.Wish.SkipUndo,
            },
        };
        s = s with { Drain = both };
        Next next = asked.Wish.Deadline is null ? new Next(s, []) : WithDeadline(s, both, asked.At);
        if (!asked.Wish.SkipUndo || s.Phase is not Watching { Undo.Previous: { } previous } || !both.Generations.Contains(previous.Number))
            return next;
        Next retired = RetireGeneration(next.State with { Phase = new Steady() }, previous, asked.At);
        return retired.Before([.. next.Effects, new Unwatch()]);
    }

    /// <summary>Those that leave already get the order's deadline, counted from now.</summary>
    private static Next WithDeadline(PairState s, DrainOrder order, DateTimeOffset at) => order.Wish.Deadline is { } deadline
        ? Rearmed(s, r => order.Generations.Contains(r.Generation.Number), at + deadline)
        : new Next(s, []);

    private static Next Rearmed(PairState s, Func<RetiredGeneration, bool> which, DateTimeOffset? closesAt)
    {
        RetiredGeneration[] rearmed = [.. s.Retired.Where(which).Select(r => r with { ClosesAt = closesAt })];
        s = s with { Retired = [.. s.Retired.Select(r => which(r) ? r with { ClosesAt = closesAt } : r)] };
        HashSet<int> numbers = [.. rearmed.Select(r => r.Generation.Number)];
        // What is closed because there are too many goes on being closed.
        return new Next(s, [.. rearmed.Select(r => new Retire(r.Generation, r.At, r.ClosesAt)),
            .. PastTheBound(s).Where(e => numbers.Contains(((Close)e).Generation.Number))]);
    }

    private static Decision CancelDrain(PairState s, DrainCancelled asked)
    {
        if (s.Drain is not { } order) return new Denied(Refusal.NothingToCancel);
        order = order with { Wish = order.Wish with { Requests = order.Wish.Requests.Add(asked.Request) } };
        Next given = EndDrain(s, order, "cancelled", asked.Reason, asked.At);
        s = given.State;
        // Its flip has not moved anything: it is given up, which is no fault. Once it has, the undo window is the way back.
        const string cancelled = "its drain was cancelled";
        Next? givenUp = s.Phase switch
        {
            Preparing { Run.Wish.Trigger: FlipTrigger.Drain } p => End(s, p.Run, p.Undo, cancelled, asked.At),
            Gating { Run.Wish.Trigger: FlipTrigger.Drain } g => End(s, g.Run, null, cancelled, asked.At).Before(new Discard(g.Candidate.Number)),
            _ => null,
        };
        Next next = givenUp is null ? new Next(s, []) : givenUp with { State = givenUp.State with { Fault = null } };
        Next rearmed = order.Wish.Deadline is null ? new Next(next.State, [])
            : Rearmed(next.State, r => order.Generations.Contains(r.Generation.Number), null);
        return rearmed.Before([.. given.Effects, .. next.Effects]);
    }

    private static Next Undrain(PairState s, Undrained asked)
    {
        bool held = s.HeldSlot is not null;
        s = s with { HeldSlot = null };
        var record = new DrainRecord(s.LastDrainId, null, [], held ? "undrained" : "unchanged", asked.At, 0, 0, asked.Reason, null);
        Next next = s.Phase switch
        {
            Steady => Settle(s, asked.At),
            Watching w when Due(s) is { } wish => Begin(s, wish, asked.At, w.Undo),
            _ => new Next(s, []),
        };
        return next.Then(new AnswerDrain([asked.Request], record));
    }

    /// <summary>Every step of the pair may be the last one of a drain.</summary>
    private static Next Concluded(Next next, DateTimeOffset at)
    {
        PairState s = next.State;
        if (s.Drain is not { } order) return next;
        if (!s.Generations.Any(g => order.Generations.Contains(g.Number)))
            return EndDrain(s, order, order.Generations.IsEmpty ? "unchanged" : "drained", null, at).Before([.. next.Effects]);
        if (s.Phase is Steady or Watching && s.Active is { } active && order.Generations.Contains(active.Number))
            return EndDrain(s, order, "failed", s.LastFlip?.Error ?? s.LastFlip?.Reason ?? s.Fault, at).Before([.. next.Effects]);
        return next;
    }

    private static Next EndDrain(PairState s, DrainOrder order, string outcome, string? error, DateTimeOffset at)
    {
        bool keepsHold = outcome is "drained" or "unchanged" || !order.Wish.Hold;
        s = s with { Drain = null, HeldSlot = keepsHold ? s.HeldSlot : order.HeldBefore };
        Next next = new(s, [new AnswerDrain(order.Wish.Requests, Record(order, outcome, error, at))]);
        // A change that waited for the held slot begins.
        return !keepsHold && s.Phase is Steady && Due(s) is { } wish ? Begin(s, wish, at, null).Before([.. next.Effects]) : next;
    }

    private static DrainRecord Record(DrainOrder order, string outcome, string? error, DateTimeOffset at) =>
        new(order.Id, order.Wish.Slot, order.Generations, outcome, order.Started, (long)(at - order.Started).TotalMilliseconds, 0,
            order.Wish.Reason, error);

    /// <summary>A standby would have to go where nothing may start.</summary>
    private static bool IsBlocked(PairState s) => s.HeldSlot is { } held && s.Active is { } active && active.Slot != held;

    private static bool IsRefusedByHold(PairState s, FlipWish wish) =>
        s.HeldSlot is not null && wish.Trigger is FlipTrigger.Operator or FlipTrigger.Adopt
        && s.Phase is not (Cold or Faulted or Released)
        && !(wish.Trigger == FlipTrigger.Adopt && s is { IsAdopted: true, Active: not null, Phase: Steady or Watching });

    private static bool IsLeftAtOnce(PairState s, Generation previous) =>
        s.Drain is { Wish.SkipUndo: true } order && order.Generations.Contains(previous.Number);

    /// <summary>The change that waits and may begin now.</summary>
    private static FlipWish? Due(PairState s) =>
        s.Pending is { } wish && !IsLive(s, wish) && !IsBlocked(s) && !IsHeldBack(s, wish) && !IsMovedAlready(s, wish) ? wish : null;

    /// <summary>What a flip would be made for has left, or the drain is over.</summary>
    private static bool IsMovedAlready(PairState s, FlipWish wish) => wish.Trigger == FlipTrigger.Drain
        && (s.Active is null || s.Drain?.Generations.Contains(s.Active.Number) != true);

    /// <summary>Only a change that a held slot or keepalived's state keeps waiting goes on waiting.</summary>
    private static PairState Rested(PairState s) =>
        s.Pending is { Trigger: FlipTrigger.Files } wish && (IsBlocked(s) || IsHeldBack(s, wish)) && !IsLive(s, wish) ? s : s with { Pending = null };
}
