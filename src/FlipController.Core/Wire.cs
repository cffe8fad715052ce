using System.Collections.Immutable;
using System.Text.Json;
using System.Text.Json.Serialization;
using FlipController.Core.Keepalived;

namespace FlipController.Core;

// What crosses the control socket, in both directions: `flipctl --json` prints these very records.
// Names are camelCase; a name that carries a unit keeps it after an underscore (duration_ms), as operators grep for it.

/// <param name="Keepalived">What is known of the instances and groups that keepalived has spoken of; null: it is not listened to.</param>
/// <param name="Node">What keepalived is told of this node; null: it is told nothing.</param>
public sealed record StatusReport(ImmutableArray<PairStatus> Pairs, ImmutableArray<VrrpStanding>? Keepalived = null, NodeStatus? Node = null);

/// <param name="State">
/// cold, preparing, gating, switching, watching, returning, restoring, steady, faulted, releasing or released.
/// </param>
/// <param name="Standby">The generation being proven, null when none is.</param>
/// <param name="Previous">The generation one transaction away, while the undo window is open.</param>
/// <param name="Pending">A newer change waits for the flip under way to end.</param>
/// <param name="Redirect">How NEW connections are sent, and to which generation the kernel sends them now.</param>
/// <param name="UndoEnds">When the undo window closes, while it is open.</param>
/// <param name="Fault">What is wrong now, in one sentence; null when nothing is.</param>
/// <param name="Warnings">
/// What HAProxy said when the active generation was started; private ports that are not the pair's own; rules of others that disturb it.
/// </param>
/// <param name="Drain">The drain that was asked for and has not ended.</param>
/// <param name="HeldSlot">The slot in which nothing starts, until undrain.</param>
/// <param name="Fronts">Where the paths of unix sockets lead that the active generation serves; null: it serves none.</param>
/// <param name="HeldBack">Why the change that waits does not begin though nothing is under way; null: it may, or none waits.</param>
/// <param name="Unmanaged">The HAProxy that NEW connections were taken over from; null: none was.</param>
public sealed record PairStatus(
    string Name, string State, GenerationStatus? Active, GenerationStatus? Standby, GenerationStatus? Previous,
    ImmutableArray<GenerationStatus> Retired, bool Pending, RedirectStatus Redirect, HoldStatus Hold, FlipRecord? LastFlip,
    DateTimeOffset? UndoEnds, string? Fault, ImmutableArray<string> Warnings, UnmanagedStatus? Unmanaged = null,
    DrainStatus? Drain = null, Slot? HeldSlot = null, ImmutableArray<FrontStatus>? Fronts = null, string? HeldBack = null);

/// <summary>A unix socket's path at which clients connect, as it is in the file system now.</summary>
/// <param name="LeadsTo">The generation's socket; null: it is not our link.</param>
/// <param name="Generation">Whose that is; null: nobody's of the pair.</param>
public sealed record FrontStatus(string Path, string? LeadsTo, int? Generation);

/// <param name="Name">Its systemd unit, or its program.</param>
/// <param name="Pid">Of its master, or of its only process; null: it does not run.</param>
/// <param name="Listens">It still listens on the front addresses: NEW connections would be its own without the redirect.</param>
/// <param name="Connections">Open connections of its own on the front addresses.</param>
/// <param name="ToldToStop">It was asked to stop listening.</param>
public sealed record UnmanagedStatus(string Name, int? Pid, bool Listens, int Connections, bool ToldToStop);

/// <param name="Generation">The generation whose chain the pair's one rule names, read from the kernel; null: no rule.</param>
public sealed record RedirectStatus(string Method, int? Generation);

/// <param name="Why">Why auto chose <paramref name="Method"/>.</param>
public sealed record HoldStatus(string Configured, string Method, string Why);

