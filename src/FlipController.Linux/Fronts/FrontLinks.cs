using System.Collections.Immutable;
using System.Runtime.InteropServices;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Fronts;

/// <summary>
/// Front paths about to lead elsewhere. All that may fail or take time is done before: a fresh link stands beside each front path, and
/// the switch is one renameat2(2) for each, which exchanges the two names. A connect() finds what was there or what is there now, and
/// what was there is still to be had under the other name.
/// <code>
///   before                                     after
///   app.sock        -> app.sock.g00006         app.sock        -> app.sock.g00007
///   .app.sock.flip  -> app.sock.g00007         .app.sock.flip  -> app.sock.g00006      removed then
/// </code>
/// </summary>
public sealed unsafe partial class FrontLinks : IDisposable
{
    private const uint NoReplace = 1, Exchange = 2; // RENAME_NOREPLACE, RENAME_EXCHANGE: include/uapi/linux/fs.h

    private readonly Step[] _steps;

    private sealed class Step(string path, string beside, nint pathBytes, nint besideBytes)
    {
        public string Path => path;
        public string Beside => beside;
        public nint PathBytes => pathBytes;
        public nint BesideBytes => besideBytes;
        /// <summary>What stands there is nobody's loss, and may go where a file system cannot exchange names.</summary>
        public bool MayReplace { get; init; }
        public int Errno { get; set; }
    }

    private FrontLinks(IEnumerable<(string Path, string Beside, bool MayReplace)> steps) => _steps =
    [
        .. steps.Select(s => new Step(s.Path, s.Beside, Marshal.StringToCoTaskMemUTF8(s.Path), Marshal.StringToCoTaskMemUTF8(s.Beside)) { MayReplace = s.MayReplace }),
    ];

    private static string BesideOf(string path) => Path.Combine(Path.GetDirectoryName(path)!, $".{Path.GetFileName(path)}.flip");

    /// <summary>They are to lead to these sockets. What stands there is the caller's to judge (<see cref="FrontPath.Refusal"/>).</summary>
    /// <exception cref="FlipException">One of the links cannot be made.</exception>
    public static FrontLinks To(ImmutableArray<UnixFront> fronts)
    {
        foreach (UnixFront front in fronts)
        {
            string beside = BesideOf(front.Path);
            try
            {
                Settle(front.Path);
                File.CreateSymbolicLink(beside, Path.GetFileName(front.Socket));
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new FlipException($"the link {beside}, which is to stand at the front path {front.Path}, cannot be made: {e.Message}", e);
            }
        }
        return new FrontLinks(fronts.Select(f => (f.Path, BesideOf(f.Path), FrontPath.Look(f.Path).Kind is FrontPathKind.Link or FrontPathKind.Dead)));
    }

    /// <summary>They are to be the sockets of the HAProxy again that NEW connections were taken over from.</summary>
    public static FrontLinks Back(IEnumerable<string> paths) => new(paths.Select(p => (p, FrontPath.UnmanagedOf(p), true)));

    /// <summary>
    /// The switch. 0, or the errno of the last one that failed; the others lead where they should. Allocates and logs nothing.
    /// </summary>
    public int Commit()
    {
        int failed = 0;
        foreach (Step step in _steps)
        {
            step.Errno = Rename(step, Exchange);
            // Nothing stands there yet; or somebody has put something there, or taken it away, since.
            if (step.Errno == Errno.NoEntry) step.Errno = Rename(step, NoReplace);
            if (step.Errno == Errno.Exists) step.Errno = Rename(step, Exchange);
            // The file system exchanges no names.
            if (step.Errno == Errno.Invalid && step.MayReplace) step.Errno = Rename(step, 0);
            if (step.Errno != 0) failed = step.Errno;
        }
        return failed;
    }

    private static int Rename(Step step, uint flags) =>
        RenameAt(Libc.AtCurrentDirectory, (byte*)step.BesideBytes, Libc.AtCurrentDirectory, (byte*)step.PathBytes, flags) == 0 ? 0 : Marshal.GetLastPInvokeError();

    /// <summary>What the last commit could not do, in a sentence; null: nothing.</summary>
    public string? Failure => _steps.FirstOrDefault(s => s.Errno != 0) is { } failed
        ? $"the front path {failed.Path} could not be exchanged with {failed.Beside}: {Errno.Name(failed.Errno)}"
        : null;

    /// <summary>What was prepared and what came out is put in its place.</summary>
    public void Dispose()
    {
        foreach (Step step in _steps)
        {
            try
            {
                Settle(step.Path);
            }
            catch (Exception e) when (e is FlipException or IOException or UnauthorizedAccessException)
            {
                // It is looked at again before the next switch; until then it is only a name too many.
            }
            Marshal.FreeCoTaskMem(step.PathBytes);
            Marshal.FreeCoTaskMem(step.BesideBytes);
        }
    }

    /// <summary>
    /// What a switch has left beside a front path: a link goes, a socket that somebody listens at is kept as the unmanaged HAProxy's. So
    /// does the name of one that listens no more.
    /// </summary>
    public static void Settle(string path)
    {
        string beside = BesideOf(path), unmanaged = FrontPath.UnmanagedOf(path);
        if (FileStatus.Read(beside) is { } left)
        {
            if (left.Kind == FileKind.Socket && FrontPath.Listener(left) is not null) File.Move(beside, unmanaged, overwrite: true);
            else File.Delete(beside);
        }
        if (FileStatus.Read(unmanaged) is { } kept && (kept.Kind == FileKind.Link || (kept.Kind == FileKind.Socket && FrontPath.Listener(kept) is null)))
            File.Delete(unmanaged);
    }

    /// <summary>Puts right where front paths lead, outside of any switch. Those that do already stay as they are.</summary>
    /// <exception cref="FlipException">One could not be.</exception>
    public static void Ensure(ImmutableArray<UnixFront> fronts)
    {
        ImmutableArray<UnixFront> wrong = [.. fronts.Where(f => FrontPath.Look(f.Path).Socket != f.Socket)];
        if (wrong.IsEmpty) return;
        using FrontLinks links = To(wrong);
        if (links.Commit() != 0) throw new FlipException(links.Failure!);
    }

    /// <summary>
    /// Before a generation stops: no front path leads to it any more. One that the active generation has leads there; one that nobody has
    /// is the unmanaged HAProxy's again where it still listens, else it goes.
    /// </summary>
    /// <exception cref="FlipException">One does still.</exception>
    public static void Leave(ImmutableArray<UnixFront> fronts, ImmutableArray<UnixFront> active)
    {
        foreach (UnixFront front in fronts.Where(f => FrontPath.Look(f.Path).Socket == f.Socket))
        {
            if (active.FirstOrDefault(a => a.Path == front.Path) is { } other) Ensure([other]);
            else if (!GiveBack(front.Path)) File.Delete(front.Path);
        }
    }

    /// <summary>Whether the unmanaged HAProxy listens there now.</summary>
    private static bool GiveBack(string path)
    {
        Settle(path);
        if (FileStatus.Read(FrontPath.UnmanagedOf(path)) is not { Kind: FileKind.Socket }) return false;
        using FrontLinks back = Back([path]);
        return back.Commit() == 0 ? true : throw new FlipException(back.Failure!);
    }

    [LibraryImport("libc", EntryPoint = "renameat2", SetLastError = true)]
    private static partial int RenameAt(int fromDirectory, byte* from, int toDirectory, byte* to, uint flags);
}
