using System.Collections.Immutable;
using System.Net;
using FlipController.Core;
using FlipController.Linux.Fronts;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Unmanaged;

/// <param name="Haproxy">Who serves; null when nobody listens, or nobody that could be taken over.</param>
/// <param name="Served">What it listens on whole: the address itself, or a wildcard that has it.</param>
/// <param name="Unserved">What it does not listen on, or only in part.</param>
/// <param name="Refusals">Others that listen on the addresses and would lose their NEW connections, one sentence each.</param>
public sealed record UnmanagedFinding(
    UnmanagedHaproxy? Haproxy, ImmutableArray<Service> Served, ImmutableArray<Service> Unserved, ImmutableArray<string> Refusals)
{
    /// <summary>
    /// <paramref name="Haproxy"/> listens before it is who will serve: as the process that a daemon is born of, which then ends, or as
    /// a master whose worker is not there yet.
    /// </summary>
    public bool IsStarting { get; init; }

    /// <summary>Paths of unix sockets at which it listens.</summary>
    public ImmutableArray<string> ServedPaths { get; init; } = [];

    /// <summary>One HAProxy listens on everything, and nobody else does.</summary>
    public bool IsWhole => Haproxy is not null && Unserved.IsEmpty && Refusals.IsEmpty;
}

/// <summary>Finds who listens on the front addresses, in the network namespace of the calling thread.</summary>
public sealed class UnmanagedSearch(Systemd systemd)
{
    private const int Looks = 3;

    /// <param name="ourPids">The generations' own processes, which are never unmanaged.</param>
    /// <param name="asksUnit">False: its unit is not asked for, and systemd's silence stands in nobody's way.</param>
    public async Task<UnmanagedFinding> FindAsync(
        IReadOnlyCollection<Service> services, IReadOnlySet<int> ourPids, CancellationToken stop = default, bool asksUnit = true)
    {
        for (int look = 1; ; look++)
        {
            // /proc is a list of one moment, and a listener outlives its process in a child that is not on it: a daemon at its birth.
            if (await LookAsync(services, ourPids, asksUnit, look == Looks, stop) is { } found) return found;
        }
    }

    /// <summary>
    /// The same with paths of unix sockets: who listens on the addresses, or on none, is who listens at the paths. Where the pair's link
    /// stands already, its socket is the one that was put aside.
    /// </summary>
    public async Task<UnmanagedFinding> FindAsync(
        IReadOnlyCollection<Service> services, IReadOnlyCollection<string> paths, IReadOnlySet<int> ourPids, CancellationToken stop = default,
        bool asksUnit = true)
    {
        UnmanagedFinding finding = await FindAsync(services, ourPids, stop, asksUnit);
        foreach (string path in paths)
        {
            FrontPath there = FrontPath.Look(path);
            if (there.Kind == FrontPathKind.Foreign) finding = finding with { Refusals = finding.Refusals.Add($"the front path {path} {there.Why}") };
            if (there.Kind != FrontPathKind.Listened) there = FrontPath.Look(FrontPath.UnmanagedOf(path));
            if (there.Kind != FrontPathKind.Listened) continue;
            if (there.Pids.Count == 0)
                finding = finding with { Refusals = finding.Refusals.Add($"the front path {path}: a process that cannot be seen listens there; find it with `ss -xlp`, and stop it") };
            foreach (int pid in there.Pids)
            {
                if (HaproxyProcess.Read(pid) is not { } process) continue;
                HaproxyProcess main = process.Main();
                string? refusal = !process.IsHaproxy ? $"{About(pid)} listens there, which is no HAProxy and would lose its NEW connections; stop it, or bind another path"
                    : finding.Haproxy is { } other && other.Main != main.Identity ? $"{About(pid)} listens there and is another HAProxy than {About(other.Main.Pid)}; "
                        + "a pair takes over from one. Give them a pair each, or stop one"
                    : null;
                if (refusal is not null) finding = finding with { Refusals = finding.Refusals.Add($"the front path {path}: {refusal}") };
                else if (finding.Haproxy is null)
                    finding = finding with { Haproxy = main.Describe([process.Identity], asksUnit ? await systemd.UnitOfAsync(main.Pid, stop) : null) };
                if (refusal is null) finding = finding with { ServedPaths = finding.ServedPaths.Contains(path) ? finding.ServedPaths : finding.ServedPaths.Add(path) };
            }
        }
        return finding;
    }

