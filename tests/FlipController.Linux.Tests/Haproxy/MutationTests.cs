using System.Text;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy;

/// <summary>Damaged configurations: never an exception, and never an address that would listen unmoved.</summary>
public sealed class MutationTests
{
    private static readonly byte[][] Pieces =
    [
        .. new[]
        {
            "\"", "'", "\\", "\\x", "$", "${", "\0", "\r", "\n", "#", "[", "]", ":", ",", "-", "@", " ", "\t", "bind ", "bind :80\n", "no ",
            "listen x\n", "defaults from x\n", "peers p\n", "global\n", "peer lb1 ", "stats socket ", "default-path config\n", ".if\n", "from ",
            "mode http\n", "interface ", "v6only", "abns@", "ipv6@", "::", "\xff", "65536", "99999999999999999999",
        }.Select(Encoding.Latin1.GetBytes),
    ];

    [Fact(Timeout = 60_000)]
    public async Task A_damaged_configuration_never_throws() => await Task.Run(() =>
    {
        byte[][] corpus = [.. Directory.GetFiles(CorpusTests.Folder, "*.cfg").Order().Select(File.ReadAllBytes)];
        var place = new SlotPlace("/run/a b", "/run/a b/admin", new PortBlock(21000, 4), new HashSet<int> { 21001 }, "lb1", new TablePeer("edge", "00ff00ff00ff00ff", 1));
        var random = new Random(20260);
        for (int i = 0; i < 5000; i++)
        {
            List<byte> content = [.. corpus[random.Next(corpus.Length)]];
            for (int edits = random.Next(1, 9); edits > 0; edits--) Mutate(content, random);
            SourceFile[] files = [.. Enumerable.Range(0, random.Next(1, 3)).Select(n => new SourceFile(n == 0 ? "/etc/h.cfg" : "x", [.. content]))];
            ProjectionResult result = Projection.Render(files, place);
            Assert.Equal(result.Faults.IsEmpty, result.IsRendered);
            if (result.Configuration is not { } copy) continue;
            Assert.NotEmpty(copy.Services);
            Assert.All(copy.Services, s => Assert.InRange(s.PrivatePort, 21000, 21003));
            Assert.NotNull(copy.Explain($"x [{copy.Files[1].Path}:{random.Next(99)}] {copy.Files[1].Path}:99999999999 *:21000"));
            // The copy's own front addresses are the private ports and nothing else.
            ProjectionResult again = Projection.Render(
                [.. copy.Files.Skip(1).Select(f => new SourceFile(f.Path, f.Content))], place with { Ports = new PortBlock(30000, 1000), LocalPeer = copy.LocalPeer ?? "lb1", Tables = null });
            Assert.Empty(again.Faults);
            Assert.Equal(copy.Services.Select(s => s.PrivatePort).Order(), again.Configuration!.Services.Select(s => s.Service.Port).Order());
        }
    }, TestContext.Current.CancellationToken);

    private static void Mutate(List<byte> content, Random random)
    {
        int at = random.Next(content.Count + 1);
        switch (random.Next(4))
        {
            case 0: content.InsertRange(at, Pieces[random.Next(Pieces.Length)]); break;
            case 1: content.RemoveRange(at, Math.Min(random.Next(12), content.Count - at)); break;
            case 2 when at < content.Count: content[at] = (byte)random.Next(256); break;
            default:
                int from = random.Next(content.Count + 1);
                content.InsertRange(at, content.GetRange(from, Math.Min(random.Next(80), content.Count - from)));
                break;
        }
    }
}
