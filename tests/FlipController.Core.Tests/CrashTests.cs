using System.Collections.Immutable;
using FlipController.Core.Machine;
using Xunit;

namespace FlipController.Core.Tests;

/// <summary>What becomes of an active generation that dies young, or lives and answers nobody.</summary>
public sealed class CrashTests
{
    private static readonly DateTimeOffset s_start = DateTimeOffset.UnixEpoch;

    private static PairState Serving(int number, DateTimeOffset since, int crashes = 0) => PairState.Initial("edge") with
    {
        LastNumber = number, LastFlipId = number, LastGood = number, Crashes = crashes, Phase = new Steady(),
        Active = new Generation(number, Slot.Blue, 1000 + number, 1, "boot", "sha", "sha", since, [], number, "2.6"),
    };

    private static Next Decide(PairState s, PairEvent e) => Assert.IsType<Next>(PairMachine.Decide(s, e));

    [Fact]
    public void Two_young_deaths_are_followed_by_a_start_at_once_and_the_third_by_a_later_one()
    {
        PairState s = Serving(1, s_start);
        for (int death = 1; death <= 5; death++)
        {
            Next next = Decide(s, new GenerationDied(s_start.AddSeconds(10), s.Active!.Number, "died"));
            Assert.Equal(death, next.State.Crashes);
            if (death < 3)
            {
                Assert.IsType<Preparing>(next.State.Phase);
            }
            else
            {
                Assert.IsType<Faulted>(next.State.Phase);
                Assert.Equal(death - 2, Assert.Single(next.Effects.OfType<RetryLater>()).Attempt);
                Assert.StartsWith("crash loop: ", next.State.Fault, StringComparison.Ordinal);
            }
            s = Serving(death + 1, s_start, next.State.Crashes);
        }
    }

    [Fact]
    public void A_death_after_a_minute_counts_from_one()
    {
        Next next = Decide(Serving(1, s_start, crashes: 7), new GenerationDied(s_start.AddMinutes(1), 1, "died"));
        Assert.Equal(1, next.State.Crashes);
        Assert.IsType<Preparing>(next.State.Phase);
    }

    [Theory]
    [InlineData(FlipTrigger.Death, 2), InlineData(FlipTrigger.Files, 0)]
    public void Only_what_replaces_the_dead_goes_on_counting(FlipTrigger trigger, int crashes)
    {
        PairState s = Serving(1, s_start, crashes: 2);
        var run = new FlipRun(2, new FlipWish(trigger, null, true, null, null, []), 2, Slot.Green, 1, s_start);
        s = s with { Phase = new Switching(run, s.Active! with { Number = 2 }, false) };
        Next next = Decide(s, new Switched(s_start, 2, new HoldReport("none", 1, 0, 0), 0));
        Assert.Equal(crashes, next.State.Crashes);
    }

    [Fact]
    public void One_that_does_not_answer_keeps_its_connections_and_is_left_for_a_new_one_that_is_not_compared_with_it()
    {
        PairState s = Serving(1, s_start);
        Generation silent = s.Active!, made = silent with { Number = 2, Slot = Slot.Green };
        Next next = Decide(s, new FoundSilent(s_start, 1, "does not answer"));
        Assert.Equal(1, Assert.Single(next.Effects.OfType<Prepare>()).Run.Wish.FromGeneration);
        next = Decide(next.State, new Prepared(s_start, made));
        Assert.Null(Assert.Single(next.Effects.OfType<Prove>()).Against);
        next = Decide(next.State, new GatePassed(s_start, 2));
        next = Decide(next.State, new Switched(s_start, 2, new HoldReport("none", 1, 0, 0), 0));
        // No way back to it, and no end either.
        Assert.IsType<Steady>(next.State.Phase);
        Assert.Equal(silent, Assert.Single(next.State.Retired).Generation);
        Assert.DoesNotContain(next.Effects, e => e is Discard or Close or Watch);
    }

    [Fact]
    public void A_clock_that_was_set_moves_every_moment_and_nothing_else()
    {
        Generation one = Serving(1, s_start).Active!, two = one with { Number = 2 };
        var run = new FlipRun(2, new FlipWish(FlipTrigger.Operator, null, true, null, null, []), 2, Slot.Green, 1, s_start);
        var undo = new UndoWindow(run, one, s_start);
        Phase[] phases =
        [
            new Cold(), new Preparing(run, undo), new Preparing(run, null), new Gating(run, two), new Switching(run, two, false), new Watching(undo),
            new Returning(run, one, "returned", "worse", [], false, false), new Restoring(false), new Steady(), new Faulted(),
            new Releasing(new ReleaseRun(2, null, [], 1, s_start), undo, false), new Released(),
        ];
        var by = TimeSpan.FromHours(3);
        Assert.Equal(Enum.GetValues<PhaseKind>(), phases.Select(p => p.Kind).Distinct().Order());
        foreach (Phase phase in phases)
        {
            PairState s = Serving(2, s_start) with
            {
                Phase = phase, Retired = [new RetiredGeneration(one, s_start, s_start), new RetiredGeneration(two, s_start)],
                Drain = new DrainOrder(1, new DrainWish(Slot.Blue, null, null, false, false, null, []), [1], s_start),
            };
            string Text(PairState state) => System.Text.Json.JsonSerializer.Serialize(state, PairStateJson.Default.PairState);
            Assert.Equal(Text(s), Text(s.Shifted(by).Shifted(-by)));
            Assert.DoesNotContain("1970-01-01T00:00:00", Text(s.Shifted(by)), StringComparison.Ordinal);
        }
    }
}
