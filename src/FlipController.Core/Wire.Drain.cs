using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace FlipController.Core;

// The records of the control socket that tell of generations which leave: drains, connections, curves. See Wire.cs.

/// <summary>Where a generation that gets no NEW connections is on its way out.</summary>
/// <param name="Step">
/// warm (undo window), opening (waits for handshakes under way), draining (soft-stopped), closing (its deadline came: connections are
/// closed over drain.spread), ending (told to end), kept (past its deadline, drain.at_deadline: keep).
/// </param>
/// <param name="Until">When this step ends at the latest; null: not by itself.</param>
/// <param name="Then">The step after it, in a few words.</param>
/// <param name="AtBegin">Connections when it began to leave; null: not known.</param>
/// <param name="Closed">Connections closed by the controller so far.</param>
/// <param name="Deadlines">Front address to the instant its connections are closed, where that differs from the others.</param>
public sealed record LeavingStatus(
    string Step, DateTimeOffset? Until, string? Then, int? AtBegin, int Closed,
    ImmutableSortedDictionary<string, DateTimeOffset>? Deadlines = null);

/// <summary>A drain that was asked for and has not ended.</summary>
/// <param name="Slot">The slot to be emptied; null: a generation was named.</param>
/// <param name="Generations">Those that must be gone.</param>
/// <param name="Deadline">How long open connections may stay, counted from each one's soft stop; null: as configured.</param>
public sealed record DrainStatus(
    int Id, Slot? Slot, ImmutableArray<int> Generations, TimeSpan? Deadline, DateTimeOffset Started, string? Reason);

/// <summary>Body of POST /v1/pairs/NAME/drain: the target has no connection and is stopped.</summary>
/// <param name="Target">blue, green or a generation's number; null: the previous generation, else every retired one.</param>
/// <param name="Deadline">How long open connections may stay, as in the configuration (<c>10m</c>); null: as configured.</param>
/// <param name="HoldSlot">Nothing starts in the slot until undrain; flips are refused.</param>
/// <param name="SkipUndo">Retire the side that was left at once, without the undo window.</param>
/// <param name="DryRun">Only tell what would be done.</param>
public sealed record DrainRequest(
    string? Target = null, string? Deadline = null, bool HoldSlot = false, bool SkipUndo = false, bool DryRun = false,
    string? Reason = null, bool Wait = true);

/// <summary>Body of POST /v1/pairs/NAME/drain/cancel and /undrain.</summary>
public sealed record UndrainRequest(string? Reason = null);

/// <summary>How a drain ended.</summary>
/// <param name="Outcome">
/// drained, failed, cancelled or unchanged (nothing was there to drain); undrained, when a held slot was given back.
/// </param>
/// <param name="Closed">Connections that did not leave by themselves and were closed.</param>
public sealed record DrainRecord(
    int Id, Slot? Slot, ImmutableArray<int> Generations, string Outcome, DateTimeOffset Started,
    [property: JsonPropertyName("duration_ms")] long DurationMs, int Closed, string? Reason, string? Error);

/// <summary>Answer to drain, drain/cancel and undrain: 200 when it is done, 202 when only accepted.</summary>
/// <param name="Drain">Null when it was accepted and not waited for, and for a dry run.</param>
/// <param name="Steps">What a drain now would do, in order; of a dry run only.</param>
public sealed record DrainAnswer(string Pair, DrainRecord? Drain, ImmutableArray<string>? Steps = null, string? Remark = null);

/// <summary>GET /v1/pairs/NAME/connections[?generation=&amp;peer=&amp;service=&amp;older=&amp;sort=&amp;limit=&amp;networks=].</summary>
/// <param name="Generations">What the three witnesses say of each generation that was looked at.</param>
/// <param name="Matched">Connections that pass the filters; <paramref name="Connections"/> holds the first of them.</param>
/// <param name="Networks">Matched connections by network of the peer, most first; null: not asked for.</param>
public sealed record ConnectionsReport(
    string Pair, DateTimeOffset At, ImmutableArray<GenerationConnections> Generations, int Total, int Matched,
    ImmutableArray<ConnectionStatus> Connections, ImmutableArray<NetworkStatus>? Networks = null);

