using System.Collections.Immutable;
using System.ComponentModel;
using System.Diagnostics;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Hold;

/// <param name="Method">One of <see cref="HoldChoice.Methods"/>.</param>
/// <param name="Command">A program, looked for in PATH, and its arguments.</param>
/// <param name="KillAtCap">When the longest time is over, end the command, too.</param>
public sealed record ProtectionRequest(string Method, HoldScope Scope, ImmutableArray<string> Command, bool KillAtCap);

/// <param name="ExitCode">The command's, 128 and the signal's number when one ended it; 127 not found, 126 not executable.</param>
/// <param name="Window">From before the close to after the opening.</param>
/// <param name="Unaccepted">Who was still between the ports and the program when the command was started.</param>
/// <param name="IsTallied">False: the hold was disturbed, and who waited is not known.</param>
/// <param name="NotStarted">Why the command was not started; null: it was.</param>
public sealed record ProtectionOutcome(
    string Method, string Why, OpenedBy OpenedBy, TimeSpan Window, HoldTally Tally, UnacceptedConnections Unaccepted, int ExitCode, string? NotStarted,
    bool IsTallied);

/// <summary>
/// A command run while NEW connections wait:
/// <code>
///   locks -> leftovers -> prepare -> arm -> close -> queues run empty -> COMMAND starts ... ends -> open -> remove all
///                                      |____________ at most Max, then it opens whatever the command does _____|
/// </code>
/// The command has our descriptors 0 to 2, process group and terminal, and nothing of the hold: what it leaves behind keeps nothing open.
/// </summary>
public static class Protection
{
    private const int Terminate = 15;
    private const string Late = "the dead-man's switch let new connections go: this process was frozen or late, or somebody ended the switch's timer";

    /// <summary>Between SIGTERM and SIGKILL.</summary>
    private static readonly TimeSpan Grace = TimeSpan.FromSeconds(5);

    /// <summary>On the calling thread, in its network namespace, to the command's end.</summary>
    /// <param name="warn">Hears what happens before the end, a sentence each.</param>
    /// <exception cref="PortProtectedException">Another one protects a port; nothing was done.</exception>
    /// <exception cref="FlipException">It cannot hold; the command was not run.</exception>
    public static ProtectionOutcome Run(ProtectionRequest request, Action<string> warn)
    {
        using Wakeup wakeup = new();
        using PassedSignals signals = new(wakeup);
        PortLocks locks = PortLocks.Take(request.Scope.Ports);
        CommandWindow window;
        HoldChoice choice;
        UnacceptedConnections unaccepted = default;
        OwnChild? child = null;
        string? notStarted = null;
        int exitCode = 0;
        try
        {
            if (request.Method != "none") _ = HoldTraces.Remove(); // the one without a hold needs no rights either
            using AcceptQueues queues = new(request.Scope.Ports, request.Scope.Max);
            choice = HoldChoice.Prepare(request.Method, request.Scope);
            if (request.Method == HoldChoice.Auto && choice.Hold is NoHold)
                throw new FlipException($"no kind of hold works here ({choice.Why}); nothing was held; --method none runs it without");
            if (request.Scope.Devices.Length > 0 && choice.Hold.Method != "plug")
                warn($"--dev is for plug alone: with {choice.Hold.Method} connections wait by whatever device they come");
            if (queues.Unheard is [var unheard, ..])
                warn($"nobody listens on port {unheard}{(queues.Unheard.Length > 1 ? $" and {queues.Unheard.Length - 1} more of them" : "")} here; new connections to it wait all the same");
            window = new CommandWindow(choice.Hold);
            try
            {
                unaccepted = queues.WaitUntilEmpty();
                int early = 0;
                while (!PassedSignals.Ends(early) && signals.Next(out early)) { } // others have nobody to go to yet
                if (PassedSignals.Ends(early))
                {
                    window.Open(OpenedBy.Signal);
                    notStarted = $"signal {early} came before it was";
                    exitCode = 128 + early;
                }
                else
                {
                    child = OwnChild.Start(request.Command, new ChildGift(null, Apart: false));
                }
            }
            catch (Win32Exception e)
            {
                window.Open(OpenedBy.Command);
                notStarted = e.Message;
                exitCode = e.NativeErrorCode == Errno.NoEntry ? 127 : 126;
            }
            catch
            {
                window.Dispose();
                throw;
            }
        }
        catch
        {
            locks.Dispose();
            throw;
        }

        try
        {
            if (child is not null)
            {
                using (child) exitCode = Follow(child, window, signals, wakeup, request, locks, warn);
            }
        }
        finally
        {
            window.Dispose(); // opens it, should following the command have failed
            locks.Dispose();
        }
        return new ProtectionOutcome(choice.Hold.Method, choice.Why, window.By!.Value, window.Length, window.Tally, unaccepted, exitCode, notStarted, window.IsTallied);
    }

    private static int Follow(
        OwnChild child, CommandWindow window, PassedSignals signals, Wakeup wakeup, ProtectionRequest request, PortLocks locks, Action<string> warn)
    {
        long? terminated = null;
        bool capped = false;
        ChildEnd? end;
        if (window.By == OpenedBy.Switch) warn(Late);
        while ((end = child.End()) is null)
        {
            bool awaitsCap = !capped && (!window.IsOpen || request.KillAtCap);
            TimeSpan? wait = awaitsCap ? window.LeftUntilCap : terminated is { } since ? Grace - Stopwatch.GetElapsedTime(since) : null;
            wakeup.Wait(child.Fd, wait is { } time ? (int)Math.Ceiling(Math.Max(0, time.TotalMilliseconds)) : -1);
            while (signals.Next(out int signal))
            {
                if (PassedSignals.Ends(signal)) Open(OpenedBy.Signal);
                if (PassedSignals.IsForUsAlone(signal)) _ = child.Signal(signal);
            }
            if (awaitsCap && window.LeftUntilCap <= TimeSpan.Zero && child.End() is null)
            {
                capped = true;
                string open = window.IsOpen ? "" : ", so new connections were let go";
                Open(OpenedBy.Cap);
                warn($"the command still runs after {Durations.Format(request.Scope.Max)}{open}"
                    + (request.KillAtCap ? "; it is ended now, as --on-cap kill says" : "; it goes on without a hold; --max allows for more"));
                if (!request.KillAtCap) continue;
                terminated = Stopwatch.GetTimestamp();
                _ = child.Signal(Terminate);
            }
            if (terminated is { } told && Stopwatch.GetElapsedTime(told) >= Grace)
            {
                terminated = null;
                warn($"the command did not heed SIGTERM for {Durations.Format(Grace)} and is killed");
                _ = child.Signal(OwnChild.Kill);
            }
        }
        Open(OpenedBy.Command);
        return end.Value switch
        {
            { Signal: { } killer } => 128 + killer,
            { ExitCode: { } code } => code,
            _ => 0,
        };

        void Open(OpenedBy by)
        {
            if (window.IsOpen) return;
            try
            {
                window.Open(by);
            }
            catch (FlipException e)
            {
                warn($"{e.Message}; what holds was removed, so that new connections go through all the same; how many waited is not known");
            }
            if (window.By == OpenedBy.Switch) warn(Late);
            locks.Dispose(); // the command may run on for long
        }
    }
}
