using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace FlipController.Core.Machine;

/// <summary>
/// Everything a pair knows that must outlive the controller: what is active, what drains, what is under way and what waits.
/// Saved before the effects of a decision run, so a restart finds the intent and compares it with what is.
/// </summary>
/// <param name="LastNumber">The highest generation number handed out; numbers are never used again.</param>
/// <param name="LastFlipId">The highest flip id handed out.</param>
/// <param name="Active">The generation that gets NEW connections; null when none lives.</param>
/// <param name="Retired">Soft-stopped, with open connections; oldest first.</param>
/// <param name="Pending">The newest change that waits for the flip under way to end.</param>
/// <param name="LastGood">
/// The generation last switched to and not returned from: its configuration starts again when all else fails.
/// </param>
/// <param name="BeforeLast">The generation that was active before <paramref name="Active"/>: what a late rollback starts again.</param>
/// <param name="LeftContent">What the generation ran that traffic went back from: seen on disk, it does not flip by itself again.</param>
/// <param name="Fault">What is wrong now, in one sentence.</param>
/// <param name="Binary">What an operator chose for the active generation instead of the configured program; null: nothing.</param>
/// <param name="BeforeLastBinary">The same for <paramref name="BeforeLast"/>.</param>
/// <param name="IsAdopted">
/// NEW connections were taken over from an unmanaged server: it may listen on the front addresses, and gets them while nothing of
/// ours lives.
/// </param>
/// <param name="IsReleased">NEW connections were given back: nothing starts by itself until an operator says so.</param>
/// <param name="Drain">What an operator wants emptied, until it is.</param>
/// <param name="HeldSlot">Nothing starts there until an operator says so.</param>
/// <param name="Attempts">Consecutive tries to get out of a fault; their spacing grows with it.</param>
/// <param name="RetryTicket">The next try that counts; null: none is awaited.</param>
/// <param name="Crashes">How many generations died young, one after the other, with nothing else changed in between.</param>
/// <param name="Restraint">Why a changed file does not flip by itself now; null: it does.</param>
public sealed record PairState(
    string Pair, int LastNumber, int LastFlipId, Generation? Active, ImmutableArray<RetiredGeneration> Retired, FlipWish? Pending,
    FlipRecord? LastFlip, int? LastGood, int? BeforeLast, string? LeftContent, string? Fault,
    int Attempts, int? RetryTicket, int MaxRetired, Phase Phase, ChosenBinary? Binary = null, ChosenBinary? BeforeLastBinary = null,
    bool IsAdopted = false, bool IsReleased = false, int LastDrainId = 0, DrainOrder? Drain = null, Slot? HeldSlot = null, int Crashes = 0,
    FlipRestraint? Restraint = null)
{
    public static PairState Initial(string pair) =>
        new(pair, 0, 0, null, [], null, null, null, null, null, null, 0, null, 4, new Cold());

    /// <summary>Every generation whose process should be alive.</summary>
    [JsonIgnore]
    public IEnumerable<Generation> Generations => Warm.Concat(Retired.Select(r => r.Generation)).DistinctBy(g => g.Number);

    /// <summary>The same by a clock that is so much ahead: deadlines count from moments, and the clock that told them was set.</summary>
    public PairState Shifted(TimeSpan by) => this with
    {
        Active = Active?.Shifted(by),
        Retired = [.. Retired.Select(r => new RetiredGeneration(r.Generation.Shifted(by), r.At + by, r.ClosesAt + by))],
        Drain = Drain is null ? null : Drain with { Started = Drain.Started + by },
        Phase = Phase.Shifted(by),
    };

    /// <summary>Why the change that waits does not begin though nothing is under way; null: none waits, or it may.</summary>
    [JsonIgnore]
    public string? HeldBack => Pending is { } wish && Restraint?.HoldsBack(wish) == true ? Restraint.Why : null;

    /// <summary>Those that NEW connections go to, or may go to next.</summary>
    [JsonIgnore]
    public IEnumerable<Generation> Warm => new[] { Active, Phase.Standby, Phase.Previous }.OfType<Generation>();
}

/// <param name="At">When it was told to stop: the drain deadline counts from here.</param>
/// <param name="ClosesAt">An operator's word for when what is left is closed; null: as configured.</param>
public sealed record RetiredGeneration(Generation Generation, DateTimeOffset At, DateTimeOffset? ClosesAt = null);

/// <summary>What an operator wants emptied. Both null: the previous generation, else every retired one.</summary>
/// <param name="Deadline">How long what is connected may stay; null: as configured.</param>
/// <param name="Hold">Then nothing starts in its slot.</param>
/// <param name="SkipUndo">The side that is left gets no undo window.</param>
public sealed record DrainWish(
    Slot? Slot, int? Generation, TimeSpan? Deadline, bool Hold, bool SkipUndo, string? Reason, ImmutableArray<long> Requests);

