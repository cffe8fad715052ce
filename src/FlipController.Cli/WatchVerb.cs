using System.CommandLine;
using FlipController.Core;

namespace FlipController.Cli;

internal static class WatchVerb
{
    public static Verb Create()
    {
        Argument<string?> pair = Arguments.OptionalPair();
        return new Verb("watch", "Shows events as they happen, until interrupted; with --json one document a line",
            ["flipctl watch", "flipctl watch edge", "flipctl watch --json | jq -r 'select(.kind == \"fault\") | .text'"],
            (call, cancel) => RunAsync(call, call.Value(pair), cancel)) { pair };
    }

    private static async Task<ExitCode> RunAsync(Call call, string? pair, CancellationToken cancel)
    {
        try
        {
            await foreach (PairNotice notice in call.Daemon.EventsAsync(pair, cancel))
            {
                if (!call.Terminal.Printed(notice))
                    call.Terminal.Line($"{Phrases.Clock(notice.At)}  {notice.Pair}  {notice.State,-9}  {notice.Text}");
                // Whoever reads it through a pipe wants it now.
                await call.Terminal.Output.FlushAsync(cancel);
            }
        }
        catch (OperationCanceledException) when (cancel.IsCancellationRequested)
        {
            return ExitCode.Done;
        }
        throw new VerbFailure(ExitCode.Unreachable,
            $"watch: the daemon at {call.Daemon.Socket} ended the stream; connections go on without it; "
            + "is it being restarted (`systemctl status flipcontrollerd`)?");
    }
}
