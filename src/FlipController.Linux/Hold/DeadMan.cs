using System.Collections.Immutable;
using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Hold;

/// <summary>
/// Opens a hold when its time is over, though the one who closed it is dead, frozen or late. Two small programs, alive before the close,
/// do it for each opening; no runtime has to start, and no shell:
/// <code>
///   bytes, put in before --&gt; pipe --&gt; dd (one block, which only the pipe's end completes) --&gt; the netlink socket
///                             ^
///          sleep MAX has its only write end, and ends
/// </code>
/// They live in sessions of their own and block every signal, so that what ends or stops a service (all but SIGKILL to its whole control
/// group) leaves them alone. As dd has the socket, too, it stays open until the hold is: a queue whose socket closes drops who waits.
/// Not for two threads at once.
/// </summary>
public sealed unsafe class DeadMan : IDisposable
{
    /// <summary>A pipe takes that much without a reader: PIPE_BUF, which Linux keeps at one page or more.</summary>
    internal const int LongestMessage = 4096;

    /// <summary>A block longer than the message: one that the bytes fill would be written at once.</summary>
    internal static readonly ImmutableArray<string> SenderWords =
        [string.Create(CultureInfo.InvariantCulture, $"bs={LongestMessage + 1}"), "iflag=fullblock", "status=none"];

    private static readonly ImmutableArray<string> s_usual = ["/usr/bin", "/bin", "/usr/local/bin"];
    private static readonly Lock s_lock = new();
    private static (string Sleep, string Dd)? s_proven;

    private readonly List<Switch> _switches = [];
    private bool _fired;

    private DeadMan() { }

    /// <summary>Its time began then, of <see cref="Stopwatch.Frequency"/>, or a moment later.</summary>
    public long ArmedAt { get; private set; } = Stopwatch.GetTimestamp();

    /// <summary>The bytes were sent by it, or may just have been. Sending them is harmless, but the window was not ended by its owner then.</summary>
    public bool HasFired
    {
        get
        {
            foreach (Switch one in _switches) _fired |= Fired(one);
            return _fired;
        }
    }

    /// <summary>When this returns the programs run, and every message is sent after <paramref name="max"/>.</summary>
    /// <exception cref="FlipException">sleep or dd is missing or does not run here; nothing may be closed then, and none of them is left.</exception>
    public static DeadMan Arm(IReadOnlyList<ForcedOpening> openings, TimeSpan max) => Arm(openings, max, Programs);

    internal static DeadMan Arm(IReadOnlyList<ForcedOpening> openings, TimeSpan max, Func<(string Sleep, string Dd)> programs)
    {
        DeadMan deadMan = new();
        if (openings.Count == 0) return deadMan;
        var (sleep, dd) = programs();
        deadMan.ArmedAt = Stopwatch.GetTimestamp();
        try
        {
            foreach (ForcedOpening opening in openings) deadMan.Add(opening, max, sleep, dd);
            return deadMan;
        }
        catch (Win32Exception e)
        {
            deadMan.Dispose();
            throw new FlipException($"{Unarmed}: {sleep} or {dd} could not be started ({e.Message}); nothing was held", e);
        }
        catch
        {
            deadMan.Dispose();
            throw;
        }
    }

    /// <summary>From now on nothing is sent. Whether anything was is for <see cref="HasFired"/> to say, also afterwards.</summary>
    public void Disarm()
    {
        foreach (Switch one in _switches)
        {
            // dd first: the end of sleep is what it waits for.
            if (one.Dd.End() is null) _ = one.Dd.Signal(OwnChild.Kill);
            _ = one.Dd.WaitForEnd();
            _fired |= Fired(one);
            if (one.Sleep.End() is null) _ = one.Sleep.Signal(OwnChild.Kill);
            _ = one.Sleep.WaitForEnd();
            one.Dd.Dispose();
            one.Sleep.Dispose();
        }
        _switches.Clear();
    }

    public void Dispose() => Disarm();

    private const string Unarmed = "cannot arm the switch that ends a hold when its owner dies";

