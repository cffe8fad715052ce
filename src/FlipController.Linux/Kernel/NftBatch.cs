using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace FlipController.Linux.Kernel;

/// <summary>struct nfgenmsg: the header of every netfilter message.</summary>
/// <param name="ResourceId">Big-endian; a queue's number, or the subsystem a batch is for.</param>
internal readonly record struct NetfilterHeader(byte Family, byte Version, ushort ResourceId)
{
    internal const byte Unspecified = 0; // NFPROTO_UNSPEC
    internal const byte Inet = 1; // NFPROTO_INET
    internal const byte IPv4 = 2; // NFPROTO_IPV4
    internal const byte IPv6 = 10; // NFPROTO_IPV6
    internal const byte Netdev = 5; // NFPROTO_NETDEV
}

/// <summary>
/// One nftables transaction as the very bytes nft would send, made beforehand and good for any number of runs. libnftables reads the
/// names of every chain of every table before it commits anything: nothing on a quiet host, 2 ms where 3,000 foreign chains are; sent
/// ready-made, a transaction costs what the kernel needs and no more.
/// Constants: include/uapi/linux/netfilter/nf_tables.h, nfnetlink.h. How a batch ends: nfnetlink_rcv_batch() in
/// net/netfilter/nfnetlink.c.
/// </summary>
internal sealed unsafe class NftBatch
{
    internal const ushort NewRule = Subsystem << 8 | 6; // NFT_MSG_NEWRULE
    internal const ushort DeleteRule = Subsystem << 8 | 8; // NFT_MSG_DELRULE
    internal const ushort NewElement = Subsystem << 8 | 12; // NFT_MSG_NEWSETELEM
    internal const ushort DeleteElement = Subsystem << 8 | 14; // NFT_MSG_DELSETELEM
    private const ushort GetGeneration = Subsystem << 8 | 16; // NFT_MSG_GETGEN
    private const ushort GenerationId = 1; // NFTA_GEN_ID
    internal const NetlinkFlags Append = (NetlinkFlags)0x800; // NLM_F_APPEND

    private const ushort Begin = 0x10; // NFNL_MSG_BATCH_BEGIN
    private const ushort End = 0x11; // NFNL_MSG_BATCH_END
    private const ushort Subsystem = 10; // NFNL_SUBSYS_NFTABLES

    /// <summary>What the kernel may answer when another program commits at the same moment: once more is right.</summary>
    private const int Attempts = 5;

    private readonly byte _family;
    private readonly byte[] _bytes;
    private readonly byte[] _answer = GC.AllocateUninitializedArray<byte>(8192, pinned: true);
    private int _withoutEnd;
    private int _length;
    private uint _last; // the sequence number of the last message but the end

    /// <param name="capacityBytes">At least what the messages need.</param>
    /// <param name="family">Of every message's table.</param>
    internal NftBatch(int capacityBytes, byte family = NetfilterHeader.Inet)
    {
        _family = family;
        _bytes = GC.AllocateArray<byte>(capacityBytes, pinned: true);
        Boundary(Begin, 0);
        _withoutEnd = _length;
    }

    internal delegate void Filler(ref NetlinkMessage message);

    internal ReadOnlySpan<byte> Bytes => _bytes.AsSpan(0, _length);

    /// <summary>After a failure: which message the kernel refused, from 0; -1: it did not say.</summary>
    internal int FailedAt { get; private set; } = -1;

    /// <summary>Asks for the ruleset's generation, which who may not change it may not know either.</summary>
    internal static void CheckRights(NetlinkSocket netlink) => _ = GenerationOf(netlink);

