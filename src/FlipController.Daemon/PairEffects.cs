using System.Collections.Concurrent;
using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux;
using FlipController.Linux.Commands;
using FlipController.Linux.Fronts;
using FlipController.Linux.Gate;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;

namespace FlipController.Daemon;

/// <summary>
/// Carries out what the machine orders. The switch is done at once, inside the loop; what takes long runs beside it under a key and
/// posts its result, and a new order with the same key replaces the old.
/// </summary>
internal sealed class PairEffects(PairEdge edge, Func<PairState> state, Action<PairEvent> post, Action<IEnumerable<long>, object> answer) : IAsyncDisposable
{
    private static readonly TimeSpan s_firstRetry = TimeSpan.FromMilliseconds(500), s_longestRetry = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan s_longestBaseline = TimeSpan.FromSeconds(1);
    private readonly CancellationTokenSource _stop = new();
    private readonly Lock _closing = new();
    private bool _closed;
    private readonly ConcurrentDictionary<string, Running> _running = new();
    private readonly ConcurrentDictionary<Running, bool> _unfinished = new(); // with those that were told to cease and have not yet
    private readonly ConcurrentDictionary<int, ProcessIdentity> _followed = new();
    private StandbyStart? _start;
    private PairLedger? _ledger;
    private Departure? _departure;
    private RuleKeeping? _rules;
    private readonly LoopKeeping _loops = new(edge, state);
    private readonly DatagramFlows _flows = new(edge, state);
    public Drains Drains { get; } = new(edge, state);

    public PairHold Hold { get; } = new(edge);

    public RuleKeeping Rules => _rules ??= new RuleKeeping(edge, state, _loops, LeadFlows, () => Beside("inspect again", async stop =>
    {
        await Task.Delay(s_firstRetry, edge.Time, stop);
        post(new RulesChanged(edge.Now));
    }));

    public PairLedger Ledger => _ledger ??= new PairLedger(edge, state, Drains);

    public OthersRules Others { get; } = new(edge);

    public PrivatePorts Ports { get; } = new(edge);

    private Departure Leave => _departure ??= new Departure(edge, state, Ledger, _flows);

    private UndoWatch? _undo;
    private readonly Hooks _hooks = new(edge);

    public Fallback Fallback { get; } = new(edge, state);

    private readonly ServerStateKeeping _serverState = new(edge, state);
    private readonly Gate _gate = new(edge.Options.Gate, edge.Time, g => new CommandWords(edge.Options, edge.PlaceOf(g.Number), g));

    public StandbyStart Start => _start ??= new StandbyStart(edge, state, Fallback, _serverState, Ports);

