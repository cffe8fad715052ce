using FlipController.Core;

namespace FlipController.Linux.Hold;

/// <summary>
/// A lock of flock(2) on a file in /run, which the kernel drops with the process that holds it: two kinds for each network namespace.
/// <code>
///   flipcontroller-hold-INODE.lock         shared by every hold while it lasts; exclusive for who removes the base chains
///   flipcontroller-hold-INODE-OWNER.lock   exclusive, by the hold of that owner: as long as it is held, the owner lives
/// </code>
/// </summary>
internal sealed class HoldLock : IDisposable
{
    private const int Locked = 11; // EAGAIN: flock(2)
    private static readonly TimeSpan Patience = TimeSpan.FromMilliseconds(500); // whoever removes the base chains needs some 20 ms

    private readonly FileStream _file;
    private readonly string _path;
    private readonly bool _exclusive;

    private HoldLock(FileStream file, string path, bool exclusive) => (_file, _path, _exclusive) = (file, path, exclusive);

    /// <summary>Of the calling thread's network namespace.</summary>
    internal static string PathOf(string? owner = null)
    {
        // net:[4026531840]
        string inode = new FileInfo("/proc/thread-self/ns/net").LinkTarget!["net:[".Length..^1];
        return $"/run/flipcontroller-hold-{inode}{(owner is null ? "" : $"-{Uri.EscapeDataString(owner)}")}.lock";
    }

    /// <summary>Null: somebody else holds it.</summary>
    internal static HoldLock? TryTake(string path, bool exclusive)
    {
        while (true)
        {
            FileStream file;
            try
            {
                // .NET takes LOCK_EX for FileShare.None, LOCK_SH for reading and letting others read.
                file = exclusive
                    ? new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None)
                    : new FileStream(path, FileMode.OpenOrCreate, FileAccess.Read, FileShare.Read);
            }
            catch (IOException e) when (e.HResult == Locked)
            {
                return null;
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new FlipException($"cannot take the lock {path}: {e.Message.TrimEnd('.')}; nothing is held"
                    + (Environment.IsPrivilegedProcess ? "" : "; run it as root"), e);
            }
            // Removed between our opening and our locking: a lock on a file that nobody else will find.
            // Its path is no proof that it was not: /run may be a link to elsewhere.
            if (new FileInfo($"/proc/self/fd/{file.SafeFileHandle.DangerousGetHandle()}").LinkTarget?.EndsWith(" (deleted)", StringComparison.Ordinal) != true)
                return new HoldLock(file, path, exclusive);
            file.Dispose();
        }
    }

    /// <summary>Waits for whoever only looks, or removes the base chains at this moment. Null: somebody holds it for longer.</summary>
    internal static HoldLock? Take(string path, bool exclusive)
    {
        long start = Environment.TickCount64;
        while (true)
        {
            if (TryTake(path, exclusive) is { } taken) return taken;
            if (Environment.TickCount64 - start > Patience.TotalMilliseconds) return null;
            Thread.Sleep(1);
        }
    }

    /// <summary>Waits for whoever removes the base chains at this moment.</summary>
    internal static HoldLock TakeShared(string path) => Take(path, exclusive: false) ?? throw new FlipException(
        $"cannot take the lock {path}: another process has been removing the holds' tables for {Patience.TotalSeconds:0.#} s; nothing is held; end that process and try again");

    /// <summary>Removes the file if nobody holds the lock.</summary>
    internal static void Clear(string path) => TryTake(path, exclusive: true)?.Dispose();

    /// <summary>And the file goes, if it was exclusive.</summary>
    public void Dispose()
    {
        if (_exclusive && !_file.SafeFileHandle.IsClosed) File.Delete(_path);
        _file.Dispose();
    }
}
