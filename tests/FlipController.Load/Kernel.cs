using System.Runtime.InteropServices;

namespace FlipController.Load;

// The system calls of the load loop. They are called directly, not through System.Net.Sockets, for three reasons: one thread
// does it all, so latencies do not depend on how the thread pool feels; that thread can live in a network namespace of its
// own; and the errno that is counted is the one the kernel gave.
internal static unsafe partial class Kernel
{
    // asm-generic/errno.h, the same numbers on x86-64 and arm64
    public const int Eintr = 4, Eagain = 11, Enfile = 23, Emfile = 24, Epipe = 32;
    public const int Eaddrnotavail = 99, Econnreset = 104, Enotconn = 107, Etimedout = 110, Econnrefused = 111, Einprogress = 115;

    public const int ShutWr = 1;           // SHUT_WR, sys/socket.h
    public const int MsgNosignal = 0x4000; // MSG_NOSIGNAL

    // sys/epoll.h
    public const uint EpollIn = 0x001, EpollOut = 0x004, EpollErr = 0x008, EpollHup = 0x010, EpollRdhup = 0x2000, EpollEdge = 1u << 31;
    public const int EpollCtlAdd = 1;

    // struct epoll_event is packed on x86-64 only.
    public static readonly int EventSize = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? 12 : 16;
    public static readonly int EventData = EventSize - 8;

    /// <summary>A non-blocking TCP socket without Nagle's delay, or -1.</summary>
    public static int OpenTcp(System.Net.Sockets.AddressFamily family)
    {
        const int SockStream = 1, SockNonblock = 0x800, SockCloexec = 0x80000, Tcp = 6, TcpNodelay = 1;
        var fd = socket(family == System.Net.Sockets.AddressFamily.InterNetworkV6 ? 10 /* AF_INET6 */ : 2 /* AF_INET */,
            SockStream | SockNonblock | SockCloexec, 0);
        var one = 1;
        if (fd >= 0) _ = setsockopt(fd, Tcp, TcpNodelay, &one, sizeof(int));
        return fd;
    }

    public static int SocketError(int fd)
    {
        const int SolSocket = 1, SoError = 4;
        int error = 0, size = sizeof(int);
        return getsockopt(fd, SolSocket, SoError, &error, &size) == 0 ? error : Marshal.GetLastPInvokeError();
    }

    public static int OpenEpoll() => epoll_create1(0x80000 /* EPOLL_CLOEXEC */);

    /// <summary>Every edge of the socket, with one system call for its whole life.</summary>
    public static int Watch(int epoll, int fd, ulong data)
    {
        var buffer = stackalloc byte[16];
        Marshal.WriteInt32((nint)buffer, unchecked((int)(EpollIn | EpollOut | EpollRdhup | EpollEdge)));
        Marshal.WriteInt64((nint)(buffer + EventData), unchecked((long)data));
        return epoll_ctl(epoll, EpollCtlAdd, fd, buffer);
    }

    public static int Wait(int epoll, byte* events, int max, long nanoseconds)
    {
        var limit = stackalloc long[2] { nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000 }; // struct timespec
        return epoll_pwait2(epoll, events, max, limit, null);
    }

    /// <summary>Timers of the calling thread fire when they are due, not when it suits the kernel (50 us by default).</summary>
    public static void SharpenTimers() => prctl(29 /* PR_SET_TIMERSLACK */, 1, 0, 0, 0);

    /// <summary>Processor time of the calling thread, in nanoseconds.</summary>
    public static long ThreadCpu()
    {
        var time = stackalloc long[2];
        return clock_gettime(3 /* CLOCK_THREAD_CPUTIME_ID */, time) == 0 ? time[0] * 1_000_000_000 + time[1] : 0;
    }

    [LibraryImport("libc", SetLastError = true)] private static partial int socket(int domain, int type, int protocol);
    [LibraryImport("libc", SetLastError = true)] private static partial int setsockopt(int fd, int level, int name, void* value, int size);
    [LibraryImport("libc", SetLastError = true)] private static partial int getsockopt(int fd, int level, int name, void* value, int* size);
    [LibraryImport("libc", SetLastError = true)] public static partial int connect(int fd, byte* address, int size);
    [LibraryImport("libc", SetLastError = true)] public static partial nint send(int fd, byte* data, nuint length, int flags);
    [LibraryImport("libc", SetLastError = true)] public static partial nint recv(int fd, byte* data, nuint length, int flags);
    [LibraryImport("libc", SetLastError = true)] public static partial int shutdown(int fd, int how);
    [LibraryImport("libc", SetLastError = true)] public static partial int close(int fd);
    [LibraryImport("libc", SetLastError = true)] private static partial int epoll_create1(int flags);
    [LibraryImport("libc", SetLastError = true)] private static partial int epoll_ctl(int epoll, int operation, int fd, void* e);
    [LibraryImport("libc", SetLastError = true)] private static partial int epoll_pwait2(int epoll, void* events, int max, void* limit, void* mask);
    [LibraryImport("libc")] private static partial int prctl(int option, nuint a, nuint b, nuint c, nuint d);
    [LibraryImport("libc")] private static partial int clock_gettime(int clock, long* time);
}
