using System.Runtime.InteropServices;

namespace FlipController.Linux.Kernel;

/// <summary>
/// Connections to unix sockets that nobody has accepted yet: they are cut when the listener closes. Equivalent to the Recv-Q of
/// <c>ss -xl</c>: include/uapi/linux/unix_diag.h, net/unix/diag.c.
/// </summary>
public static class UnixQueues
{
    private const ushort ByFamily = 20; // SOCK_DIAG_BY_FAMILY
    private const byte Unix = 1; // AF_UNIX
    private const uint Listen = 1 << 10; // TCPF_LISTEN
    private const uint ShowQueues = 0x10; // UDIAG_SHOW_RQLEN
    private const ushort Queues = 4; // UNIX_DIAG_RQLEN

    /// <summary>Of the process's own listeners, abstract ones too; in the namespace of the calling thread.</summary>
    /// <exception cref="KernelException">The kernel does not list them (CONFIG_UNIX_DIAG).</exception>
    public static uint Unaccepted(int pid)
    {
        HashSet<uint> inodes = ProcessSockets.Inodes(pid);
        using var netlink = new NetlinkSocket(NetlinkProtocol.SockDiag);
        Span<byte> buffer = stackalloc byte[64];
        NetlinkMessage message = new(buffer, ByFamily, NetlinkFlags.None);
        message.Header(new DiagRequest { Family = Unix, States = Listen, Show = ShowQueues });
        return netlink.Dump("list unix sockets", message, () => new Sum(), (sum, _, payload) =>
        {
            if (payload.Length < Marshal.SizeOf<DiagMessage>() || !inodes.Contains(MemoryMarshal.Read<DiagMessage>(payload).Inode)) return;
            NetlinkAttributes attributes = new(payload[Marshal.SizeOf<DiagMessage>()..]);
            while (attributes.Next())
                if (attributes.Type == Queues && attributes.Value.Length >= sizeof(uint)) sum.Value += MemoryMarshal.Read<uint>(attributes.Value);
        }).Value;
    }

    private sealed class Sum
    {
        public uint Value;
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
