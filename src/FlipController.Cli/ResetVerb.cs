using System.CommandLine;
using FlipController.Core;
using FlipController.Linux;
using FlipController.Linux.Handover;
using FlipController.Linux.Hold;

namespace FlipController.Cli;

internal static class ResetVerb
{
    private const string Consequence = "new connections then go to whatever listens on the front ports";

    public static Verb Create()
    {
        var yes = new Option<bool>("--yes") { Description = "Do not ask" };
        var holds = new Option<bool>("--holds")
        {
            Description = "Only let go what waits in holds whose process is gone, and remove them; nothing is asked. For systemd's ExecStopPost",
        };
        var cut = new Option<bool>("--cut")
        {
            Description = "Leave nothing at all, though open connections were redirected: where no rule of others keeps them translated, they are reset",
        };
        Option<string?> config = Arguments.ConfigFile("The daemon's configuration: where to look whether it still runs, and for what a handover has changed");
        return new Verb("reset",
            $"Removes every rule of ours from the kernel: {Consequence}. Open connections and running HAProxys stay: while there are any, an empty hook is left that they need, and the next reset removes it. Needs no daemon.",
            ["sudo systemctl stop flipcontrollerd && sudo flipctl reset --yes", "sudo flipctl reset", "sudo flipctl reset --holds"],
            (call, cancel) => call.Value(holds) ? Task.FromResult(RemoveHolds(call)) : RunAsync(call, call.Value(yes), call.Value(cut), call.Value(config), cancel))
        {
            yes, cut, config, holds,
        };
    }

    private static ExitCode RemoveHolds(Call call)
    {
        IReadOnlyList<string> removed = HoldTraces.Remove();
        Report(call, removed.Count == 0 ? [new CheckLine("removed", true, "nothing: there is no hold without its process")]
            : [.. removed.Select(r => new CheckLine("removed", true, r))]);
        return ExitCode.Done;
    }

    private static async Task<ExitCode> RunAsync(Call call, bool yes, bool cut, string? file, CancellationToken cancel)
    {
        string socket = call.Daemon.Socket, state = new Configuration().State;
        // A broken file is no reason to refuse an emergency exit, but it cannot say where the daemon is.
        if (file is not null) (socket, state) = YamlFile.ReadConfiguration(file) switch
        {
            { Configuration: { } configuration } => (configuration.Control.Socket, configuration.State),
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
        // First: what waits for somebody who is gone is what hurts most. What fails of it keeps the rest from nothing.
        IReadOnlyList<string> holds = [];
        List<CheckLine> kept = [];
        FlipException? failure = null;
        try
        {
            holds = HoldTraces.Remove();
            kept = [.. HoldTraces.Find().Where(h => h.Lives).Select(h => new CheckLine("hold", false,
                $"of {h.Owner}: its process lives, so it stays, and opens at its end", "wait for it, or end it", Warning: true))];
        }
        catch (FlipException e)
        {
            failure = e;
        }
        IReadOnlyList<string> handed = HandoverTraces.Remove(state);
        (IReadOnlyList<string> removed, int open) = KernelTraces.Remove(cut);
        List<CheckLine> lines = removed.Count + holds.Count + handed.Count + open == 0
            ? [new CheckLine("removed", true, "nothing: the kernel has no rule of ours")]
            : [.. holds.Concat(handed).Concat(removed).Select(r => new CheckLine("removed", true, r))];
        lines.AddRange(kept);
        if (removed.Count > 0)
            lines.Add(new CheckLine("new connections", false,
                "go to whatever listens on the front ports now", "start what should serve them", Warning: true));
        if (open > 0)
            lines.Add(new CheckLine("open connections", false,
                $"{open} were redirected and go on; a hook in table {KernelTraces.Table} that does nothing else keeps them translated",
                "say `flipctl reset` again when they have ended, or --cut now", Warning: true));
        if (daemonRuns)
            lines.Add(new CheckLine("daemon", false, $"still answers on {socket} and puts the rules back at once, unless redirect.lost is report",
                "systemctl stop flipcontrollerd, then reset again", Warning: true));
        Report(call, lines);
        return failure is null ? ExitCode.Done : throw failure;
    }

    private static void Report(Call call, IEnumerable<CheckLine> lines)
    {
        var report = new CheckReport(true, [.. lines]);
        if (!call.Terminal.Printed(report)) Checks.Print(call.Terminal, report);
    }
}
