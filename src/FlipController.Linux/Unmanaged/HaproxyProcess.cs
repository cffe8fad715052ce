using System.Collections.Immutable;
using System.Globalization;
using System.Text;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Unmanaged;

/// <summary>What /proc tells about one process, proc(5). A process may end between two looks: then it is as if it had not been there.</summary>
internal sealed record HaproxyProcess(ProcessIdentity Identity, int Parent, uint Uid, string Executable, ImmutableArray<string> Arguments)
{
    private const string Deleted = " (deleted)"; // of a program that an upgrade has replaced

    /// <summary>
    /// Set for the next run of itself (src/haproxy.c, mworker_reexec), or by systemd for this one run: systemd.exec(5).
    /// </summary>
    private static readonly ImmutableHashSet<string> s_ofOneRun =
    [
        "HAPROXY_MWORKER_REEXEC", "HAPROXY_PROCESSES", "HAPROXY_MWORKER", "HAPROXY_MWORKER_WAIT_ONLY", "HAPROXY_LOAD_SUCCESS",
        "HAPROXY_CLI", "HAPROXY_MASTER_CLI", "HAPROXY_CFGFILES", "HAPROXY_LOCALPEER", "HAPROXY_STARTUP_VERSION",
        "HAPROXY_STARTUPLOGS_FD", "HAPROXY_INITIAL_OLDPIDS",
        "NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "MAINPID", "MANAGERPID",
        "SYSTEMD_EXEC_PID", "WATCHDOG_PID", "WATCHDOG_USEC",
    ];

    public int Pid => Identity.Pid;

    /// <summary>By the name of its program, whatever it calls itself: /usr/sbin/haproxy, /opt/haproxy-2.8/bin/haproxy, haproxy-2.8.</summary>
    public bool IsHaproxy => NamesHaproxy(Executable);

    /// <summary>
    /// It was told to become a daemon and is not one yet: it binds first, then forks the daemon, which begins a session of its own, and
    /// ends (src/haproxy.c, main). Session 0 is one whose first process cannot be seen from here, getsid(2): not its own either.
    /// </summary>
    public bool IsBecomingDaemon => StartArguments.IsDaemon(Arguments) && Libc.SessionOf(Pid) is >= 0 and int session && session != Pid;

    private static bool NamesHaproxy(string executable) =>
        Path.GetFileName(executable.AsSpan()).Contains("haproxy", StringComparison.OrdinalIgnoreCase);

