using System.Globalization;

namespace FlipController.Core.Keepalived;

/// <summary>What a pair tells in keepalived's style: the closed list of states.</summary>
public enum OwnState
{
    /// <summary>The active generation is healthy and NEW connections are led to it: at the start, and when a FAULT is over.</summary>
    Master,
    /// <summary>There is no healthy active generation.</summary>
    Fault,
    /// <summary>NEW connections go to another generation.</summary>
    Switched,
    /// <summary>They went back to the previous one.</summary>
    Returned,
    /// <summary>A flip failed; nothing was moved.</summary>
    Failed,
    /// <summary>A retired generation has no connection left and is gone.</summary>
    Drained,
    /// <summary>An operator has put this node under maintenance.</summary>
    Maintenance,
    /// <summary>NEW connections of this node go to the peer.</summary>
    Handover,
    /// <summary>That is over, or the maintenance is.</summary>
    Normal,
}

/// <summary>An event for scripts that are written for keepalived's notify, and a line of our FIFO.</summary>
/// <param name="Type">PAIR, or what keepalived's own has: INSTANCE or GROUP.</param>
public sealed record OwnEvent(string Type, string Name, string State, int Priority)
{
    public static OwnEvent Of(string pair, OwnState state) => new("PAIR", pair, state.ToString().ToUpperInvariant(), 0);

    /// <summary>keepalived's own, passed on.</summary>
    public static OwnEvent Of(VrrpEvent e) => new(e.Kind.ToString().ToUpperInvariant(), e.Name, e.State.ToString().ToUpperInvariant(), e.Priority ?? 0);

    public string[] Arguments => [Type, Name, State, Priority.ToString(CultureInfo.InvariantCulture)];

    /// <summary>As keepalived writes its own.</summary>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Type} \"{Name}\" {State} {Priority}");
}
