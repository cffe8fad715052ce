using System.Collections.Immutable;
using FlipController.Core.Machine;
using Xunit;

namespace FlipController.Core.Tests;

public class DrainTests
{
    private static readonly DateTimeOffset s_now = DateTimeOffset.UnixEpoch;
    private static readonly HoldReport s_hold = new("none", 90, 0, 0);
    private static readonly Generation s_one = Made(1, Slot.Blue), s_two = Made(2, Slot.Green), s_three = Made(3, Slot.Blue);

    private static Generation Made(int number, Slot slot) =>
        new(number, slot, 1000 + number, 1, "boot", $"sha-{number}", $"sha-{number}", s_now, [], number, "2.6");

    private static readonly PairState s_steady = PairState.Initial("edge") with
    {
        LastNumber = 2, LastFlipId = 2, Active = s_two, LastGood = 2, BeforeLast = 1, Phase = new Steady(),
    };

    private static readonly PairState s_watching = s_steady with
    {
        Phase = new Watching(new UndoWindow(new FlipRun(2, new FlipWish(FlipTrigger.Files, null, false, null, null, []), 2, Slot.Green, 1, s_now), s_one, s_now)),
    };

    private static DrainAsked Ask(
        Slot? slot = null, int? generation = null, TimeSpan? deadline = null, bool hold = false, bool skipUndo = false, long request = 7) =>
        new(s_now, new DrainWish(slot, generation, deadline, hold, skipUndo, null, [request]));

    /// <summary>The state after the events, every effect of them, and that none was ignored or denied.</summary>
    private static (PairState State, List<Effect> Effects) After(PairState s, params PairEvent[] events)
    {
        List<Effect> effects = [];
        foreach (PairEvent e in events)
        {
            Next next = Assert.IsType<Next>(PairMachine.Decide(s, e));
            s = next.State;
            effects.AddRange(next.Effects);
        }
        return (s, effects);
    }

    private static Refusal RefusalOf(PairState s, PairEvent e) => Assert.IsType<Denied>(PairMachine.Decide(s, e)).Refusal;

    private static DrainRecord Ended(List<Effect> effects) => Assert.Single(effects.OfType<AnswerDrain>()).Drain;

    [Fact]
    public void The_active_slot_is_left_by_a_flip_to_the_configuration_that_runs()
    {
        var (s, effects) = After(s_steady, Ask(Slot.Green));

        Prepare prepare = Assert.Single(effects.OfType<Prepare>());
        Assert.Equal((Slot.Blue, 2, FlipTrigger.Drain), (prepare.Run.Slot, prepare.Run.Wish.FromGeneration, prepare.Run.Wish.Trigger));
        Assert.Equal([2], s.Drain!.Generations);
    }

    [Fact]
    public void It_is_done_when_its_process_is_gone_and_not_before()
    {
        var (s, effects) = After(s_steady, Ask(Slot.Green, deadline: TimeSpan.FromMinutes(5)),
            new Prepared(s_now, s_three), new GatePassed(s_now, 3), new Switched(s_now, 3, s_hold, 4), new UndoElapsed(s_now, 3));
        Assert.IsType<Steady>(s.Phase);
        Assert.Empty(effects.OfType<AnswerDrain>());
        Assert.Equal(s_now + TimeSpan.FromMinutes(5), Assert.Single(effects.OfType<Retire>()).ClosesAt);

        (s, effects) = After(s, new GenerationDied(s_now, 2, "died"));
        Assert.Equal(("drained", null), (Ended(effects).Outcome, s.Drain));
    }

    [Fact]
    public void Without_an_undo_window_it_is_retired_at_the_switch()
    {
        var (s, effects) = After(s_steady, Ask(Slot.Green, skipUndo: true), new Prepared(s_now, s_three), new GatePassed(s_now, 3), new Switched(s_now, 3, s_hold, 4));

        Assert.IsType<Steady>(s.Phase);
        Assert.Single(effects.OfType<Retire>());
        Assert.Empty(effects.OfType<Watch>());
    }

