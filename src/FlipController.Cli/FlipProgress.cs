using System.Diagnostics;
using FlipController.Core;
using Spectre.Console;

namespace FlipController.Cli;

/// <summary>A flip or rollback asked for, shown live while it goes on, and its end told in one line.</summary>
internal static class FlipProgress
{
    public static async Task<ExitCode> FollowAsync(
        Call call, string verb, string pair, Func<string, CancellationToken, Task<FlipAnswer>> ask, CancellationToken cancel)
    {
        FlipAnswer answer;
        try
        {
            answer = call.Terminal.IsLive ? await LiveAsync(call, pair, ask, cancel) : await ask(pair, cancel);
        }
        catch (OperationCanceledException) when (cancel.IsCancellationRequested)
        {
            throw new VerbFailure(ExitCode.Interrupted,
                $"{verb} {pair}: flipctl was interrupted, but the {verb} goes on in the daemon; follow it with `flipctl watch {pair}`, "
                + $"see how it ended with `flipctl status {pair}`");
        }
        bool good = answer.Flip is null or { Outcome: "done" or "unchanged" or "rolled-back" };
        if (!good && !call.Json) throw new VerbFailure(ExitCode.Failed, Phrases.Ended(answer.Pair, answer.Flip!));
        if (!call.Terminal.Printed(answer))
        {
            call.Terminal.Line(answer.Flip is null ? $"{answer.Pair}: {verb} accepted; follow it with `flipctl watch {answer.Pair}`"
                : Phrases.Ended(answer.Pair, answer.Flip));
            foreach (string line in answer.Flip is null ? [] : Phrases.Runtime(answer.Flip)) call.Terminal.Line($"  {line}");
            if (answer.Remark is not null) call.Terminal.Line($"  {answer.Remark}");
        }
        return good ? ExitCode.Done : ExitCode.Failed;
    }

    private static async Task<FlipAnswer> LiveAsync(
        Call call, string pair, Func<string, CancellationToken, Task<FlipAnswer>> ask, CancellationToken cancel)
    {
        await using NoticeStream notices = await NoticeStream.OpenAsync(call, pair, cancel);
        Task<FlipAnswer> answer = ask(pair, cancel);
        IAnsiConsole console = call.Terminal.Live;
        await console.Status().Spinner(Spinner.Known.Dots).StartAsync($"{pair}: asking the daemon", async status =>
        {
            string? step = null;
            var since = Stopwatch.StartNew();
            while (await notices.BeforeAsync(answer))
            {
                PairNotice notice = notices.Take();
                // What leaves meanwhile is another matter, and has steps of its own.
                if (notice.Drain is not null) continue;
                if (notice.State != step)
                {
                    End(step, since.Elapsed);
                    (step, since) = (notice.State, Stopwatch.StartNew());
                }
                status.Status($"{pair}: {notice.State}: {notice.Text}".EscapeMarkup());
            }
            await Task.WhenAny(answer);
            End(step, since.Elapsed);
        });
        return await answer;

        void End(string? step, TimeSpan took)
        {
            if (step is "preparing" or "gating" or "switching" or "returning" or "releasing")
                console.MarkupLineInterpolated($"[dim]{pair}: {step,-10} {took.TotalSeconds:0.00} s[/]");
        }
    }
}