    /// <summary>Another number after each commit of whoever it was, in the socket's network namespace.</summary>
    internal static uint GenerationOf(NetlinkSocket netlink)
    {
        NetlinkMessage message = new(new byte[64], GetGeneration, NetlinkFlags.None);
        message.Header(new NetfilterHeader(NetfilterHeader.Unspecified, 0, 0));
        uint[] number = [0];
        netlink.Ask("use nftables", message, number, static (found, _, payload) =>
        {
            NetlinkAttributes attributes = new(payload[4..]); // after the nfgenmsg
            while (attributes.Next())
                if (attributes.Type == GenerationId && attributes.Value.Length == sizeof(uint)) found[0] = BinaryPrimitives.ReadUInt32BigEndian(attributes.Value);
        });
        return number[0];
    }

    /// <summary>The next message. Only the last one asks for an acknowledgement.</summary>
    /// <param name="last">After it nothing can be added.</param>
    /// <param name="family">Of this message's table, where it is another one.</param>
    internal void Add(ushort type, NetlinkFlags flags, Filler fill, bool last = false, byte? family = null)
    {
        NetlinkMessage message = new(
            _bytes.AsSpan(_length), type, NetlinkFlags.Request | flags | (last ? NetlinkFlags.Acknowledge : NetlinkFlags.None));
        message.Header(new NetfilterHeader(family ?? _family, 0, 0));
        fill(ref message);
        Close(ref message, ++_last);
        if (!last) return;
        _withoutEnd = _length;
        Boundary(End, _last + 1);
    }

    /// <summary>
    /// The hot call: nothing managed is allocated, nothing logged, nothing thrown. 0, or an errno, and then nothing has changed.
    /// </summary>
    /// <param name="rehearse">
    /// Without the batch's end the kernel checks everything and then forgets it, which takes it a grace period (some 10 ms) in which
    /// no one else can commit.
    /// </param>
    internal int Run(int socket, bool rehearse)
    {
        for (int attempt = 1; ; attempt++)
        {
            int errno = Once(socket, rehearse ? _withoutEnd : _length);
            bool transient = errno is Errno.Again or Errno.Interrupted or Errno.Busy or Errno.Restart;
            if (!transient || attempt == Attempts) return errno;
        }
    }

    private int Once(int socket, int length)
    {
        FailedAt = -1;
        fixed (byte* bytes = _bytes)
        {
            if (Libc.SendTo(socket, bytes, (nuint)length, 0, null, 0) < 0) return Marshal.GetLastPInvokeError();
        }

        // The kernel has done it and answered by the time the send returns: one acknowledgement of the last message, or errors.
        bool acknowledged = false;
        int failure = 0;
        fixed (byte* answer = _answer)
        {
            while (true)
            {
                nint count = Libc.ReceiveFrom(socket, answer, (nuint)_answer.Length, Libc.MsgDontWait, null, null);
                if (count < 0)
                {
                    int errno = Marshal.GetLastPInvokeError();
                    if (errno == Errno.Interrupted) continue;
                    if (errno != Errno.Again) return errno;
                    // Silence would mean that the batch was not even begun.
                    return failure != 0 ? failure : acknowledged ? 0 : Errno.Protocol;
                }
                if (count < NetlinkMessage.HeaderLength + sizeof(int) || *(ushort*)(answer + 4) != NetlinkType.Error) continue;
                int error = -*(int*)(answer + NetlinkMessage.HeaderLength);
                uint sequence = *(uint*)(answer + 8);
                if (error == 0)
                {
                    acknowledged |= sequence == _last;
                }
                else if (failure == 0)
                {
                    failure = error;
                    FailedAt = (int)sequence - 1;
                }
            }
        }
    }

    private void Boundary(ushort type, uint sequence)
    {
        NetlinkMessage message = new(_bytes.AsSpan(_length), type, NetlinkFlags.Request);
        message.Header(new NetfilterHeader(NetfilterHeader.Unspecified, 0, BinaryPrimitives.ReverseEndianness(Subsystem)));
        Close(ref message, sequence);
    }

    private void Close(ref NetlinkMessage message, uint sequence)
    {
        Span<byte> bytes = message.Bytes;
        MemoryMarshal.Write(bytes[8..], sequence);
        _length += bytes.Length;
    }
}
