using System.Globalization;
using System.Xml.Linq;
using FlipController.Load;

namespace FlipController.Benchmarks;

/// <summary>Latency percentiles of every way to restart, one panel a machine, on a scale of powers of ten; what failed is told below each.</summary>
internal static class HoldSvg
{
    private const double Width = 900, PanelHeight = 230, Left = 80, Right = 40, Title = 44, PanelTitle = 40, LegendLine = 19, Foot = 34;

    private static readonly XNamespace Svg = "http://www.w3.org/2000/svg";

    private static readonly (string Name, Func<Percentiles, double> Of)[] s_points =
        [("p50", p => p.P50), ("p90", p => p.P90), ("p99", p => p.P99), ("p99.9", p => p.P999), ("max", p => p.Max)];

    // No var(): renderers other than browsers (librsvg) do not know it, and all would be black.
    private const string Style = """

        text { font: 11px sans-serif; fill: #57606a; }
        text.title { font-size: 16px; font-weight: 600; fill: #1f2328; }
        text.panel { font-size: 13px; font-weight: 600; fill: #1f2328; }
        text.failed { font-weight: 600; fill: #bc4c00; }
        .ground { fill: #ffffff; }
        .grid { stroke: #d8dee4; }
        .axis { stroke: #57606a; }
        polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
        .none { stroke: #57606a; fill: #57606a; }
        .reload { stroke: #9a6700; fill: #9a6700; }
        .drop { stroke: #8250df; fill: #8250df; }
        .bare { stroke: #cf222e; fill: #cf222e; }
        .protect { stroke: #0969da; fill: #0969da; }
        @media (prefers-color-scheme: dark) {
          text { fill: #8b949e; }
          text.title, text.panel { fill: #e6edf3; }
          text.failed { fill: #f0883e; }
          .ground { fill: #0d1117; }
          .grid { stroke: #30363d; }
          .axis { stroke: #8b949e; }
          .none { stroke: #8b949e; fill: #8b949e; }
          .reload { stroke: #d29922; fill: #d29922; }
          .drop { stroke: #a371f7; fill: #a371f7; }
          .bare { stroke: #f85149; fill: #f85149; }
          .protect { stroke: #58a6ff; fill: #58a6ff; }
        }

        """;

    /// <summary>A whole SVG document, which needs nothing from elsewhere and runs nothing.</summary>
    public static string Document(IReadOnlyList<HoldRun> runs)
    {
        const string title = "One HAProxy restarted every 100 ms under load: latency and failures";
        double height = Title + runs.Sum(Height);
        var svg = new XElement(Svg + "svg",
            new XAttribute("viewBox", $"0 0 {Number(Width)} {Number(height)}"), new XAttribute("width", Number(Width)),
            new XAttribute("height", Number(height)), new XAttribute("role", "img"),
            new XElement(Svg + "title", title),
            new XElement(Svg + "desc", string.Join("; ", runs.SelectMany(run => run.Rows.Select(row => $"{run.Where}: {Legend(run, row)}")))),
            new XElement(Svg + "style", Style),
            new XElement(Svg + "rect", Class("ground"), Place(("width", Width), ("height", height))),
            Text(Left, 26, title, "title"));
        double top = Title;
        foreach (HoldRun run in runs)
        {
            svg.Add(Panel(run, top));
            top += Height(run);
        }
        return $"{svg}\n";
    }

    private static double Height(HoldRun run) => PanelTitle + PanelHeight + Foot + LegendLine * run.Rows.Count + 14;

