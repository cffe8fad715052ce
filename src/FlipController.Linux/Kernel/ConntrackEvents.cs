using System.Runtime.InteropServices;

namespace FlipController.Linux.Kernel;

internal enum EventsRead
{
    /// <summary>There may be more.</summary>
    Some,
    /// <summary>And nothing more waits.</summary>
    All,
    /// <summary>The kernel had to throw events away.</summary>
    Lost,
}

/// <summary>
/// The socket on which conntrack tells what changes, of the namespace of the thread that opens it. While it is in no group the kernel
/// makes no events for it. Reading takes many messages in one system call and allocates nothing; one thread at a time.
/// </summary>
internal sealed unsafe class ConntrackEvents : IDisposable
{
    internal delegate void Reader(ReadOnlySpan<byte> message);

    private const int PerCall = 64;
    private const int LongestMessage = 4096; // an entry with everything a kernel knows of one is some 600 bytes
    private static readonly uint[] s_groups = [1, 2, 3]; // NFNLGRP_CONNTRACK_NEW, _UPDATE, _DESTROY: include/uapi/linux/netfilter/nfnetlink.h

    private readonly NetlinkSocket _netlink = new(NetlinkProtocol.Netfilter);
    private readonly byte[] _bytes = GC.AllocateUninitializedArray<byte>(PerCall * LongestMessage, pinned: true);
    private readonly Libc.Buffer[] _buffers = GC.AllocateArray<Libc.Buffer>(PerCall, pinned: true);
    private readonly Libc.ManyMessage[] _messages = GC.AllocateArray<Libc.ManyMessage>(PerCall, pinned: true);
    private bool _joined;

    /// <param name="receiveBufferBytes">How much may wait before the kernel throws away; it charges about 1 KiB for an event.</param>
    internal ConntrackEvents(int receiveBufferBytes)
    {
        // The first needs CAP_NET_ADMIN and knows no bound, the second is capped by net.core.rmem_max. NETLINK_NO_ENOBUFS stays off: lost
        // events must be told. The kernel doubles the number, socket(7).
        int half = receiveBufferBytes / 2;
        if (Libc.SetSocketOption(_netlink.Fd, Libc.SolSocket, Libc.SoReceiveBufferForce, &half, sizeof(int)) < 0)
            _ = Libc.SetSocketOption(_netlink.Fd, Libc.SolSocket, Libc.SoReceiveBuffer, &half, sizeof(int));
        for (int i = 0; i < PerCall; i++)
        {
            _buffers[i].Start = (void*)Marshal.UnsafeAddrOfPinnedArrayElement(_bytes, i * LongestMessage);
            _buffers[i].Length = LongestMessage;
            _messages[i].Message.Buffers = (Libc.Buffer*)Marshal.UnsafeAddrOfPinnedArrayElement(_buffers, i);
            _messages[i].Message.BufferCount = 1;
        }
    }

    internal int Fd => _netlink.Fd;

    public void Dispose() => _netlink.Dispose();

    /// <summary>
    /// Events of connections with these marks from now on; what waits already stays. None: out of the groups, as one listener makes the
    /// kernel write a message for every connection of the host.
    /// </summary>
    internal void Follow(IReadOnlyCollection<(uint Mark, uint Mask)> marks)
    {
        MarkFilter.Attach(Fd, marks);
        bool join = marks.Count > 0;
        if (join == _joined) return;
        foreach (uint group in s_groups) _netlink.Listen(group, "conntrack's", join);
        _joined = join;
    }

    /// <summary>What waits, up to <see cref="PerCall"/> messages, each with its nlmsghdr; never waits itself.</summary>
    internal EventsRead Read(Reader reader)
    {
        int count = Receive();
        if (count < 0)
        {
            return Marshal.GetLastPInvokeError() switch
            {
                Errno.Again => EventsRead.All,
                Errno.Interrupted => EventsRead.Some,
                Errno.NoBuffers => EventsRead.Lost,
                int errno => throw new KernelException("read conntrack's events", errno),
            };
        }
        for (int i = 0; i < count; i++)
        {
            if ((_messages[i].Message.Flags & Libc.MsgTrunc) != 0) return EventsRead.Lost;
            reader(_bytes.AsSpan(i * LongestMessage, (int)_messages[i].Length));
        }
        // A call that came back with less than it could carry met the end of the queue, or an error that the next one tells.
        return EventsRead.Some;
    }

    /// <summary>
    /// Throws away what waits. The kernel adds nothing to a queue that overflowed until it is empty: netlink_rcv_wake() in
    /// net/netlink/af_netlink.c. Bounded all the same.
    /// </summary>
    internal void Discard()
    {
        for (int calls = 0; calls < 10_000; calls++)
            if (Receive() < 0 && Marshal.GetLastPInvokeError() == Errno.Again) return;
    }

    private int Receive()
    {
        fixed (Libc.ManyMessage* first = _messages) return Libc.ReceiveMany(Fd, first, PerCall, Libc.MsgDontWait, null);
    }
}
