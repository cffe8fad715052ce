using System.CommandLine;
using FlipController.Core;
using FlipController.Linux;

namespace FlipController.Cli;

internal static class ResetVerb
{
    private const string Consequence = "new connections then go to whatever listens on the front ports";

    public static Verb Create()
    {
        var yes = new Option<bool>("--yes") { Description = "Do not ask" };
        Option<string?> config = Arguments.ConfigFile("The daemon's configuration: where to look whether it still runs");
        return new Verb("reset",
            $"Removes every rule of ours from the kernel: {Consequence}. Open connections and running HAProxys stay. Needs no daemon.",
            ["sudo systemctl stop flipcontrollerd && sudo flipctl reset --yes", "sudo flipctl reset"],
            (call, cancel) => RunAsync(call, call.Value(yes), call.Value(config), cancel)) { yes, config };
    }

    private static async Task<ExitCode> RunAsync(Call call, bool yes, string? file, CancellationToken cancel)
    {
        string socket = call.Daemon.Socket;
        // A broken file is no reason to refuse an emergency exit, but it cannot say where the daemon is.
        if (file is not null) socket = YamlFile.ReadConfiguration(file) switch
        {
            { Configuration: { } configuration } => configuration.Control.Socket,
            var faulty => throw new VerbFailure(ExitCode.Usage,
                $"reset: {file} has {faulty.Faults.Length} faults (`flipctl check-config {file}` names them); nothing was removed; "
                + "leave --config out to go on"),
        };
        if (!yes)
        {
            if (!Terminal.CanAsk || call.Json)
                throw new VerbFailure(ExitCode.Usage, $"reset: it must be confirmed, as {Consequence}; nothing was removed; say --yes");
            call.Terminal.Output.Write($"This removes table {KernelTraces.Table}: {Consequence}. Remove it? [y/N] ");
            if (Console.ReadLine()?.Trim().ToLowerInvariant() is not ("y" or "yes"))
                throw new VerbFailure(ExitCode.Failed, "reset: it was not confirmed; nothing was removed");
        }
        bool daemonRuns = await ControlClient.IsThereAsync(socket, cancel);
        IReadOnlyList<string> removed = KernelTraces.Remove();
        List<CheckLine> lines = removed.Count == 0
            ? [new CheckLine("removed", true, "nothing: the kernel has no rule of ours")]
            : [.. removed.Select(r => new CheckLine("removed", true, r))];
        if (removed.Count > 0)
            lines.Add(new CheckLine("new connections", false,
                "go to whatever listens on the front ports now", "start what should serve them", Warning: true));
        if (daemonRuns)
            lines.Add(new CheckLine("daemon", false, $"still answers on {socket} and may put the rules back",
                "systemctl stop flipcontrollerd, then reset again", Warning: true));
        var report = new CheckReport(true, [.. lines]);
        if (!call.Terminal.Printed(report)) Checks.Print(call.Terminal, report);
        return ExitCode.Done;
    }
}
