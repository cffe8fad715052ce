using System.Collections.Concurrent;
using System.Collections.Immutable;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy.Grammar;

/// <summary>
/// The rule, with the real HAProxy: what <c>haproxy -c</c> accepts projects to what it accepts with no warning more, and that, started,
/// listens on its private ports and on nothing of the original's; or it is refused. What the original really listens on is looked at
/// too, so that the table of services is the kernel's and not the projection's opinion.
/// </summary>
public sealed class RunningCorpusTests
{
    private const int Lanes = 3;

    [Fact(Timeout = 120_000)]
    public async Task Every_copy_listens_on_its_private_ports_and_on_nothing_of_the_originals()
    {
        Require.Netns();
        string haproxy = Require.Program("haproxy");
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        HaproxyVersion version = await HaproxyBinary.VersionAsync(haproxy, cancellation);
        var work = new ConcurrentQueue<GrammarCase>(GrammarTests.Cases.Where(c => c.NotForHaproxy is null && IsFor(c, version)).Concat(CorpusFiles()));
        var faults = new ConcurrentBag<string>();
        await Task.WhenAll(Enumerable.Range(0, Lanes).Select(_ => Task.Run(async () =>
        {
            using var lane = new Lane();
            while (work.TryDequeue(out GrammarCase? row))
                foreach (string fault in await JudgeAsync(lane, row, cancellation)) faults.Add($"{row.Name}: {fault}");
        }, cancellation)));
        Assert.True(faults.IsEmpty, string.Join('\n', faults.Order()));
    }

    private static async Task<IReadOnlyList<string>> JudgeAsync(Lane lane, GrammarCase row, CancellationToken cancellation)
    {
        using var directory = new TempDir();
        CorpusDirectory.Provide(directory.Path);
        ImmutableArray<SourceFile> files = row.Sources(directory.Path);
        foreach (SourceFile file in files)
        {
            Directory.CreateDirectory(Path.GetDirectoryName(file.Path)!);
            await File.WriteAllBytesAsync(file.Path, file.Content, cancellation);
        }
        ProjectionResult result = row.Render(directory.Path);
        if (row.Expected.Length == 0 && !result.IsRendered) return [.. result.Faults.Select(f => f.ToString())];
        return await lane.JudgeAsync(files, result, directory.Path, row.Environment, cancellation);
    }

    private static bool IsFor(GrammarCase row, HaproxyVersion version) =>
        row.Since?.Split('.') is not [var major, var minor] || version.IsAtLeast(int.Parse(major), int.Parse(minor));

    /// <summary>The files of the corpus, for which the original alone says what the services are.</summary>
    private static IEnumerable<GrammarCase> CorpusFiles() => Directory.GetFiles(CorpusTests.Folder, "*.cfg").Order()
        .Select(f => GrammarCase.Moved(Path.GetFileName(f), System.Text.Encoding.Latin1.GetString(File.ReadAllBytes(f))));
}
