using FlipController.Core;

namespace FlipController.Cli;

/// <summary>The generations that leave, as they were seen: for each a line that tells how far it is, and its curve.</summary>
internal sealed class LeavingScreen
{
    // A window of this many columns is all that a curve is good for.
    private const int MostColumns = 100, MostRows = 10, LeastRows = 5, MostSamples = 1200;

    // The daemon tells of each about once a second; of whom it says nothing any more, that one is gone.
    private static readonly TimeSpan Silence = TimeSpan.FromSeconds(5);

    private readonly SortedDictionary<(string Pair, int Generation), Seen> _seen = [];

    /// <summary>True when it was not known before: there may be a curve up to now to be had for it.</summary>
    public bool Look(PairNotice notice, DrainLook look)
    {
        bool first = !_seen.TryGetValue((notice.Pair, look.Generation), out Seen? seen);
        seen ??= _seen[(notice.Pair, look.Generation)] = new Seen(notice.At);
        (seen.Look, seen.At) = (look, notice.At);
        seen.Samples.Add(new DrainSample(Math.Max(0, (notice.At - seen.Began).TotalSeconds), look.Connections));
        if (seen.Samples.Count > MostSamples) Thin(seen.Samples);
        return first;
    }

    /// <summary>What the daemon has kept of it, in place of what was seen here.</summary>
    public void Known(DrainCurve curve)
    {
        if (!_seen.TryGetValue((curve.Pair, curve.Generation), out Seen? seen) || seen.Look is not { } look) return;
        seen.Began = curve.Began;
        seen.Samples.Clear();
        double now = Math.Max(0, (seen.At - curve.Began).TotalSeconds);
        seen.Samples.AddRange(curve.Samples.Where(s => s.AtS < now));
        seen.Samples.Add(new DrainSample(now, look.Connections));
    }

    /// <summary>Forgets those that are gone.</summary>
    public void Forget(DateTimeOffset now)
    {
        foreach (var key in _seen.Where(s => now - s.Value.At > Silence).Select(s => s.Key).ToList()) _seen.Remove(key);
    }

    /// <summary>At most <paramref name="rows"/> lines; those for which there is no room get no curve, then no line.</summary>
    public IReadOnlyList<string> Lines(int columns, int rows, bool blocks, DateTimeOffset now)
    {
        if (_seen.Count == 0 || rows < 1) return [];
        int each = rows / _seen.Count - 1;
        var lines = new List<string>();
        foreach (((string pair, _), Seen seen) in _seen)
        {
            lines.Add($"{pair}: {Phrases.Look(seen.Look!, now)}");
            if (each >= LeastRows)
                lines.AddRange(Curve.Lines(seen.Samples, Math.Min(columns - 1, MostColumns), Math.Min(each, MostRows), blocks));
        }
        if (lines.Count <= rows) return lines;
        int more = lines.Count - rows + 1;
        return [.. lines.Take(rows - 1), $"... and {more} more that leave"];
    }

    /// <summary>Every second one goes, the first and the last stay.</summary>
    private static void Thin(List<DrainSample> samples)
    {
        DrainSample last = samples[^1];
        int kept = 0;
        for (int i = 0; i < samples.Count - 1; i += 2) samples[kept++] = samples[i];
        samples[kept++] = last;
        samples.RemoveRange(kept, samples.Count - kept);
    }

    private sealed class Seen(DateTimeOffset began)
    {
        public DateTimeOffset Began { get; set; } = began;

        public DateTimeOffset At { get; set; } = began;

        public DrainLook? Look { get; set; }

        public List<DrainSample> Samples { get; } = [];
    }
}

/// <summary>Lets of the looks at generations that leave pass what a log wants: each step, and one each ten seconds.</summary>
internal sealed class LookFilter
{
    private static readonly TimeSpan Least = TimeSpan.FromSeconds(10);

    private readonly Dictionary<(string, int), (string Step, DateTimeOffset At)> _told = [];

    /// <summary>Every notice that is not such a look passes.</summary>
    public bool Passes(PairNotice notice)
    {
        if (notice.Drain is not { } look) return true;
        if (_told.TryGetValue((notice.Pair, look.Generation), out var last) && last.Step == look.Leaving.Step && notice.At - last.At < Least)
            return false;
        _told[(notice.Pair, look.Generation)] = (look.Leaving.Step, notice.At);
        return true;
    }
}
