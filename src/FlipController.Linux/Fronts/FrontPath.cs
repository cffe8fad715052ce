using System.Runtime.InteropServices;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Fronts;

/// <summary>What stands at a front path.</summary>
public enum FrontPathKind
{
    /// <summary>Nothing.</summary>
    Free,
    /// <summary>Our link.</summary>
    Link,
    /// <summary>A socket at which nobody listens: what a HAProxy leaves behind when it ends, and replaces when it starts.</summary>
    Dead,
    /// <summary>A socket at which somebody listens.</summary>
    Listened,
    /// <summary>Anything else; or nothing of ours may stand there.</summary>
    Foreign,
}

/// <summary>One look at a front path. Nothing there is followed but a link of our own.</summary>
/// <param name="Socket">Of a link: where it leads.</param>
/// <param name="Pids">Of a socket that is listened at: who has it; none that can be seen from here.</param>
/// <param name="Why">Of a foreign one, as the rest of a sentence that begins with the path.</param>
public sealed partial record FrontPath(string Path, FrontPathKind Kind, string? Socket, IReadOnlyList<int> Pids, string? Why)
{
    /// <summary>The socket of the HAProxy that NEW connections were taken over from keeps this name, by which they can go back to it.</summary>
    public static string UnmanagedOf(string path) => path + ".unmanaged";

    /// <exception cref="KernelException">It cannot be told.</exception>
    public static FrontPath Look(string path)
    {
        FrontPath Foreign(string why) => new(path, FrontPathKind.Foreign, null, [], why);

        if (RefusedDirectory(path) is { } why) return Foreign(why);
        if (FileStatus.Read(path) is not { } there) return new(path, FrontPathKind.Free, null, [], null);
        switch (there.Kind)
        {
            case FileKind.Link:
                string target = new FileInfo(path).LinkTarget ?? "";
                if (there.Owner != EffectiveUser() || !IsOurs(path, target))
                    return Foreign($"is a link to {target} that FlipController has not made (of user {there.Owner}), and none is followed there; remove it");
                return new(path, FrontPathKind.Link, System.IO.Path.Combine(System.IO.Path.GetDirectoryName(path)!, target), [], null);
            case FileKind.Socket:
                return Listener(there) is { } listener ? new(path, FrontPathKind.Listened, null, [.. ProcessSockets.Holders(listener.Inode)], null)
                    // Of another network namespace it is not listed, and answers all the same.
                    : UnixConnect.Refused(path) ? new(path, FrontPathKind.Dead, null, [], null) : new(path, FrontPathKind.Listened, null, [], null);
            default:
                return Foreign($"is {(there.Kind == FileKind.Directory ? "a directory" : "a file that is no socket")}, which is not replaced; "
                    + "remove it, or bind another path");
        }
    }

    /// <summary>Where our link leads; null: none of ours stands there. One or two calls of the kernel.</summary>
    /// <exception cref="KernelException">It cannot be told.</exception>
    public static string? LinkOf(string path) => FileStatus.Read(path) is { Kind: FileKind.Link } there && there.Owner == EffectiveUser()
        && new FileInfo(path).LinkTarget is { } target && IsOurs(path, target) ? System.IO.Path.Combine(System.IO.Path.GetDirectoryName(path)!, target) : null;

    /// <summary>Null: this generation's link may stand there instead of what does.</summary>
    /// <param name="mayTake">Whose listening socket may be replaced; null: nobody's.</param>
    public string? Refusal(string pair, Func<int, bool>? mayTake) => Kind switch
    {
        FrontPathKind.Foreign => $"the front path {Path} {Why}",
        FrontPathKind.Listened when mayTake is null || Pids.Count == 0 || !Pids.All(mayTake) =>
            $"the front path {Path} is in use: {Owner} listens there and would lose its NEW connections; "
            + (Pids.Count > 0 && Owner.Contains("haproxy", StringComparison.Ordinal) ? $"say `flipctl adopt {pair}` to take them over, or stop it" : "stop it first, or bind another path"),
        _ => null,
    };

