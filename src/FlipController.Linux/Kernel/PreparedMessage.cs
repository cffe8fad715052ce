using System.Runtime.InteropServices;

namespace FlipController.Linux.Kernel;

/// <summary>
/// One or several requests made beforehand and sent in one write, each acknowledged. The kernel has done them and answered by the
/// time the write returns: netlink_unicast_kernel() in net/netlink/af_netlink.c.
/// </summary>
internal unsafe class PreparedMessage
{
    private readonly byte[] _bytes;
    private readonly byte[] _answer = GC.AllocateUninitializedArray<byte>(8192, pinned: true);
    private readonly int _acknowledgements;

    /// <param name="messages">Whole ones; they are numbered here, from 0. Those without NLM_F_ACK only say their errors.</param>
    internal PreparedMessage(params IEnumerable<byte[]> messages)
    {
        byte[][] all = [.. messages];
        _bytes = GC.AllocateArray<byte>(all.Sum(m => m.Length), pinned: true);
        int at = 0;
        for (int i = 0; i < all.Length; i++)
        {
            all[i].CopyTo(_bytes, at);
            MemoryMarshal.Write(_bytes.AsSpan(at + 8), (uint)i);
            if ((MemoryMarshal.Read<ushort>(all[i].AsSpan(6)) & (ushort)NetlinkFlags.Acknowledge) != 0) _acknowledgements++;
            at += all[i].Length;
        }
    }

    internal ReadOnlyMemory<byte> Bytes => _bytes;

    /// <summary>After a failure: which message it was, from 0; -1 when none got that far.</summary>
    internal int FailedAt { get; private set; }

    /// <summary>The hot call: nothing managed is allocated, nothing logged, nothing thrown. 0, or the first errno.</summary>
    internal virtual int Run(int socket)
    {
        FailedAt = -1;
        fixed (byte* bytes = _bytes)
        {
            while (Libc.SendTo(socket, bytes, (nuint)_bytes.Length, 0, null, 0) < 0)
            {
                int errno = Marshal.GetLastPInvokeError();
                if (errno != Errno.Interrupted) return errno;
            }
        }
        int acknowledged = 0, failure = 0;
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
                    return failure != 0 ? failure : acknowledged == _acknowledgements ? 0 : Errno.Protocol;
                }
                if (count < NetlinkMessage.HeaderLength + sizeof(int)) continue;
                ushort type = *(ushort*)(answer + 4);
                int index = (int)*(uint*)(answer + 8);
                if (type != NetlinkType.Error)
                {
                    Answered(index, type, new ReadOnlySpan<byte>(answer + NetlinkMessage.HeaderLength, (int)count - NetlinkMessage.HeaderLength));
                    continue;
                }
                int error = -*(int*)(answer + NetlinkMessage.HeaderLength);
                if (error == 0)
                {
                    acknowledged++;
                }
                else if (failure == 0)
                {
                    failure = error;
                    FailedAt = index;
                }
            }
        }
    }

    /// <summary>What a request asked for, in the hot call.</summary>
    protected virtual void Answered(int index, ushort type, ReadOnlySpan<byte> payload) { }
}
