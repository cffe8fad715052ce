using System.Collections.Concurrent;
using System.Collections.Immutable;
using System.Threading.Channels;
using FlipController.Core;
using FlipController.Core.Keepalived;
using FlipController.Linux.Keepalived;

namespace FlipController.Daemon.Keepalived;

/// <summary>
/// Our events in keepalived's style: lines in a FIFO of ours, of everything in order, and a pair's own script, run with them as
/// arguments, one after the other. Neither is waited for, and what nobody keeps up with is dropped and counted.
/// </summary>
internal sealed class OwnEvents(OwnFifo? fifo, ILogger log) : IAsyncDisposable
{
    private const int LongestQueue = 64;
    private static readonly TimeSpan s_quiet = TimeSpan.FromMinutes(1);

    private readonly ConcurrentDictionary<string, Queue> _queues = new(StringComparer.Ordinal);
    private readonly CancellationTokenSource _stop = new();
    private long _lastWarned;

    private sealed record Run(ImmutableArray<string> Program, OwnEvent Event);

    private sealed record Queue(Channel<Run> Runs, Task Work);

    /// <param name="pairs">Whose scripts are run.</param>
    public void Post(OwnEvent e, IEnumerable<PairOptions> pairs)
    {
        if (fifo is not null && !fifo.Write(e.ToString())) WarnOf($"{fifo.Dropped} events found no room in events.fifo {fifo}, as nobody reads it, or too slowly");
        foreach (PairOptions pair in pairs.Where(p => !p.Hooks.Notify.IsEmpty))
        {
            Queue queue = _queues.GetOrAdd(pair.Name, Begin);
            if (!queue.Runs.Writer.TryWrite(new Run(pair.Hooks.Notify, e)))
                WarnOf($"pair {pair.Name}: hooks.notify {pair.Hooks.Notify[0]} does not keep up: {e} is not told to it");
        }
    }

    private Queue Begin(string pair)
    {
        // Beyond the bound TryWrite says no.
        var runs = Channel.CreateBounded<Run>(new BoundedChannelOptions(LongestQueue) { SingleReader = true });
        return new Queue(runs, Task.Run(() => WorkAsync(pair, runs.Reader)));
    }

    private async Task WorkAsync(string pair, ChannelReader<Run> runs)
    {
        try
        {
            await foreach (Run run in runs.ReadAllAsync(_stop.Token))
                await Hooks.RunAsync(pair, "notify", [.. run.Program, .. run.Event.Arguments], log, _stop.Token);
        }
        catch (OperationCanceledException) when (_stop.IsCancellationRequested)
        {
            // The daemon ends.
        }
    }

    private void WarnOf(string what)
    {
        long now = Environment.TickCount64, last = Interlocked.Read(ref _lastWarned);
        if (last != 0 && now - last < s_quiet.TotalMilliseconds) return;
        if (Interlocked.CompareExchange(ref _lastWarned, now, last) == last) log.LogWarning(new EventId(205, "NotTold"), "{What}", what);
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await Task.WhenAll(_queues.Values.Select(q => q.Work));
        fifo?.Dispose();
        _stop.Dispose();
    }
}
