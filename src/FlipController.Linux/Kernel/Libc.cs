using System.Runtime.InteropServices;

namespace FlipController.Linux.Kernel;

/// <summary>The few calls of libc that .NET does not offer. Every one leaves errno in <see cref="Marshal.GetLastPInvokeError"/>.</summary>
internal static unsafe partial class Libc
{
    internal const int AfNetlink = 16; // AF_NETLINK, include/linux/socket.h
    internal const int AfInet = 2; // AF_INET
    internal const int AfInet6 = 10; // AF_INET6
    internal const int SolIp = 0; // SOL_IP
    internal const int SolIpv6 = 41; // SOL_IPV6
    internal const int SockRaw = 3; // SOCK_RAW, include/linux/net.h
    internal const int CloseOnExec = 0x80000; // SOCK_CLOEXEC = EFD_CLOEXEC = O_CLOEXEC
    internal const int AtCurrentDirectory = -100; // AT_FDCWD, include/uapi/linux/fcntl.h
    internal const int NonBlocking = 0x800; // EFD_NONBLOCK = O_NONBLOCK
    internal const int SolSocket = 1; // SOL_SOCKET
    internal const int SoReceiveBuffer = 8; // SO_RCVBUF
    internal const int SoReceiveTimeout = 20; // SO_RCVTIMEO
    internal const int SoAttachFilter = 26; // SO_ATTACH_FILTER
    internal const int SoReceiveBufferForce = 33; // SO_RCVBUFFORCE
    internal const int SolNetlink = 270; // SOL_NETLINK
    internal const int NetlinkAddMembership = 1; // NETLINK_ADD_MEMBERSHIP, include/uapi/linux/netlink.h
    internal const int NetlinkDropMembership = 2; // NETLINK_DROP_MEMBERSHIP
    internal const int NetlinkNoNoBuffers = 5; // NETLINK_NO_ENOBUFS
    internal const int NetlinkCapAck = 10; // NETLINK_CAP_ACK
    internal const int NetlinkExtAck = 11; // NETLINK_EXT_ACK
    internal const int MsgTrunc = 0x20; // MSG_TRUNC
    internal const int MsgDontWait = 0x40; // MSG_DONTWAIT
    internal const short PollIn = 1; // POLLIN
    internal const int PriorityProcess = 0; // PRIO_PROCESS
    internal const ulong UnreadBytes = 0x541b; // FIONREAD, include/uapi/asm-generic/ioctls.h

    // The same numbers on every architecture .NET runs on: include/uapi/asm-generic/unistd.h. glibc has wrappers since 2.36 only.
    private const long PidfdSendSignalCall = 424; // __NR_pidfd_send_signal, Linux 5.1
    private const long PidfdOpenCall = 434; // __NR_pidfd_open, Linux 5.3
    private const long PidfdGetDescriptorCall = 438; // __NR_pidfd_getfd, Linux 5.6

