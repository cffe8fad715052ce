using System.Collections.Immutable;
using FlipController.Core.Machine;

namespace FlipController.Core.Tests;

/// <summary>
/// The machine's surroundings as plain values: processes that can die, one rule in the kernel, files on disk, effects that end
/// well, badly or never, and a controller that can be killed between any two of them. Every rule a trace must keep is checked here.
/// </summary>
internal sealed class World
{
    private sealed class Process
    {
        public required string Content;
        public bool Alive = true;
        public bool Proven;
        /// <summary>It has been told to stop listening.</summary>
        public bool Stopped;
        public bool DeathTold;
    }

    private readonly Dictionary<int, Process> _processes = [];
    private readonly List<Effect> _outstanding = [];
    private readonly Queue<PairEvent> _undelivered = [];
    private DateTimeOffset _now = DateTimeOffset.UnixEpoch;
    private int _disk = 1;
    private int _lastRead;
    private bool _rolledBack;
    private bool _fallbackProven;
    private int? _redirect;
    private long _request;
    private readonly HashSet<long> _unanswered = [];

    public PairState State { get; private set; } = PairState.Initial("edge");

    public HashSet<PhaseKind> Visited { get; } = [];

    public World() => Restart(crashAfter: int.MaxValue);

    /// <summary>One step of a random trace.</summary>
    public void Step(byte action, byte argument)
    {
        _now += TimeSpan.FromSeconds(1);
        switch (action % 20)
        {
            case 0 or 1:
                _disk++;
                Deliver(new FlipAsked(_now, Files()));
                break;
            case 2:
                _unanswered.Add(++_request);
                Deliver(new FlipAsked(_now, new FlipWish(FlipTrigger.Operator, "test", argument % 2 == 0, null, null, [_request])));
                break;
            case 3:
                _unanswered.Add(++_request);
                Deliver(new RollbackAsked(_now, null, _request));
                break;
            case 4 or 5 or 6 or 7:
                Complete(argument, well: true);
                break;
            case 8:
                Complete(argument, well: false);
                break;
            case 9:
                Kill(argument);
                break;
            case 10:
                if (argument % 3 == 0) Restart(argument % 5);
                break;
            case 12:
                _unanswered.Add(++_request);
                Deliver(new ReleaseAsked(_now, null, _request));
                break;
            case 13:
                _unanswered.Add(++_request);
                Deliver(new FlipAsked(_now, new FlipWish(FlipTrigger.Adopt, "test", true, null, null, [_request])));
                break;
            case 14:
                _unanswered.Add(++_request);
                DrainWish wish = (argument % 4) switch
                {
                    0 => new(Slot.Blue, null, null, argument % 8 == 0, argument % 3 == 0, null, [_request]),
                    1 => new(Slot.Green, null, TimeSpan.FromMinutes(1), argument % 8 == 1, argument % 3 == 0, null, [_request]),
                    2 => new(null, State.Active?.Number, null, argument % 8 == 2, false, null, [_request]),
                    _ => new(null, null, TimeSpan.FromMinutes(1), false, false, null, [_request]),
                };
                Deliver(new DrainAsked(_now, wish));
                break;
            case 15:
                _unanswered.Add(++_request);
                Deliver(new DrainCancelled(_now, null, _request));
                break;
            case 16:
                Undrain();
                break;
            case 17: // somebody else flushes the ruleset
                _redirect = null;
                Deliver(new RulesChanged(_now));
                break;
            case 18:
                if (State.Active is { } silent) Deliver(new FoundSilent(_now, silent.Number, "does not answer"));
                break;
            case 19: // keepalived's state, or the peer's word for some files
                Deliver(new RestraintChanged(_now, (argument % 3) switch
                {
                    0 => new FlipRestraint("BACKUP"),
                    1 => new FlipRestraint("MASTER", Files().ContentSha256),
                    _ => null,
                }));
                break;
            case 11:
                if (State.Retired.Length > 0)
                    Deliver(new DrainDue(_now, State.Retired[argument % State.Retired.Length].Generation.Number));
                break;
        }
        Tell();
    }

    /// <summary>Everything ends well from here on, windows elapse, and the pair must come to rest where it should be.</summary>
    public void Converge()
    {
        Undrain();
        Deliver(new RestraintChanged(_now, null));
        for (int i = 0; i < 200; i++)
        {
            Tell();
            if (_outstanding.Count == 0) break;
            _now += TimeSpan.FromSeconds(1);
            Complete(0, well: true);
        }
        Tell();
        Must(_outstanding.Count == 0, "the pair never comes to rest");
        Must(State.Drain is null, "a drain still waits at rest");
        Must(State.HeldSlot is null || State.Active?.Slot != State.HeldSlot, "the active generation is in the held slot");
        Must(State.Pending is null, "a change still waits at rest");
        Must(_unanswered.Count == 0, $"callers without an answer: {string.Join(",", _unanswered)}");
        if (State.Phase.Kind == PhaseKind.Released)
        {
            Must(_redirect is null && State.Active is null, $"released, and yet the rule names {_redirect}, the state {State.Active}");
            return;
        }
        Must(State.Phase.Kind == PhaseKind.Steady, $"rests in {State.Phase.Kind}");
        Must(State.Active is { } a && _processes[a.Number] is { Alive: true, Stopped: false }, "rests with no living active generation");
        Must(_redirect == State.Active!.Number, $"the rule names {_redirect}, the state {State.Active}");
        Must(_rolledBack || _lastRead == _disk || State.Active.ContentSha256 == Sha(_disk) || State.LeftContent == Sha(_disk), $"content {_disk} was never tried, the last read is {_lastRead}");
    }

