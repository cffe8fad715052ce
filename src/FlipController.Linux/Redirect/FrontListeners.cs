using System.Net;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Gate;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Redirect;

/// <summary>Who listens on front addresses, with a group of listeners (SO_REUSEPORT) for each address.</summary>
internal sealed class FrontListeners : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromMilliseconds(250);

    private readonly SockDiag _sockets = new();
    private readonly IReadOnlyList<(Service Front, uint Inode)> _listeners;

    public FrontListeners() => _listeners =
        [.. _sockets.Listeners().Select(s => (new Service(s.Local.Address, s.Local.Port, s.V6Only == true), s.Inode))];

    public void Dispose() => _sockets.Dispose();

    /// <summary>The sockets that listen on the very address: the members of one group.</summary>
    public IReadOnlyList<uint> On(Service service) => [.. _listeners.Where(l => IsSame(l.Front, service)).Select(l => l.Inode)];

    /// <summary>Those that would take some of its connections and are of another group: what the kernel prefers of the two is not ours to say.</summary>
    public IReadOnlyList<(Service Front, uint Inode)> Across(Service service) =>
        [.. _listeners.Where(l => !IsSame(l.Front, service) && l.Front.Overlaps(service))];

    private static bool IsSame(Service one, Service other) => one.Port == other.Port && one.Address.Equals(other.Address)
        && (!one.Address.Equals(IPAddress.IPv6Any) || one.V6Only == other.V6Only);

    /// <summary>The one of them that the process, or a descendant, holds; null: none.</summary>
    public uint? Of(Service service, ProcessDescriptors held) => On(service).Where(held.Holds).Select(i => (uint?)i).FirstOrDefault();

    /// <summary>
    /// Who gets a connection that this host opens to the address; null: nobody can say, as the address is not here now, or whoever
    /// got it has not accepted it or has closed it at once.
    /// </summary>
    /// <param name="mark">Of its packets; 0: none, as of anybody's.</param>
    public uint? Taker(Service service, uint mark)
    {
        if (Gate.Gate.Reachable(new ServicePort(service, service.Port)) is not { } target) return null;
        using Socket socket = mark == 0
            ? new Socket(target.AddressFamily, SocketType.Stream, ProtocolType.Tcp)
            : PassingSocket.Open(target.AddressFamily, mark);
        try
        {
            using var bound = new CancellationTokenSource(s_patience);
            socket.ConnectAsync(target, bound.Token).AsTask().GetAwaiter().GetResult();
            var peer = (IPEndPoint)socket.LocalEndPoint!;
            for (long began = TimeProvider.System.GetTimestamp(); TimeProvider.System.GetElapsedTime(began) < s_patience; Thread.Sleep(1))
            {
                if (_sockets.InodeOf(target, peer) is not { } inode) return null;
                if (inode != 0) return inode;
            }
            return null;
        }
        catch (Exception e) when (e is SocketException or OperationCanceledException)
        {
            return null;
        }
    }
}

/// <summary>A descriptor of ours for a socket that another process holds; it must be closed at once, as the socket listens while it is open.</summary>
internal sealed class BorrowedSocket : IDisposable
{
    private BorrowedSocket(int fd) => Fd = fd;

    public int Fd { get; private set; }

    /// <param name="pid">It, or one of its descendants, holds the socket.</param>
    /// <exception cref="FlipException">The kernel refuses, or nobody of them holds it any more.</exception>
    public static BorrowedSocket Take(int pid, uint inode, Service service)
    {
        string what = $"reach the listener of process {pid} on {service}";
        foreach (int member in ProcessFamily.Pids(pid))
        {
            if (ProcessDescriptors.Read(member).DescriptorOf(inode) is not (>= 0 and int descriptor)) continue;
            int pidfd = Libc.PidfdOpen(member);
            if (pidfd < 0) continue;
            try
            {
                int fd = Libc.PidfdGetDescriptor(pidfd, descriptor);
                if (fd < 0)
                    throw new KernelException(what, System.Runtime.InteropServices.Marshal.GetLastPInvokeError(),
                        "pidfd_getfd(2) needs Linux 5.6, CAP_SYS_PTRACE, kernel.yama.ptrace_scope below 3, and in a systemd unit SystemCallFilter=pidfd_getfd");
                var borrowed = new BorrowedSocket(fd);
                // The number may have become another socket's between the two looks.
                if (ProcessDescriptors.Inode(Environment.ProcessId, fd) == inode) return borrowed;
                borrowed.Dispose();
            }
            finally
            {
                _ = Libc.Close(pidfd);
            }
        }
        throw new FlipException($"cannot {what}: it does not listen there any more");
    }

    public void Dispose()
    {
        if (Fd >= 0) _ = Libc.Close(Fd);
        Fd = -1;
    }
}