    public ValueTask RunAsync(Effect effect)
    {
        switch (effect)
        {
            case Prepare prepare:
                HashSet<int> tags = [.. state().Generations.Select(g => g.Tag)];
                Beside(PrepareKey(prepare.Run.Number), async stop =>
                {
                    PairEvent e = await Start.RunAsync(prepare, tags, EndUndo, stop);
                    if (e is Prepared prepared) Follow(prepared.Generation);
                    post(e);
                    // A death told before the machine knew the generation meant nothing to it.
                    if (e is Prepared { Generation: var made } && !ProcessIdentity.Of(made).IsAlive) post(Died(made));
                });
                break;
            case Prove prove:
                Beside("prove", stop => ProveAsync(prove, stop));
                break;
            case Switch order:
                post(SwitchNow(order));
                KeepFlows();
                break;
            case ClearRedirect clear:
                post(ClearNow(clear));
                KeepFlows();
                break;
            case Inspect inspect:
                Rules.Keep(inspect.Active);
                Fronts.Keep(inspect.Active);
                break;
            case ProveFallback prove:
                Beside("fallback", stop => ProveFallbackAsync(prove, stop));
                break;
            case Watch watch:
                Drains.Begin(watch.Undo.Previous).Enter("warm", watch.Undo.Since + edge.Options.Watch.Undo, "soft stop");
                Beside("watch", stop => (_undo ??= new UndoWatch(edge, _gate)).RunAsync(watch, post, stop));
                break;
            case Unwatch:
                Cease("watch");
                break;
            case Discard discard:
                if (state().Phase.Standby?.Number != discard.Number) Cease($"retire {discard.Number}");
                Beside($"end {discard.Number}", stop => Leave.DiscardAsync(discard.Number, stop));
                break;
            case Retire retire:
                Beside("server state once", stop => _serverState.SaveAsync(state().Active ?? retire.Generation, stop));
                Cease($"end {retire.Generation.Number}");
                Leaving retired = Drains.Begin(retire.Generation);
                BesideUntilGone($"retire {retire.Generation.Number}", retire.Generation, stop => Leave.RetireAsync(retire, retired, _loops, post, stop));
                break;
            case Close close when _running.ContainsKey($"end {close.Generation.Number}"):
                break;
            case Close close:
                Tell("progress", state().Phase.Name, $"{close.Generation} is closed: {close.Why}");
                Cease($"retire {close.Generation.Number}");
                Leaving closed = Drains.Begin(close.Generation);
                BesideUntilGone($"end {close.Generation.Number}", close.Generation, stop => Leave.CloseAsync(close, closed, _loops, stop));
                break;
            case Drained drained:
                Cease($"retire {drained.Generation.Number}");
                Cease($"end {drained.Generation.Number}");
                Beside($"left {drained.Generation.Number}", _ => Drains.EndAsync(drained.Generation.Number, gone: true));
                Leave.Bury(drained.Generation);
                KeepFlows();
                Tell("drained", state().Phase.Name, $"{drained.Generation} has drained and is gone");
                Beside($"hook drained {drained.Generation.Number}", stop => _hooks.DrainedAsync(drained.Generation, stop));
                break;
            case Record record:
                Write(record.Flip);
                break;
            case Answer told:
                answer(told.Requests, told.Flip);
                break;
            case AnswerDrain told:
                Tell(told);
                break;
            case RetryLater later:
                Beside("retry", async stop =>
                {
                    TimeSpan pause = s_firstRetry * Math.Pow(2, Math.Min(later.Attempt - 1, 10));
                    await Task.Delay(pause < s_longestRetry ? pause : s_longestRetry, edge.Time, stop);
                    post(new RetryDue(edge.Now, later.Ticket));
                });
                break;
        }
        return ValueTask.CompletedTask;
    }

    /// <summary>Beside the start, which it must not delay: while nobody serves, everybody is refused.</summary>
    public void RehearseHold(IReadOnlyList<Generation> generations) => Beside("hold", _ =>
    {
        Hold.Rehearse(generations);
        return Task.CompletedTask;
    });

    /// <summary>Its loop could not take it now.</summary>
    public void AskAgain(PairEvent e) => Beside("ask again", async stop =>
    {
        await Task.Delay(s_firstRetry, edge.Time, stop);
        post(e);
    });

    /// <summary>The rules lead to this generation: UDP senders that do not know it yet go there.</summary>
    public void LeadFlows(Generation to)
    {
        _flows.To = to;
        KeepFlows();
    }

    private void KeepFlows()
    {
        if (_flows.Any) Beside("flows", _flows.KeepAsync);
    }

    /// <summary>For as long as the pair is looked after.</summary>
    public void WatchDrains() => Beside("drains", Drains.RunAsync);

    private void Tell(AnswerDrain told)
    {
        DrainRecord drain = told.Drain with { Closed = told.Drain.Generations.Sum(Drains.ClosedOf) };
        answer(told.Requests, drain);
        if (drain.Outcome is "unchanged" or "undrained") return;
        string what = drain.Slot?.Name() ?? string.Join(", ", drain.Generations);
        string text = $"drain {drain.Id} of {what} {(drain.Outcome == "drained" ? "is done" : drain.Outcome)}{(drain.Error is null ? "" : $": {drain.Error}")}";
        edge.Log.Log(drain.Outcome == "failed" ? LogLevel.Warning : LogLevel.Information, new EventId(151, "Drain"), "pair {Pair}: {Drain}", edge.Name, text);
        Tell("progress", state().Phase.Name, text);
    }

    /// <summary>For as long as the pair is looked after.</summary>
    public void WatchActive() => Beside("active", new ActiveWatch(edge, state, post).RunAsync);