    /// <summary>Null: somebody ended meanwhile; who has what is told by another look. The last one tells what it sees.</summary>
    private async Task<UnmanagedFinding?> LookAsync(
        IReadOnlyCollection<Service> services, IReadOnlySet<int> ourPids, bool asksUnit, bool last, CancellationToken stop)
    {
        List<(Service Front, TcpSocket Socket)> listeners = Listeners(services);
        ILookup<uint, int> holders = Holders([.. listeners.Select(l => l.Socket.Inode)], ourPids);
        ImmutableArray<string>.Builder refusals = ImmutableArray.CreateBuilder<string>();
        Dictionary<int, HaproxyProcess> mains = [];
        Dictionary<int, List<(HaproxyProcess Process, Service Front)>> byMain = [];
        HashSet<int> told = [];
        foreach ((Service front, TcpSocket socket) in listeners)
        {
            foreach (int pid in holders[socket.Inode])
            {
                if (HaproxyProcess.Read(pid) is not { } process)
                {
                    if (last) continue;
                    return null;
                }
                if (!process.IsHaproxy)
                {
                    if (told.Add(pid))
                        refusals.Add($"{Named(services, front)} {About(pid)} listens on {socket.Local}, which is no HAProxy and would lose its "
                            + "NEW connections; stop it, or take the address out of the configuration");
                    continue;
                }
                HaproxyProcess main = process.Main();
                mains[main.Pid] = main;
                if (!byMain.TryGetValue(main.Pid, out var held)) byMain[main.Pid] = held = [];
                held.Add((process, front));
            }
            if (!holders[socket.Inode].Any() && !ourPids.Any(p => ProcessSockets.Inodes(p).Contains(socket.Inode)))
            {
                if (!last) return null;
                refusals.Add($"{Named(services, front)} a process that cannot be seen listens on {socket.Local} (of another container, "
                    + "or the kernel's own); find it with `ss -tlnp`, and stop it");
            }
        }
        if (!last && mains.Values.Any(m => !m.Identity.IsAlive)) return null;
        // The one with most of them is taken for the one that is meant; of two alike the older.
        HaproxyProcess? meant = mains.Values
            .OrderByDescending(m => services.Count(s => Covered(s, byMain[m.Pid].Select(h => h.Front))))
            .ThenBy(m => m.Identity.StartTicks).FirstOrDefault();
        foreach (HaproxyProcess other in mains.Values.Where(m => m.Pid != meant!.Pid).OrderBy(m => m.Pid))
            refusals.Add($"{Named(services, byMain[other.Pid][0].Front)} {About(other.Pid)} listens on it and is another HAProxy than "
                + $"{About(meant!.Pid)}; a pair takes over from one. Give them a pair each, or stop one");
        if (meant is null) return new UnmanagedFinding(null, [], [.. services], refusals.ToImmutable());

        List<(HaproxyProcess Process, Service Front)> of = byMain[meant.Pid];
        ImmutableArray<Service> served = [.. services.Where(s => Covered(s, of.Select(h => h.Front)))];
        UnmanagedHaproxy? haproxy = meant.Describe(
            [.. of.Select(h => h.Process.Identity).Distinct().OrderBy(p => p.Pid)], asksUnit ? await systemd.UnitOfAsync(meant.Pid, stop) : null);
        if (haproxy is null) return last ? new UnmanagedFinding(null, [], [.. services], refusals.ToImmutable()) : null;
        bool starts = meant.IsBecomingDaemon || (StartArguments.HasMaster(meant.Arguments) && !haproxy.IsMasterWorker);
        // Asked last: of the dead nobody knows what they were becoming.
        bool alive = meant.Identity.IsAlive;
        if (!alive && !last) return null;
        return new UnmanagedFinding(haproxy, served, [.. services.Except(served)], refusals.ToImmutable()) { IsStarting = starts || !alive };
    }

