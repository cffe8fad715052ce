using System.Net;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Gate;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Unmanaged;

/// <summary>
/// What an unmanaged HAProxy must show before NEW connections go back to it, in this order: it is alive; it listens on every front
/// address (one that finishes no longer does, so what listens takes connections); on each it takes one past our redirect; it
/// answers the pair's probes. What is not so yet is asked again until <c>gate.timeout</c>.
/// </summary>
public sealed class UnmanagedProof(GateOptions options, TimeProvider time)
{
    /// <summary>Null when everything is proven; else the first thing that is not, in one sentence.</summary>
    public async Task<string?> ProveAsync(
        UnmanagedHaproxy haproxy, IReadOnlyCollection<Service> services, Action<string> progress, CancellationToken stop)
    {
        (string Name, Func<CancellationToken, Task<Finding>> Ask)[] questions =
        [
            ("it listens on the front addresses", _ => Task.FromResult(Finding.Unless(Listens(haproxy, services)))),
            ("it takes connections", async ct => Finding.Unless(await ConnectsAsync(haproxy, services, ct))),
            ("its probes are answered", async ct => Finding.Unless(await ProbesAsync(services, ct))),
        ];
        return await new Questions(options.Timeout, time).AskAsync(
            haproxy.ToString(), () => haproxy.Main.IsAlive ? null : $"{haproxy} is not alive", questions, progress, stop);
    }

    private static string? Listens(UnmanagedHaproxy haproxy, IReadOnlyCollection<Service> services)
    {
        var listeners = UnmanagedSearch.Listeners(services);
        HashSet<uint> own = [.. UnmanagedStop.Processes(haproxy).SelectMany(p => ProcessSockets.Inodes(p.Pid))];
        Service[] missing = [.. services.Where(s => !UnmanagedSearch.Covered(s, listeners.Where(l => own.Contains(l.Socket.Inode)).Select(l => l.Front)))];
        return missing.Length == 0 ? null : $"{haproxy} does not listen on {string.Join(", ", missing.AsEnumerable())}";
    }

    private static async Task<string?> ConnectsAsync(UnmanagedHaproxy haproxy, IReadOnlyCollection<Service> services, CancellationToken stop)
    {
        // A datagram does not tell whether it was taken.
        foreach (Service service in services.Where(s => s.IsTcp))
        {
            foreach (IPEndPoint target in Targets(service))
            {
                using Socket socket = PassingSocket.Open(target.AddressFamily);
                try
                {
                    await socket.ConnectAsync(target, stop);
                    // A connection that was redirected would prove the pair and not this: its other end then has a private port.
                    if (!Arrived((IPEndPoint)socket.LocalEndPoint!, target))
                        return $"a connection to {target} for {service} did not reach the front listener: it was redirected";
                    // An orderly end: HAProxy would count a reset as an error of the service.
                    socket.Shutdown(SocketShutdown.Both);
                }
                catch (SocketException e)
                {
                    return $"a connection to {target} for {service}, of {haproxy}, got {e.SocketErrorCode}: {e.Message}";
                }
            }
        }
        return null;
    }

    private async Task<string?> ProbesAsync(IReadOnlyCollection<Service> services, CancellationToken stop)
    {
        foreach (HttpProbe probe in options.Probes.OfType<HttpProbe>())
        {
            string wanted = Service.TryParse(probe.Service, out Service? parsed) ? parsed.ToString() : probe.Service;
            Service? service = services.FirstOrDefault(s => s.ToString() == wanted);
            if (service is null)
                return $"the probe of {probe.Service} has no such front address; there are {string.Join(", ", services)}";
            if (Targets(service).FirstOrDefault() is not { } target)
                return $"the probe of {probe.Service} cannot be sent: this node does not have the address {service.Address}";
            if (await HttpProbing.AskAsync(probe, target, stop, PassingSocket.Open) is { } why) return why;
        }
        return null;
    }

    /// <summary>Where this host reaches a front address; none when it does not have the address now, a VIP elsewhere.</summary>
    private static IEnumerable<IPEndPoint> Targets(Service service)
    {
        if (Gate.Gate.Reachable(new ServicePort(service, service.Port)) is not { } target) yield break;
        yield return target;
        if (service is { IsWildcard: true, CoversIPv4: true, CoversIPv6: true }) yield return new IPEndPoint(IPAddress.Loopback, service.Port);
    }

    private static bool Arrived(IPEndPoint from, IPEndPoint to)
    {
        using var sockets = new SockDiag();
        return sockets.Sockets(TcpStates.Live, new PortBlock(to.Port, 1)).Any(s => Same(s.Remote, from) && Same(s.Local, to));

        static bool Same(IPEndPoint one, IPEndPoint other) => one.Port == other.Port
            && (one.Address.IsIPv4MappedToIPv6 ? one.Address.MapToIPv4() : one.Address).Equals(other.Address);
    }
}
