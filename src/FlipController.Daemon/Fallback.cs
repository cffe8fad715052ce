using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux.Fronts;
using FlipController.Linux.Kernel;
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

    private Adoption? Recorded => edge.Store.ReadAdoption();

    /// <summary>The front addresses it was about the last time.</summary>
    public ImmutableArray<Service>? Services => Recorded?.Services;

    /// <summary>The same of paths of unix sockets.</summary>
    public ImmutableArray<string> Paths => Recorded?.Paths ?? [];

    /// <summary>The process is the adopted HAProxy's, or its unit's.</summary>
    public bool IsAdopted(int pid) => Recorded?.Haproxy is { } known && (UnmanagedStop.Owns(known, pid)
        || (known.Unit is { } unit && _systemd.CgroupOf(pid) is { } cgroup && Systemd.UnitIn(cgroup) == unit));

    /// <summary>Who listens on the front addresses is written down as what NEW connections are taken over from.</summary>
    /// <exception cref="RefusedException">Nobody does, or not one HAProxy alone.</exception>
    public async Task FindAsync(ImmutableArray<Service> services, ImmutableArray<string> paths, bool stop, CancellationToken cancel)
    {
        await _oneAtATime.WaitAsync(cancel);
        try
        {
            UnmanagedFinding finding = await new UnmanagedSearch(_systemd).FindAsync(services, paths, OwnPids(), cancel);
            if (!finding.Refusals.IsEmpty)
                throw new RefusedException($"pair {edge.Name}: cannot adopt: {string.Join(" | ", finding.Refusals)}; nothing was changed.");
            if (finding.Haproxy is not { } haproxy)
                throw new RefusedException($"pair {edge.Name}: cannot adopt: nobody else listens on {string.Join(", ", [.. services.Select(s => s.ToString()), .. paths])}; nothing was changed. "
                    + (state().Active is { } active ? $"NEW connections go to {active} already." : $"Say `flipctl flip {edge.Name}` to start the pair."));
            if (stop) RefuseOthers(haproxy, services);
            edge.Store.SaveAdoption(new Adoption(haproxy, stop, null, services, paths));
        }
        finally
        {
            _oneAtATime.Release();
        }
    }

    /// <summary>What it serves beside the pair's front addresses would be refused: left to it as long as somebody needs that.</summary>
    private void RefuseOthers(UnmanagedHaproxy haproxy, ImmutableArray<Service> services)
    {
        if (UnmanagedStop.Others(haproxy, services) is { IsEmpty: false } others)
            throw new RefusedException($"pair {edge.Name}: {haproxy} is not told to stop: it listens on {string.Join(", ", others)} too, "
                + "which the pair does not serve; adopt without --stop, or let it go there first. Nothing was done to it.");
    }

    /// <summary>Who listens on these front addresses and may not be taken over from, in sentences: all but the adopted one.</summary>
    public async Task<ImmutableArray<string>> StrangersAsync(IReadOnlyCollection<Service> services, CancellationToken cancel)
    {
        UnmanagedFinding finding = await new UnmanagedSearch(_systemd).FindAsync(services, OwnPids(), cancel, asksUnit: false);
        return finding.Haproxy is { } found && Recorded?.Haproxy is var known && !(known is not null && IsSame(known, found))
            ? finding.Refusals.Add($"{found} listens on {string.Join(", ", finding.Served.Concat(finding.Unserved))}, would lose its NEW connections, "
                + $"and is not the one that was adopted; say `flipctl adopt {edge.Name}` if that is meant")
            : finding.Refusals;
    }

    private bool IsSame(UnmanagedHaproxy known, UnmanagedHaproxy found) => known.IsLike(found)
        || (known.Unit is { } unit && _systemd.CgroupOf(found.Main.Pid) is { } cgroup && Systemd.UnitIn(cgroup) == unit);

    /// <summary>It is to stop listening, once the pair has the NEW connections.</summary>
    public async Task AskToStopAsync(CancellationToken cancel)
    {
        await _oneAtATime.WaitAsync(cancel);
        try
        {
            if (Recorded is { } adoption) edge.Store.SaveAdoption(adoption with { ToldToStop = true });
        }
        finally
        {
            _oneAtATime.Release();
        }
    }

    /// <summary>Tells the adopted HAProxy to stop listening, if that was asked for.</summary>
    /// <returns>What became of it, in sentences; null: it was not asked for, or it is not the time.</returns>
    public async Task<string?> RelieveAsync(CancellationToken stop)
    {
        await _oneAtATime.WaitAsync(stop);
        try
        {
            if (Recorded is not { ToldToStop: true, Haproxy: { } haproxy } adoption || !HasTraffic()) return null;
            // It may have been started again since: then that one is meant.
            if ((await new UnmanagedSearch(_systemd).FindAsync(adoption.Services, adoption.Paths ?? [], OwnPids(), stop)).Haproxy is { } found
                && found.Main != haproxy.Main && IsSame(haproxy, found))
            {
                haproxy = found;
                edge.Store.SaveAdoption(adoption with { Haproxy = found });
            }
            try
            {
                RefuseOthers(haproxy, adoption.Services);
            }
            catch (RefusedException)
            {
                edge.Store.SaveAdoption(adoption with { Haproxy = haproxy, ToldToStop = false });
                throw;
            }
            StoppedHaproxy stopped = await new UnmanagedStop(_systemd, edge.Time) { MayStop = HasTraffic, OthersListen = OnFronts, Paths = adoption.Paths ?? [] }.RunAsync(
                haproxy, adoption.Services, OwnPids(), said => Tell("progress", said), stop);
            string said = Said(haproxy, stopped);
            edge.Redirect.Settle(edge.Name, adoption.Services);
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

    /// <summary>NEW connections go to a living generation, and nobody is giving them back.</summary>
    private bool HasTraffic() => state() is { IsAdopted: true, Active: { } active, Phase: not Releasing }
        && ProcessIdentity.Of(active).IsAlive && edge.Redirect.ReadActive(edge.Name) == active.Number;

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

    /// <summary>
    /// Finds it listening, or starts it, and has it prove itself; whoever was to stop it does not any more. Null: NEW connections can
    /// go to it; else why not.
    /// </summary>
    public async Task<string?> ProveAsync(ReleaseRun run, ImmutableArray<Service> services, ImmutableArray<string> paths, Action<string> progress, CancellationToken stop)
    {
        await _oneAtATime.WaitAsync(stop);
        try
        {
            if (!paths.IsEmpty && await PathsRefusedAsync(services, paths, stop) is { } refused) return refused;
            Adoption known = Recorded ?? new Adoption(null, false, null, services);
            Adoption adoption = known with { ToldToStop = false, Services = services, Paths = paths };
            edge.Store.SaveAdoption(adoption);
            if (services.IsEmpty) return null;
            // Where nobody is to be started, one more listens already.
            if (OnFronts && (await new UnmanagedSearch(_systemd).FindAsync(services, OwnPids(), stop)).Haproxy is null)
                await edge.Redirect.MakeRoomAsync(edge.Name, services, stop);
            UnmanagedHaproxy haproxy = await new UnmanagedStart(_systemd, edge.Time).RunAsync(
                adoption.Haproxy, run.Unit ?? adoption.Unit, services, OwnPids(), progress, stop);
            // A unit that did not serve is not remembered.
            edge.Store.SaveAdoption(adoption with { Haproxy = haproxy, Unit = run.Unit ?? adoption.Unit });
            return await new UnmanagedProof(edge.Options.Gate, edge.Time).ProveAsync(
                haproxy, services, question => progress($"{haproxy} must show that {question}"), stop);
        }
        catch (Exception e) when (e is FlipException or IOException or UnauthorizedAccessException)
        {
            return e.Message;
        }
        finally
        {
            _oneAtATime.Release();
        }
    }

    /// <summary>
    /// Null: paths of unix sockets can go back to it. A HAProxy that starts puts its socket at a path by itself, before it is proven and an
    /// instant before it listens there (src/sock_unix.c; listen(2) comes after rename(2)): whoever connects then is refused.
    /// </summary>
    private async Task<string?> PathsRefusedAsync(ImmutableArray<Service> services, ImmutableArray<string> paths, CancellationToken stop)
    {
        UnmanagedFinding found = await new UnmanagedSearch(_systemd).FindAsync(services, paths, OwnPids(), stop, asksUnit: false);
        if (!found.Refusals.IsEmpty) return string.Join(" | ", found.Refusals);
        string[] missing = [.. paths.Except(found.ServedPaths), .. found.Unserved.Select(s => s.ToString())];
        return missing.Length == 0 ? null : $"the unmanaged HAProxy does not listen at {string.Join(", ", missing)} any more, and one that is started takes the front path "
            + $"{paths[0]} an instant before it listens there, so that clients would be refused: a path goes back only to the HAProxy that was adopted without --stop and still runs. "
            + "Nothing was started; stop the pair's use of the path first, or start the HAProxy yourself when a refusal does no harm";
    }

    /// <summary>Null: none is known.</summary>
    public async Task<UnmanagedStatus?> StatusAsync(CancellationToken stop)
    {
        if (Recorded is not { Haproxy: { } known } adoption) return null;
        HashSet<int> own = OwnPids();
        UnmanagedHaproxy? found = (await new UnmanagedSearch(_systemd).FindAsync(adoption.Services, adoption.Paths ?? [], own, stop, asksUnit: false)).Haproxy;
        int connections = UnmanagedSearch.Connections(adoption.Services, own).Sum(c => c.Count);
        UnmanagedHaproxy shown = found ?? known;
        return new UnmanagedStatus(
            known.Unit ?? shown.Executable, shown.Main.IsAlive ? shown.Main.Pid : null, found is not null, connections, adoption.ToldToStop);
    }

    private bool OnFronts => edge.Options.Redirect.Method == RedirectMethod.Listener;

    private HashSet<int> OwnPids() => [.. state().Generations.Select(g => g.Pid)];

    private void Tell(string kind, string text) =>
        edge.Notices.Post(new PairNotice(edge.Now, edge.Name, kind, state().Phase.Name, text));
}
