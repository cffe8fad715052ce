using FlipController.Core;

namespace FlipController.Cli;

/// <summary>A drain's falling curve as lines of text.</summary>
/// <remarks>
/// <code>
/// 300┤█▆▄▃▃▂
///    │██████▇▆▅▄▃▂▂▁▁▁
///   0└┬────────┬──────
///     0        1m
/// </code>
/// </remarks>
internal static class Curve
{
    private const int LeastColumns = 10, LeastRows = 2;

    /// <summary>What a curve is drawn with. <c>Parts</c> fill a character from below, the last one all of it.</summary>
    private sealed record Strokes(string Parts, char Tick, char Side, char Corner, char Foot, char FootTick);

    private static readonly Strokes Blocks = new("▁▂▃▄▅▆▇█", '┤', '│', '└', '─', '┬'), Plain = new(".:#", '+', '|', '+', '-', '+');

    /// <summary>
    /// <paramref name="height"/> lines of at most <paramref name="width"/> columns: the curve, and an axis each way. A connection
    /// that is left is never rounded away. Empty when there is no room, or nothing to draw.
    /// </summary>
    /// <param name="samples">In the order of their times.</param>
    /// <param name="blocks">With Unicode's block elements; false: in ASCII.</param>
    public static IReadOnlyList<string> Lines(IReadOnlyList<DrainSample> samples, int width, int height, bool blocks)
    {
        int rows = height - 2;
        if (samples.Count == 0 || rows < LeastRows) return [];
        long[] counts = CurveAxis.Counts(samples.Max(s => s.Connections), Math.Max(1, rows / 2));
        int margin = counts.Max(c => CurveAxis.Count(c).Length);
        int columns = width - margin - 1;
        if (columns < LeastColumns) return [];

        Strokes strokes = blocks ? Blocks : Plain;
        double span = CurveAxis.Span(samples);
        int[] most = Columns(samples, span, columns);
        // A tick's count is the upper edge of its row.
        Dictionary<int, string> ticks = counts.Where(c => c > 0)
            .ToDictionary(c => rows - (int)Math.Round((double)c / counts[^1] * rows), CurveAxis.Count);
        var lines = new List<string>(height);
        for (int row = 0; row < rows; row++)
        {
            double below = (double)counts[^1] * (rows - row - 1) / rows, each = (double)counts[^1] / rows;
            char[] cells = [.. most.Select(count => Part(count, below, each, bottom: row == rows - 1))];
            string label = ticks.GetValueOrDefault(row, "");
            lines.Add((label.PadLeft(margin) + (label.Length > 0 ? strokes.Tick : strokes.Side) + new string(cells)).TrimEnd());
        }
        lines.AddRange(Foot(span, margin, columns, strokes));
        return lines;

        char Part(int count, double below, double each, bool bottom)
        {
            if (count <= below) return ' ';
            int part = (int)Math.Round((count - below) / each * strokes.Parts.Length);
            return part == 0 ? bottom ? strokes.Parts[0] : ' ' : strokes.Parts[Math.Min(part, strokes.Parts.Length) - 1];
        }
    }

    /// <summary>The most connections in each column's share of the time, at the right edge those of the last sample.</summary>
    private static int[] Columns(IReadOnlyList<DrainSample> samples, double span, int columns)
    {
        int[] most = new int[columns];
        int held = 0, next = 0;
        for (int column = 0; column < columns; column++)
        {
            // Until the next sample the one before it holds.
            most[column] = held;
            for (; next < samples.Count && (int)(samples[next].AtS / span * (columns - 1)) <= column; next++)
            {
                held = samples[next].Connections;
                most[column] = Math.Max(most[column], held);
            }
        }
        // That nothing is left must be seen, though it took until the last moment.
        most[^1] = held;
        return most;
    }

    private static IEnumerable<string> Foot(double span, int margin, int columns, Strokes strokes)
    {
        // Ten columns hold a label such as 1h30m and the room around it.
        var ticks = CurveAxis.Times(span, columns / 10)
            .Select(t => (Column: (int)Math.Round(t / span * (columns - 1)), Label: CurveAxis.Time(t))).ToList();
        char[] axis = new string(strokes.Foot, columns).ToCharArray();
        char[] labels = new string(' ', columns).ToCharArray();
        foreach ((int column, string label) in ticks)
        {
            axis[column] = strokes.FootTick;
            int from = Math.Min(column, columns - label.Length);
            label.CopyTo(0, labels, from, label.Length);
        }
        yield return "0".PadLeft(margin) + strokes.Corner + new string(axis);
        yield return new string(' ', margin + 1) + new string(labels).TrimEnd();
    }
}
