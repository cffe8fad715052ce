using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using FlipController.Linux.Kernel;
using FlipController.Tests.Shared;

namespace FlipController.Benchmarks;

/// <summary>
/// What it costs to know who is still there: the first count over a table of a million entries against <c>conntrack -L | wc -l</c>, in
/// turns, in one run; then the ledger's thread while events come.
/// </summary>
internal static class LedgerBenchmark
{
    private const int Entries = 1_000_000, Few = 100; // one in so many is ours
    private const uint GenerationMask = 0x0fff0000, Ours = 0x01010000, Theirs = 0x01020000, PairMask = 0x0f000000, Pair = 0x01000000, Unfollowed = 0x02010000;
    private const int EventsPerSecond = 5000;
    private const int EventsPerTurn = 20;

    public static int Run(bool writeReadme, bool shortRun)
    {
        int rounds = shortRun ? 1 : 5;
        TimeSpan watched = TimeSpan.FromSeconds(shortRun ? 3 : 10);
        using Netns netns = Netns.Create();
        List<double> listed = [], few = [], all = [];
        double load = double.Parse(File.ReadAllText("/proc/loadavg").Split(' ')[0], CultureInfo.InvariantCulture);
        double ofOurs, ofOthers;
        long overflows;
        using (new RaisedLimit(Entries + 200_000))
        using (ConntrackEntries entries = netns.Run(() => new ConntrackEntries()))
        {
            Console.Error.WriteLine($"making {Entries} conntrack entries");
            entries.Add(0, Entries, i => i % Few == 0 ? Ours : Theirs);
            for (int round = 0; round <= rounds; round++) // the first one warms up, and is not counted
            {
                Console.Error.WriteLine(round == 0 ? "warming up" : $"round {round} of {rounds}");
                double[] times = [List(netns), FirstCount(netns, Ours, GenerationMask, Entries / Few), FirstCount(netns, Pair, PairMask, Entries)];
                if (round == 0) continue;
                listed.Add(times[0]);
                few.Add(times[1]);
                all.Add(times[2]);
            }
            Console.Error.WriteLine($"{EventsPerSecond} events/s, ours and then others'");
            using ConntrackLedger ledger = netns.Run(() => ConntrackLedger.Open(TimeProvider.System))!;
            ledger.Follow(Ours | 0x00800000, GenerationMask);
            while (ledger.CountOf(Ours | 0x00800000) is not { IsCurrent: true }) Thread.Sleep(1);
            ofOurs = Busy(ledger, entries, Ours | 0x00800000, watched, out long seen);
            if (seen < watched.TotalSeconds * EventsPerSecond * 0.95) throw new InvalidOperationException($"only {seen} events came");
            ofOthers = Busy(ledger, entries, Unfollowed, watched, out seen);
            if (seen != 0) throw new InvalidOperationException($"{seen} events of others came");
            overflows = ledger.Activity.Overflows;
        }

        var table = new StringBuilder();
        table.Append(CultureInfo.InvariantCulture, $"{Entries:N0} conntrack entries, {(rounds == 1 ? "1 round" : $"{rounds} rounds in turns, median")}; {Environment.ProcessorCount} cores, load average {load:0.0} before.\n\n");
        table.Append("| | `conntrack -L \\| wc -l` | first count | ratio |\n|---|---|---|---|\n");
        Row($"{Entries / Few:N0} of them ours, ms", few);
        Row("all of them ours, ms", all);
        table.Append("\n| processor use of the ledger, % of one core | |\n|---|---|\n");
        table.Append(CultureInfo.InvariantCulture, $"| {EventsPerSecond:N0} events/s of connections it follows | {ofOurs:0.00} |\n");
        table.Append(CultureInfo.InvariantCulture, $"| {EventsPerSecond:N0} events/s of others | {ofOthers:0.00} |\n");
        Console.WriteLine(table);
        if (overflows > 0) Console.Error.WriteLine($"events were lost {overflows} times: the machine was too busy");
        if (writeReadme) Readme.Write("ledger", table.ToString());
        return Median(few) <= Median(listed) / 4 && ofOurs < 2 ? 0 : 1;

        void Row(string name, List<double> times) => table.Append(CultureInfo.InvariantCulture,
            $"| {name} | {Median(listed):0} | {Median(times):0} | {Median(times) / Median(listed):0.00} |\n");
    }