    private void Undrain()
    {
        _unanswered.Add(++_request);
        Deliver(new Undrained(_now, null, _request));
    }

    private FlipWish Files()
    {
        _rolledBack = false;
        return new FlipWish(FlipTrigger.Files, null, false, Sha(_disk), null, []);
    }

    private static string Sha(int content) => $"sha-{content}";

    private void Restart(int crashAfter)
    {
        // What was outstanding dies with the controller; a process that was being started may be left over, half made.
        _outstanding.Clear();
        _undelivered.Clear();
        _unanswered.Clear();
        foreach (Process p in _processes.Values) p.DeathTold |= !p.Alive;
        ImmutableHashSet<int> alive = [.. State.Generations.Select(g => g.Number).Where(n => _processes.TryGetValue(n, out Process? p) && p.Alive)];
        Deliver(new Restarted(_now, alive, _redirect, 2), crashAfter);
    }

    private void Deliver(PairEvent e, int crashAfter = int.MaxValue)
    {
        PairState before = State;
        Decision decision = PairMachine.Decide(State, e);
        if (decision is Denied && e is RollbackAsked denied) _unanswered.Remove(denied.Request);
        if (decision is Denied && e is ReleaseAsked refused) _unanswered.Remove(refused.Request);
        if (decision is Denied && e is DrainAsked { Wish.Requests: [var drain] }) _unanswered.Remove(drain);
        if (decision is Denied && e is DrainCancelled cancel) _unanswered.Remove(cancel.Request);
        if (decision is Denied && e is FlipAsked { Wish.Requests: [var flip] }) _unanswered.Remove(flip);
        if (decision is not Next next) return;
        State = next.State;
        Must(State.HeldSlot is not { } shut || State.Phase is not Preparing preparing || preparing.Run.Slot != shut, "a standby is made in the held slot");
        Must(State is not { Active: not null, Phase: Preparing { Run.Wish: var begun } } || before.Phase is Preparing || State.Restraint?.HoldsBack(begun) != true,
            "a changed file flips while it is held back");
        Visited.Add(State.Phase.Kind);
        bool nothingMoved = e is PrepareFailed or GateFailed or Prepared
            || (e is GenerationDied died && died.Number == before.Phase.Standby?.Number);
        foreach (Effect effect in next.Effects)
        {
            if (crashAfter-- == 0)
            {
                Restart(int.MaxValue);
                return;
            }
            if (nothingMoved && before.Active is { } active) MustNotTouch(effect, active.Number, e);
            Run(effect);
        }
        if (e is RollbackAsked) _rolledBack = true;
    }

    private static void MustNotTouch(Effect effect, int active, PairEvent e)
    {
        int? touched = effect switch
        {
            Retire r => r.Generation.Number,
            Close c => c.Generation.Number,
            Discard d => d.Number,
            _ => null,
        };
        Must(touched != active, $"{e.Kind} leads to {effect} of the active generation");
    }

    private void Run(Effect effect)
    {
        switch (effect)
        {
            case Switch s:
                Must(!_outstanding.OfType<Switch>().Any(), "two switches at once");
                Must(_processes[s.To.Number] is { Stopped: false, DeathTold: false }, $"switch to {s.To}, which cannot serve");
                Must(_processes[s.To.Number].Proven, $"switch to {s.To}, which was never proven");
                _outstanding.Add(s);
                break;
            case Prove p:
                _outstanding.RemoveAll(o => o is Prove old && old.Candidate.Number == p.Candidate.Number);
                _outstanding.Add(p);
                break;
            case Unwatch:
                _outstanding.RemoveAll(o => o is Watch);
                break;
            case ClearRedirect c:
                Must(c.From is null || _fallbackProven, "NEW connections are given to a server that was not proven");
                Must(_redirect is not { } served || c.From?.Number == served || _processes[served].DeathTold, $"cleared from under {_redirect}");
                _fallbackProven = false;
                _redirect = null;
                _undelivered.Enqueue(new Cleared(_now, new HoldReport("none", 90, 0, 0), 3));
                break;
            case Prepare or Watch or RetryLater or ProveFallback:
                _outstanding.Add(effect);
                break;
            case Retire r:
                MustNotServe(r.Generation.Number, effect);
                Must(_processes.ContainsKey(r.Generation.Number), "retires what never was");
                _processes[r.Generation.Number].Stopped = true;
                if (!_outstanding.OfType<Retire>().Any(o => o.Generation.Number == r.Generation.Number)) _outstanding.Add(r);
                break;
            case Close c:
                MustNotServe(c.Generation.Number, effect);
                Die(c.Generation.Number);
                break;
            case Discard d:
                MustNotServe(d.Number, effect);
                Die(d.Number);
                break;
            case Answer a:
                foreach (long request in a.Requests) _unanswered.Remove(request);
                break;
            case AnswerDrain d:
                foreach (long request in d.Requests) _unanswered.Remove(request);
                break;
            case Inspect i:
                Must(i.Active == State.Active && State.Phase is not (Switching or Returning or Restoring), "looks at a rule that is being changed");
                Must(!_outstanding.OfType<Switch>().Any(), "looks at a rule while it is switched");
                _redirect = i.Active.Number;
                break;
            case Record:
                _undelivered.Enqueue(new RulesChanged(_now));
                break;
            case Drained:
                break;
            default:
                throw new InvalidOperationException($"the model does not know {effect}");
        }
    }

