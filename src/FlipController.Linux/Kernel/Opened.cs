using System.Net;
using FlipController.Core;

namespace FlipController.Linux.Kernel;

/// <summary>
/// Connections that were being opened at one instant, when NEW ones had begun to go to another listener on the same ports: which listener a
/// handshake belongs to the kernel does not tell, and of later ones all are the other's.
/// </summary>
public sealed class Opened(IReadOnlySet<int> ports)
{
    private HashSet<(IPEndPoint Local, IPEndPoint Peer)>? _then;

    /// <summary>How many of them are being opened still. The first look is the instant.</summary>
    public int Left(SockDiag sockets)
    {
        // A SYN that found its listener before has its handshake listed after.
        if (_then is null) GracePeriod.Wait();
        if (_then is { Count: 0 }) return 0;
        var now = sockets.Sockets(TcpStates.SynReceived, new PortBlock(ports.Min(), ports.Max() - ports.Min() + 1))
            .Where(s => ports.Contains(s.Local.Port)).Select(s => (s.Local, s.Remote));
        if (_then is null) _then = [.. now];
        else _then.IntersectWith(now);
        return _then.Count;
    }
}
