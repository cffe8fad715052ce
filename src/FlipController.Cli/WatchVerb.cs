using System.CommandLine;
using FlipController.Core;

namespace FlipController.Cli;

internal static class WatchVerb
{
    public static Verb Create()
    {
        Argument<string?> pair = Arguments.OptionalPair();
        return new Verb("watch",
            "Shows events as they happen, until interrupted, and at a terminal the falling curve of every generation that leaves; "
            + "with --json one document a line, looks at what leaves (about one a second each) among them",
            ["flipctl watch", "flipctl watch edge", "flipctl watch --json | jq -r 'select(.kind == \"fault\") | .text'",
                "flipctl watch --json | jq -r 'select(.drain) | [.pair, .drain.generation, .drain.connections] | @tsv'"],
            (call, cancel) => RunAsync(call, call.Value(pair), cancel)) { pair };
    }

    private static async Task<ExitCode> RunAsync(Call call, string? pair, CancellationToken cancel)
    {
        try
        {
            await (call.Terminal.IsLive ? LiveAsync(call, pair, cancel) : LinesAsync(call, pair, cancel));
        }
        catch (OperationCanceledException) when (cancel.IsCancellationRequested)
        {
            return ExitCode.Done;
        }
        throw new VerbFailure(ExitCode.Unreachable,
            $"watch: the daemon at {call.Daemon.Socket} ended the stream; connections go on without it; "
            + "is it being restarted (`systemctl status flipcontrollerd`)?");
    }

    private static async Task LinesAsync(Call call, string? pair, CancellationToken cancel)
    {
        var filter = new LookFilter();
        await foreach (PairNotice notice in call.Daemon.EventsAsync(pair, cancel))
        {
            if (call.Terminal.Printed(notice) || !filter.Passes(notice))
            {
                await call.Terminal.Output.FlushAsync(cancel);
                continue;
            }
            call.Terminal.Line(Told(notice));
            // Whoever reads it through a pipe wants it now.
            await call.Terminal.Output.FlushAsync(cancel);
        }
    }

    private static async Task LiveAsync(Call call, string? pair, CancellationToken cancel)
    {
        await using NoticeStream notices = NoticeStream.Of(call, pair, cancel);
        await new LeavingShow(call).RunAsync(notices, new TaskCompletionSource().Task, _ => true, Told, cancel);
        cancel.ThrowIfCancellationRequested();
        // Why the stream ended.
        await notices.Next;
    }

    private static string Told(PairNotice notice) => $"{Phrases.Clock(notice.At)}  {notice.Pair}  {notice.State,-9}  {notice.Text}";
}
