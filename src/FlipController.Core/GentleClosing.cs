namespace FlipController.Core;

/// <summary>
/// How connections past their deadline are closed: spread evenly over <c>drain.spread</c>, so that their clients do not come back all
/// at once. Pure.
/// </summary>
public static class GentleClosing
{
    private static readonly TimeSpan s_shortest = TimeSpan.FromMilliseconds(100), s_perConnection = TimeSpan.FromMicroseconds(20);

    /// <summary>
    /// How many are to be closed now, the longest idle first. Counted from what is left of the time and of the connections, it makes
    /// good what a late step missed, and those that left by themselves make room for the rest.
    /// </summary>
    /// <param name="open">Connections now.</param>
    /// <param name="left">Of the time; zero or less: it is over, and all are due.</param>
    /// <param name="untilNext">When this is asked next, as <see cref="NextStep"/> has it; all are due when that is too late.</param>
    public static int DueNow(int open, TimeSpan left, TimeSpan untilNext)
    {
        if (open <= 0) return 0;
        if (left <= TimeSpan.Zero || untilNext >= left) return open;
        // A third of three is one, whatever the binary fraction makes of it.
        return (int)Math.Min(open, Math.Floor(open * (untilNext / left) + 1e-6));
    }

    /// <summary>
    /// When to ask next, so that whole connections are due then: one, or as many as it takes at ten steps a second. A step costs some
    /// ten microseconds a connection that is open, since HAProxy lists them all; of many there are fewer steps.
    /// </summary>
    public static TimeSpan NextStep(int open, TimeSpan left)
    {
        TimeSpan shortest = TimeSpan.FromTicks(Math.Max(s_shortest.Ticks, s_perConnection.Ticks * open));
        return open <= 0 || left <= shortest ? shortest : left * (Math.Ceiling(open * (shortest / left)) / open);
    }
}
