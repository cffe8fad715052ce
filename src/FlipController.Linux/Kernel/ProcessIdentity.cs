using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Json.Serialization;
using FlipController.Core;

namespace FlipController.Linux.Kernel;

/// <summary>
/// One process and no other: a pid is used again, a pid with its start time is not, and neither means anything after a reboot.
/// </summary>
public sealed record ProcessIdentity(int Pid, long StartTicks, string BootId)
{
    private static readonly Lazy<string> ThisBoot = new(() => File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim());

    public static string CurrentBootId => ThisBoot.Value;

    public static ProcessIdentity Of(Generation generation) => new(generation.Pid, generation.StartTicks, generation.BootId);

    /// <summary>Of every process that can be seen from here, at this moment.</summary>
    public static IEnumerable<int> Pids()
    {
        foreach (string directory in Directory.EnumerateDirectories("/proc"))
            if (int.TryParse(Path.GetFileName(directory.AsSpan()), NumberStyles.None, CultureInfo.InvariantCulture, out int pid)) yield return pid;
    }

    /// <summary>Null when there is no such process, or only its zombie.</summary>
    public static ProcessIdentity? Read(int pid) =>
        Stat.Read(pid) is { IsDead: false } stat ? new ProcessIdentity(pid, stat.StartTicks, CurrentBootId) : null;

    /// <summary>A zombie is dead: it serves nobody and waits only for its parent.</summary>
    [JsonIgnore]
    public bool IsAlive => BootId == CurrentBootId && Stat.Read(Pid) is { IsDead: false } stat && stat.StartTicks == StartTicks;

    /// <summary>By a signal (SIGSTOP), or by a debugger: proc(5), stat.</summary>
    [JsonIgnore]
    public bool IsStopped => BootId == CurrentBootId && Stat.Read(Pid) is { State: 'T' or 't' } stat && stat.StartTicks == StartTicks;

    /// <summary>As it was started, at the lowest priority; its own choice would be another.</summary>
    [JsonIgnore]
    public bool IsNicest => Stat.Read(Pid) is { Niceness: 19 } stat && stat.StartTicks == StartTicks;

    /// <summary>Sends a signal to this process, never to one that got its pid later. False: it is dead.</summary>
    /// <exception cref="KernelException">Not permitted, or no such signal.</exception>
    public bool Signal(int signal)
    {
        using Pidfd? pidfd = Pidfd.Open(this);
        return pidfd is not null && pidfd.Signal(signal);
    }

    /// <summary>
    /// Sets the niceness of every thread (setpriority(2) on Linux is per thread, whatever POSIX says) until no new one is found,
    /// and of its autogroup, within which alone niceness counts where sched_autogroup_enabled is 1 (sched(7)). False: it is dead.
    /// </summary>
    public bool SetNiceness(int niceness)
    {
        HashSet<int> done = [];
        string tasks = string.Create(CultureInfo.InvariantCulture, $"/proc/{Pid}/task");
        while (true)
        {
            bool found = false;
            try
            {
                foreach (string task in Directory.EnumerateDirectories(tasks))
                {
                    int tid = int.Parse(Path.GetFileName(task.AsSpan()), NumberStyles.None, CultureInfo.InvariantCulture);
                    if (done.Contains(tid)) continue;
                    if (!IsAlive) return false;
                    if (Libc.SetPriority(Libc.PriorityProcess, (uint)tid, niceness) < 0
                        && Marshal.GetLastPInvokeError() is var errno and not Errno.NoProcess)
                        throw new KernelException($"set the niceness of thread {tid} of process {Pid} to {niceness}", errno);
                    done.Add(tid);
                    found = true;
                }
            }
            catch (IOException)
            {
                return false;
            }
            // A thread made meanwhile by one already done inherits its niceness; one made by a thread not done yet needs another look.
            if (!found) break;
        }
        SetAutogroup(niceness);
        return IsAlive;
    }

