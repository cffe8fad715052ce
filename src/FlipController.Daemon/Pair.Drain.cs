using System.Collections.Immutable;
using System.Globalization;
using FlipController.Core;
using FlipController.Core.Machine;

namespace FlipController.Daemon;

/// <summary>Draining by hand, and who is connected.</summary>
internal sealed partial class Pair
{
    /// <exception cref="UsageException">The request names no slot and no generation there ever was.</exception>
    public async Task<DrainAnswer> DrainAsync(DrainRequest request)
    {
        DrainWish wish = WishOf(request);
        if (request.DryRun) return new DrainAnswer(Name, null, DrainPlan.Steps(State, wish, Options, _edge.Now));
        DrainRecord drain = await _loop.AskAsync<DrainRecord>(id => new DrainAsked(_edge.Now, wish with { Requests = [id] }));
        return new DrainAnswer(Name, drain);
    }

    private DrainWish WishOf(DrainRequest request)
    {
        Slot? slot = request.Target switch { "blue" => Slot.Blue, "green" => Slot.Green, _ => null };
        int? number = null;
        if (request.Target is { } target && slot is null)
        {
            if (!int.TryParse(target, NumberStyles.None, CultureInfo.InvariantCulture, out int n) || n < 1 || n > State.LastNumber)
                throw new UsageException($"pair {Name}: cannot drain \"{target}\": it must be blue, green or the number of a generation, "
                    + $"1 to {State.LastNumber}; nothing was done");
            number = n;
        }
        if (request.HoldSlot && slot is null && number is null)
            throw new UsageException($"pair {Name}: which slot is to be held must be said: blue, green, or a generation in it; nothing was done");
        TimeSpan? deadline = null;
        if (request.Deadline is { } text)
        {
            if (!Durations.TryParse(text, out TimeSpan d) || d > TimeSpan.FromHours(24))
                throw new UsageException($"pair {Name}: the deadline \"{text}\" must be a duration such as 30s, 10m or 1h, at most 24h; nothing was done");
            deadline = d;
        }
        return new DrainWish(slot, number, deadline, request.HoldSlot, request.SkipUndo, request.Reason, []);
    }

    public async Task<DrainAnswer> CancelDrainAsync(UndrainRequest request)
    {
        Slot? held = State.HeldSlot;
        DrainRecord drain = await _loop.AskAsync<DrainRecord>(id => new DrainCancelled(_edge.Now, request.Reason, id));
        PairState now = State;
        int[] leaving = [.. now.Retired.Select(r => r.Generation.Number).Where(drain.Generations.Contains)];
        string? remark = leaving.Length > 0
            ? $"generation {string.Join(", ", leaving)} has stopped listening already and goes on leaving, with the configured deadline"
            : now.Phase switch
            {
                Switching { Run.Wish.Trigger: FlipTrigger.Drain } w => $"NEW connections move to {w.Candidate} at this moment; `flipctl rollback {Name}` returns them",
                Watching { Undo.Run.Wish.Trigger: FlipTrigger.Drain } w =>
                    $"NEW connections go to {now.Active} already; within its undo window `flipctl rollback {Name}` returns them to {w.Undo.Previous}",
                _ => null,
            };
        if (held is not null && now.HeldSlot is null)
            remark = $"{(remark is null ? "" : remark + "; ")}the {held.Value.Name()} slot is not held any more";
        return new DrainAnswer(Name, drain, Remark: remark);
    }

    public async Task<DrainAnswer> UndrainAsync(UndrainRequest request) =>
        new(Name, await _loop.AskAsync<DrainRecord>(id => new Undrained(_edge.Now, request.Reason, id)));

    public Task<ConnectionsReport> ConnectionsAsync(ConnectionsRequest request, CancellationToken stop) =>
        _effects.Ledger.ConnectionsAsync(request.Query, request.Generation, stop);

    /// <summary>What was begun is finished when whoever asked for it has gone.</summary>
    public Task<CloseAnswer> CloseAsync(CloseRequest request, CancellationToken stop) =>
        _effects.Ledger.CloseAsync(ConnectionsRequest.Of(request), request.Generation, request.Force, stop);

    /// <summary>How a generation left or leaves; null: nothing is kept of that.</summary>
    public DrainCurve? Drain(int generation) => _effects.Drains.Find(generation)?.Curve() ?? _edge.Drains.Read(generation);

    public DrainsReport AllDrains()
    {
        Dictionary<int, DrainCurve> kept = _edge.Drains.All().ToDictionary(c => c.Generation);
        foreach (Generation generation in State.Generations)
            if (_effects.Drains.Find(generation.Number) is { } leaving) kept[generation.Number] = leaving.Curve();
        return new DrainsReport(Name, [.. kept.Values.OrderBy(c => c.Generation).Select(c => c with { Samples = [] })]);
    }
}

/// <summary>What was asked for makes no sense, whatever the state.</summary>
public sealed class UsageException(string sentence) : FlipException(sentence);
