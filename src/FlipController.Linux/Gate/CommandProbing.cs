using FlipController.Core;
using FlipController.Linux.Commands;

namespace FlipController.Linux.Gate;

/// <summary>A program that is asked whether a generation serves as it should.</summary>
public static class CommandProbing
{
    /// <summary>Null when it exits 0; else why not, in one sentence.</summary>
    public static async Task<string?> AskAsync(CommandProbe probe, CommandWords words, CancellationToken stop)
    {
        ChildProcess command = words.Fill(probe.Command) with { Timeout = probe.Timeout };
        ChildOutcome outcome = await command.RunAsync(stop);
        return outcome.ExitCode == 0 ? null
            : $"the probe \"{command.CommandLine}\" exited {outcome.ExitCode}: {Instance.Told(outcome.Output)}";
    }
}
