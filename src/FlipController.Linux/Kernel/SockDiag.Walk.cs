using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using FlipController.Core;

namespace FlipController.Linux.Kernel;

/// <summary>Looks at one socket of a walk; what it wants to keep it copies.</summary>
public delegate void TcpSocketVisitor<in T>(T result, scoped in TcpSocketView socket);

public sealed partial class SockDiag
{
    private const ushort DestroySocket = 21; // SOCK_DESTROY, include/uapi/linux/sock_diag.h
    private const byte InfoExtension = 1 << 1; // INET_DIAG_INFO is 2, and bit n-1 asks for n

    /// <summary>
    /// Shows every socket in one of the states to <paramref name="visit"/>, with its struct tcp_info, and keeps none: equivalent to
    /// <c>ss -tinem</c> on the ports. Of one family listeners come before connections (net/ipv4/inet_diag.c, inet_diag_dump_icsk).
    /// The kernel never calls such a dump inconsistent: one that opens or closes meanwhile may be missed or seen.
    /// </summary>
    public void Walk<T>(TcpStates states, PortBlock localPorts, T result, TcpSocketVisitor<T> visit)
    {
        foreach (byte family in (ReadOnlySpan<byte>)[Inet, Inet6])
            Dump(family, states, localPorts, () => (result, visit), static (with, _, payload) =>
            {
                if (payload.Length >= TcpSocketView.HeaderLength) with.visit(with.result, new TcpSocketView(payload));
            }, InfoExtension);
    }

    /// <summary>
    /// Closes a socket whoever holds it: the peer gets a reset, its owner ECONNABORTED. Equivalent to <c>ss -K</c>. False: it is gone.
    /// </summary>
    /// <exception cref="KernelException">
    /// Not permitted (CAP_NET_ADMIN), or EOPNOTSUPP: the kernel was built without CONFIG_INET_DIAG_DESTROY.
    /// </exception>
    public bool Destroy(in TcpSocketId id)
    {
        Span<byte> buffer = stackalloc byte[128];
        NetlinkMessage message = new(buffer, DestroySocket, NetlinkFlags.None);
        DestroyRequest request = new() { Family = id.Family, Protocol = Tcp, States = uint.MaxValue, Id = id.Id };
        message.Header(request);
        string operation = $"close the connection of {id.Peer}";
        try
        {
            _netlink.Request(operation, message);
            return true;
        }
        catch (KernelException e) when (e.Errno == Errno.NoEntry)
        {
            return false;
        }
        catch (KernelException e) when (e.Errno == Errno.NotSupported)
        {
            throw new KernelException(operation, e.Errno, "this kernel was built without CONFIG_INET_DIAG_DESTROY");
        }
    }

    /// <summary>
    /// Who holds this end of one connection, as <see cref="TcpSocket.Inode"/>; 0: nobody has accepted it, null: there is none. The kernel
    /// looks it up, whatever else is open.
    /// </summary>
    public uint? InodeOf(IPEndPoint local, IPEndPoint peer)
    {
        Span<byte> id = stackalloc byte[TcpSocketId.Length]; // struct inet_diag_sockid: sport, dport, src, dst, if, cookie
        id.Clear();
        BinaryPrimitives.WriteUInt16BigEndian(id, (ushort)local.Port);
        BinaryPrimitives.WriteUInt16BigEndian(id[2..], (ushort)peer.Port);
        local.Address.TryWriteBytes(id[4..], out _);
        peer.Address.TryWriteBytes(id[20..], out _);
        id[40..].Fill(0xff); // INET_DIAG_NOCOOKIE
        byte family = local.AddressFamily == AddressFamily.InterNetwork ? Inet : Inet6;
        Span<byte> buffer = stackalloc byte[128];
        NetlinkMessage message = new(buffer, ByFamily, NetlinkFlags.None);
        message.Header(new DestroyRequest { Family = family, Protocol = Tcp, States = uint.MaxValue, Id = new TcpSocketId(family, id).Id });
        var found = new uint?[1];
        try
        {
            _netlink.Ask($"find the connection from {peer} to {local}", message, found, static (found, _, payload) =>
            {
                if (payload.Length < TcpSocketView.HeaderLength) return;
                TcpSocketView socket = new(payload);
                if (socket.State != TcpStates.Listen) found[0] = socket.Inode; // where there is no connection it finds who would take one
            });
        }
        catch (KernelException e) when (e.Errno == Errno.NoEntry)
        {
            // There is none.
        }
        return found[0];
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct DestroyRequest // struct inet_diag_req_v2
    {
        internal byte Family, Protocol, Extensions, Pad;
        internal uint States;
        internal TcpSocketId.Bytes Id;
    }
}
