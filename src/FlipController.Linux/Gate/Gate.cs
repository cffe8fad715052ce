using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Commands;
using FlipController.Linux.Fronts;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Gate;

/// <summary>
/// What a standby must prove before it gets traffic, in this order: its process is alive; that very process, or a descendant, listens
/// on every private port and on no front port; each port takes a TCP connection; the configured probes are answered; and of HAProxy: every
/// server that is UP on the active one is UP here after a check of its own; its peers are in sync. What is not so yet is asked again
/// until <c>gate.timeout</c>; what can never become so fails at once.
/// </summary>
/// <param name="words">What a generation's command probes are filled with.</param>
public sealed class Gate(GateOptions options, TimeProvider time, Func<Generation, CommandWords> words)
{
    /// <summary>Null when everything is proven; else the first thing that is not, in one sentence.</summary>
    /// <param name="admin">Null: it is not HAProxy.</param>
    /// <param name="against">The admin socket of the generation that has the traffic; null: there is none.</param>
    /// <param name="progress">Told when the gate goes on to its next question.</param>
    public async Task<string?> ProveAsync(
        Generation candidate, AdminSocket? admin, AdminSocket? against, Action<string> progress, CancellationToken stop)
    {
        (string Name, Func<CancellationToken, Task<Finding>> Ask)[] questions =
        [
            ("its process is alive", _ => Task.FromResult(Alive(candidate))),
            ("it listens on its private ports", _ => Task.FromResult(Listens(candidate))),
            ("its ports take connections", ct => ConnectsAsync(candidate, ct)),
            ("its probes are answered", ct => ProbesAsync(candidate, ct)),
            .. admin is null ? Array.Empty<(string, Func<CancellationToken, Task<Finding>>)>() :
            [
                ("its servers are as healthy as the active one's", ct => ParityAsync(admin, against, ct)),
                ("its peers are in sync", ct => PeersAsync(admin, against, ct)),
            ],
        ];
        return await new Questions(options.Timeout, time).AskAsync(
            candidate.ToString(), () => Alive(candidate).Why, questions, progress, stop);
    }

    private static Finding Alive(Generation candidate) => ProcessIdentity.Of(candidate).IsAlive
        ? Finding.Yes
        : Finding.Never($"{candidate} is not alive: process {candidate.Pid} ended after it had started");

    private static Finding Listens(Generation candidate)
    {
        using var sockets = new SockDiag();
        IReadOnlyList<ListeningEndpoint> streams = ProcessSockets.FamilyPorts(sockets, candidate.Pid);
        IReadOnlyList<ListeningEndpoint> datagrams =
            candidate.Ports.All(p => p.Service.IsTcp) ? [] : ProcessSockets.ReceivingPorts(sockets, candidate.Pid);
        foreach (ServicePort port in candidate.Ports)
        {
            IReadOnlyList<ListeningEndpoint> listening = port.Service.IsTcp ? streams : datagrams;
            if (!port.IsFront && listening.Any(l => l.Port == port.Service.Port && Takes(l, port.Service)))
                return Finding.Never($"{candidate} (process {candidate.Pid}) listens on the front address {port.Service} itself, "
                    + "where it would take connections from the active one");
            if (Parts(port.Service).Any(part => !listening.Any(l => l.Port == port.PrivatePort && Takes(l, part))))
                return Finding.NotYet($"process {candidate.Pid} does not listen on {(port.IsFront ? "the front address" : $"private port {port.PrivatePort} for")} {port.Service}");
        }
        foreach (UnixFront front in candidate.UnixFronts)
            if (!FrontPath.IsListenedBy(front.Socket, candidate.Pid))
                return Finding.NotYet($"process {candidate.Pid} does not listen at {front.Socket} for {front.Path}");
        return Finding.Yes;
    }

    /// <summary>On the very address, or on every one of its family.</summary>
    private static bool Takes(ListeningEndpoint listener, Service service) => listener.Address.Equals(service.Address)
        || (service with { Address = listener.Address, V6Only = listener.V6Only == true } is { IsWildcard: true } all && all.Overlaps(service));

    /// <summary>Both families may have a listener each, or one for both.</summary>
    private static IEnumerable<Service> Parts(Service service) => service is { IsWildcard: true, CoversIPv4: true, CoversIPv6: true }
        ? [service with { Address = IPAddress.Any }, service with { V6Only = true }]
        : [service];

    private static async Task<Finding> ConnectsAsync(Generation candidate, CancellationToken stop)
    {
        foreach (ServicePort port in candidate.Ports)
        {
            // An address this node does not have now, a VIP elsewhere: the listener alone is proof.
            // Nor does a datagram tell whether it was taken.
            if (!port.Service.IsTcp || Reachable(port) is not { } target) continue;
            using Socket socket = Open(port)(target.AddressFamily);
            try
            {
                await socket.ConnectAsync(target, stop);
                // An orderly end: HAProxy would count a reset as an error of the service.
                socket.Shutdown(SocketShutdown.Both);
            }
            catch (SocketException e)
            {
                return Finding.NotYet($"a connection to {target} for {port.Service} got {e.SocketErrorCode}: {e.Message}");
            }
        }
        foreach (UnixFront front in candidate.UnixFronts)
            if (UnixConnect.Try(front.Socket) is { } error)
                return Finding.NotYet($"a connection to {front.Socket} for {front.Path} got {error}");
        return Finding.Yes;
    }

