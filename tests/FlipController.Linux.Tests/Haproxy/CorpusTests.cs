using System.Text;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Tests.Haproxy.Grammar;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy;

/// <summary>The corpus through the projection and the real <c>haproxy -c</c>.</summary>
public sealed class CorpusTests
{
    private const string LocalPeer = "localnode";

    internal static readonly string Folder = Path.Combine(AppContext.BaseDirectory, "Haproxy", "corpus");

    public static TheoryData<string> Files => [.. Directory.GetFiles(Folder, "*.cfg").Select(f => Path.GetFileName(f)).Order()];

    /// <summary>Each as it is, and those with stick tables with them shared too.</summary>
    public static TheoryData<string, bool> Cases
    {
        get
        {
            var cases = new TheoryData<string, bool>();
            foreach (string name in Directory.GetFiles(Folder, "*.cfg").Select(f => Path.GetFileName(f)).Order())
            {
                cases.Add(name, false);
                if (File.ReadAllText(Path.Combine(Folder, name)).Contains("stick-table", StringComparison.Ordinal)) cases.Add(name, true);
            }
            return cases;
        }
    }

    [Fact]
    public void The_corpus_is_there() => Assert.True(Files.Count >= 25);

    [Theory(Timeout = 60_000)]
    [MemberData(nameof(Cases))]
    public async Task A_copy_is_valid_and_brings_no_new_warning(string name, bool shared)
    {
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        using var directory = new TemporaryDirectory();
        CorpusDirectory.Provide(directory.Path);
        string original = directory.File(name);
        byte[] content = await File.ReadAllBytesAsync(Path.Combine(Folder, name), cancellation);
        await File.WriteAllBytesAsync(original, content, cancellation);
        // -L beside a localpeer line is a warning of its own.
        string[] peer = Encoding.UTF8.GetString(content).Contains("localpeer", StringComparison.Ordinal) ? [] : ["-L", LocalPeer];
        ChildOutcome before = await new ChildProcess("haproxy", ["-c", .. peer, "-f", original]) { WorkingDirectory = directory.Path }.RunAsync(cancellation);
        Assert.True(before.ExitCode == 0, before.Output);

        var place = new SlotPlace(directory.File("slot"), directory.File("slot/admin.sock"), new PortBlock(21000, 1000), new HashSet<int>(), LocalPeer,
            shared ? new TablePeer("edge", "00ff00ff00ff00ff", 1) : null);
        ProjectionResult result = Projection.Render([new SourceFile(original, content)], place);
        Assert.Empty(result.Faults);
        RenderedConfiguration copy = result.Configuration!;
        Directory.CreateDirectory(place.Directory);
        foreach (RenderedFile file in copy.Files) await File.WriteAllBytesAsync(file.Path, file.Content, cancellation);
        HaproxyCheck after = await HaproxyBinary.CheckAsync("haproxy", copy.Files.Select(f => f.Path), copy.LocalPeer, directory.Path, cancellation: cancellation);

        Assert.True(after.Verdict == HaproxyVerdict.Valid, after.Output);
        Assert.Equal(Warnings(before.Output), Warnings(copy.Explain(after.Output)));
    }

    private static IEnumerable<string> Warnings(string output) =>
        output.Split('\n').Where(l => l.StartsWith("[WARNING]", StringComparison.Ordinal) || l.StartsWith("[ALERT]", StringComparison.Ordinal))
            .Select(l => Regex.Replace(l, @"\(\d+\)", "(pid)")).Order();
}
