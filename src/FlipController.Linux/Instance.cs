using System.Collections.Immutable;
using System.Globalization;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Linux.Commands;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Linux.State;
using FlipController.Linux.Units;

namespace FlipController.Linux;

/// <summary>One generation's server, as it is started: an HAProxy, or what a pair's commands run.</summary>
public abstract partial record Instance(RenderedConfiguration Configuration, GenerationPlace Place, string WorkingDirectory)
{
    protected static readonly TimeSpan StartTimeout = TimeSpan.FromMinutes(2);

    /// <summary>As a sentence calls it.</summary>
    public abstract string Called { get; }

    /// <summary>Variables it is given by name.</summary>
    public IReadOnlyDictionary<string, string> Environment { get; init; } = ImmutableDictionary<string, string>.Empty;

    /// <summary>Writes the copy, readable by its owner only: it may name passwords.</summary>
    public virtual void WriteFiles()
    {
        AtomicFile.EnsurePassableDirectory(Path.Combine(Place.Runtime, Place.Pair));
        Place.Remove();
        AtomicFile.EnsurePrivateDirectory(Place.Directory);
        foreach (RenderedFile file in Configuration.Files)
        {
            AtomicFile.EnsurePrivateDirectory(Path.GetDirectoryName(file.Path)!);
            AtomicFile.Write(file.Path, file.Content);
        }
    }

    /// <summary>Null: it accepts the copy; else its own words, with the user's file names and lines.</summary>
    public abstract Task<string?> CheckAsync(CancellationToken stop);

    /// <summary>Starts it; it lives on whatever becomes of us.</summary>
    public abstract Task<ProcessIdentity> StartAsync(CancellationToken stop);

    protected static int? PidIn(string file) => File.Exists(file)
        && int.TryParse(File.ReadAllText(file).AsSpan().Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out int pid)
        ? pid
        : null;

    /// <summary>
    /// The process a generation left behind, if it still runs. HAProxy's is the pid from its file, believed only when the process's
    /// command line names this very pid file, since pids are used again.
    /// </summary>
    public static ProcessIdentity? LeftBehind(GenerationPlace place)
    {
        if (File.Exists(place.CommandFile)) return CommandInstance.Left(place);
        if (!File.Exists(place.PidFile) && File.Exists(place.UnitFile)) return UnitInstance.Unnoted(place);
        return PidIn(place.PidFile) is { } pid && ProcessIdentity.Read(pid) is { } identity && HasWord(pid, place.PidFile) ? identity : null;
    }

    /// <summary>Its command line has this word.</summary>
    protected static bool HasWord(int pid, string word)
    {
        try
        {
            return File.ReadAllText($"/proc/{pid}/cmdline").Split('\0').Contains(word);
        }
        catch (IOException)
        {
            return false;
        }
    }

    public static ImmutableArray<string> Warnings(GenerationPlace place)
    {
        try
        {
            return [.. File.ReadAllLines(place.StartLog).Where(l => l.StartsWith("[WARNING]", StringComparison.Ordinal)).Select(Bare)];
        }
        catch (IOException)
        {
            return [];
        }
    }

    /// <summary>What a person must read of it: the alerts if there are any, at most five lines.</summary>
    internal static string Told(string output)
    {
        string[] lines = [.. output.Split('\n').Select(l => l.Trim()).Where(l => l.Length > 0)];
        string[] alerts = [.. lines.Where(l => l.StartsWith("[ALERT]", StringComparison.Ordinal))];
        string[] telling = [.. (alerts.Length > 0 ? alerts : lines).Select(Bare).Distinct().Take(5)];
        return telling.Length == 0 ? "it said nothing" : string.Join(" | ", telling);
    }

    private static string Bare(string line) => Decoration().Replace(line, "");

    /// <summary><c>[ALERT]    (123) : config : </c></summary>
    [GeneratedRegex(@"^\[(ALERT|WARNING|NOTICE)\]\s+(\(\d+\)|\d+/\d+ \(\d+\))\s*:\s*(config : )?")]
    private static partial Regex Decoration();
}
