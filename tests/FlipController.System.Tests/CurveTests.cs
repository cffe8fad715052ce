using System.Collections.Immutable;
using System.Globalization;
using System.Xml;
using FlipController.Cli;
using FlipController.Core;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>How a drain's curve is drawn, in the terminal and as a picture.</summary>
public sealed class CurveTests
{
    private static readonly DateTimeOffset Began = new(2026, 3, 1, 12, 0, 0, TimeSpan.Zero);

    [Fact]
    public void A_falling_curve_looks_like_one() => Assert.Equal("""
        300┤█▄
           │███▄▁
        200┤█████▆▁
           │███████▇▄▂
           │███████████▆▄▂▁
        100┤███████████████▇▆▅▄▃▂▁
           │███████████████████████▇▇▆▆▅▅▄▄▄▃▃▃▃▂▂▂▂▂▁▁▁▁▁▁▁▁▁▁▁▁▁▁
          0└┬─────────────┬─────────────┬────────────┬─────────────┬
            0             30s           1m           1m30s        2m
        """, string.Join('\n', Curve.Lines(Falling(), 60, 9, blocks: true)));

    [Fact]
    public void Without_Unicode_it_is_drawn_in_ASCII() => Assert.Equal("""
        300+#.
           |###.
        200+#####:
           |#######::.
           |###########:..
        100+################::...
           |#########################::::::........................
          0++-------------+-------------+------------+-------------+
            0             30s           1m           1m30s        2m
        """, string.Join('\n', Curve.Lines(Falling(), 60, 9, blocks: false)));

    [Fact]
    public void The_last_connection_of_a_million_is_seen_and_the_end_without_it_too()
    {
        IReadOnlyList<string> held = Curve.Lines([new(0, 1_000_000), new(1, 1), new(60, 1)], 40, 6, blocks: true);
        Assert.Equal("  1M┤█", held[0]);
        Assert.Equal($"    │█{new string('▁', 34)}", held[3]);
        IReadOnlyList<string> gone = Curve.Lines([new(0, 1_000_000), new(1, 1), new(60, 0)], 40, 6, blocks: true);
        Assert.Equal($"    │█{new string('▁', 33)}", gone[3]);
    }

    [Theory]
    [InlineData(80, 12)]
    [InlineData(20, 4)]
    [InlineData(300, 60)]
    public void Whatever_the_samples_the_lines_fit(int width, int height)
    {
        foreach (ImmutableArray<DrainSample> samples in Extremes().Where(s => !s.IsEmpty))
            foreach (bool blocks in (bool[])[true, false])
            {
                IReadOnlyList<string> lines = Curve.Lines(samples, width, height, blocks);
                Assert.Equal(height, lines.Count);
                Assert.All(lines, l => Assert.True(l.Length <= width, l));
                Assert.True(blocks || lines.All(l => l.All(char.IsAscii)));
                Assert.Matches("^ *0[└+]", lines[^2]);
            }
    }

    [Theory]
    [InlineData(80, 3)]
    [InlineData(12, 12)]
    [InlineData(0, 0)]
    [InlineData(-1, -1)]
    public void Without_room_nothing_is_drawn(int width, int height) => Assert.Empty(Curve.Lines([new(0, 300)], width, height, blocks: true));

    [Fact]
    public void Without_samples_nothing_is_drawn() => Assert.Empty(Curve.Lines([], 80, 10, blocks: true));

    [Fact]
    public void All_zero_is_an_empty_field_with_axes() =>
        Assert.Equal(["1┤", " │", "0└┬─────────┬─────────", "  0         1s"], Curve.Lines([new(0, 0), new(1.9, 0)], 22, 4, blocks: true));

    [Theory]
    [InlineData(0, 4, "0 1")]
    [InlineData(1, 4, "0 1")]
    [InlineData(7, 4, "0 2 4 6 8")]
    [InlineData(300, 4, "0 100 200 300")]
    [InlineData(999_999, 4, "0 500k 1M")]
    [InlineData(int.MaxValue, 1, "0 5G")]
    public void Counts_have_round_steps(int most, int atMost, string ticks) =>
        Assert.Equal(ticks, string.Join(' ', CurveAxis.Counts(most, atMost).Select(CurveAxis.Count)));

    [Theory]
    [InlineData(1, 5, "0 0.2s 0.4s 0.6s 0.8s 1s")]
    [InlineData(61, 5, "0 15s 30s 45s 1m")]
    [InlineData(5400, 5, "0 30m 1h 1h30m")]
    [InlineData(86400, 5, "0 6h 12h 18h 1d")]
    [InlineData(30 * 86400, 5, "0 6d 12d 18d 24d 30d")]
    public void Times_have_steps_that_people_count_in(double span, int atMost, string ticks) =>
        Assert.Equal(ticks, string.Join(' ', CurveAxis.Times(span, atMost).Select(CurveAxis.Time)));

