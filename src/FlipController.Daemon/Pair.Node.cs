using FlipController.Core.Keepalived;
using FlipController.Core.Machine;
using FlipController.Linux.Kernel;

namespace FlipController.Daemon;

/// <summary>What the pair is to its node, and to the other one.</summary>
internal sealed partial class Pair
{
    /// <summary>
    /// Its active generation lives and NEW connections are led to it. Of one that was released nothing is known but that somebody else
    /// has the NEW connections, as an operator has said.
    /// </summary>
    public bool IsHealthy => State switch
    {
        { IsReleased: true, Active: null } => true,
        { Active: { } active, Phase: not Restoring } => ProcessIdentity.Of(active) is { IsAlive: true, IsStopped: false } && _effects.Rules.Fault is null,
        _ => false,
    };

    /// <summary>Whether a changed file may flip it by itself; null: it may.</summary>
    public void Restrain(FlipRestraint? restraint)
    {
        if (restraint != State.Restraint) _loop.Post(new RestraintChanged(_edge.Now, restraint));
    }

    /// <summary>Files with this content have the NEW connections here, and the way back is closed.</summary>
    public PeerProof Proven(string content) => State switch
    {
        { Active: { } active, Phase: Steady } when _edge.ContentOf(active) == content => new PeerProof(true, "has proven them"),
        { Active: { } active, Phase: Watching } when _edge.ContentOf(active) == content => new PeerProof(false, "has flipped to them, and its undo window is open"),
        { LeftContent: { } left } when left == content => new PeerProof(false, "went back from them"),
        { Fault: { } fault } => new PeerProof(false, $"has not proven them: {fault}"),
        _ => new PeerProof(false, "does not run them"),
    };
}