    private void Add(ForcedOpening opening, TimeSpan after, string sleep, string dd)
    {
        if (opening.Message.Length is 0 or > LongestMessage)
            throw new FlipException($"{Unarmed}: a message of {opening.Message.Length} bytes is none that opens anything; nothing was held");
        int* ends = stackalloc int[2];
        if (Libc.Pipe(ends, Libc.CloseOnExec) < 0) throw new KernelException("make a pipe", Marshal.GetLastPInvokeError());
        int read = -1, write = -1, socket = -1;
        try
        {
            // Away from 0, 1 and 2: in the child those are written over, one after the other.
            read = Above(ends[0]);
            write = Above(ends[1]);
            socket = Libc.DuplicateAbove(opening.Socket, 3);
            if (socket < 0) throw new KernelException("duplicate a socket", Marshal.GetLastPInvokeError());
            fixed (byte* bytes = opening.Message.Span)
            {
                if (Libc.Write(write, bytes, (nuint)opening.Message.Length) != opening.Message.Length)
                    throw new KernelException("fill a pipe", Marshal.GetLastPInvokeError());
            }

            // An empty environment is the C locale: 0.1, not 0,1.
            OwnChild sender = OwnChild.Start(
                [dd, .. SenderWords],
                new ChildGift((read, socket, -1), Apart: true));
            try
            {
                OwnChild timer = OwnChild.Start([sleep, after.TotalSeconds.ToString("F6", CultureInfo.InvariantCulture)], new ChildGift((-1, write, -1), Apart: true));
                // On a host that is too busy it would be late when it is needed most.
                UrgentThread.Raise(sender.Pid);
                UrgentThread.Raise(timer.Pid);
                _switches.Add(new Switch(timer, sender, Stopwatch.GetTimestamp(), after));
            }
            catch
            {
                _ = sender.Signal(OwnChild.Kill); // before the pipe's last write end is closed below
                _ = sender.WaitForEnd();
                sender.Dispose();
                throw;
            }
        }
        finally
        {
            foreach (int fd in (ReadOnlySpan<int>)[read, write, socket])
            {
                if (fd >= 0) _ = Libc.Close(fd);
            }
        }
    }

    private static int Above(int fd)
    {
        if (fd > 2) return fd;
        int above = Libc.DuplicateAbove(fd, 3);
        int errno = Marshal.GetLastPInvokeError();
        _ = Libc.Close(fd);
        return above >= 0 ? above : throw new KernelException("duplicate a pipe's end", errno);
    }

    /// <summary>
    /// A dd that is killed may have written before: then sleep has ended, and by itself. Where SIGCHLD is ignored nobody can say how they ended; the time says it.
    /// </summary>
    private static bool Fired(Switch one) => one.Dd.End() is { ExitCode: not null } || one.Sleep.End() is { ExitCode: not null }
        || one.Dd.End() is { Signal: null } && Stopwatch.GetElapsedTime(one.Armed) >= one.After;

    private readonly record struct Switch(OwnChild Sleep, OwnChild Dd, long Armed, TimeSpan After);

    private static (string Sleep, string Dd) Programs() => Programs(
        s_usual.Concat((Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Where(d => d.StartsWith('/'))));

    internal static (string Sleep, string Dd) Programs(IEnumerable<string> directories)
    {
        lock (s_lock)
        {
            if (s_proven is { } known && directories.Contains(Path.GetDirectoryName(known.Sleep)) && File.Exists(known.Sleep) && File.Exists(known.Dd))
                return known;
            List<string> searched = [.. directories];
            var found = (Sleep: Find("sleep", searched), Dd: Find("dd", searched));
            // Small systems have them without fractions of a second or without these options. Better known now.
            Prove([found.Sleep, "0.000001"]);
            Prove([found.Dd, .. SenderWords]);
            s_proven = found;
            return found;
        }
    }

    private static string Find(string program, IEnumerable<string> directories) =>
        directories.Select(d => Path.Combine(d, program)).FirstOrDefault(File.Exists)
        ?? throw new FlipException($"{Unarmed}: {program} is in none of {string.Join(", ", directories)}; nothing was held; install coreutils or busybox");

    private static void Prove(string[] words)
    {
        try
        {
            using OwnChild child = OwnChild.Start(words, new ChildGift((-1, -1, -1), Apart: true));
            if (child.WaitForEnd() is { ExitCode: not 0 and not null } end)
                throw new FlipException($"{Unarmed}: `{string.Join(' ', words)}` ended with {end.ExitCode}; nothing was held; install coreutils");
        }
        catch (Win32Exception e)
        {
            throw new FlipException($"{Unarmed}: `{words[0]}` could not be started ({e.Message}); nothing was held", e);
        }
    }
}
