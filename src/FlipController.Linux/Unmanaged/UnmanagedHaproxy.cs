using System.Collections.Immutable;
using System.Text.Json.Serialization;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Unmanaged;

/// <summary>
/// A HAProxy that this daemon did not start, as it was found: enough to tell it to stop and to start it again later. To be kept on
/// disk; the environment may hold secrets.
/// </summary>
/// <param name="Main">The master of a master-worker; else the process itself.</param>
/// <param name="Listening">The processes that hold the front addresses' listeners: the worker, or <paramref name="Main"/> itself.</param>
/// <param name="Unit">systemd's service whose main process this is; null: it is none's.</param>
/// <param name="Arguments">As in /proc/PID/cmdline, without the program: also what a reload put there.</param>
/// <param name="Environment">NAME=VALUE, without what HAProxy and systemd put there for themselves.</param>
/// <param name="Uid">The user it runs as.</param>
/// <param name="OwnRoot">Its root is another one than this daemon's: it runs in a container.</param>
public sealed record UnmanagedHaproxy(
    ProcessIdentity Main, ImmutableArray<ProcessIdentity> Listening, string? Unit, string Executable, ImmutableArray<string> Arguments,
    string WorkingDirectory, ImmutableArray<string> Environment, uint Uid, bool OwnRoot)
{
    [JsonIgnore]
    public bool IsMasterWorker => !Listening.Contains(Main);

    /// <summary>The same process, or the same program with the same command line, whatever reload it comes from.</summary>
    public bool IsLike(UnmanagedHaproxy other) => Main == other.Main || (Executable == other.Executable
        && StartArguments.Check(Arguments).SequenceEqual(StartArguments.Check(other.Arguments)));

    /// <summary>Everything that a person needs to find it.</summary>
    public override string ToString() => $"HAProxy (process {Main.Pid}{(Unit is null ? "" : $", {Unit}")})";
}

/// <summary>Connections of one process on one front port.</summary>
public sealed record HeldConnections(int Pid, int Port, int Count);
