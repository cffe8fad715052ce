using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;
using FlipController.Linux.State;

namespace FlipController.Daemon;

/// <summary>Where a pair goes on from: its saved state, or, when that is lost, unreadable or outdated, what is there.</summary>
internal static class Recovery
{
    /// <param name="clockSetBy">By how much the clock was set since what is saved was saved; what is made again is of the clock as it is.</param>
    public static PairState Load(PairEdge edge, TimeSpan clockSetBy)
    {
        PairState? saved = edge.Store.Read(out string? broken)?.Shifted(clockSetBy);
        PairRemains there = Look(edge);
        if (saved is not null && !Rebuilding.IsOutdated(saved, there))
        {
            if (clockSetBy != TimeSpan.Zero) Keep(edge, saved); // the next start knows nothing of this step
            return saved;
        }
        if (saved is null && broken is null && there.HighestNumber == 0) return PairState.Initial(edge.Name);
        PairState rebuilt = Rebuilding.Rebuild(edge.Name, there);
        edge.Log.LogWarning(new EventId(122, "Rebuilt"),
            "pair {Pair}: {Why}. It was made again from what is there: {Active} has the NEW connections, [{Retired}] drain, the last flip was {Flip}; "
            + "an open undo window and what waited to be done are lost",
            edge.Name,
            broken ?? (saved is null ? "its saved state is gone" : $"its saved state knows of no generation after {saved.LastNumber}, and there is {there.HighestNumber}"),
            rebuilt.Active?.ToString() ?? "nobody of the pair", string.Join(", ", rebuilt.Retired.Select(r => r.Generation.Number)), rebuilt.LastFlipId);
        Keep(edge, rebuilt);
        return rebuilt;
    }

    /// <summary>Its failure is no reason not to serve.</summary>
    private static void Keep(PairEdge edge, PairState state)
    {
        try
        {
            edge.Store.Save(state);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            edge.Log.LogWarning("pair {Pair}: the state it goes on from cannot be saved yet: {Why}", edge.Name, e.Message);
        }
    }

    /// <summary>What can be made again when the state is lost; its failure is no reason not to serve.</summary>
    public static void Note(PairEdge edge, Generation generation)
    {
        GenerationPlace place = edge.PlaceOf(generation.Number);
        var note = new GenerationNote(edge.Mark.PairIndex, generation);
        if (note.IsIn(place)) return;
        try
        {
            note.Write(place);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            edge.Log.LogWarning("pair {Pair}: what {Generation} was started with cannot be noted: {Why}", edge.Name, generation, e.Message);
        }
    }

    public static IReadOnlyDictionary<string, int> IndexesInUse(Configuration configuration)
    {
        Dictionary<string, int> indexes = new(StringComparer.Ordinal);
        foreach (string pair in configuration.Pairs.Keys)
            if (GenerationNote.Living(configuration.Runtime, pair) is [.., var newest]) indexes[pair] = newest.PairIndex;
        return indexes;
    }

    private static PairRemains Look(PairEdge edge)
    {
        ImmutableArray<GenerationNote> living = GenerationNote.Living(edge.Runtime, edge.Name);
        using var sockets = new SockDiag();
        HashSet<int> listening = [.. sockets.Listeners().Concat(sockets.Receivers()).Select(l => l.Local.Port)];
        ImmutableArray<FlipRecord> history = edge.Store.History();
        RedirectState rules = edge.Redirect.ReadAll();
        int highest = GenerationPlace.Numbers(edge.Runtime, edge.Name).Concat(rules.Pairs.GetValueOrDefault(edge.Name)?.Generations.Keys ?? [])
            .Concat(history.SelectMany(f => new[] { f.From ?? 0, f.To ?? 0 })).Append(edge.Store.HighestSnapshot()).Max();
        return new PairRemains(
            [.. living.Select(n => new LivingGeneration(n.Generation, UnixQueues.Listens(n.Generation)
                || (n.Generation.IsOnFronts ? PairEdge.Listens(n.Generation) : n.Generation.Ports.Any(p => listening.Contains(p.PrivatePort)))))],
            rules.Active(edge.Name), highest, history, edge.Store.ReadAdoption() is not null, edge.Now);
    }
}
