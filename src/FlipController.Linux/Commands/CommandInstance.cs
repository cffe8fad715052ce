using System.Collections.Immutable;
using System.ComponentModel;
using System.Globalization;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Linux.State;

namespace FlipController.Linux.Commands;

/// <summary>
/// What a pair's commands run. Whatever it is, it is started in a session of its own, with its output in a file and no descriptor of
/// ours, so that it lives on without us; where it has no pid file, <c>start</c> is the server itself.
/// </summary>
public sealed record CommandInstance(
    CommandOptions Options, CommandWords Words, RenderedConfiguration Configuration, GenerationPlace Place, string WorkingDirectory)
    : Instance(Configuration, Place, WorkingDirectory)
{
    /// <summary>In the environment of all that is started for a generation: its directory. What we could not note is found by it.</summary>
    private const string Sign = "FLIPCONTROLLER_GENERATION";
    private static readonly TimeSpan s_pidfilePatience = TimeSpan.FromSeconds(10), s_pause = TimeSpan.FromMilliseconds(10);

    private static readonly Lock s_lock = new();
    private static readonly List<OwnChild> s_children = [];

    public override string Called => Path.GetFileName(Options.Start[0]);

    private string Output => Words.Fill(Options.Output);

    public override void WriteFiles()
    {
        base.WriteFiles();
        AtomicFile.Write(Place.CommandFile, Encoding.UTF8.GetBytes(Words.Fill(Options.Start).CommandLine + "\n"));
    }

    public override async Task<string?> CheckAsync(CancellationToken stop)
    {
        if (Options.Check.IsEmpty) return null;
        ChildOutcome outcome = await Command(Options.Check).RunAsync(stop);
        return outcome.ExitCode == 0 ? null : Told(Configuration.Explain(outcome.Output));
    }

    /// <summary>Run to its end, as it is configured: <c>check</c>, <c>stop</c>, <c>reload</c>.</summary>
    public ChildProcess Command(ImmutableArray<string> words) => Words.Fill(words) with
    {
        WorkingDirectory = WorkingDirectory, Polite = true, Timeout = StartTimeout, Environment = Environment,
    };

    public override async Task<ProcessIdentity> StartAsync(CancellationToken stop)
    {
        Reap();
        string? pidfile = Words.Value("pidfile");
        if (pidfile is not null) File.Delete(pidfile);
        OwnChild child = Spawn();
        ProcessIdentity? process;
        if (pidfile is null)
        {
            process = ProcessIdentity.Read(child.Pid);
            Keep(child);
        }
        else
        {
            using (child) await SucceedAsync(child, stop);
            process = await InAsync(pidfile, stop);
        }
        if (process is null) throw new FlipException($"{Called} ended right after it had started; it said: {LastWords(Output)}");
        AtomicFile.Write(Place.ProcessFile, Encoding.ASCII.GetBytes(
            string.Create(CultureInfo.InvariantCulture, $"{process.Pid} {process.StartTicks} {process.BootId}\n")));
        return process;
    }

    private OwnChild Spawn()
    {
        ChildProcess start = Words.Fill(Options.Start);
        try
        {
            // nice(1) becomes the program itself.
            return OwnChild.Start(["nice", "-n", "19", start.Executable, .. start.Arguments], new ChildGift((-1, -1, -1), Apart: true)
            {
                Environment = [.. ChildProcess.Plain.Where(v => !Environment.ContainsKey(v.Name)).Select(v => $"{v.Name}={v.Value}"),
                    .. Environment.Select(v => $"{v.Key}={v.Value}"), $"{Sign}={Place.Directory}"],
                Output = Output, Directory = WorkingDirectory,
            });
        }
        catch (Win32Exception e)
        {
            throw new FlipException($"cannot start \"{start.CommandLine}\": {e.Message} (its output goes to {Output}, its working directory is {WorkingDirectory})", e);
        }
    }

    /// <summary>Until it has started the server and ended well.</summary>
    private async Task SucceedAsync(OwnChild child, CancellationToken stop)
    {
        long began = TimeProvider.System.GetTimestamp();
        ChildEnd? end;
        try
        {
            while ((end = child.End()) is null)
            {
                if (TimeProvider.System.GetElapsedTime(began) > StartTimeout)
                    throw new FlipException($"{Called} is not up after {StartTimeout.TotalSeconds:0} s: `start` must end once the server runs, as there is a pidfile");
                await Task.Delay(s_pause, stop);
            }
        }
        catch
        {
            child.Signal(OwnChild.Kill);
            child.WaitForEnd();
            throw;
        }
        if (end is { ExitCode: not (null or 0) } or { Signal: not null })
            throw new FlipException($"{Called} does not start ({(end.Value.Signal is { } signal ? $"ended by signal {signal}" : $"exit code {end.Value.ExitCode}")}): {LastWords(Output)}");
    }

    /// <summary>The process named there; a master may write it a moment after it has let its starter go.</summary>
    private async Task<ProcessIdentity?> InAsync(string pidfile, CancellationToken stop)
    {
        long began = TimeProvider.System.GetTimestamp();
        while (true)
        {
            if (PidIn(pidfile) is { } pid) return ProcessIdentity.Read(pid);
            if (TimeProvider.System.GetElapsedTime(began) > s_pidfilePatience)
                throw new FlipException($"{Called} was started, and there is no pid in {pidfile} (pidfile) after {s_pidfilePatience.TotalSeconds:0} s; it said: {LastWords(Output)}");
            await Task.Delay(s_pause, stop);
        }
    }

    /// <summary>The end of what it said, in the user's words.</summary>
    public string LastWords() => LastWords(Output);

    private string LastWords(string output)
    {
        const int enough = 4096;
        try
        {
            using FileStream file = new(output, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
            if (!file.CanSeek) return "it said nothing";
            file.Seek(Math.Max(0, file.Length - enough), SeekOrigin.Begin);
            byte[] end = new byte[enough];
            string text = Configuration.Explain(Encoding.UTF8.GetString(end, 0, file.ReadAtLeast(end, enough, throwOnEndOfStream: false)));
            return Told(string.Join('\n', text.Split('\n').Where(l => l.Trim().Length > 0).TakeLast(5)));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "it said nothing";
        }
    }

    /// <summary>
    /// The process of a generation, if it lives: as noted, or, when whoever started it died before it could note that, what bears the
    /// generation's directory in its words or in its environment, or says what it says into it.
    /// </summary>
    internal static ProcessIdentity? Left(GenerationPlace place)
    {
        if (File.Exists(place.ProcessFile))
            return File.ReadAllText(place.ProcessFile).TrimEnd().Split(' ') is [var pid, var start, var boot]
                && int.TryParse(pid, NumberStyles.None, CultureInfo.InvariantCulture, out int number)
                && long.TryParse(start, NumberStyles.None, CultureInfo.InvariantCulture, out long ticks)
                && new ProcessIdentity(number, ticks, boot) is { IsAlive: true } noted ? noted : null;
        int[] found = [.. ProcessIdentity.Pids().Where(p => p != System.Environment.ProcessId && IsOf(p, place))];
        return found.Where(p => ProcessIdentity.Stat.Read(p) is not { } stat || !found.Contains(stat.Parent))
            .Select(ProcessIdentity.Read).OfType<ProcessIdentity>().FirstOrDefault();
    }

    private static bool IsOf(int pid, GenerationPlace place)
    {
        try
        {
            string process = string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}");
            return File.ReadAllText($"{process}/environ").Split('\0').Contains($"{Sign}={place.Directory}")
                // Somebody who looks into the directory at a terminal leads no session.
                || (ProcessIdentity.Stat.Read(pid)?.Session == pid && File.ReadAllText($"{process}/cmdline").Contains(place.Directory + "/", StringComparison.Ordinal))
                || File.ResolveLinkTarget($"{process}/fd/1", false)?.FullName.StartsWith(place.Directory + "/", StringComparison.Ordinal) == true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    private static void Keep(OwnChild child)
    {
        lock (s_lock) s_children.Add(child);
    }

    /// <summary>Of those that ended and were our children nothing is left in the kernel's table of processes.</summary>
    public static void Reap()
    {
        lock (s_lock)
        {
            foreach (OwnChild ended in s_children.Where(c => c.End() is not null).ToList())
            {
                s_children.Remove(ended);
                ended.Dispose();
            }
        }
    }
}