    /// <summary>For as long as the pair is looked after.</summary>
    public void KeepServerState() => Beside("server state", _serverState.RunAsync);

    /// <summary>Retired generations reach what serves now where they mean themselves; does nothing while nothing about that changes.</summary>
    public void KeepLoops()
    {
        if (_loops.IsOutdated()) Beside("loops", _loops.KeepAsync);
    }

    /// <summary>The warm generations read again what their configuration names; a flip that began meanwhile has read it already.</summary>
    /// <param name="told">Why it could not be done; null: it was.</param>
    public void Reload(CommandDriver driver, string contentSha256, Action<string?> told) => Beside("reload", async stop =>
    {
        string? why = null;
        foreach (Generation generation in state().Warm.Distinct().Where(g => edge.DriverOf(g.Number) == driver))
        {
            string? failed = await driver.ReloadAsync(generation, stop);
            why ??= failed is null ? null : $"{generation} does not read again what has changed: {failed}";
            if (failed is null) edge.PlaceOf(generation.Number).SaveReloaded(contentSha256);
            edge.Log.Log(failed is null ? LogLevel.Information : LogLevel.Warning, new EventId(167, "Reload"), "pair {Pair}: {What}",
                edge.Name, failed is null ? $"{generation} was told to read again what has changed" : why);
        }
        told(why);
        Tell(why is null ? "progress" : "fault", state().Phase.Name, why ?? "the files beside the configuration changed, and are read again without a flip (command.reload)");
    });

    /// <summary>From now on its death is an event.</summary>
    public void Follow(Generation generation)
    {
        _followed[generation.Number] = ProcessIdentity.Of(generation);
        edge.Deaths.Add(ProcessIdentity.Of(generation), _ =>
        {
            _followed.TryRemove(generation.Number, out ProcessIdentity? _);
            EndRemains(generation);
            if (Drains.Find(generation.Number) is not { IsStopped: true }) post(Died(generation));
            else Beside($"deliver {generation.Number}", stop => DeliverAsync(generation, stop));
        });
    }

    /// <summary>Somebody more is going to listen on the front addresses, where two are the most: the way back ends here, and not when it is up.</summary>
    private void EndUndo()
    {
        if (state() is { Active: { } active, Phase.Previous: not null }) post(new UndoElapsed(edge.Now, active.Number));
    }

    /// <summary>Of a generation whose process is gone.</summary>
    public void EndRemains(Generation generation)
    {
        Driver driver = edge.DriverOf(generation.Number); // its files may be gone a moment later
        Beside($"remains {generation.Number}", stop => driver.EndRemainsAsync(generation, stop));
    }

    /// <summary>What the process has closed the kernel may still be delivering: it has drained when that has arrived.</summary>
    private async Task DeliverAsync(Generation generation, CancellationToken stop)
    {
        await Drains.DeliveredAsync(generation, stop);
        post(Died(generation));
    }

    private GenerationDied Died(Generation generation) => new(
        edge.Now, generation.Number, $"died (process {generation.Pid}){(edge.DriverOf(generation.Number).LastWords(generation) is { } said ? $": {said}" : "")}");

    private async Task ProveAsync(Prove prove, CancellationToken stop)
    {
        var runtime = new RuntimeContinuity(edge, prove.Candidate, prove.Against);
        // Beside the gate when nobody serves: a large map that is read must not keep it from serving for long.
        Task begun = runtime.BeginAsync(stop);
        if (prove.Against is not null) await begun;
        string? why = await _gate.ProveAsync(
            prove.Candidate, edge.AdminOf(prove.Candidate), prove.Against is { } active ? edge.AdminOf(active) : null,
            question => Tell("progress", "gating", $"{prove.Candidate} must show that {question}"), stop);
        if (why is not null && !ProcessIdentity.Of(prove.Candidate).IsAlive && edge.DriverOf(prove.Candidate.Number).LastWords(prove.Candidate) is { } said)
            why = $"{why}; the last it said: {said}";
        if (why is null)
        {
            await _serverState.SaveAsync(prove.Candidate, stop);
            await Task.WhenAny(begun, Task.Delay(s_longestBaseline, edge.Time, stop));
        }
        post(why is null
            ? new GatePassed(edge.Now, prove.Candidate.Number, await runtime.EndAsync(t => Tell("progress", "gating", t), stop))
            : new GateFailed(edge.Now, prove.Candidate.Number, $"{why}; {PairEdge.Holds(prove.Against)}."));
        await begun;
    }