    private static XElement Panel(HoldRun run, double from)
    {
        double top = from + PanelTitle, bottom = top + PanelHeight;
        double least = Math.Floor(Math.Log10(run.Rows.Min(r => s_points.Min(p => Floor(p.Of(r.Latency)))))),
            most = Math.Ceiling(Math.Log10(run.Rows.Max(r => s_points.Max(p => Floor(p.Of(r.Latency)))))) is var m && m > least ? m : least + 1;
        var panel = new XElement(Svg + "g", Text(Left, from + 18, $"{run.Where}: latency in milliseconds", "panel"));
        for (double power = least; power <= most; power++)
        {
            panel.Add(Line(power == least ? "axis" : "grid", Left, Y(power), Width - Right, Y(power)));
            panel.Add(Text(Left - 8, Y(power) + 4, Math.Pow(10, power).ToString("#,0.###", CultureInfo.InvariantCulture), anchor: "end"));
        }
        panel.Add(Line("axis", Left, top, Left, bottom));
        for (int i = 0; i < s_points.Length; i++)
        {
            panel.Add(Line("axis", X(i), bottom, X(i), bottom + 5));
            panel.Add(Text(X(i), bottom + 18, s_points[i].Name, anchor: "middle"));
        }
        for (int r = 0; r < run.Rows.Count; r++)
        {
            HoldRow row = run.Rows[r];
            double legend = bottom + Foot + LegendLine * r + 10;
            var series = new XElement(Svg + "g", Class(row.Way.ToString().ToLowerInvariant()), new XElement(Svg + "title", Legend(run, row)));
            if (row.Latency.Count > 0)
            {
                series.Add(new XElement(Svg + "polyline", new XAttribute("points",
                    string.Join(' ', s_points.Select((p, i) => $"{Number(X(i))},{Number(At(p.Of(row.Latency)))}")))));
                for (int i = 0; i < s_points.Length; i++) series.Add(Marker(row.Way, X(i), At(s_points[i].Of(row.Latency))));
            }
            series.Add(Marker(row.Way, Left + 4, legend - 4));
            panel.Add(series, Text(Left + 16, legend, Legend(run, row), row.Failed > 0 ? "failed" : null));
        }
        return panel;

        double X(int point) => Left + (point + 0.5) * (Width - Left - Right) / s_points.Length;
        double Y(double power) => bottom - (power - least) / (most - least) * PanelHeight;
        double At(double milliseconds) => Y(Math.Log10(Floor(milliseconds)));
    }

    /// <summary>The histogram's least is a microsecond; zero has no place on the scale.</summary>
    private static double Floor(double milliseconds) => Math.Max(0.001, milliseconds);

    private static string Legend(HoldRun run, HoldRow row)
    {
        string failed = row.Failed == 0 ? "none failed"
            : $"{Count(row.Failed)} failed ({string.Join(", ", row.Failures.Select(f => $"{Count(f.Value)} {f.Key}"))})";
        string restarts = row.Way == RestartWay.None ? "" : $", {Count(row.Restarts)} restarts";
        return $"{HoldTable.Name(row.Way, run.Method).Replace("`", "", StringComparison.Ordinal)}: {Count(row.Requests)} requests{restarts}, {failed}";
    }

    private static string Count(long count) => count.ToString("#,0", CultureInfo.InvariantCulture);

    /// <summary>A shape of its own for every way: not everybody tells the colours apart.</summary>
    private static XElement Marker(RestartWay way, double x, double y) => way switch
    {
        RestartWay.None => new XElement(Svg + "circle", Place(("cx", x), ("cy", y), ("r", 4))),
        RestartWay.Reload => new XElement(Svg + "rect", Place(("x", x - 3.5), ("y", y - 3.5), ("width", 7), ("height", 7))),
        RestartWay.Drop => Polygon((x, y - 5), (x + 5, y + 4), (x - 5, y + 4)),
        RestartWay.Bare => Polygon((x - 5, y - 4), (x + 5, y - 4), (x, y + 5)),
        RestartWay.Protect => Polygon((x, y - 5.5), (x + 5.5, y), (x, y + 5.5), (x - 5.5, y)),
    };

    private static XElement Polygon(params (double X, double Y)[] points) =>
        new(Svg + "polygon", new XAttribute("points", string.Join(' ', points.Select(p => $"{Number(p.X)},{Number(p.Y)}"))));

    private static XElement Text(double x, double y, string text, string? style = null, string? anchor = null) =>
        new(Svg + "text", style is null ? null : Class(style), Place(("x", x), ("y", y)),
            anchor is null ? null : new XAttribute("text-anchor", anchor), text);

    private static XElement Line(string style, double x1, double y1, double x2, double y2) =>
        new(Svg + "line", Class(style), Place(("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2)));

    private static XAttribute Class(string style) => new("class", style);

    private static IEnumerable<XAttribute> Place(params (string Name, double Value)[] values) =>
        values.Select(v => new XAttribute(v.Name, Number(v.Value)));

    private static string Number(double value) => value.ToString("0.#", CultureInfo.InvariantCulture);
}
