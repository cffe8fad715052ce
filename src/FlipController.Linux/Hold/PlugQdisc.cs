using System.Runtime.InteropServices;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Hold;

/// <summary>
/// One plug qdisc: net/sched/sch_plug.c. Closed, it keeps what reaches it, in order, up to a limit; open, it is a FIFO.
/// Whether it is open cannot be read from the kernel: it says only how much waits.
/// <code>
///   Buffer --&gt; packets ... Buffer --&gt; packets ...        two epochs wait
///   ReleaseOne                                          the first epoch goes, the second waits
///   ReleaseIndefinite                                   all go, and whatever comes afterwards
/// </code>
/// </summary>
internal sealed class PlugQdisc(RouteNetlink route, Link device, TcHandle parent, TcHandle handle)
{
    internal const string Kind = "plug";
    internal const string Module = "sch_plug";

    internal Link Device { get; } = device;
    internal TcHandle Parent { get; } = parent;
    internal TcHandle Handle { get; } = handle;

    private string Place => $"plug {(Handle == TcHandle.None ? "" : $"{Handle} ")}{(Parent == TcHandle.Root ? "at the root" : $"below {Parent}")} of {Device.Name}";

    /// <summary>
    /// Makes it, open: the kernel makes it closed, whatever it is told, so that it is opened in the same write.
    /// Equivalent to: <c>tc qdisc add dev D root handle H plug limit N; tc qdisc change dev D root handle H plug release_indefinite</c>.
    /// </summary>
    /// <param name="limitBytes">Without one the kernel takes the device's queue length, which for many is 0 and drops everything.</param>
    /// <exception cref="FlipException">Nothing was made.</exception>
    internal void Attach(uint limitBytes, bool replace = false)
    {
        try
        {
            byte[] limit = Option(Action.Limit, limitBytes);
            route.Request($"add {Place}",
                replace ? RouteNetlink.ReplaceQdisc(Device.Index, Parent, Handle, Kind, limit)
                    : RouteNetlink.AddQdisc(Device.Index, Parent, Handle, Kind, limit),
                RouteNetlink.ChangeQdisc(Device.Index, Parent, Handle, Kind, Option(Action.ReleaseIndefinite)));
        }
        catch (KernelException e) when (e.Errno == Errno.NoEntry)
        {
            throw new FlipException($"{e.Message}; nothing is held; the kernel has no plug qdisc: load it (modprobe {Module}), or hold with a queue", e);
        }
    }

    /// <summary>At most so many bytes wait; what comes then is dropped. Equivalent to: <c>tc qdisc change ... plug limit N</c>.</summary>
    internal void Limit(uint bytes) => Change("limit", Action.Limit, bytes);

    /// <summary>From now on packets wait. Closed already: a new epoch begins. Equivalent to: <c>tc qdisc change ... plug block</c>.</summary>
    internal void Buffer() => Change("close", Action.Buffer);

    /// <summary>What waited before the last <see cref="Buffer"/> goes. Equivalent to: <c>tc qdisc change ... plug release</c>.</summary>
    internal void ReleaseOne() => Change("release one epoch of", Action.ReleaseOne);

    /// <summary>All goes, and nothing waits any more. Equivalent to: <c>tc qdisc change ... plug release_indefinite</c>.</summary>
    internal void ReleaseIndefinite() => Change("open", Action.ReleaseIndefinite);

    /// <summary>What still waits is lost: open it before. Equivalent to: <c>tc qdisc delete dev D root handle H</c>.</summary>
    internal void Detach() => route.DeleteQdisc($"remove {Place}", Device.Index, Parent, Handle);

    /// <summary>
    /// Opened, it empties in a softirq, which on a busy processor comes later: what takes it away must wait, or what is in it is lost.
    /// At most half a second: then somebody has closed it again.
    /// </summary>
    internal void AwaitEmpty()
    {
        for (int i = 0; i < 500 && Read() is { Queued: > 0 }; i++) Thread.Sleep(1);
    }

    /// <summary>Equivalent to: <c>tc -s qdisc show dev D</c>; null when there is no such plug.</summary>
    internal QdiscStatistics? Read() => Find(route, Device, Parent, Handle)?.Statistics;

    internal static Qdisc? Find(RouteNetlink route, Link device, TcHandle parent, TcHandle handle) => route.Qdiscs(device.Index)
        .FirstOrDefault(q => q.Kind == Kind && q.Parent == parent && (handle == TcHandle.None || q.Handle == handle));

    /// <summary>Whole messages, for a <see cref="PreparedMessage"/>.</summary>
    internal byte[] CloseMessage => ChangeMessage(Action.Buffer);

    internal byte[] OpenMessage => ChangeMessage(Action.ReleaseIndefinite);

    internal byte[] ReadMessage => RouteNetlink.ReadQdisc(Device.Index, Parent, Handle).Bytes.ToArray();

    private byte[] ChangeMessage(Action action) =>
        RouteNetlink.ChangeQdisc(Device.Index, Parent, Handle, Kind, Option(action)).Bytes.ToArray();

    private void Change(string verb, Action action, uint limit = 0) =>
        route.Request($"{verb} {Place}", RouteNetlink.ChangeQdisc(Device.Index, Parent, Handle, Kind, Option(action, limit)));

    internal static byte[] Option(Action action, uint limitBytes = 0)
    {
        byte[] option = new byte[8]; // struct tc_plug_qopt { int action; __u32 limit; }, without any attribute around it
        MemoryMarshal.Write(option, (int)action);
        MemoryMarshal.Write(option.AsSpan(4), limitBytes);
        return option;
    }

    internal enum Action // include/uapi/linux/pkt_sched.h
    {
        Buffer = 0, // TCQ_PLUG_BUFFER
        ReleaseOne = 1, // TCQ_PLUG_RELEASE_ONE
        ReleaseIndefinite = 2, // TCQ_PLUG_RELEASE_INDEFINITE
        Limit = 3, // TCQ_PLUG_LIMIT
    }
}