/// <param name="Ports">Front address to private port.</param>
/// <param name="Version">HAProxy's own; null: the pair runs commands.</param>
/// <param name="Closes">For a retired generation: when its drain deadline comes.</param>
/// <param name="MemoryBytes">Resident memory of its process; null: it is gone.</param>
/// <param name="Fronts">Path of a unix socket that clients connect to, to the generation's own; null: it has none.</param>
/// <param name="Leaving">For a previous or retired generation: how far it is.</param>
/// <param name="Unit">The systemd unit that runs it; null: none does (<c>haproxy.driver</c> when it was started).</param>
public sealed record GenerationStatus(
    string Slot, int Number, int Pid, [property: JsonPropertyName("config_sha256")] string ConfigSha256, DateTimeOffset Since,
    ImmutableSortedDictionary<string, int> Ports, ConnectionCounts Connections, string? Version, DateTimeOffset? Closes,
    [property: JsonPropertyName("memory_bytes")] long? MemoryBytes = null, LeavingStatus? Leaving = null, string? Unit = null,
    ImmutableSortedDictionary<string, string>? Fronts = null);

/// <summary>Three witnesses side by side; null: that one could not be asked.</summary>
/// <param name="Conntrack">Conntrack entries with the generation's mark in a state that means a live connection.</param>
/// <param name="Sockets">The kernel's sockets of its process on its private ports, and what the kernel still delivers of those it closed.</param>
/// <param name="Haproxy">HAProxy's own CurrConns; null for what is not HAProxy.</param>
/// <param name="Why">Why they disagree, a sentence each; null: they do not.</param>
/// <param name="Unix">The kernel's unix sockets of its clients in this network namespace, of which HAProxy's count is the only other witness; null: it serves no path.</param>
public sealed record ConnectionCounts(int? Conntrack, int? Sockets, int? Haproxy, ImmutableArray<string>? Why = null, int? Unix = null);

/// <param name="Trigger">
/// start, files, operator, rollback, death (the active one died and is being replaced), adopt, release or drain.
/// </param>
/// <param name="Outcome">done, failed, returned (flipped back by itself), rolled-back (by an operator) or unchanged.</param>
/// <param name="Error">Why it failed or returned, in one sentence.</param>
/// <param name="OldSideConnections">Connections open on the old side at the instant of the switch, which stay there.</param>
/// <param name="Carried">Runtime changes of the old side that were made on the new one, a sentence each; null: none.</param>
/// <param name="Lost">Runtime changes of the old side that the new one does not have, and why; null: none.</param>
public sealed record FlipRecord(
    int Id, string Trigger, int? From, int? To, string Outcome, DateTimeOffset Started,
    [property: JsonPropertyName("duration_ms")] long DurationMs, HoldReport? Hold, string? Reason, string? Error,
    int? OldSideConnections = null, ImmutableArray<string>? Carried = null, ImmutableArray<string>? Lost = null);

/// <summary>What became of the changes made on the active one's admin socket; null: there are none of that kind.</summary>
public sealed record RuntimeFate(ImmutableArray<string>? Carried, ImmutableArray<string>? Lost);

/// <param name="WindowUs">From closing the hold (with none: from the start of the transaction) to opening it, microseconds.</param>
/// <param name="Held">Connections that waited.</param>
/// <param name="LongestWaitUs">At most so long did the first of them wait, microseconds.</param>
/// <param name="Remark">What was not as it should be, in a sentence; null: nothing.</param>
public sealed record HoldReport(
    string Method, [property: JsonPropertyName("window_us")] long WindowUs, int Held,
    [property: JsonPropertyName("longest_wait_us")] long LongestWaitUs, string? Remark = null);

/// <summary>Body of POST /v1/pairs/NAME/flip.</summary>
/// <param name="Wait">Answer when the flip has ended; false: as soon as it is accepted.</param>
/// <param name="AllowDrop">Consent to front addresses that the new configuration no longer has.</param>
/// <param name="Binary">
/// Run this program from now on, until a rollback or another word in the configuration: an absolute path, or a name in PATH.
/// </param>
public sealed record FlipRequest(string? Reason = null, bool Wait = true, bool AllowDrop = false, string? Binary = null);

