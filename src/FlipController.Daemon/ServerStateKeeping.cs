using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Haproxy.Runtime;

namespace FlipController.Daemon;

/// <summary>
/// Keeps the state of the servers of whoever has the traffic, where the configuration loads one: every minute, when a gate is passed,
/// before the generation is retired, and when the daemon lets go. It serves a start when nothing lives, as after a reboot.
/// </summary>
internal sealed class ServerStateKeeping(PairEdge edge, Func<PairState> state)
{
    private static readonly TimeSpan s_pause = TimeSpan.FromMinutes(1), s_patience = TimeSpan.FromSeconds(2);
    private readonly SavedServerState _saved = new(edge.Store.ServerStatePath);

    /// <summary>Between writing a generation's files and starting it.</summary>
    public async Task FillAsync(IReadOnlyCollection<(string Path, string? Backend)> files, Generation? active, CancellationToken stop)
    {
        if (files.Count == 0) return;
        ServerStateSource source = await _saved.FillAsync(files, active is null ? null : edge.AdminOf(active), stop);
        edge.Log.LogInformation(new EventId(153, "ServerState"),
            "pair {Pair}: its servers begin with the state {Source}", edge.Name, source switch
        {
            ServerStateSource.Active => $"that {active} knows",
            ServerStateSource.Saved => "saved last",
            ServerStateSource.User => "of the user's own file",
        });
    }

    public async Task RunAsync(CancellationToken stop)
    {
        while (true)
        {
            await Task.Delay(s_pause, edge.Time, stop);
            if (state().Phase is Steady) await SaveAsync(state().Active, stop);
        }
    }

    /// <summary>Its failure keeps nothing from going on: the one saved before stays.</summary>
    public async Task SaveAsync(Generation? generation, CancellationToken stop)
    {
        if (generation is null || edge.AdminOf(generation, s_patience) is not { } admin || !SavedServerState.IsLoadedBy(edge.PlaceOf(generation.Number))) return;
        try
        {
            await _saved.SaveAsync(admin, stop);
        }
        catch (Exception e) when (e is FlipException or IOException or UnauthorizedAccessException)
        {
            edge.Log.LogDebug("pair {Pair}: the state of the servers of {Generation} is not saved: {Why}",
                edge.Name, generation, e.Message);
        }
    }
}