    [Fact]
    public void The_picture_begins_at_the_left_and_falls_to_the_right()
    {
        XmlDocument picture = Picture(Drained());
        Assert.Equal("svg", picture.DocumentElement!.LocalName);
        (double X, double Y)[] points = Points(picture);
        Assert.Equal(121, points.Length);
        Assert.Equal((70, 300), (points[0].X, Bottom(picture) - points[0].Y));
        Assert.Equal((870, Bottom(picture)), points[^1]);
        Assert.All(points.Zip(points.Skip(1)), p => Assert.True(p.First.X < p.Second.X && p.First.Y <= p.Second.Y));
        Assert.Equal(["flip 7", "retired", "closing", "ended"], Texts(picture, "mark"));
        Assert.Equal("edge: how generation 6 (blue) left", Texts(picture, "title").Single());
        Assert.Contains("300 connections at first, 0 at last; 4 were closed; gone after 2m 0s", picture.InnerText);
        Assert.Contains("time since 2026-03-01 12:00:00 UTC", picture.InnerText);
        string[] ticks = ["connections", "0", "50", "100", "150", "200", "250", "300", "15s", "30s", "45s", "1m", "1m15s", "1m30s", "1m45s", "2m"];
        Assert.Empty(ticks.Except(Texts(picture, "")));
        XmlNode closing = Select(picture, "//s:line[@class='event']")[2]!;
        Assert.Equal(("670", "670"), (closing.Attributes!["x1"]!.Value, closing.Attributes["x2"]!.Value));
    }

    [Fact]
    public void The_picture_is_byte_for_byte_this_one() => Assert.Equal("""
        <svg viewBox="0 0 900 440" width="900" height="440" role="img" xmlns="http://www.w3.org/2000/svg">
          <title>edge: how generation 6 (blue) left</title>
          <desc>2 connections at first, 0 at last; none was closed; gone after 2.0s</desc>
          <style>
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
        </style>
          <rect class="ground" width="900" height="440" />
          <text class="title" x="70" y="24">edge: how generation 6 (blue) left</text>
          <text x="70" y="42">2 connections at first, 0 at last; none was closed; gone after 2.0s</text>
          <line class="axis" x1="70" y1="372" x2="870" y2="372" />
          <text x="62" y="376" text-anchor="end">0</text>
          <line class="grid" x1="70" y1="222" x2="870" y2="222" />
          <text x="62" y="226" text-anchor="end">1</text>
          <line class="grid" x1="70" y1="72" x2="870" y2="72" />
          <text x="62" y="76" text-anchor="end">2</text>
          <line class="axis" x1="70" y1="372" x2="70" y2="377" />
          <text x="70" y="390" text-anchor="middle">0</text>
          <line class="axis" x1="270" y1="372" x2="270" y2="377" />
          <text x="270" y="390" text-anchor="middle">0.5s</text>
          <line class="axis" x1="470" y1="372" x2="470" y2="377" />
          <text x="470" y="390" text-anchor="middle">1s</text>
          <line class="axis" x1="670" y1="372" x2="670" y2="377" />
          <text x="670" y="390" text-anchor="middle">1.5s</text>
          <line class="axis" x1="870" y1="372" x2="870" y2="377" />
          <text x="870" y="390" text-anchor="middle">2s</text>
          <line class="axis" x1="70" y1="72" x2="70" y2="372" />
          <text x="62" y="50" text-anchor="end">connections</text>
          <text x="870" y="406" text-anchor="end">time since 2026-03-01 12:00:00 UTC</text>
          <polygon class="area" points="70,372 70,72 470,222 870,372 870,372" />
          <polyline class="curve" points="70,72 470,222 870,372" />
          <g>
            <title>gone</title>
            <line class="event" x1="870" y1="59" x2="870" y2="372" />
            <text class="mark" x="866" y="67" text-anchor="end">ended</text>
          </g>
          <text x="70" y="424">+2.0s  ended: gone</text>
        </svg>
        """ + "\n", CurveSvg.Document(Small(), Began));

    [Fact]
    public void A_drain_that_goes_on_is_drawn_so_far_and_says_so()
    {
        XmlDocument picture = Picture(Drained() with { Ended = null });
        Assert.Equal("edge: how generation 6 (blue) left, so far", Texts(picture, "title").Single());
        Assert.Contains("it leaves still, 2m 30s so far", picture.InnerText);
    }

    [Fact]
    public void What_was_written_by_others_is_only_text()
    {
        DrainCurve curve = Drained() with
        {
            Pair = "<script>alert(1)</script>&amp;", Slot = "\"'\u0000\u001b[2J\ud800\ud83d\ude00", Marks = [new(1, "]]>", "<!-- \ufffe & <b>")],
        };
        XmlDocument picture = Picture(curve);
        Assert.Empty(Select(picture, "//*[local-name() = 'script' or local-name() = 'b']"));
        Assert.Equal("<script>alert(1)</script>&amp;: how generation 6 (\"'[2J\ud83d\ude00) left", Texts(picture, "title").Single());
        Assert.Equal(["flip 7", "]]>"], Texts(picture, "mark"));
    }