/// <summary>A drain under way: the wish and what it was given.</summary>
/// <param name="Generations">Those that must be gone for it to have ended.</param>
/// <param name="HeldBefore">The slot that was held already when it was asked for.</param>
public sealed record DrainOrder(
    int Id, DrainWish Wish, ImmutableArray<int> Generations, DateTimeOffset Started, Slot? HeldBefore = null);

public enum FlipTrigger { Start, Files, Operator, Rollback, Death, Adopt, Drain }

/// <summary>No changed file flips the pair by itself, as long as one of its generations serves. An operator's word always counts.</summary>
/// <param name="Why">In words that may follow "as".</param>
/// <param name="Except">Files that hold this do: they are proven elsewhere.</param>
public sealed record FlipRestraint(string Why, string? Except = null)
{
    public bool HoldsBack(FlipWish wish) => wish.Trigger == FlipTrigger.Files && (Except is null || wish.ContentSha256 != Except);
}

/// <summary>The program of a generation where it is not the configured one.</summary>
/// <param name="InsteadOf">What the configuration named then: once it names another program the choice is over.</param>
public sealed record ChosenBinary(string Path, string InsteadOf);

/// <summary>A flip somebody wants.</summary>
/// <param name="ContentSha256">For <see cref="FlipTrigger.Files"/>: what the files held when the change was seen.</param>
/// <param name="FromGeneration">Start the configuration this generation ran with, instead of the one on disk.</param>
/// <param name="Requests">Callers who wait for the outcome.</param>
/// <param name="Binary">Another program than the one that runs; null: the same.</param>
public sealed record FlipWish(
    FlipTrigger Trigger, string? Reason, bool AllowDrop, string? ContentSha256, int? FromGeneration, ImmutableArray<long> Requests,
    ChosenBinary? Binary = null)
{
    /// <summary>The newer wish wins; whoever waits for the older one gets the answer of the newer.</summary>
    public FlipWish ReplacedBy(FlipWish newer) => newer with
    {
        Requests = Requests.AddRange(newer.Requests),
        // A file change must not turn an operator's explicit flip into one that is skipped when the content is the same.
        Trigger = Trigger == FlipTrigger.Adopt || newer.Trigger == FlipTrigger.Adopt ? FlipTrigger.Adopt
            : Trigger == FlipTrigger.Operator ? FlipTrigger.Operator : newer.Trigger,
        Binary = newer.Binary ?? Binary,
        AllowDrop = newer.Trigger == FlipTrigger.Files ? AllowDrop : newer.AllowDrop,
        FromGeneration = newer.FromGeneration,
    };
}

/// <summary>A flip under way: the wish and what it was given.</summary>
/// <param name="Binary">The program to start instead of the configured one; null: the configured one.</param>
public sealed record FlipRun(
    int Id, FlipWish Wish, int Number, Slot Slot, int? From, DateTimeOffset Started, ChosenBinary? Binary = null)
{
    public FlipRun Shifted(TimeSpan by) => this with { Started = Started + by };
}

/// <summary>A release under way.</summary>
/// <param name="Unit">The systemd unit to start when nobody listens; null: what was adopted.</param>
public sealed record ReleaseRun(
    int Id, string? Reason, ImmutableArray<long> Requests, int? From, DateTimeOffset Started, string? Unit = null);

/// <summary>The undo window: the previous generation is warm, one transaction away.</summary>
public sealed record UndoWindow(FlipRun Run, Generation Previous, DateTimeOffset Since)
{
    public UndoWindow Shifted(TimeSpan by) => new(Run.Shifted(by), Previous.Shifted(by), Since + by);
}

[JsonConverter(typeof(JsonStringEnumConverter<PhaseKind>))]
public enum PhaseKind { Cold, Preparing, Gating, Switching, Watching, Returning, Restoring, Steady, Faulted, Releasing, Released }

