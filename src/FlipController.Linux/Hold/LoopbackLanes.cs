using System.Collections.Immutable;
using System.Globalization;
using System.Runtime.InteropServices;
using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;

namespace FlipController.Linux.Hold;

/// <summary>
/// A plug lane beside the ordinary ones on lo, for this host's connections to itself: Yelp's layout, for the SYNs alone.
/// <code>
///   output: SYN to a front port, out by lo --&gt; mark | bit
///                          |
///                 lo, root: prio 4601:
///      .---------.---------+-------------.
///      |         |         |             |  fw: mark &amp; bit
///   4601:1    4601:2    4601:3        4601:4
///   by priority, as everybody         plug 4602:
///   is used to (pfifo_fast)              |
///      '---------'---------+-------------'
///                          |
///   prerouting: the bit is taken off again
/// </code>
/// Two things to know. NAT has been decided before lo (output comes first), so that what waits here goes where it would have gone. And
/// putting a root qdisc on lo, or taking it off, loses what is sent over lo for an RCU grace period (<see cref="PlugIngress"/>): a plug
/// hold uses lo's ingress unless it is told to use lanes.
/// </summary>
internal sealed class LoopbackLanes : IDisposable
{
    internal const string Table = "flipcontroller-lanes";
    private const string Prio = "prio", LastingNothing = "noqueue";
    private const ushort Preference = 1;

    private static readonly TcHandle Root = new(0x4601, 0), Lane = new(0x4601, 4), PlugHandle = new(0x4602, 0);

    private readonly RouteNetlink _route;
    private readonly NftLibrary _nft;
    private readonly Link _lo;
    private readonly HoldLock? _lock;
    private bool _made;

    private LoopbackLanes(RouteNetlink route, NftLibrary nft, Link lo, HoldLock? held)
    {
        (_route, _nft, _lo, _lock) = (route, nft, lo, held);
        Plug = new PlugQdisc(route, lo, Lane, PlugHandle);
    }

    internal PlugQdisc Plug { get; }

    /// <summary>Locked by whoever has lanes: lo has one root.</summary>
    private static string LockPath => HoldLock.PathOf("lo.lanes"); // no owner has a dot

    /// <exception cref="FlipException">lo is as it was.</exception>
    internal static LoopbackLanes Prepare(RouteNetlink route, NftLibrary nft, ImmutableArray<int> ports, uint markBit, uint limitBytes)
    {
        HoldLock held = HoldLock.TryTake(LockPath, exclusive: true)
            ?? throw new FlipException("cannot make lanes on lo: another hold has them; nothing is held; wait until it has ended");
        Link? lo = route.Links().FirstOrDefault(l => l.IsLoopback);
        LoopbackLanes? lanes = null;
        try
        {
            if (lo is null) throw new FlipException("cannot make lanes on lo: there is no lo; nothing is held");
            lanes = new LoopbackLanes(route, nft, lo, held);
            if (lanes.RootOfOurs() is not null) lanes.TakeDown(); // whoever made them is gone: the lock was free
            if (route.Qdiscs(lo.Index).FirstOrDefault(q => q.Parent == TcHandle.Root && q.Kind != LastingNothing) is { } foreign)
                throw new FlipException($"cannot make lanes on lo: it has a root qdisc of its own ({foreign.Kind} {foreign.Handle}), which stays; "
                    + "nothing is held; hold local clients at lo's ingress instead, which is the default");
            lanes.Make(ports, markBit, limitBytes);
            return lanes;
        }
        catch
        {
            lanes?.Dispose();
            held.Dispose();
            throw;
        }
    }

    private void Make(ImmutableArray<int> ports, uint markBit, uint limitBytes)
    {
        byte[] bands = new byte[20]; // struct tc_prio_qopt { int bands; __u8 priomap[16]; }
        MemoryMarshal.Write(bands, 4);
        ReadOnlySpan<byte> asEverybody = [1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]; // TCQ_PRIO's own default, of three bands
        asEverybody.CopyTo(bands.AsSpan(4));
        _made = true;
        Needing("sch_prio", () => _route.AddQdisc($"add {Prio} {Root} at the root of lo", _lo.Index, TcHandle.Root, Root, Prio, bands));
        Plug.Attach(limitBytes);
        Needing("cls_fw", () => _route.AddFwFilter($"add a filter by mark to {Root} of lo", _lo.Index, Root, Preference, markBit, markBit, Lane));
        const string operation = "mark opening SYNs on lo";
        _nft.Run(operation, Base); // by itself: see PlugIngress.Add
        _nft.Run(operation, Text(ports, markBit));
    }

    private const string Base = $$"""
        add table inet {{Table}}
        add chain inet {{Table}} output { type filter hook output priority 300; }
        add chain inet {{Table}} prerouting { type filter hook prerouting priority -301; }

        """;

    internal static string Text(ImmutableArray<int> ports, uint markBit) => string.Create(CultureInfo.InvariantCulture, $$"""
        flush table inet {{Table}}
        add rule inet {{Table}} output oifname "lo" {{NftRuleset.OpeningSyn}} tcp dport { {{string.Join(", ", ports)}} } meta mark set meta mark | 0x{{markBit:x8}}
        add rule inet {{Table}} prerouting iifname "lo" meta mark & 0x{{markBit:x8}} != 0 meta mark set meta mark & 0x{{~markBit:x8}}

        """);

    private static void Needing(string module, Action add)
    {
        try
        {
            add();
        }
        catch (KernelException e) when (e.Errno == Errno.NoEntry)
        {
            throw new FlipException($"{e.Message}; nothing is held; load the kernel's module (modprobe {module})", e);
        }
    }

    private Qdisc? RootOfOurs() => _route.Qdiscs(_lo.Index).FirstOrDefault(q => (q.Parent, q.Handle, q.Kind) == (TcHandle.Root, Root, Prio));

    /// <summary>Opens it, unmarks, and lo is as the kernel made it. Its base chains stay, empty: <see cref="PlugIngress.Remove"/>.</summary>
    private void TakeDown()
    {
        try
        {
            Plug.ReleaseIndefinite();
        }
        catch (KernelException)
        {
            // No plug in it: nobody waits.
        }
        try
        {
            _nft.Run("mark nothing on lo any more", $"flush table inet {Table}\n");
        }
        catch (KernelException e) when (e.Errno == Errno.NoEntry)
        {
            // Never made.
        }
        if (RootOfOurs() is null) return;
        Plug.AwaitEmpty();
        _route.DeleteQdisc($"remove {Prio} {Root} from lo", _lo.Index, TcHandle.Root, Root);
    }

    /// <summary>Lanes whose owner is gone: opened, then removed. False: there are none, or their owner lives.</summary>
    internal static bool RemoveLeftover(RouteNetlink route, NftLibrary nft, bool all)
    {
        if (route.Links().FirstOrDefault(l => l.IsLoopback) is not { } lo) return false;
        using HoldLock? held = HoldLock.TryTake(LockPath, exclusive: true);
        if (held is null && !all) return false;
        var lanes = new LoopbackLanes(route, nft, lo, null);
        if (lanes.RootOfOurs() is null) return false;
        lanes.TakeDown();
        return true;
    }

    public void Dispose()
    {
        if (_made) TakeDown();
        _made = false;
        _lock?.Dispose();
    }
}
