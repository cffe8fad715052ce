using FlipController.Core;

namespace FlipController.Cli;

/// <summary>Notices shown as they come, with the curves of what leaves live below them.</summary>
internal sealed class LeavingShow(Call call)
{
    // Times left count down though nothing is said.
    private static readonly TimeSpan Tick = TimeSpan.FromSeconds(1);

    private readonly LeavingScreen _screen = new();
    private readonly LiveBlock _block = new(call.Terminal);

    /// <summary>Until the stream or <paramref name="until"/> ends.</summary>
    /// <param name="draws">Which looks are drawn; the others are left out.</param>
    /// <param name="told">The line a notice is told in, above the curves; null: it is not.</param>
    public async Task RunAsync(NoticeStream notices, Task until,
        Func<DrainLook, bool> draws, Func<PairNotice, string?> told, CancellationToken cancel)
    {
        var tick = Task.Delay(Tick, cancel);
        // What arrived together with the end is still shown.
        while (!until.IsCompleted || notices.Next.IsCompleted)
        {
            await Task.WhenAny(notices.Next, until, tick);
            // A failed or ended stream is told by whoever waits for it.
            if (notices.Next.IsCompleted && !notices.HasNotice) return;
            if (notices.HasNotice)
            {
                PairNotice notice = notices.Take();
                if (notice.Drain is not { } look)
                {
                    if (told(notice) is { } line) _block.Above(line, Lines());
                    continue;
                }
                if (!draws(look)) continue;
                if (_screen.Look(notice, look)) await RecallAsync(notice.Pair, look.Generation, cancel);
            }
            else if (tick.IsCompleted)
            {
                cancel.ThrowIfCancellationRequested();
                tick = Task.Delay(Tick, cancel);
            }
            _block.Draw(Lines());
        }
    }

    private IReadOnlyList<string> Lines()
    {
        DateTimeOffset now = DateTimeOffset.Now;
        _screen.Forget(now);
        return _screen.Lines(call.Terminal.Size.Columns, _block.Rows, Terminal.IsUtf8, now);
    }

    /// <summary>The curve so far is a comfort: without it, it begins here.</summary>
    private async Task RecallAsync(string pair, int generation, CancellationToken cancel)
    {
        try
        {
            _screen.Known(await call.Daemon.DrainCurveAsync(pair, generation, cancel));
        }
        catch (VerbFailure)
        {
            // It began this very moment, or the daemon goes away, which the stream will tell.
        }
    }
}
