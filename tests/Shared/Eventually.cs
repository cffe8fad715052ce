using System.Diagnostics;

namespace FlipController.Tests.Shared;

/// <summary>The one place where a test waits for something it cannot be told about.</summary>
public static class Eventually
{
    private static readonly TimeSpan Interval = TimeSpan.FromMilliseconds(30);

    /// <param name="describe">What is the case instead, for the failure's message.</param>
    public static async Task True(Func<bool> condition, TimeSpan deadline, Func<string> describe)
    {
        var waited = Stopwatch.StartNew();
        while (!condition())
        {
            if (waited.Elapsed > deadline) throw new TimeoutException($"not within {deadline.TotalSeconds:0.###} s: {describe()}");
            await Task.Delay(Interval);
        }
    }

    public static Task True(Func<bool> condition, TimeSpan deadline, string what) => True(condition, deadline, () => what);

    public static async Task True(Func<Task<bool>> condition, TimeSpan deadline, Func<string> describe)
    {
        var waited = Stopwatch.StartNew();
        while (!await condition())
        {
            if (waited.Elapsed > deadline) throw new TimeoutException($"not within {deadline.TotalSeconds:0.###} s: {describe()}");
            await Task.Delay(Interval);
        }
    }
}
