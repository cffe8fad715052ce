using System.Diagnostics;

namespace FlipController.Linux.Kernel;

/// <summary>
/// How often the whole table may be asked for: events lost again and again must not become one dump after the other. Stopwatch ticks;
/// for the ledger's thread alone.
/// </summary>
internal sealed class LedgerPace
{
    private const int RepairPerDump = 20;

    /// <summary>So many times as long as a dump takes nothing is repeated that events do not tell: a hundredth of a core.</summary>
    internal int LookAgainPerDump { get; init; } = 100;

    // A walk keeps one processor's packets waiting until it has filled its next 32 KiB, with few matches to its end: some 0.3 us an entry
    // (local_bh_disable() in ctnetlink_dump_table(), net/netfilter/nf_conntrack_netlink.c).
    internal TimeSpan LookAgain { get; init; } = TimeSpan.FromSeconds(10);
    internal TimeSpan Repair { get; init; } = TimeSpan.FromMilliseconds(250);
    internal TimeSpan AfterFailure { get; init; } = TimeSpan.FromSeconds(10);

    internal long MayRepairAt { get; private set; }
    internal long MayLookAgainAt { get; private set; }

    internal void Dumped(TimeSpan took)
    {
        MayRepairAt = After(Longer(Repair, took * RepairPerDump));
        MayLookAgainAt = After(Longer(LookAgain, took * LookAgainPerDump));
    }

    internal void Failed() => MayRepairAt = After(AfterFailure);

    internal int MillisecondsUntil(long instant) =>
        (int)Math.Max(0, Math.Ceiling(Stopwatch.GetElapsedTime(Stopwatch.GetTimestamp(), instant).TotalMilliseconds));

    private static long After(TimeSpan time) => Stopwatch.GetTimestamp() + (long)(time.TotalSeconds * Stopwatch.Frequency);

    private static TimeSpan Longer(TimeSpan a, TimeSpan b) => a > b ? a : b;
}
