using System.Globalization;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Linux;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>
/// Every fenced code block of README.md and examples/*/README.md is run or checked here. Each has an info string:
/// <list type="bullet">
/// <item><c>sh</c>: run by bash -eu in the repository's directory, in a namespace of its own that has a steady pair `edge` on
/// 127.0.0.1:80 and [::1]:80, a running daemon on the default paths (/etc/flipcontroller, /run/flipcontroller, ... are the
/// namespace's own), flipctl, flipcontrollerd and flipload in PATH, FLIPCONTROLLER_SOCKET and FLIPCONTROLLER_RUNTIME set. The
/// blocks of one page run in order in one namespace. A line `# exit 3` says that it must end so (else: 0). A line
/// `# run by: NAME...` leaves it to that test class.</item>
/// <item><c>yaml</c>: valid to check-config, as a whole file, as the part of one beside `pairs`, or as what stands under a pair.
/// A line `# exit 2` says that it must be refused.</item>
/// <item><c>text</c> after an sh block: its output. After a line <c>&lt;!-- output of: CMD --&gt;</c>: what CMD prints in the state
/// that the blocks before it left. Numbers, times and hashes may differ, runs of spaces too; a line `...` stands for any lines.
/// After a line <c>&lt;!-- figure --&gt;</c>: a drawing, not checked.</item>
/// </list>
/// </summary>
[Collection(PairUnderTest.Alone)]
public sealed partial class ReadmeTests
{
    private const int Limit = 3 * 60_000;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    public static TheoryData<string> Pages => [.. new[] { "README.md" }
        .Concat(Directory.EnumerateFiles(Path.Combine(Repository.Root, "examples"), "README.md", SearchOption.AllDirectories)
            .Select(f => Path.GetRelativePath(Repository.Root, f)).Order(StringComparer.Ordinal))];

    [Theory(Timeout = Limit)]
    [MemberData(nameof(Pages))]
    public async Task Every_block_does_what_it_says(string page)
    {
        List<Block> blocks = Blocks(await File.ReadAllTextAsync(Path.Combine(Repository.Root, page)));
        var wrong = new List<string>();
        ReadmeHost? host = null;
        try
        {
            string lastOutput = "";
            foreach (Block block in blocks)
            {
                string? why = null;
                if (block.Kind == "yaml") why = Yaml(block);
                else if (block is { Kind: "sh", RunBy: { } other }) why = RunBy(other);
                else if (block.Kind == "sh")
                {
                    host ??= await ReadmeHost.StartAsync();
                    (int code, lastOutput) = await host.RunAsync(block.Text, s_patience);
                    if (code != block.Exit) why = $"it exited {code}, not {block.Exit}:\n{lastOutput}";
                }
                else if (block is { Kind: "text", OutputOf: { } command })
                {
                    host ??= await ReadmeHost.StartAsync();
                    (_, string output) = await host.RunAsync(command, s_patience);
                    if (!Matches(block.Text, output)) why = $"`{command}` printed\n{output}";
                }
                else if (block is { Kind: "text", AfterShell: true })
                {
                    if (!Matches(block.Text, lastOutput)) why = $"the block before it printed\n{lastOutput}";
                }
                else if (block is not { Kind: "text", IsFigure: true })
                {
                    why = $"\"{block.Kind}\" without a marker is nothing that could be checked: see the conventions above ReadmeTests";
                }
                if (why is not null) wrong.Add($"{page}:{block.Line}: {why}");
            }
        }
        finally
        {
            if (host is not null) await host.DisposeAsync();
        }
        Assert.True(wrong.Count == 0, string.Join("\n\n", wrong));
    }

    [Theory]
    [InlineData("a 12 us", "a 7 us", true)]
    [InlineData("edge  steady   pid 9", "edge steady pid 12345", true)]
    [InlineData("config 0f3a99c1d2e4", "config 77aabbccddee", true)]
    [InlineData("first\n...\nlast", "first\nx\ny\nlast", true)]
    [InlineData("first\n...\nlast", "first\nx\ny", false)]
    [InlineData("a", "a\nb", false)]
    [InlineData("a", "b", false)]
    public void Outputs_are_compared_but_for_numbers(string page, string output, bool same) => Assert.Equal(same, Matches(page, output));

