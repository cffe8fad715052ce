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

    /// <summary>
    /// How <paramref name="other"/> compares with this version (src/haproxy.c, compare_current_version): below 0 when it is older,
    /// above 0 when it is newer, below 0 too when it is no version at all.
    /// </summary>
    public int ComparedWith(string other)
    {
        if (Split(Text) is not { } mine || Split(other) is not { } theirs) return -3;
        for (int i = 0; i < mine.Length; i++)
            if (theirs[i] != mine[i]) return theirs[i].CompareTo(mine[i]);
        return 0;
    }

    /// <summary>MAJOR.MINOR[.PATCH[.FIX]][-TAG[NUMBER]][-…-COMMITS]; a release is newer than its dev and rc versions.</summary>
    private static ImmutableArray<long>? Split(string version)
    {
        Match match = Parts().Match(version);
        if (!match.Success) return null;
        string tag = match.Groups["tag"].Value;
        return
        [
            Number("major"), Number("minor"), Number("patch"), Number("fix"), tag switch { "" => 3, "dev" => 1, _ => 2 },
            Number("number"), Number("commits"),
        ];

        long Number(string group) =>
            long.TryParse(match.Groups[group].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture, out long number) ? number : 0;
    }

    public override string ToString() => Text;

    [GeneratedRegex(@"^(?<major>\d+)(\.(?<minor>\d+)(\.(?<patch>\d+)(\.(?<fix>\d+))?)?)?"
        + @"(-((?<tag>dev|rc|pre)(?<number>\d*)(?=-|$))?(.*-)?((?<commits>\d+)|[^-]+)?)?$")]
    private static partial Regex Parts();

    [GeneratedRegex(@"^HA-?Proxy version (?<text>(?<major>[0-9]{1,4})\.(?<minor>[0-9]{1,4})\S*)", RegexOptions.Multiline)]
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
        var command = new ChildProcess(binary, ["-v"]) { Timeout = TimeSpan.FromSeconds(10), Beside = ChildEnvironment.Inherited };
        ChildOutcome outcome = await command.SucceedAsync(cancellation);
        string said = outcome.StandardOutput;
        return HaproxyVersion.Parse(said)
            ?? throw new CommandFailedException(command.CommandLine, outcome.ExitCode, $"\"{said.Trim()}\" names no HAProxy version");
    }

    /// <summary>What <c>haproxy -vv</c> tells; asked once for each state of the program on disk.</summary>
    public static Task<HaproxyBuild> BuildAsync(string binary, CancellationToken cancellation = default) =>
        HaproxyBuild.OfAsync(binary, cancellation);

    /// <summary>
    /// Has the configuration checked as it will be started: with the same names, local peer, directory and environment. It binds nothing, so
    /// an address that is in use is not found here; large certificate stores take their time.
    /// </summary>
    public static async Task<HaproxyCheck> CheckAsync(
        string binary, IEnumerable<string> files, string? localPeer, string directory,
        IReadOnlyDictionary<string, string>? environment = null, CancellationToken cancellation = default)
    {
        var command = new ChildProcess(
            binary, ["-c", .. localPeer is null ? [] : new[] { "-L", localPeer }, .. files.SelectMany(f => new[] { "-f", f })])
        {
            WorkingDirectory = directory, Polite = true, Timeout = TimeSpan.FromMinutes(2),
            Environment = environment ?? ImmutableDictionary<string, string>.Empty, Beside = ChildEnvironment.Inherited,
        };
        ChildOutcome outcome = await command.RunAsync(cancellation);
        return Enum.IsDefined((HaproxyVerdict)outcome.ExitCode)
            ? new((HaproxyVerdict)outcome.ExitCode, outcome.Output)
            : throw new CommandFailedException(command.CommandLine, outcome.ExitCode, outcome.StandardError);
    }
}