    /// <summary>Beside an active one on the same address only the mark leads to it.</summary>
    private static Func<AddressFamily, Socket> Open(ServicePort port) => port.IsFront ? PassingSocket.Open
        : static family => new Socket(family, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };

    /// <summary>Null when it answers every probe now; else why not, in one sentence.</summary>
    public async Task<string?> ProbeAsync(Generation generation, CancellationToken stop)
    {
        try
        {
            return (await ProbesAsync(generation, stop)).Why;
        }
        catch (CommandFailedException e)
        {
            return e.Message;
        }
    }

    private async Task<Finding> ProbesAsync(Generation candidate, CancellationToken stop)
    {
        foreach (Probe asked in options.Probes)
        {
            if (asked is CommandProbe command)
            {
                if (await CommandProbing.AskAsync(command, words(candidate), stop) is { } said) return Finding.NotYet(said);
                continue;
            }
            HttpProbe probe = (HttpProbe)asked;
            // The configuration writes `:80`; services print as `*:80`.
            string wanted = Service.TryParse(probe.Service, out Service? service) ? service.ToString() : probe.Service;
            ServicePort? port = candidate.Ports.FirstOrDefault(p => p.Service.ToString() == wanted);
            if (port is null)
                return Finding.Never($"the probe of {probe.Service} has no such front address; "
                    + $"there are {string.Join(", ", candidate.Ports.Select(p => p.Service))}");
            if (Reachable(port) is not { } target)
                return Finding.Never($"the probe of {probe.Service} cannot be sent: "
                    + $"this node does not have the address {port.Service.Address}");
            if (await HttpProbing.AskAsync(probe, target, stop, Open(port)) is { } why) return Finding.NotYet(why);
        }
        return Finding.Yes;
    }

    private async Task<Finding> ParityAsync(AdminSocket admin, AdminSocket? against, CancellationToken stop)
    {
        IReadOnlyList<ServerState> here = await admin.ServersAsync(stop);
        ServerState[] unchecked_ = [.. here.Where(s => s is { HasCheck: true, FirstCheckDone: false, Maintenance: false })];
        if (unchecked_.Length > 0) return Finding.NotYet($"{Some(unchecked_)} not finished the first health check");
        if (options.Parity == ParityRule.None || against is null) return Finding.Yes;
        return Missing(await against.ServersAsync(stop), here) is { } why ? Finding.NotYet(why) : Finding.Yes;
    }

    /// <summary>Which servers are UP there and not here, of those that are still configured here; null: none.</summary>
    public static string? Missing(IReadOnlyList<ServerState> there, IReadOnlyList<ServerState> here)
    {
        Dictionary<(string, string), ServerState> own = here.ToDictionary(s => (s.Backend, s.Name));
        ServerState[] missing =
        [
            // Disabled or weighing nothing in the new file is what its writer wants; only what should be up and is not counts.
            .. there.Where(s => s.IsUp).Select(s => own.GetValueOrDefault((s.Backend, s.Name))).OfType<ServerState>()
                .Where(s => s is { IsUp: false, Maintenance: false, IsDrained: false }),
        ];
        if (missing.Length == 0) return null;
        ServerState first = missing[0];
        string more = missing.Length > 1 ? $" (and {missing.Length - 1} more)" : "";
        return $"server {first.Backend}/{first.Name} is UP on the generation before "
            + $"and {first.Status} on the new one ({first.LastCheck}){more}";
    }

    private static async Task<Finding> PeersAsync(AdminSocket admin, AdminSocket? against, CancellationToken stop)
    {
        PeersState[] behind = [.. (await admin.PeersAsync(stop)).Where(p => !p.ResyncFinished)];
        // Only the generation before can teach what is shared between generations: without it HAProxy waits 5 s for nobody
        // (src/peers.c, PEER_RESYNC_TIMEOUT), and one that still waits itself teaches all it has and calls it a part.
        if (behind.FirstOrDefault(IsOurs) is { } ours)
        {
            PeersState? teacher = against is null ? null : (await against.PeersAsync(stop)).FirstOrDefault(IsOurs);
            if (teacher is null || (ours.TaughtInPart && !teacher.ResyncFinished)) behind = [.. behind.Where(p => !IsOurs(p))];
        }
        return behind.Length == 0
            ? Finding.Yes
            : Finding.NotYet($"peers section {behind[0].Section} has not finished its first synchronisation");
    }

    private static bool IsOurs(PeersState peers) => peers.Section == TablePeer.Section;

    private static string Some(ServerState[] servers) =>
        $"server {servers[0].Backend}/{servers[0].Name}{(servers.Length > 1 ? $" and {servers.Length - 1} more have" : " has")}";

    /// <summary>Where this host can reach a private port; null when the service's address is not on it now.</summary>
    public static IPEndPoint? Reachable(ServicePort port)
    {
        IPAddress address = port.Service.Address;
        if (address.Equals(IPAddress.Any)) return new IPEndPoint(IPAddress.Loopback, port.PrivatePort);
        if (address.Equals(IPAddress.IPv6Any)) return new IPEndPoint(IPAddress.IPv6Loopback, port.PrivatePort);
        bool local = IPAddress.IsLoopback(address) || NetworkInterface.GetAllNetworkInterfaces()
            .SelectMany(i => i.GetIPProperties().UnicastAddresses).Any(a => a.Address.Equals(address));
        return local ? new IPEndPoint(address, port.PrivatePort) : null;
    }
}
