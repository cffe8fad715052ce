using System.Collections.Immutable;
using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;

namespace FlipController.Linux.Hold;

/// <summary>
/// Holds opening SYNs in plug qdiscs: those that come in by a device, lo among them, in an ifb's (<see cref="PlugIngress"/>); those of
/// local clients, if so asked, in a lane on lo (<see cref="LoopbackLanes"/>). Established connections are not touched.
/// Forwarded SYNs to the same ports wait as well. Local clients of a flip go where the redirect led them when they asked: NAT is
/// decided before lo.
/// </summary>
public sealed class PlugHold : Hold
{
    /// <summary>45,000 opening SYNs: 0.9 s of 50,000 a second.</summary>
    public const uint DefaultLimitBytes = 4 << 20;

    internal const string AliasPrefix = "flipcontroller hold ";
    internal const string NamePrefix = "flip-";
    private const int LongestName = 15; // IFNAMSIZ - 1
    private const uint QueueLength = 1000;

    private static readonly TcHandle IfbPlug = new(1, 0);

    private readonly RouteNetlink _route;
    private readonly NetlinkSocket _netfilter, _forced;
    private readonly NftLibrary _nft;
    private readonly HoldLock _owner;
    private HoldLock? _shared;
    private Link? _ifb;
    private LoopbackLanes? _lanes;
    private PlugQdisc[] _plugs = [];
    private readonly NftBatch _unhook;
    private PreparedMessage _close;
    private OpenMessage _open;
    private bool _rehearsing, _disposed;
    private int _errno;
    private string _attempt = "";
    private long _closedAt, _openedAt;
    private uint _droppedBefore;

    private PlugHold(HoldScope scope, HoldLock owner) : base(scope)
    {
        _owner = owner;
        _close = new PreparedMessage();
        _open = new OpenMessage([]);
        _unhook = PlugIngress.Unhook(scope.Owner);
        _route = new RouteNetlink();
        try
        {
            _netfilter = new NetlinkSocket(NetlinkProtocol.Netfilter);
            _forced = new NetlinkSocket(NetlinkProtocol.Route);
            _nft = NftLibrary.Open();
        }
        catch
        {
            _route.Dispose();
            _netfilter?.Dispose();
            _forced?.Dispose();
            throw;
        }
    }

    public override string Method => "plug";

    public override ImmutableArray<ForcedOpening> ForcedOpenings =>
        [new ForcedOpening(_forced.Fd, new PreparedMessage(_plugs.Select(p => p.OpenMessage)).Bytes)];

    /// <summary>Makes everything ready, open, in the network namespace of the calling thread.</summary>
    /// <param name="lanes">Local clients wait in a lane on lo, and not at its ingress.</param>
    /// <param name="limitBytes">Of opening SYNs, some 74 (IPv4) or 94 (IPv6) bytes each, in each plug; those beyond are dropped.</param>
    /// <exception cref="FlipException">It cannot be done here, and why; nothing of it is left, and traffic is open.</exception>
    public static PlugHold Prepare(HoldScope scope, bool lanes = false, uint limitBytes = DefaultLimitBytes)
    {
        if (scope.Ports.Length == 0 || !(scope.Incoming || scope.Local))
            throw new ArgumentException("a hold without ports, or of neither incoming nor local connections", nameof(scope));
        HoldLock owner = HoldLock.Take(HoldLock.PathOf(scope.Owner), exclusive: true)
            ?? throw new FlipException($"cannot hold for {scope.Owner}: another process holds for it already; nothing is held by this one");
        PlugHold? hold = null;
        try
        {
            hold = new PlugHold(scope, owner);
            hold.Make(lanes, limitBytes);
            return hold;
        }
        catch (Exception e)
        {
            if (hold is not null) hold.Dispose();
            else owner.Dispose();
            throw e is KernelException kernel ? new FlipException($"{kernel.Message}; nothing is held{Remedy(kernel)}", kernel) : e;
        }
    }

