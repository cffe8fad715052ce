using System.Collections.Immutable;
using System.Net;

namespace FlipController.Core;

/// <summary>Where keepalived is heard, and how it is told that this node should not have its addresses.</summary>
public sealed record KeepalivedOptions
{
    /// <summary>Its <c>vrrp_notify_fifo</c> or <c>notify_fifo</c>, which it makes itself; null: events come by <c>flipctl notify</c> alone.</summary>
    public string? Fifo { get; init; }
    /// <summary>A file that a <c>track_file</c> of its configuration names; null: none is written.</summary>
    public TrackFileOptions? TrackFile { get; init; }
    /// <summary>A device that its <c>track_interface</c> names, set down for as long; null: none is touched.</summary>
    public string? Link { get; init; }
}

public sealed record TrackFileOptions
{
    public string Path { get; init; } = "/run/flipcontroller/keepalived.track";
    /// <summary>What stands there while this node should not have the addresses, else 0; keepalived multiplies it by its own weight.</summary>
    public int Weight { get; init; } = 100;
}

/// <summary>The daemon of the other node.</summary>
public sealed record PeerOptions
{
    /// <summary>ADDRESS:PORT of this node, where the other one asks.</summary>
    public string Listen { get; init; } = "";
    /// <summary>ADDRESS:PORT of the other node.</summary>
    public string Address { get; init; } = "";
    /// <summary>A file of at least 32 bytes, the same on both nodes.</summary>
    public string Key { get; init; } = "/etc/flipcontroller/peer.key";
}

/// <summary>Emptying this node before its addresses move to the other one.</summary>
public sealed record HandoverOptions
{
    /// <summary>The addresses that keepalived moves.</summary>
    public ImmutableArray<IPAddress> Vips { get; init; } = [];
    /// <summary>Where clients come in; empty: the device by which the peer is reached.</summary>
    public string Device { get; init; } = "";
    /// <summary>Then the addresses move, however many connections are left.</summary>
    public TimeSpan Deadline { get; init; } = TimeSpan.FromMinutes(10);
    /// <summary>They move as soon as so few are left.</summary>
    public int Threshold { get; init; }
    /// <summary>How long after the move old connections are still led back.</summary>
    public TimeSpan SecondChance { get; init; } = TimeSpan.FromMinutes(10);
}

/// <summary>What keepalived's states mean to one pair.</summary>
public sealed record PairKeepalivedOptions
{
    /// <summary>The name of a <c>vrrp_instance</c>; null: <see cref="Group"/> is told.</summary>
    public string? Instance { get; init; }
    /// <summary>The name of a <c>vrrp_sync_group</c>; null: <see cref="Instance"/> is told.</summary>
    public string? Group { get; init; }
    public KeepalivedRole Role { get; init; } = KeepalivedRole.Always;
    /// <summary>In FAULT.</summary>
    public TroubleRule Fault { get; init; } = TroubleRule.Freeze;
    /// <summary>When keepalived has stopped, or no longer has the instance.</summary>
    public TroubleRule Stop { get; init; } = TroubleRule.Ignore;
}

/// <summary>On which node a changed file flips by itself.</summary>
public enum KeepalivedRole
{
    Always,
    /// <summary>While it is MASTER; else the change waits until it is.</summary>
    MasterOnly,
    /// <summary>On the BACKUP at once; on the MASTER once the same files are proven there.</summary>
    BackupFirst,
}

/// <summary>No flip begins by itself, or flips begin as ever.</summary>
public enum TroubleRule { Freeze, Ignore }

/// <summary>Our own events, told in keepalived's style.</summary>
public sealed record EventsOptions
{
    /// <summary>A FIFO of ours; who reads it reads them in order.</summary>
    public string Fifo { get; init; } = "/run/flipcontroller/events.fifo";
}