    private PairEvent SwitchNow(Switch order)
    {
        try
        {
            if (order.From is not null) Rules.LeaveElsewhere();
            using Lock.Scope turn = edge.FrontTurn.EnterScope();
            using FrontSwitch prepared = PrepareSwitch(order);
            int? stayed = null;
            HoldReport report;
            if (order.From is { } from && ProcessIdentity.Of(from).IsAlive && from.Ports.Length + order.To.Ports.Length > 0)
            {
                Hurry(order.To);
                stayed = PairEdge.Connections(from);
                // A hold that was asked for by name is part of a flip; nothing stands in the way back.
                bool mayGoWithout = edge.Options.Hold.Method == HoldMethod.Auto || state().Phase is not Switching;
                report = Hold.Run(prepared, [from, order.To], mayGoWithout);
            }
            else
            {
                // While nobody serves every millisecond refuses somebody: no hold, no rehearsal. Nor is there one for paths alone: whoever
                // connects finds the one side or the other.
                if (order.From is { } alive && ProcessIdentity.Of(alive).IsAlive) stayed = PairEdge.Connections(alive);
                prepared.MakeReady();
                using (UrgentThread.Enter())
                    if (prepared.Commit() != 0) throw prepared.Failure();
                Hurry(order.To);
                report = new HoldReport("none", (long)prepared.Elapsed.TotalMicroseconds, 0, 0);
            }
            _flows.Move(order.To);
            if (prepared.LinkFailure is { } left) edge.Log.LogError(new EventId(171, "FrontLeft"), "pair {Pair}: {Why}; both sides serve until it can be", edge.Name, left);
            edge.PointStats(order.To.Number);
            return new Switched(edge.Now, order.To.Number, report, stayed);
        }
        catch (FlipException e)
        {
            return new SwitchFailed(edge.Now, order.To.Number, Sentence(order, e.Message));
        }
    }

    /// <summary>The rule, and the links of the front paths. Nothing stands in the way back: what is wrong with a path then is told later.</summary>
    /// <exception cref="FlipException">Something foreign stands at one of them.</exception>
    private FrontSwitch PrepareSwitch(Switch order)
    {
        bool adopting = state() is { IsAdopted: true } or { Phase: Switching { Run.Wish.Trigger: FlipTrigger.Adopt } };
        List<UnixFront> fronts = [];
        foreach (UnixFront front in order.To.UnixFronts)
        {
            if (FrontPath.Look(front.Path).Refusal(edge.Name, adopting ? Fallback.IsAdopted : null) is not { } refused)
            {
                fronts.Add(front);
                if (state().Phase is Switching && FrontPath.OtherAccess(front) is { } other) throw new FlipException(other);
            }
            else if (state().Phase is Switching) throw new FlipException(refused);
        }
        PreparedSwitch rule = edge.Redirect.PrepareSwitch(edge.Name, order.To.Number);
        try
        {
            return new FrontSwitch(rule, FrontLinks.To([.. fronts]));
        }
        catch
        {
            rule.Dispose();
            throw;
        }
    }

    private FrontKeeping? _fronts;

    public FrontKeeping Fronts => _fronts ??= new FrontKeeping(edge, state, Fallback);

    /// <summary>For as long as the pair is looked after.</summary>
    public void WatchFronts() => Beside("fronts", stop => Fronts.WatchAsync(() => post(new RulesChanged(edge.Now)), stop));

    /// <summary>The adopted HAProxy is told to stop, if that was asked for and is not done.</summary>
    public void Relieve() => Beside("relieve", Fallback.RelieveUnwaitedAsync);

