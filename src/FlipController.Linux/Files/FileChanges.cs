using System.Threading.Channels;
using FlipController.Core;
using FlipController.Linux.State;

namespace FlipController.Linux.Files;

/// <summary>
/// Tells when the content of a pair's files has become another one and rests. Events only say "look again": what counts is the
/// hash of everything, so touching, rewriting the same bytes, and many events for one save all come to nothing or to one change.
/// A look every few seconds covers what inotify cannot see (network file systems, a full event queue).
/// </summary>
public sealed class FileChanges(ServerOptions options, TimeProvider time) : IDisposable
{
    private static readonly TimeSpan s_longestNoise = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan s_regularLook = TimeSpan.FromSeconds(5);
    private readonly Channel<bool> _events = Channel.CreateBounded<bool>(
        new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    private readonly Dictionary<string, FileSystemWatcher> _watchers = new(StringComparer.Ordinal);
    private readonly WatchedFiles _files = new(options);

    /// <summary>
    /// Runs until cancelled. <paramref name="changed"/> gets each new content once; <paramref name="unreadable"/> a reason, once.
    /// </summary>
    /// <param name="known">Hash of the content that needs no telling: what the active generation runs.</param>
    /// <param name="readable">Told when the files can be read again after <paramref name="unreadable"/>, whatever they hold.</param>
    public async Task RunAsync(
        string? known, Action<Snapshot> changed, Action<string> unreadable, CancellationToken stop, Action<Snapshot>? readable = null)
    {
        string? told = null;
        string metadata = "";
        bool due = true;
        Arrange();
        while (true)
        {
            if (due || Metadata() != metadata)
            {
                await RestAsync(stop);
                // Taken before the reading: what changes after it is looked at again.
                metadata = Metadata();
                Arrange();
                due = false;
                try
                {
                    Snapshot snapshot = _files.Read();
                    if (told is not null) readable?.Invoke(snapshot);
                    told = null;
                    if (snapshot.ContentSha256 != known)
                    {
                        known = snapshot.ContentSha256;
                        changed(snapshot);
                    }
                }
                catch (FlipException e)
                {
                    due = true; // Not the last word: look again until it can be read.
                    if (e.Message != told) unreadable(told = e.Message);
                }
            }
            if (!due) due = await EventAsync(stop);
        }
    }

    /// <summary>True when something happened in a watched directory; false after the time of the regular look.</summary>
    private async Task<bool> EventAsync(CancellationToken stop)
    {
        using var regular = CancellationTokenSource.CreateLinkedTokenSource(stop);
        regular.CancelAfter(s_regularLook);
        try
        {
            return await _events.Reader.WaitToReadAsync(regular.Token);
        }
        catch (OperationCanceledException e) when (e.CancellationToken == regular.Token && !stop.IsCancellationRequested)
        {
            return false;
        }
    }

    /// <summary>
    /// Returns when no event came for the settle time. When that takes long, events of other files count no more: one that is written
    /// all the time, a log beside the configuration, must not keep a change waiting.
    /// </summary>
    private async Task RestAsync(CancellationToken stop)
    {
        long began = time.GetTimestamp();
        string before;
        do
        {
            while (_events.Reader.TryRead(out _)) { }
            before = Metadata();
            await Task.Delay(options.Settle, time, stop);
        }
        while (_events.Reader.TryPeek(out _) && (time.GetElapsedTime(began) < s_longestNoise || Metadata() != before));
    }

    /// <summary>Size and time of every file: what the regular look compares; an event makes a reading in any case.</summary>
    private string Metadata()
    {
        try
        {
            return string.Join('\n', _files.Paths().Select(path =>
            {
                var file = new FileInfo(path);
                FileSystemInfo real = file.ResolveLinkTarget(returnFinalTarget: true) ?? file;
                return real is FileInfo { Exists: true } f
                    ? $"{path} {f.FullName} {f.Length} {f.LastWriteTimeUtc.Ticks}"
                    : $"{path} missing";
            }));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return e.Message;
        }
    }

    private void Arrange()
    {
        IReadOnlySet<string> wanted;
        try
        {
            wanted = _files.Directories();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return; // A loop of links, a directory that went away: the regular look sees when that ends.
        }
        foreach (string gone in _watchers.Keys.Except(wanted).ToArray())
        {
            _watchers[gone].Dispose();
            _watchers.Remove(gone);
        }
        foreach (string directory in wanted.Except(_watchers.Keys).ToArray())
        {
            try
            {
                var watcher = new FileSystemWatcher(directory)
                {
                    NotifyFilter = NotifyFilters.FileName | NotifyFilters.DirectoryName | NotifyFilters.LastWrite | NotifyFilters.Size,
                };
                watcher.Changed += (_, _) => _events.Writer.TryWrite(true);
                watcher.Created += (_, _) => _events.Writer.TryWrite(true);
                watcher.Deleted += (_, _) => _events.Writer.TryWrite(true);
                watcher.Renamed += (_, _) => _events.Writer.TryWrite(true);
                watcher.Error += (_, _) => _events.Writer.TryWrite(true);
                watcher.EnableRaisingEvents = true;
                _watchers[directory] = watcher;
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
            {
                // No inotify instance left, or the directory is gone again: the regular look stands in.
            }
        }
    }

    public void Dispose()
    {
        foreach (FileSystemWatcher watcher in _watchers.Values) watcher.Dispose();
    }
}
