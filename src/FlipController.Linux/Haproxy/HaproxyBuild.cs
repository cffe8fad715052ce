using System.Collections.Concurrent;
using System.Collections.Immutable;
using System.Text.RegularExpressions;

namespace FlipController.Linux.Haproxy;

/// <summary>A HAProxy program, as <c>haproxy -vv</c> tells of it.</summary>
/// <param name="Features">The names with a plus in its feature list: <c>OPENSSL</c>, <c>LUA</c>, …</param>
/// <param name="SslLibrary">The TLS library it runs with, such as <c>OpenSSL 3.0.22 25 Aug 2026</c>; empty: none.</param>
public sealed partial record HaproxyBuild(HaproxyVersion Version, ImmutableHashSet<string> Features, string SslLibrary)
{
    private static readonly ConcurrentDictionary<(string, DateTime), HaproxyBuild> s_known = new();

    /// <summary>Reads what <c>haproxy -vv</c> prints; null when it is not HAProxy's.</summary>
    public static HaproxyBuild? Parse(string output)
    {
        if (HaproxyVersion.Parse(output) is not { } version) return null;
        IEnumerable<string> features = FeatureList().Match(output).Groups[1].Value.Split(' ', StringSplitOptions.RemoveEmptyEntries)
            .Where(f => f.StartsWith('+')).Select(f => f[1..]);
        return new(version, [.. features], SslLine().Match(output).Groups[1].Value.Trim());
    }

    /// <summary>Asks the program, once for each of its versions on disk. Throws a CommandFailedException when it is no HAProxy.</summary>
    internal static async Task<HaproxyBuild> OfAsync(string binary, CancellationToken cancellation = default)
    {
        (string, DateTime)? key = Program(binary) is { } path ? (path, File.GetLastWriteTimeUtc(path)) : null;
        if (key is { } found && s_known.TryGetValue(found, out HaproxyBuild? known)) return known;
        var command = new ChildProcess(binary, ["-vv"]) { Timeout = TimeSpan.FromSeconds(10), Polite = true, Beside = ChildEnvironment.Inherited };
        ChildOutcome outcome = await command.SucceedAsync(cancellation);
        HaproxyBuild build = Parse(outcome.StandardOutput) ?? throw new CommandFailedException(
            command.CommandLine, outcome.ExitCode, $"\"{outcome.StandardOutput.Split('\n')[0]}\" names no HAProxy version");
        if (key is { } asked) s_known[asked] = build;
        return build;
    }

    /// <summary>The file that execvp(3) would run for this name; null: there is none.</summary>
    internal static string? Program(string binary) => binary.Contains('/', StringComparison.Ordinal)
        ? Existing(binary)
        : (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':', StringSplitOptions.RemoveEmptyEntries)
            .Select(d => Existing(Path.Combine(d, binary))).FirstOrDefault(p => p is not null);

    // Of a link the file behind it: an upgrade replaces that, and leaves the link as it is.
    private static string? Existing(string path) =>
        File.Exists(path) ? File.ResolveLinkTarget(path, returnFinalTarget: true)?.FullName ?? path : null;

    [GeneratedRegex(@"^Feature list :(.*)$", RegexOptions.Multiline)]
    private static partial Regex FeatureList();

    [GeneratedRegex(@"^Running on (?:OpenSSL|SSL library|LibreSSL|AWS-LC|WolfSSL) version ?:(.*)$", RegexOptions.Multiline)]
    private static partial Regex SslLine();
}
