using System.Globalization;
using System.Xml;
using System.Xml.Linq;
using FlipController.Core;

namespace FlipController.Cli;

/// <summary>A drain's curve as a picture: connections over time, its events as upright lines, told in words below.</summary>
internal static class CurveSvg
{
    private const double Width = 900, PlotHeight = 300, Left = 70, Right = 30, TitleHeight = 56, LabelHeight = 16, FootHeight = 52;

    // What a character of 11 px sans-serif takes, rather too much than too little.
    private const double CharacterWidth = 6.6;

    // More would be a book; the rest is in the drain's record.
    private const int MostWords = 24;

    private static readonly XNamespace Svg = "http://www.w3.org/2000/svg";

    // No var(): renderers other than browsers (librsvg) do not know it, and all would be black.
    private const string Style = """

        text { font: 11px sans-serif; fill: #57606a; }
        text.title { font-size: 16px; font-weight: 600; fill: #1f2328; }
        text.mark { fill: #bc4c00; }
        .ground { fill: #ffffff; }
        .grid { stroke: #d8dee4; }
        .axis { stroke: #57606a; }
        .event { stroke: #bc4c00; stroke-dasharray: 4 3; }
        .area { fill: #0969da; fill-opacity: .15; }
        .curve { fill: none; stroke: #0969da; stroke-width: 2; stroke-linejoin: round; }
        .only { fill: #0969da; }
        @media (prefers-color-scheme: dark) {
          text { fill: #8b949e; }
          text.title { fill: #e6edf3; }
          text.mark { fill: #f0883e; }
          .ground { fill: #0d1117; }
          .grid { stroke: #30363d; }
          .axis { stroke: #8b949e; }
          .event { stroke: #f0883e; }
          .area, .only { fill: #58a6ff; }
          .curve { stroke: #58a6ff; }
        }

        """;

    /// <summary>A whole SVG document, which needs nothing from elsewhere and runs nothing.</summary>
    /// <param name="now">How far a drain that has not ended is drawn.</param>
    public static string Document(DrainCurve curve, DateTimeOffset now)
    {
        IReadOnlyList<DrainSample> samples = curve.Samples;
        double span = Math.Max(CurveAxis.Span(samples), curve.Marks.Length == 0 ? 0 : curve.Marks.Max(m => m.AtS));
        long[] counts = CurveAxis.Counts(samples.Count == 0 ? 0 : samples.Max(s => s.Connections), 6);
        List<DrainMark> marks = [.. Marks(curve)];
        List<(DrainMark Mark, double X, bool ToTheLeft, int Row)> labels = Placed(marks, X);
        double top = TitleHeight + LabelHeight * (labels.Count == 0 ? 0 : labels.Max(l => l.Row) + 1), bottom = top + PlotHeight;
        List<string> words = [.. marks.Take(MostWords).Select(m => $"{Offset(m.AtS),10}  {m.Kind}{(m.Text.Length > 0 ? $": {m.Text}" : "")}")];
        if (marks.Count > MostWords) words.Add($"... and {marks.Count - MostWords} more");
        double height = bottom + FootHeight + LabelHeight * words.Count;

        string title = $"{curve.Pair}: how generation {curve.Generation} ({curve.Slot}) left{(curve.Ended is null ? ", so far" : "")}";
        var svg = new XElement(Svg + "svg",
            new XAttribute("viewBox", $"0 0 {Number(Width)} {Number(height)}"), new XAttribute("width", Number(Width)),
            new XAttribute("height", Number(height)), new XAttribute("role", "img"),
            new XElement(Svg + "title", Clean(title)), new XElement(Svg + "desc", Clean(Summary(curve, now))),
            new XElement(Svg + "style", Style),
            new XElement(Svg + "rect", Class("ground"), Place(("width", Width), ("height", height))),
            Text(Left, 24, title, "title"), Text(Left, 42, Summary(curve, now)));

        foreach (long count in counts)
        {
            svg.Add(Line(count == 0 ? "axis" : "grid", Left, Y(count), Width - Right, Y(count)));
            svg.Add(Text(Left - 8, Y(count) + 4, CurveAxis.Count(count), anchor: "end"));
        }
        foreach (double time in CurveAxis.Times(span, 9))
        {
            svg.Add(Line("axis", X(time), bottom, X(time), bottom + 5));
            svg.Add(Text(X(time), bottom + 18, CurveAxis.Time(time), anchor: "middle"));
        }
        svg.Add(Line("axis", Left, top, Left, bottom));
        svg.Add(Text(Left - 8, top - 6 - LabelHeight * (labels.Count == 0 ? 0 : labels.Max(l => l.Row) + 1), "connections", anchor: "end"));
        svg.Add(Text(Width - Right, bottom + 34, $"time since {Clock(curve.Began)}", anchor: "end"));

        if (samples.Count > 0)
        {
            string points = string.Join(' ', samples.Select(s => $"{Number(X(s.AtS))},{Number(Y(s.Connections))}"));
            svg.Add(new XElement(Svg + "polygon", Class("area"), new XAttribute("points",
                $"{Number(X(samples[0].AtS))},{Number(bottom)} {points} {Number(X(samples[^1].AtS))},{Number(bottom)}")));
            // A line needs two points: a single one is a dot.
            svg.Add(samples.Count > 1 ? new XElement(Svg + "polyline", Class("curve"), new XAttribute("points", points))
                : new XElement(Svg + "circle", Class("only"), Place(("cx", X(samples[0].AtS)), ("cy", Y(samples[0].Connections)), ("r", 3))));
        }
        else
        {
            svg.Add(Text((Left + Width - Right) / 2, (top + bottom) / 2, "no samples", anchor: "middle"));
        }
        foreach ((DrainMark mark, double x, bool toTheLeft, int row) in labels)
        {
            double y = top - 5 - LabelHeight * row;
            svg.Add(new XElement(Svg + "g", new XElement(Svg + "title", Clean(mark.Text.Length > 0 ? mark.Text : mark.Kind)),
                Line("event", x, y - 8, x, bottom), Text(x + (toTheLeft ? -4 : 4), y, mark.Kind, "mark", toTheLeft ? "end" : null)));
        }
        for (int i = 0; i < words.Count; i++) svg.Add(Text(Left, bottom + FootHeight + LabelHeight * i, words[i].Trim()));
        return $"{svg}\n";

        double X(double seconds) => Left + Math.Clamp(seconds / span, 0, 1) * (Width - Left - Right);
        double Y(long connections) => bottom - (double)connections / counts[^1] * PlotHeight;
    }

