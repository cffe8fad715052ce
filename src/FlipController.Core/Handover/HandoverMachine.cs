namespace FlipController.Core.Handover;

/// <summary>
/// The giving side of a handover, pure: what holds in the kernel and in keepalived follows from the state it returns. Connections come
/// before the wish: without a peer that is proven now nothing goes there, and nothing that was led there is let go while it lives.
/// </summary>
public static class HandoverMachine
{
    /// <summary>A peer that has not said by then that it is ready is none.</summary>
    public static readonly TimeSpan ProvingTime = TimeSpan.FromSeconds(10);

    /// <summary>After so long without a peer the handover is given up.</summary>
    public static readonly TimeSpan PeerPatience = TimeSpan.FromSeconds(30);

    /// <summary>keepalived needs three advertisements and a little more; VRRP's slowest advertisement that is in use is 1 s.</summary>
    public static readonly TimeSpan UsualMove = TimeSpan.FromSeconds(10);

    /// <summary>When for so long nothing had to be led on, neighbours have learnt where the VIPs are.</summary>
    public static readonly TimeSpan QuietTime = TimeSpan.FromSeconds(3);

    /// <summary>How long the peer may take to begin handing back.</summary>
    public static readonly TimeSpan RecallTime = TimeSpan.FromSeconds(20);

    public static HandoverDecision Decide(HandoverState state, HandoverEvent happened) => happened switch
    {
        StartWanted wanted => Start(state, wanted),
        CancelWanted wanted => Cancel(state, wanted),
        FinishWanted wanted => Finish(state, wanted),
        VipsCome come => Stay(state is { Phase: HandoverPhase.Away or HandoverPhase.Recalling or HandoverPhase.Leaving } ? state with { IsLowered = false } : state),
        NotPrepared failed => NotPrepared(state, failed),
        Looked looked => Look(Peer(state, looked), looked.At, looked.Look),
        _ => Stay(state),
    };

    private static HandoverDecision Start(HandoverState state, StartWanted wanted)
    {
        if (state.Phase is HandoverPhase.Away or HandoverPhase.Recalling)
            return Denied(state, "this node was handed over already; `flipctl handover cancel` brings it back");
        // One that ends by itself may be taken up again; one that goes on is the same.
        if (state.Phase is not (HandoverPhase.None or HandoverPhase.Returning)) return Denied(state, $"a handover is under way ({Name(state.Phase)})");
        if (!wanted.Look.HoldsVips) return Denied(state, "this node does not have the VIPs: there is nothing to hand over");
        if (wanted.Look.Peer is { IsGiving: true } && !wanted.AsReturn) return Denied(state, "the peer hands over to this node");
        return Stay(new HandoverState(HandoverPhase.Proving, wanted.Id, wanted.At, wanted.At, wanted.Wish, wanted.AsReturn, false, false, null, null, null, false));
    }

    private static HandoverDecision Cancel(HandoverState state, CancelWanted wanted) => state.Phase switch
    {
        HandoverPhase.None => Denied(state, "there is no handover"),
        HandoverPhase.Returning or HandoverPhase.Recalling => Denied(state, "it is being undone already"),
        HandoverPhase.Proving => End(state, wanted.At, "cancelled before anything was led away", failed: true),
        HandoverPhase.Emptying or HandoverPhase.Moving => Stay(Enter(state, HandoverPhase.Returning, wanted.At) with
        {
            IsLowered = false, IsRecalled = true, Note = null, Outcome = "cancelled", Failed = true,
        }),
        _ when wanted.Look.HoldsVips => Back(state, wanted.At),
        _ => Recall(state, wanted.At),
    };

