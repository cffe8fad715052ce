using System.Collections.Immutable;
using System.Text;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux;
using FlipController.Linux.Files;
using FlipController.Linux.Fronts;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;
using FlipController.Linux.State;

namespace FlipController.Daemon;

/// <summary>One managed pair: its loop, its effects, and the watch on its files.</summary>
internal sealed partial class Pair : IAsyncDisposable
{
    private static readonly TimeSpan s_observation = TimeSpan.FromSeconds(1);
    private readonly PairEdge _edge;
    private readonly PairLoop _loop;
    private readonly PairEffects _effects;
    private readonly CancellationTokenSource _stop = new();
    private Task _work = Task.CompletedTask;
    private readonly Func<PairState, FlipRestraint?> _restraint;
    private string? _unreadable;
    private NotReloaded? _notReloaded;

    /// <summary>Of the active generation; the next one has read what there is.</summary>
    private sealed record NotReloaded(Generation Active, string Why);

    /// <param name="clockSetBy">By how much the clock was set since what is saved was saved.</param>
    /// <param name="restraint">Whether a changed file may flip it by itself now; null: it may.</param>
    public Pair(PairEdge edge, TimeSpan clockSetBy, Func<PairState, FlipRestraint?> restraint)
    {
        _restraint = restraint;
        _edge = edge;
        PairState saved = Recovery.Load(edge, clockSetBy);
        _loop = new PairLoop(saved, edge.Store.Save, RunEffectAsync, edge.Notices, edge.Log, e => _effects!.AskAgain(e));
        _effects = new PairEffects(edge, () => _loop.State, _loop.Post, _loop.Complete);
    }

    public string Name => _edge.Name;

    public PairOptions Options => _edge.Options;

    public PairPorts Ports => _edge.Ports;

    public PairState State => _loop.State;

    /// <summary>Ends only with the pair, or with the error that ended it.</summary>
    public Task Work => _work;

    public bool Serves(Service service) => State.Generations.Any(g => g.Ports.Any(p => p.Service.Overlaps(service)));

    public bool Serves(string path) => State.Generations.Any(g => g.UnixFronts.Any(f => f.Path == path));

    /// <summary>Looks at what is, tells the machine, and goes on from there.</summary>
    public async Task StartAsync()
    {
        PairState saved = _loop.State;
        var alive = ImmutableHashSet.CreateBuilder<int>();
        foreach (Generation generation in saved.Generations)
            if (await IsFoundAsync(generation)) alive.Add(generation.Number);
        if (alive.Count > 0) _effects.Ports.TakeUp();
        ImmutableSortedSet<int> chains = _edge.Redirect.Generations(Name);
        foreach (Generation generation in saved.Warm)
            if (alive.Contains(generation.Number) && !chains.Contains(generation.Number)) _edge.AddChain(generation);
        int? redirectTo = _edge.Redirect.ReadActive(Name);
        _edge.PointStats(redirectTo is { } served && alive.Contains(served) ? served : null);
        // The rule is what was committed; the front paths follow it, before anything is done to who they lead to.
        if (saved.Generations.FirstOrDefault(g => g.Number == redirectTo && alive.Contains(g.Number)) is { } committed) _edge.PointFronts(committed);
        _edge.Log.LogInformation(new EventId(120, "Observed"),
            "pair {Pair}: was {Phase}, found generations [{Alive}] alive, the rule names {Redirect}",
            Name, saved.Phase.Name, string.Join(", ", alive.Order()), redirectTo?.ToString() ?? "none");
        foreach (Generation generation in saved.Generations.Where(g => alive.Contains(g.Number))) Recovery.Note(_edge, generation);
        _loop.Post(new Restarted(_edge.Now, alive.ToImmutable(), redirectTo, _edge.Options.Drain.MaxRetired));
        Restrain(_restraint(saved)); // before its files are looked at
        foreach (Generation generation in saved.Generations.Where(g => alive.Contains(g.Number))) _effects.Follow(generation);
        foreach (Generation generation in saved.Generations.Where(g => !alive.Contains(g.Number))) _effects.EndRemains(generation);
        _effects.Relieve();
        _effects.KeepServerState();
        _effects.WatchDrains();
        _effects.WatchActive();
        _effects.WatchFronts();
        _effects.KeepLoops();
        if (redirectTo is { } active && saved.Generations.FirstOrDefault(g => g.Number == active) is { } leading) _effects.LeadFlows(leading);
        _effects.RehearseHold([.. saved.Generations.Where(g => alive.Contains(g.Number))]);
        Task loop = Task.Run(() => _loop.RunAsync(_stop.Token));
        Task files = _edge.Options.Server.Watch ? Task.Run(() => WatchFilesAsync(_stop.Token)) : Task.CompletedTask;
        _work = BothAsync(loop, files);
    }