    [StructLayout(LayoutKind.Sequential)]
    internal struct PollDescriptor // struct pollfd
    {
        internal int Fd;
        internal short Events;
        internal short Returned;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct Buffer // struct iovec
    {
        internal void* Start;
        internal nuint Length;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct Message // struct msghdr
    {
        internal void* Name;
        internal uint NameLength;
        internal Buffer* Buffers;
        internal nuint BufferCount;
        internal void* Control;
        internal nuint ControlLength;
        internal int Flags;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct ManyMessage // struct mmsghdr
    {
        internal Message Message;
        internal uint Length;
    }

    [LibraryImport("libc", EntryPoint = "socket", SetLastError = true)]
    internal static partial int Socket(int domain, int type, int protocol);

    [LibraryImport("libc", EntryPoint = "bind", SetLastError = true)]
    internal static partial int Bind(int fd, void* address, uint length);

    [LibraryImport("libc", EntryPoint = "setsockopt", SetLastError = true)]
    internal static partial int SetSocketOption(int fd, int level, int name, void* value, uint length);

    [LibraryImport("libc", EntryPoint = "sendto", SetLastError = true)]
    internal static partial nint SendTo(int fd, void* data, nuint length, int flags, void* address, uint addressLength);

    [LibraryImport("libc", EntryPoint = "recvfrom", SetLastError = true)]
    internal static partial nint ReceiveFrom(int fd, void* data, nuint length, int flags, void* address, uint* addressLength);

    /// <summary>Up to <paramref name="count"/> messages in one call, one in each <see cref="ManyMessage"/>.</summary>
    [LibraryImport("libc", EntryPoint = "recvmmsg", SetLastError = true)]
    internal static partial int ReceiveMany(int fd, ManyMessage* messages, uint count, int flags, void* timeout);

    [LibraryImport("libc", EntryPoint = "close", SetLastError = true)]
    internal static partial int Close(int fd);

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    private static partial int Control(int fd, int command, int argument);

    /// <summary>For a descriptor that a library opened. One that was closed meanwhile is left alone.</summary>
    internal static void SetCloseOnExec(int fd)
    {
        const int setFlags = 2, closeOnExec = 1; // F_SETFD, FD_CLOEXEC: include/uapi/asm-generic/fcntl.h
        _ = Control(fd, setFlags, closeOnExec);
    }

    internal static IReadOnlyList<int> OpenDescriptors()
    {
        const int getFlags = 1; // F_GETFD
        List<int> seen = [.. Directory.EnumerateFileSystemEntries("/proc/self/fd")
            .Select(path => int.Parse(Path.GetFileName(path.AsSpan()), System.Globalization.CultureInfo.InvariantCulture))];
        // One of them was the look itself. Its number is the very one that the next to open something gets.
        return [.. seen.Where(fd => Control(fd, getFlags, 0) >= 0)];
    }

    [LibraryImport("libc", EntryPoint = "poll", SetLastError = true)]
    internal static partial int Poll(PollDescriptor* descriptors, ulong count, int milliseconds);

    [LibraryImport("libc", EntryPoint = "openat", SetLastError = true)]
    internal static partial int OpenAt(int directory, byte* path, int flags);

    [LibraryImport("libc", EntryPoint = "readlinkat", SetLastError = true)]
    internal static partial nint ReadLinkAt(int directory, byte* path, byte* target, nuint length);

    /// <summary>getdents64(2): bytes of struct linux_dirent64 that were written; 0 at the end. glibc since 2.30, musl under this name too.</summary>
    [LibraryImport("libc", EntryPoint = "getdents64", SetLastError = true)]
    internal static partial int ReadDirectory(int directory, byte* entries, nuint length);

    [LibraryImport("libc", EntryPoint = "eventfd", SetLastError = true)]
    internal static partial int EventFd(uint initial, int flags);

    [LibraryImport("libc", EntryPoint = "read", SetLastError = true)]
    internal static partial nint Read(int fd, void* data, nuint length);

    [LibraryImport("libc", EntryPoint = "write", SetLastError = true)]
    internal static partial nint Write(int fd, void* data, nuint length);

    [LibraryImport("libc", EntryPoint = "setpriority", SetLastError = true)]
    internal static partial int SetPriority(int which, uint who, int niceness);

    [LibraryImport("libc", EntryPoint = "getsid", SetLastError = true)]
    internal static partial int SessionOf(int pid);

    [LibraryImport("libc", EntryPoint = "memfd_create", SetLastError = true)]
    internal static partial int MemoryFile(byte* name, uint flags);

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    internal static partial int DeviceControl(int fd, ulong request, void* argument);

    [LibraryImport("libc", EntryPoint = "getsockopt", SetLastError = true)]
    internal static partial int GetSocketOption(int fd, int level, int name, void* value, uint* length);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial long SystemCall(long number, long a, long b, long c, long d);

    internal static int MemoryBarrier(long call, int command) => (int)SystemCall(call, command, 0, 0, 0);

    internal static int PidfdOpen(int pid) => (int)SystemCall(PidfdOpenCall, pid, 0, 0, 0);

    /// <summary>A descriptor of ours for what a descriptor of that process stands for, closed on exec: pidfd_getfd(2).</summary>
    internal static int PidfdGetDescriptor(int pidfd, int descriptor) => (int)SystemCall(PidfdGetDescriptorCall, pidfd, descriptor, 0, 0);

    internal static int PidfdSendSignal(int pidfd, int signal) => (int)SystemCall(PidfdSendSignalCall, pidfd, signal, 0, 0);
}
