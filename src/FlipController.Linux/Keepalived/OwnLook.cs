using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Linux.State;

namespace FlipController.Linux.Keepalived;

/// <summary>What can be seen of the pairs while no daemon answers.</summary>
public static class OwnLook
{
    /// <summary>A pair is healthy when one of its generations lives and listens; which of them has the traffic is the kernel's rule's to say, which outlives the daemon.</summary>
    public static HealthReport At(Configuration configuration)
    {
        ImmutableArray<string> reasons =
        [
            .. configuration.Pairs.Keys.Where(p => !GenerationNote.Living(configuration.Runtime, p).Any(n => Listens(n.Generation)))
                .Select(p => $"pair {p}: nothing of it lives and listens"),
            .. File.Exists(Path.Combine(configuration.State, "maintenance.json")) ? ["maintenance"] : Array.Empty<string>(),
            .. configuration.Handover is not null && new HandoverStore(configuration.State).IsLowered() ? [HandoverStore.Reason] : Array.Empty<string>(),
        ];
        return new HealthReport(reasons.IsEmpty, reasons);
    }

    private static bool Listens(Generation generation)
    {
        if (ProcessIdentity.Of(generation).IsStopped) return false;
        if (generation.Ports.IsEmpty) return true; // it serves paths alone
        try
        {
            using var sockets = new SockDiag();
            return ProcessSockets.FamilyPorts(sockets, generation.Pid).Concat(ProcessSockets.ReceivingPorts(sockets, generation.Pid))
                .Any(l => generation.Ports.Any(p => p.PrivatePort == l.Port));
        }
        catch (KernelException)
        {
            return true; // it does not tell: that the process lives must do
        }
    }
}
