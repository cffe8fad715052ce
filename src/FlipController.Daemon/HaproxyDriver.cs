using System.Net;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Linux.State;

namespace FlipController.Daemon;

/// <summary>A pair of HAProxys.</summary>
internal class HaproxyDriver(PairEdge edge) : Driver(edge)
{
    // SIGUSR1: HAProxy's management.txt, 4.
    private const int SoftStop = 10;

    private HaproxyOptions Options => Edge.Options.Haproxy!;

    public override string BinaryOf(ChosenBinary? chosen) => chosen is not null && chosen.InsteadOf == Options.Binary ? chosen.Path : Options.Binary;

    public override ChosenBinary? Choose(string? binary) => binary is null ? null : new ChosenBinary(binary, Options.Binary);

    public override async Task<string?> VersionAsync(string binary, CancellationToken stop) => (await HaproxyBinary.BuildAsync(binary, stop)).Version.Text;

    public override async Task<RenderedConfiguration> RenderAsync(
        string binary, Snapshot snapshot, GenerationPlace place, Slot slot, IReadOnlySet<int> taken, CancellationToken stop)
    {
        HaproxySurroundings surroundings = await HostSurroundings.OfAsync(binary, Variables(snapshot), stop);
        ProjectionResult result = Projection.Render(
            [.. snapshot.Files.Select(f => new SourceFile(f.Path, f.Content))],
            new SlotPlace(
                place.Directory, place.AdminSocket, Edge.BlockOf(slot), taken, Options.LocalPeer ?? Dns.GetHostName(), Tables(place.Number),
                Edge.Options.Redirect.Method == RedirectMethod.Listener),
            surroundings);
        return result.Configuration
            ?? throw new FlipException(string.Join(" | ", result.Faults.Select(f => $"{f.File}:{f.Line}: {f.Message}")));
    }

    private TablePeer? Tables(int number) => Edge.Options.Continuity.StickTables == StickTablesRule.Shared
        ? TablePeer.Free(Edge.Name, Edge.Store.PeersKey(), number)
        : null;

    public override Instance InstanceOf(string binary, RenderedConfiguration rendered, GenerationPlace place, Slot slot, Snapshot snapshot) =>
        new HaproxyInstance(binary, rendered, place, Path.GetDirectoryName(snapshot.Files[0].Path)!) { Environment = Variables(snapshot) };

    public override AdminSocket AdminOf(Generation generation, TimeSpan? patience = null)
    {
        string path = Edge.PlaceOf(generation.Number).AdminSocket;
        return patience is { } bound ? new AdminSocket(path, bound) : new AdminSocket(path);
    }

    public override bool StopsSoftly => true;

    public override Task TellToStopAsync(ProcessIdentity process, Generation? generation, CancellationToken stop)
    {
        process.Signal(SoftStop);
        return Task.CompletedTask;
    }

    public override Task EndRemainsAsync(Generation generation, CancellationToken stop) => Task.CompletedTask;

    public override string? LastWords(Generation generation) => null;
}
