using System.Runtime.InteropServices;

namespace FlipController.Linux.Kernel;

/// <summary>A thread sleeps on it, and on a descriptor, until either has something: an eventfd and poll(2).</summary>
internal sealed unsafe class Wakeup : IDisposable
{
    private readonly int _fd;

    internal Wakeup()
    {
        _fd = Libc.EventFd(0, Libc.CloseOnExec | Libc.NonBlocking);
        if (_fd < 0) throw new KernelException("make an eventfd", Marshal.GetLastPInvokeError());
    }

    /// <summary>By any thread, but not after <see cref="Dispose"/>.</summary>
    internal void Set()
    {
        ulong one = 1;
        _ = Libc.Write(_fd, &one, sizeof(ulong));
    }

    /// <summary>Until it is set, which it is not afterwards, the descriptor has something to read, or the time is over.</summary>
    /// <param name="fd">-1: none.</param>
    /// <param name="milliseconds">-1: for ever.</param>
    /// <returns>Whether the descriptor has something.</returns>
    internal bool Wait(int fd, int milliseconds)
    {
        Libc.PollDescriptor* descriptors = stackalloc Libc.PollDescriptor[2];
        descriptors[0] = new() { Fd = _fd, Events = Libc.PollIn };
        descriptors[1] = new() { Fd = fd, Events = Libc.PollIn };
        if (Libc.Poll(descriptors, 2, milliseconds) < 0) // a descriptor below zero is ignored, poll(2)
        {
            int errno = Marshal.GetLastPInvokeError();
            if (errno is Errno.Interrupted or Errno.Again) return false;
            throw new KernelException("wait for events", errno);
        }
        if (descriptors[0].Returned != 0)
        {
            ulong count;
            _ = Libc.Read(_fd, &count, sizeof(ulong));
        }
        return descriptors[1].Returned != 0;
    }

    public void Dispose() => _ = Libc.Close(_fd);
}
