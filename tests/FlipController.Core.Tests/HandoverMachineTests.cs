using System.Collections.Immutable;
using FlipController.Core.Handover;
using Xunit;
using static FlipController.Core.Handover.HandoverPhase;

namespace FlipController.Core.Tests;

public sealed class HandoverMachineTests
{
    private static readonly DateTimeOffset s_noon = new(2026, 1, 1, 12, 0, 0, TimeSpan.Zero);
    private static readonly HandoverWish s_wish = new(TimeSpan.FromMinutes(10), 0, TimeSpan.FromMinutes(5));
    private static readonly PeerSays s_ready = new(null, false, 0, false), s_master = new(null, true, 0, false);

    [Fact]
    public void The_straight_way_out_and_back()
    {
        var node = new Node();
        node.Start();
        Assert.Equal(Proving, node.State.Phase);
        node.Look(s_ready, left: 3, vips: true);
        Assert.Equal(Emptying, node.State.Phase);
        node.Look(s_ready, left: 1, vips: true);
        Assert.Equal((Emptying, false), (node.State.Phase, node.State.IsLowered));
        node.Look(s_ready, left: 0, vips: true);
        Assert.Equal((Moving, true), (node.State.Phase, node.State.IsLowered));
        node.Look(s_master, left: 0, vips: false);
        Assert.Equal((Leaving, true), (node.State.Phase, node.State.IsLowered));
        node.Look(s_master, left: 0, vips: false, quiet: 1);
        Assert.Equal(Leaving, node.State.Phase);
        Assert.Equal([HandoverEffect.TellEnd], node.Look(s_master, left: 0, vips: false, quiet: 3).Effects);
        Assert.Equal((Away, true, false), (node.State.Phase, node.State.IsLowered, node.State.Failed));

        Assert.Equal([HandoverEffect.AskReturn], node.Cancel(vips: false).Effects);
        Assert.Equal((Recalling, true), (node.State.Phase, node.State.IsLowered));
        node.Say(new VipsCome(node.Now));
        Assert.Equal((Recalling, false), (node.State.Phase, node.State.IsLowered));
        node.Look(s_ready with { IsGiving = true }, left: 0, vips: true);
        Assert.Equal((Returning, false), (node.State.Phase, node.State.IsLowered));
        node.Look(s_ready, left: 9, vips: true, quiet: 3, after: 4);
        Assert.Equal((None, false), (node.State.Phase, node.State.IsLowered));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(5)]
    public void The_VIPs_move_at_the_threshold_or_at_the_deadline(int threshold)
    {
        var node = new Node();
        node.Start(s_wish with { Threshold = threshold });
        node.Look(s_ready, left: threshold + 1, vips: true);
        node.Look(s_ready, left: threshold + 1, vips: true);
        Assert.Equal(Emptying, node.State.Phase);
        var late = node.State;
        node.Look(s_ready, left: threshold, vips: true);
        Assert.Equal(Moving, node.State.Phase);
        node.State = late;
        node.Look(s_ready, left: threshold + 1, vips: true, after: 600);
        Assert.Equal(Moving, node.State.Phase);
    }

    [Fact]
    public void A_peer_that_says_no_is_believed_at_once_and_a_silent_one_after_a_while()
    {
        var node = new Node();
        node.Start();
        Assert.Equal([HandoverEffect.TellEnd], node.Look(s_ready with { Why = "it has no pair edge" }, left: 1, vips: true).Effects);
        Assert.Equal((None, true), (node.State.Phase, node.State.Failed));
        Assert.Contains("it has no pair edge", node.State.Outcome, StringComparison.Ordinal);

        node = new Node();
        node.Start();
        node.Look(null, left: 1, vips: true);
        Assert.Equal(Proving, node.State.Phase);
        node.Look(null, left: 1, vips: true, after: 10);
        Assert.Equal((None, true), (node.State.Phase, node.State.Failed));
    }

