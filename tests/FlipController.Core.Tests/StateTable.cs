using System.Text;
using FlipController.Core.Machine;

namespace FlipController.Core.Tests;

/// <summary>The table of state × event, asked from the machine itself: one typical state of each kind, one event of each kind.</summary>
internal static class StateTable
{
    private static readonly DateTimeOffset s_now = DateTimeOffset.UnixEpoch;
    private static readonly Generation s_one = Made(1, Slot.Blue), s_two = Made(2, Slot.Green), s_retired = Made(9, Slot.Blue);
    private static readonly FlipWish s_wish = new(FlipTrigger.Operator, null, false, null, null, []);
    private static readonly FlipRun s_run = new(2, s_wish, 2, Slot.Green, 1, s_now);
    private static readonly HoldReport s_hold = new("none", 90, 0, 0);

    private static Generation Made(int number, Slot slot) =>
        new(number, slot, 1000 + number, 1, "boot", $"sha-{number}", $"sha-{number}", s_now, [], number, "2.6");

    private static PairState With(Generation? active, Phase phase) => PairState.Initial("edge") with
    {
        LastNumber = 9, LastFlipId = 9, Active = active, LastGood = active?.Number, Phase = phase, RetryTicket = 1,
        Retired = [new RetiredGeneration(s_retired, s_now)],
    };

    private static readonly PairState[] s_states =
    [
        With(null, new Cold()),
        With(s_one, new Preparing(s_run, null)),
        With(s_one, new Gating(s_run, s_two)),
        With(s_one, new Switching(s_run, s_two, false)),
        With(s_two, new Watching(new UndoWindow(s_run, s_one, s_now))),
        With(s_two, new Returning(s_run, s_one, "returned", "worse", [], false, false)),
        With(s_one, new Restoring(false)),
        With(s_one, new Steady()),
        With(null, new Faulted()) with { LastGood = 1 },
        With(s_one, new Releasing(new ReleaseRun(9, null, [], 1, s_now), null, false)),
        With(s_one, new Releasing(new ReleaseRun(9, null, [], 1, s_now), null, true)),
        With(null, new Released()) with { LastGood = 1, IsReleased = true },
    ];

    private static readonly (string Name, Func<PairState, PairEvent?> Make)[] s_events =
    [
        ("flip asked", _ => new FlipAsked(s_now, s_wish)),
        ("files hold what runs", s => new FlipAsked(s_now, s_wish with { Trigger = FlipTrigger.Files, ContentSha256 = s.Active?.ContentSha256 ?? "sha-0" })),
        ("rollback asked", _ => new RollbackAsked(s_now, null, 1)),
        ("standby is up", _ => new Prepared(s_now, s_two)),
        ("standby cannot be made", _ => new PrepareFailed(s_now, 2, "why")),
        ("gate passed", _ => new GatePassed(s_now, 2)),
        ("gate failed", _ => new GateFailed(s_now, 2, "why")),
        ("switched", s => new Switched(s_now, Target(s), s_hold, 0)),
        ("switch refused", s => new SwitchFailed(s_now, Target(s), "why")),
        ("undo window over", s => new UndoElapsed(s_now, s.Active?.Number ?? 0)),
        ("new side is worse", s => new WorseFound(s_now, s.Active?.Number ?? 0, "why")),
        ("active died", s => s.Active is { } a ? new GenerationDied(s_now, a.Number, "died") : null),
        ("active is silent", s => s.Active is { } a ? new FoundSilent(s_now, a.Number, "does not answer") : null),
        ("standby died", s => s.Phase.Standby is { } g ? new GenerationDied(s_now, g.Number, "died") : null),
        ("previous died", s => s.Phase.Previous is { } g ? new GenerationDied(s_now, g.Number, "died") : null),
        ("release asked", _ => new ReleaseAsked(s_now, null, 1)),
        ("unmanaged server is proven", _ => new FallbackProven(s_now, 9)),
        ("unmanaged server is not", _ => new FallbackFailed(s_now, 9, "why")),
        ("rule is gone", _ => new Cleared(s_now, s_hold, 0)),
        ("rule cannot be taken away", _ => new ClearFailed(s_now, "why")),
        ("drain of the active one's slot asked", s => Drain(s.Active?.Slot ?? Slot.Blue)),
        ("drain of the other slot asked", s => Drain((s.Active?.Slot ?? Slot.Blue).Other())),
        ("drain cancelled", _ => new DrainCancelled(s_now, null, 1)),
        ("undrained", _ => new Undrained(s_now, null, 1)),
        ("our rules changed", _ => new RulesChanged(s_now)),
        ("flip asked, the other slot held", s => s.Active is null ? null : new FlipAsked(s_now, s_wish)),
        ("files changed, while that is held back", s => new FlipAsked(s_now, s_wish with { Trigger = FlipTrigger.Files, ContentSha256 = "sha-new" })),
        ("held back no more, a change waits", _ => new RestraintChanged(s_now, null)),
        ("retired died", _ => new GenerationDied(s_now, 9, "died")),
        ("drain deadline", _ => new DrainDue(s_now, 9)),
        ("retry due", _ => new RetryDue(s_now, 1)),
        ("restart, all alive", s => new Restarted(s_now, [1, 2, 9], s.Active?.Number, 4)),
        ("restart, none alive", _ => new Restarted(s_now, [], null, 4)),
    ];

    private static DrainAsked Drain(Slot slot) => new(s_now, new DrainWish(slot, null, null, false, false, null, [1]));

    private static int Target(PairState s) => s.Phase switch
    {
        Switching w => w.Candidate.Number,
        Returning r => r.Target.Number,
        _ => s.Active?.Number ?? 0,
    };

    public static IEnumerable<PhaseKind> States => s_states.Select(s => s.Phase.Kind).Distinct();

    public static IEnumerable<PairEventKind> Events => s_states.SelectMany(s => s_events.Select(e => e.Make(s))).OfType<PairEvent>().Select(e => e.Kind);

    /// <summary>A GitHub table: the state that follows, <c>=</c> the same with something done, <c>·</c> ignored, <c>no</c> refused.</summary>
    public static string Render()
    {
        var text = new StringBuilder();
        text.Append("| event |").AppendJoin('|', s_states.Select(s => $" {Named(s.Phase)} ")).Append("|\n");
        text.Append("|---|").AppendJoin('|', s_states.Select(_ => "---")).Append("|\n");
        foreach (var (name, make) in s_events)
            text.Append($"| {name} |").AppendJoin('|', s_states.Select(s => $" {Cell(name.EndsWith("held", StringComparison.Ordinal) ? Held(s) : name.Contains("held back", StringComparison.Ordinal) ? Restrained(s, name) : s, make(s))} ")).Append("|\n");
        return text.ToString();
    }

    private static PairState Held(PairState s) => s with { HeldSlot = s.Active?.Slot.Other() };

    private static PairState Restrained(PairState s, string name) => s with
    {
        Restraint = new FlipRestraint("BACKUP"),
        Pending = name.Contains("waits", StringComparison.Ordinal) ? s_wish with { Trigger = FlipTrigger.Files, ContentSha256 = "sha-new" } : null,
    };

    private static string Named(Phase phase) => phase is Releasing { IsProven: true } ? "releasing, proven" : phase.Name;

    private static string Cell(PairState s, PairEvent? e) => e is null ? "" : PairMachine.Decide(s, e) switch
    {
        Next next => next.State.Phase.Kind == s.Phase.Kind ? "=" : next.State.Phase.Name,
        Ignored => "·",
        Denied => "no",
        _ => "?",
    };
}
