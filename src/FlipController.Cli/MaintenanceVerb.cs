using System.CommandLine;
using FlipController.Core;

namespace FlipController.Cli;

internal static class MaintenanceVerb
{
    public static Verb Create()
    {
        Argument<string> how = new Argument<string>("on|off") { Description = "on: keepalived is told that this node should not have the addresses" }.AcceptOnlyFromAmong("on", "off");
        Option<string?> reason = Arguments.Reason();
        return new Verb("maintenance", "Puts this node under maintenance, or ends that: keepalived gives its addresses to the other node, whoever restarts what",
            ["flipctl maintenance on --reason \"new kernel\"", "flipctl maintenance off"],
            async (call, cancel) =>
            {
                NodeStatus node = await call.Daemon.MaintenanceAsync(new MaintenanceRequest(call.Value(how) == "on", call.Value(reason)), cancel);
                if (call.Terminal.Printed(node)) return ExitCode.Done;
                call.Terminal.Line(node.Reasons.IsEmpty ? "keepalived is told that all is well here"
                    : $"keepalived is told that this node should not have the addresses: {string.Join("; ", node.Reasons)}");
                if (node.Fault is not null) call.Terminal.Note($"flipctl: {node.Fault}");
                return node.Fault is null ? ExitCode.Done : ExitCode.Failed;
            }) { how, reason };
    }
}
