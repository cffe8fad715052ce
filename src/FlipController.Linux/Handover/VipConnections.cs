using System.Collections.Immutable;
using System.Net;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Handover;

/// <summary>
/// Connections at the VIPs, from the kernel's list of sockets: whatever the redirect, a connection's own end has the VIP as its address.
/// Of the network namespace of the thread that opened it. One thread at a time.
/// </summary>
public sealed class VipConnections : IDisposable
{
    /// <summary>A packet of the client may still matter: all but TIME_WAIT, which only answers what is too late.</summary>
    private const TcpStates Known = TcpStates.Live | TcpStates.SynReceived | TcpStates.LastAck | TcpStates.Closing;

    private readonly SockDiag _sockets = new();

    public void Dispose() => _sockets.Dispose();

    /// <param name="ports">Where generations listen, to the front port that clients know; a front port to itself.</param>
    /// <param name="own">Addresses of this host: its own clients are not led anywhere.</param>
    public VipCensus Count(IReadOnlySet<IPAddress> vips, IReadOnlyDictionary<int, int> ports, IReadOnlySet<IPAddress> own)
    {
        int live = 0, ofThisHost = 0;
        var flows = ImmutableArray.CreateBuilder<FourTuple>();
        var handshakes = ImmutableArray.CreateBuilder<FourTuple>();
        foreach (PortBlock block in Blocks(ports.Keys))
        {
            foreach (TcpSocket socket in _sockets.Sockets(Known, block))
            {
                if (!ports.TryGetValue(socket.Local.Port, out int front)) continue;
                IPAddress vip = Unmapped(socket.Local.Address), client = Unmapped(socket.Remote.Address);
                if (!vips.Contains(vip)) continue;
                if (own.Contains(client))
                {
                    if ((socket.State & TcpStates.Live) != 0) ofThisHost++;
                    continue;
                }
                var flow = new FourTuple(6, new IPEndPoint(client, socket.Remote.Port), new IPEndPoint(vip, front));
                flows.Add(flow);
                if (socket.State == TcpStates.SynReceived) handshakes.Add(flow);
                // What only the kernel still delivers, or waits a FIN for, is nobody's connection.
                if ((socket.State & (TcpStates.Live | TcpStates.SynReceived)) != 0 && (socket.State != TcpStates.FinWait2 || socket.Inode != 0)) live++;
            }
        }
        return new VipCensus(live, ofThisHost, flows.ToImmutable(), handshakes.ToImmutable());
    }

    /// <summary>Runs of ports, so that a pair with hundreds of services is a few questions.</summary>
    private static IEnumerable<PortBlock> Blocks(IEnumerable<int> ports)
    {
        const int gap = 16; // a socket more is cheaper than a dump more
        int first = 0, last = 0;
        foreach (int port in ports.Order())
        {
            if (first != 0 && port - last <= gap)
            {
                last = port;
                continue;
            }
            if (first != 0) yield return new PortBlock(first, last - first + 1);
            first = last = port;
        }
        if (first != 0) yield return new PortBlock(first, last - first + 1);
    }

    private static IPAddress Unmapped(IPAddress address) => address.IsIPv4MappedToIPv6 ? address.MapToIPv4() : address;
}

/// <param name="Live">Connections of others that may still carry data.</param>
/// <param name="OfThisHost">Of clients on this very host.</param>
/// <param name="Flows">Every one of others, handshakes and goodbyes too.</param>
/// <param name="Handshakes">Those whose SYN may come again.</param>
public sealed record VipCensus(int Live, int OfThisHost, ImmutableArray<FourTuple> Flows, ImmutableArray<FourTuple> Handshakes);
