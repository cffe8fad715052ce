using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Linux.State;
using FlipController.Linux.Units;

namespace FlipController.Daemon;

/// <summary>
/// A pair of HAProxys that systemd starts, each as a unit. That is all it does: they are proven, told to stop and ended as the
/// others are, and systemd learns of it when the process ends.
/// </summary>
internal sealed class SystemdDriver(PairEdge edge) : HaproxyDriver(edge)
{
    public override Instance InstanceOf(string binary, RenderedConfiguration rendered, GenerationPlace place, Slot slot, Snapshot snapshot) =>
        new UnitInstance(binary, rendered, place, Path.GetDirectoryName(snapshot.Files[0].Path)!) { Environment = Variables(snapshot) };

    public override string UnitOf(int number) => Unit(number).Name;

    private GenerationUnit Unit(int number) => new(Edge.PlaceOf(number), new Systemctl());

    public override async Task<string?> ObstacleAsync(int number, CancellationToken stop)
    {
        try
        {
            GenerationUnit unit = Unit(number);
            return (await unit.AskedAsync(stop)).Obstacles(unit.Place) is { IsEmpty: false } obstacles ? string.Join("; ", obstacles) : null;
        }
        catch (FlipException e)
        {
            return e.Message;
        }
    }

    /// <summary>Whatever is in the cgroup with a HAProxy that died, and that it failed.</summary>
    public override async Task EndRemainsAsync(Generation generation, CancellationToken stop)
    {
        if (ProcessIdentity.Of(generation).IsAlive) return; // systemd would end it
        try
        {
            await ClearAsync(generation.Number, stop);
        }
        catch (FlipException e)
        {
            Edge.Log.LogWarning(new EventId(171, "UnitStays"), "pair {Pair}: {Unit} of {Generation}, which is gone, may stay as failed: {Why}; `systemctl reset-failed` forgets it",
                Edge.Name, UnitOf(generation.Number), generation, e.Message);
        }
    }

    public override Task ClearAsync(int number, CancellationToken stop) => Unit(number).ClearAsync(stop);
}
