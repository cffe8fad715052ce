using System.Collections.Concurrent;
using System.Threading.Channels;
using FlipController.Core;
using FlipController.Core.Machine;

namespace FlipController.Daemon;

/// <summary>
/// The one writer of a pair's state: reads an event, decides, saves, runs the effects in order, and gets their results back as
/// events. Effects that take long return at once and post later; nothing else calls the machine.
/// </summary>
/// <param name="save">Makes the state last; it is called before any effect of the decision runs.</param>
/// <param name="run">Carries out one effect.</param>
/// <param name="again">Gets a wish that could not be saved and that nobody waits for, to post it once more later.</param>
public sealed class PairLoop(
    PairState initial, Action<PairState> save, Func<Effect, ValueTask> run, NoticeBoard notices, ILogger log, Action<PairEvent> again)
{
    private readonly Channel<PairEvent> _events = Channel.CreateUnbounded<PairEvent>(new UnboundedChannelOptions { SingleReader = true });
    private readonly ConcurrentDictionary<long, TaskCompletionSource<object>> _waiting = new();
    private PairState _state = initial;
    private long _lastRequest = DateTime.UtcNow.Ticks; // Never one that a saved state may still name.

    private string? _unsaved;

    public PairState State => Volatile.Read(ref _state);

    /// <summary>Why the newest state is not on disk, in a sentence; null: it is.</summary>
    public string? Unsaved => Volatile.Read(ref _unsaved);

    /// <summary>Once the loop has ended nobody hears it: the next start looks at what is.</summary>
    public void Post(PairEvent e) => _events.Writer.TryWrite(e);

    /// <summary>
    /// Completes when the flip or drain has ended, however it ended; faults with <see cref="RefusedException"/> when it is denied.
    /// </summary>
    /// <typeparam name="T">The record that answers such an event.</typeparam>
    public async Task<T> AskAsync<T>(Func<long, PairEvent> ask) where T : class
    {
        long request = Interlocked.Increment(ref _lastRequest);
        TaskCompletionSource<object> waiting = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _waiting[request] = waiting;
        if (!_events.Writer.TryWrite(ask(request))) LetGo();
        return (T)await waiting.Task;
    }

    /// <param name="answer">The record each of them waits for.</param>
    public void Complete(IEnumerable<long> requests, object answer)
    {
        foreach (long request in requests)
            if (_waiting.TryRemove(request, out TaskCompletionSource<object>? waiting)) waiting.TrySetResult(answer);
    }

    public async Task RunAsync(CancellationToken stop)
    {
        try
        {
            await foreach (PairEvent e in _events.Reader.ReadAllAsync(stop)) await HandleAsync(e);
        }
        finally
        {
            // Before those who wait are told: whoever asks from now on sees that it is too late.
            _events.Writer.TryComplete();
            LetGo();
        }
    }

    private void LetGo()
    {
        foreach (TaskCompletionSource<object> waiting in _waiting.Values)
            waiting.TrySetException(new FlipException(
                $"pair {State.Pair}: the daemon stops, or has read its configuration again; what was under way goes on, and can be asked for again"));
    }

    private async Task HandleAsync(PairEvent e)
    {
        PairState before = _state;
        switch (PairMachine.Decide(before, e))
        {
            case Ignored ignored:
                Log.Ignored(log, before.Pair, e.Kind, before.Phase.Name, ignored.Why);
                break;
            case Denied denied:
                Log.Denied(log, before.Pair, e.Kind, before.Phase.Name, denied.Refusal.Sentence(before.Pair));
                foreach (long request in Requests(e))
                    Fail(request, new RefusedException($"pair {State.Pair}: {denied.Refusal.Sentence(before.Pair)}"));
                break;
            case Next next:
                if (!Saved(before, e, next)) return;
                Volatile.Write(ref _state, next.State);
                if (next.State.Phase.Kind != before.Phase.Kind)
                    Log.Moved(log, before.Pair, before.Phase.Name, e.Kind, next.State.Phase.Name, next.State.LastFlipId);
                Tell(before, e, next.State);
                foreach (Effect effect in next.Effects) await run(effect);
                break;
        }
    }

    /// <summary>
    /// A wish that cannot be written down is refused, as nobody could take it up again. What has happened already is acted on all
    /// the same: connections matter more than the note, and a restart compares the note with what is.
    /// </summary>
    private bool Saved(PairState before, PairEvent e, Next next)
    {
        try
        {
            if (next.State != before || Unsaved is not null) save(next.State);
            if (Interlocked.Exchange(ref _unsaved, null) is not null) Log.SavedAgain(log, before.Pair);
            return true;
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            const string remedy = "Make room or repair the state directory";
            string cannot = $"the state cannot be saved: {failure.Message}; no change begins. {remedy}";
            if (Interlocked.Exchange(ref _unsaved, cannot) != cannot) Log.NotSaved(log, before.Pair, failure.Message);
            foreach (long request in Requests(e)) Fail(request, new FlipException(
                $"pair {before.Pair}: the state cannot be saved: {failure.Message}; nothing was begun. {remedy}."));
            if (e is FlipAsked { Wish.Requests.IsEmpty: true }) again(e);
            return e is not (FlipAsked or RollbackAsked or ReleaseAsked or DrainAsked or DrainCancelled or Undrained);
        }
    }

    private static IEnumerable<long> Requests(PairEvent e) => e switch
    {
        FlipAsked f => f.Wish.Requests,
        RollbackAsked r => [r.Request],
        ReleaseAsked r => [r.Request],
        DrainAsked d => d.Wish.Requests,
        DrainCancelled c => [c.Request],
        Undrained u => [u.Request],
        _ => [],
    };

    private void Fail(long request, FlipException why)
    {
        if (_waiting.TryRemove(request, out TaskCompletionSource<object>? waiting)) waiting.TrySetException(why);
    }

    private void Tell(PairState before, PairEvent e, PairState after)
    {
        if (after.Phase.Kind != before.Phase.Kind) notices.Post(new PairNotice(e.At, after.Pair, "state", after.Phase.Name, Story(after)));
        if (after.Fault != before.Fault)
        {
            string text = after.Fault ?? "the fault is over";
            Log.Fault(log, after.Fault is null ? LogLevel.Information : LogLevel.Error, after.Pair, text);
            notices.Post(new PairNotice(e.At, after.Pair, "fault", after.Phase.Name, text));
        }
    }

    private static string Story(PairState s) => s.Phase switch
    {
        Preparing p => $"generation {p.Run.Number} ({p.Run.Slot.Name()}) is being made: {p.Run.Wish.Trigger.ToString().ToLowerInvariant()}",
        Gating g => $"{g.Candidate} is up and must prove itself",
        Switching w => $"NEW connections move to {w.Candidate}",
        Watching w => $"NEW connections go to {s.Active}; {w.Undo.Previous} stays warm",
        Returning r => $"NEW connections go back to {r.Target}: {r.Cause}",
        Restoring => $"the redirect is set to {s.Active} again",
        Steady => $"NEW connections go to {s.Active}",
        Faulted => $"nothing serves: {s.Fault}",
        Releasing { IsProven: true } => "NEW connections are given back to the unmanaged HAProxy",
        Releasing => "the unmanaged HAProxy must prove itself",
        Released => "NEW connections go to the unmanaged HAProxy",
        _ => s.Phase.Name,
    };

    private static class Log
    {
        public static void Moved(ILogger log, string pair, string from, PairEventKind e, string to, int flip) =>
            log.LogInformation(new EventId(100, "Moved"), "pair {Pair}: {From} + {Event} -> {To} (flip {Flip})", pair, from, e, to, flip);

        public static void Ignored(ILogger log, string pair, PairEventKind e, string state, string why) =>
            log.LogDebug(new EventId(101, "Ignored"), "pair {Pair}: {Event} ignored while {State}: {Why}", pair, e, state, why);

        public static void Denied(ILogger log, string pair, PairEventKind e, string state, string why) =>
            log.LogInformation(new EventId(102, "Denied"), "pair {Pair}: {Event} denied while {State}: {Why}", pair, e, state, why);

        public static void NotSaved(ILogger log, string pair, string why) =>
            log.LogError(new EventId(103, "NotSaved"), "pair {Pair}: the state cannot be saved: {Why}; no change begins until it can", pair, why);

        public static void SavedAgain(ILogger log, string pair) =>
            log.LogInformation(new EventId(105, "SavedAgain"), "pair {Pair}: the state can be saved again", pair);

        public static void Fault(ILogger log, LogLevel level, string pair, string fault) =>
            log.Log(level, new EventId(104, "Fault"), "pair {Pair}: {Fault}", pair, fault);
    }
}

/// <summary>Refused in this state: nothing is wrong, but not now.</summary>
public sealed class RefusedException(string sentence) : FlipException(sentence);
