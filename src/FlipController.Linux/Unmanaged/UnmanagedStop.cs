using System.Collections.Immutable;
using System.Globalization;
using FlipController.Core;
using FlipController.Linux.Fronts;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Unmanaged;

/// <param name="WasListening">False: it had stopped before, or was gone.</param>
/// <param name="Alive">It still runs, to finish what it has.</param>
/// <param name="Connections">Whom it still serves on the front ports; of an older run that finishes, too.</param>
/// <param name="Notes">What the operator should know; for instance a parent that may start it again when it has ended.</param>
public sealed record StoppedHaproxy(
    bool WasListening, bool Alive, ImmutableArray<HeldConnections> Connections, ImmutableArray<string> Notes);

/// <summary>
/// Tells an unmanaged HAProxy to finish: its open connections stay, it takes no new ones. To be called when NEW connections go
/// elsewhere. Every step can be taken again, by whoever comes after one that was killed.
/// </summary>
public sealed class UnmanagedStop(Systemd systemd, TimeProvider time)
{
    private const int SoftStop = 10; // SIGUSR1: HAProxy's management.txt, 4
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(20);
    private static readonly TimeSpan s_lastArrivals = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan s_again = TimeSpan.FromMilliseconds(500);

    /// <summary>A SYN-ACK is sent five times, the last time after 31 s, and given up after 63 (tcp(7), tcp_synack_retries).</summary>
    public TimeSpan OpeningBound { get; init; } = TimeSpan.FromSeconds(64);

