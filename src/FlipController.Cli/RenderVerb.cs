using System.CommandLine;
using FlipController.Core;

namespace FlipController.Cli;

internal static class RenderVerb
{
    public static Verb Create()
    {
        Argument<string> pair = Arguments.Pair();
        Argument<string> slot = new Argument<string>("SLOT") { Description = "blue or green" }.AcceptOnlyFromAmong("blue", "green");
        return new Verb("render",
            "Prints the HAProxy configuration that a generation in this slot would run with, from the files on disk now",
            ["flipctl render edge green", "flipctl render edge green | diff /etc/haproxy/haproxy.cfg -"],
            (call, cancel) => RunAsync(call, call.Value(pair)!, call.Value(slot)!, cancel)) { pair, slot };
    }

    private static async Task<ExitCode> RunAsync(Call call, string pair, string slot, CancellationToken cancel)
    {
        RenderReport report = await call.Daemon.RenderAsync(pair, slot, cancel);
        if (call.Terminal.Printed(report)) return ExitCode.Done;
        foreach (RenderedText file in report.Files)
        {
            // A comment for HAProxy too, so that the output can be fed back to it.
            call.Terminal.Line($"# {file.Path}{(file.Source is null ? " (FlipController's own)" : $" (from {file.Source})")}");
            call.Terminal.Line(file.Text.TrimEnd('\n'));
        }
        return ExitCode.Done;
    }
}
