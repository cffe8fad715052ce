using System.Runtime.InteropServices;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Linux.State;

namespace FlipController.Linux.Keepalived;

/// <summary>
/// A FIFO of ours with our events in it, as keepalived makes its own: held open on both sides, so that nothing is lost between two
/// readers, and written to without waiting. What does not fit is dropped and counted.
/// </summary>
public sealed unsafe partial class OwnFifo : IDisposable
{
    private readonly string _path;
    private readonly int _fd;
    private readonly Lock _turn = new();
    private bool _closed;

    /// <summary>One that is there already is used on: somebody may read it.</summary>
    /// <exception cref="FlipException">Something else is there, or it cannot be made.</exception>
    public OwnFifo(string path, string group)
    {
        const int readWrite = 2, noFollow = 0x20000, noFollowOnArm = 0x8000; // O_RDWR, O_NOFOLLOW
        const uint mode = 0x1a0; // 0640
        _path = path;
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        if (FileStatus.Read(path) is { Kind: not FileKind.Fifo })
            throw new FlipException($"cannot make events.fifo {path}: something else is there; nothing was changed; remove it, or name another path");
        if (MakeFifo(path, mode) != 0 && Marshal.GetLastPInvokeError() is var errno && errno != Errno.Exists) throw new KernelException($"make events.fifo {path}", errno);
        bool arm = RuntimeInformation.ProcessArchitecture is Architecture.Arm64 or Architecture.Arm;
        fixed (byte* name = Encoding.UTF8.GetBytes(path + '\0'))
            _fd = Libc.OpenAt(Libc.AtCurrentDirectory, name, readWrite | Libc.NonBlocking | Libc.CloseOnExec | (arm ? noFollowOnArm : noFollow));
        if (_fd < 0) throw new KernelException($"open events.fifo {path}", Marshal.GetLastPInvokeError());
        if (FileStatus.Read($"/proc/self/fd/{_fd}", follow: true) is not { Kind: FileKind.Fifo })
        {
            _ = Libc.Close(_fd);
            throw new FlipException($"cannot use events.fifo {path}: it is no FIFO any more; somebody has replaced it");
        }
        SharedSocket.Share(path, group);
    }

    /// <summary>How many lines nobody has read and that found no room.</summary>
    public long Dropped { get; private set; }

    /// <returns>It was written, whole: a line is shorter than PIPE_BUF, and so never mixed with another (pipe(7)).</returns>
    public bool Write(string line)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(line + "\n");
        lock (_turn)
        {
            if (_closed) return false;
            fixed (byte* start = bytes)
                if (Libc.Write(_fd, start, (nuint)bytes.Length) == bytes.Length) return true;
            Dropped++;
            return false;
        }
    }

    /// <summary>It stays where it is, with what nobody has read yet lost: a reader sees the end of it.</summary>
    public void Dispose()
    {
        lock (_turn)
        {
            if (_closed) return;
            _closed = true;
            _ = Libc.Close(_fd);
        }
    }

    public override string ToString() => _path;

    [LibraryImport("libc", EntryPoint = "mkfifo", StringMarshalling = StringMarshalling.Utf8, SetLastError = true)]
    private static partial int MakeFifo(string path, uint mode);
}