    public TimeSpan StopBound { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>How long to look whether something starts it again when it has ended: runit and docker do within a second.</summary>
    public TimeSpan ReturnWatch { get; init; } = TimeSpan.FromSeconds(2);

    /// <summary>Others take NEW connections on the same ports: what is being opened there later is none of its own.</summary>
    public bool OthersListen { get; init; }

    private Opened? _opened;

    /// <summary>Front paths that lead to the pair and were its own: its sockets there are put aside.</summary>
    public ImmutableArray<string> Paths { get; init; } = [];

    /// <summary>Asked right before the signal: whether NEW connections really go elsewhere, now.</summary>
    public Func<bool> MayStop { get; init; } = () => true;

    /// <param name="ourPids">The generations' processes.</param>
    /// <param name="progress">Told what is waited for.</param>
    /// <exception cref="FlipException">It does not stop, or is brought back; traffic is not touched by either.</exception>
    public async Task<StoppedHaproxy> RunAsync(
        UnmanagedHaproxy haproxy, IReadOnlyCollection<Service> services, IReadOnlySet<int> ourPids, Action<string> progress,
        CancellationToken stop)
    {
        // The parent is known only while its child lives.
        string? supervisor = haproxy.Unit is null ? Supervisor(haproxy) : null;
        if (haproxy.Unit is { } unit && haproxy.Main.IsAlive) await systemd.LetFinishAsync(unit, stop);
        bool listened = Listens(haproxy, services, Paths);
        if (listened)
        {
            await OpenedAsync(haproxy, services, progress, stop);
            await QuietAsync(haproxy, services, stop);
        }
        await NobodyAsync(haproxy, services, ourPids, supervisor, listened, stop);
        ImmutableArray<string> notes = supervisor is not null && haproxy.Main.IsAlive
            ? [$"{supervisor} is the parent of {haproxy}: if it supervises it, it will start it again when its last connection has ended; "
                + "tell it not to"]
            : [];
        return new StoppedHaproxy(listened, haproxy.Main.IsAlive, UnmanagedSearch.Connections(services, ourPids), notes);
    }

    /// <summary>One with a master is told through it; one without (older ones have several processes, nbproc) each for itself.</summary>
    private static ImmutableArray<ProcessIdentity> Leaders(UnmanagedHaproxy haproxy) =>
        haproxy.IsMasterWorker ? [haproxy.Main] : haproxy.Listening;

    /// <summary>Its own processes now: a reload has made new workers since it was found.</summary>
    internal static ImmutableArray<ProcessIdentity> Processes(UnmanagedHaproxy haproxy) => haproxy.Main.IsAlive
        ? [.. HaproxyProcess.All().Where(p => p.Main().Identity == haproxy.Main).Select(p => p.Identity).Union(haproxy.Listening.Where(p => p.IsAlive))]
        : [.. haproxy.Listening.Where(p => p.IsAlive)];

    /// <summary>The process is one of its own now.</summary>
    public static bool Owns(UnmanagedHaproxy haproxy, int pid) => Processes(haproxy).Any(p => p.Pid == pid);

    /// <summary>TCP addresses on which it listens beside these: whoever connects to one would be refused once it has stopped.</summary>
    public static ImmutableArray<string> Others(UnmanagedHaproxy haproxy, IReadOnlyCollection<Service> services)
    {
        HashSet<uint> inodes = [.. Processes(haproxy).SelectMany(p => ProcessSockets.Inodes(p.Pid))];
        HashSet<uint> known = [.. UnmanagedSearch.Listeners(services).Select(l => l.Socket.Inode)];
        using var sockets = new SockDiag();
        return
        [
            .. sockets.Listeners().Where(s => inodes.Contains(s.Inode) && !known.Contains(s.Inode)).Select(s => s.Local.ToString()).Distinct(),
        ];
    }

    internal static bool Listens(UnmanagedHaproxy haproxy, IReadOnlyCollection<Service> services, IReadOnlyCollection<string> paths)
    {
        HashSet<uint> inodes = [.. UnmanagedSearch.Listeners(services).Select(l => l.Socket.Inode), .. Aside(paths).Select(l => l.Inode)];
        if (inodes.Count == 0) return false;
        return Processes(haproxy).Any(p => ProcessSockets.Inodes(p.Pid).Overlaps(inodes));
    }

    /// <summary>
    /// Until nobody is in the middle of opening a connection: what is in SYN_RECV or not accepted yet when a listener closes is reset.
    /// </summary>
    private async Task OpenedAsync(
        UnmanagedHaproxy haproxy, IReadOnlyCollection<Service> services, Action<string> progress, CancellationToken stop)
    {
        long began = time.GetTimestamp();
        TimeSpan pause = s_pause;
        // Who has found its socket an instant before the path led elsewhere queues there an instant after.
        if (!Paths.IsEmpty) await Task.Delay(s_lastArrivals, time, stop);
        int opening = Opening(haproxy, services);
        if (opening == 0) return;
        progress($"{haproxy} is not told to stop before {opening} connections have been opened");
        while (time.GetElapsedTime(began) < OpeningBound)
        {
            await Task.Delay(pause, time, stop);
            opening = Opening(haproxy, services);
            if (opening == 0) return;
            if (pause < s_again) pause *= 2;
        }
        progress($"{haproxy} is told to stop although {opening} connections are still being opened; whoever opens one now is reset");
    }

    private static IEnumerable<UnixSocket> Aside(IEnumerable<string> paths) =>
        paths.Select(p => FileStatus.Read(FrontPath.UnmanagedOf(p))).OfType<FileStatus>().Select(FrontPath.Listener).OfType<UnixSocket>();

    private int Opening(UnmanagedHaproxy haproxy, IReadOnlyCollection<Service> services)
    {
        int byPath = (int)Aside(Paths).Sum(l => l.Unaccepted);
        if (services.Count == 0) return byPath;
        HashSet<int> ports = [.. services.Select(s => s.Port)];
        using var sockets = new SockDiag();
        if (OthersListen)
        {
            HashSet<uint> inodes = [.. Processes(haproxy).SelectMany(p => ProcessSockets.Inodes(p.Pid))];
            return byPath + (_opened ??= new Opened(ports)).Left(sockets)
                + (int)UnmanagedSearch.Listeners(services).Where(l => inodes.Contains(l.Socket.Inode)).Sum(l => l.Socket.ReceiveQueue);
        }
        int halfOpen = sockets.HandshakesByPort(new PortBlock(ports.Min(), ports.Max() - ports.Min() + 1))
            .Where(p => ports.Contains(p.Key)).Sum(p => p.Value);
        int known = byPath + halfOpen + (int)UnmanagedSearch.Listeners(services).Sum(l => l.Socket.ReceiveQueue);
        // A walk over every connection of the host, which clients notice: only where some have left no socket.
        if (known > 0 || UnkeptSyns.Count() == 0) return known;
        using Conntrack? conntrack = Conntrack.Open();
        return conntrack?.OpeningTo(ports) ?? 0;
    }

    /// <summary>
    /// The signal, by pidfd and not by `systemctl kill`: it reaches the very process that was found, and needs no version of systemctl
    /// (--kill-whom was --kill-who before 252). A master hands it on to its workers and ends with the last of them. Once more when it
    /// did not help: a master that reloads at this moment loses it, and one that has it ignores the next.
    /// </summary>
    private async Task QuietAsync(UnmanagedHaproxy haproxy, IReadOnlyCollection<Service> services, CancellationToken stop)
    {
        long began = time.GetTimestamp(), signalled = 0;
        while (Listens(haproxy, services, Paths))
        {
            if (signalled == 0 || time.GetElapsedTime(signalled) > s_again)
            {
                if (!MayStop())
                    throw new FlipException($"{haproxy} was not told to stop: NEW connections do not go to the pair any more; nothing was done to it");
                ProcessIdentity[] leaders = [.. Leaders(haproxy).Where(p => HaproxyProcess.Handles(p.Pid, SoftStop))];
                foreach (ProcessIdentity process in leaders) process.Signal(SoftStop);
                if (leaders.Length > 0) signalled = time.GetTimestamp();
            }
            if (time.GetElapsedTime(began) > StopBound)
                throw new FlipException($"{haproxy} was told to stop (SIGUSR1) and still listens after {Durations.Format(StopBound)}; "
                    + "NEW connections go to the pair all the same. Look at its log; a `grace` in its configuration would explain it");
            await Task.Delay(s_pause, time, stop);
        }
    }

    /// <summary>Whatever brings it back does so when it has ended, or never.</summary>
    private async Task NobodyAsync(
        UnmanagedHaproxy haproxy, IReadOnlyCollection<Service> services, IReadOnlySet<int> ourPids, string? supervisor, bool justStopped,
        CancellationToken stop)
    {
        long began = time.GetTimestamp();
        bool alive = haproxy.Main.IsAlive;
        while (true)
        {
            UnmanagedFinding now = await new UnmanagedSearch(systemd).FindAsync(services, ourPids, stop);
            if (now.Haproxy is { } back)
                throw new FlipException($"{haproxy} was stopped, and {UnmanagedSearch.About(back.Main.Pid)} listens on "
                    + $"{string.Join(", ", now.Served.Concat(now.Unserved).Take(3))} again: {supervisor ?? back.Unit ?? Supervisor(back) ?? "something"} "
                    + "brings it back. NEW connections go to the pair all the same. "
                    + (back.Unit is null ? "Tell whatever starts it not to" : $"See that nothing starts it (`systemctl disable {back.Unit}`)")
                    + ", and adopt again");
            if (alive && !haproxy.Main.IsAlive)
            {
                alive = false;
                began = time.GetTimestamp();
            }
            // With connections it ends some other time; without any, at any moment.
            if (!justStopped || time.GetElapsedTime(began) >= ReturnWatch
                || (alive && !UnmanagedSearch.Connections(services, ourPids).IsEmpty)) return;
            await Task.Delay(s_pause * 5, time, stop);
        }
    }

    /// <summary>The parent of its main process, when that is not whoever inherits orphans.</summary>
    private static string? Supervisor(UnmanagedHaproxy haproxy) =>
        haproxy.Main.IsAlive && HaproxyProcess.Read(haproxy.Main.Pid) is { Parent: > 1 } main
            ? UnmanagedSearch.About(main.Parent)
            : null;
}
