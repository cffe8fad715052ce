using System.ComponentModel;
using System.Runtime.InteropServices;
using System.Text;

namespace FlipController.Linux.Kernel;

/// <summary>What a child is given beside its words.</summary>
/// <param name="Standard">What becomes its descriptors 0, 1 and 2, and then it has no others; -1: /dev/null. Null: it inherits ours, whatever is not close-on-exec.</param>
/// <param name="Apart">
/// In a session of its own, every signal blocked that can be, and no environment: it lives on whatever becomes of us and our terminal.
/// Otherwise it stays in our process group, with our signal mask and environment, and so has the terminal if we have it.
/// </param>
internal sealed record ChildGift((int In, int Out, int Error)? Standard, bool Apart)
{
    /// <summary>All its environment, NAME=VALUE each, and no signal blocked, as a service manager would start it; null: see above.</summary>
    internal IReadOnlyList<string>? Environment { get; init; }

    /// <summary>The file that its descriptors 1 and 2 append to instead, made if it is not there, for its owner alone; null: none.</summary>
    internal string? Output { get; init; }

    /// <summary>Its working directory; null: ours.</summary>
    internal string? Directory { get; init; }
}

/// <summary>How a child ended; both null: somebody else reaped it.</summary>
internal readonly record struct ChildEnd(int? ExitCode, int? Signal);

/// <summary>
/// A program started by posix_spawn(3): nothing of .NET runs between the fork and the exec, and the call returns once it is executed. We reap it ourselves; .NET's own
/// handling of SIGCHLD leaves children alone that <see cref="System.Diagnostics.Process"/> did not start. One thread at a time.
/// </summary>
internal sealed unsafe class OwnChild : IDisposable
{
    private const int BrokenPipeSignal = 13; // SIGPIPE
    internal const int Kill = 9; // SIGKILL

    private readonly Pidfd? _pidfd;
    private ChildEnd? _end;

    private OwnChild(int pid)
    {
        Pid = pid;
        _pidfd = Pidfd.OfChild(pid);
    }

    internal int Pid { get; }

    /// <summary>Readable once it has ended; -1 when it had before anybody could look, as happens where SIGCHLD is ignored.</summary>
    internal int Fd => _pidfd?.Fd ?? -1;

    /// <param name="words">The program, looked for in PATH unless there is a slash in it, and its arguments.</param>
    /// <exception cref="Win32Exception">Why it could not be executed: ENOENT, EACCES, ...</exception>
    internal static OwnChild Start(IReadOnlyList<string> words, ChildGift gift)
    {
        int variables = gift.Environment?.Count ?? 0;
        byte** arguments = (byte**)NativeMemory.AllocZeroed((nuint)(words.Count + 1), (nuint)sizeof(byte*));
        byte** environment = (byte**)NativeMemory.AllocZeroed((nuint)(variables + 1), (nuint)sizeof(byte*));
        Libc.SpawnAttributes attributes;
        Libc.SpawnFileActions actions;
        Demand(Libc.InitSpawnAttributes(&attributes));
        Demand(Libc.InitSpawnFileActions(&actions));
        try
        {
            for (int i = 0; i < words.Count; i++) arguments[i] = NulTerminated(words[i]);
            for (int i = 0; i < variables; i++) environment[i] = NulTerminated(gift.Environment![i]);
            Signals(&attributes, gift.Apart, isBlocked: gift.Environment is null);
            if (gift.Directory is { } directory) InDirectory(&actions, directory);
            if (gift.Standard is { } standard) Descriptors(&actions, standard, gift.Output);
            int pid;
            Demand(Libc.Spawn(&pid, arguments[0], &actions, &attributes, arguments,
                gift.Apart || gift.Environment is not null ? environment : Libc.Environment()));
            try
            {
                return new OwnChild(pid);
            }
            catch
            {
                // Of one that we cannot watch (no descriptor left for it) nothing stays behind. Nobody else reaps it, so the number is still its own.
                _ = Libc.Kill(pid, Kill);
                int status;
                while (Libc.WaitPid(pid, &status, 0) < 0 && Marshal.GetLastPInvokeError() == Errno.Interrupted) { }
                throw;
            }
        }
        finally
        {
            _ = Libc.DestroySpawnFileActions(&actions);
            _ = Libc.DestroySpawnAttributes(&attributes);
            for (int i = 0; i < words.Count; i++) NativeMemory.Free(arguments[i]);
            for (int i = 0; i < variables; i++) NativeMemory.Free(environment[i]);
            NativeMemory.Free(arguments);
            NativeMemory.Free(environment);
        }
    }

