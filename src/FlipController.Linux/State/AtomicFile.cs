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

    /// <summary>Opens a file of ours for more than a moment, made if it is not there; readable by its owner only.</summary>
    /// <param name="append">Whatever is written goes to its end.</param>
    /// <exception cref="IOException">Also when a link stands there, which is not followed. Its HResult is the errno.</exception>
    internal static SafeFileHandle OpenOwn(string path, bool append)
    {
        const int readWrite = 2, create = 0x40, appending = 0x400, noFollow = 0x20000, closeOnExec = 0x80000; // asm-generic/fcntl.h
        const int noFollowOnArm = 0x8000, tooManyLinks = 40; // arch/arm64/include/uapi/asm/fcntl.h; ELOOP
        bool arm = RuntimeInformation.ProcessArchitecture is Architecture.Arm64 or Architecture.Arm;
        int fd = Open(path, readWrite | create | (append ? appending : 0) | (arm ? noFollowOnArm : noFollow) | closeOnExec, (uint)OwnerOnly);
        if (fd >= 0) return new SafeFileHandle(fd, ownsHandle: true);
        int errno = Marshal.GetLastPInvokeError();
        throw new IOException($"cannot open {path}: {(errno == tooManyLinks ? "it is a link, and none is followed here" : Marshal.GetPInvokeErrorMessage(errno))}", errno);
    }

    /// <summary>Adds a line to the end of a file of ours. One that was cut off there ends first, or this one would be lost with it.</summary>
    /// <exception cref="IOException">It could not be written, or is a link.</exception>
    public static void AppendLine(string path, ReadOnlySpan<byte> line)
    {
        using SafeFileHandle file = OpenOwn(path, append: true);
        long length = RandomAccess.GetLength(file);
        Span<byte> last = stackalloc byte[1];
        bool isWhole = length == 0 || (RandomAccess.Read(file, last, length - 1) == 1 && last[0] == '\n');
        RandomAccess.Write(file, [.. isWhole ? ""u8 : "\n"u8, .. line, (byte)'\n'], length);
    }

    /// <summary>Makes a directory that only its owner may enter; one that exists is left as it is.</summary>
    /// <param name="mayBeLink">It is an operator's choice where it is.</param>
    /// <exception cref="IOException">Also when a link stands there: what is private would be written to where it leads.</exception>
    public static void EnsurePrivateDirectory(string path, bool mayBeLink = false)
    {
        if (!mayBeLink && new DirectoryInfo(path).LinkTarget is { } target)
            throw new IOException($"cannot use {path}: it is a link to {target}, and none is followed here; remove it");
        Directory.CreateDirectory(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }

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

    [LibraryImport("libc", EntryPoint = "open", StringMarshalling = StringMarshalling.Utf8, SetLastError = true)]
    private static partial int Open(string path, int flags, uint mode);

    [LibraryImport("libc", EntryPoint = "rename", StringMarshalling = StringMarshalling.Utf8, SetLastError = true)]
    private static partial int Rename(string from, string to);

    [LibraryImport("libc", EntryPoint = "fsync", SetLastError = true)]
    private static partial int Fsync(SafeFileHandle handle);
}