    /// <summary>The ifb's name: the owner's if it fits, else its beginning and a number made of all of it.</summary>
    internal static string DeviceName(string owner)
    {
        if (NamePrefix.Length + owner.Length <= LongestName) return NamePrefix + owner;
        uint hash = 2166136261; // FNV-1a
        foreach (byte b in Encoding.UTF8.GetBytes(owner)) hash = (hash ^ b) * 16777619;
        return string.Create(CultureInfo.InvariantCulture, $"{NamePrefix}{owner[..5]}-{(ushort)(hash ^ hash >> 16):x4}");
    }

    internal static string? OwnerOf(Link link) =>
        link.Kind == "ifb" && link.Alias?.StartsWith(AliasPrefix, StringComparison.Ordinal) == true ? link.Alias[AliasPrefix.Length..] : null;

    private static string Remedy(KernelException e) => e.Errno switch
    {
        Errno.Perm => "; it needs CAP_NET_ADMIN: run it as root",
        Errno.NotSupported when e.Operation.StartsWith("add device", StringComparison.Ordinal) => "; the kernel has no ifb: load it (modprobe ifb)",
        Errno.NoEntry when e.Operation.StartsWith("lead opening", StringComparison.Ordinal) =>
            "; the kernel cannot forward at ingress: load it (modprobe nft_fwd_netdev), or hold with a queue",
        _ => "",
    };

    private void Make(bool lanes, uint limitBytes)
    {
        _shared = HoldLock.TakeShared(HoldLock.PathOf());
        IReadOnlyList<Link> links = _route.Links();
        List<Link> devices = Devices(links, lanes);
        List<PlugQdisc> plugs = [];
        if (devices.Count > 0)
        {
            var ingress = new PlugIngress(_nft);
            string name = DeviceName(Scope.Owner);
            if (links.FirstOrDefault(l => l.Name == name) is { } there)
            {
                // A leftover of an owner of this name: its lock was free.
                if (OwnerOf(there) != Scope.Owner)
                    throw new FlipException($"cannot add device {name}: there is one of that name which is not ours, and it stays; nothing is held; "
                        + "rename it, or hold with a queue");
                PlugLeftovers.Remove(_route, _nft, there, Scope.Owner);
            }
            // First, as it tells whether we may: without rights libnftables writes to stderr by itself.
            _route.AddLink(name, "ifb", QueueLength, AliasPrefix + Scope.Owner);
            _ifb = _route.Links().First(l => l.Name == name);
            foreach ((string other, ImmutableArray<int> ports) in ingress.Owners())
            {
                if (other != Scope.Owner && ports.Intersect(Scope.Ports).Any() && IsAlive(other))
                    throw new FlipException($"cannot hold port {ports.Intersect(Scope.Ports).First()}: {other} holds it already; nothing is held by this one; "
                        + "wait until that hold has ended");
            }
            ingress.Remove(Scope.Owner);
            var plug = new PlugQdisc(_route, _ifb, TcHandle.Root, IfbPlug);
            plug.Attach(limitBytes);
            KeepQuiet(name);
            _route.SetUp(_ifb);
            plugs.Add(plug);
            ingress.Add(Scope.Owner, _ifb, devices, Scope.Ports);
        }
        if (Scope.Local && lanes)
        {
            _lanes = LoopbackLanes.Prepare(_route, _nft, Scope.Ports, Scope.MarkBit, limitBytes);
            plugs.Add(_lanes.Plug);
        }
        _plugs = [.. plugs];
        _close = new PreparedMessage(plugs.Select(p => p.CloseMessage));
        _open = new OpenMessage(plugs.SelectMany(p => (byte[][])[p.ReadMessage, p.OpenMessage]));
    }

    private List<Link> Devices(IReadOnlyList<Link> links, bool lanes)
    {
        List<Link> devices = [];
        if (Scope.Incoming)
        {
            foreach (string name in Scope.Devices)
                devices.Add(links.FirstOrDefault(l => l.Name == name) ?? throw new FlipException($"cannot hold what comes in by {name}: there is no such device; "
                    + "nothing is held; `ip link` lists those there are"));
            // What comes in by a bridge's or bond's port comes in by the bridge or bond afterwards.
            if (devices.Count == 0)
                devices.AddRange(links.Where(l => l is { IsUp: true, IsLoopback: false, PortOf: null or "vrf" } && OwnerOf(l) is null && l.Kind != "ifb"));
            if (devices.Count == 0)
                throw new FlipException("cannot hold what comes in: no device but lo is up; nothing is held; name one that is there, or hold local clients alone");
        }
        if (Scope.Local && !lanes && !devices.Any(d => d.IsLoopback)) devices.AddRange(links.Where(l => l.IsLoopback));
        return devices;
    }

