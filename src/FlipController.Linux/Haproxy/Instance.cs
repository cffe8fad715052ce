using System.Collections.Immutable;
using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Linux.State;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// Where one generation lives under the runtime directory: RUNTIME/PAIR/gNNNNN/, which is private, and beside it its sockets:
/// gNNNNN.sock, ours, and gNNNNN.1.sock and so on, the user's own.
/// </summary>
public sealed record GenerationPlace(string Runtime, string Pair, int Number)
{
    internal string Name => string.Create(CultureInfo.InvariantCulture, $"g{Number:00000}");

    public string Directory => Path.Combine(Runtime, Pair, Name);

    public string AdminSocket => Path.Combine(Runtime, Pair, Name + ".sock");

    /// <summary>The user's own stats socket, from 1 on in the order of the files.</summary>
    public string StatsSocket(int number) => Path.ChangeExtension(AdminSocket, string.Create(CultureInfo.InvariantCulture, $".{number}.sock"));

    public string PidFile => Path.Combine(Directory, "haproxy.pid");

    /// <summary>What HAProxy said as it started.</summary>
    public string StartLog => Path.Combine(Directory, "start.log");

    /// <summary>Names the sockets it has elsewhere, which HAProxy leaves behind when it ends; a NUL between.</summary>
    public string SocketList => Path.Combine(Directory, "sockets");

    /// <summary>The sockets it has elsewhere, each beside the user's own and named after it: PATH.gNNNNN.</summary>
    public IReadOnlyList<string> OwnSockets() => File.Exists(SocketList) ? File.ReadAllText(SocketList).Split('\0') : [];

    /// <summary>
    /// Who connects to one of its own sockets reaches that of another generation from now on, each at one instant: connect(2) follows
    /// a link. The link is relative, so that it means the same to a process that has changed its root. One that the other generation
    /// does not have stays as it is.
    /// </summary>
    /// <param name="to">Null: to the user's own path, whoever listens there.</param>
    /// <exception cref="IOException">Not all of them could be made.</exception>
    public void LeadOwnSockets(GenerationPlace? to)
    {
        HashSet<string>? there = to?.OwnSockets().Select(Path.GetFullPath).ToHashSet(StringComparer.Ordinal);
        foreach (string socket in OwnSockets())
        {
            string user = socket[..socket.LastIndexOf('.')], target = to is null ? user : $"{user}.{to.Name}";
            if (there?.Contains(Path.GetFullPath(target)) != false && System.IO.Directory.Exists(Path.GetDirectoryName(socket)))
            {
                AtomicFile.Link(socket, Path.GetFileName(target));
                // Whoever removes the generation at this moment has not seen the link.
                if (!File.Exists(SocketList)) File.Delete(socket);
            }
        }
    }

    /// <summary>Tolerates absence.</summary>
    public void Remove()
    {
        try
        {
            IReadOnlyList<string> sockets = OwnSockets();
            DeleteAll(sockets);
            // From here on nobody leads one of them anywhere; what was led there meanwhile goes too.
            File.Delete(SocketList);
            DeleteAll(sockets);
            System.IO.Directory.Delete(Directory, recursive: true);
        }
        catch (DirectoryNotFoundException)
        {
            // It is gone, or goes at this moment: a sweep and the end of a generation may meet here.
        }
        if (!System.IO.Directory.Exists(Path.Combine(Runtime, Pair))) return;
        File.Delete(AdminSocket);
        foreach (string socket in System.IO.Directory.EnumerateFiles(Path.Combine(Runtime, Pair), Name + ".*.sock")) File.Delete(socket);
        StatsLinks.Forget(this);
    }

    private static void DeleteAll(IEnumerable<string> sockets)
    {
        foreach (string socket in sockets)
            if (System.IO.Directory.Exists(Path.GetDirectoryName(socket))) File.Delete(socket);
    }

    /// <summary>Numbers of every generation that has a directory in the pair's place.</summary>
    public static IEnumerable<int> Numbers(string runtime, string pair)
    {
        string place = Path.Combine(runtime, pair);
        if (!System.IO.Directory.Exists(place)) return [];
        return [.. System.IO.Directory.EnumerateDirectories(place, "g*")
            .Select(d => int.TryParse(Path.GetFileName(d).AsSpan(1), NumberStyles.None, CultureInfo.InvariantCulture, out int n) ? n : 0)
            .Where(n => n > 0)];
    }
}

