using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace FlipController.Linux.State;

/// <summary>
/// A file that is either the old one or the new one, whatever happens: temporary file, fsync, rename, fsync of the directory
/// (rename(2) is atomic for readers; only the directory's fsync makes it last through a power cut). Readable by its owner only.
/// </summary>
public static partial class AtomicFile
{
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    public static void Write(string path, ReadOnlySpan<byte> content)
    {
        string directory = Path.GetDirectoryName(path)!;
        string temporary = Path.Combine(directory, $".{Path.GetFileName(path)}.new");
        File.Delete(temporary);
        using (var file = new FileStream(temporary, new FileStreamOptions
        {
            // CreateNew: a symlink planted under this name is refused, not followed.
            Mode = FileMode.CreateNew, Access = FileAccess.Write, UnixCreateMode = OwnerOnly, BufferSize = 0,
        }))
        {
            file.Write(content);
            file.Flush(flushToDisk: true);
        }
        File.Move(temporary, path, overwrite: true);
        SyncDirectory(directory);
    }

    /// <summary>Makes a directory that only its owner may enter; one that exists is left as it is.</summary>
    public static void EnsurePrivateDirectory(string path) =>
        Directory.CreateDirectory(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);

    /// <summary>Makes a directory that others may pass through to what they know the name of, but not list.</summary>
    public static void EnsurePassableDirectory(string path)
    {
        EnsurePrivateDirectory(path);
        // Said again, for one that was made private once, and against the umask.
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute
            | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute);
    }

    /// <summary>A symbolic link that names the old target or the new one at every instant. It need not last through a power cut.</summary>
    public static void Link(string path, string target)
    {
        string temporary = Path.Combine(Path.GetDirectoryName(path)!, $".{Path.GetFileName(path)}.new");
        File.Delete(temporary);
        File.CreateSymbolicLink(temporary, target);
        // File.Move looks at the link's target first.
        if (Rename(temporary, path) != 0)
            throw new IOException($"cannot name {temporary} {path}: {Marshal.GetLastPInvokeErrorMessage()}");
    }

    private static void SyncDirectory(string directory)
    {
        const int readOnly = 0, closeOnExec = 0x80000; // O_RDONLY, O_CLOEXEC: asm-generic/fcntl.h
        using var handle = new SafeFileHandle(Open(directory, readOnly | closeOnExec), ownsHandle: true);
        if (!handle.IsInvalid) _ = Fsync(handle);
    }

    [LibraryImport("libc", EntryPoint = "open", StringMarshalling = StringMarshalling.Utf8, SetLastError = true)]
    private static partial int Open(string path, int flags);

    [LibraryImport("libc", EntryPoint = "rename", StringMarshalling = StringMarshalling.Utf8, SetLastError = true)]
    private static partial int Rename(string from, string to);

    [LibraryImport("libc", EntryPoint = "fsync", SetLastError = true)]
    private static partial int Fsync(SafeFileHandle handle);
}
