using System.Runtime.InteropServices;
using System.Text;
using FlipController.Core;

namespace FlipController.Linux.Kernel;

/// <summary>A unix socket, as the kernel lists it.</summary>
/// <param name="Inode">Of the socket, as in /proc/PID/fd; 0: nobody has accepted it yet.</param>
/// <param name="File">Inode of the file it was bound to, an accepted one's listener was; 0: it has none.</param>
/// <param name="Device">Of that file, as <see cref="FileStatus.Device"/>.</param>
/// <param name="Unaccepted">Of a listener: connections that nobody has accepted yet.</param>
/// <param name="Name">Under which the listener was bound; empty: it has none, or no path.</param>
internal readonly record struct UnixSocket(uint Inode, uint File, uint Device, uint Unaccepted, string Name)
{
    public bool IsAt(FileStatus file) => File == file.Inode && Device == file.Device;
}

/// <summary>
/// Unix sockets of the calling thread's network namespace, and connections to them that nobody has accepted yet, which are cut when
/// the listener closes. Equivalent to <c>ss -xl</c> and its Recv-Q: include/uapi/linux/unix_diag.h, net/unix/diag.c.
/// </summary>
public static class UnixQueues
{
    private const ushort ByFamily = 20; // SOCK_DIAG_BY_FAMILY
    private const byte Unix = 1; // AF_UNIX
    private const uint Listen = 1 << 10, Established = 1 << 1; // TCPF_LISTEN, TCPF_ESTABLISHED
    private const uint ShowName = 1, ShowFile = 2, ShowQueues = 0x10; // UDIAG_SHOW_NAME, UDIAG_SHOW_VFS, UDIAG_SHOW_RQLEN
    private const ushort NameIs = 0, File = 1, Queues = 4; // UNIX_DIAG_NAME, UNIX_DIAG_VFS, UNIX_DIAG_RQLEN

    /// <summary>Of the process's own listeners, abstract ones too.</summary>
    /// <exception cref="KernelException">The kernel does not list them (CONFIG_UNIX_DIAG).</exception>
    public static uint Unaccepted(int pid)
    {
        HashSet<uint> inodes = ProcessSockets.Inodes(pid);
        return (uint)Listeners().Where(l => inodes.Contains(l.Inode)).Sum(l => l.Unaccepted);
    }

    /// <exception cref="KernelException">The kernel does not list them (CONFIG_UNIX_DIAG).</exception>
    internal static IReadOnlyList<UnixSocket> Listeners() => Sockets(Listen);

    /// <summary>Connected ones, of both ends; only the accepting one has the file.</summary>
    /// <exception cref="KernelException">The kernel does not list them (CONFIG_UNIX_DIAG).</exception>
    internal static IReadOnlyList<UnixSocket> Connected() => Sockets(Established);

    /// <summary>
    /// Connections to a generation's front paths that its HAProxy has accepted and not closed. Each bears the name its listener was bound
    /// under, which HAProxy makes of the path and its process id (src/sock_unix.c) and which nothing changes, whatever becomes of the file.
    /// An accepted socket is of its client's network namespace (net/unix/af_unix.c, unix_stream_connect): those of others are not listed.
    /// </summary>
    /// <exception cref="KernelException">The kernel does not list them (CONFIG_UNIX_DIAG).</exception>
    public static int Clients(Generation generation)
    {
        if (generation.UnixFronts.IsEmpty) return 0;
        HashSet<uint> inodes = ProcessSockets.Inodes(generation.Pid);
        return Connected().Count(s => inodes.Contains(s.Inode) && IsAtFront(s, generation));
    }

    /// <summary>It listens at one of its front paths' sockets.</summary>
    /// <exception cref="KernelException">The kernel does not list them (CONFIG_UNIX_DIAG).</exception>
    public static bool Listens(Generation generation)
    {
        if (generation.UnixFronts.IsEmpty) return false; // nor is a kernel asked that may not tell
        HashSet<uint> inodes = ProcessSockets.Inodes(generation.Pid);
        return Listeners().Any(s => inodes.Contains(s.Inode) && IsAtFront(s, generation));
    }

    private static bool IsAtFront(UnixSocket socket, Generation generation) =>
        generation.UnixFronts.Any(f => socket.Name.StartsWith(f.Socket + ".", StringComparison.Ordinal));

    private static List<UnixSocket> Sockets(uint states)
    {
        using var netlink = new NetlinkSocket(NetlinkProtocol.SockDiag);
        Span<byte> buffer = stackalloc byte[64];
        NetlinkMessage message = new(buffer, ByFamily, NetlinkFlags.None);
        message.Header(new DiagRequest { Family = Unix, States = states, Show = ShowName | ShowFile | ShowQueues });
        return netlink.Dump("list unix sockets", message, () => new List<UnixSocket>(), (sockets, _, payload) =>
        {
            if (payload.Length < Marshal.SizeOf<DiagMessage>()) return;
            uint file = 0, device = 0, queue = 0;
            string name = "";
            NetlinkAttributes attributes = new(payload[Marshal.SizeOf<DiagMessage>()..]);
            while (attributes.Next())
            {
                if (attributes.Type == Queues && attributes.Value.Length >= sizeof(uint)) queue = MemoryMarshal.Read<uint>(attributes.Value);
                if (attributes.Type == NameIs && attributes.Value is [(byte)'/', ..]) name = Encoding.UTF8.GetString(attributes.Value).TrimEnd('\0');
                if (attributes.Type == File && attributes.Value.Length >= 2 * sizeof(uint)) // struct unix_diag_vfs
                    (file, device) = (MemoryMarshal.Read<uint>(attributes.Value), MemoryMarshal.Read<uint>(attributes.Value[sizeof(uint)..]));
            }
            sockets.Add(new UnixSocket(MemoryMarshal.Read<DiagMessage>(payload).Inode, file, device, queue, name));
        });
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct DiagRequest // struct unix_diag_req
    {
        internal byte Family, Protocol;
        internal ushort Pad;
        internal uint States, Inode, Show, CookieLow, CookieHigh;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct DiagMessage // struct unix_diag_msg
    {
        internal byte Family, Type, State, Pad;
        internal uint Inode, CookieLow, CookieHigh;
    }
}
