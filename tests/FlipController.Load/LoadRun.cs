namespace FlipController.Load;

/// <summary>A run under way, on a thread of its own.</summary>
public sealed class LoadRun : IAsyncDisposable
{
    private static readonly Lock WarmLock = new();
    private static readonly HashSet<LoadMode> Warm = [];

    private readonly LoadLoop _loop;
    private readonly TaskCompletionSource<LoadResult> _done = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private LoadRun(LoadOptions options) => _loop = new LoadLoop(options);

    /// <exception cref="ArgumentException">Every option that is wrong, at once.</exception>
    public static LoadRun Start(LoadOptions options)
    {
        var problems = options.Problems().ToList();
        if (problems.Count > 0) throw new ArgumentException(string.Join("; ", problems));
        WarmUp(options.Mode);
        var run = new LoadRun(options);
        new Thread(run.Loop) { IsBackground = true, Name = "load" }.Start();
        return run;
    }

    /// <param name="stop">Ends the run early, in good order: what was sent is still waited for.</param>
    public static async Task<LoadResult> RunAsync(LoadOptions options, CancellationToken stop = default)
    {
        await using var run = Start(options);
        await using var registration = stop.Register(run.Stop);
        return await run.Completion;
    }

    public Task<LoadResult> Completion => _done.Task;

    /// <summary>The counts so far, read without disturbing the run.</summary>
    public LoadCounts Now => _loop.Counts.Read();

    /// <summary>No new request from now on; what is under way finishes or times out.</summary>
    public void Stop() => _loop.Stop();

    public async ValueTask DisposeAsync()
    {
        Stop();
        await ((Task)Completion).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    private void Loop()
    {
        try
        {
            LoadResult result;
            // Left again before the result is announced: announcing may create a pool thread, which would inherit it.
            using (_loop.Options.Namespace is { } name ? Tests.Shared.NamespaceThread.Visit(name) : null)
            {
                result = _loop.Run();
            }
            _done.SetResult(result);
        }
        catch (Exception e)
        {
            _done.SetException(e);
        }
    }

    // The first pass through the loop compiles it, which takes longer than the latencies it is to measure.
    private static void WarmUp(LoadMode mode)
    {
        lock (WarmLock)
        {
            if (!Warm.Add(mode)) return;
            using var backend = Backend.Start(new BackendOptions { Listen = [new(System.Net.IPAddress.Loopback, 0)] });
            var options = new LoadOptions
            {
                Targets = backend.Endpoints, Mode = mode, Rate = 1000, Duration = TimeSpan.FromMilliseconds(100), Connections = 4,
                Expect = mode == LoadMode.Long ? Expectation.Any : Expectation.Contains(backend.Name), Timeout = TimeSpan.FromSeconds(1),
            };
            var warm = new LoadRun(options);
            var thread = new Thread(warm.Loop) { IsBackground = true };
            thread.Start();
            thread.Join();
        }
    }
}

public readonly record struct LoadCounts(long Requests, long Ok, long Failed);

/// <summary>Written by the loop's thread alone, read by any.</summary>
internal sealed class LoadCounters
{
    public long Requests, Ok, Raced, Reconnected, LateResets, Connections, BytesReceived;
    public readonly long[] Failures = new long[Enum.GetValues<Failure>().Length];

    public LoadCounts Read()
    {
        // Ok and Failed first: read after them, Requests is never less than their sum.
        long failed = 0;
        for (var i = 0; i < Failures.Length; i++) failed += Volatile.Read(ref Failures[i]);
        var ok = Volatile.Read(ref Ok);
        return new LoadCounts(Volatile.Read(ref Requests), ok, failed);
    }
}