    [Fact]
    public void Without_its_peer_nothing_moves_and_in_the_end_it_is_given_up()
    {
        var node = new Node();
        node.Start();
        node.Look(s_ready, left: 1, vips: true);
        node.Look(null, left: 0, vips: true);
        Assert.Equal((Emptying, false), (node.State.Phase, node.State.IsLowered));
        Assert.NotNull(node.Finish(vips: true).Denial);
        node.Look(null, left: 0, vips: true, after: 29);
        Assert.Equal(Emptying, node.State.Phase);
        node.Look(null, left: 0, vips: true, after: 2);
        Assert.Equal((Returning, true), (node.State.Phase, node.State.Failed));
    }

    [Fact]
    public void A_peer_that_is_back_is_as_good_as_before()
    {
        var node = new Node();
        node.Start();
        node.Look(s_ready, left: 1, vips: true);
        node.Look(null, left: 1, vips: true, after: 20);
        node.Look(s_ready, left: 1, vips: true);
        Assert.Null(node.State.Note);
        node.Look(null, left: 1, vips: true, after: 20);
        Assert.Equal(Emptying, node.State.Phase);
    }

    [Fact]
    public void Lowered_but_alone_it_raises_itself_again()
    {
        var node = new Node();
        node.To(Moving);
        node.Look(null, left: 1, vips: true);
        Assert.Equal((Emptying, false), (node.State.Phase, node.State.IsLowered));
    }

