using System.Collections.Immutable;
using System.Net;
using FlipController.Core.Machine;
using Xunit;

namespace FlipController.Core.Tests;

/// <summary>A state made from what is there, and that the machine goes on from it as from a saved one.</summary>
public class RebuildingTests
{
    private static readonly DateTimeOffset s_now = DateTimeOffset.UnixEpoch.AddDays(1);

    private static LivingGeneration Living(int number, bool listens = true) => new(new Generation(
        number, number % 2 == 1 ? Slot.Blue : Slot.Green, 100 + number, 12345, "boot", $"sha-{number}", $"sha-{number}", s_now,
        [new ServicePort(new Service(IPAddress.Any, 80), 21000 + number)], number, "2.6.12"), listens);

    private static FlipRecord Flip(int id, int? from, int to, string outcome = "done") =>
        new(id, "files", from, to, outcome, s_now, 12, null, null, null);

    private static PairRemains There(int? redirectTo, int highest, LivingGeneration[] living, params FlipRecord[] history) =>
        new([.. living], redirectTo, highest, [.. history], false, s_now);

    [Fact]
    public void Who_has_the_new_connections_keeps_them_and_the_others_drain()
    {
        PairState s = Rebuilding.Rebuild("edge", There(3, 4, [Living(1, listens: false), Living(3), Living(4)], Flip(1, null, 1), Flip(2, 1, 3), Flip(3, 3, 4, "failed")));
        Assert.Equal((3, 4, 3, 1, 3), (s.Active!.Number, s.LastNumber, s.LastFlipId, s.BeforeLast, s.LastGood));
        Assert.Equal([1, 4], s.Retired.Select(r => r.Generation.Number));
        Assert.All(s.Retired, r => Assert.Equal((s_now, null), (r.At, r.ClosesAt)));
        Assert.IsType<Steady>(s.Phase);
        Assert.Equal("failed", s.LastFlip!.Outcome);

        var next = Assert.IsType<Next>(PairMachine.Decide(s, new Restarted(s_now, [1, 3, 4], 3, 4)));
        Assert.IsType<Steady>(next.State.Phase);
        Assert.Equal([1, 4], next.Effects.OfType<Retire>().Select(r => r.Generation.Number));
        Assert.DoesNotContain(next.Effects, e => e is Switch or Prepare or Discard);
    }

    [Fact]
    public void Without_a_rule_the_newest_that_listens_gets_them()
    {
        PairState s = Rebuilding.Rebuild("edge", There(null, 5, [Living(2), Living(3), Living(5, listens: false)]));
        Assert.Equal(3, s.Active!.Number);
        Assert.Equal([2, 5], s.Retired.Select(r => r.Generation.Number));
        var next = Assert.IsType<Next>(PairMachine.Decide(s, new Restarted(s_now, [2, 3, 5], null, 4)));
        Assert.Equal(3, Assert.Single(next.Effects.OfType<Switch>()).To.Number);
    }

    [Fact]
    public void A_rule_that_names_a_dead_one_is_not_believed()
    {
        PairState s = Rebuilding.Rebuild("edge", There(4, 4, [Living(3)]));
        Assert.Equal(3, s.Active!.Number);
    }

    [Fact]
    public void With_nothing_alive_it_begins_afresh_and_uses_no_number_again()
    {
        PairState s = Rebuilding.Rebuild("edge", There(null, 9, [], Flip(7, 8, 9)));
        Assert.IsType<Cold>(s.Phase);
        Assert.Equal((9, 7, null), (s.LastNumber, s.LastFlipId, s.Active?.Number));
        var next = Assert.IsType<Next>(PairMachine.Decide(s, new Restarted(s_now, [], null, 4)));
        Assert.Equal(10, Assert.Single(next.Effects.OfType<Prepare>()).Run.Number);
    }

    [Fact]
    public void Only_those_that_stopped_listening_live()
    {
        PairState s = Rebuilding.Rebuild("edge", There(null, 2, [Living(2, listens: false)]));
        Assert.Null(s.Active);
        var next = Assert.IsType<Next>(PairMachine.Decide(s, new Restarted(s_now, [2], null, 4)));
        Assert.Equal(2, Assert.Single(next.Effects.OfType<Retire>()).Generation.Number);
        Assert.Equal(3, Assert.Single(next.Effects.OfType<Prepare>()).Run.Number);
    }

    [Theory]
    [InlineData(3, 3, false)]
    [InlineData(4, 3, false)] // its number was saved and nothing bears it yet
    [InlineData(3, 4, true)]
    public void A_saved_state_is_outdated_when_something_bears_a_number_it_never_gave(int saved, int there, bool outdated) =>
        Assert.Equal(outdated, Rebuilding.IsOutdated(PairState.Initial("edge") with { LastNumber = saved }, There(null, there, [])));
}
