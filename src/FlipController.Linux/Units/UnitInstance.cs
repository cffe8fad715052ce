using System.Collections;
using System.Collections.Immutable;
using System.Globalization;
using System.Net.Sockets;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Files;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Linux.State;

namespace FlipController.Linux.Units;

/// <summary>One HAProxy process in a systemd unit of its own: it has a cgroup and a journal, and outlives the controller's.</summary>
public sealed record UnitInstance(string Binary, RenderedConfiguration Configuration, GenerationPlace Place, string WorkingDirectory)
    : HaproxyInstance(Binary, Configuration, Place, WorkingDirectory)
{
    internal const string BinaryVariable = "FLIPCONTROLLER_BINARY", ArgumentsVariable = "FLIPCONTROLLER_ARGUMENTS";

    // What the service manager has told us alone (systemd.exec(5), "Environment variables set or propagated by the service manager").
    private static readonly ImmutableHashSet<string> s_ours =
    [
        "INVOCATION_ID", "JOURNAL_STREAM", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "MAINPID", "MANAGERPID", "NOTIFY_SOCKET", "SYSTEMD_EXEC_PID",
        "WATCHDOG_PID", "WATCHDOG_USEC", BinaryVariable, ArgumentsVariable,
    ];
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(10);

    public Systemctl Systemd { get; init; } = new();

    private GenerationUnit Unit => new(Place, Systemd);

    public override void WriteFiles()
    {
        base.WriteFiles();
        AtomicFile.Write(Place.UnitFile, Encoding.UTF8.GetBytes(Text()));
    }

    /// <summary>
    /// What the template needs to know. HAProxy gets the same environment as from us: its files may name any variable of it, and
    /// the copies were made by it.
    /// </summary>
    private string Text()
    {
        Dictionary<string, string> variables = System.Environment.GetEnvironmentVariables().Cast<DictionaryEntry>()
            .ToDictionary(v => (string)v.Key, v => (string?)v.Value ?? "", StringComparer.Ordinal);
        foreach (var (name, value) in Environment) variables[name] = value;
        // -db: in the foreground, whatever the files say. -p it does not write then; by it a process is known as this generation's.
        string[] arguments =
        [
            "-db", "-p", Place.PidFile, "-C", WorkingDirectory, .. Configuration.LocalPeerOption, .. Configuration.Files.SelectMany(f => new[] { "-f", f.Path }),
        ];
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"# Of {Unit.Name}; read by systemd at its start.\n");
        // Of another form no HAProxy configuration can name it, and systemd passes it over.
        foreach (var (name, value) in variables.Where(v => IsHaproxys(v.Key)).OrderBy(v => v.Key, StringComparer.Ordinal))
            text.Append(CultureInfo.InvariantCulture, $"{name}={UnitText.Value(value)}\n");
        text.Append(CultureInfo.InvariantCulture, $"{BinaryVariable}={UnitText.Value(Binary)}\n{ArgumentsVariable}={UnitText.Value(UnitText.Words(arguments))}\n");
        return text.ToString();
    }

    private static bool IsHaproxys(string name) => EnvironmentFile.IsName(name) && !s_ours.Contains(name);

    /// <summary>What it warns of is kept from here: what it says at its start is in the journal.</summary>
    public override async Task<string?> CheckAsync(CancellationToken stop)
    {
        HaproxyCheck check = await HaproxyAnswerAsync(stop);
        AtomicFile.Write(Place.StartLog, Encoding.UTF8.GetBytes(Configuration.Explain(check.Output)));
        return Rejection(check);
    }

    public override async Task<ProcessIdentity> StartAsync(CancellationToken stop)
    {
        int pid = await Unit.StartAsync(stop);
        if (pid == 0 || ProcessIdentity.Read(pid) is not { } process || !IsOf(pid, Place)) throw new FlipException(await WordsAsync(stop));
        RefuseElsewhere(process);
        AtomicFile.Write(Place.PidFile, Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{pid}\n")));
        long began = TimeProvider.System.GetTimestamp();
        // It listens on everything before it answers here.
        while (!Answers())
        {
            if (!process.IsAlive) throw new FlipException(await WordsAsync(stop));
            if (TimeProvider.System.GetElapsedTime(began) > StartTimeout)
                throw new FlipException($"{Unit.Name} (process {pid}) does not listen on {Place.AdminSocket} {StartTimeout.TotalSeconds:0} s after its start");
            await Task.Delay(s_pause, stop);
        }
        return process;
    }

    private async Task<string> WordsAsync(CancellationToken stop)
    {
        var (ending, said) = await Unit.EndedAsync(stop);
        return $"HAProxy does not start in {Unit.Name} ({ending}): {Told(Configuration.Explain(said))} (`journalctl -u '{Unit.Name}'` has all of it)";
    }

    private bool Answers()
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            socket.Connect(new UnixDomainSocketEndPoint(Place.AdminSocket));
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    /// <summary>systemd starts it where systemd is; its ports there are not ours when we are in another network namespace.</summary>
    private void RefuseElsewhere(ProcessIdentity process)
    {
        const string network = "ns/net";
        string? its = File.ResolveLinkTarget($"/proc/{process.Pid}/{network}", false)?.Name, ours = File.ResolveLinkTarget($"/proc/self/{network}", false)?.Name;
        if (its is not null && its != ours)
            throw new FlipException($"{Unit.Name} runs in another network namespace ({its}) than the controller ({ours}), which could not send it a connection; set haproxy.driver: process here");
    }

    /// <summary>
    /// What lives of a generation whose start nobody could note: HAProxy with this generation's own pid file in its words, and
    /// nobody above it has that.
    /// </summary>
    internal static ProcessIdentity? Unnoted(GenerationPlace place)
    {
        int[] found = [.. ProcessIdentity.Pids().Where(p => IsOf(p, place))];
        return found.Where(p => ProcessIdentity.Stat.Read(p) is not { } stat || !found.Contains(stat.Parent))
            .Select(ProcessIdentity.Read).OfType<ProcessIdentity>().FirstOrDefault();
    }

    private static bool IsOf(int pid, GenerationPlace place) => HasWord(pid, place.PidFile);
}