    [Fact]
    public void When_keepalived_does_not_move_them_the_reason_is_guessed_and_nothing_is_lost()
    {
        var node = new Node();
        node.To(Moving);
        node.Look(s_ready, left: 0, vips: true, after: 11);
        Assert.Equal(Moving, node.State.Phase);
        Assert.Contains("preempt", node.State.Note, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(Moving)]
    [InlineData(Leaving)]
    public void VIPs_that_nobody_has_are_taken_back(HandoverPhase phase)
    {
        var node = new Node();
        node.To(phase);
        node.Look(s_ready, left: 1, vips: false);
        node.Look(s_ready, left: 1, vips: false, after: 9);
        Assert.Equal((phase, true), (node.State.Phase, node.State.IsLowered));
        node.Look(null, left: 1, vips: false, after: 9); // not known
        node.Look(s_ready, left: 1, vips: false, after: 9);
        Assert.Equal(phase, node.State.Phase);
        node.Look(s_ready, left: 1, vips: false, after: 10);
        Assert.Equal((Returning, false, true), (node.State.Phase, node.State.IsLowered, node.State.Failed));
        Assert.Contains("keepalived", node.State.Outcome, StringComparison.Ordinal);
    }

    [Fact]
    public void VIPs_that_move_by_themselves_are_as_good()
    {
        var node = new Node();
        node.To(Emptying);
        node.Look(s_master, left: 5, vips: false);
        Assert.Equal((Leaving, true), (node.State.Phase, node.State.IsLowered));
    }

    [Fact]
    public void VIPs_that_come_back_while_it_leaves_are_served()
    {
        var node = new Node();
        node.To(Leaving);
        node.Look(null, left: 5, vips: true);
        Assert.Equal((Returning, false, true), (node.State.Phase, node.State.IsLowered, node.State.Failed));
    }

    [Fact]
    public void At_the_end_of_the_second_chance_who_is_left_is_counted()
    {
        var node = new Node();
        node.To(Leaving);
        node.Look(s_master, left: 2, vips: false, after: 299);
        Assert.Equal(Leaving, node.State.Phase);
        node.Look(s_master, left: 2, vips: false, after: 2);
        Assert.Equal((Away, true), (node.State.Phase, node.State.Failed));
        Assert.Contains("2 old connections", node.State.Outcome, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(Proving, None)]
    [InlineData(Emptying, Returning)]
    [InlineData(Moving, Returning)]
    [InlineData(Leaving, Recalling)]
    [InlineData(Away, Recalling)]
    public void It_can_be_cancelled_at_every_point(HandoverPhase at, HandoverPhase then)
    {
        var node = new Node();
        node.To(at);
        HandoverDecision decision = node.Cancel(vips: at is Proving or Emptying or Moving);
        Assert.Null(decision.Denial);
        Assert.Equal(then, node.State.Phase);
        Assert.Equal(then == Recalling, node.State.IsLowered);
    }

    [Fact]
    public void Cancelled_while_the_VIPs_move_it_asks_for_them_when_they_are_gone()
    {
        var node = new Node();
        node.To(Moving);
        node.Cancel(vips: true);
        node.Look(s_master, left: 1, vips: false);
        Assert.Equal((Leaving, true), (node.State.Phase, node.State.IsLowered));
        Assert.Equal([HandoverEffect.AskReturn], node.Look(s_master, left: 1, vips: false).Effects);
        Assert.Equal(Recalling, node.State.Phase);
    }

    [Fact]
    public void A_peer_that_does_not_hand_back_keeps_them()
    {
        var node = new Node();
        node.To(Away);
        node.Cancel(vips: false);
        node.Look(s_master, left: 0, vips: false, after: 21);
        Assert.Equal((Away, true), (node.State.Phase, node.State.IsLowered));
        Assert.NotNull(node.State.Note);
    }

    [Fact]
    public void Who_brings_the_peer_back_is_not_kept_lowered()
    {
        var node = new Node();
        node.Say(new StartWanted(node.Now, "r", s_wish, node.Seen(s_ready, 0, true), AsReturn: true));
        node.Look(s_ready, left: 0, vips: true);
        node.Look(s_ready, left: 0, vips: true);
        node.Look(s_master, left: 0, vips: false);
        node.Look(s_master, left: 0, vips: false, quiet: 3);
        Assert.Equal((None, false, false), (node.State.Phase, node.State.IsLowered, node.State.Failed));
    }

    [Fact]
    public void What_makes_no_sense_is_denied()
    {
        Assert.Contains("does not have the VIPs", new Node().Start(vips: false).Denial, StringComparison.Ordinal);
        Assert.NotNull(new Node().Cancel(vips: true).Denial);
        Assert.NotNull(new Node().Finish(vips: true).Denial);
        foreach (HandoverPhase phase in (HandoverPhase[])[Proving, Emptying, Moving, Leaving, Away, Recalling])
        {
            var node = new Node();
            node.To(phase);
            HandoverState before = node.State;
            Assert.NotNull(node.Start().Denial);
            Assert.Equal(before, node.State);
        }
        var theirs = new Node();
        Assert.Contains("the peer hands over", theirs.Say(new StartWanted(theirs.Now, "x", s_wish, theirs.Seen(s_ready with { IsGiving = true }, 0, true))).Denial, StringComparison.Ordinal);
    }

    [Fact]
    public void Finish_goes_on_a_step()
    {
        var node = new Node();
        node.To(Emptying);
        Assert.Null(node.Finish(vips: true).Denial);
        Assert.Equal(Moving, node.State.Phase);
        node.Look(s_master, left: 5, vips: false);
        Assert.Equal([HandoverEffect.TellEnd], node.Finish(vips: false).Effects);
        Assert.Equal(Away, node.State.Phase);
        node.Finish(vips: false);
        Assert.Equal((None, false), (node.State.Phase, node.State.IsLowered));
    }

    [Fact]
    public void Finish_goes_by_the_last_answer_of_the_peer_and_not_by_the_one_that_is_waited_for()
    {
        var node = new Node();
        node.To(Emptying);
        Assert.Null(node.Finish(vips: true).Denial);
        node = new Node();
        node.To(Emptying);
        node.Look(null, left: 1, vips: true);
        Assert.Contains("not proven: it is silent", node.Finish(vips: true).Denial, StringComparison.Ordinal);
    }

    /// <summary>Whatever happens in whatever order.</summary>
    [Fact]
    public void In_a_hundred_thousand_random_steps_connections_come_first()
    {
        var random = new Random(8);
        var node = new Node();
        for (int step = 0; step < 100_000; step++)
        {
            HandoverState before = node.State;
            bool vips = random.Next(2) == 0;
            PeerSays? peer = random.Next(4) switch { 0 => null, 1 => s_ready with { Why = "not now" }, _ => new PeerSays(null, random.Next(2) == 0, random.Next(3), random.Next(4) == 0) };
            int left = random.Next(3);
            HandoverDecision decision = random.Next(12) switch
            {
                0 => node.Start(vips: vips),
                1 => node.Cancel(vips),
                2 => node.Finish(vips),
                3 => node.Say(new VipsCome(node.Now)),
                4 => node.Say(new NotPrepared(node.Now, "no")),
                _ => node.Look(peer, left, vips, quiet: random.Next(5), after: random.Next(10)),
            };
            HandoverState after = node.State;
            if (decision.Denial is not null) Assert.Equal((before, 0), (after, decision.Effects.Length));
            Assert.True(after.Phase == None == (after.Wish is null), $"{after}");
            // Nothing is led away, and no VIP let go, but to a peer that was proven.
            if (after.Diverts && !before.Diverts && before.Phase != Returning) Assert.True(before.Phase == Proving && peer is { Ready: true }, $"{before} -> {after}");
            if (after.Phase == Moving && before.Phase != Moving) Assert.True(before.Phase == Emptying, $"{before} -> {after}");
            // Lowered is who gives away, or has; and who is asked to hand back is not asked twice.
            if (after.Phase is None or Proving or Returning) Assert.False(after.IsLowered, $"{before} -> {after}");
            if (after.Phase is Moving) Assert.True(after.IsLowered, $"{before} -> {after}");
            if (decision.Effects.Contains(HandoverEffect.AskReturn)) Assert.Equal(Recalling, after.Phase);
            // The peer keeps what it has of us until we say that it is over.
            if (before.HasRules && !after.HasRules && after.Phase != before.Phase && !(before.Phase == Recalling && after.Phase == Away))
                Assert.Contains(HandoverEffect.TellEnd, decision.Effects);
        }
    }

    private sealed class Node
    {
        public DateTimeOffset Now { get; private set; } = s_noon;

        public HandoverState State { get; set; } = HandoverState.Initial;

        public HandoverDecision Say(HandoverEvent happened)
        {
            HandoverDecision decision = HandoverMachine.Decide(State, happened);
            State = decision.Next;
            return decision;
        }

        public HandoverLook Seen(PeerSays? peer, int left, bool vips, int quiet = 0) => new(peer, peer is null ? "it is silent" : null, left, vips, TimeSpan.FromSeconds(quiet));

        public HandoverDecision Start(HandoverWish? wish = null, bool vips = true) => Say(new StartWanted(Now, "h", wish ?? s_wish, Seen(null, 0, vips)));

        public HandoverDecision Cancel(bool vips) => Say(new CancelWanted(Now, Seen(null, 0, vips)));

        public HandoverDecision Finish(bool vips) => Say(new FinishWanted(Now, Seen(null, 2, vips)));

        /// <param name="after">Seconds since the look before.</param>
        public HandoverDecision Look(PeerSays? peer, int left, bool vips, int quiet = 0, int after = 0)
        {
            Now += TimeSpan.FromSeconds(after);
            return Say(new Looked(Now, Seen(peer, left, vips, quiet)));
        }

        public void To(HandoverPhase phase)
        {
            Start();
            if (phase >= Emptying) Look(s_ready, 1, true);
            if (phase >= Moving) Look(s_ready, 0, true);
            if (phase >= Leaving) Look(s_master, 0, false);
            if (phase >= Away) Look(s_master, 0, false, quiet: 3);
            if (phase >= Recalling) Cancel(false);
            Assert.Equal(phase, State.Phase);
        }
    }
}