    /// <summary>What there is to know of a drain beside its curve, in one sentence.</summary>
    public static string Summary(DrainCurve curve, DateTimeOffset now)
    {
        string began = curve.Samples.IsEmpty ? "" : $"{curve.Samples[0].Connections} connections at first, {curve.Samples[^1].Connections} at last; ";
        string closed = curve.Closed == 0 ? "none was closed" : $"{curve.Closed} {(curve.Closed == 1 ? "was" : "were")} closed";
        return curve.Ended is { } ended ? $"{began}{closed}; gone after {Phrases.Span(ended - curve.Began)}"
            : $"{began}{closed}; it leaves still, {Phrases.Span(now - curve.Began)} so far";
    }

    private static IEnumerable<DrainMark> Marks(DrainCurve curve)
    {
        bool toldFlip = curve.Marks.Any(m => m.Kind == "flip");
        return curve.Flip is { } flip && !toldFlip
            ? [new DrainMark(0, $"flip {flip}", "new connections went elsewhere"), .. curve.Marks] : curve.Marks;
    }

    /// <summary>
    /// Each label beside the top of its line, in the lowest row where it does not run into another. From the right: the line of an
    /// earlier event then passes beside the labels of later ones, not through them.
    /// </summary>
    private static List<(DrainMark, double, bool, int)> Placed(List<DrainMark> marks, Func<double, double> at)
    {
        var placed = new List<(DrainMark, double, bool, int)>();
        var taken = new List<(double From, double To, int Row)>();
        foreach (DrainMark mark in Enumerable.Reverse(marks))
        {
            double x = at(mark.AtS), wide = 8 + mark.Kind.Length * CharacterWidth;
            bool toTheLeft = x + wide > Width;
            (double from, double to) = toTheLeft ? (x - wide, x) : (x, x + wide);
            int row = 0;
            while (taken.Any(t => t.Row == row && t.From < to && from < t.To)) row++;
            taken.Add((from, to, row));
            placed.Add((mark, x, toTheLeft, row));
        }
        placed.Reverse();
        return placed;
    }

    private static string Offset(double seconds) => "+" + Phrases.Span(TimeSpan.FromSeconds(seconds));

    // One place for all who look: a picture travels further than a clock.
    private static string Clock(DateTimeOffset at) => at.UtcDateTime.ToString("yyyy-MM-dd HH:mm:ss 'UTC'", CultureInfo.InvariantCulture);

    private static XElement Text(double x, double y, string text, string? style = null, string? anchor = null) =>
        new(Svg + "text", style is null ? null : Class(style), Place(("x", x), ("y", y)),
            anchor is null ? null : new XAttribute("text-anchor", anchor), Clean(text));

    private static XElement Line(string style, double x1, double y1, double x2, double y2) =>
        new(Svg + "line", Class(style), Place(("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2)));

    private static XAttribute Class(string style) => new("class", style);

    private static IEnumerable<XAttribute> Place(params (string Name, double Value)[] values) =>
        values.Select(v => new XAttribute(v.Name, Number(v.Value)));

    private static string Number(double value) => value.ToString("0.#", CultureInfo.InvariantCulture);

    /// <summary>XML 1.0 (2.2) has no place for most control characters, not even escaped.</summary>
    private static string Clean(string text) =>
        new([.. text.Where((c, i) => XmlConvert.IsXmlChar(c)
            || (char.IsHighSurrogate(c) && i + 1 < text.Length && char.IsLowSurrogate(text[i + 1]))
            || (char.IsLowSurrogate(c) && i > 0 && char.IsHighSurrogate(text[i - 1])))]);
}
