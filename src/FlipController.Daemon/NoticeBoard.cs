using System.Threading.Channels;
using FlipController.Core;

namespace FlipController.Daemon;

/// <summary>
/// Passes what happens to whoever watches. A watcher that does not keep up loses the oldest notices, never the daemon time.
/// </summary>
public sealed class NoticeBoard
{
    private const int LongestQueue = 256;
    private readonly Lock _lock = new();
    private readonly List<Channel<PairNotice>> _watchers = [];

    public void Post(PairNotice notice)
    {
        lock (_lock)
        {
            foreach (Channel<PairNotice> watcher in _watchers) watcher.Writer.TryWrite(notice);
        }
    }

    /// <summary>Everything posted from now on, until cancelled.</summary>
    public async IAsyncEnumerable<PairNotice> WatchAsync([System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken stop)
    {
        var own = Channel.CreateBounded<PairNotice>(
            new BoundedChannelOptions(LongestQueue) { FullMode = BoundedChannelFullMode.DropOldest });
        lock (_lock) _watchers.Add(own);
        try
        {
            await foreach (PairNotice notice in own.Reader.ReadAllAsync(stop)) yield return notice;
        }
        finally
        {
            lock (_lock) _watchers.Remove(own);
        }
    }
}
