using System.Collections.Immutable;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Linux.State;

namespace FlipController.Linux.Haproxy;

/// <summary>One HAProxy process: started as a daemon so that it outlives the controller, at the lowest priority until it is up.</summary>
public record HaproxyInstance(string Binary, RenderedConfiguration Configuration, GenerationPlace Place, string WorkingDirectory)
    : Instance(Configuration, Place, WorkingDirectory)
{
    public override string Called => "HAProxy";

    public override void WriteFiles()
    {
        base.WriteFiles();
        if (!Configuration.OwnSockets.IsEmpty)
            AtomicFile.Write(Place.SocketList, Encoding.UTF8.GetBytes(string.Join('\0', Configuration.OwnSockets)));
        // What the active one knows of its servers is better; until somebody puts that there, the user's own is what there is.
        foreach (ServerStateFile state in Configuration.ServerStateFiles) state.Provide(WorkingDirectory);
    }

    public override async Task<string?> CheckAsync(CancellationToken stop) => Rejection(await HaproxyAnswerAsync(stop));

    protected Task<HaproxyCheck> HaproxyAnswerAsync(CancellationToken stop) => HaproxyBinary.CheckAsync(
        Binary, Configuration.Files.Select(f => f.Path), Configuration.LocalPeer, WorkingDirectory, Environment, stop);

    protected string? Rejection(HaproxyCheck check) => check.Verdict == HaproxyVerdict.Valid ? null : Told(Configuration.Explain(check.Output));

    /// <summary>
    /// Starts it. With -D HAProxy returns when its child has bound every listener, and says nothing after that: what it said until
    /// then is kept in start.log.
    /// </summary>
    public override async Task<ProcessIdentity> StartAsync(CancellationToken stop)
    {
        var command = new ChildProcess(Binary,
            ["-D", "-p", Place.PidFile, .. Configuration.LocalPeerOption, .. Configuration.Files.SelectMany(f => new[] { "-f", f.Path })])
        {
            WorkingDirectory = WorkingDirectory, Polite = true, Timeout = StartTimeout, Environment = Environment,
            Beside = ChildEnvironment.Inherited,
        };
        ChildOutcome outcome = await command.RunAsync(stop);
        string said = Configuration.Explain(outcome.Output);
        AtomicFile.Write(Place.StartLog, Encoding.UTF8.GetBytes(said));
        if (outcome.ExitCode != 0) throw new FlipException($"HAProxy does not start (exit code {outcome.ExitCode}): {Told(said)}");
        return (PidIn(Place.PidFile) is { } pid ? ProcessIdentity.Read(pid) : null)
            ?? throw new FlipException($"HAProxy ended right after it had started; it said: {Told(said)}");
    }
}