    /// <summary>Null: it is gone, a zombie, or a thread of the kernel.</summary>
    public static HaproxyProcess? Read(int pid)
    {
        if (ProcessIdentity.Read(pid) is not { } identity) return null;
        string place = Place(pid);
        try
        {
            if (Program(pid) is not { } executable) return null;
            int parent = 0;
            uint uid = 0;
            foreach (string line in File.ReadLines($"{place}/status"))
            {
                if (line.StartsWith("PPid:", StringComparison.Ordinal)) parent = int.Parse(line.AsSpan(5), CultureInfo.InvariantCulture);
                if (line.StartsWith("Uid:", StringComparison.Ordinal)) uid = uint.Parse(line.Split('\t')[1], CultureInfo.InvariantCulture);
            }
            string[] words = CommandLine(place);
            // Its memory goes before its files do, do_exit in kernel/exit.c: one that ends has listeners for a while yet, and no words.
            if (words.Length == 0 && NamesHaproxy(executable)) return null;
            return new HaproxyProcess(identity, parent, uid, executable, [.. words.Skip(1)]);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>
    /// A master executes itself anew right after its start and at every reload (src/mworker.c, mworker_reexec), and for an instant of
    /// execve(2) a process has no arguments; no HAProxy runs without any.
    /// </summary>
    private static string[] CommandLine(string place)
    {
        string[] words = Strings($"{place}/cmdline");
        for (int i = 0; words.Length == 0 && i < 40; i++)
        {
            Thread.Sleep(5);
            words = Strings($"{place}/cmdline");
        }
        return words;
    }

    /// <summary>Every HAProxy of this host, of whatever network namespace.</summary>
    public static IReadOnlyList<HaproxyProcess> All() =>
        [.. ProcessIdentity.Pids().Where(pid => Program(pid) is { } program && NamesHaproxy(program)).Select(Read).OfType<HaproxyProcess>()];

    private static string? Program(int pid)
    {
        try
        {
            string? executable = new FileInfo($"{Place(pid)}/exe").LinkTarget;
            return executable?.EndsWith(Deleted, StringComparison.Ordinal) == true ? executable[..^Deleted.Length] : executable;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>Its master: the HAProxy that is its parent; itself when there is none.</summary>
    public HaproxyProcess Main() => Read(Parent) is { IsHaproxy: true } parent ? parent.Main() : this;

    /// <summary>The rest of the record; null: it is gone.</summary>
    public UnmanagedHaproxy? Describe(ImmutableArray<ProcessIdentity> listening, string? unit)
    {
        string place = Place(Pid);
        try
        {
            string? directory = new FileInfo($"{place}/cwd").LinkTarget, root = new FileInfo($"{place}/root").LinkTarget;
            ImmutableArray<string> environment =
                [.. Strings($"{place}/environ").Where(v => v.Split('=') is [var name, _, ..] && !s_ofOneRun.Contains(name))];
            // In its chroot it is no longer where it was started; its shell said where that was.
            if (root != "/" && environment.FirstOrDefault(v => v.StartsWith("PWD=/", StringComparison.Ordinal)) is { } started)
                directory = started["PWD=".Length..];
            return directory is null ? null : new UnmanagedHaproxy(
                Identity, listening, unit, Executable, Arguments, directory, environment, Uid,
                RootOf(place) is { } files && files != RootOf("/proc/self"));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>
    /// It would handle the signal now: proc(5), SigCgt and SigBlk. A master that starts or reloads runs itself anew (src/haproxy.c,
    /// mworker_reexec), and a signal in between may be lost, or end it and its workers with it.
    /// </summary>
    public static bool Handles(int pid, int signal)
    {
        try
        {
            ulong caught = 0, blocked = 0;
            foreach (string line in File.ReadLines($"{Place(pid)}/status"))
            {
                if (line.StartsWith("SigBlk:", StringComparison.Ordinal)) blocked = Mask(line);
                if (line.StartsWith("SigCgt:", StringComparison.Ordinal)) caught = Mask(line);
            }
            return (caught & ~blocked & 1ul << (signal - 1)) != 0;
        }
        catch (IOException)
        {
            return false;
        }

        static ulong Mask(string line) => ulong.Parse(line.AsSpan("SigCgt:".Length).Trim(), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);
    }

    /// <summary>
    /// The device and the directory that are mounted as its "/", proc(5), mountinfo: of a container they are others, with mounts of one's
    /// own beside them (PrivateTmp, `ip netns exec`) they are not. Null: it is in a chroot, where no mount is seen as "/".
    /// </summary>
    private static string? RootOf(string place) => File.ReadLines($"{place}/mountinfo").Select(l => l.Split(' '))
        .Where(f => f.Length > 4 && f[4] == "/").Select(f => $"{f[2]} {f[3]}").LastOrDefault();

    /// <summary>Its command line, short enough for a sentence; null: it is gone.</summary>
    public static string? Command(int pid)
    {
        try
        {
            string place = Place(pid), text = string.Join(' ', Strings($"{place}/cmdline"));
            if (text.Length == 0) text = File.ReadAllText($"{place}/comm").Trim();
            return text.Length <= 120 ? text : string.Concat(text.AsSpan(0, 117), "...");
        }
        catch (IOException)
        {
            return null;
        }
    }

    private static string[] Strings(string path) => Encoding.UTF8.GetString(File.ReadAllBytes(path)) is { Length: > 0 } text
        ? text.TrimEnd('\0').Split('\0')
        : [];

    private static string Place(int pid) => string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}");
}