    /// <summary>Who may connect to a socket that is to be taken over from may not be the same at the generation's; null: they are.</summary>
    public static string? OtherAccess(UnixFront front)
    {
        if (FileStatus.Read(front.Path) is not { Kind: FileKind.Socket } now || Listener(now) is null || FileStatus.Read(front.Socket) is not { } own
            || (now.Owner, now.Group, now.Mode) == (own.Owner, own.Group, own.Mode)) return null;
        return $"the socket at the front path {front.Path} is of user {now.Owner}, group {now.Group} and mode {Convert.ToString(now.Mode, 8)}, the generation's own would be of user "
            + $"{own.Owner}, group {own.Group} and mode {Convert.ToString(own.Mode, 8)}, and not the same clients might connect; write user, group and mode on its bind line";
    }

    private string Owner => Pids.Count == 0 ? "a process that cannot be seen from here" : $"{NameOf(Pids[0])} (process {Pids[0]})";

    private static string NameOf(int pid)
    {
        try
        {
            return File.ReadAllText($"/proc/{pid}/comm").Trim();
        }
        catch (IOException)
        {
            return "somebody";
        }
    }

    internal static UnixSocket? Listener(FileStatus file)
    {
        foreach (UnixSocket listener in UnixQueues.Listeners())
            if (listener.IsAt(file)) return listener;
        return null;
    }

    /// <summary>The process, or a descendant, listens at this very file.</summary>
    internal static bool IsListenedBy(string socket, int pid) => FileStatus.Read(socket) is { Kind: FileKind.Socket } file
        && Listener(file) is { } listener && ProcessDescriptors.ReadFamily(pid).Inodes().Contains(listener.Inode);

    /// <summary>Whether its socket is the only one that a link of ours may lead to: NAME.gNNNNN beside it.</summary>
    private static bool IsOurs(string path, string target) =>
        target.StartsWith(System.IO.Path.GetFileName(path), StringComparison.Ordinal) && Generation().IsMatch(target.AsSpan(System.IO.Path.GetFileName(path).Length));

    [GeneratedRegex(@"\A\.g[0-9]{5,}\z")]
    private static partial Regex Generation();

    /// <summary>Null: a link of ours may stand in its directory, and is followed there.</summary>
    public static string? RefusedDirectory(string path)
    {
        string directory = System.IO.Path.GetDirectoryName(path)!;
        if (FileStatus.Read(directory, follow: true) is not { Kind: FileKind.Directory } there)
            return $"is in {directory}, which is no directory here; make it";
        if (there.IsWorldWritable && !there.IsSticky)
            return $"is in {directory}, where anybody may put a link of his own in the place of ours; `chmod +t {directory}`";
        // Documentation/admin-guide/sysctl/fs.rst, protected_symlinks: in such a directory only a link of its owner is followed.
        if (there.IsWorldWritable && there.Owner != EffectiveUser())
            return $"is in {directory}, where anybody may write and which is of user {there.Owner}: no link of ours is followed there "
                + "(fs.protected_symlinks); bind a path in another directory";
        for (string? above = directory; above is not (null or "/"); above = System.IO.Path.GetDirectoryName(above))
            if (FileStatus.Read(above) is { Kind: FileKind.Link, Owner: not 0 and var owner } && owner != EffectiveUser())
                return $"is below {above}, a link of user {owner}, who may lead it elsewhere at any time; name the directory itself";
        return Access(directory, Write | Search) == 0 ? null : $"is in {directory}, where FlipController may not write ({Marshal.GetLastPInvokeErrorMessage()}); "
            + "as a systemd service it needs a drop-in with that directory in ReadWritePaths=";
    }

    private const int Write = 2, Search = 1; // W_OK, X_OK: access(2)

    [LibraryImport("libc", EntryPoint = "access", StringMarshalling = StringMarshalling.Utf8, SetLastError = true)]
    private static partial int Access(string path, int mode);

    [LibraryImport("libc", EntryPoint = "geteuid")]
    private static partial uint EffectiveUser();
}
