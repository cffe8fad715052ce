using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Hold;

/// <param name="Place">root, or the class it stands below.</param>
/// <param name="Packets">Wait in it now.</param>
/// <param name="Dropped">Packets that found no room, since it was attached.</param>
public sealed record PlugState(string Device, string Place, string Handle, long Packets, long Bytes, long Dropped);

/// <summary>The plugs of one device, by hand: for <c>flipctl plug</c>. In the network namespace of the calling thread.</summary>
public sealed class PlugOnDevice : IDisposable
{
    public const uint DefaultLimitBytes = 1 << 20;

    private readonly RouteNetlink _route = new();
    private readonly Link _device;
    private readonly TcHandle _parent;

    private PlugOnDevice(string device, string? parent)
    {
        try
        {
            _device = _route.Links().FirstOrDefault(l => l.Name == device)
                ?? throw new FlipException($"there is no device {device}; nothing was changed; `ip link` lists those there are");
            _parent = parent is null ? TcHandle.Root : TcHandle.Parse(parent) ?? throw new FormatException($"\"{parent}\" is no class");
        }
        catch
        {
            _route.Dispose();
            throw;
        }
    }

    /// <param name="parent">The class it stands below, as 40:3; null: it is the device's root.</param>
    /// <exception cref="FlipException">No such device.</exception>
    public static PlugOnDevice Open(string device, string? parent) => new(device, parent);

    /// <summary>tc's way to write a class: 40:3.</summary>
    public static bool IsClass(string text) => TcHandle.Parse(text) is { } handle && handle != TcHandle.Root && (handle.Value & 0xffff) != 0;

    public void Dispose() => _route.Dispose();

    public ImmutableArray<PlugState> States =>
        [.. _route.Qdiscs(_device.Index).Where(q => q.Kind == PlugQdisc.Kind).Select(State)];

    /// <summary>At this place, or null.</summary>
    public PlugState? Here => Found is { } qdisc ? State(qdisc) : null;

    /// <summary>Somebody's qdisc that stands here, as <c>htb 7:</c>; null: none, or only what the kernel puts there by itself.</summary>
    public string? Occupant => _route.Qdiscs(_device.Index).FirstOrDefault(q => q.Parent == _parent && q.Handle != TcHandle.None) is { } qdisc
        ? $"{qdisc.Kind} {qdisc.Handle}" : null;

    public string Place => _parent == TcHandle.Root ? $"at the root of {_device.Name}" : $"below {_parent} of {_device.Name}";

    /// <summary>Open. Whatever stands here goes, and with it what waits there.</summary>
    public void Attach(uint limitBytes)
    {
        // A number nobody has yet: 4600:, or the next that is free.
        HashSet<uint> taken = [.. _route.Qdiscs(_device.Index).Select(q => q.Handle.Value)];
        ushort major = 0x4600;
        while (taken.Contains(new TcHandle(major, 0).Value)) major++;
        new PlugQdisc(_route, _device, _parent, new TcHandle(major, 0)).Attach(limitBytes, replace: Occupant is not null);
    }

    public void Limit(uint bytes) => Plug.Limit(bytes);

    public void Buffer() => Plug.Buffer();

    public void ReleaseOne() => Plug.ReleaseOne();

    public void Release() => Plug.ReleaseIndefinite();

    /// <summary>Opens it before: nothing that waits is lost.</summary>
    public void Detach()
    {
        PlugQdisc plug = Plug;
        plug.ReleaseIndefinite();
        plug.AwaitEmpty();
        plug.Detach();
    }

    private Qdisc? Found => PlugQdisc.Find(_route, _device, _parent, TcHandle.None);

    private PlugQdisc Plug => new(_route, _device, _parent, Found?.Handle ?? TcHandle.None);

    private PlugState State(Qdisc q) => new(_device.Name, q.Parent.ToString(), q.Handle.ToString(), q.Statistics.Queued, q.Statistics.Backlog, q.Statistics.Dropped);
}