    /// <summary>One that ends by an error takes the other with it: half a pair would look alive and do nothing.</summary>
    private async Task BothAsync(Task loop, Task files)
    {
        if ((await Task.WhenAny(loop, files)).IsFaulted) await _stop.CancelAsync();
        await Task.WhenAll(loop, files);
    }

    /// <summary>Alive is: this pid with this start time since this boot, and an HAProxy's admin socket answers with the same pid.</summary>
    private async Task<bool> IsFoundAsync(Generation generation)
    {
        ProcessIdentity identity = ProcessIdentity.Of(generation);
        if (!identity.IsAlive) return false;
        try
        {
            if (_edge.AdminOf(generation, s_observation) is not { } admin) return true;
            HaproxyInfo info = await admin.ShowInfoAsync(_stop.Token);
            return info.Pid == generation.Pid;
        }
        catch (FlipException)
        {
            // Its socket is mute, but the process is the one that was started with this generation's own pid file: it has connections.
            return Instance.LeftBehind(_edge.PlaceOf(generation.Number)) == identity;
        }
    }

    private async ValueTask RunEffectAsync(Effect effect)
    {
        await _effects.RunAsync(effect);
        _effects.KeepLoops();
        // What somebody else did to the rules while ours were being changed, or a generation's were being made.
        if (effect is Record or Prove) RulesChanged();
        if (_loop.State.Phase is Steady && effect is Record or Retire or Drained) _effects.Sweep(_loop.State);
    }

    /// <summary>Somebody changed our rules, perhaps this very pair.</summary>
    public void RulesChanged() => _loop.Post(new RulesChanged(_edge.Now));

    private async Task WatchFilesAsync(CancellationToken stop)
    {
        using var changes = new FileChanges(_edge.Options.Server, _edge.Time);
        await changes.RunAsync(
            State.Active is { } active ? _edge.ContentOf(active) : null,
            snapshot =>
            {
                if (!ReloadedInstead(snapshot)) FilesHold(snapshot);
            },
            why =>
            {
                Volatile.Write(ref _unreadable, why);
                _edge.Log.LogWarning(new EventId(121, "Unreadable"),
                    "pair {Pair}: {Why}; nothing is flipped until it can be read", Name, why);
                _edge.Notices.Post(new PairNotice(_edge.Now, Name, "fault", State.Phase.Name, why));
            },
            stop,
            snapshot =>
            {
                Volatile.Write(ref _unreadable, null);
                // What the active one runs flips nothing, but ends what was wrong with the files.
                if (snapshot.ContentSha256 == State.Active?.ContentSha256) FilesHold(snapshot);
            });
    }

    /// <summary>What lies beside the configuration has changed, it alone, and the pair has a command that has it read again.</summary>
    private bool ReloadedInstead(Snapshot snapshot)
    {
        Volatile.Write(ref _notReloaded, null);
        if (_edge.Driver is not CommandDriver driver || Options.Command is not { Reload.IsEmpty: false }) return false;
        if (State is not { Phase: Steady or Watching, Active: { } active } || _edge.DriverOf(active.Number) != driver || active.ConfigSha256 != snapshot.ConfigSha256) return false;
        // Variables are read once, when a process starts.
        if (!SameEnvironment(_edge.Store.ReadSnapshot(active.Number), snapshot)) return false;
        _effects.Reload(driver, snapshot.ContentSha256, why => Volatile.Write(ref _notReloaded, why is null ? null : new NotReloaded(active, why)));
        return true;
    }

    private static bool SameEnvironment(Snapshot? one, Snapshot other) => one is not null
        && (one.EnvironmentFiles ?? []).SelectMany(f => f.Content).SequenceEqual((other.EnvironmentFiles ?? []).SelectMany(f => f.Content));

    private void FilesHold(Snapshot snapshot) => _loop.Post(new FlipAsked(_edge.Now, new FlipWish(
        FlipTrigger.Files, $"{string.Join(", ", Options.Server.Config.IsEmpty ? Options.Server.AlsoWatch : Options.Server.Config)} changed", false, snapshot.ContentSha256, null, [])));

