using System.Globalization;
using FlipController.Core;

namespace FlipController.Cli;

/// <summary>The scales of a drain's curve: where the round numbers are, and how they are written.</summary>
internal static class CurveAxis
{
    // Seconds that people count time in; past the last one, whole days.
    private static readonly double[] TimeSteps =
        [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

    /// <summary>Seconds the curve spans, at least one: an axis needs a length.</summary>
    public static double Span(IReadOnlyList<DrainSample> samples) => Math.Max(1, samples.Count == 0 ? 0 : samples.Max(s => s.AtS));

    /// <summary>0 and round numbers above it in equal steps; the last one is not below <paramref name="most"/>, and not 0.</summary>
    /// <param name="atMost">Steps there may be, at least 1.</param>
    public static long[] Counts(int most, int atMost)
    {
        long needed = Math.Max(1, most), step = Steps().First(s => needed <= s * Math.Max(1, atMost));
        return [.. Enumerable.Range(0, (int)((needed + step - 1) / step) + 1).Select(i => i * step)];

        static IEnumerable<long> Steps()
        {
            for (long ten = 1; ; ten *= 10)
            {
                yield return ten;
                yield return 2 * ten;
                yield return 5 * ten;
            }
        }
    }

    /// <summary>0 and round times above it in equal steps, none after <paramref name="span"/> seconds.</summary>
    /// <param name="atMost">Steps there may be, at least 1.</param>
    public static double[] Times(double span, int atMost)
    {
        atMost = Math.Max(1, atMost);
        double step = TimeSteps.FirstOrDefault(s => span <= s * atMost, 86400 * Math.Ceiling(span / 86400 / atMost));
        // A step that is longer than all of it leaves the 0 alone, which is better than a crowd.
        return [.. Enumerable.Range(0, (int)(span / step + 1e-9) + 1).Select(i => i * step)];
    }

    /// <summary><c>950</c>, <c>12k</c>, <c>1.5M</c>.</summary>
    public static string Count(long count) => count switch
    {
        >= 1_000_000_000 => Short(count / 1e9, "G"),
        >= 1_000_000 => Short(count / 1e6, "M"),
        >= 10_000 => Short(count / 1e3, "k"),
        _ => count.ToString(CultureInfo.InvariantCulture),
    };

    /// <summary><c>0</c>, <c>0.5s</c>, <c>90s</c> as <c>1m30s</c>, <c>2h</c>.</summary>
    public static string Time(double seconds)
    {
        if (seconds == 0) return "0";
        if (seconds < 60) return Short(seconds, "s");
        var time = TimeSpan.FromSeconds(Math.Round(seconds));
        string text = (time.Days > 0 ? $"{time.Days}d" : "") + (time.Hours > 0 ? $"{time.Hours}h" : "")
            + (time.Minutes > 0 ? $"{time.Minutes}m" : "") + (time.Seconds > 0 ? $"{time.Seconds}s" : "");
        return text;
    }

    private static string Short(double number, string unit) => number.ToString("0.###", CultureInfo.InvariantCulture) + unit;
}
