using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace FlipController.Core;

/// <summary>Body of POST /v1/handover/start.</summary>
/// <param name="Deadline">As in the configuration, which says it otherwise; so do the others.</param>
public sealed record HandoverStartRequest(string? Deadline = null, int? Threshold = null, string? SecondChance = null, string? Reason = null);

/// <summary>How far this node is with handing over, or with taking over.</summary>
/// <param name="Phase">none, proving, emptying, moving, leaving, away, recalling or returning.</param>
/// <param name="Since">When the phase began.</param>
/// <param name="MovesBy">The VIPs move then, however many are left.</param>
/// <param name="Left">Connections of others at the VIPs that are open here.</param>
/// <param name="OfThisHost">Those of clients on this very host, which are led nowhere and not waited for.</param>
/// <param name="AtPeer">Open at the VIPs on the peer; null: it did not say.</param>
/// <param name="PacketsLed">Packets led to the peer since the handover began.</param>
/// <param name="Diverts">NEW connections go to the peer now: the phase wants it, and the peer has proven itself within the last second.</param>
/// <param name="Lowered">keepalived is told that this node should not have the VIPs.</param>
/// <param name="VipsHere">Those that are on a device of this node.</param>
/// <param name="VipsAtPeer">Every one is on a device of the peer; null: it did not say.</param>
/// <param name="Note">What stands in its way now.</param>
/// <param name="Outcome">How the last one ended; null: none has.</param>
/// <param name="Failed">That was not what was asked for.</param>
/// <param name="Receiving">The peer hands over to this node; null: it does not.</param>
public sealed record HandoverReport(
    string Phase, string? Id, DateTimeOffset? Started, DateTimeOffset? Since, [property: JsonPropertyName("moves_by")] DateTimeOffset? MovesBy,
    int Left, [property: JsonPropertyName("of_this_host")] int OfThisHost, [property: JsonPropertyName("at_peer")] int? AtPeer,
    [property: JsonPropertyName("packets_led")] long PacketsLed, bool Diverts, bool Lowered, [property: JsonPropertyName("vips_here")] ImmutableArray<string> VipsHere,
    [property: JsonPropertyName("vips_at_peer")] bool? VipsAtPeer, string? Note, string? Outcome, bool Failed, HandoverReceiving? Receiving);

/// <param name="Heard">When the peer said something of it last.</param>
/// <param name="Old">Connections of the peer that are led back to it.</param>
public sealed record HandoverReceiving(string Id, string Phase, DateTimeOffset Since, DateTimeOffset Heard, int Old);