    [Fact]
    public void Extreme_drains_are_drawn_inside_the_picture()
    {
        foreach (ImmutableArray<DrainSample> samples in Extremes())
        {
            XmlDocument picture = Picture(Drained() with { Samples = samples });
            double width = Attribute(picture.DocumentElement!, "width"), height = Attribute(picture.DocumentElement!, "height");
            foreach (XmlNode element in picture.SelectNodes("//*")!)
                foreach (XmlAttribute attribute in element.Attributes!)
                {
                    if (attribute.Name is "x" or "x1" or "x2" or "cx") Assert.InRange(Attribute(element, attribute.Name), 0, width);
                    if (attribute.Name is "y" or "y1" or "y2" or "cy") Assert.InRange(Attribute(element, attribute.Name), 0, height);
                }
            Assert.All(Points(picture), p => Assert.True(p is { X: >= 70 and <= 870 } && p.Y >= 56 && p.Y <= Bottom(picture)));
            Assert.Equal(samples.IsEmpty, picture.InnerText.Contains("no samples", StringComparison.Ordinal));
            Assert.Equal(samples.Length == 1 ? 1 : 0, Select(picture, "//s:circle").Count);
        }
    }

    [Fact]
    public void Labels_of_one_instant_do_not_cover_each_other()
    {
        DrainMark[] marks = [.. Enumerable.Range(0, 30).Select(i => new DrainMark(119 + i / 30.0, "cancelled", ""))];
        XmlDocument picture = Picture(Drained() with { Marks = [.. marks] });
        double[] rows = [.. Select(picture, "//s:text[@class='mark']").Skip(1).Select(t => Attribute(t, "y"))];
        Assert.Equal(30, rows.Distinct().Count());
        Assert.All(rows, y => Assert.InRange(y, 50, Bottom(picture) - 300));
        Assert.Contains("... and 7 more", picture.InnerText);
    }

    private static ImmutableArray<DrainSample> Falling() =>
        [.. Enumerable.Range(0, 121).Select(i => new DrainSample(i, i >= 118 ? 0 : i > 90 ? 1 : (int)(300 * Math.Exp(-i / 25.0))))];

    private static IEnumerable<ImmutableArray<DrainSample>> Extremes() =>
    [
        [], [new(0, 0)], [new(0, 1)], [new(3.25, 7)], [new(0, 0), new(10, 0), new(20, 0)], [new(0, 1_000_000), new(86400, 0)],
        [new(0, 5), new(0, 4), new(0, 3)], [new(0, int.MaxValue), new(1e7, 1)],
        [.. Enumerable.Range(0, 600).Select(i => new DrainSample(i * 144, 1_000_000 - i * 1500))],
    ];

    private static DrainCurve Drained() => new("edge", 6, "blue", 7, Began, Began.AddMinutes(2), 4, Falling(),
        [new(0, "retired", "told to finish (soft stop)"), new(90, "closing", "its deadline came"), new(120, "ended", "")]);

    private static DrainCurve Small() => new("edge", 6, "blue", null, Began, Began.AddSeconds(2), 0, [new(0, 2), new(1, 1), new(2, 0)],
        [new(2, "ended", "gone")]);

    private static XmlDocument Picture(DrainCurve curve)
    {
        var picture = new XmlDocument { XmlResolver = null };
        picture.LoadXml(CurveSvg.Document(curve, Began.AddSeconds(150)));
        return picture;
    }

    private static List<XmlNode> Select(XmlDocument picture, string path)
    {
        var names = new XmlNamespaceManager(picture.NameTable);
        names.AddNamespace("s", "http://www.w3.org/2000/svg");
        return [.. picture.SelectNodes(path, names)!.Cast<XmlNode>()];
    }

    private static string[] Texts(XmlDocument picture, string style) =>
        [.. Select(picture, style.Length == 0 ? "//s:text[not(@class)]" : $"//s:text[@class='{style}']").Select(t => t.InnerText)];

    private static (double X, double Y)[] Points(XmlDocument picture) =>
        [.. Select(picture, "//s:polyline").SelectMany(l => l.Attributes!["points"]!.Value.Split(' '))
            .Select(p => p.Split(',')).Select(p => (Read(p[0]), Read(p[1])))];

    private static double Bottom(XmlDocument picture) => Select(picture, "//s:line[@class='axis']").Max(l => Math.Min(Attribute(l, "y1"), Attribute(l, "y2")));

    private static double Attribute(XmlNode node, string name) => Read(node.Attributes![name]!.Value);

    private static double Read(string number) => double.Parse(number, CultureInfo.InvariantCulture);
}