    public async Task<FlipRecord> FlipAsync(FlipRequest request)
    {
        if (State.Phase is Released && Options.Gate.TakenAddresses == TakenAddresses.Refuse
            && await _effects.Fallback.StatusAsync(_stop.Token) is { Listens: true })
            throw new RefusedException($"pair {Name}: {Refusal.AlreadyReleased.Sentence()}");
        return await _loop.AskAsync<FlipRecord>(id => new FlipAsked(
            _edge.Now, new FlipWish(FlipTrigger.Operator, request.Reason, request.AllowDrop, null, null, [id], _edge.Driver.Choose(request.Binary))));
    }

    /// <summary>
    /// Finds whom NEW connections would be taken over from. It throws what stands in the way, before anything is begun.
    /// </summary>
    /// <returns>NEW connections go to the pair already.</returns>
    public async Task<bool> FindUnmanagedAsync(AdoptRequest request)
    {
        PairState s = State;
        if (s.Phase is Releasing) throw new RefusedException($"pair {Name}: {Refusal.ReleaseUnderWay.Sentence()}");
        // One that is under way is joined: what it found counts.
        bool under = s.Phase is Preparing { Run.Wish.Trigger: FlipTrigger.Adopt } or Gating { Run.Wish.Trigger: FlipTrigger.Adopt }
            or Switching { Run.Wish.Trigger: FlipTrigger.Adopt };
        bool done = !under && s is { IsAdopted: true, Active: not null };
        try
        {
            if (!done && !under)
            {
                (ImmutableArray<Service> services, ImmutableArray<string> paths) = await _effects.Start.ServicesAsync(s.Active, null, [], s, _stop.Token);
                await _effects.Fallback.FindAsync(services, paths, request.Stop, _stop.Token);
            }
        }
        // An adoption that was under way has ended meanwhile, and told the one that is looked for to stop.
        catch (RefusedException) when (State is { IsAdopted: true, Active: not null })
        {
            done = true;
        }
        if ((done || under) && request.Stop) await _effects.Fallback.AskToStopAsync(_stop.Token);
        return done;
    }

    /// <summary>
    /// NEW connections of the HAProxy that was found go to the pair; then it is told to finish, if that was asked for. What was done
    /// already is not done twice; what a killed controller left undone its next start does.
    /// </summary>
    public async Task<FlipAnswer> AdoptAsync(AdoptRequest request, bool done)
    {
        FlipRecord flip = done && State.Active is { Number: var active }
            ? new FlipRecord(State.LastFlipId, "adopt", active, active, "unchanged", _edge.Now, 0, null, request.Reason, null)
            : await _loop.AskAsync<FlipRecord>(id => new FlipAsked(
                _edge.Now, new FlipWish(FlipTrigger.Adopt, request.Reason, true, null, null, [id])));
        string? said = flip.Outcome is "done" or "unchanged" ? await _effects.Fallback.RelieveAsync(_stop.Token) : null;
        return new FlipAnswer(Name, flip, said);
    }

    /// <summary>NEW connections go to the unmanaged HAProxy, once it is proven.</summary>
    public Task<FlipRecord> ReleaseAsync(ReleaseRequest request) =>
        _loop.AskAsync<FlipRecord>(id => new ReleaseAsked(_edge.Now, request.Reason, id, request.Unit));

    public async Task<FlipRecord> RollbackAsync(RollbackRequest request)
    {
        if (State is { Phase: Watching or Preparing, Phase.Previous: { } previous, Active: { } current })
            await RuntimeContinuity.GoBackAsync(_edge, current, previous, CancellationToken.None);
        return await _loop.AskAsync<FlipRecord>(id => new RollbackAsked(_edge.Now, request.Reason, id));
    }

    public ImmutableArray<FlipRecord> History() => _edge.Store.History();

    public async Task<PairStatus> StatusAsync(CancellationToken stop)
    {
        PairState s = State;
        IReadOnlyDictionary<int, ConnectionCounts> counts = await _effects.Ledger.CountsAsync(s, stop);
        GenerationStatus? active = About(s.Active, counts), standby = About(s.Phase.Standby, counts), previous = About(s.Phase.Previous, counts);
        ImmutableArray<GenerationStatus> retired =
        [
            .. s.Retired.Select(r => About(r.Generation, counts)! with
            {
                Closes = DrainDeadline.Of(Options.Drain, r.Generation.Ports, r.At, r.ClosesAt) is [.., var last] ? last.At : null,
            }),
        ];
        UndoWindow? undo = s.Phase switch { Watching w => w.Undo, Preparing p => p.Undo, _ => null };
        return new PairStatus(
            Name, s.Phase.Name, active, standby, previous, retired, s.Pending is not null,
            new RedirectStatus(_edge.Redirect.Method, _edge.Redirect.ReadActive(Name)),
            _effects.Hold.Status,
            s.LastFlip, undo is null ? null : undo.Since + Options.Watch.Undo, s.Fault ?? _loop.Unsaved ?? _effects.Rules.Fault ?? _effects.Fronts.Fault ?? Volatile.Read(ref _unreadable) ?? (Volatile.Read(ref _notReloaded) is { } stale && stale.Active == s.Active ? stale.Why : null),
            Warnings(s),
            s.IsAdopted || s.IsReleased ? await _effects.Fallback.StatusAsync(stop) : null,
            s.Drain is { } order
                ? new DrainStatus(order.Id, order.Wish.Slot, order.Generations, order.Wish.Deadline, order.Started, order.Wish.Reason)
                : null,
            s.HeldSlot,
            s.Active is { UnixFronts: { IsEmpty: false } paths } ? [.. paths.Select(f => FrontStatusOf(f.Path, s))] : null, s.HeldBack);
    }

