using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;

namespace FlipController.Linux.Kernel;

// Constants and layouts of include/uapi/linux/netlink.h. Everything is in host byte order and padded to 4 bytes:
//
//   nlmsghdr                                 payload
//   | len u32 | type u16 | flags u16 | seq u32 | portid u32 | family header | attribute | attribute | ...
//                                                            attribute = | len u16 | type u16 | value, padded |

[Flags]
internal enum NetlinkFlags : ushort
{
    None = 0,
    Request = 0x1, // NLM_F_REQUEST
    Multi = 0x2, // NLM_F_MULTI
    Acknowledge = 0x4, // NLM_F_ACK
    Echo = 0x8, // NLM_F_ECHO
    DumpInterrupted = 0x10, // NLM_F_DUMP_INTR
    Replace = 0x100, // NLM_F_REPLACE, in a NEW request
    Exclusive = 0x200, // NLM_F_EXCL, in a NEW request
    Create = 0x400, // NLM_F_CREATE, in a NEW request
    Dump = 0x300, // NLM_F_DUMP = NLM_F_ROOT | NLM_F_MATCH, in a GET request
    Capped = 0x100, // NLM_F_CAPPED, in an NLMSG_ERROR
    AcknowledgeAttributes = 0x200, // NLM_F_ACK_TLVS, in an NLMSG_ERROR or NLMSG_DONE
}

internal static class NetlinkType
{
    internal const ushort Error = 2; // NLMSG_ERROR
    internal const ushort Done = 3; // NLMSG_DONE
    internal const ushort Overrun = 4; // NLMSG_OVERRUN
    internal const ushort FirstOfFamily = 0x10; // NLMSG_MIN_TYPE
}

internal static class NetlinkProtocol
{
    internal const int Route = 0; // NETLINK_ROUTE
    internal const int SockDiag = 4; // NETLINK_SOCK_DIAG
    internal const int Netfilter = 12; // NETLINK_NETFILTER
}

/// <summary>Writes one request into a buffer the caller lends. Sequence number and port id are the socket's to fill in.</summary>
internal ref struct NetlinkMessage
{
    internal const int HeaderLength = 16; // NLMSG_HDRLEN
    internal const int AttributeHeaderLength = 4; // NLA_HDRLEN
    internal const ushort NestedFlag = 0x8000; // NLA_F_NESTED

    private readonly Span<byte> _buffer;
    private int _length;

    internal NetlinkMessage(Span<byte> buffer, ushort type, NetlinkFlags flags)
    {
        _buffer = buffer;
        _buffer[..HeaderLength].Clear();
        _length = HeaderLength;
        MemoryMarshal.Write(_buffer[4..], type);
        MemoryMarshal.Write(_buffer[6..], (ushort)flags);
    }

    /// <summary>The message so far, its length written into its header.</summary>
    internal readonly Span<byte> Bytes
    {
        get
        {
            MemoryMarshal.Write(_buffer, (uint)_length);
            return _buffer[.._length];
        }
    }

    internal static int Align(int length) => (length + 3) & ~3; // NLMSG_ALIGN, NLA_ALIGN

    /// <summary>The family's own header, such as struct tcmsg: first in the payload.</summary>
    internal void Header<T>(scoped in T header) where T : unmanaged
    {
        Span<byte> place = Take(System.Runtime.CompilerServices.Unsafe.SizeOf<T>());
        MemoryMarshal.Write(place, header);
    }

    internal void Put(ushort type, scoped ReadOnlySpan<byte> value)
    {
        Span<byte> place = Take(AttributeHeaderLength + value.Length);
        MemoryMarshal.Write(place, (ushort)(AttributeHeaderLength + value.Length));
        MemoryMarshal.Write(place[2..], type);
        value.CopyTo(place[AttributeHeaderLength..]);
    }

    internal void Put<T>(ushort type, scoped in T value) where T : unmanaged =>
        Put(type, MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)));

    /// <summary>netfilter's attributes are big-endian; the rest of netlink is not.</summary>
    internal void PutBigEndian(ushort type, uint value) => Put(type, BinaryPrimitives.ReverseEndianness(value));

    /// <summary>With its terminating zero, as the kernel's NLA_STRING policies have it.</summary>
    internal void PutText(ushort type, string value)
    {
        Span<byte> bytes = stackalloc byte[Encoding.UTF8.GetMaxByteCount(value.Length) + 1];
        int count = Encoding.UTF8.GetBytes(value, bytes);
        bytes[count] = 0;
        Put(type, bytes[..(count + 1)]);
    }

    /// <summary>Opens a nested attribute; hand what it returns to <see cref="EndNest"/>.</summary>
    internal int BeginNest(ushort type)
    {
        int start = _length;
        Put((ushort)(type | NestedFlag), []);
        return start;
    }

    /// <summary>As iproute2 still writes it for links and filters, without NLA_F_NESTED.</summary>
    internal int BeginPlainNest(ushort type)
    {
        int start = _length;
        Put(type, []);
        return start;
    }

    internal readonly void EndNest(int start) => MemoryMarshal.Write(_buffer[start..], (ushort)(_length - start));

    private Span<byte> Take(int length)
    {
        Span<byte> place = _buffer.Slice(_length, Align(length));
        place.Clear();
        _length += Align(length);
        return place;
    }
}

/// <summary>Walks attributes: <c>while (attributes.Next()) switch (attributes.Type) ...</c>. Stops at the first malformed one.</summary>
internal ref struct NetlinkAttributes(ReadOnlySpan<byte> bytes)
{
    private ReadOnlySpan<byte> _rest = bytes;

    /// <summary>Without NLA_F_NESTED and NLA_F_NET_BYTEORDER.</summary>
    internal ushort Type { get; private set; }
    internal ReadOnlySpan<byte> Value { get; private set; }

    internal bool Next()
    {
        if (_rest.Length < NetlinkMessage.AttributeHeaderLength) return false;
        int length = MemoryMarshal.Read<ushort>(_rest);
        if (length < NetlinkMessage.AttributeHeaderLength || length > _rest.Length) return false;
        Type = (ushort)(MemoryMarshal.Read<ushort>(_rest[2..]) & 0x3fff); // NLA_TYPE_MASK
        Value = _rest[NetlinkMessage.AttributeHeaderLength..length];
        _rest = _rest[Math.Min(NetlinkMessage.Align(length), _rest.Length)..];
        return true;
    }
}