    private PairEvent ClearNow(ClearRedirect order)
    {
        try
        {
            int? stayed = order.From is { } from && ProcessIdentity.Of(from).IsAlive ? PairEdge.Connections(from) : null;
            long began = edge.Time.GetTimestamp();
            using (edge.FrontTurn.EnterScope())
            {
                using FrontLinks back = FrontLinks.Back(state().Generations.SelectMany(g => g.UnixFronts).Select(f => f.Path).Concat(Fallback.Paths).Distinct()
                    .Where(p => FrontPath.Look(FrontPath.UnmanagedOf(p)).Kind == FrontPathKind.Listened && FrontPath.Look(p).Kind != FrontPathKind.Listened));
                edge.Redirect.Clear(edge.Name);
                if (back.Commit() != 0) edge.Log.LogError(new EventId(171, "FrontLeft"), "pair {Pair}: {Why}; it leads to the pair until it can be", edge.Name, back.Failure);
            }
            _flows.Move(null);
            return new Cleared(edge.Now, new HoldReport("none", (long)edge.Time.GetElapsedTime(began).TotalMicroseconds, 0, 0), stayed);
        }
        catch (FlipException e)
        {
            return new ClearFailed(edge.Now, $"NEW connections could not be given back: {e.Message}; {PairEdge.Holds(order.From)}.");
        }
    }

    private async Task ProveFallbackAsync(ProveFallback prove, CancellationToken stop)
    {
        string? why;
        if (edge.Options.Redirect.Method == RedirectMethod.Listener) EndUndo();
        try
        {
            (ImmutableArray<Service> services, ImmutableArray<string> paths) =
                await Start.ServicesAsync(prove.Active, Fallback.Services, Fallback.Paths, state(), stop);
            why = await Fallback.ProveAsync(
                prove.Run, services, paths,
                question => Tell("progress", "releasing", question), stop);
        }
        catch (FlipException e)
        {
            why = e.Message;
        }
        post(why is null
            ? new FallbackProven(edge.Now, prove.Run.Id)
            : new FallbackFailed(edge.Now, prove.Run.Id, $"{why}; {PairEdge.Holds(prove.Active)}."));
    }

    /// <summary>Its failure is not the switch's: a server at low priority serves all the same.</summary>
    private void Hurry(Generation generation)
    {
        try
        {
            ProcessIdentity.Of(generation).SetNiceness(0);
            // One that chose a priority of its own keeps it.
            foreach (ProcessIdentity member in ProcessFamily.Of(generation.Pid).Skip(1).Where(p => p.IsNicest)) member.SetNiceness(0);
        }
        catch (KernelException e)
        {
            edge.Log.LogWarning("pair {Pair}: {Generation} stays at low priority: {Why}",
                edge.Name, generation, e.Message);
        }
    }

    private static string Sentence(Switch order, string why) =>
        $"NEW connections could not be moved to {order.To}: {why}; {PairEdge.Holds(order.From)}.";

    private void Tell(string kind, string phase, string text, FlipRecord? flip = null) =>
        edge.Notices.Post(new PairNotice(edge.Now, edge.Name, kind, phase, text, flip));

    private void Write(FlipRecord flip)
    {
        try
        {
            edge.Store.Append(flip);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            edge.Log.LogError("pair {Pair}: flip {Flip} cannot be written to the history: {Why}", edge.Name, flip.Id, e.Message);
        }
        string text = flip.Outcome switch
        {
            "done" when flip.Trigger == "release" => $"release {flip.Id}: NEW connections go to the unmanaged HAProxy "
                + $"({flip.OldSideConnections ?? 0} connections stay on generation {flip.From})",
            "done" => $"flip {flip.Id}: NEW connections go to generation {flip.To} "
                + $"(window {flip.Hold?.WindowUs} us, {flip.OldSideConnections ?? 0} connections stay on the old side)",
            _ => $"flip {flip.Id} {flip.Outcome}: {flip.Error ?? flip.Reason}",
        };
        LogLevel level = flip.Outcome is "failed" or "returned" ? LogLevel.Warning : LogLevel.Information;
        edge.Log.Log(level, new EventId(111, "Flip"), "pair {Pair}: {Flip}", edge.Name, text);
        Tell("flip", state().Phase.Name, text, flip);
        Slot? slot = state().Active?.Slot;
        if (flip.Outcome == "done" && state().IsAdopted) Relieve();
        Beside($"hook {flip.Id} {flip.Outcome}", stop => _hooks.FlippedAsync(flip, slot, stop));
    }