    /// <summary>Connections on the front ports that no generation has, by the HAProxy that has them: who is still there.</summary>
    public static ImmutableArray<HeldConnections> Connections(IReadOnlyCollection<Service> services, IReadOnlySet<int> ourPids)
    {
        if (services.Count == 0) return [];
        HashSet<int> ports = [.. services.Select(s => s.Port)];
        var span = new PortBlock(ports.Min(), ports.Max() - ports.Min() + 1);
        using var sockets = new SockDiag();
        Dictionary<uint, int> portOf = [];
        foreach (TcpSocket socket in sockets.Connections(span))
            if (socket.Inode != 0 && ports.Contains(socket.Local.Port) && Serves(services, socket.Local)) portOf[socket.Inode] = socket.Local.Port;
        if (portOf.Count == 0) return [];
        return
        [
            .. HaproxyProcess.All().Where(p => !ourPids.Contains(p.Pid)).SelectMany(p =>
                ProcessSockets.Inodes(p.Pid).Where(portOf.ContainsKey).CountBy(inode => portOf[inode])
                    .Select(port => new HeldConnections(p.Pid, port.Key, port.Value)))
                .OrderBy(h => h.Pid).ThenBy(h => h.Port),
        ];
    }

    /// <summary>Every listener that some connection of a service would meet.</summary>
    internal static List<(Service Front, TcpSocket Socket)> Listeners(IReadOnlyCollection<Service> services)
    {
        using var sockets = new SockDiag();
        return
        [
            .. sockets.Listeners().Select(s => (Front: FrontOf(s, Transport.Tcp), Socket: s))
                .Concat(services.All(s => s.IsTcp) ? [] : sockets.Receivers().Select(s => (Front: FrontOf(s, Transport.Udp), Socket: s)))
                .Where(l => services.Any(s => Plain(s).Overlaps(l.Front))),
        ];
    }

    private static bool Serves(IReadOnlyCollection<Service> services, IPEndPoint local)
    {
        Service there = new(local.Address.IsIPv4MappedToIPv6 ? local.Address.MapToIPv4() : local.Address, local.Port);
        return services.Any(s => Plain(s).Overlaps(there));
    }

    /// <summary>The listeners together take every connection that would be for the service.</summary>
    internal static bool Covered(Service service, IEnumerable<Service> listeners)
    {
        Service wanted = Plain(service);
        List<Service> there = [.. listeners.Where(l => l.Port == wanted.Port && l.IsTcp == wanted.IsTcp)];
        if (!wanted.IsWildcard && there.Any(l => l.Address.Equals(wanted.Address))) return true;
        return (!wanted.CoversIPv4 || there.Any(l => l.IsWildcard && l.CoversIPv4))
            && (!wanted.CoversIPv6 || there.Any(l => l.IsWildcard && l.CoversIPv6));
    }

    private static Service FrontOf(TcpSocket socket, Transport transport) =>
        Plain(new Service(socket.Local.Address, socket.Local.Port, socket.V6Only == true, transport));

    private static Service Plain(Service service) =>
        service.Address.IsIPv4MappedToIPv6 ? service with { Address = service.Address.MapToIPv4() } : service;

    private static ILookup<uint, int> Holders(HashSet<uint> inodes, IReadOnlySet<int> ourPids) => inodes.Count == 0
        ? Enumerable.Empty<(uint, int)>().ToLookup(h => h.Item1, h => h.Item2)
        : ProcessIdentity.Pids().Where(pid => !ourPids.Contains(pid))
            .SelectMany(pid => ProcessSockets.Inodes(pid).Where(inodes.Contains).Select(inode => (Inode: inode, Pid: pid)))
            .ToLookup(h => h.Inode, h => h.Pid);

    private static string Named(IReadOnlyCollection<Service> services, Service listener) =>
        $"the front address {services.First(s => Plain(s).Overlaps(listener))}:";

    internal static string About(int pid) => $"process {pid} ({HaproxyProcess.Command(pid) ?? "gone"})";
}
