using System.Buffers.Binary;
using System.Runtime.InteropServices;
using FlipController.Core;

namespace FlipController.Linux.Kernel;

/// <summary>
/// A queue of netfilter's: packets that a rule sends there wait until they are let go. Only what stands in front of each packet is read
/// (COPY_META). When it is full, or nobody reads, packets go on unheld (fail-open); it ends, and what waits is dropped, when the last
/// one who has its socket closes it. Constants: include/uapi/linux/netfilter/nfnetlink_queue.h; what they do:
/// net/netfilter/nfnetlink_queue.c.
/// </summary>
internal sealed unsafe class NfQueue : IDisposable
{
    /// <summary>Sequence numbers of verdicts: what the kernel says about one that failed carries it.</summary>
    internal const uint MainVerdict = 1, LateVerdict = 2;

    internal const uint Accept = 1, Repeat = 4; // NF_ACCEPT, NF_REPEAT: include/uapi/linux/netfilter.h

    /// <summary>How many packets may wait; 900 ms of 50,000 SYN/s are 45,000.</summary>
    internal const uint UsualLength = 65536;

    /// <summary>For packets that nobody has read yet, at some 1.3 KB each; the kernel doubles it.</summary>
    private const int ReceiveBufferBytes = 32 * 1024 * 1024;

    private const ushort Subsystem = 3; // NFNL_SUBSYS_QUEUE
    private const ushort Packet = Subsystem << 8 | 0; // NFQNL_MSG_PACKET
    private const ushort Config = Subsystem << 8 | 2; // NFQNL_MSG_CONFIG
    private const ushort VerdictBatch = Subsystem << 8 | 3; // NFQNL_MSG_VERDICT_BATCH
    private const ushort ConfigCommand = 1, ConfigParameters = 2, ConfigMaxLength = 3; // NFQA_CFG_CMD, _PARAMS, _QUEUE_MAXLEN
    private const ushort ConfigMask = 4, ConfigFlags = 5; // NFQA_CFG_MASK, _FLAGS
    private const byte Bind = 1, Unbind = 2; // NFQNL_CFG_CMD_BIND, _UNBIND
    private const byte CopyMeta = 1; // NFQNL_COPY_META
    private const uint FailOpen = 1; // NFQA_CFG_F_FAIL_OPEN
    private const ushort VerdictHeader = 2; // NFQA_VERDICT_HDR

    /// <summary>Where the search for a free number begins: people count from 0.</summary>
    private const int FirstNumber = 4600, LastNumber = 65535;

    private readonly NetlinkSocket _netlink;
    private readonly NfQueueList _list;
    private readonly byte[] _message = GC.AllocateUninitializedArray<byte>(8192, pinned: true);

    private NfQueue(NetlinkSocket netlink, NfQueueList list, int number)
    {
        _netlink = netlink;
        _list = list;
        Number = number;
    }

    /// <summary>For tests: <see cref="NetlinkSocket.Over"/>.</summary>
    internal static NfQueue Over(int fd) => new(NetlinkSocket.Over(fd), NfQueueList.Open(), 0);

    internal int Number { get; }

    /// <summary>Verdicts are good from this socket only, whoever writes them.</summary>
    internal int Fd => _netlink.Fd;

    /// <summary>Takes a number that nobody uses in the calling thread's network namespace.</summary>
    /// <param name="length">So many packets may wait in it.</param>
    internal static NfQueue BindFree(uint length = UsualLength, int first = FirstNumber)
    {
        NetlinkSocket netlink = new(NetlinkProtocol.Netfilter);
        NfQueueList list = NfQueueList.Open();
        try
        {
            BufferFor(netlink.Fd);
            HashSet<int> taken = [.. list.Read().Select(line => line.Number)];
            for (int number = first; number <= LastNumber; number++)
            {
                if (taken.Contains(number)) continue;
                try
                {
                    netlink.Request($"bind NFQUEUE {number}", BindMessage(number, length));
                    return new NfQueue(netlink, list, number);
                }
                catch (KernelException e) when (e.Errno is Errno.Perm or Errno.Busy && list.Read().Any(line => line.Number == number))
                {
                    // Somebody was faster. EPERM stands for this as well as for missing rights.
                }
            }
            throw new FlipException($"cannot bind an NFQUEUE: none of the numbers {first} to {LastNumber} is free");
        }
        catch
        {
            list.Dispose();
            netlink.Dispose();
            throw;
        }
    }

    /// <summary>Its own line; null when it is gone.</summary>
    internal NfQueueLine? ReadLine()
    {
        foreach (NfQueueLine line in _list.Read())
            if (line.Number == Number) return line;
        return null;
    }