/// <summary>Body of POST /v1/pairs/NAME/rollback.</summary>
public sealed record RollbackRequest(string? Reason = null, bool Wait = true);

/// <summary>Body of POST /v1/pairs/NAME/adopt: NEW connections of the HAProxy that listens on the front addresses go to the pair.</summary>
/// <param name="Stop">Then tell it to stop listening; false: it is left as the fallback.</param>
public sealed record AdoptRequest(string? Reason = null, bool Wait = true, bool Stop = false);

/// <summary>Body of POST /v1/pairs/NAME/release: NEW connections go to the unmanaged HAProxy.</summary>
/// <param name="Unit">The systemd unit to start when nobody listens; null: what was adopted.</param>
public sealed record ReleaseRequest(string? Reason = null, bool Wait = true, string? Unit = null);

/// <summary>Answer to a flip, rollback, adopt or release: 200 when it is done, 202 when only accepted.</summary>
/// <param name="Flip">Null when it was accepted and not waited for.</param>
/// <param name="Remark">What else there is to know, in sentences; null: nothing.</param>
public sealed record FlipAnswer(string Pair, FlipRecord? Flip, string? Remark = null);

/// <summary>Every answer that is not a success. Code: failed (422), usage (400, 404), refused (409).</summary>
public sealed record ErrorAnswer(string Code, string Error);

/// <summary>GET /v1/pairs/NAME/history, newest last.</summary>
public sealed record HistoryReport(string Pair, ImmutableArray<FlipRecord> Flips);

/// <summary>flipctl history --json without a pair.</summary>
public sealed record HistoriesReport(ImmutableArray<HistoryReport> Pairs);

/// <summary>One line of GET /v1/events[?pair=NAME], newline-delimited JSON.</summary>
/// <param name="Kind">state, progress, flip, drain, drained or fault.</param>
/// <param name="State">The pair's state after it; of a drain, the step the generation is in.</param>
/// <param name="Text">One sentence for a person.</param>
public sealed record PairNotice(DateTimeOffset At, string Pair, string Kind, string State, string Text, FlipRecord? Flip = null,
    DrainLook? Drain = null);

/// <summary>GET /v1/pairs/NAME/render/SLOT: the slot's HAProxy configuration.</summary>
/// <param name="Notes">FILE:LINE: what is projected and yet worth knowing.</param>
/// <param name="Haproxy">flipctl render --check: what HAProxy says to it, in the user's own lines.</param>
public sealed record RenderReport(
    string Pair, string Slot, ImmutableArray<RenderedText> Files, ImmutableArray<string>? Notes = null, string? Haproxy = null);

/// <param name="Source">The user's file it was made from; null for the part that is ours.</param>
public sealed record RenderedText(string Path, string? Source, string Text);

/// <summary>GET /v1/pairs/NAME/plan: what a flip now would change, nothing touched.</summary>
/// <param name="Problems">Why a flip now would be refused; empty when it would not.</param>
/// <param name="ServicesChanged">Front addresses that stay, with other parameters of their bind line.</param>
/// <param name="BinaryNow">What the active generation runs; null: there is none.</param>
/// <param name="BinaryThen">What a flip now would run.</param>
/// <param name="RuntimeChanges">What was changed on the active one's admin socket and stands in no file.</param>
/// <param name="Notes">What a reader of the configuration should know about its copy.</param>
public sealed record PlanReport(
    string Pair, bool Changes, string? Slot, ImmutableArray<string> ServicesAdded, ImmutableArray<string> ServicesRemoved,
    ImmutableArray<string> ServicesKept, ImmutableArray<ServiceChange> ServicesChanged, string ConfigDiff, string RulesetDiff,
    BinaryReport? BinaryNow, BinaryReport? BinaryThen, ImmutableArray<RuntimeChangeReport> RuntimeChanges,
    ImmutableArray<string> Notes, ImmutableArray<string> Problems);