    private static HandoverDecision Finish(HandoverState state, FinishWanted wanted) => state.Phase switch
    {
        // By the last look that was finished: at this very instant the peer may be being asked again.
        HandoverPhase.Emptying when state.PeerLostAt is null => Stay(Move(state, wanted.At)),
        HandoverPhase.Emptying => Denied(state, $"the VIPs cannot move to a peer that is not proven{(state.Note is null ? "" : $": {state.Note}")}"),
        HandoverPhase.Leaving => Gone(state, wanted.At, wanted.Look),
        HandoverPhase.Returning => End(state, wanted.At, state.Outcome ?? "ended", state.Failed),
        HandoverPhase.Away => Stay(Ended(state, wanted.At, "this node may have the VIPs again", false)),
        _ => Denied(state, state.Phase == HandoverPhase.None ? "there is no handover" : $"nothing can be hastened now ({Name(state.Phase)})"),
    };

    private static HandoverDecision NotPrepared(HandoverState state, NotPrepared failed) => state.Phase switch
    {
        // Nothing depends on it yet.
        HandoverPhase.Proving => End(state, failed.At, failed.Why, failed: true),
        _ => Stay(state with { Note = failed.Why }),
    };

    /// <summary>Notes since when the peer is not to be relied on; of who is away, or waits to get everything back, nothing depends on that.</summary>
    private static HandoverState Peer(HandoverState state, Looked looked) => !state.HasRules || state.Phase == HandoverPhase.Recalling ? state : looked.Look.Peer is { Ready: true }
        ? state with { PeerLostAt = null, Note = state.PeerLostAt is null ? state.Note : null }
        : state with { PeerLostAt = state.PeerLostAt ?? looked.At, Note = looked.Look.Peer?.Why ?? looked.Look.Trouble ?? "the peer does not answer" };

    private static HandoverDecision Look(HandoverState state, DateTimeOffset now, HandoverLook look)
    {
        TimeSpan age = now - state.Since;
        state = state with { NobodyAt = !look.HoldsVips && look.Peer is { HoldsVips: false } ? state.NobodyAt ?? now : null };
        // Where lowering is a FAULT the VIPs are gone at once, whether or not the peer's keepalived lives.
        if (state is { Phase: HandoverPhase.Moving or HandoverPhase.Leaving, NobodyAt: { } nobody } && now - nobody >= UsualMove)
            return Stay(Enter(state, HandoverPhase.Returning, now) with
            {
                IsLowered = false, NobodyAt = null, Outcome = "taken back, as the peer did not take the VIPs: does its keepalived run?", Failed = true,
            });
        switch (state.Phase)
        {
            case HandoverPhase.Proving:
                if (look.Peer is { Ready: true }) return Stay(Enter(state, HandoverPhase.Emptying, now) with { Note = null });
                // What it says of itself it has looked at; only silence may pass.
                return look.Peer is not null || age >= ProvingTime ? End(state, now, $"the peer cannot take over: {state.Note}", failed: true) : Stay(state);

            case HandoverPhase.Emptying:
                if (!look.HoldsVips && look.Peer is { HoldsVips: true }) return Stay(Enter(state, HandoverPhase.Leaving, now) with { IsLowered = true, Note = null });
                if (state.PeerLostAt is { } lost)
                    return now - lost < PeerPatience ? Stay(state)
                        : Stay(Enter(state, HandoverPhase.Returning, now) with { Outcome = $"given up, as the peer was lost: {state.Note}", Failed = true });
                return look.Left <= state.Wish!.Threshold || now - state.Started >= state.Wish.Deadline ? Stay(Move(state, now)) : Stay(state);

            case HandoverPhase.Moving:
                if (!look.HoldsVips && look.Peer is { HoldsVips: true }) return Stay(Enter(state, HandoverPhase.Leaving, now) with { Note = null });
                // Lowered, and nobody else to have them: keepalived must not be kept from having them here.
                if (state.PeerLostAt is not null && look.HoldsVips) return Stay(Enter(state, HandoverPhase.Emptying, now) with { IsLowered = false });
                return Stay(state.PeerLostAt is null && age >= UsualMove && look.HoldsVips
                    ? state with { Note = "keepalived has not let go of the VIPs: does the lowered priority cross the peer's, and may the peer preempt?" }
                    : state);

            case HandoverPhase.Leaving:
                if (look.HoldsVips && look.Peer is not { HoldsVips: true }) return CameBack(state, now);
                if (state.IsRecalled && look.Peer is { Ready: true }) return Recall(state, now);
                return (look.Left == 0 && look.Quiet >= QuietTime && look.Peer is { HoldsVips: true }) || age >= state.Wish!.SecondChance ? Gone(state, now, look) : Stay(state);

            case HandoverPhase.Recalling:
                if (look.HoldsVips) return Back(state, now);
                return look.Peer is not { IsGiving: true } && age >= RecallTime
                    ? Stay(Enter(state, HandoverPhase.Away, now) with { IsLowered = true, IsRecalled = false, Note = "the peer did not hand back" })
                    : Stay(state);

            case HandoverPhase.Away:
                // The peer has handed back by itself, or has died.
                return look.HoldsVips && !state.IsLowered ? Back(state, now) : Stay(state);

            case HandoverPhase.Returning:
                // It was cancelled at the very instant of the move.
                if (!look.HoldsVips && look.Peer is { HoldsVips: true } && state.IsRecalled)
                    return Stay(Enter(state, HandoverPhase.Leaving, now) with { IsLowered = true });
                return (look.Peer is null or { Connections: 0 } && look.Quiet >= QuietTime && age >= QuietTime && (look.Peer is not null || age >= PeerPatience))
                    || age >= state.Wish!.SecondChance
                    ? End(state, now, state.Outcome ?? "ended", state.Failed)
                    : Stay(state);

            default:
                return Stay(state);
        }
    }