    /// <summary>As it is now, whoever has put it there.</summary>
    private static FrontStatus FrontStatusOf(string path, PairState s)
    {
        try
        {
            FrontPath now = FrontPath.Look(path);
            return new FrontStatus(path, now.Socket, now.Socket is null ? null
                : s.Generations.FirstOrDefault(g => g.UnixFronts.Any(f => f.Socket == now.Socket))?.Number);
        }
        catch (FlipException)
        {
            return new FrontStatus(path, null, null);
        }
    }

    private ImmutableArray<string> Warnings(PairState s)
    {
        List<string> warnings = [.. s.Active is null ? [] : Instance.Warnings(_edge.PlaceOf(s.Active.Number))];
        if (_edge.Time.Ahead is var ahead && ahead != TimeSpan.Zero)
            warnings.Add($"the clock was set by {ahead.TotalSeconds:0} s since the daemon started; deadlines come when they would have, and times are told by the clock as it was");
        if (ConntrackFill.Read() is { Share: >= ConntrackFill.High } fill)
            warnings.Add($"{fill.Entries} of {fill.Limit} connections that the kernel can track are there (nf_conntrack_max): beyond it NEW connections are dropped, flip or no flip");
        if (_effects.Ports.Warning is { } ports) warnings.Add(ports);
        return [.. warnings, .. _effects.Others.Warnings([.. s.Active?.Ports.Select(p => p.Service) ?? []])];
    }

    private GenerationStatus? About(Generation? g, IReadOnlyDictionary<int, ConnectionCounts> counts) => g is null ? null
        : new GenerationStatus(
            g.Slot.Name(), g.Number, g.Pid, g.ConfigSha256, g.Since,
            g.Ports.ToImmutableSortedDictionary(p => p.Service.ToString(), p => p.PrivatePort), counts[g.Number], g.Version, null,
            ProcessMemory.OfFamily(g.Pid), _effects.Drains.Find(g.Number)?.Status, _edge.DriverOf(g.Number).UnitOf(g.Number),
            g.UnixFronts.IsEmpty ? null : g.UnixFronts.ToImmutableSortedDictionary(f => f.Path, f => f.Socket));

    /// <summary>Its text without the key of the peers: whoever may ask for it may not write into stick tables.</summary>
    private string Shown(RenderedFile file)
    {
        string text = Encoding.UTF8.GetString(file.Content);
        return file.Source is null && Options.Continuity.StickTables == StickTablesRule.Shared
            ? text.Replace(_edge.Store.PeersKey(), "KEY", StringComparison.Ordinal)
            : text;
    }

    /// <summary>What a flip now would start.</summary>
    public async Task<RenderReport> RenderAsync(Slot slot, CancellationToken stop)
    {
        Snapshot snapshot = _effects.Start.ReadFiles();
        RenderedConfiguration rendered = await _effects.Start.RenderAsync(
            _edge.Driver.BinaryOf(State.Binary), snapshot, _edge.PlaceOf(State.LastNumber + 1), slot, stop);
        return new RenderReport(
            Name, slot.Name(), [.. rendered.Files.Select(f => new RenderedText(f.Path, f.Source, Shown(f)))],
            [.. rendered.Notes.Select(n => n.ToString())]);
    }

    public Task<PlanReport> PlanAsync(string? binary, CancellationToken stop) => new Plan(_edge, _effects.Start).MakeAsync(State, binary, stop);

    /// <summary>The controller lets go; HAProxys and rules stay as they are.</summary>
    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        try
        {
            await _work;
        }
        catch (Exception) when (_work.IsCompleted)
        {
            // Cancelled, as asked for; or ended by an error, which whoever awaits Work has told. The effects are let go in any case.
        }
        await _effects.DisposeAsync();
        _stop.Dispose();
    }
}