    [Fact]
    public void Blocks_are_found_with_what_is_said_about_them()
    {
        List<Block> blocks = Blocks("# T\n\n```sh\n# exit 3\nfalse\n```\n\n```text\nno\n```\n<!-- output of: flipctl status -->\n```text\nx\n```\n"
            + "<!-- figure -->\n\n```text\n-->\n```\nword\n```\nbare\n```\n```sh\n# run by: XTests, too\nx\n```\n");
        Assert.Equal([
            new Block(3, "sh", "# exit 3\nfalse\n", 3, null, null, false, false), new Block(8, "text", "no\n", 0, null, null, true, false),
            new Block(12, "text", "x\n", 0, null, "flipctl status", false, false), new Block(17, "text", "-->\n", 0, null, null, false, true),
            new Block(21, "", "bare\n", 0, null, null, false, false), new Block(24, "sh", "# run by: XTests, too\nx\n", 0, "XTests", null, false, false)], blocks);
    }

    private sealed record Block(int Line, string Kind, string Text, int Exit, string? RunBy, string? OutputOf, bool AfterShell, bool IsFigure);

    private static List<Block> Blocks(string page)
    {
        var blocks = new List<Block>();
        string[] lines = page.Split('\n');
        string before = ""; // The last line that is not empty; of a block its kind, after a fence.
        for (int i = 0; i < lines.Length; i++)
        {
            string line = lines[i].Trim();
            if (!line.StartsWith("```", StringComparison.Ordinal))
            {
                if (line.Length > 0) before = line;
                continue;
            }
            string kind = line[3..].Trim();
            int end = Array.FindIndex(lines, i + 1, l => l.Trim() == "```");
            Assert.True(end > 0, $"line {i + 1}: a block without an end");
            string text = string.Concat(lines[(i + 1)..end].Select(l => l + "\n"));
            blocks.Add(new Block(
                i + 1, kind, text, ExitLine().Match(text) is { Success: true } exit ? int.Parse(exit.Groups[1].Value, CultureInfo.InvariantCulture) : 0,
                RunByLine().Match(text) is { Success: true } by ? by.Groups[1].Value : null,
                OutputLine().Match(before) is { Success: true } output ? output.Groups[1].Value : null,
                kind == "text" && before == "```sh", before == "<!-- figure -->"));
            before = $"```{kind}";
            i = end;
        }
        return blocks;
    }

    /// <summary>Null when it is as it should be.</summary>
    private static string? Yaml(Block block)
    {
        const string Pair = "  edge:\n", Haproxy = "    haproxy: { config: [/etc/haproxy/haproxy.cfg] }\n";
        string under = string.Concat(block.Text.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(l => $"    {l}\n"));
        string[] ways = [block.Text, $"{block.Text}\npairs:\n{Pair}{Haproxy}", $"pairs:\n{Pair}{under}", $"pairs:\n{Pair}{Haproxy}{under}"];
        using var files = new TempDir();
        List<ConfigurationResult> results = [.. ways.Select(w => YamlFile.ReadConfiguration(files.Write("flipcontroller.yaml", w)))];
        bool valid = results.Any(r => r.Configuration is not null);
        if (block.Exit == 2) return valid ? "it is valid, though it says `# exit 2`" : null;
        return valid ? null : $"check-config refuses it:\n{string.Join('\n', results.MinBy(r => r.Faults.Length)!.Faults)}";
    }

    private static string? RunBy(string test) =>
        Directory.EnumerateFiles(Path.Combine(Repository.Root, "tests"), $"{test}.cs", SearchOption.AllDirectories).Any()
            ? null : $"it is said to be run by {test}, which is not in tests/";

    private static bool Matches(string page, string output)
    {
        string pattern = string.Join('\n', Masked(page).Select(l => l is "..." or "…" ? "(?s:.*)" : Regex.Escape(l)));
        return Regex.IsMatch(string.Join('\n', Masked(output)), $@"\A{pattern}\z", RegexOptions.None, TimeSpan.FromSeconds(5));
    }

    private static IEnumerable<string> Masked(string text) => text.Split('\n').Select(l => Spaces().Replace(Numbers().Replace(Hashes().Replace(l, "#"), "#"), " ").Trim())
        .Where(l => l.Length > 0);

    [GeneratedRegex(@"^# exit (\d+)\s*$", RegexOptions.Multiline)]
    private static partial Regex ExitLine();

    [GeneratedRegex(@"^# run by: (\w+)", RegexOptions.Multiline)]
    private static partial Regex RunByLine();

    [GeneratedRegex(@"^<!-- output of: (.+?) -->$")]
    private static partial Regex OutputLine();

    [GeneratedRegex(@"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b")]
    private static partial Regex Hashes();

    [GeneratedRegex(@"\d+(\.\d+)?")]
    private static partial Regex Numbers();

    [GeneratedRegex(@"\s+")]
    private static partial Regex Spaces();
}
