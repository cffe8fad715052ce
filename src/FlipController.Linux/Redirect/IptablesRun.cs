using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Kernel;
using Microsoft.Win32.SafeHandles;

namespace FlipController.Linux.Redirect;

/// <summary>
/// One run of a program of iptables, in the network namespace of the thread that starts it. What it is given it reads as it comes, so it
/// can be started and fed beforehand, and told the last word when the moment is there.
/// </summary>
internal sealed unsafe class IptablesRun : IDisposable
{
    private const int LongestMilliseconds = 20_000; // a restore waits up to 5 s for the lock

    private readonly IReadOnlyList<string> _words;
    private readonly OwnChild _child;
    private readonly SafeFileHandle _output, _error;
    private int _input;

    private IptablesRun(IReadOnlyList<string> words, OwnChild child, int input, SafeFileHandle output, SafeFileHandle error) =>
        (_words, _child, _input, _output, _error) = (words, child, input, output, error);

    internal string Output => Text(_output);

    internal string Error => Text(_error).Trim();

    internal string CommandLine => string.Join(' ', _words.Select((w, i) => i == 0 ? Path.GetFileName(w) : w));

    /// <exception cref="FlipException">It could not be started.</exception>
    internal static IptablesRun Start(IReadOnlyList<string> words)
    {
        int* ends = stackalloc int[2];
        if (Libc.Pipe(ends, Libc.CloseOnExec) < 0) throw new KernelException($"make a pipe to {words[0]}", Marshal.GetLastPInvokeError());
        (int from, int to) = (ends[0], ends[1]);
        SafeFileHandle? output = null, error = null;
        try
        {
            output = MemoryFile();
            error = MemoryFile();
            OwnChild child = OwnChild.Start(words, new ChildGift((from, (int)output.DangerousGetHandle(), (int)error.DangerousGetHandle()), Apart: false));
            return new IptablesRun(words, child, to, output, error);
        }
        catch (Exception e)
        {
            _ = Libc.Close(to);
            output?.Dispose();
            error?.Dispose();
            if (e is Win32Exception why) throw new FlipException($"cannot start {words[0]}: {why.Message}", e);
            throw;
        }
        finally
        {
            _ = Libc.Close(from);
        }
    }

    /// <summary>What it has written, from the beginning.</summary>
    private static string Text(SafeFileHandle file)
    {
        byte[] bytes = new byte[RandomAccess.GetLength(file)];
        int count = RandomAccess.Read(file, bytes, 0);
        return Encoding.UTF8.GetString(bytes, 0, count);
    }

    private static SafeFileHandle MemoryFile()
    {
        fixed (byte* name = "iptables\0"u8)
        {
            int fd = Libc.MemoryFile(name, 1); // MFD_CLOEXEC
            return fd >= 0 ? new SafeFileHandle(fd, ownsHandle: true) : throw new KernelException("make a file in memory", Marshal.GetLastPInvokeError());
        }
    }

    /// <summary>More of its input. Whoever has ended reads nothing, and tells by its end.</summary>
    internal void Write(ReadOnlySpan<byte> text)
    {
        fixed (byte* bytes = text)
        {
            for (int written = 0; written < text.Length;)
            {
                nint count = Libc.Write(_input, bytes + written, (nuint)(text.Length - written));
                if (count >= 0) written += (int)count;
                else if (Marshal.GetLastPInvokeError() != Errno.Interrupted) return;
            }
        }
    }

    /// <summary>
    /// Until it has read everything and sleeps for more of it. A sleep alone says little: it may be the lock of others it waits for.
    /// </summary>
    /// <returns>False: it has ended, or the time is over.</returns>
    internal bool UntilItWaits(TimeSpan limit)
    {
        long began = Stopwatch.GetTimestamp();
        while (_child.End() is null && Stopwatch.GetElapsedTime(began) < limit)
        {
            int unread;
            if (Libc.DeviceControl(_input, Libc.UnreadBytes, &unread) == 0 && unread == 0 && SleepsForInput(_child.Pid)) return true;
            Thread.Sleep(0);
        }
        return false;
    }

    /// <summary>
    /// proc(5): wchan is the function of the kernel in which it sleeps, pipe_read (anon_pipe_read since 6.15); "0" while it runs, and
    /// always where the kernel does not tell. Then it must sleep and have the lock it works under: "1: FLOCK ADVISORY WRITE 4711 ...", with "->" who waits for it.
    /// </summary>
    private static bool SleepsForInput(int pid)
    {
        try
        {
            string sleeps = File.ReadAllText(string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/wchan"));
            if (sleeps.Contains("pipe_read", StringComparison.Ordinal)) return true;
            string lockOf = string.Create(CultureInfo.InvariantCulture, $" WRITE {pid} ");
            return sleeps is "0" or "" && ProcessIdentity.Stat.Read(pid) is { State: 'S' }
                && File.ReadLines("/proc/locks").Any(l => l.Contains("FLOCK", StringComparison.Ordinal) && !l.Contains("->", StringComparison.Ordinal) && l.Contains(lockOf, StringComparison.Ordinal));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    /// <summary>The end of its input, and its own. Allocates nothing.</summary>
    /// <returns>Its exit code; -1: a signal ended it, ours if it took too long.</returns>
    internal int End()
    {
        CloseInput();
        Libc.PollDescriptor over = new() { Fd = _child.Fd, Events = Libc.PollIn };
        if (_child.Fd >= 0)
        {
            int ready;
            while ((ready = Libc.Poll(&over, 1, LongestMilliseconds)) < 0 && Marshal.GetLastPInvokeError() == Errno.Interrupted) { }
            if (ready == 0) _child.Signal(OwnChild.Kill);
        }
        return _child.WaitForEnd().ExitCode ?? -1;
    }

    /// <summary>One that still waits for its last word is ended without having done anything.</summary>
    public void Dispose()
    {
        if (_child.End() is null)
        {
            _child.Signal(OwnChild.Kill);
            _child.WaitForEnd();
        }
        CloseInput();
        _child.Dispose();
        _output.Dispose();
        _error.Dispose();
    }

    private void CloseInput()
    {
        if (_input >= 0) _ = Libc.Close(_input);
        _input = -1;
    }
}
