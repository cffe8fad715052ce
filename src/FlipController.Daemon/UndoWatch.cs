using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux.Gate;
using FlipController.Linux.Haproxy;

namespace FlipController.Daemon;

/// <summary>
/// Compares both sides while the undo window is open. Posts WorseFound as long as the new side is worse, UndoElapsed at the end.
/// </summary>
/// <param name="gate">Asks what cannot be compared by counters.</param>
internal sealed class UndoWatch(PairEdge edge, Gate gate)
{
    private static readonly TimeSpan s_longestInterval = TimeSpan.FromSeconds(1), s_shortestInterval = TimeSpan.FromMilliseconds(100);

    public async Task RunAsync(Watch effect, Action<PairEvent> post, CancellationToken stop)
    {
        WatchOptions options = edge.Options.Watch;
        TimeSpan interval = TimeSpan.FromTicks(Math.Clamp(options.Undo.Ticks / 20, s_shortestInterval.Ticks, s_longestInterval.Ticks));
        long began = edge.Time.GetTimestamp();
        TimeSpan window = options.Undo - (edge.Now - effect.Undo.Since);
        Comparison compare = edge.AdminOf(effect.Undo.Previous) is { } old && edge.AdminOf(effect.Current) is { } current
            ? ByCounters(old, current) : ByProbes(effect.Undo.Previous, effect.Current);
        long? unequalSince = null;
        while (true)
        {
            try
            {
                (string? worse, string? unequal) = await compare(stop);
                unequalSince = unequal is null ? null : unequalSince ?? edge.Time.GetTimestamp();
                if (unequalSince is { } since && edge.Time.GetElapsedTime(since) >= options.ParityGrace)
                    worse ??= $"{unequal}, for {Durations.Format(options.ParityGrace)} now (watch.parity_grace)";
                if (worse is not null) await RuntimeContinuity.GoBackAsync(edge, effect.Current, effect.Undo.Previous, stop);
                if (worse is not null) post(new WorseFound(edge.Now, effect.Current.Number, worse));
            }
            catch (FlipException e)
            {
                // Neither side's silence proves the other better; a death is told by the kernel. What was unequal before it
                // is not known to be so still, and must not keep the window open for ever.
                unequalSince = null;
                edge.Log.LogDebug("pair {Pair}: the sides cannot be compared now: {Why}", edge.Name, e.Message);
            }
            // A server seen DOWN on the new side shortly before the end is waited for: it decides within the grace.
            if (edge.Time.GetElapsedTime(began) >= window && unequalSince is null) break;
            TimeSpan left = window - edge.Time.GetElapsedTime(began);
            await Task.Delay(left > TimeSpan.Zero && left < interval ? left : interval, edge.Time, stop);
        }
        post(new UndoElapsed(edge.Now, effect.Current.Number));
    }

    /// <summary>Why the new side is worse, for certain or if it stays so; null: it is not.</summary>
    private delegate Task<(string? Worse, string? Unequal)> Comparison(CancellationToken stop);

    private Comparison ByCounters(AdminSocket old, AdminSocket current)
    {
        SideCounters? before = null, atSwitch = null;
        return async stop =>
        {
            IReadOnlyList<StatRow> oldRows = await old.ShowStatAsync(stop), rows = await current.ShowStatAsync(stop);
            SideCounters now = Counters(rows);
            before ??= Counters(oldRows);
            atSwitch ??= now;
            string? unequal = edge.Options.Gate.Parity == ParityRule.All ? Gate.Missing(ServerState.Of(oldRows), ServerState.Of(rows)) : null;
            return (SideComparison.Judge(edge.Options.Watch, before, atSwitch, now), unequal);
        };
    }

    /// <summary>What has no counters is asked the gate's probes again; one that the old side does not answer either proves nothing.</summary>
    private Comparison ByProbes(Generation old, Generation current) => async stop =>
        (null, await gate.ProbeAsync(current, stop) is { } why && await gate.ProbeAsync(old, stop) is null
            ? $"{why}, which {old} answers" : null);

    private static SideCounters Counters(IReadOnlyList<StatRow> rows)
    {
        long requests = 0, answers5xx = 0, connectionErrors = 0;
        foreach (StatRow row in rows)
        {
            if (row.Kind == StatKind.Frontend)
            {
                requests += row["mode"] == "http" ? row.Requests : row.TotalSessions;
                answers5xx += row.Responses5xx;
            }
            else if (row.Kind == StatKind.Backend)
            {
                connectionErrors += row.ConnectionErrors;
            }
        }
        return new SideCounters(requests, answers5xx, connectionErrors);
    }
}
