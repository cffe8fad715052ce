using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Linux.State;

namespace FlipController.Daemon;

/// <summary>What is different between a pair of HAProxys and a pair of any other service; all the rest is the same for both.</summary>
internal abstract class Driver(PairEdge edge)
{
    protected PairEdge Edge => edge;

    /// <summary>The program of a flip, and as a generation has it written down.</summary>
    /// <param name="chosen">By an operator; it counts until the configuration names another program.</param>
    public abstract string BinaryOf(ChosenBinary? chosen);

    /// <summary>What an operator's <c>--binary</c> means; null: nothing was asked for.</summary>
    /// <exception cref="UsageException">It means nothing here.</exception>
    public abstract ChosenBinary? Choose(string? binary);

    /// <summary>What the program says it is; null: nobody asks it.</summary>
    public abstract Task<string?> VersionAsync(string binary, CancellationToken stop);

    /// <param name="taken">Ports of the slot's block that somebody has already.</param>
    public abstract Task<RenderedConfiguration> RenderAsync(
        string binary, Snapshot snapshot, GenerationPlace place, Slot slot, IReadOnlySet<int> taken, CancellationToken stop);

    public abstract Instance InstanceOf(string binary, RenderedConfiguration rendered, GenerationPlace place, Slot slot, Snapshot snapshot);

    /// <summary>Null: it has no admin socket, and what only that tells nobody knows.</summary>
    public abstract AdminSocket? AdminOf(Generation generation, TimeSpan? patience = null);

    /// <summary>It finishes what is open by itself once it is told to; else it is left alone until nobody is connected, and then ended.</summary>
    public abstract bool StopsSoftly { get; }

    /// <summary>Has it stop listening and finish what is open, where it can.</summary>
    /// <param name="generation">Null: nobody knows more than that the process is of this pair.</param>
    /// <exception cref="FlipException">It could not be told.</exception>
    public abstract Task TellToStopAsync(ProcessIdentity process, Generation? generation, CancellationToken stop);

    /// <summary>Its process is gone; what it may have left is ended.</summary>
    public abstract Task EndRemainsAsync(Generation generation, CancellationToken stop);

    /// <summary>Why no generation could be started now, whatever is in its files; null: nothing is known that stands in the way.</summary>
    public virtual Task<string?> ObstacleAsync(int number, CancellationToken stop) => Task.FromResult<string?>(null);

    /// <summary>The unit that runs a generation; null: none does.</summary>
    public virtual string? UnitOf(int number) => null;

    /// <summary>A generation without traffic was ended, or never came to a process: who starts it forgets it. Nothing there is fine.</summary>
    /// <exception cref="FlipException">It could not be told to.</exception>
    public virtual Task ClearAsync(int number, CancellationToken stop) => Task.CompletedTask;

    /// <summary>What it said last, of one that is dead; null: that is told elsewhere.</summary>
    public abstract string? LastWords(Generation generation);

    protected ImmutableSortedDictionary<string, string> Variables(Snapshot snapshot) =>
        HostSurroundings.Variables(edge.Options.Server, (snapshot.EnvironmentFiles ?? []).Select(f => f.Content));
}