    private void MustNotServe(int number, Effect effect) =>
        Must(_redirect != number || !_processes.TryGetValue(number, out Process? p) || !p.Alive || OtherIsComing(number),
            $"{effect.GetType().Name} of generation {number}, to which NEW connections go");

    /// <summary>After a lost reply the rule may name what the machine left already; it must be on its way to another.</summary>
    private bool OtherIsComing(int number) => _outstanding.OfType<Switch>().Any(s => s.To.Number != number);

    private void Complete(byte which, bool well)
    {
        if (_outstanding.Count == 0) return;
        Effect effect = _outstanding[which % _outstanding.Count];
        _outstanding.Remove(effect);
        switch (effect)
        {
            case Prepare p when well:
                string content = p.Run.Wish.FromGeneration is { } number ? _processes[number].Content : Sha(_disk);
                if (p.Run.Wish.FromGeneration is null) _lastRead = _disk;
                if (p.Run.Wish.Trigger == FlipTrigger.Files && content == p.Active?.ContentSha256)
                {
                    Deliver(new PrepareFailed(_now, p.Run.Number, "", Unchanged: true));
                    break;
                }
                _processes[p.Run.Number] = new Process { Content = content };
                Deliver(new Prepared(_now, new Generation(p.Run.Number, p.Run.Slot, 1000 + p.Run.Number, 1, "boot", content, content, _now, [], p.Run.Number, "2.6")));
                break;
            case Prepare p:
                if (p.Run.Wish.FromGeneration is null) _lastRead = _disk;
                Deliver(new PrepareFailed(_now, p.Run.Number, "haproxy -c said no"));
                break;
            case Prove p when well && _processes[p.Candidate.Number].Alive:
                _processes[p.Candidate.Number].Proven = true;
                Deliver(new GatePassed(_now, p.Candidate.Number));
                break;
            case Prove p:
                Deliver(new GateFailed(_now, p.Candidate.Number, "be/s1 is DOWN"));
                break;
            case Switch s when well:
                _redirect = s.To.Number;
                // Half of the time the controller dies with the transaction done and the answer untold.
                if (which % 16 == 15) Restart(int.MaxValue);
                else Deliver(new Switched(_now, s.To.Number, new HoldReport("none", 90, 0, 0), 3));
                break;
            case Switch s:
                Deliver(new SwitchFailed(_now, s.To.Number, "EBUSY"));
                break;
            case Watch w when well:
                Deliver(new UndoElapsed(_now, w.Current.Number));
                break;
            case Watch w:
                _outstanding.Add(w);
                Deliver(new WorseFound(_now, w.Current.Number, "5xx"));
                break;
            case ProveFallback f when well:
                _fallbackProven = true;
                Deliver(new FallbackProven(_now, f.Run.Id));
                break;
            case ProveFallback f:
                Deliver(new FallbackFailed(_now, f.Run.Id, "nobody listens on *:80"));
                break;
            case RetryLater r:
                Deliver(new RetryDue(_now, r.Ticket));
                break;
            case Retire retired:
                Die(retired.Generation.Number);
                break;
        }
    }

    private void Kill(byte which)
    {
        int[] living = [.. _processes.Where(p => p.Value.Alive).Select(p => p.Key).Order()];
        if (living.Length > 0) Die(living[which % living.Length]);
    }

    private void Die(int number)
    {
        if (!_processes.TryGetValue(number, out Process? process) || !process.Alive) return;
        process.Alive = false;
        _outstanding.RemoveAll(o => o is Retire r && r.Generation.Number == number);
        _undelivered.Enqueue(new GenerationDied(_now, number, "was killed by signal 9"));
    }

    private void Tell()
    {
        while (_undelivered.TryDequeue(out PairEvent? e))
        {
            if (e is GenerationDied died) _processes[died.Number].DeathTold = true;
            Deliver(e);
        }
    }

    private static void Must(bool holds, string otherwise)
    {
        if (!holds) throw new InvalidOperationException(otherwise);
    }
}
