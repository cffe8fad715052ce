using System.Collections.Immutable;

namespace FlipController.Core.Machine;

public enum PairEventKind
{
    FlipAsked, RollbackAsked, Prepared, PrepareFailed, GatePassed, GateFailed, Switched, SwitchFailed,
    UndoElapsed, WorseFound, GenerationDied, DrainDue, RetryDue, Restarted,
    ReleaseAsked, FallbackProven, FallbackFailed, Cleared, ClearFailed,
    DrainAsked, DrainCancelled, Undrained, RulesChanged, FoundSilent, RestraintChanged,
}

/// <summary>Everything a pair can learn. Time, the results of effects and what a restart found enter here and nowhere else.</summary>
public abstract record PairEvent(DateTimeOffset At)
{
    public abstract PairEventKind Kind { get; }
}

public sealed record FlipAsked(DateTimeOffset At, FlipWish Wish) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.FlipAsked;
}

public sealed record RollbackAsked(DateTimeOffset At, string? Reason, long Request) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.RollbackAsked;
}

/// <summary>The active generation lives and answers nobody: it was stopped, or hangs.</summary>
/// <param name="How">What is seen of it, after "generation N".</param>
public sealed record FoundSilent(DateTimeOffset At, int Number, string How) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.FoundSilent;
}

/// <summary>NEW connections are to go to the unmanaged server again.</summary>
public sealed record ReleaseAsked(DateTimeOffset At, string? Reason, long Request, string? Unit = null) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.ReleaseAsked;
}

/// <summary>A slot or a generation is to be emptied and stopped, whatever its role.</summary>
public sealed record DrainAsked(DateTimeOffset At, DrainWish Wish) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.DrainAsked;
}

/// <summary>The drain under way is given up; what has been told to stop goes on leaving, as configured.</summary>
public sealed record DrainCancelled(DateTimeOffset At, string? Reason, long Request) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.DrainCancelled;
}

/// <summary>The held slot may be used again.</summary>
public sealed record Undrained(DateTimeOffset At, string? Reason, long Request) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.Undrained;
}

/// <summary>The unmanaged server listens on every front address and answers.</summary>
/// <param name="Id">The release it was asked for.</param>
public sealed record FallbackProven(DateTimeOffset At, int Id) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.FallbackProven;
}

public sealed record FallbackFailed(DateTimeOffset At, int Id, string Why) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.FallbackFailed;
}

/// <summary>The pair's rule is gone: NEW connections go to whoever listens on the front addresses.</summary>
public sealed record Cleared(DateTimeOffset At, HoldReport Hold, int? OldSideConnections) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.Cleared;
}

public sealed record ClearFailed(DateTimeOffset At, string Why) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.ClearFailed;
}

/// <summary>The standby is up: its process has daemonised, which HAProxy does after it has bound its listeners.</summary>
public sealed record Prepared(DateTimeOffset At, Generation Generation) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.Prepared;
}

/// <param name="Unchanged">Not a failure: the files hold what the active generation runs.</param>
public sealed record PrepareFailed(DateTimeOffset At, int Number, string Why, bool Unchanged = false) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.PrepareFailed;
}

/// <param name="Fate">What became of the changes made on the active one's admin socket; null: there are none.</param>
public sealed record GatePassed(DateTimeOffset At, int Number, RuntimeFate? Fate = null) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.GatePassed;
}

public sealed record GateFailed(DateTimeOffset At, int Number, string Why) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.GateFailed;
}

/// <param name="Number">The generation NEW connections go to now.</param>
public sealed record Switched(DateTimeOffset At, int Number, HoldReport Hold, int? OldSideConnections) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.Switched;
}

/// <summary>The transaction was refused as a whole: the kernel sends NEW connections where it did before.</summary>
public sealed record SwitchFailed(DateTimeOffset At, int Number, string Why) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.SwitchFailed;
}

/// <param name="Number">The generation whose undo window ends.</param>
public sealed record UndoElapsed(DateTimeOffset At, int Number) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.UndoElapsed;
}

/// <param name="Number">The generation that does worse than the one before it.</param>
public sealed record WorseFound(DateTimeOffset At, int Number, string Why) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.WorseFound;
}

public sealed record GenerationDied(DateTimeOffset At, int Number, string How) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.GenerationDied;
}

public sealed record DrainDue(DateTimeOffset At, int Number) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.DrainDue;
}

public sealed record RetryDue(DateTimeOffset At, int Ticket) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.RetryDue;
}

/// <summary>Whether a changed file flips the pair by itself is otherwise than before.</summary>
/// <param name="Restraint">Null: it does.</param>
public sealed record RestraintChanged(DateTimeOffset At, FlipRestraint? Restraint) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.RestraintChanged;
}

/// <summary>Something about our rules in the kernel changed, whoever did it.</summary>
public sealed record RulesChanged(DateTimeOffset At) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.RulesChanged;
}

/// <param name="Alive">
/// Numbers of the generations in the saved state whose process was found: pid, start time and admin socket agree.
/// </param>
/// <param name="RedirectTo">The generation the kernel's rule names; null when there is no rule.</param>
public sealed record Restarted(DateTimeOffset At, ImmutableHashSet<int> Alive, int? RedirectTo, int MaxRetired) : PairEvent(At)
{
    public override PairEventKind Kind => PairEventKind.Restarted;
}
