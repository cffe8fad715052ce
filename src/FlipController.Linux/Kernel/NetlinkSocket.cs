using System.Runtime.InteropServices;
using System.Text;

namespace FlipController.Linux.Kernel;

/// <summary>Takes one message of a dump: its type and everything after the nlmsghdr.</summary>
internal delegate void DumpReader<in T>(T result, ushort type, ReadOnlySpan<byte> payload);

/// <summary>
/// One netlink socket. It belongs to the network namespace of the thread that opens it and stays there; any one thread at a time
/// may use it afterwards.
/// </summary>
internal sealed unsafe class NetlinkSocket : IDisposable
{
    /// <summary>
    /// How often a dump that the kernel calls inconsistent is begun again. Only tables in constant turmoil need more than two.
    /// </summary>
    private const int DumpAttempts = 10;

    // The kernel fills at most 32 KiB per message of a dump, netlink_dump() in net/netlink/af_netlink.c.
    private readonly byte[] _receive = GC.AllocateUninitializedArray<byte>(64 * 1024, pinned: true);
    private uint _sequence;

    /// <param name="protocol">One of <see cref="NetlinkProtocol"/>.</param>
    internal NetlinkSocket(int protocol)
    {
        Fd = Libc.Socket(Libc.AfNetlink, Libc.SockRaw | Libc.CloseOnExec, protocol);
        if (Fd < 0) throw new KernelException($"open a netlink socket (protocol {protocol})", Marshal.GetLastPInvokeError());
        try
        {
            // struct sockaddr_nl: family u16, pad u16, pid u32, groups u32. Pid 0: the kernel chooses one.
            byte* address = stackalloc byte[12];
            new Span<byte>(address, 12).Clear();
            *(ushort*)address = Libc.AfNetlink;
            if (Libc.Bind(Fd, address, 12) < 0) throw new KernelException("bind a netlink socket", Marshal.GetLastPInvokeError());

            // The kernel's sentence beside the number (4.12), and errors that do not repeat the request (4.3). Old kernels say
            // no: then none come.
            int one = 1;
            _ = Libc.SetSocketOption(Fd, Libc.SolNetlink, Libc.NetlinkExtAck, &one, sizeof(int));
            _ = Libc.SetSocketOption(Fd, Libc.SolNetlink, Libc.NetlinkCapAck, &one, sizeof(int));

            // The kernel answers while the request is being sent; this bound only keeps a kernel that never does from hanging a
            // pair's loop.
            long* timeout = stackalloc long[2] { 10, 0 };
            _ = Libc.SetSocketOption(Fd, Libc.SolSocket, Libc.SoReceiveTimeout, timeout, 16);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>For tests: any datagram socket with someone at its other end who plays the kernel.</summary>
    internal static NetlinkSocket Over(int fd) => new() { Fd = fd };

    private NetlinkSocket() { }

    internal int Fd { get; private set; }

    /// <summary>What the kernel tells a group comes from now on; false: no more.</summary>
    /// <param name="of">For the error: whose events, as in "conntrack's".</param>
    internal void Listen(uint group, string of, bool join = true)
    {
        if (Libc.SetSocketOption(Fd, Libc.SolNetlink, join ? Libc.NetlinkAddMembership : Libc.NetlinkDropMembership, &group, sizeof(uint)) < 0)
            throw new KernelException($"{(join ? "join" : "leave")} group {group} of {of} events", Marshal.GetLastPInvokeError());
    }

    /// <summary>Sends a request that changes something and waits for the kernel's yes.</summary>
    /// <param name="operation">For the error: what is attempted on which object, as in "add plug 40: on lo".</param>
    /// <exception cref="KernelException">The kernel's no.</exception>
    internal void Request(string operation, NetlinkMessage message)
    {
        Send(operation, message, NetlinkFlags.Request | NetlinkFlags.Acknowledge);
        Receive<object?>(operation, null, null);
    }

    /// <summary>
    /// The same for two requests in one write: the kernel does both before anybody can end this process. The second is tried though the
    /// first has failed.
    /// </summary>
    internal void Request(string operation, NetlinkMessage first, NetlinkMessage second)
    {
        const NetlinkFlags flags = NetlinkFlags.Request | NetlinkFlags.Acknowledge;
        byte[] both = [.. Numbered(first, flags), .. Numbered(second, flags)];
        Write(operation, both);
        uint last = _sequence;
        try
        {
            _sequence = last - 1;
            Receive<object?>(operation, null, null);
        }
        finally
        {
            _sequence = last; // what is said about the second after the first has failed is no answer to anything later
        }
        Receive<object?>(operation, null, null);
    }

    /// <summary>Asks for one thing; what is told about it goes to <paramref name="read"/>.</summary>
    internal void Ask<T>(string operation, NetlinkMessage message, T result, DumpReader<T> read)
    {
        Send(operation, message, NetlinkFlags.Request | NetlinkFlags.Acknowledge);
        Receive(operation, result, read);
    }

    /// <summary>
    /// Asks for a dump and gives every message of it to <paramref name="read"/>. A dump during which the table changed so much that the
    /// kernel calls it inconsistent (NLM_F_DUMP_INTR) is begun again, with a new result.
    /// </summary>
    internal T Dump<T>(string operation, NetlinkMessage message, Func<T> begin, DumpReader<T> read)
    {
        for (int attempt = 1; ; attempt++)
        {
            Send(operation, message, NetlinkFlags.Request | NetlinkFlags.Dump);
            T result = begin();
            if (Receive(operation, result, read)) return result;
            if (attempt == DumpAttempts)
                throw new KernelException(operation, Errno.Interrupted, $"the table changed during each of {DumpAttempts} dumps");
        }
    }

    public void Dispose()
    {
        if (Fd < 0) return;
        _ = Libc.Close(Fd);
        Fd = -1;
    }

    private void Send(string operation, NetlinkMessage message, NetlinkFlags flags) => Write(operation, Numbered(message, flags));

    private Span<byte> Numbered(NetlinkMessage message, NetlinkFlags flags)
    {
        Span<byte> bytes = message.Bytes;
        MemoryMarshal.Write(bytes[6..], (ushort)(MemoryMarshal.Read<ushort>(bytes[6..]) | (ushort)flags));
        MemoryMarshal.Write(bytes[8..], ++_sequence);
        return bytes;
    }

    private void Write(string operation, ReadOnlySpan<byte> bytes)
    {
        fixed (byte* data = bytes)
        {
            while (Libc.SendTo(Fd, data, (nuint)bytes.Length, 0, null, 0) < 0)
            {
                int errno = Marshal.GetLastPInvokeError();
                if (errno != Errno.Interrupted) throw new KernelException(operation, errno);
            }
        }
    }

    /// <summary>Reads until the acknowledgement or the end of the dump. False: the dump was inconsistent.</summary>
    private bool Receive<T>(string operation, T result, DumpReader<T>? read)
    {
        bool consistent = true;
        while (true)
        {
            ReadOnlySpan<byte> rest = Datagram(operation);
            while (rest.Length >= NetlinkMessage.HeaderLength)
            {
                int length = MemoryMarshal.Read<int>(rest);
                if (length < NetlinkMessage.HeaderLength || length > rest.Length) break;
                ushort type = MemoryMarshal.Read<ushort>(rest[4..]);
                NetlinkFlags flags = (NetlinkFlags)MemoryMarshal.Read<ushort>(rest[6..]);
                uint sequence = MemoryMarshal.Read<uint>(rest[8..]);
                ReadOnlySpan<byte> payload = rest[NetlinkMessage.HeaderLength..length];
                rest = rest[Math.Min(NetlinkMessage.Align(length), rest.Length)..];

                // What is left of an earlier request that failed half way is not an answer to this one.
                if (sequence != _sequence) continue;
                if ((flags & NetlinkFlags.DumpInterrupted) != 0) consistent = false;
                switch (type)
                {
                    case NetlinkType.Error:
                        ThrowIfError(operation, flags, payload, afterRequest: true);
                        return consistent;
                    case NetlinkType.Done:
                        ThrowIfError(operation, flags, payload, afterRequest: false);
                        return consistent;
                    case NetlinkType.Overrun:
                        throw new KernelException(operation, Errno.NoBuffers);
                    case >= NetlinkType.FirstOfFamily:
                        read?.Invoke(result, type, payload);
                        break;
                }
            }
        }
    }

    private ReadOnlySpan<byte> Datagram(string operation)
    {
        fixed (byte* data = _receive)
        {
            while (true)
            {
                nint count = Libc.ReceiveFrom(Fd, data, (nuint)_receive.Length, Libc.MsgTrunc, null, null);
                if (count > _receive.Length) throw new KernelException(operation, Errno.MessageSize);
                if (count >= 0) return _receive.AsSpan(0, (int)count);
                int errno = Marshal.GetLastPInvokeError();
                if (errno != Errno.Interrupted) throw new KernelException(operation, errno);
            }
        }
    }

    /// <summary>
    /// An NLMSG_ERROR is the negative errno, the request's header (and, if not NLM_F_CAPPED, its payload), then attributes if
    /// NLM_F_ACK_TLVS; an NLMSG_DONE is the negative errno, then attributes.
    /// </summary>
    private static void ThrowIfError(string operation, NetlinkFlags flags, ReadOnlySpan<byte> payload, bool afterRequest)
    {
        if (payload.Length < sizeof(int)) return;
        int errno = -MemoryMarshal.Read<int>(payload);
        if (errno <= 0) return; // 0: an acknowledgement; above 0: what some dumps return in NLMSG_DONE
        string? text = null;
        if (flags.HasFlag(NetlinkFlags.AcknowledgeAttributes))
        {
            ReadOnlySpan<byte> rest = payload[sizeof(int)..];
            if (afterRequest)
            {
                uint request = NetlinkMessage.HeaderLength;
                if (!flags.HasFlag(NetlinkFlags.Capped) && rest.Length >= sizeof(uint)) request = Math.Min(MemoryMarshal.Read<uint>(rest), (uint)rest.Length);
                rest = rest[Math.Min(NetlinkMessage.Align((int)request), rest.Length)..];
            }
            NetlinkAttributes attributes = new(rest);
            while (attributes.Next())
            {
                if (attributes.Type == 1) text = Encoding.UTF8.GetString(attributes.Value.TrimEnd((byte)0)); // NLMSGERR_ATTR_MSG
            }
        }
        throw new KernelException(operation, errno, text);
    }
}
