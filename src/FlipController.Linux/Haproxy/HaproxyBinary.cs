using System.Collections.Immutable;
using System.Globalization;
using System.Text.RegularExpressions;

namespace FlipController.Linux.Haproxy;

/// <param name="Text">As the program says it: <c>2.6.12-1+deb12u1</c>.</param>
public sealed partial record HaproxyVersion(string Text, int Major, int Minor)
{
    /// <summary>Reads the first line of <c>haproxy -v</c>; before 2.4 the name had a hyphen.</summary>
    public static HaproxyVersion? Parse(string output) => FirstLine().Match(output) is { Success: true } match
        ? new(match.Groups["text"].Value,
            int.Parse(match.Groups["major"].ValueSpan, CultureInfo.InvariantCulture),
            int.Parse(match.Groups["minor"].ValueSpan, CultureInfo.InvariantCulture))
        : null;

    public bool IsAtLeast(int major, int minor) => (Major, Minor).CompareTo((major, minor)) >= 0;

    public override string ToString() => Text;

    [GeneratedRegex(@"^HA-?Proxy version (?<text>(?<major>\d{1,4})\.(?<minor>\d{1,4})\S*)", RegexOptions.Multiline)]
    private static partial Regex FirstLine();
}

/// <summary>What <c>haproxy -c</c> answers by its exit code (src/haproxy.c, init).</summary>
public enum HaproxyVerdict
{
    Valid = 0,
    Invalid = 1,
    /// <summary>Nothing wrong, but it would not start: it listens nowhere.</summary>
    NoListener = 2,
}

/// <param name="Output">Everything it said, warnings included; about the copy, see <see cref="RenderedConfiguration.Explain"/>.</param>
public sealed record HaproxyCheck(HaproxyVerdict Verdict, string Output)
{
    public ImmutableArray<string> Warnings => [.. Output.Split('\n').Where(l => l.StartsWith("[WARNING]", StringComparison.Ordinal))];
}

public static class HaproxyBinary
{
    public static async Task<HaproxyVersion> VersionAsync(string binary, CancellationToken cancellation = default)
    {
        var command = new ChildProcess(binary, ["-v"]) { Timeout = TimeSpan.FromSeconds(10) };
        ChildOutcome outcome = await command.SucceedAsync(cancellation);
        string said = outcome.StandardOutput;
        return HaproxyVersion.Parse(said)
            ?? throw new CommandFailedException(command.CommandLine, outcome.ExitCode, $"\"{said.Trim()}\" names no HAProxy version");
    }

    /// <summary>
    /// Has the configuration checked as it will be started: with the same names, local peer and directory. It binds nothing, so
    /// an address that is in use is not found here; large certificate stores take their time.
    /// </summary>
    public static async Task<HaproxyCheck> CheckAsync(
        string binary, IEnumerable<string> files, string? localPeer, string directory, CancellationToken cancellation = default)
    {
        var command = new ChildProcess(binary, ["-c", .. localPeer is null ? [] : new[] { "-L", localPeer }, .. files.SelectMany(f => new[] { "-f", f })])
        {
            WorkingDirectory = directory, Polite = true, Timeout = TimeSpan.FromMinutes(2),
        };
        ChildOutcome outcome = await command.RunAsync(cancellation);
        return Enum.IsDefined((HaproxyVerdict)outcome.ExitCode)
            ? new((HaproxyVerdict)outcome.ExitCode, outcome.Output)
            : throw new CommandFailedException(command.CommandLine, outcome.ExitCode, outcome.StandardError);
    }
}