    /// <summary>Null while it runs.</summary>
    internal ChildEnd? End() => Reap(Libc.NoHang);

    internal ChildEnd WaitForEnd() => Reap(0)!.Value;

    /// <summary>False: it has ended.</summary>
    internal bool Signal(int signal) => _end is null && _pidfd is not null && _pidfd.Signal(signal);

    /// <summary>Leaves it running, if it does.</summary>
    public void Dispose() => _pidfd?.Dispose();

    private ChildEnd? Reap(int options)
    {
        if (_end is not null) return _end;
        while (true)
        {
            int status;
            int reaped = Libc.WaitPid(Pid, &status, options);
            if (reaped == 0) return null;
            if (reaped < 0)
            {
                if (Marshal.GetLastPInvokeError() == Errno.Interrupted) continue;
                return _end = new ChildEnd(null, null); // ECHILD: SIGCHLD is ignored, and the kernel reaps
            }
            int signal = status & 0x7f; // WTERMSIG
            return _end = signal == 0 ? new ChildEnd((status >> 8) & 0xff, null) : new ChildEnd(null, signal);
        }
    }

    private static void Signals(Libc.SpawnAttributes* attributes, bool apart, bool isBlocked)
    {
        Libc.SignalSet set;
        if (apart)
        {
            if (!isBlocked) _ = Libc.EmptySignals(&set);
            else _ = Libc.FillSignals(&set);
            Demand(Libc.SetSpawnSignalMask(attributes, &set));
            _ = Libc.FillSignals(&set);
        }
        else
        {
            // Handlers do not survive an exec. What is ignored stays so, as nohup wants it, but SIGPIPE: that .NET ignores for itself.
            _ = Libc.EmptySignals(&set);
            _ = Libc.AddSignal(&set, BrokenPipeSignal);
        }
        Demand(Libc.SetSpawnSignalDefaults(attributes, &set));
        Demand(Libc.SetSpawnFlags(attributes, (short)(Libc.SpawnSetSignalDefaults
            | (apart ? Libc.SpawnSetSignalMask | Libc.SpawnSetSession : 0))));
    }

    private static void InDirectory(Libc.SpawnFileActions* actions, string directory)
    {
        byte* path = NulTerminated(directory);
        try
        {
            Demand(Libc.AddSpawnDirectory(actions, path)); // it keeps a copy of its own
        }
        finally
        {
            NativeMemory.Free(path);
        }
    }

    private static void Descriptors(Libc.SpawnFileActions* actions, (int In, int Out, int Error) standard, string? output)
    {
        Become(standard.In, 0, Libc.ReadOnly);
        if (output is null)
        {
            Become(standard.Out, 1, Libc.ReadWrite);
            Become(standard.Error, 2, Libc.ReadWrite);
        }
        else
        {
            byte* path = NulTerminated(output);
            try
            {
                Demand(Libc.AddSpawnOpen(actions, 1, path, Libc.WriteOnly | Libc.Create | Libc.AppendOnly, Libc.OwnerOnly));
                Demand(Libc.AddSpawnDuplicate(actions, 1, 2));
            }
            finally
            {
                NativeMemory.Free(path);
            }
        }
        try
        {
            Demand(Libc.AddSpawnCloseFrom(actions, 3));
        }
        catch (EntryPointNotFoundException)
        {
            // Ours are close-on-exec; only what we were given ourselves is passed on then.
        }

        void Become(int fd, int number, int flags)
        {
            fixed (byte* path = "/dev/null\0"u8)
                Demand(fd < 0 ? Libc.AddSpawnOpen(actions, number, path, flags, 0) : Libc.AddSpawnDuplicate(actions, fd, number));
        }
    }

    private static byte* NulTerminated(string word)
    {
        int length = Encoding.UTF8.GetByteCount(word);
        byte* bytes = (byte*)NativeMemory.Alloc((nuint)length + 1);
        bytes[Encoding.UTF8.GetBytes(word, new Span<byte>(bytes, length))] = 0;
        return bytes;
    }

    private static void Demand(int errno)
    {
        if (errno != 0) throw new Win32Exception(errno);
    }
}
