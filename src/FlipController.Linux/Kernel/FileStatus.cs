using System.Runtime.InteropServices;
using System.Text;

namespace FlipController.Linux.Kernel;

internal enum FileKind { Other, Link, Socket, Directory, Fifo }

/// <summary>What stat(2) tells, which .NET does not.</summary>
/// <param name="Inode">As unix_diag tells it: its lower half.</param>
/// <param name="Device">As the kernel has it: the major number above 20 bits of the minor one.</param>
/// <param name="Mode">The permissions, with the sticky bit.</param>
internal readonly unsafe partial record struct FileStatus(FileKind Kind, uint Inode, uint Device, uint Owner, uint Group, int Mode)
{
    private const int NoFollow = 0x100; // AT_SYMLINK_NOFOLLOW: include/uapi/linux/fcntl.h
    private const uint Basics = 0x7ff; // STATX_BASIC_STATS
    private const int Sticky = 0x200, OthersWrite = 2; // S_ISVTX, S_IWOTH

    /// <summary>Whoever is on this host may put something there.</summary>
    public bool IsWorldWritable => (Mode & OthersWrite) != 0;

    public bool IsSticky => (Mode & Sticky) != 0;

    /// <summary>Null: nothing is there.</summary>
    /// <param name="follow">What a link leads to, instead of itself.</param>
    /// <exception cref="KernelException">It cannot be told.</exception>
    public static FileStatus? Read(string path, bool follow = false)
    {
        // The same on every architecture, unlike stat(2): include/uapi/linux/stat.h, struct statx.
        byte* status = stackalloc byte[256];
        fixed (byte* name = Encoding.UTF8.GetBytes(path + '\0'))
        {
            if (Statx(Libc.AtCurrentDirectory, name, follow ? 0 : NoFollow, Basics, status) != 0)
            {
                int errno = Marshal.GetLastPInvokeError();
                return errno is Errno.NoEntry or Errno.NotADirectory ? null : throw new KernelException($"look at {path}", errno);
            }
        }
        int mode = *(ushort*)(status + 28); // stx_mode
        FileKind kind = (mode & 0xf000) switch { 0xa000 => FileKind.Link, 0xc000 => FileKind.Socket, 0x4000 => FileKind.Directory, 0x1000 => FileKind.Fifo, _ => FileKind.Other };
        // stx_ino, stx_dev_major, stx_dev_minor, stx_uid, stx_gid
        return new FileStatus(kind, (uint)*(ulong*)(status + 32), *(uint*)(status + 136) << 20 | *(uint*)(status + 140),
            *(uint*)(status + 20), *(uint*)(status + 24), mode & 0xfff);
    }

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true)]
    private static partial int Statx(int directory, byte* path, int flags, uint mask, byte* status);
}
