using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;

namespace FlipController.Daemon;

/// <summary>
/// Asks the active generation now and then whether it is there. No death tells of one that was stopped or hangs: it gets the NEW
/// connections, and they wait for nothing.
/// </summary>
internal sealed class ActiveWatch(PairEdge edge, Func<PairState> state, Action<PairEvent> post)
{
    private static readonly TimeSpan s_interval = TimeSpan.FromMilliseconds(500), s_answerWithin = TimeSpan.FromSeconds(2);
    // A busy HAProxy may be slow for a second or two; a busy host too, and a second HAProxy would not help it.
    private static readonly TimeSpan s_silence = TimeSpan.FromSeconds(5), s_longestPause = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan s_late = s_interval * 3;
    private const int AsksEvery = 4; // intervals

    public async Task RunAsync(CancellationToken stop)
    {
        Generation? asked = null;
        Task<bool>? asking = null;
        long heard = 0, told = 0;
        int looks = 0;
        bool wasStopped = false;
        TimeSpan pause = TimeSpan.Zero;
        while (true)
        {
            long begun = edge.Time.GetTimestamp();
            await Task.Delay(s_interval, edge.Time, stop);
            if (state().Active is not { } active) continue;
            if (active != asked) (asked, looks, wasStopped, pause, heard) = (active, 0, false, TimeSpan.Zero, edge.Time.GetTimestamp());
            // Twice in a row: a job control that stops and goes on is none of ours.
            bool isStopped = ProcessIdentity.Of(active).IsStopped, stays = isStopped && wasStopped;
            wasStopped = isStopped;
            if (asking is { IsCompleted: true })
            {
                if (await asking) (heard, pause) = (edge.Time.GetTimestamp(), TimeSpan.Zero);
                asking = null;
            }
            // Not waited for here: it may be stopped meanwhile.
            if (looks++ % AsksEvery == 0) asking ??= AnswersAsync(active, stop);
            // Who was late himself, because the host is overwhelmed or he was stopped, knows nothing of others.
            if (edge.Time.GetElapsedTime(begun) > s_late) heard = edge.Time.GetTimestamp();
            TimeSpan silent = edge.Time.GetElapsedTime(heard);
            if (!stays && silent < s_silence) continue;
            if (edge.Time.GetElapsedTime(told) < pause) continue;
            told = edge.Time.GetTimestamp();
            pause = pause == TimeSpan.Zero ? s_silence : pause * 2 < s_longestPause ? pause * 2 : s_longestPause;
            post(new FoundSilent(edge.Now, active.Number, isStopped ? $"was stopped by a signal (process {active.Pid})"
                : $"has not answered on its admin socket for {silent.TotalSeconds:0} s (process {active.Pid})"));
        }
    }

    private async Task<bool> AnswersAsync(Generation active, CancellationToken stop)
    {
        try
        {
            await (edge.AdminOf(active, s_answerWithin)?.ShowInfoAsync(stop) ?? Task.CompletedTask);
            return true; // who has no admin socket is not asked
        }
        catch (FlipException)
        {
            return !ProcessIdentity.Of(active).IsAlive; // a death is told by the kernel, and is no silence
        }
    }
}
