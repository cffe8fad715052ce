using System.Collections.Immutable;
using FlipController.Core;

namespace FlipController.Daemon;

/// <summary>
/// What rules of others do to this pair, for its status. Looked at when that is asked for, if they have changed since: a host whose
/// rules nobody changes pays for one look.
/// </summary>
internal sealed class OthersRules(PairEdge edge)
{
    /// <summary>Where they change all the time, a look waits for so many times what the last one took, and not longer than this.</summary>
    private const int Pause = 20;
    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(10);

    private Seen? _seen;

    private sealed record Seen(long Changes, string Fronts, long Ended, TimeSpan Took, ImmutableArray<string> Warnings);

    /// <param name="fronts">Those of the active generation.</param>
    public ImmutableArray<string> Warnings(IReadOnlyCollection<Service> fronts)
    {
        Seen? seen = Volatile.Read(ref _seen);
        long changes = edge.Others.Changes; // what changes during the look is for the next one
        string these = string.Join(' ', fronts);
        if (seen is not null && seen.Fronts == these)
        {
            if (seen.Changes == changes) return seen.Warnings;
            TimeSpan pause = seen.Took * Pause < s_longestPause ? seen.Took * Pause : s_longestPause;
            if (edge.Time.GetElapsedTime(seen.Ended) < pause) return seen.Warnings;
        }
        // While NEW connections wait for a change of rules, nobody lists thousands of others beside it.
        if (!edge.HoldTurn.TryEnter()) return seen?.Warnings ?? [];
        edge.HoldTurn.Exit();
        long began = edge.Time.GetTimestamp();
        ImmutableArray<string> warnings;
        try
        {
            warnings = [.. edge.Others.Look(fronts, edge.Mark.Mask, edge.Redirect.Priority).Select(i => i.ToString())];
        }
        catch (FlipException e)
        {
            changes = -1; // it is looked at again
            warnings = [$"whether rules of others disturb the pair is not known: {e.Message}"];
        }
        Volatile.Write(ref _seen, new Seen(changes, these, edge.Time.GetTimestamp(), edge.Time.GetElapsedTime(began), warnings));
        return warnings;
    }
}
