using System.Buffers.Binary;
using System.Net;
using System.Runtime.InteropServices;
using FlipController.Core;

namespace FlipController.Linux.Kernel;

/// <summary>
/// One TCP socket of a walk, read where the kernel has put it: nothing is copied, and it is gone when the visitor returns.
/// struct inet_diag_msg, include/uapi/linux/inet_diag.h, and its attribute INET_DIAG_INFO, struct tcp_info of include/uapi/linux/tcp.h.
/// </summary>
public readonly ref struct TcpSocketView
{
    internal const int HeaderLength = 72; // sizeof(struct inet_diag_msg)
    private const ushort InfoAttribute = 2; // INET_DIAG_INFO
    private const byte Inet = 2; // AF_INET

    private readonly ReadOnlySpan<byte> _message;

    internal TcpSocketView(ReadOnlySpan<byte> payload)
    {
        _message = payload[..HeaderLength];
        NetlinkAttributes attributes = new(payload[HeaderLength..]);
        while (attributes.Next())
            if (attributes.Type == InfoAttribute) Info = new TcpInfoView(attributes.Value);
    }

    public TcpStates State => (TcpStates)(1u << _message[1]);
    public int LocalPort => BinaryPrimitives.ReadUInt16BigEndian(_message[4..]);
    public int PeerPort => BinaryPrimitives.ReadUInt16BigEndian(_message[6..]);
    public PeerAddress Local => PeerAddress.Of(_message.Slice(8, AddressLength));
    public PeerAddress Peer => PeerAddress.Of(_message.Slice(24, AddressLength));

    /// <inheritdoc cref="TcpSocket" path="/param[@name='ReceiveQueue']"/>
    public uint ReceiveQueue => MemoryMarshal.Read<uint>(_message[56..]);

    /// <summary>Bytes not acknowledged yet, a FIN as one; of a listener: how many connections may wait.</summary>
    public uint SendQueue => MemoryMarshal.Read<uint>(_message[60..]);

    /// <summary>As in /proc/PID/fd; 0: no process holds it.</summary>
    public uint Inode => MemoryMarshal.Read<uint>(_message[68..]);

    /// <summary>Empty where the kernel gives none, as of TIME_WAIT.</summary>
    public TcpInfoView Info { get; }

    /// <summary>What stands for this socket alone, to be kept.</summary>
    public TcpSocketId Id => new(_message[0], _message.Slice(4, TcpSocketId.Length));

    private int AddressLength => _message[0] == Inet ? 4 : 16;
}

/// <summary>struct tcp_info as far as this kernel fills it: it has grown at its end; what an older one does not have is null.</summary>
public readonly ref struct TcpInfoView(ReadOnlySpan<byte> bytes)
{
    private readonly ReadOnlySpan<byte> _bytes = bytes;

    public bool IsEmpty => _bytes.IsEmpty;

    /// <summary>Milliseconds since data was sent last, again or for the first time.</summary>
    public uint? LastDataSentMs => Number(44); // tcpi_last_data_sent
    public uint? LastDataReceivedMs => Number(52); // tcpi_last_data_recv
    /// <summary>What the peer has acknowledged. Linux 4.1.</summary>
    public ulong? BytesAcknowledged => Long(120); // tcpi_bytes_acked
    /// <summary>What has been acknowledged to the peer. Linux 4.1.</summary>
    public ulong? BytesReceived => Long(128); // tcpi_bytes_received

    /// <summary>Milliseconds since the last byte of data either way.</summary>
    public uint? IdleMs => (LastDataSentMs, LastDataReceivedMs) is ({ } sent, { } received) ? Math.Min(sent, received) : null;

    private uint? Number(int offset) => _bytes.Length >= offset + sizeof(uint) ? MemoryMarshal.Read<uint>(_bytes[offset..]) : null;

    private ulong? Long(int offset) => _bytes.Length >= offset + sizeof(ulong) ? MemoryMarshal.Read<ulong>(_bytes[offset..]) : null;
}

/// <summary>Family and struct inet_diag_sockid, whose cookie makes it one socket and no later one of the same addresses and ports.</summary>
public readonly struct TcpSocketId
{
    internal const int Length = 48; // sizeof(struct inet_diag_sockid)
    private readonly Bytes _id;

    internal TcpSocketId(byte family, ReadOnlySpan<byte> id)
    {
        Family = family;
        id[..Length].CopyTo(_id);
    }

    internal byte Family { get; }
    internal Bytes Id => _id;

    /// <summary>The kernel's number for this socket, never used again (sock_gen_cookie).</summary>
    internal ulong Cookie
    {
        get
        {
            ReadOnlySpan<byte> id = _id;
            return MemoryMarshal.Read<ulong>(id[40..]);
        }
    }

    public IPEndPoint Peer
    {
        get
        {
            ReadOnlySpan<byte> id = _id;
            return new IPEndPoint(PeerAddress.Of(id.Slice(20, Family == 2 ? 4 : 16)).ToIPAddress(), BinaryPrimitives.ReadUInt16BigEndian(id[2..]));
        }
    }

    [System.Runtime.CompilerServices.InlineArray(Length)]
    internal struct Bytes
    {
        private byte _first;
    }
}
