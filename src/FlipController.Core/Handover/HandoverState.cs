using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace FlipController.Core.Handover;

/// <summary>How far this node is with handing its NEW connections, and then its VIPs, to the peer.</summary>
public enum HandoverPhase
{
    /// <summary>Nothing is handed over, and nothing of it is in the kernel.</summary>
    None,
    /// <summary>The peer is asked whether it can take them; opening SYNs are noted, none is led away.</summary>
    Proving,
    /// <summary>NEW connections go to the peer, open ones stay.</summary>
    Emptying,
    /// <summary>keepalived has been told to let go of the VIPs.</summary>
    Moving,
    /// <summary>The peer has the VIPs and leads the packets of our old connections back to us.</summary>
    Leaving,
    /// <summary>Nobody is here any more; the node stays lowered until it is brought back.</summary>
    Away,
    /// <summary>The peer was asked to hand everything back.</summary>
    Recalling,
    /// <summary>NEW connections are served here again; those that went to the peer are led there until they end.</summary>
    Returning,
}

/// <param name="Deadline">After so long the VIPs move, however many are left.</param>
/// <param name="Threshold">They move as soon as no more than so many are left.</param>
/// <param name="SecondChance">For so long after the move old connections are led back.</param>
public sealed record HandoverWish(TimeSpan Deadline, int Threshold, TimeSpan SecondChance, string? Reason = null);

/// <summary>What this node gives away, saved before it is acted on.</summary>
/// <param name="Id">Of this handover on both nodes; null: there was none.</param>
/// <param name="Since">When the phase began.</param>
/// <param name="IsReturn">The peer is brought back by it: at its end this node is not kept lowered.</param>
/// <param name="IsRecalled">It was cancelled when the VIPs might have moved already.</param>
/// <param name="IsLowered">keepalived is told that this node should not have the VIPs.</param>
/// <param name="PeerLostAt">Since when the peer could not be relied on; null: it can.</param>
/// <param name="NobodyAt">Since when neither node has the VIPs; null: one does, or it is not known.</param>
/// <param name="Note">What stands in its way now, in one sentence.</param>
/// <param name="Outcome">How the last one ended, in one sentence; null: none has.</param>
/// <param name="Failed">That was not what was asked for.</param>
public sealed record HandoverState(
    HandoverPhase Phase, string? Id, DateTimeOffset Started, DateTimeOffset Since, HandoverWish? Wish, bool IsReturn, bool IsRecalled, bool IsLowered,
    DateTimeOffset? PeerLostAt, string? Note, string? Outcome, bool Failed, DateTimeOffset? NobodyAt = null)
{
    public static HandoverState Initial { get; } = new(HandoverPhase.None, null, default, default, null, false, false, false, null, null, null, false);

    /// <summary>NEW connections of clients are led to the peer while it is proven.</summary>
    [JsonIgnore]
    public bool Diverts => Phase is HandoverPhase.Emptying or HandoverPhase.Moving or HandoverPhase.Leaving;

    /// <summary>There are rules of it in the kernel.</summary>
    [JsonIgnore]
    public bool HasRules => Phase is not (HandoverPhase.None or HandoverPhase.Away);
}

/// <summary>What the peer says of itself.</summary>
/// <param name="Why">Why it is not ready to take NEW connections; null: it is.</param>
/// <param name="HoldsVips">Every VIP is on a device of its own.</param>
/// <param name="Connections">Open on it at the VIPs.</param>
/// <param name="IsGiving">It hands over to us.</param>
public sealed record PeerSays(string? Why, bool HoldsVips, int Connections, bool IsGiving)
{
    public bool Ready => Why is null;
}

/// <summary>What is, at one instant.</summary>
/// <param name="Peer">Null: it did not answer.</param>
/// <param name="Trouble">Why it did not.</param>
/// <param name="Left">Connections of others at the VIPs that are open here.</param>
/// <param name="HoldsVips">At least one VIP is on a device of ours.</param>
/// <param name="Quiet">For how long no packet was led to the peer.</param>
public sealed record HandoverLook(PeerSays? Peer, string? Trouble, int Left, bool HoldsVips, TimeSpan Quiet);

public abstract record HandoverEvent(DateTimeOffset At);

/// <param name="AsReturn">The peer asks for it, to be brought back.</param>
public sealed record StartWanted(DateTimeOffset At, string Id, HandoverWish Wish, HandoverLook Look, bool AsReturn = false) : HandoverEvent(At);

public sealed record CancelWanted(DateTimeOffset At, HandoverLook Look) : HandoverEvent(At);

/// <summary>Go on to the next step, whoever is left.</summary>
public sealed record FinishWanted(DateTimeOffset At, HandoverLook Look) : HandoverEvent(At);

public sealed record Looked(DateTimeOffset At, HandoverLook Look) : HandoverEvent(At);

/// <summary>The peer, which hands over to us, moves the VIPs now.</summary>
public sealed record VipsCome(DateTimeOffset At) : HandoverEvent(At);

/// <summary>What the phase needs could not be put into the kernel.</summary>
public sealed record NotPrepared(DateTimeOffset At, string Why) : HandoverEvent(At);

public enum HandoverEffect
{
    /// <summary>Ask the peer to hand its connections and the VIPs to us.</summary>
    AskReturn,
    /// <summary>Tell the peer that it is over: it removes what it has of it.</summary>
    TellEnd,
}

/// <param name="Denial">Why what was wanted is refused; then nothing changes.</param>
public sealed record HandoverDecision(HandoverState Next, ImmutableArray<HandoverEffect> Effects, string? Denial = null);
