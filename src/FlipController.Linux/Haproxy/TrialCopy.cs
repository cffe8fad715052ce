using System.Collections.Immutable;
using System.Net;
using FlipController.Core;
using FlipController.Linux.Files;
using FlipController.Linux.State;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// The copy that a pair would make of some files, for somebody who has no pair yet: slot blue, ports from 21000 on. Nothing is
/// kept, started or touched.
/// </summary>
/// <param name="Check">What HAProxy says to it, in the user's own lines; null: it was not asked, or there is no copy.</param>
public sealed record TrialCopy(ProjectionResult Projection, HaproxyCheck? Check)
{
    private const string Shown = "/run/flipcontroller/pair/blue";

    /// <param name="paths">As HAProxy's -f has them, absolute.</param>
    /// <param name="binary">The HAProxy that would read it. When there is none, what it alone knows is not known.</param>
    /// <param name="check">Have that HAProxy look at the copy, in a directory of its own that is removed again.</param>
    public static async Task<TrialCopy> OfAsync(
        ImmutableArray<string> paths, string binary, bool check, CancellationToken cancellation = default)
    {
        var options = new HaproxyOptions { Config = paths, Binary = binary };
        Snapshot snapshot = new WatchedFiles(options).Read();
        ImmutableArray<SourceFile> files = [.. snapshot.Files.Select(f => new SourceFile(f.Path, f.Content))];
        HaproxySurroundings surroundings = await SurroundingsAsync(binary, check, cancellation);
        ProjectionResult shown = Haproxy.Projection.Render(files, PlaceIn(Shown), surroundings);
        if (!check || !shown.IsRendered) return new(shown, null);

        DirectoryInfo directory = Directory.CreateTempSubdirectory("flipctl-");
        try
        {
            RenderedConfiguration copy = Haproxy.Projection.Render(files, PlaceIn(directory.FullName), surroundings).Configuration!;
            string working = Path.GetDirectoryName(files[0].Path)!;
            foreach (RenderedFile file in copy.Files) await File.WriteAllBytesAsync(file.Path, file.Content, cancellation);
            foreach (ServerStateFile state in copy.ServerStateFiles) state.Provide(working);
            HaproxyCheck said = await HaproxyBinary.CheckAsync(
                binary, copy.Files.Select(f => f.Path), copy.LocalPeer, working, null, cancellation);
            return new(shown, said with { Output = copy.Explain(said.Output) });
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    private static SlotPlace PlaceIn(string directory) => new(
        directory, $"{directory}/admin.sock", new PortBlock(new PortsOptions().Blue, PortBlocks.MostPorts), ImmutableHashSet<int>.Empty,
        Dns.GetHostName());

    private static async Task<HaproxySurroundings> SurroundingsAsync(string binary, bool needed, CancellationToken cancellation)
    {
        try
        {
            return await HostSurroundings.OfAsync(binary, ImmutableDictionary<string, string>.Empty, cancellation);
        }
        catch (CommandFailedException) when (!needed)
        {
            return HostSurroundings.WithoutProgram();
        }
    }
}