    /// <summary>
    /// The bytes that let every packet go that waits, in order. Written without asking for an answer: the kernel says something only when
    /// it fails, ENOENT when nothing waited.
    /// </summary>
    internal byte[] ReleaseMessage(uint verdict, uint sequence)
    {
        byte[] bytes = GC.AllocateArray<byte>(64, pinned: true);
        NetlinkMessage message = new(bytes, VerdictBatch, NetlinkFlags.Request);
        message.Header(new NetfilterHeader(NetfilterHeader.Unspecified, 0, BinaryPrimitives.ReverseEndianness((ushort)Number)));
        // "Every packet up to this number" (nfq_id_after); they count from 1 and one hold never comes so far.
        message.Put(VerdictHeader, new NfQueueVerdict(BinaryPrimitives.ReverseEndianness(verdict), BinaryPrimitives.ReverseEndianness((uint)int.MaxValue)));
        int length = message.Bytes.Length;
        MemoryMarshal.Write(bytes.AsSpan(8), sequence);
        byte[] exact = GC.AllocateUninitializedArray<byte>(length, pinned: true);
        bytes.AsSpan(0, length).CopyTo(exact);
        return exact;
    }

    /// <summary>
    /// The bytes after which nobody waits in it any more, whatever the rules say: one who comes finds no room and goes on unheld, then
    /// those who wait are let go. In the other order one who comes in between waits on, and is dropped when the socket closes.
    /// </summary>
    internal byte[] EndMessage()
    {
        NetlinkMessage noRoom = new(new byte[64], Config, NetlinkFlags.Request);
        noRoom.Header(new NetfilterHeader(NetfilterHeader.Unspecified, 0, BinaryPrimitives.ReverseEndianness((ushort)Number)));
        noRoom.PutBigEndian(ConfigMaxLength, 0u);
        byte[] bytes = [.. noRoom.Bytes, .. ReleaseMessage(Accept, LateVerdict)];
        MemoryMarshal.Write(bytes.AsSpan(8), LateVerdict);
        return bytes;
    }

    /// <summary>What came next on the socket; <see cref="NfQueueEvent.None"/> when there is nothing to read. Waits for nothing, allocates nothing.</summary>
    /// <param name="sequence">Which verdict it was that failed.</param>
    internal NfQueueEvent Next(out int errno, out uint sequence)
    {
        errno = 0;
        sequence = 0;
        fixed (byte* message = _message)
        {
            while (true)
            {
                nint count = Libc.ReceiveFrom(Fd, message, (nuint)_message.Length, Libc.MsgDontWait, null, null);
                if (count < 0)
                {
                    errno = Marshal.GetLastPInvokeError();
                    if (errno is Errno.Interrupted or Errno.NoBuffers) continue;
                    return NfQueueEvent.None;
                }
                if (count < NetlinkMessage.HeaderLength) continue;
                ushort type = *(ushort*)(message + 4);
                if (type == Packet) return NfQueueEvent.Arrival;
                if (type != NetlinkType.Error || count < NetlinkMessage.HeaderLength + sizeof(int)) continue;
                errno = -*(int*)(message + NetlinkMessage.HeaderLength);
                sequence = *(uint*)(message + 8);
                return NfQueueEvent.Failure;
            }
        }
    }

    /// <summary>What waits is dropped: let it go before. Nobody else may be reading.</summary>
    public void Dispose()
    {
        if (_netlink.Fd >= 0)
        {
            try
            {
                // Closing is not enough: whoever inherited the socket would keep the queue.
                _netlink.Request($"unbind NFQUEUE {Number}", CommandMessage(Number, Unbind));
            }
            catch (KernelException)
            {
                // It is gone with its socket.
            }
        }
        _netlink.Dispose();
        _list.Dispose();
    }

    private static NetlinkMessage CommandMessage(int number, byte command)
    {
        NetlinkMessage message = new(new byte[128], Config, NetlinkFlags.None);
        message.Header(new NetfilterHeader(NetfilterHeader.Unspecified, 0, BinaryPrimitives.ReverseEndianness((ushort)number)));
        message.Put(ConfigCommand, [command, 0, 0, 0]); // struct nfqnl_msg_config_cmd: command u8, pad u8, pf be16
        return message;
    }

    private static NetlinkMessage BindMessage(int number, uint length)
    {
        NetlinkMessage message = CommandMessage(number, Bind);
        message.Put(ConfigParameters, [0, 0, 0, 0, CopyMeta]); // struct nfqnl_msg_config_params: copy_range be32, copy_mode u8
        message.PutBigEndian(ConfigMaxLength, length);
        message.PutBigEndian(ConfigMask, FailOpen);
        message.PutBigEndian(ConfigFlags, FailOpen);
        return message;
    }

    private static void BufferFor(int fd)
    {
        int bytes = ReceiveBufferBytes, one = 1;
        // The first needs CAP_NET_ADMIN in the first user namespace and knows no bound, the second is capped by net.core.rmem_max.
        if (Libc.SetSocketOption(fd, Libc.SolSocket, Libc.SoReceiveBufferForce, &bytes, sizeof(int)) < 0)
            _ = Libc.SetSocketOption(fd, Libc.SolSocket, Libc.SoReceiveBuffer, &bytes, sizeof(int));
        // A packet that found no room in the buffer went on unheld: nobody needs telling.
        _ = Libc.SetSocketOption(fd, Libc.SolNetlink, Libc.NetlinkNoNoBuffers, &one, sizeof(int));
    }

    private readonly record struct NfQueueVerdict(uint Verdict, uint Id); // struct nfqnl_msg_verdict_hdr, big-endian
}

internal enum NfQueueEvent
{
    None,
    Arrival,
    Failure,
}