    /// <summary>What the device would send of its own accord (router solicitations) would wait, and be counted.</summary>
    private static void KeepQuiet(string device)
    {
        try
        {
            File.WriteAllText($"/proc/sys/net/ipv6/conf/{device}/disable_ipv6", "1");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // No IPv6, or /proc may not be written: one packet too many is counted.
        }
    }

    private static bool IsAlive(string owner)
    {
        using HoldLock? free = HoldLock.TryTake(HoldLock.PathOf(owner), exclusive: true);
        return free is null;
    }

    public override void Rehearse()
    {
        _rehearsing = true;
        int errno = Close();
        if (errno == 0) errno = Open();
        _rehearsing = false;
        if (errno != 0) throw Failure;
        _ = Tally();
    }

    public override int Close()
    {
        _closedAt = Stopwatch.GetTimestamp();
        _openedAt = 0;
        int errno = (_rehearsing ? _open : _close).Run(_route.Fd);
        if (errno == 0) return 0;
        _errno = errno;
        _attempt = "close";
        _ = OpenAll();
        return errno;
    }

    public override int Open()
    {
        int errno = OpenAll();
        if (_openedAt == 0) _openedAt = Stopwatch.GetTimestamp();
        if (errno == 0) return 0;
        _errno = errno;
        _attempt = "open";
        return errno;
    }

    private int OpenAll()
    {
        int errno = _open.Run(_route.Fd);
        // The ifb is gone: what is led to it is lost, so that nobody is.
        if (errno != 0 && _ifb is not null) _ = _unhook.Run(_netfilter.Fd, rehearse: false);
        return errno;
    }

    public override KernelException Failure => new($"{_attempt} the plug hold of {Scope.Owner}", _errno, _errno == Errno.NoDevice ? $"{_ifb?.Name} is gone" : null);

    public override HoldTally Tally()
    {
        uint dropped = 0;
        foreach (PlugQdisc plug in _plugs) dropped += plug.Read()?.Dropped ?? 0;
        long lost = dropped >= _droppedBefore ? dropped - _droppedBefore : 0;
        _droppedBefore = dropped;
        long held = _open.Queued;
        return new HoldTally(held, held == 0 ? TimeSpan.Zero : Stopwatch.GetElapsedTime(_closedAt, _openedAt), lost);
    }

    public override void Dispose()
    {
        if (_disposed) return;
        _disposed = true;
        try
        {
            if (_plugs.Length > 0) _ = OpenAll();
            try
            {
                if (_ifb is not null) PlugLeftovers.Remove(_route, _nft, _ifb, Scope.Owner);
            }
            finally
            {
                _lanes?.Dispose();
            }
        }
        finally
        {
            _shared?.Dispose();
            try
            {
                if (_ifb is not null || _lanes is not null) PlugLeftovers.RemoveTablesIfLast(_nft);
            }
            catch (KernelException)
            {
                // Empty tables hold nobody; the next hold's end, or a reset, takes them away.
            }
            _owner.Dispose();
            _nft.Dispose();
            _forced.Dispose();
            _netfilter.Dispose();
            _route.Dispose();
        }
    }

    /// <summary>How many wait, and their release.</summary>
    private sealed class OpenMessage(IEnumerable<byte[]> messages) : PreparedMessage(messages)
    {
        private uint _queued;

        /// <summary>In all plugs, at the last run.</summary>
        internal uint Queued => _queued;

        internal override int Run(int socket)
        {
            _queued = 0;
            return base.Run(socket);
        }

        protected override void Answered(int index, ushort type, ReadOnlySpan<byte> payload)
        {
            if (type == RouteNetlink.NewQdisc) _queued += RouteNetlink.ReadStatistics(payload).Queued;
        }
    }
}
