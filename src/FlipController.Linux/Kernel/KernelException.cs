using FlipController.Core;

namespace FlipController.Linux.Kernel;

/// <summary>
/// The kernel refused. Keeps everything it said: the error number and, where there was one, its sentence (a netlink extended
/// acknowledgement, or libnftables' error text).
/// </summary>
/// <param name="operation">What was attempted on which object, so that "cannot ..." can stand before it.</param>
public sealed class KernelException(string operation, int errno, string? kernelMessage = null)
    : FlipException($"cannot {operation}: {Kernel.Errno.Name(errno)}"
        + $"{(string.IsNullOrWhiteSpace(kernelMessage) ? "" : $" ({kernelMessage.Trim()})")}")
{
    public string Operation { get; } = operation;
    public int Errno { get; } = errno;
    public string? KernelMessage { get; } = kernelMessage;
}

/// <summary>Error numbers: include/uapi/asm-generic/errno-base.h and errno.h. x86 and arm use these generic numbers.</summary>
internal static class Errno
{
    internal const int Perm = 1; // EPERM
    internal const int NoEntry = 2; // ENOENT
    internal const int NoProcess = 3; // ESRCH
    internal const int Interrupted = 4; // EINTR
    internal const int Again = 11; // EAGAIN
    internal const int Busy = 16; // EBUSY
    internal const int Exists = 17; // EEXIST
    internal const int NoDevice = 19; // ENODEV
    internal const int NotADirectory = 20; // ENOTDIR
    internal const int Invalid = 22; // EINVAL
    internal const int Protocol = 71; // EPROTO
    internal const int Restart = 85; // ERESTART
    internal const int MessageSize = 90; // EMSGSIZE
    internal const int ProtocolNotSupported = 93; // EPROTONOSUPPORT
    internal const int NotSupported = 95; // EOPNOTSUPP
    internal const int AddressNotAvailable = 99; // EADDRNOTAVAIL
    internal const int NetworkUnreachable = 101; // ENETUNREACH
    internal const int NoBuffers = 105; // ENOBUFS
    internal const int HostUnreachable = 113; // EHOSTUNREACH

    internal static string Name(int errno) => errno switch
    {
        1 => "EPERM", 2 => "ENOENT", 3 => "ESRCH", 4 => "EINTR", 5 => "EIO", 6 => "ENXIO", 7 => "E2BIG", 9 => "EBADF",
        11 => "EAGAIN", 12 => "ENOMEM", 13 => "EACCES", 14 => "EFAULT", 16 => "EBUSY", 17 => "EEXIST", 19 => "ENODEV",
        20 => "ENOTDIR", 21 => "EISDIR", 22 => "EINVAL", 23 => "ENFILE", 24 => "EMFILE", 28 => "ENOSPC", 30 => "EROFS",
        31 => "EMLINK", 32 => "EPIPE", 33 => "EDOM", 34 => "ERANGE", 36 => "ENAMETOOLONG", 38 => "ENOSYS", 40 => "ELOOP",
        61 => "ENODATA", 62 => "ETIME", 71 => "EPROTO", 74 => "EBADMSG", 75 => "EOVERFLOW", 85 => "ERESTART", 88 => "ENOTSOCK",
        90 => "EMSGSIZE", 92 => "ENOPROTOOPT", 93 => "EPROTONOSUPPORT", 94 => "ESOCKTNOSUPPORT", 95 => "EOPNOTSUPP",
        97 => "EAFNOSUPPORT", 98 => "EADDRINUSE", 99 => "EADDRNOTAVAIL", 100 => "ENETDOWN", 101 => "ENETUNREACH",
        104 => "ECONNRESET", 105 => "ENOBUFS", 110 => "ETIMEDOUT", 111 => "ECONNREFUSED", 113 => "EHOSTUNREACH",
        114 => "EALREADY", 115 => "EINPROGRESS",
        _ => $"errno {errno}",
    };
}