    /// <summary>At rest, removes what belongs to nobody, and gives back the memory the flip took.</summary>
    public void Sweep(PairState now) => Beside("sweep", async stop =>
    {
        // What is being made has no owner in the state yet, or no longer; it is cleaned up when that has ended.
        await Leave.SweepAsync(now, n => _running.ContainsKey(PrepareKey(n)), stop);
        Memory.GiveBack();
    });

    private void Beside(string key, Func<CancellationToken, Task> work)
    {
        lock (_closing)
        {
            // A death may be told a moment after the pair was let go: its next owner finds it dead.
            if (_closed) return;
            Cease(key);
            var running = new Running(CancellationTokenSource.CreateLinkedTokenSource(_stop.Token));
            _running[key] = running;
            _unfinished[running] = true;
            CancellationToken stop = running.Stop.Token;
            running.Task = Task.Run(() => CarryAsync(key, running, work, stop));
        }
    }

    /// <summary>A step of a generation's way out that fails is done again for as long as it is on its way: nobody else would do it.</summary>
    private void BesideUntilGone(string key, Generation generation, Func<CancellationToken, Task> work) => Beside(key, async stop =>
    {
        for (TimeSpan pause = s_firstRetry; ; pause = pause * 2 < s_longestRetry ? pause * 2 : s_longestRetry)
        {
            try
            {
                await work(stop);
                return;
            }
            catch (Exception e) when (!stop.IsCancellationRequested && state().Retired.Any(r => r.Generation == generation))
            {
                edge.Log.LogError(e, "pair {Pair}: {Work} failed and is tried again in {Pause} s", edge.Name, key, pause.TotalSeconds);
            }
            await Task.Delay(pause, edge.Time, stop);
        }
    });

    private async Task CarryAsync(string key, Running running, Func<CancellationToken, Task> work, CancellationToken stop)
    {
        try
        {
            await work(stop);
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            // Replaced, or the daemon stops: whoever cancelled knows.
        }
        catch (Exception e)
        {
            // A task of ours must not vanish with its reason, nor leave the machine waiting for it.
            edge.Log.LogError(e, "pair {Pair}: {Work} failed unexpectedly", edge.Name, key);
            if (state().Phase is Gating gating && key == "prove")
                post(new GateFailed(edge.Now, gating.Candidate.Number, $"the gate failed unexpectedly: {e.Message}"));
            if (state().Phase is Releasing releasing && key == "fallback")
                post(new FallbackFailed(edge.Now, releasing.Run.Id, $"the unmanaged HAProxy could not be proven: {e.Message}"));
            if (state().Retired.FirstOrDefault(r => key == $"deliver {r.Generation.Number}") is { } gone) post(Died(gone.Generation));
            if (state().Phase is Preparing preparing && key == PrepareKey(preparing.Run.Number))
                post(new PrepareFailed(edge.Now, preparing.Run.Number, $"the standby failed unexpectedly: {e.Message}"));
        }
        finally
        {
            // Whoever takes it out of the dictionary disposes it; else _stop would remember each for as long as the pair lives.
            if (_running.TryRemove(new KeyValuePair<string, Running>(key, running))) running.Stop.Dispose();
            _unfinished.TryRemove(running, out _);
        }
    }

    private static string PrepareKey(int number) => $"prepare {number}";

    private void Cease(string key)
    {
        if (!_running.TryRemove(key, out Running? old)) return;
        old.Stop.Cancel();
        old.Stop.Dispose();
    }

    private sealed class Running(CancellationTokenSource stop)
    {
        public CancellationTokenSource Stop { get; } = stop;
        public Task Task { get; set; } = Task.CompletedTask;
    }

    public async ValueTask DisposeAsync()
    {
        lock (_closing) _closed = true;
        await _stop.CancelAsync();
        await _serverState.SaveAsync(state().Active, CancellationToken.None);
        await Task.WhenAll(_unfinished.Keys.Select(r => r.Task));
        Drains.Dispose();
        _ledger?.Dispose();
        // The watch is everybody's and outlives a reload: what this pair's next owner follows must not be told to this one as well.
        foreach (ProcessIdentity process in _followed.Values) edge.Deaths.Remove(process);
        _stop.Dispose();
    }
}
