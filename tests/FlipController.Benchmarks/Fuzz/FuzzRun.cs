using System.Diagnostics;

namespace FlipController.Fuzz;

/// <summary>Runs cases of a target. What a case is follows from seed, target and number alone.</summary>
/// <param name="patience">A case that takes longer does not end.</param>
/// <param name="told">How many cases of the present target are done, now and then; null: nobody asks.</param>
internal sealed class FuzzRun(int seed, TimeSpan patience, Action<long>? told = null)
{
    private const long MostBytes = 64 * 1024 * 1024;
    private const int MostFailures = 5;

    private readonly HashSet<string> _seen = new(StringComparer.Ordinal);

    /// <param name="first">The number of the first case, from 0.</param>
    public FuzzTally Run(FuzzTarget target, long cases, long first = 0)
    {
        var under = new Course(target, cases, first);
        // On a thread that may be left behind: nothing ends a case that does not end by itself.
        var thread = new Thread(() => Work(under), 1024 * 1024) { IsBackground = true };
        thread.Start();
        while (!thread.Join(100))
        {
            told?.Invoke(Volatile.Read(ref under.Done));
            long began = Volatile.Read(ref under.Began);
            if (began == 0 || Stopwatch.GetElapsedTime(began) < patience) continue;
            lock (under.Failures)
                under.Failures.Add(new(target.Name, seed, under.Case, $"no end after {patience.TotalSeconds:0.#} s", under.Input));
            break;
        }
        lock (under.Failures)
            return new(target.Name, under.Done, under.Refused, under.Accepted, under.Slowest, under.MostAllocated, [.. under.Failures]);
    }

    private void Work(Course course)
    {
        // The first call compiles and fills what is made once.
        foreach (byte[] sample in course.Target.Samples) Judge(course, -1, sample);
        if (course is { Accepted: 0, Failures.Count: 0 }) course.Failures.Add(new(course.Target.Name, seed, -1, "every sample is refused", course.Input));
        course.Slowest = default;
        course.MostAllocated = course.Refused = course.Accepted = 0;
        for (long number = course.First; number < course.First + course.Cases; number++)
        {
            Judge(course, number, Damage.Make(course.Target.Samples, new Random(SeedOf(course.Target.Name, number))));
            Volatile.Write(ref course.Done, course.Done + 1);
            if (course.Failures.Count >= MostFailures) return;
        }
    }

    private void Judge(Course course, long number, byte[] input)
    {
        (course.Case, course.Input) = (number, input);
        long allocated = GC.GetAllocatedBytesForCurrentThread(), began = Stopwatch.GetTimestamp();
        Volatile.Write(ref course.Began, began);
        string? wrong = null;
        try
        {
            if (course.Target.Read(input)) course.Accepted++;
            else course.Refused++;
        }
        catch (Exception e)
        {
            wrong = e.ToString();
            // One is enough of each place.
            if (!_seen.Add($"{course.Target.Name} {e.GetType()} {e.StackTrace?.Split('\n').FirstOrDefault(l => l.Contains("FlipController", StringComparison.Ordinal))}"))
                return;
        }
        finally
        {
            Volatile.Write(ref course.Began, 0);
        }
        TimeSpan took = Stopwatch.GetElapsedTime(began);
        allocated = GC.GetAllocatedBytesForCurrentThread() - allocated;
        if (took > course.Slowest) course.Slowest = took;
        course.MostAllocated = Math.Max(course.MostAllocated, allocated);
        if (allocated > MostBytes) wrong ??= $"it allocates {allocated:N0} bytes for {input.Length:N0}";
        if (wrong is null) return;
        lock (course.Failures) course.Failures.Add(new(course.Target.Name, seed, number, wrong, input));
    }

    /// <summary>FNV-1a: string.GetHashCode is another one in every process.</summary>
    private int SeedOf(string target, long number)
    {
        uint hash = 2166136261;
        foreach (char c in target) hash = (hash ^ c) * 16777619;
        for (int i = 0; i < 8; i++) hash = (hash ^ (byte)(number >> 8 * i)) * 16777619;
        for (int i = 0; i < 4; i++) hash = (hash ^ (byte)(seed >> 8 * i)) * 16777619;
        return (int)hash;
    }

    private sealed class Course(FuzzTarget target, long cases, long first)
    {
        public readonly FuzzTarget Target = target;
        public readonly long Cases = cases, First = first;
        public readonly List<FuzzFailure> Failures = [];
        public long Done, Began, Case, Refused, Accepted, MostAllocated;
        public TimeSpan Slowest;
        public byte[] Input = [];
    }
}
