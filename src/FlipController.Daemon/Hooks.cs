using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Linux;

namespace FlipController.Daemon;

/// <summary>
/// Runs the operator's programs after an event: an argument list, no shell, a plain environment, a time limit. Their failure changes
/// nothing.
/// </summary>
internal sealed class Hooks(PairEdge edge)
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    public Task FlippedAsync(FlipRecord flip, Slot? slot, CancellationToken stop) => RunAsync(
        flip.Outcome is "done" or "rolled-back" ? edge.Options.Hooks.Switched : edge.Options.Hooks.Failed,
        flip.Outcome is "done" or "rolled-back" ? "switched" : "failed",
        // After a return NEW connections go to where they came from.
        flip.Outcome is "done" ? (flip.From, flip.To) : (flip.To, flip.From), slot, flip.Error ?? flip.Reason, flip.Id, stop);

    public Task DrainedAsync(Generation generation, CancellationToken stop) =>
        RunAsync(edge.Options.Hooks.Drained, "drained", (generation.Number, null), generation.Slot, null, null, stop);

    private async Task RunAsync(
        ImmutableArray<string> arguments, string name, (int? From, int? To) generations, Slot? slot, string? reason, int? flip,
        CancellationToken stop)
    {
        if (arguments.IsEmpty) return;
        string Filled(string argument) => argument
            .Replace("{pair}", edge.Name, StringComparison.Ordinal)
            .Replace("{from}", $"{generations.From}", StringComparison.Ordinal)
            .Replace("{to}", $"{generations.To}", StringComparison.Ordinal)
            .Replace("{slot}", slot?.Name() ?? "", StringComparison.Ordinal)
            .Replace("{flip}", $"{flip}", StringComparison.Ordinal)
            .Replace("{reason}", reason ?? "", StringComparison.Ordinal);
        await RunAsync(edge.Name, name, [arguments[0], .. arguments.Skip(1).Select(Filled)], edge.Log, stop);
    }

    /// <param name="name">Of the key it is configured by.</param>
    /// <param name="words">The program, and its arguments.</param>
    public static async Task RunAsync(string pair, string name, ImmutableArray<string> words, ILogger log, CancellationToken stop)
    {
        var program = new ChildProcess(words[0], [.. words.Skip(1)]) { Timeout = s_patience, WorkingDirectory = "/" };
        try
        {
            await program.SucceedAsync(stop);
        }
        catch (FlipException e)
        {
            log.LogWarning(new EventId(110, "HookFailed"), "pair {Pair}: hook {Hook}: {Why}; nothing else is changed by that", pair, name, e.Message);
        }
    }
}
