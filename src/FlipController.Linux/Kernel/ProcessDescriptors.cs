using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;

namespace FlipController.Linux.Kernel;

/// <summary>
/// Which socket each descriptor of a process is, at one look: proc(5), /proc/PID/fd. The listing goes by getdents64 and readlinkat into
/// buffers that are used again, since a process may have 100,000 of them.
/// </summary>
public sealed unsafe class ProcessDescriptors
{
    private const int MostDescriptors = 1 << 30; // more is no descriptor but a fault
    private const int NameOffset = 19; // struct linux_dirent64: ino u64, off s64, reclen u16, type u8, name

    private uint[] _inodeOf = new uint[64];
    private readonly Dictionary<uint, int> _descriptorOf = [];

    private ProcessDescriptors() { }

    public int Sockets => _descriptorOf.Count;

    public bool Holds(uint inode) => _descriptorOf.ContainsKey(inode);

    /// <summary>0: not a socket, or not open.</summary>
    public uint InodeOf(int descriptor) => (uint)descriptor < (uint)_inodeOf.Length ? _inodeOf[descriptor] : 0;

    /// <summary>One of those that stand for the socket; -1: none does.</summary>
    public int DescriptorOf(uint inode) => _descriptorOf.GetValueOrDefault(inode, -1);

    public HashSet<uint> Inodes() => [.. _descriptorOf.Keys];

    /// <summary>Empty when the process is gone.</summary>
    /// <exception cref="KernelException">It may not be looked at: root may, and the process's own user.</exception>
    public static ProcessDescriptors Read(int pid)
    {
        ProcessDescriptors found = new();
        found.Add(pid);
        return found;
    }

    /// <summary>Of a process and its descendants; which descriptor a socket is, and of whom, is told for the first of them that has it.</summary>
    /// <exception cref="KernelException">One of them may not be looked at.</exception>
    public static ProcessDescriptors ReadFamily(int pid)
    {
        ProcessDescriptors found = new();
        foreach (int member in ProcessFamily.Pids(pid)) found.Add(member);
        return found;
    }

    private void Add(int pid)
    {
        int directory = Open(pid);
        if (directory < 0) return;
        try
        {
            byte* entries = stackalloc byte[16384];
            while (true)
            {
                int length = Libc.ReadDirectory(directory, entries, 16384);
                if (length <= 0) break; // 0: the end; below: it died meanwhile
                for (int at = 0; at < length; at += *(ushort*)(entries + at + 16)) Look(directory, entries + at + NameOffset);
            }
        }
        finally
        {
            _ = Libc.Close(directory);
        }
    }

    /// <summary>What one descriptor is now; 0: not a socket, or not open.</summary>
    public static uint Inode(int pid, int descriptor)
    {
        byte* target = stackalloc byte[64];
        byte[] path = Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/fd/{descriptor}\0"));
        fixed (byte* name = path) return InodeIn(target, Libc.ReadLinkAt(Libc.AtCurrentDirectory, name, target, 64));
    }

    private static int Open(int pid)
    {
        byte[] path = Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/fd\0"));
        fixed (byte* name = path)
        {
            int directory = Libc.OpenAt(Libc.AtCurrentDirectory, name, Libc.CloseOnExec);
            if (directory >= 0) return directory;
        }
        int errno = Marshal.GetLastPInvokeError();
        return errno is Errno.NoEntry or Errno.NoProcess ? -1 : throw new KernelException($"list the descriptors of process {pid}", errno);
    }

    private void Look(int directory, byte* name)
    {
        int descriptor = 0;
        for (byte* digit = name; *digit != 0; digit++)
        {
            if (*digit is < (byte)'0' or > (byte)'9' || descriptor > MostDescriptors / 10) return; // "." and ".."
            descriptor = descriptor * 10 + (*digit - '0');
        }
        byte* target = stackalloc byte[64];
        // A descriptor may be closed between the listing and the look: then it is not held, which is the answer.
        uint inode = InodeIn(target, Libc.ReadLinkAt(directory, name, target, 64));
        if (inode == 0) return;
        if (descriptor >= _inodeOf.Length) Array.Resize(ref _inodeOf, Math.Max(descriptor + 1, _inodeOf.Length * 2));
        if (_inodeOf[descriptor] == 0) _inodeOf[descriptor] = inode;
        _descriptorOf.TryAdd(inode, descriptor);
    }

    /// <summary><c>socket:[123]</c></summary>
    private static uint InodeIn(byte* target, nint length)
    {
        ReadOnlySpan<byte> text = new(target, (int)Math.Max(0, length));
        return text.StartsWith("socket:["u8) && uint.TryParse(text[8..].TrimEnd((byte)']'), NumberStyles.None, CultureInfo.InvariantCulture, out uint inode)
            ? inode
            : 0;
    }
}
