using System.Diagnostics;
using FlipController.Core;

namespace FlipController.Linux.Hold;

/// <summary>
/// One change while NEW connections wait. What it needs is ready before: between the first instant and the last it makes
/// three calls, which allocate, log, await and start nothing.
/// </summary>
/// <param name="change">Returns 0, or an errno; allocates, logs and throws nothing.</param>
/// <param name="mayGoWithout">A hold that will not close keeps the change from being made; true: it is made all the same.</param>
/// <param name="guard">Armed.</param>
public sealed class HoldWindow(Hold hold, Func<int> change, bool mayGoWithout, DeadMan guard)
{
    /// <summary>Whatever kept it from opening may be over at once; if not, the guard and the hold's removal open it.</summary>
    private const int OpenAttempts = 3;

    private long _ticks;

    public int CloseErrno { get; private set; }

    /// <summary>Of the change: 0 when it was made.</summary>
    public int ChangeErrno { get; private set; }

    public int OpenErrno { get; private set; }

    public TimeSpan Elapsed => Stopwatch.GetElapsedTime(0, _ticks);

    /// <summary>The change was made.</summary>
    public bool IsDone { get; private set; }

    /// <summary>The hot call.</summary>
    public void Run()
    {
        long began = Stopwatch.GetTimestamp();
        CloseErrno = hold.Close();
        // Frozen for so long before the close, it would have no guard any more: nobody waits then.
        if (Stopwatch.GetElapsedTime(guard.ArmedAt) >= hold.Scope.Max) OpenErrno = hold.Open();
        if (CloseErrno == 0 || mayGoWithout)
        {
            ChangeErrno = change();
            IsDone = ChangeErrno == 0;
        }
        for (int attempt = 0; attempt < OpenAttempts; attempt++)
        {
            OpenErrno = hold.Open();
            if (OpenErrno == 0) break;
        }
        _ticks = Stopwatch.GetTimestamp() - began;
    }

    /// <param name="wasForced">The guard has opened it before.</param>
    public HoldReport Report(bool wasForced)
    {
        HoldTally tally = hold.Tally();
        string? remark = CloseErrno != 0 ? $"nobody waited: {hold.Failure.Message}"
            : OpenErrno != 0 ? $"{hold.Failure.Message}; it was opened by its removal"
            : wasForced || hold is not NoHold && Elapsed >= hold.Scope.Max ? $"it was opened from outside after {Durations.Format(hold.Scope.Max)}, as the change took too long"
            : tally.Dropped > 0 && hold is DropHold ? $"{tally.Dropped} opening SYNs were dropped, as was asked for; their clients send them again after a second"
            : tally.Dropped > 0 ? $"{tally.Dropped} opening SYNs found no room and were lost; their clients send them again after a second"
            : null;
        return new HoldReport(
            CloseErrno == 0 ? hold.Method : "none", (long)Elapsed.TotalMicroseconds, (int)tally.Held,
            (long)tally.LongestWait.TotalMicroseconds, remark);
    }
}
