using System.Collections.Immutable;
using FlipController.Core.Keepalived;

namespace FlipController.Core;

/// <summary>Body of POST /v1/keepalived/events: what keepalived gives a notify script.</summary>
/// <param name="Type">INSTANCE or GROUP.</param>
/// <param name="State">MASTER, BACKUP, FAULT, STOP, DELETED, or one of the rarer words of its FIFO.</param>
public sealed record KeepalivedEventRequest(string Type, string Name, string State, int? Priority = null);

/// <summary>Body of POST /v1/maintenance.</summary>
public sealed record MaintenanceRequest(bool On, string? Reason = null);

/// <summary>This node, as keepalived is told of it.</summary>
/// <param name="Lowered">It should not have the addresses.</param>
/// <param name="Reasons">Why, a sentence each; empty: nothing speaks against it.</param>
/// <param name="TrackFile">The number in keepalived.track_file; null: none is written, or none is there.</param>
/// <param name="LinkUp">Whether keepalived.link is up; null: none is used, or it is not there.</param>
/// <param name="Fault">Why keepalived is not told, or not heard; null: it is.</param>
public sealed record NodeStatus(
    bool Lowered, ImmutableArray<string> Reasons, int? TrackFile, bool? LinkUp, MaintenanceStatus? Maintenance, string? Fault);

/// <summary>Under maintenance until an operator says otherwise.</summary>
public sealed record MaintenanceStatus(DateTimeOffset Since, string? Reason);

/// <summary>GET /v1/health, and flipctl check --json.</summary>
/// <param name="Reasons">Why not, a sentence each.</param>
/// <param name="Remark">Who has looked, when it was not the daemon; null: it was.</param>
public sealed record HealthReport(bool Healthy, ImmutableArray<string> Reasons, string? Remark = null);
