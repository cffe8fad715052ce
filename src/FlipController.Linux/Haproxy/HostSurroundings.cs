using System.Collections;
using System.Collections.Concurrent;
using System.Collections.Immutable;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Files;

namespace FlipController.Linux.Haproxy;

/// <summary>The surroundings HAProxy really has on this host, when this process starts it.</summary>
public static class HostSurroundings
{
    private static readonly ConcurrentDictionary<(HaproxyBuild, string), bool?> s_answers = new();

    /// <summary>
    /// The variables a server is given by name: of each file in turn, then those that are configured.
    /// </summary>
    /// <param name="files">The contents of the environment files that are there.</param>
    public static ImmutableSortedDictionary<string, string> Variables(ServerOptions options, IEnumerable<byte[]> files)
    {
        var variables = ImmutableSortedDictionary.CreateBuilder<string, string>(StringComparer.Ordinal);
        foreach (byte[] file in files)
            foreach (var (name, value) in EnvironmentFile.Read(Encoding.UTF8.GetString(file))) variables[name] = value;
        foreach (var (name, value) in options.Environment) variables[name] = value;
        return variables.ToImmutable();
    }

    /// <param name="variables">What HAProxy is given beside this process's own.</param>
    public static async Task<HaproxySurroundings> OfAsync(
        string binary, IReadOnlyDictionary<string, string> variables, CancellationToken cancellation = default)
    {
        HaproxyBuild build = await HaproxyBinary.BuildAsync(binary, cancellation);
        HaproxySurroundings host = WithoutProgram();
        return host with
        {
            Environment = host.Environment!.Concat(variables).GroupBy(v => v.Key).ToDictionary(v => v.Key, v => v.Last().Value),
            Build = build,
            // What the program is does not change while it runs, and what the environment is never gets there.
            Condition = condition => !build.Version.IsAtLeast(2, 5) ? null : Answer(build, binary, condition),
        };
    }

    /// <summary>What can be known where there is no HAProxy.</summary>
    public static HaproxySurroundings WithoutProgram() => new()
    {
        Environment = Environment.GetEnvironmentVariables().Cast<DictionaryEntry>()
            .ToDictionary(v => (string)v.Key, v => (string?)v.Value ?? "", StringComparer.Ordinal),
        Resolve = HostNames.Resolve,
    };

    /// <summary>Only what it said is remembered: one that could not be asked may be asked again.</summary>
    private static bool? Answer(HaproxyBuild build, string binary, string condition)
    {
        if (s_answers.TryGetValue((build, condition), out bool? known)) return known;
        bool? answer = Ask(binary, condition);
        if (answer is not null) s_answers[(build, condition)] = answer;
        return answer;
    }

    /// <summary><c>haproxy -cc</c>, since 2.5: 0 true, 1 false, 2 not understood.</summary>
    private static bool? Ask(string binary, string condition)
    {
        var command = new ChildProcess(binary, ["-cc", ConfigurationLine.Quote(condition)]) { Timeout = TimeSpan.FromSeconds(10), Beside = ChildEnvironment.Inherited };
        try
        {
            return Task.Run(() => command.RunAsync()).GetAwaiter().GetResult().ExitCode switch { 0 => true, 1 => false, _ => null };
        }
        catch (CommandFailedException)
        {
            return null;
        }
    }
}