    private static double Median(List<double> values) => values.Order().ElementAt(values.Count / 2);

    private static double List(Netns netns)
    {
        long began = Stopwatch.GetTimestamp();
        int lines = int.Parse(netns.Exec("sh", "-c", "conntrack -L 2>/dev/null | wc -l"), CultureInfo.InvariantCulture);
        double milliseconds = Stopwatch.GetElapsedTime(began).TotalMilliseconds;
        return lines >= Entries ? milliseconds : throw new InvalidOperationException($"conntrack lists {lines} entries");
    }

    private static double FirstCount(Netns netns, uint mark, uint mask, int expected)
    {
        GC.Collect();
        long began = Stopwatch.GetTimestamp();
        using ConntrackLedger ledger = netns.Run(() => ConntrackLedger.Open(TimeProvider.System))!;
        ledger.Follow(mark, mask);
        LedgerCount? count;
        while ((count = ledger.CountOf(mark)) is not { IsCurrent: true }) Thread.Sleep(1);
        double milliseconds = Stopwatch.GetElapsedTime(began).TotalMilliseconds;
        return count.Value.Live == expected ? milliseconds : throw new InvalidOperationException($"the ledger counts {count}, not {expected}");
    }

    /// <summary>
    /// Processor time of the ledger's thread, in per cent of a core, while entries come and go: each is two events. /proc/PID/task/TID/schedstat
    /// counts in nanoseconds.
    /// </summary>
    private static double Busy(ConntrackLedger ledger, ConntrackEntries entries, uint mark, TimeSpan time, out long events)
    {
        string task = Directory.GetDirectories("/proc/self/task").Single(t => File.ReadAllText(t + "/comm").StartsWith("conntrack ledge", StringComparison.Ordinal));
        long before = Nanoseconds(), messages = ledger.Activity.Messages;
        long began = Stopwatch.GetTimestamp();
        int turns = (int)(time.TotalSeconds * EventsPerSecond / EventsPerTurn);
        for (int turn = 0; turn < turns; turn++)
        {
            int number = 40_000_000 + turn * EventsPerTurn; // clients of their own
            entries.Add(number, EventsPerTurn / 2, _ => mark);
            entries.Remove(number, EventsPerTurn / 2);
            TimeSpan early = TimeSpan.FromSeconds((turn + 1.0) * EventsPerTurn / EventsPerSecond) - Stopwatch.GetElapsedTime(began);
            if (early > TimeSpan.Zero) Thread.Sleep(early);
        }
        Thread.Sleep(100); // the last of them
        double percent = (Nanoseconds() - before) / 1e7 / Stopwatch.GetElapsedTime(began).TotalSeconds;
        events = ledger.Activity.Messages - messages;
        return percent;

        long Nanoseconds() => long.Parse(File.ReadAllText(task + "/schedstat").Split(' ')[0], CultureInfo.InvariantCulture);
    }

    /// <summary>The host's limit of conntrack entries, put back when the benchmark ends, also by SIGINT or SIGTERM.</summary>
    private sealed class RaisedLimit : IDisposable
    {
        private const string Path = "/proc/sys/net/netfilter/nf_conntrack_max";
        private readonly string _before = File.ReadAllText(Path).Trim();
        private readonly PosixSignalRegistration[] _signals;

        internal RaisedLimit(int entries)
        {
            _signals = [.. ((PosixSignal[])[PosixSignal.SIGINT, PosixSignal.SIGTERM, PosixSignal.SIGHUP]).Select(s => PosixSignalRegistration.Create(s, _ => PutBack()))];
            if (int.Parse(_before, CultureInfo.InvariantCulture) < entries) File.WriteAllText(Path, entries.ToString(CultureInfo.InvariantCulture));
        }

        public void Dispose()
        {
            PutBack();
            foreach (PosixSignalRegistration signal in _signals) signal.Dispose();
        }

        private void PutBack() => File.WriteAllText(Path, _before);
    }
}