    [Fact]
    public void A_standby_that_does_not_prove_itself_moves_nothing_and_ends_the_drain_with_its_reason()
    {
        var (s, effects) = After(s_steady, Ask(Slot.Green, hold: true), new Prepared(s_now, s_three), new GateFailed(s_now, 3, "be/s1 is DOWN"));

        Assert.Equal(("failed", "be/s1 is DOWN"), (Ended(effects).Outcome, Ended(effects).Error));
        Assert.Equal((2, null, null), (s.Active!.Number, s.Drain, s.HeldSlot));
    }

    [Fact]
    public void Traffic_that_returns_ends_the_drain()
    {
        var (s, effects) = After(s_steady, Ask(Slot.Green, hold: true), new Prepared(s_now, s_three), new GatePassed(s_now, 3),
            new Switched(s_now, 3, s_hold, 4), new WorseFound(s_now, 3, "5xx"), new Switched(s_now, 2, s_hold, 4));

        Assert.Equal(("failed", "5xx"), (Ended(effects).Outcome, Ended(effects).Error));
        Assert.Null(s.HeldSlot);
    }

    [Fact]
    public void The_previous_one_is_what_is_drained_when_nothing_is_named()
    {
        var (s, effects) = After(s_watching, Ask());

        Assert.IsType<Steady>(s.Phase);
        Assert.Contains(effects, e => e is Unwatch);
        Assert.Equal(s_one, Assert.Single(effects.OfType<Retire>()).Generation);
    }

    [Fact]
    public void Nothing_to_drain_is_no_failure()
    {
        var (s, effects) = After(s_steady, Ask(Slot.Blue));
        Assert.Equal(("unchanged", null), (Ended(effects).Outcome, s.Drain));
    }

    [Fact]
    public void What_leaves_already_gets_the_new_deadline_and_a_cancelled_drain_gives_it_back()
    {
        PairState leaving = s_steady with { Retired = [new RetiredGeneration(s_one, s_now)] };
        var (s, effects) = After(leaving, Ask(generation: 1, deadline: TimeSpan.FromSeconds(30)));
        Assert.Equal(s_now + TimeSpan.FromSeconds(30), Assert.Single(effects.OfType<Retire>()).ClosesAt);

        (s, effects) = After(s, new DrainCancelled(s_now, null, 9));
        Assert.Null(Assert.Single(effects.OfType<Retire>()).ClosesAt);
        Assert.Null(s.Retired[0].ClosesAt);
        Assert.Equal([7L, 9L], Assert.Single(effects.OfType<AnswerDrain>()).Requests);
        Assert.Equal("cancelled", Ended(effects).Outcome);
    }

    [Fact]
    public void A_cancelled_drain_that_moved_nothing_leaves_everything_as_it_was()
    {
        var (s, effects) = After(s_steady, Ask(Slot.Green, hold: true), new Prepared(s_now, s_three), new DrainCancelled(s_now, null, 9));

        Assert.IsType<Steady>(s.Phase);
        Assert.Equal((2, null, null), (s.Active!.Number, s.HeldSlot, s.Fault));
        Assert.Contains(effects, e => e is Discard { Number: 3 });
    }

    [Fact]
    public void A_held_slot_refuses_flips_and_keeps_a_change_of_the_files_until_it_may_begin()
    {
        var (s, _) = After(s_steady, Ask(Slot.Blue, hold: true));
        Assert.Equal(Slot.Blue, s.HeldSlot);
        var flip = new FlipWish(FlipTrigger.Operator, null, false, null, null, [1]);
        Assert.Equal(Refusal.SlotHeld, RefusalOf(s, new FlipAsked(s_now, flip)));
        Assert.Equal(Refusal.SlotHeld, RefusalOf(s, new RollbackAsked(s_now, null, 1)));
        Assert.Equal(Refusal.SlotHeld, RefusalOf(s, Ask(Slot.Green)));

        (s, List<Effect> effects) = After(s, new FlipAsked(s_now, flip with { Trigger = FlipTrigger.Files, ContentSha256 = "sha-new", Requests = [] }));
        Assert.IsType<Steady>(s.Phase);
        Assert.Empty(effects);

        (s, effects) = After(s, new Undrained(s_now, null, 8));
        Assert.Equal(Slot.Blue, Assert.Single(effects.OfType<Prepare>()).Run.Slot);
        Assert.Null(s.Pending);
    }

