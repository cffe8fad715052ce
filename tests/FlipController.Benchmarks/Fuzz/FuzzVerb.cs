using System.Diagnostics;
using System.Globalization;

namespace FlipController.Fuzz;

/// <summary>`fuzz`: every reader with spoiled input, a table of what became of it; 1 when something was not read as it should be.</summary>
internal static class FuzzVerb
{
    private const long MostGrowth = 32 * 1024 * 1024;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(2);

    /// <param name="only">A target's name; null: all.</param>
    /// <param name="single">The number of the only case; null: <paramref name="cases"/> from 0 on.</param>
    public static int Run(long cases, int seed, string? only, long? single)
    {
        using var made = new FuzzTargets();
        FuzzTarget[] targets = [.. made.All.Where(t => only is null || t.Name == only)];
        if (targets.Length == 0)
        {
            Console.Error.WriteLine($"fuzz: there is no target {only}; there are: {string.Join(", ", made.All.Select(t => t.Name))}");
            return 2;
        }
        Console.WriteLine($"seed {seed.ToString(CultureInfo.InvariantCulture)}");
        long shares = targets.Sum(t => (long)t.Share), before = 0, done = 0;
        int failures = 0;
        var watch = Stopwatch.StartNew();
        var table = new List<FuzzTally>();
        foreach (FuzzTarget target in targets)
        {
            var run = new FuzzRun(seed, s_patience, now => Progress($"{target.Name}: {now:N0}; {done + now:N0} of {cases:N0} in {watch.Elapsed:m\\:ss}"));
            FuzzTally tally = single is { } number ? run.Run(target, 1, number) : run.Run(target, Math.Max(1, cases * target.Share / shares));
            // The first target's own first cases fill what every process has once.
            if (before == 0) before = Live();
            done += tally.Cases;
            failures += tally.Failures.Count;
            table.Add(tally);
            Progress("");
            foreach (FuzzFailure failure in tally.Failures) Console.WriteLine(failure);
        }
        Console.WriteLine(FuzzTally.Head);
        foreach (FuzzTally tally in table) Console.WriteLine(tally);
        long grown = Live() - before;
        Console.WriteLine(FormattableString.Invariant($"{done:N0} cases in {watch.Elapsed.TotalSeconds:N0} s; {grown / 1048576.0:N1} MiB more are in use after than before"));
        if (grown > MostGrowth)
        {
            Console.WriteLine($"that is more than {MostGrowth / 1048576} MiB: something keeps what it was given");
            failures++;
        }
        return failures == 0 ? 0 : 1;
    }

    private static long Live()
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        return GC.GetTotalMemory(forceFullCollection: true);
    }

    private static void Progress(string text)
    {
        if (!Console.IsErrorRedirected) Console.Error.Write($"\r{text,-78}\r{text}");
    }
}
