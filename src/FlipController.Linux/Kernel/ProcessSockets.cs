using System.Net;
using FlipController.Core;

namespace FlipController.Linux.Kernel;

/// <param name="Transport">TCP or UDP: what speaks QUIC is not known of a socket.</param>
/// <param name="V6Only">An IPv6 listener that takes no IPv4; null when it does not apply or the kernel does not tell.</param>
public sealed record ListeningEndpoint(IPAddress Address, int Port, bool? V6Only, Transport Transport = Transport.Tcp)
{
    public override string ToString() => $"{new IPEndPoint(Address, Port)}{(V6Only == true ? " v6only" : "")}";
}

/// <summary>Which sockets a process holds: what makes "it listens" a fact about this process and not about the port.</summary>
public static class ProcessSockets
{
    /// <summary>Inodes of the sockets among /proc/PID/fd, proc(5); empty when the process is gone.</summary>
    public static HashSet<uint> Inodes(int pid) => ProcessDescriptors.Read(pid).Inodes();

    /// <summary>Every process with the socket among its descriptors, as far as they can be seen from here.</summary>
    public static IEnumerable<int> Holders(uint inode) => ProcessIdentity.Pids().Where(pid => Inodes(pid).Contains(inode));

    /// <summary>How many TCP connections it and its descendants have, to whomever.</summary>
    public static int Connected(SockDiag sockets, int pid)
    {
        HashSet<uint> inodes = ProcessDescriptors.ReadFamily(pid).Inodes();
        return inodes.Count == 0 ? 0 : sockets.Sockets(TcpStates.Live, null).Count(s => inodes.Contains(s.Inode));
    }

    /// <summary>Where the process listens, of its own: a descriptor of another process on the same port does not count.</summary>
    public static IReadOnlyList<ListeningEndpoint> ListeningPorts(SockDiag sockets, int pid) => Listening(sockets, Inodes(pid));

    /// <summary>Where it or one of its descendants listens.</summary>
    public static IReadOnlyList<ListeningEndpoint> FamilyPorts(SockDiag sockets, int pid) =>
        Listening(sockets, ProcessDescriptors.ReadFamily(pid).Inodes());

    private static IReadOnlyList<ListeningEndpoint> Listening(SockDiag sockets, HashSet<uint> inodes)
    {
        if (inodes.Count == 0) return [];
        return [.. sockets.Listeners().Where(s => inodes.Contains(s.Inode))
            .Select(s => new ListeningEndpoint(s.Local.Address, s.Local.Port, s.V6Only))];
    }

    /// <summary>Where the process and what descends from it take datagrams; also where they only send from.</summary>
    public static IReadOnlyList<ListeningEndpoint> ReceivingPorts(SockDiag sockets, int pid)
    {
        HashSet<uint> inodes = ProcessDescriptors.ReadFamily(pid).Inodes();
        if (inodes.Count == 0) return [];
        return [.. sockets.Receivers().Where(s => inodes.Contains(s.Inode))
            .Select(s => new ListeningEndpoint(s.Local.Address, s.Local.Port, s.V6Only, Transport.Udp))];
    }
}