/// <param name="Role">active, standby, previous or retired.</param>
public sealed record GenerationConnections(int Number, string Slot, string Role, ConnectionCounts Counts);

/// <summary>One connection of a client.</summary>
/// <param name="Service">The front address it came to.</param>
/// <param name="Frontend">HAProxy's names; null: HAProxy has no stream for it now, or cannot be asked.</param>
/// <param name="State">
/// The kernel's, as ss(8) says it: established, close-wait (the client has finished, HAProxy has not), fin-wait-1, fin-wait-2
/// (HAProxy has finished, the client has not).
/// </param>
/// <param name="AgeS">Seconds; null: not known.</param>
/// <param name="AgeIsAtLeast">It was there already when the controller first looked.</param>
/// <param name="IdleS">Seconds since the last byte of data either way.</param>
/// <param name="BytesIn">From the client, as the kernel has acknowledged them.</param>
/// <param name="BytesOut">To the client, as it has acknowledged them.</param>
/// <param name="Orphan">HAProxy has closed it; the kernel still delivers what was sent.</param>
public sealed record ConnectionStatus(
    int Generation, string Role, string Peer, string Service, string? Frontend, string? Backend, string? Server, string State,
    [property: JsonPropertyName("age_s")] double? AgeS, bool AgeIsAtLeast, [property: JsonPropertyName("idle_s")] double? IdleS,
    long BytesIn, long BytesOut, bool Orphan = false);

/// <param name="Network">ADDRESS/PREFIX.</param>
public sealed record NetworkStatus(
    string Network, int Connections, [property: JsonPropertyName("oldest_s")] double? OldestS,
    [property: JsonPropertyName("least_idle_s")] double? LeastIdleS, long BytesIn, long BytesOut);

/// <summary>Body of POST /v1/pairs/NAME/close. Without a filter it is refused.</summary>
/// <param name="Peer">ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT or ADDRESS/PREFIX.</param>
/// <param name="Older">Open for longer than this, as in the configuration (<c>10m</c>).</param>
/// <param name="Generation">Only on this one; null: on every retired one, with <paramref name="Force"/> on every one.</param>
/// <param name="Force">Also on generations that are not retired.</param>
public sealed record CloseRequest(
    string? Peer = null, string? Older = null, string? Service = null, int? Generation = null, bool Force = false, string? Reason = null);

/// <param name="Matched">Connections that pass the filters.</param>
/// <param name="Closed">Of those, closed.</param>
/// <param name="Remark">Why the others are not; null: there are none.</param>
public sealed record CloseAnswer(string Pair, int Matched, int Closed, string? Remark = null);

/// <summary>GET /v1/pairs/NAME/drains/GENERATION: how a generation left, while it does and after it has.</summary>
/// <param name="Flip">The flip NEW connections left it by; null: none.</param>
/// <param name="Ended">When its process was gone; null: it leaves still.</param>
public sealed record DrainCurve(
    string Pair, int Generation, string Slot, int? Flip, DateTimeOffset Began, DateTimeOffset? Ended, int Closed,
    ImmutableArray<DrainSample> Samples, ImmutableArray<DrainMark> Marks);

/// <param name="AtS">Seconds since <see cref="DrainCurve.Began"/>.</param>
/// <param name="Connections">As HAProxy counts them; the kernel's sockets where it cannot be asked.</param>
public readonly record struct DrainSample([property: JsonPropertyName("at_s")] double AtS, int Connections);

/// <param name="Kind">retired, deadline, closing, ending, ended, drain (an operator's word), cancelled.</param>
public sealed record DrainMark([property: JsonPropertyName("at_s")] double AtS, string Kind, string Text);

/// <summary>GET /v1/pairs/NAME/drains: every drain that is kept, oldest first, without their samples.</summary>
public sealed record DrainsReport(string Pair, ImmutableArray<DrainCurve> Drains);

/// <summary>What a notice of kind <c>drain</c> carries: one look at a generation that leaves.</summary>
public sealed record DrainLook(int Generation, string Slot, int Connections, LeavingStatus Leaving);
