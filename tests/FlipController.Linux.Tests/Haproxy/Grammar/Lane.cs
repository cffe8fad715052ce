using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Tests.Shared;

namespace FlipController.Linux.Tests.Haproxy.Grammar;

/// <summary>A namespace in which one HAProxy after another runs, the original of a configuration and then its copy.</summary>
internal sealed class Lane : IDisposable
{
    public const string OriginalRefused = "HAProxy does not take the original", OriginalUnstarted = "the original does not start";

    private readonly Netns netns = Netns.Create();

    public Lane()
    {
        // Addresses of hosts that are not this one may be bound, so that a configuration may name any.
        netns.Sysctl("net.ipv4.ip_nonlocal_bind", "1");
        netns.Sysctl("net.ipv6.ip_nonlocal_bind", "1");
        netns.Sysctl("net.ipv4.ip_unprivileged_port_start", "0");
    }

    public void Dispose() => netns.Dispose();

    /// <summary>What is wrong; nothing: the rule holds for this configuration.</summary>
    /// <param name="directory">Where the files are, and what they name; the working directory.</param>
    public async Task<IReadOnlyList<string>> JudgeAsync(
        IReadOnlyList<SourceFile> files, ProjectionResult result, string directory, IReadOnlyDictionary<string, string> environment, CancellationToken cancellation)
    {
        List<string> faults = [];
        string[] original = Options(files.Select(f => f.Path));
        // -L beside a localpeer line is a warning of its own, and wins.
        bool named = result.Configuration is { } c && c.LocalPeer != GrammarCase.LocalPeer
            || files.Any(f => Encoding.Latin1.GetString(f.Content).Contains("localpeer ", StringComparison.Ordinal));
        if (!named) original = ["-L", GrammarCase.LocalPeer, .. original];
        ChildOutcome before = await HaproxyAsync(directory, environment, ["-c", .. original], cancellation);
        if (before.ExitCode != 0) return [$"{OriginalRefused}: {before.Output}"];
        if (!result.IsRendered) return [];

        RenderedConfiguration copy = result.Configuration;
        Directory.CreateDirectory($"{directory}/slot");
        foreach (RenderedFile file in copy.Files) await File.WriteAllBytesAsync(file.Path, file.Content, cancellation);
        foreach (ServerStateFile state in copy.ServerStateFiles) state.Provide(directory);
        string[] options = [.. copy.LocalPeerOption, .. Options(copy.Files.Select(f => f.Path))];
        ChildOutcome after = await HaproxyAsync(directory, environment, ["-c", .. options], cancellation);
        if (after.ExitCode != 0) return [$"HAProxy does not take the copy: {copy.Explain(after.Output)}"];
        string[] warned = [.. Warnings(before.Output)], warnedNow = [.. Warnings(copy.Explain(after.Output))];
        if (warnedNow.Length > warned.Length) faults.Add($"HAProxy warns of the copy: {string.Join("; ", warnedNow.Except(warned))}");

        (Listening? ofOriginal, string said) = await RunAsync(directory, environment, original, cancellation);
        if (ofOriginal is null) return [.. faults, $"{OriginalUnstarted}: {said}"];
        (Listening? ofCopy, said) = await RunAsync(directory, environment, options, cancellation);
        if (ofCopy is null) faults.Add($"the copy does not start: {said}");
        else faults.AddRange(ofCopy.Faults(copy, ofOriginal, $"{directory}/slot"));
        return faults;
    }

    public Task<ChildOutcome> HaproxyAsync(string directory, IReadOnlyDictionary<string, string> environment, IEnumerable<string> options, CancellationToken cancellation) =>
        new ChildProcess("ip", ["netns", "exec", netns.Name, "env", .. environment.Select(v => $"{v.Key}={v.Value}"), "haproxy", .. options])
        {
            WorkingDirectory = directory,
        }.RunAsync(cancellation);

    /// <summary>Starts it, looks where it listens, and ends it.</summary>
    /// <returns>Null, and what it said: it does not start.</returns>
    private async Task<(Listening? Listening, string Said)> RunAsync(
        string directory, IReadOnlyDictionary<string, string> environment, IEnumerable<string> options, CancellationToken cancellation)
    {
        ChildOutcome start = await HaproxyAsync(directory, environment, ["-D", "-p", $"{directory}/pid", .. options], cancellation);
        try
        {
            return start.ExitCode == 0 ? (netns.Run(Listening.Now), "") : (null, start.Output);
        }
        finally
        {
            await EndAllAsync();
        }
    }

    private async Task EndAllAsync() => await Eventually.True(() =>
    {
        int[] pids = [.. Pids()];
        foreach (int pid in pids) _ = Signals.Send(pid, Signals.Kill);
        // A process leaves its namespace before its sockets are closed: do_exit() in kernel/exit.c.
        return pids.Length == 0 && netns.Run(() =>
        {
            using var sockets = new SockDiag();
            return sockets.Listeners().Count == 0;
        });
    }, TimeSpan.FromSeconds(10), "everything that was started in the namespace has ended");

    private IEnumerable<int> Pids() => Command.TryRun("ip", "netns", "pids", netns.Name)
        .Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(p => int.Parse(p, CultureInfo.InvariantCulture));

    private static string[] Options(IEnumerable<string> files) => [.. files.SelectMany(f => new[] { "-f", f })];

    public static IEnumerable<string> Warnings(string output) => output.Split('\n').Where(l => l.StartsWith("[WARNING]", StringComparison.Ordinal))
        .Select(l => Regex.Replace(l, @"\(\d+\)", "(pid)"));
}
