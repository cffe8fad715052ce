using FlipController.Core.Machine;

namespace FlipController.Core.Keepalived;

/// <summary>What the other node says of the files that wait here.</summary>
/// <param name="IsProven">It has flipped to the same, and its undo window has passed with no return.</param>
/// <param name="Says">Why not, in words that may follow "the peer".</param>
public sealed record PeerProof(bool IsProven, string Says);

/// <summary>Whether a changed file may flip a pair by itself, by what keepalived says of this node.</summary>
public static class RoleRule
{
    /// <param name="state">Null: nothing is known. Whoever may not be MASTER waits then, and whoever may be it does, too.</param>
    /// <param name="isFaultOurs">The addresses were given up on purpose: a FAULT is no trouble then.</param>
    /// <param name="waiting">What the files held when the change was seen that waits; null: none waits.</param>
    /// <param name="proof">Of that; null: the peer was not asked yet.</param>
    /// <returns>Null: it may.</returns>
    public static FlipRestraint? Of(PairKeepalivedOptions options, VrrpState? state, bool isFaultOurs, string? waiting, PeerProof? proof)
    {
        string who = options.Group is { } group ? $"group {group}" : $"instance {options.Instance}";
        switch (state)
        {
            case VrrpState.Fault when options.Fault == TroubleRule.Freeze && !isFaultOurs:
                return new FlipRestraint($"{who} of keepalived is in FAULT (keepalived.fault: freeze)");
            case VrrpState.Stop or VrrpState.Deleted when options.Stop == TroubleRule.Freeze:
                return new FlipRestraint($"{who} of keepalived is {(state == VrrpState.Stop ? "stopped" : "gone")} (keepalived.stop: freeze)");
        }
        return options.Role switch
        {
            KeepalivedRole.Always => null,
            KeepalivedRole.MasterOnly => state == VrrpState.Master ? null
                : new FlipRestraint($"{who} of keepalived is {Name(state)} here, and role is master-only"),
            KeepalivedRole.BackupFirst => state is null or VrrpState.Master
                ? new FlipRestraint(
                    $"{who} of keepalived is {Name(state)} here, and role is backup-first: the peer {proof?.Says ?? "was not asked yet"}",
                    proof is { IsProven: true } ? waiting : null)
                : null,
        };
    }

    private static string Name(VrrpState? state) => state?.ToString().ToUpperInvariant() ?? "in a state that is not known";
}