    private static HandoverState Move(HandoverState state, DateTimeOffset now) => Enter(state, HandoverPhase.Moving, now) with { IsLowered = true, Note = null };

    private static HandoverDecision Recall(HandoverState state, DateTimeOffset now) =>
        new(Enter(state, HandoverPhase.Recalling, now) with { IsRecalled = false, Note = null }, [HandoverEffect.AskReturn]);

    private static HandoverDecision Gone(HandoverState state, DateTimeOffset now, HandoverLook look)
    {
        string outcome = look.Left == 0 ? "the peer has the VIPs, and nobody is left here"
            : $"the peer has the VIPs; {look.Left} old connections were no longer led back and are cut";
        return state.IsReturn ? End(state, now, outcome, look.Left > 0)
            : new(Enter(state, HandoverPhase.Away, now) with { Outcome = outcome, Failed = look.Left > 0, Note = null }, [HandoverEffect.TellEnd]);
    }

    /// <summary>The VIPs are here as they were before.</summary>
    private static HandoverDecision Back(HandoverState state, DateTimeOffset now) =>
        state.Phase == HandoverPhase.Away ? Stay(Ended(state, now, "this node has the VIPs again", false))
            : Stay(Enter(state, HandoverPhase.Returning, now) with { IsLowered = false, IsRecalled = false, Note = null, Outcome = "this node has the VIPs again", Failed = false });

    private static HandoverDecision CameBack(HandoverState state, DateTimeOffset now) =>
        Stay(Enter(state, HandoverPhase.Returning, now) with
        {
            IsLowered = false, Outcome = "the VIPs came back, as the peer let go of them", Failed = true,
        });

    private static HandoverState Enter(HandoverState state, HandoverPhase phase, DateTimeOffset now) => state with { Phase = phase, Since = now };

    private static HandoverState Ended(HandoverState state, DateTimeOffset now, string outcome, bool failed) => HandoverState.Initial with
    {
        Id = state.Id, Started = state.Started, Since = now, Outcome = outcome, Failed = failed,
    };

    private static HandoverDecision End(HandoverState state, DateTimeOffset now, string outcome, bool failed) =>
        new(Ended(state, now, outcome, failed), [HandoverEffect.TellEnd]);

    private static HandoverDecision Stay(HandoverState state) => new(state, []);

    private static HandoverDecision Denied(HandoverState state, string why) => new(state, [], why);

    public static string Name(HandoverPhase phase) => phase.ToString().ToLowerInvariant();
}
