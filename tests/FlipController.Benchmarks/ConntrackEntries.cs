using System.Buffers.Binary;
using System.Runtime.InteropServices;
using FlipController.Linux.Kernel;

namespace FlipController.Benchmarks;

/// <summary>
/// Makes and deletes conntrack entries by ctnetlink, hundreds in one message to the kernel: established TCP connections of clients in
/// 10.0.0.0/8 to port 80, redirected to 21000. Of the namespace of the thread that makes it. As `conntrack -I` does, one by one.
/// </summary>
internal sealed unsafe class ConntrackEntries : IDisposable
{
    private const ushort New = 1 << 8, Delete = 1 << 8 | 2; // IPCTNL_MSG_CT_NEW, IPCTNL_MSG_CT_DELETE
    private const int PerCall = 100;
    private const int Room = 256; // for one message

    private readonly NetlinkSocket _netlink = new(NetlinkProtocol.Netfilter);
    private readonly byte[] _buffer = GC.AllocateUninitializedArray<byte>(PerCall * Room, pinned: true);

    public void Dispose() => _netlink.Dispose();

    /// <param name="markOf">The mark of the entry of a number; a number is a client.</param>
    public void Add(int first, int count, Func<int, uint> markOf) => Send(first, count, (buffer, i) => Entry(buffer, New, i, markOf(i)));

    public void Remove(int first, int count) => Send(first, count, (buffer, i) => Entry(buffer, Delete, i, null));

    private delegate int Writer(Span<byte> buffer, int number);

    private void Send(int first, int count, Writer write)
    {
        byte[] answer = new byte[4096];
        for (int done = 0; done < count; done += PerCall)
        {
            int length = 0;
            for (int i = done; i < Math.Min(done + PerCall, count); i++) length += write(_buffer.AsSpan(length, Room), first + i);
            fixed (byte* bytes = _buffer)
                if (Libc.SendTo(_netlink.Fd, bytes, (nuint)length, 0, null, 0) < 0) throw new KernelException("send conntrack entries", Marshal.GetLastPInvokeError());
            // Without NLM_F_ACK only what fails is answered.
            fixed (byte* bytes = answer)
                if (Libc.ReceiveFrom(_netlink.Fd, bytes, (nuint)answer.Length, Libc.MsgDontWait, null, null) > 20)
                    throw new KernelException($"make or delete conntrack entries {first + done} to {first + done + PerCall}", -MemoryMarshal.Read<int>(answer.AsSpan(16)));
        }
    }

    private static int Entry(Span<byte> buffer, ushort type, int number, uint? mark)
    {
        const uint server = 0xc0000201; // 192.0.2.1
        uint client = 0x0a000000 + (uint)(number / 50_000);
        ushort port = (ushort)(10_000 + number % 50_000);
        NetlinkMessage message = new(buffer, type, NetlinkFlags.Request | (type == New ? NetlinkFlags.Create | NetlinkFlags.Exclusive : 0));
        message.Header(2u); // struct nfgenmsg: family AF_INET
        Tuple(ref message, 1, client, server, port, 80); // CTA_TUPLE_ORIG
        if (type == New)
        {
            Tuple(ref message, 2, server, client, 21000, port); // CTA_TUPLE_REPLY
            message.PutBigEndian(7, 3600); // CTA_TIMEOUT, s
            int info = message.BeginNest(4), tcp = message.BeginNest(1); // CTA_PROTOINFO, CTA_PROTOINFO_TCP
            message.Put(1, (byte)3); // CTA_PROTOINFO_TCP_STATE: TCP_CONNTRACK_ESTABLISHED
            message.EndNest(tcp);
            message.EndNest(info);
            message.PutBigEndian(8, mark!.Value); // CTA_MARK
        }
        return message.Bytes.Length;
    }

    private static void Tuple(ref NetlinkMessage message, ushort tuple, uint source, uint destination, ushort sourcePort, ushort destinationPort)
    {
        int outer = message.BeginNest(tuple), part = message.BeginNest(1); // CTA_TUPLE_IP
        message.PutBigEndian(1, source); // CTA_IP_V4_SRC
        message.PutBigEndian(2, destination); // CTA_IP_V4_DST
        message.EndNest(part);
        part = message.BeginNest(2); // CTA_TUPLE_PROTO
        message.Put(1, (byte)6); // CTA_PROTO_NUM: IPPROTO_TCP
        message.Put(2, BinaryPrimitives.ReverseEndianness(sourcePort)); // CTA_PROTO_SRC_PORT
        message.Put(3, BinaryPrimitives.ReverseEndianness(destinationPort)); // CTA_PROTO_DST_PORT
        message.EndNest(part);
        message.EndNest(outer);
    }
}