/// <summary>Where a pair is. Each phase carries only what it alone knows.</summary>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "phase")]
[JsonDerivedType(typeof(Cold), "cold")]
[JsonDerivedType(typeof(Preparing), "preparing")]
[JsonDerivedType(typeof(Gating), "gating")]
[JsonDerivedType(typeof(Switching), "switching")]
[JsonDerivedType(typeof(Watching), "watching")]
[JsonDerivedType(typeof(Returning), "returning")]
[JsonDerivedType(typeof(Restoring), "restoring")]
[JsonDerivedType(typeof(Steady), "steady")]
[JsonDerivedType(typeof(Faulted), "faulted")]
[JsonDerivedType(typeof(Releasing), "releasing")]
[JsonDerivedType(typeof(Released), "released")]
public abstract record Phase
{
    [JsonIgnore] public abstract PhaseKind Kind { get; }
    /// <summary>The generation being proven or switched to.</summary>
    [JsonIgnore] public virtual Generation? Standby => null;
    /// <summary>The generation that traffic can be returned to.</summary>
    [JsonIgnore] public virtual Generation? Previous => null;
    [JsonIgnore] public string Name => Kind.ToString().ToLowerInvariant();

    /// <inheritdoc cref="PairState.Shifted"/>
    public Phase Shifted(TimeSpan by) => this switch
    {
        Preparing p => new Preparing(p.Run.Shifted(by), p.Undo?.Shifted(by)),
        Gating g => new Gating(g.Run.Shifted(by), g.Candidate.Shifted(by)),
        Switching w => w with { Run = w.Run.Shifted(by), Candidate = w.Candidate.Shifted(by) },
        Watching w => new Watching(w.Undo.Shifted(by)),
        Returning r => r with { Run = r.Run.Shifted(by), Target = r.Target.Shifted(by) },
        Releasing r => r with { Run = r.Run with { Started = r.Run.Started + by }, Undo = r.Undo?.Shifted(by) },
        _ => this,
    };
}

/// <summary>Nothing was ever started.</summary>
public sealed record Cold : Phase { public override PhaseKind Kind => PhaseKind.Cold; }

/// <summary>Validating, rendering, starting the standby. An undo window that was open stays open until the standby is up.</summary>
public sealed record Preparing(FlipRun Run, UndoWindow? Undo) : Phase
{
    public override PhaseKind Kind => PhaseKind.Preparing;
    public override Generation? Previous => Undo?.Previous;
}

public sealed record Gating(FlipRun Run, Generation Candidate) : Phase
{
    public override PhaseKind Kind => PhaseKind.Gating;
    public override Generation? Standby => Candidate;
}

/// <param name="CandidateDied">It died after the switch was ordered; what the order's answer is decides what follows.</param>
/// <param name="Fate">Kept for the flip's record.</param>
public sealed record Switching(FlipRun Run, Generation Candidate, bool CandidateDied, RuntimeFate? Fate = null) : Phase
{
    public override PhaseKind Kind => PhaseKind.Switching;
    public override Generation? Standby => Candidate;
}

public sealed record Watching(UndoWindow Undo) : Phase
{
    public override PhaseKind Kind => PhaseKind.Watching;
    public override Generation? Previous => Undo.Previous;
}

/// <summary>Going back to the previous generation: by itself, or because an operator said so.</summary>
/// <param name="Outcome">returned or rolled-back.</param>
/// <param name="LeftDied">The generation being left is dead already.</param>
/// <param name="TargetDied">It died after the switch back was ordered.</param>
public sealed record Returning(
    FlipRun Run, Generation Target, string Outcome, string Cause, ImmutableArray<long> Requests, bool LeftDied, bool TargetDied) : Phase
{
    public override PhaseKind Kind => PhaseKind.Returning;
    public override Generation? Previous => Target;
}

/// <summary>
/// The kernel's rule is not what it should be (lost, or left pointing elsewhere): it is set to the active generation again.
/// </summary>
/// <param name="ActiveDied">It died after the switch to it was ordered.</param>
public sealed record Restoring(bool ActiveDied) : Phase { public override PhaseKind Kind => PhaseKind.Restoring; }

public sealed record Steady : Phase { public override PhaseKind Kind => PhaseKind.Steady; }

/// <summary>No generation lives. Tried again by itself, and at once when anything changes.</summary>
public sealed record Faulted : Phase { public override PhaseKind Kind => PhaseKind.Faulted; }

/// <summary>The unmanaged server must prove itself; then NEW connections are given back to it.</summary>
/// <param name="Undo">An undo window that was open stays open until then.</param>
/// <param name="IsProven">It has, and the redirect is being taken away.</param>
public sealed record Releasing(ReleaseRun Run, UndoWindow? Undo, bool IsProven) : Phase
{
    public override PhaseKind Kind => PhaseKind.Releasing;
    public override Generation? Previous => Undo?.Previous;
}

/// <summary>An unmanaged server has the NEW connections; what is connected to ours finishes.</summary>
public sealed record Released : Phase { public override PhaseKind Kind => PhaseKind.Released; }

[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, UseStringEnumConverter = true,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(PairState))]
public sealed partial class PairStateJson : JsonSerializerContext;
