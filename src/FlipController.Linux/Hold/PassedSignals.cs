using System.Collections.Concurrent;
using System.Globalization;
using System.Runtime.InteropServices;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Hold;

/// <summary>
/// The signals that a command is to have when the one who runs it gets them. From the making of this on they end nothing by themselves.
/// What was ignored from the start, as nohup does it, stays so.
/// </summary>
internal sealed partial class PassedSignals : IDisposable
{
    // signal(7); the same on x86 and arm.
    private const int Hangup = 1, Interrupt = 2, Quit = 3, User1 = 10, User2 = 12, Terminate = 15, Child = 17;

    private readonly ConcurrentQueue<int> _arrived = new();
    private readonly List<PosixSignalRegistration> _registrations = [];
    private readonly Wakeup _wakeup;

    internal PassedSignals(Wakeup wakeup)
    {
        _wakeup = wakeup;
        ulong ignored = Ignored();
        if (IsIn(ignored, Child)) _ = SetHandler(Child, 0); // SIG_DFL: else the kernel reaps, and nobody learns how the command ended
        foreach (int signal in (ReadOnlySpan<int>)[Hangup, Interrupt, Quit, User1, User2, Terminate])
        {
            if (IsIn(ignored, signal)) continue;
            _registrations.Add(PosixSignalRegistration.Create((PosixSignal)signal, context =>
            {
                context.Cancel = true;
                _arrived.Enqueue(signal);
                _wakeup.Set();
            }));
        }
    }

    /// <summary>Somebody wants an end.</summary>
    internal static bool Ends(int signal) => signal is Hangup or Interrupt or Quit or Terminate;

    /// <summary>
    /// False: a key at the terminal sent it to the whole foreground group, so that the command has it already. Twice, as many programs
    /// see it, means "now, and never mind".
    /// </summary>
    internal static bool IsForUsAlone(int signal)
    {
        if (signal is not (Interrupt or Quit)) return true;
        try
        {
            using var terminal = File.OpenHandle("/dev/tty");
            return ForegroundGroup((int)terminal.DangerousGetHandle()) != ProcessGroup();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return true; // ENXIO: no terminal
        }
    }

    internal bool Next(out int signal) => _arrived.TryDequeue(out signal);

    public void Dispose()
    {
        foreach (PosixSignalRegistration registration in _registrations) registration.Dispose();
    }

    private static bool IsIn(ulong set, int signal) => (set >> (signal - 1) & 1) != 0;

    private static ulong Ignored() =>
        File.ReadLines("/proc/self/status").FirstOrDefault(l => l.StartsWith("SigIgn:", StringComparison.Ordinal)) is { } line
            ? ulong.Parse(line.AsSpan("SigIgn:".Length).Trim(), NumberStyles.HexNumber, CultureInfo.InvariantCulture) : 0;

    [LibraryImport("libc", EntryPoint = "signal")]
    private static partial nint SetHandler(int signal, nint handler);

    [LibraryImport("libc", EntryPoint = "tcgetpgrp")]
    private static partial int ForegroundGroup(int terminal);

    [LibraryImport("libc", EntryPoint = "getpgrp")]
    private static partial int ProcessGroup();
}
