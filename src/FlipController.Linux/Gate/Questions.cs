using FlipController.Core;

namespace FlipController.Linux.Gate;

/// <param name="Final">It can never become otherwise.</param>
internal readonly record struct Finding(bool Passed, bool Final, string? Why)
{
    public static readonly Finding Yes = new(true, true, null);
    public static Finding NotYet(string why) => new(false, false, why);
    public static Finding Never(string why) => new(false, true, why);
    public static Finding Unless(string? why) => why is null ? Yes : NotYet(why);
}

/// <summary>
/// What a process must show, question after question. What is not so yet is asked again until <paramref name="timeout"/>
/// (<c>gate.timeout</c>, for all of them together); what can never become so fails at once.
/// </summary>
internal sealed class Questions(TimeSpan timeout, TimeProvider time)
{
    private static readonly TimeSpan s_firstPause = TimeSpan.FromMilliseconds(10);
    private static readonly TimeSpan s_longestPause = TimeSpan.FromMilliseconds(200);

    /// <summary>Null when everything is proven; else the first thing that is not, in one sentence.</summary>
    /// <param name="whom">The process, as a sentence begins with it.</param>
    /// <param name="dead">Why it will never answer; null while it lives.</param>
    /// <param name="progress">Told when it goes on to the next question.</param>
    public async Task<string?> AskAsync(
        string whom, Func<string?> dead, (string Name, Func<CancellationToken, Task<Finding>> Ask)[] questions, Action<string> progress,
        CancellationToken stop)
    {
        using var bound = new CancellationTokenSource(timeout, time);
        using var both = CancellationTokenSource.CreateLinkedTokenSource(bound.Token, stop);
        foreach (var (name, ask) in questions)
        {
            progress(name);
            TimeSpan pause = s_firstPause;
            string? why = null;
            while (true)
            {
                if (dead() is { } end) return end;
                try
                {
                    Finding finding = await ask(both.Token);
                    if (finding.Passed) break;
                    if (finding.Final) return finding.Why;
                    Found(finding.Why);
                }
                catch (FlipException e)
                {
                    Found(e.Message);
                }
                catch (OperationCanceledException) when (!stop.IsCancellationRequested)
                {
                    // The time is over; said below.
                }
                await PauseAsync(pause, both.Token);
                stop.ThrowIfCancellationRequested();
                if (dead() is { } ended) return ended;
                if (bound.IsCancellationRequested)
                    return $"{whom} did not prove within {Durations.Format(timeout)} (gate.timeout) that {name}: {why ?? "no answer"}";
                // Quick answers first, then ever more politely: the active one needs the processor.
                pause = pause * 2 < s_longestPause ? pause * 2 : s_longestPause;
            }

            // What the end of the time cut short says less than what was found before.
            void Found(string? what) => why = bound.IsCancellationRequested ? why ?? what : what;
        }
        return null;
    }

    private async Task PauseAsync(TimeSpan pause, CancellationToken stop)
    {
        try
        {
            await Task.Delay(pause, time, stop);
        }
        catch (OperationCanceledException)
        {
            // The caller looks at both tokens next.
        }
    }
}
