using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy.Grammar;

/// <summary>
/// Damaged configurations: a copy or faults, never an exception and never a hang; what is copied is copied to the byte, and no
/// address of it would listen unmoved. A failure names its seed, with which <see cref="Mutation.Make"/> makes the file again.
/// </summary>
public sealed class MutationTests
{
    private const int Cases = 100_000, Judged = 400;

    private static readonly PortBlock Ports = new(21000, 64), PortsOfCopies = new(30000, 1000);

    private static readonly byte[][] Corpus =
    [
        .. Directory.GetFiles(CorpusTests.Folder, "*.cfg").Order().Select(File.ReadAllBytes),
        .. GrammarTests.Cases.Where(c => c.Files.All(f => f.Text.Length < 4000)).SelectMany(c => c.Sources("/srv/x")).Select(f => f.Content),
    ];

    [Fact(Timeout = 180_000)]
    public async Task A_damaged_configuration_is_copied_rightly_or_refused()
    {
        var slowest = TimeSpan.Zero;
        int rendered = 0;
        await Parallel.ForAsync(0, Cases, TestContext.Current.CancellationToken, (seed, _) =>
        {
            byte[] content = seed % 8 == 1 ? Mutation.Respell(Corpus, seed) : Mutation.Make(Corpus, seed, 8);
            var watch = Stopwatch.StartNew();
            try
            {
                if (Check(content, seed)) Interlocked.Increment(ref rendered);
            }
            catch (Exception e)
            {
                throw new InvalidOperationException($"seed {seed}: {e.Message}\n{Convert.ToBase64String(content)}", e);
            }
            if (watch.Elapsed > slowest) slowest = watch.Elapsed;
            return ValueTask.CompletedTask;
        });
        Assert.InRange(slowest, TimeSpan.Zero, TimeSpan.FromSeconds(5));
        // Most damage is for HAProxy to find: a projection that refuses everything would pass all the rest.
        Assert.InRange(rendered, Cases / 4, Cases);
    }

    private static bool Check(byte[] content, int seed)
    {
        SourceFile[] files = [.. Enumerable.Range(0, seed % 8 == 0 ? 2 : 1).Select(n => new SourceFile(n == 0 ? "/etc/h.cfg" : "x", content))];
        ProjectionResult result = Projection.Render(files, new SlotPlace("/run/a b", "/run/a b/admin", Ports, new HashSet<int> { 21001 }, "lb1"), Surroundings(null));
        Assert.Equal(result.Faults.IsEmpty, result.IsRendered);
        if (!result.IsRendered)
        {
            Assert.All(result.Faults, f => Assert.True(f.Line >= 1 && f.Message.Length > 10 && files.Any(s => s.Path == f.File), $"{f}"));
            return false;
        }
        RenderedConfiguration copy = result.Configuration;
        Assert.All(copy.Services, s => Assert.True(Ports.Contains(s.PrivatePort) && s.PrivatePort != 21001, $"{s}"));
        Assert.NotNull(copy.Explain($"x [{copy.Files[1].Path}:{seed % 99}] {copy.Files[1].Path}:99999999999 *:21000"));
        foreach (var (file, source) in copy.Files.Skip(1).Zip(files)) CopyToTheByte.Check(source, file);
        // The copy's own front addresses are the private ports and nothing else.
        ProjectionResult again = Projection.Render([.. copy.Files.Skip(1).Select(f => new SourceFile(f.Path, f.Content))],
            new SlotPlace("/run/c", "/run/c/admin", PortsOfCopies, new HashSet<int>(), copy.LocalPeer!), Surroundings(null));
        Assert.True(again.IsRendered, $"{again.Faults.FirstOrDefault()}");
        Assert.Equal(copy.Services.Select(s => s.PrivatePort).Distinct().Order(), again.Configuration.Services.Select(s => s.Service.Port).Distinct().Order());
        return true;
    }

    [Fact(Timeout = 180_000)]
    public async Task What_HAProxy_accepts_of_it_runs_apart_from_the_original()
    {
        Require.Netns();
        HaproxyBuild build = await HaproxyBinary.BuildAsync(Require.Program("haproxy"), TestContext.Current.CancellationToken);
        int next = 0, accepted = 0;
        var faults = new ConcurrentBag<string>();
        await Task.WhenAll(Enumerable.Range(0, 3).Select(_ => Task.Run(async () =>
        {
            using var lane = new Lane();
            using var directory = new TempDir();
            CorpusDirectory.Provide(directory.Path);
            while (Interlocked.Increment(ref next) is var seed && seed <= Judged)
            {
                byte[] content = Encoding.Latin1.GetBytes(Encoding.Latin1.GetString(seed % 2 == 0 ? Mutation.Respell(Corpus, seed) : Mutation.Make(Corpus, seed, 2)).Replace("/srv/x", directory.Path, StringComparison.Ordinal));
                // Only versions before 2.0 take an address in the head of a section; later ones say so, start, and listen nowhere for it.
                if (Encoding.Latin1.GetString(content).Contains("frontend f :80", StringComparison.Ordinal)) continue;
                SourceFile[] files = [new(directory["h.cfg"], content)];
                ProjectionResult result = Projection.Render(files, new SlotPlace(directory["slot"], directory["slot/admin"], Ports, new HashSet<int>(), GrammarCase.LocalPeer), Surroundings(build));
                if (!result.IsRendered) continue;
                await File.WriteAllBytesAsync(files[0].Path, content);
                IReadOnlyList<string> wrong = await lane.JudgeAsync(files, result, directory.Path, Mutation.Environment, TestContext.Current.CancellationToken);
                if (wrong.Count == 0) Interlocked.Increment(ref accepted);
                foreach (string fault in wrong.Where(f => !f.StartsWith(Lane.OriginalRefused, StringComparison.Ordinal)
                    && !f.StartsWith(Lane.OriginalUnstarted, StringComparison.Ordinal))) faults.Add($"seed {seed}: {fault}\n{Encoding.Latin1.GetString(content)}\n");
            }
        })));
        Assert.True(faults.IsEmpty, string.Join('\n', faults.Order()));
        Assert.InRange(accepted, Judged / 10, Judged);
    }

    private static HaproxySurroundings Surroundings(HaproxyBuild? build) => new()
    {
        Environment = Mutation.Environment,
        Resolve = (name, family) => name == "localhost" && family != AddressFamily.InterNetworkV6 ? System.Net.IPAddress.Loopback : null,
        Build = build,
    };
}
