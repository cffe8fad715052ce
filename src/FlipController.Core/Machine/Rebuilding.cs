using System.Collections.Immutable;

namespace FlipController.Core.Machine;

/// <param name="Listens">It was not told to stop.</param>
public sealed record LivingGeneration(Generation Generation, bool Listens);

/// <summary>What is there of a pair, whatever its saved state says.</summary>
/// <param name="Living">Each with what it was started with.</param>
/// <param name="RedirectTo">The generation the kernel's rule names; null: there is no rule.</param>
/// <param name="HighestNumber">The highest generation number that anything bears: a process, a directory, a chain, the history; 0: nothing does.</param>
/// <param name="History">Oldest first.</param>
/// <param name="IsAdopted">NEW connections were once taken over from an unmanaged server.</param>
public sealed record PairRemains(
    ImmutableArray<LivingGeneration> Living, int? RedirectTo, int HighestNumber, ImmutableArray<FlipRecord> History, bool IsAdopted, DateTimeOffset At);

/// <summary>A state that is lost, unreadable or older than what is there is made again from what is there.</summary>
public static class Rebuilding
{
    /// <summary>A number is saved before anything bears it: what bears a higher one came after this was saved.</summary>
    public static bool IsOutdated(PairState saved, PairRemains there) => there.HighestNumber > saved.LastNumber;

    /// <summary>
    /// Who has the NEW connections keeps them; every other living generation is one that drains. What nothing but the lost state knew is
    /// gone with it: an open undo window, a wish that waited, a drain's deadline, which begins anew.
    /// </summary>
    public static PairState Rebuild(string pair, PairRemains there)
    {
        LivingGeneration? active = there.Living.FirstOrDefault(l => l.Generation.Number == there.RedirectTo)
            ?? there.Living.Where(l => l.Listens).MaxBy(l => l.Generation.Number);
        FlipRecord? last = there.History.IsEmpty ? null : there.History[^1];
        return PairState.Initial(pair) with
        {
            LastNumber = there.HighestNumber,
            LastFlipId = there.History.Select(f => f.Id).DefaultIfEmpty().Max(),
            Active = active?.Generation,
            Retired = [.. there.Living.Where(l => l != active).Select(l => l.Generation).OrderBy(g => g.Number).Select(g => new RetiredGeneration(g, there.At))],
            LastFlip = last,
            LastGood = active?.Generation.Number,
            BeforeLast = there.History.LastOrDefault(f => f.Outcome == "done" && f.To == active?.Generation.Number)?.From,
            IsAdopted = there.IsAdopted,
            Phase = there.Living.IsEmpty ? new Cold() : new Steady(),
        };
    }
}
