using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux.State;
using FlipController.Linux.Unmanaged;

namespace FlipController.Daemon;

/// <summary>
/// The unmanaged HAProxy behind a pair: the one NEW connections were taken over from, and to which they can be given back. What is
/// meant with it is on disk before it is done, so that everything here can be said again after a controller that was killed.
/// </summary>
internal sealed class Fallback(PairEdge edge, Func<PairState> state)
{
    private readonly SemaphoreSlim _oneAtATime = new(1);
    private readonly Systemd _systemd = new();

    /// <summary>Who listens on the front addresses is written down as what NEW connections are taken over from.</summary>
    /// <exception cref="RefusedException">Nobody does, or not one HAProxy alone.</exception>
    public async Task FindAsync(ImmutableArray<Service> services, bool stop, CancellationToken cancel)
    {
        UnmanagedFinding finding = await new UnmanagedSearch(_systemd).FindAsync(services, OwnPids(), cancel);
        if (!finding.Refusals.IsEmpty)
            throw new RefusedException($"pair {edge.Name}: cannot adopt: {string.Join(" | ", finding.Refusals)}; nothing was changed.");
        edge.Store.SaveAdoption(new Adoption(finding.Haproxy ?? throw new RefusedException(
            $"pair {edge.Name}: cannot adopt: nobody listens on {string.Join(", ", services)}; nothing was changed. "
            + $"Say `flipctl flip {edge.Name}` to start the pair."), stop, null, services));
    }

    /// <summary>Who listens on these front addresses and may not be taken over from, in sentences.</summary>
    public async Task<ImmutableArray<string>> StrangersAsync(IReadOnlyCollection<Service> services, CancellationToken cancel) =>
        (await new UnmanagedSearch(_systemd).FindAsync(services, OwnPids(), cancel)).Refusals;

    /// <summary>It is to stop listening.</summary>
    public void AskToStop()
    {
        if (edge.Store.ReadAdoption() is { } adoption) edge.Store.SaveAdoption(adoption with { ToldToStop = true });
    }

    /// <summary>It is to serve again, from this unit when one is given: whoever was to stop it does not any more.</summary>
    public void AskToServe(string? unit, ImmutableArray<Service> services)
    {
        Adoption adoption = edge.Store.ReadAdoption() ?? new Adoption(null, false, null, services);
        edge.Store.SaveAdoption(adoption with { ToldToStop = false, Unit = unit ?? adoption.Unit, Services = services });
    }

    /// <summary>Tells the adopted HAProxy to stop listening, if that was asked for.</summary>
    /// <returns>What became of it, in sentences; null: it was not asked for.</returns>
    public async Task<string?> RelieveAsync(CancellationToken stop)
    {
        await _oneAtATime.WaitAsync(stop);
        try
        {
            if (edge.Store.ReadAdoption() is not { ToldToStop: true, Haproxy: { } haproxy } adoption) return null;
            // Nobody must be told to stop while NEW connections may still be its own.
            if (state() is not { IsAdopted: true, Active: { } active } || edge.Redirect.ReadActive(edge.Name) != active.Number) return null;
            StoppedHaproxy stopped = await new UnmanagedStop(_systemd, edge.Time).RunAsync(
                haproxy, adoption.Services, OwnPids(), said => Tell("progress", said), stop);
            string said = Said(haproxy, stopped);
            if (stopped.WasListening)
            {
                edge.Log.LogInformation(new EventId(160, "Relieved"), "pair {Pair}: {Said}", edge.Name, said);
                Tell("unmanaged", said);
            }
            return said;
        }
        finally
        {
            _oneAtATime.Release();
        }
    }

    /// <summary>The same, its failure told instead of thrown: for a time when nobody waits for it.</summary>
    public async Task RelieveUnwaitedAsync(CancellationToken stop)
    {
        try
        {
            await RelieveAsync(stop);
        }
        catch (FlipException e)
        {
            edge.Log.LogWarning(new EventId(161, "NotRelieved"),
                "pair {Pair}: {Why}; say `flipctl adopt {Pair} --stop` again", edge.Name, e.Message, edge.Name);
            Tell("fault", e.Message);
        }
    }

    private static string Said(UnmanagedHaproxy haproxy, StoppedHaproxy stopped)
    {
        int left = stopped.Connections.Sum(c => c.Count);
        string what = (stopped.WasListening, stopped.Alive) switch
        {
            (true, _) => $"{haproxy} was told to finish and listens no more; {left} connections stay on it",
            (false, true) => $"{haproxy} listens no more; {left} connections are still on it",
            (false, false) => $"{haproxy} is gone",
        };
        return string.Join(". ", [what, .. stopped.Notes]) + ".";
    }

    /// <summary>Finds it listening, or starts it, and has it prove itself. Null: NEW connections can go to it; else why not.</summary>
    public async Task<string?> ProveAsync(ImmutableArray<Service> services, Action<string> progress, CancellationToken stop)
    {
        await _oneAtATime.WaitAsync(stop);
        try
        {
            Adoption? adoption = edge.Store.ReadAdoption();
            UnmanagedHaproxy haproxy = await new UnmanagedStart(_systemd, edge.Time).RunAsync(
                adoption?.Haproxy, adoption?.Unit, services, OwnPids(), progress, stop);
            edge.Store.SaveAdoption(new Adoption(haproxy, false, adoption?.Unit, services));
            return await new UnmanagedProof(edge.Options.Gate, edge.Time).ProveAsync(
                haproxy, services, question => progress($"{haproxy} must show that {question}"), stop);
        }
        catch (FlipException e)
        {
            return e.Message;
        }
        finally
        {
            _oneAtATime.Release();
        }
    }

    /// <summary>Null: none is known.</summary>
    public async Task<UnmanagedStatus?> StatusAsync(CancellationToken stop)
    {
        if (edge.Store.ReadAdoption() is not { Haproxy: { } known } adoption) return null;
        HashSet<int> own = OwnPids();
        UnmanagedHaproxy? found = (await new UnmanagedSearch(_systemd).FindAsync(adoption.Services, own, stop)).Haproxy;
        int connections = UnmanagedSearch.Connections(adoption.Services, own).Sum(c => c.Count);
        UnmanagedHaproxy shown = found ?? known;
        return new UnmanagedStatus(
            shown.Unit ?? shown.Executable, shown.Main.IsAlive ? shown.Main.Pid : null, found is not null, connections, adoption.ToldToStop);
    }

    private HashSet<int> OwnPids() => [.. state().Generations.Select(g => g.Pid)];

    private void Tell(string kind, string text) =>
        edge.Notices.Post(new PairNotice(edge.Now, edge.Name, kind, state().Phase.Name, text));
}