    [Fact]
    public void When_the_active_one_dies_its_successor_does_not_start_in_the_held_slot()
    {
        var (s, _) = After(s_steady, Ask(Slot.Blue, hold: true));
        (_, List<Effect> effects) = After(s, new GenerationDied(s_now, 2, "died"));

        Assert.Equal(Slot.Green, Assert.Single(effects.OfType<Prepare>()).Run.Slot);
    }

    [Fact]
    public void The_same_drain_asked_for_twice_is_one_and_another_waits_its_turn()
    {
        PairState leaving = s_steady with { Retired = [new RetiredGeneration(s_one, s_now)] };
        var (s, _) = After(leaving, Ask(generation: 1), Ask(generation: 1, request: 8));
        Assert.Equal([7L, 8L], s.Drain!.Wish.Requests);
        Assert.Equal(Refusal.DrainUnderWay, RefusalOf(s, Ask(Slot.Green)));

        (_, List<Effect> effects) = After(s, new GenerationDied(s_now, 1, "died"));
        Assert.Equal([7L, 8L], Assert.Single(effects.OfType<AnswerDrain>()).Requests);
    }

    [Fact]
    public void One_that_is_left_of_several_is_still_the_same_drain_and_a_hold_is_not_added_to_it()
    {
        PairState leaving = s_steady with { Retired = [new RetiredGeneration(s_one, s_now), new RetiredGeneration(s_three, s_now)] };
        var (s, _) = After(leaving, Ask(Slot.Blue), new GenerationDied(s_now, 1, "died"));
        var (again, _) = After(s, Ask(Slot.Blue, request: 8));
        Assert.Equal([7L, 8L], again.Drain!.Wish.Requests);
        Assert.Equal(Refusal.DrainUnderWay, RefusalOf(s, Ask(Slot.Blue, hold: true)));
    }

    [Fact]
    public void A_hold_needs_a_slot_and_one_that_was_there_before_outlives_a_drain_that_fails()
    {
        Assert.Equal(Refusal.NothingToHold, RefusalOf(s_steady, Ask(generation: 1, hold: true)));
        PairState held = s_steady with { HeldSlot = Slot.Green };
        var (s, effects) = After(held, Ask(Slot.Green, hold: true), new Prepared(s_now, s_three), new GateFailed(s_now, 3, "be/s1 is DOWN"));
        Assert.Equal(("failed", Slot.Green), (Ended(effects).Outcome, s.HeldSlot));
    }

    [Fact]
    public void More_retired_ones_than_there_may_be_are_closed_after_a_restart_too()
    {
        PairState many = s_steady with { Retired = [new RetiredGeneration(s_one, s_now), new RetiredGeneration(s_three, s_now)] };
        var (_, effects) = After(many, new Restarted(s_now, ImmutableHashSet.Create(1, 2, 3), 2, 1));
        Assert.Equal(1, Assert.Single(effects.OfType<Close>()).Generation.Number);
    }

    [Fact]
    public void While_a_flip_is_under_way_only_what_leaves_already_can_be_drained()
    {
        PairState gating = s_steady with
        {
            Phase = new Gating(new FlipRun(3, new FlipWish(FlipTrigger.Files, null, false, null, null, []), 3, Slot.Blue, 2, s_now), s_three),
            Retired = [new RetiredGeneration(s_one, s_now)],
        };
        Assert.Equal(Refusal.BusyForDrain, RefusalOf(gating, Ask(Slot.Green)));
        Assert.Equal(Refusal.BusyForDrain, RefusalOf(gating, Ask(generation: 3)));
        Assert.IsType<Next>(PairMachine.Decide(gating, Ask(generation: 1)));
    }

    [Fact]
    public void A_drain_outlives_the_controller()
    {
        var (s, _) = After(s_steady, Ask(Slot.Green));
        (s, List<Effect> effects) = After(s, new Restarted(s_now, ImmutableHashSet.Create(2), 2, 4));

        Assert.Equal(FlipTrigger.Drain, Assert.Single(effects.OfType<Prepare>()).Run.Wish.Trigger);
        Assert.NotNull(s.Drain);
    }
}
