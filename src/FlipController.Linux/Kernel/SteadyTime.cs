using System.Globalization;
using System.Text;
using FlipController.Linux.State;

namespace FlipController.Linux.Kernel;

/// <summary>
/// The wall clock as it was when the controller started, carried on by the clock that nobody sets: whoever sets the wall clock moves no
/// deadline. How much it was set since an earlier controller of this boot started is found by the time since boot, proc(5), uptime.
/// </summary>
public sealed class SteadyTime : TimeProvider
{
    // What both clocks differ by when nobody set one: the kernel tells the time since boot in hundredths.
    private static readonly TimeSpan s_leastStep = TimeSpan.FromSeconds(1);
    private readonly TimeProvider _clock;
    private readonly DateTimeOffset _began;
    private readonly long _start;

    private SteadyTime(TimeProvider clock)
    {
        _clock = clock;
        _began = clock.GetUtcNow();
        _start = clock.GetTimestamp();
    }

    /// <summary>How far the wall clock is ahead of this now: by so much it was set since the start.</summary>
    public TimeSpan Ahead => Step(_clock.GetUtcNow() - GetUtcNow());

    /// <param name="note">A file that is gone after a reboot; what cannot be read or written there is only not known to the next one.</param>
    /// <param name="setBy">By how much the wall clock was set since the controller before this one began; zero: nobody set it, or nobody knows.</param>
    public static SteadyTime Begin(TimeProvider clock, string note, out TimeSpan setBy) =>
        Begin(clock, note, ProcessIdentity.CurrentBootId, SinceBoot(), out setBy);

    internal static SteadyTime Begin(TimeProvider clock, string note, string bootId, TimeSpan sinceBoot, out TimeSpan setBy)
    {
        var time = new SteadyTime(clock);
        setBy = Read(note) is { } before && before.BootId == bootId
            ? Step(time._began - (before.Began + (sinceBoot - before.SinceBoot)))
            : TimeSpan.Zero;
        try
        {
            AtomicFile.Write(note, Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture,
                $"{bootId} {(long)sinceBoot.TotalMilliseconds} {time._began.ToUnixTimeMilliseconds()}\n")));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The next one takes the clock as it is.
        }
        return time;
    }

    public override DateTimeOffset GetUtcNow() => _began + _clock.GetElapsedTime(_start);

    public override long GetTimestamp() => _clock.GetTimestamp();

    public override long TimestampFrequency => _clock.TimestampFrequency;

    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period) =>
        _clock.CreateTimer(callback, state, dueTime, period);

    private static TimeSpan Step(TimeSpan difference) => difference.Duration() < s_leastStep ? TimeSpan.Zero : difference;

    private static TimeSpan SinceBoot() =>
        TimeSpan.FromSeconds(double.Parse(File.ReadAllText("/proc/uptime").Split(' ')[0], CultureInfo.InvariantCulture));

    private static (string BootId, TimeSpan SinceBoot, DateTimeOffset Began)? Read(string note)
    {
        try
        {
            return File.ReadAllText(note).Split(' ', '\n') is [var boot, var since, var began, ..]
                && long.TryParse(since, CultureInfo.InvariantCulture, out long sinceMs)
                && long.TryParse(began, CultureInfo.InvariantCulture, out long beganMs) && beganMs is > 0 and < 253402300800000 // year 10000
                ? (boot, TimeSpan.FromMilliseconds(sinceMs), DateTimeOffset.FromUnixTimeMilliseconds(beganMs)) : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or OverflowException)
        {
            return null;
        }
    }
}
