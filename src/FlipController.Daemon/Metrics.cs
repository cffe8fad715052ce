using System.Globalization;
using System.Text;
using FlipController.Core;
using FlipController.Core.Handover;
using FlipController.Core.Keepalived;
using FlipController.Core.Machine;
using FlipController.Daemon.Handover;

namespace FlipController.Daemon;

/// <summary>The pairs in Prometheus' text format (version 0.0.4).</summary>
internal static class Metrics
{
    public static async Task<string> TextAsync(Fleet fleet, Keepalived.Node node, NodeHandover? handover, CancellationToken stop)
    {
        PairStatus[] pairs = await Task.WhenAll(fleet.Pairs.Select(p => p.StatusAsync(stop)));
        var text = new StringBuilder();
        Family("flipcontroller_state", "gauge", "1 for the state a pair is in.", pairs.SelectMany(p => Enum.GetNames<PhaseKind>()
            .Select(k => k.ToLowerInvariant()).Select(k => ($"pair=\"{p.Name}\",state=\"{k}\"", k == p.State ? 1.0 : 0))));
        Family("flipcontroller_active_generation", "gauge", "Number of the generation that gets NEW connections.",
            pairs.Where(p => p.Active is not null).Select(p => ($"pair=\"{p.Name}\",slot=\"{p.Active!.Slot}\"", (double)p.Active.Number)));
        Family("flipcontroller_fault", "gauge", "1 while something is wrong; flipctl status says what.",
            pairs.Select(p => ($"pair=\"{p.Name}\"", p.Fault is null ? 0.0 : 1)));
        Family("flipcontroller_retired_generations", "gauge", "Generations that still have connections.",
            pairs.Select(p => ($"pair=\"{p.Name}\"", (double)p.Retired.Length)));
        Family("flipcontroller_connections", "gauge", "Connections of a generation as the kernel's sockets show them.",
            pairs.SelectMany(p => Roles(p)
                .Where(r => r.Generation?.Connections.Sockets is not null)
                .Select(r => ($"pair=\"{p.Name}\",role=\"{r.Role}\",generation=\"{r.Generation!.Number}\"",
                    (double)r.Generation.Connections.Sockets!))));
        Family("flipcontroller_resident_bytes", "gauge", "Memory of a generation's process.",
            pairs.SelectMany(p => Roles(p)
                .Where(r => r.Generation?.MemoryBytes is not null)
                .Select(r => ($"pair=\"{p.Name}\",role=\"{r.Role}\",generation=\"{r.Generation!.Number}\"",
                    (double)r.Generation.MemoryBytes!))));
        Family("flipcontroller_last_window_seconds", "gauge", "Length of the last switch.",
            pairs.Where(p => p.LastFlip?.Hold is not null).Select(p => ($"pair=\"{p.Name}\"", p.LastFlip!.Hold!.WindowUs / 1e6)));
        Family("flipcontroller_flips_total", "counter", "Flips by how they ended, of those the history keeps.",
            fleet.Pairs.SelectMany(p => p.History().GroupBy(f => f.Outcome)
                .Select(g => ($"pair=\"{p.Name}\",outcome=\"{g.Key}\"", (double)g.Count()))));
        Family("flipcontroller_held_back", "gauge", "1 while a changed file waits because of keepalived's state.",
            pairs.Select(p => ($"pair=\"{p.Name}\"", p.HeldBack is null ? 0.0 : 1)));
        if (node.Standings is { } standings)
            Family("flipcontroller_keepalived_state", "gauge", "1 for the state keepalived says an instance or group is in.", standings.SelectMany(s => Enum.GetValues<VrrpState>()
                .Select(v => ($"kind=\"{s.Kind.ToString().ToLowerInvariant()}\",name=\"{Label(s.Name)}\",state=\"{v.ToString().ToUpperInvariant()}\"", v == s.State ? 1.0 : 0))));
        if (node.Status is { } told)
            text.Append(CultureInfo.InvariantCulture, $"# HELP flipcontroller_node_lowered 1 while keepalived is told that this node should not have the addresses.\n# TYPE flipcontroller_node_lowered gauge\nflipcontroller_node_lowered {(told.Lowered ? 1 : 0)}\n");
        if (handover is not null)
        {
            HandoverReport report = await handover.ReportAsync();
            Family("flipcontroller_handover_phase", "gauge", "1 for the phase that handing this node over is in.",
                Enum.GetValues<HandoverPhase>().Select(HandoverMachine.Name).Select(p => ($"phase=\"{p}\"", p == report.Phase ? 1.0 : 0)));
            Family("flipcontroller_handover_connections", "gauge", "Connections of others at the addresses that keepalived moves.",
                [("node=\"here\"", report.Left), .. report.AtPeer is { } there ? [("node=\"peer\"", (double)there)] : Array.Empty<(string, double)>()]);
        }
        return text.ToString();

        // As the format has it: a backslash before itself, and before a quote, which no name here has.
        static string Label(string name) => name.Replace("\\", "\\\\", StringComparison.Ordinal);

        static IEnumerable<(string Role, GenerationStatus? Generation)> Roles(PairStatus p) =>
        [
            ("active", p.Active), ("standby", p.Standby), ("previous", p.Previous),
            .. p.Retired.Select(r => ("retired", (GenerationStatus?)r)),
        ];

        void Family(string name, string type, string help, IEnumerable<(string Labels, double Value)> samples)
        {
            text.Append(CultureInfo.InvariantCulture, $"# HELP {name} {help}\n# TYPE {name} {type}\n");
            foreach (var (labels, value) in samples) text.Append(CultureInfo.InvariantCulture, $"{name}{{{labels}}} {value}\n");
        }
    }
}
