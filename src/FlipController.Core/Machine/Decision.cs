using System.Collections.Immutable;

namespace FlipController.Core.Machine;

/// <summary>What the machine says to an event: a next state with ordered effects, or that it means nothing now, or no.</summary>
public abstract record Decision;

public sealed record Next(PairState State, ImmutableArray<Effect> Effects) : Decision;

public sealed record Ignored(string Why) : Decision;

public sealed record Denied(Refusal Refusal) : Decision;

/// <summary>The closed list of refusals.</summary>
public enum Refusal
{
    FlipUnderWay, ReturnUnderWay, NothingToReturnTo, ReleaseUnderWay, AlreadyReleased, NothingToRelease, BusyForRelease,
    BusyForDrain, DrainUnderWay, SlotHeld, NothingToCancel, NothingToHold,
}

public static class Refusals
{
    /// <summary>With the pair's name where a command is to be said.</summary>
    public static string Sentence(this Refusal refusal, string pair) => refusal.Sentence().Replace("PAIR", pair, StringComparison.Ordinal);

    public static string Sentence(this Refusal refusal) => refusal switch
    {
        Refusal.FlipUnderWay => "a flip is under way and has not moved anything yet; wait for it to end, then roll back",
        Refusal.ReturnUnderWay => "NEW connections are being returned to the previous generation already",
        Refusal.ReleaseUnderWay => "NEW connections are being given back to the unmanaged server; wait for that to end",
        Refusal.AlreadyReleased => "NEW connections go to the unmanaged server; say `flipctl adopt` to take them over again",
        Refusal.NothingToRelease => "nothing was ever started, so there is nothing to give back",
        Refusal.BusyForRelease => "a flip is under way; wait for it to end, then release",
        Refusal.BusyForDrain => "a flip is under way; wait for it to end, then drain",
        Refusal.DrainUnderWay => "another drain is under way (or the same without --hold-slot); wait for it to end, or say `flipctl drain PAIR --cancel`",
        Refusal.SlotHeld => "a slot is held for maintenance (flipctl drain --hold-slot), and the other one serves; say `flipctl undrain PAIR` first",
        Refusal.NothingToHold => "that generation is gone, and with it the slot it had; name the slot that is to be held",
        Refusal.NothingToCancel => "no drain is under way",
        Refusal.NothingToReturnTo => "there is no previous generation to return to",
    };
}

/// <summary>What the edge must do, in the order given. What can end in more than one way says how through an event.</summary>
public abstract record Effect;

/// <summary>Read the files, validate, render, start at low priority. Ends in Prepared or PrepareFailed.</summary>
/// <param name="MayTake">A front address may be one on which an unmanaged HAProxy listens.</param>
public sealed record Prepare(FlipRun Run, Generation? Active, bool MayTake = false) : Effect;

/// <summary>The gate. Ends in GatePassed or GateFailed. Replaces a proof of the same generation that is under way.</summary>
/// <param name="Against">The generation whose servers count for parity; null: there is none to compare with.</param>
public sealed record Prove(FlipRun Run, Generation Candidate, Generation? Against) : Effect;

/// <summary>Point the pair's one rule at a generation. Ends in Switched or SwitchFailed.</summary>
public sealed record Switch(Generation To, Generation? From) : Effect;

/// <summary>Find the unmanaged server, or start it, and have it prove itself. Ends in FallbackProven or FallbackFailed.</summary>
public sealed record ProveFallback(ReleaseRun Run, Generation? Active) : Effect;

/// <summary>Take the pair's one rule away. Ends in Cleared or ClearFailed.</summary>
public sealed record ClearRedirect(Generation? From) : Effect;

/// <summary>Look whether NEW connections are led to the active generation, and lead them there if they are not.</summary>
public sealed record Inspect(Generation Active) : Effect;

/// <summary>
/// Compare both sides until the undo window ends. Ends in UndoElapsed or WorseFound; stops by itself when either is gone.
/// </summary>
public sealed record Watch(UndoWindow Undo, Generation Current) : Effect;

/// <summary>Stop comparing.</summary>
public sealed record Unwatch : Effect;

/// <summary>Stop a generation that never got traffic and remove every trace of it. Nothing to remove is fine.</summary>
public sealed record Discard(int Number) : Effect;

/// <summary>
/// No new connections; the open ones finish. Arms the drain deadlines, which end in DrainDue, counted from <paramref name="Since"/>.
/// The same again, of a generation that leaves already, only sets its deadline, and stops a closing that is under way.
/// </summary>
/// <param name="ClosesAt">An operator's word for when what is left is closed; null: as configured.</param>
public sealed record Retire(Generation Generation, DateTimeOffset Since, DateTimeOffset? ClosesAt = null) : Effect;

/// <summary>End a retired generation: what is still connected to it is closed gently, then by its end.</summary>
public sealed record Close(Generation Generation, string Why) : Effect;

/// <summary>A retired generation is gone.</summary>
public sealed record Drained(Generation Generation) : Effect;

/// <summary>Write the flip to history, run its hooks, tell whoever watches. The same id again replaces the earlier outcome.</summary>
public sealed record Record(FlipRecord Flip) : Effect;

/// <summary>Answer the callers that wait.</summary>
public sealed record Answer(ImmutableArray<long> Requests, FlipRecord Flip) : Effect;

/// <summary>A drain has ended: tell whoever watches, and answer the callers that wait.</summary>
public sealed record AnswerDrain(ImmutableArray<long> Requests, DrainRecord Drain) : Effect;

/// <summary>Post RetryDue after a while that grows with <paramref name="Attempt"/>.</summary>
public sealed record RetryLater(int Attempt, int Ticket) : Effect;
