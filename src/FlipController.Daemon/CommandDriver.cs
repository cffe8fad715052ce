using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux;
using FlipController.Linux.Commands;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Linux.State;

namespace FlipController.Daemon;

/// <summary>A pair of any other service: what its <c>command</c> section says is run.</summary>
/// <param name="options">Without any for a pair that runs HAProxy now: what runs still is ended when nobody is connected.</param>
internal sealed class CommandDriver(PairEdge edge, CommandOptions options) : Driver(edge)
{
    private const int Kill = 9; // SIGKILL: signal(7)

    public override string BinaryOf(ChosenBinary? chosen) => options.Start[0];

    public override ChosenBinary? Choose(string? binary) => binary is null ? null
        : throw new UsageException($"pair {Edge.Name}: --binary chooses an HAProxy, and this pair runs {options.Start[0]} (pairs.{Edge.Name}.command.start); nothing was done");

    public override Task<string?> VersionAsync(string binary, CancellationToken stop) => Task.FromResult<string?>(null);

    public override Task<RenderedConfiguration> RenderAsync(
        string binary, Snapshot snapshot, GenerationPlace place, Slot slot, IReadOnlySet<int> taken, CancellationToken stop) =>
        Task.FromResult(CommandCopy.Render(Edge.Options, snapshot, place, slot, Edge.BlockOf(slot), taken));

    public override CommandInstance InstanceOf(string binary, RenderedConfiguration rendered, GenerationPlace place, Slot slot, Snapshot snapshot) =>
        new(options, new CommandWords(Edge.Options, place, slot, rendered.Services), rendered, place, snapshot.Files is [var first, ..] ? Path.GetDirectoryName(first.Path)! : "/")
        {
            Environment = Variables(snapshot),
        };

    /// <summary>A generation that runs, with the copies and the variables it was started with.</summary>
    private CommandInstance InstanceOf(Generation generation) =>
        InstanceOf(generation, Edge.Store.ReadSnapshot(generation.Number) ?? new Snapshot([], generation.ConfigSha256, generation.ContentSha256));

    private CommandInstance InstanceOf(Generation generation, Snapshot snapshot)
    {
        GenerationPlace place = Edge.PlaceOf(generation.Number);
        var words = new CommandWords(Edge.Options, place, generation);
        // What is said of a copy is told of the file it was made from; what is in it matters no more.
        var rendered = new RenderedConfiguration([.. options.Config.Select(f => new RenderedFile(words.CopyOf(f), f, [], []))], generation.Ports, null);
        return InstanceOf(generation.Binary ?? "", rendered, place, generation.Slot, snapshot);
    }

    public override AdminSocket? AdminOf(Generation generation, TimeSpan? patience = null) => null;

    public override bool StopsSoftly => options is { Stop.IsEmpty: false } or { StopSignal: not null };

    public override async Task TellToStopAsync(ProcessIdentity process, Generation? generation, CancellationToken stop)
    {
        if (options.StopSignal is { } signal) process.Signal((int)signal);
        else if (!options.Stop.IsEmpty && generation is not null) await InstanceOf(generation).Command(options.Stop).SucceedAsync(stop);
    }

    /// <summary>Workers whose master died do not all end by themselves, and would keep the private ports.</summary>
    public override Task EndRemainsAsync(Generation generation, CancellationToken stop)
    {
        EndRemains(generation);
        return Task.CompletedTask;
    }

    private void EndRemains(Generation generation)
    {
        CommandInstance.Reap();
        ProcessIdentity gone = ProcessIdentity.Of(generation);
        if (gone.IsAlive || generation.Ports.IsEmpty) return;
        using var sockets = new SockDiag();
        foreach (ProcessIdentity left in ProcessFamily.Survivors(gone))
        {
            // A session's number alone is no proof: it could be that of another one, led by somebody who got the pid later.
            HashSet<uint> inodes = ProcessSockets.Inodes(left.Pid);
            if (!sockets.Sockets(TcpStates.Live | TcpStates.Listen, PairEdge.SpanOf(generation)).Any(s => inodes.Contains(s.Inode) && PairEdge.Owns(generation, s.Local.Port))) continue;
            Edge.Log.LogWarning("pair {Pair}: {Left}, which {Generation} left behind, is ended", Edge.Name, left, generation);
            left.Signal(Kill);
        }
    }

    /// <summary>Has it read again what <c>also_watch</c> names, once <c>check</c> says that it can.</summary>
    /// <returns>Why not; null: it was told to.</returns>
    public async Task<string?> ReloadAsync(Generation generation, CancellationToken stop)
    {
        CommandInstance instance = InstanceOf(generation);
        try
        {
            if (await instance.CheckAsync(stop) is { } rejected) return $"{instance.Called} rejects the configuration: {rejected}";
            await instance.Command(options.Reload).SucceedAsync(stop);
            return null;
        }
        catch (FlipException e)
        {
            return e.Message;
        }
    }

    public override string? LastWords(Generation generation) =>
        InstanceOf(generation, new Snapshot([], generation.ConfigSha256, generation.ContentSha256)).LastWords();
}