/// <summary>One HAProxy process: started as a daemon so that it outlives the controller, at the lowest priority until it is up.</summary>
public sealed partial record Instance(string Binary, RenderedConfiguration Configuration, GenerationPlace Place, string WorkingDirectory)
{
    /// <summary>Variables HAProxy is given beside this process's own.</summary>
    public IReadOnlyDictionary<string, string> Environment { get; init; } = ImmutableDictionary<string, string>.Empty;

    private static readonly TimeSpan s_startTimeout = TimeSpan.FromMinutes(2);

    /// <summary>Writes the copy, readable by its owner only: it may name passwords.</summary>
    public void WriteFiles()
    {
        AtomicFile.EnsurePassableDirectory(Path.Combine(Place.Runtime, Place.Pair));
        Place.Remove();
        AtomicFile.EnsurePrivateDirectory(Place.Directory);
        foreach (RenderedFile file in Configuration.Files) AtomicFile.Write(file.Path, file.Content);
        if (!Configuration.OwnSockets.IsEmpty)
            AtomicFile.Write(Place.SocketList, Encoding.UTF8.GetBytes(string.Join('\0', Configuration.OwnSockets)));
        // What the active one knows of its servers is better; until somebody puts that there, the user's own is what there is.
        foreach (ServerStateFile state in Configuration.ServerStateFiles) state.Provide(WorkingDirectory);
    }

    /// <summary>Null: HAProxy accepts the copy; else its own words, with the user's file names and lines.</summary>
    public async Task<string?> CheckAsync(CancellationToken stop)
    {
        HaproxyCheck check = await HaproxyBinary.CheckAsync(
            Binary, Configuration.Files.Select(f => f.Path), Configuration.LocalPeer, WorkingDirectory, Environment, stop);
        return check.Verdict == HaproxyVerdict.Valid ? null : Told(Configuration.Explain(check.Output));
    }

    /// <summary>
    /// Starts it. With -D HAProxy returns when its child has bound every listener, and says nothing after that: what it said until
    /// then is kept in start.log.
    /// </summary>
    public async Task<ProcessIdentity> StartAsync(CancellationToken stop)
    {
        var command = new ChildProcess(Binary,
            ["-D", "-p", Place.PidFile, .. Configuration.LocalPeerOption, .. Configuration.Files.SelectMany(f => new[] { "-f", f.Path })])
        {
            WorkingDirectory = WorkingDirectory, Polite = true, Timeout = s_startTimeout, Environment = Environment,
            Beside = ChildEnvironment.Inherited,
        };
        ChildOutcome outcome = await command.RunAsync(stop);
        string said = Configuration.Explain(outcome.Output);
        AtomicFile.Write(Place.StartLog, Encoding.UTF8.GetBytes(said));
        if (outcome.ExitCode != 0) throw new FlipException($"HAProxy does not start (exit code {outcome.ExitCode}): {Told(said)}");
        return (PidIn(Place) is { } pid ? ProcessIdentity.Read(pid) : null)
            ?? throw new FlipException($"HAProxy ended right after it had started; it said: {Told(said)}");
    }

    private static int? PidIn(GenerationPlace place) => File.Exists(place.PidFile)
        && int.TryParse(File.ReadAllText(place.PidFile).AsSpan().Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out int pid)
        ? pid
        : null;

    /// <summary>
    /// The process a generation left behind, if it still runs: the pid from its file, believed only when the process's command line
    /// names this very pid file, since pids are used again.
    /// </summary>
    public static ProcessIdentity? LeftBehind(GenerationPlace place)
    {
        if (PidIn(place) is not { } pid || ProcessIdentity.Read(pid) is not { } identity) return null;
        try
        {
            return File.ReadAllText($"/proc/{pid}/cmdline").Split('\0').Contains(place.PidFile) ? identity : null;
        }
        catch (IOException)
        {
            return null;
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