/// <param name="Before">The parameters of its bind line for the active generation.</param>
/// <param name="After">The same on disk.</param>
public sealed record ServiceChange(string Service, string Before, string After);

/// <param name="Version">What it says of itself; null: it does not run.</param>
public sealed record BinaryReport(string Path, string? Version);

/// <param name="Subject">What was changed: <c>server app/s1</c>, <c>map /etc/haproxy/hosts.map</c>, <c>process</c>.</param>
/// <param name="Text">How, in a few words.</param>
/// <param name="Carried">Whether a flip now would make it again on the new side.</param>
/// <param name="Why">Why not.</param>
public sealed record RuntimeChangeReport(string Subject, string Text, bool Carried, string? Why);

/// <summary>flipctl check-config --json and flipctl doctor --json.</summary>
public sealed record CheckReport(bool Ok, ImmutableArray<CheckLine> Lines);

/// <param name="Remedy">What to do about it, when it is not right.</param>
public sealed record CheckLine(string Subject, bool Ok, string Found, string? Remedy = null, bool Warning = false);

/// <summary>flipctl protect, with --json on stderr and with --report in a file.</summary>
/// <param name="OpenedBy">command (it ended), cap, signal, or switch (protect itself was frozen or late).</param>
/// <param name="WindowUs">From closing the hold to opening it, microseconds.</param>
/// <param name="Dropped">Lost, as the limit was reached; with method drop: all that came.</param>
/// <param name="NotAccepted">Connections from before the hold that nobody had accepted yet when the command was started.</param>
/// <param name="ExitCode">The command's, and flipctl's.</param>
/// <param name="Error">Why the command was not started; null: it was.</param>
public sealed record ProtectReport(
    ImmutableArray<int> Ports, ImmutableArray<string> Command, string Method, string Why, string OpenedBy,
    [property: JsonPropertyName("window_us")] long WindowUs, long Held, [property: JsonPropertyName("longest_wait_us")] long LongestWaitUs,
    long Dropped, int NotAccepted, int ExitCode, string? Reason, string? Error, ImmutableArray<string> Warnings);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(StatusReport))]
[JsonSerializable(typeof(FlipRequest))]
[JsonSerializable(typeof(RollbackRequest))]
[JsonSerializable(typeof(AdoptRequest))]
[JsonSerializable(typeof(ReleaseRequest))]
[JsonSerializable(typeof(FlipAnswer))]
[JsonSerializable(typeof(ErrorAnswer))]
[JsonSerializable(typeof(HistoryReport))]
[JsonSerializable(typeof(HistoriesReport))]
[JsonSerializable(typeof(PairNotice))]
[JsonSerializable(typeof(RenderReport))]
[JsonSerializable(typeof(PlanReport))]
[JsonSerializable(typeof(CheckReport))]
[JsonSerializable(typeof(DrainRequest))]
[JsonSerializable(typeof(UndrainRequest))]
[JsonSerializable(typeof(DrainAnswer))]
[JsonSerializable(typeof(ConnectionsReport))]
[JsonSerializable(typeof(CloseRequest))]
[JsonSerializable(typeof(CloseAnswer))]
[JsonSerializable(typeof(DrainCurve))]
[JsonSerializable(typeof(DrainsReport))]
[JsonSerializable(typeof(ProtectReport))]
[JsonSerializable(typeof(HandoverStartRequest))]
[JsonSerializable(typeof(HandoverReport))]
[JsonSerializable(typeof(KeepalivedEventRequest))]
[JsonSerializable(typeof(VrrpStanding))]
[JsonSerializable(typeof(MaintenanceRequest))]
[JsonSerializable(typeof(NodeStatus))]
[JsonSerializable(typeof(HealthReport))]
public sealed partial class WireJson : JsonSerializerContext;