    private void SetAutogroup(int niceness)
    {
        // An autogroup is a session's. A process that still is in ours shares ours, and to slow it down would slow us down.
        int session = Libc.SessionOf(Pid);
        if (session <= 0 || session == Libc.SessionOf(0)) return;
        try
        {
            string path = string.Create(CultureInfo.InvariantCulture, $"/proc/{Pid}/autogroup");
            if (File.Exists(path)) File.WriteAllText(path, niceness.ToString(CultureInfo.InvariantCulture));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Only a courtesy: threads that are nice within their own autogroup still start correctly.
        }
    }

    public override string ToString() => $"process {Pid}";

    /// <summary>What /proc/PID/stat says, proc(5).</summary>
    internal readonly record struct Stat(char State, long StartTicks, int Parent, int Session, int Niceness)
    {
        internal bool IsDead => State is 'Z' or 'X' or 'x';

        internal static Stat? Read(int pid)
        {
            string text;
            try
            {
                text = File.ReadAllText(string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/stat"));
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                return null; // ENOENT, or ESRCH when it died between open and read
            }
            return Parse(text);
        }

        /// <summary>Field 2, the command's name, may hold spaces and parentheses: fields are counted from the last ')'.</summary>
        internal static Stat? Parse(string text)
        {
            int end = text.LastIndexOf(')');
            if (end < 0) return null;
            string[] fields = text[(end + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries); // from field 3, the state
            return fields.Length > 19 && long.TryParse(fields[19], NumberStyles.None, CultureInfo.InvariantCulture, out long start) // field 22, starttime
                && int.TryParse(fields[1], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int parent) // field 4, ppid
                && int.TryParse(fields[3], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int session) // field 6
                && int.TryParse(fields[16], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int nice) // field 19
                ? new Stat(fields[0][0], start, parent, session, nice)
                : null;
        }
    }
}

/// <summary>A descriptor that stands for one process for as long as it is open: pidfd_open(2).</summary>
internal sealed class Pidfd : IDisposable
{
    private Pidfd(int fd) => Fd = fd;

    internal int Fd { get; private set; }

    /// <summary>Null when the process is dead.</summary>
    internal static Pidfd? Open(ProcessIdentity identity)
    {
        if (identity.BootId != ProcessIdentity.CurrentBootId) return null;
        int fd = Libc.PidfdOpen(identity.Pid);
        if (fd < 0)
        {
            int errno = Marshal.GetLastPInvokeError();
            // ENOENT and EINVAL: the number is a thread's, not a process's, so that the process we mean is gone.
            return errno is Errno.NoProcess or Errno.NoEntry or Errno.Invalid
                ? null
                : throw new KernelException($"open a pidfd of {identity}", errno);
        }
        Pidfd pidfd = new(fd);
        // The look comes after the opening: if it is the right process now, the descriptor is its, whatever happens to the pid later.
        if (identity.IsAlive) return pidfd;
        pidfd.Dispose();
        return null;
    }

    /// <summary>Of a child that nobody has reaped yet, whose pid is therefore its own still. Null: the kernel reaped it.</summary>
    internal static Pidfd? OfChild(int pid)
    {
        int fd = Libc.PidfdOpen(pid);
        if (fd >= 0) return new Pidfd(fd);
        int errno = Marshal.GetLastPInvokeError();
        return errno == Errno.NoProcess ? null : throw new KernelException($"open a pidfd of process {pid}", errno);
    }

    /// <summary>False: it is dead.</summary>
    internal bool Signal(int signal)
    {
        if (Libc.PidfdSendSignal(Fd, signal) == 0) return true;
        int errno = Marshal.GetLastPInvokeError();
        return errno == Errno.NoProcess ? false : throw new KernelException($"send signal {signal}", errno);
    }

    public void Dispose()
    {
        if (Fd < 0) return;
        _ = Libc.Close(Fd);
        Fd = -1;
    }
}
