using System.Diagnostics;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Hold;

/// <summary>Who opened it.</summary>
public enum OpenedBy
{
    /// <summary>The command ended, or could not be started.</summary>
    Command,
    /// <summary>The longest time was over.</summary>
    Cap,
    /// <summary>A signal that asks for an end.</summary>
    Signal,
    /// <summary>The dead-man's switch: the one who held was frozen or late.</summary>
    Switch,
}

/// <summary>One close and one open of a hold, the dead-man's switch armed around both, whatever happens in between. One thread.</summary>
internal sealed class CommandWindow : IDisposable
{
    /// <summary>The switch is for who is late; it must not race one who is on time.</summary>
    private static readonly TimeSpan Headroom = TimeSpan.FromMilliseconds(20);

    private readonly Hold _hold;
    private readonly DeadMan? _deadMan;
    private readonly long _closed;
    private bool _disposed;

    /// <summary>Closes it.</summary>
    /// <exception cref="FlipException">It is open, and nothing of it is left.</exception>
    internal CommandWindow(Hold hold)
    {
        _hold = hold;
        try
        {
            hold.Rehearse();
            _deadMan = DeadMan.Arm(hold.ForcedOpenings, hold.Scope.Max + Headroom);
            _closed = Stopwatch.GetTimestamp();
            if (hold.Close() != 0) throw hold.Failure;
            // Frozen for so long before the close, it would have no guard any more.
            if (Stopwatch.GetElapsedTime(_deadMan.ArmedAt) >= hold.Scope.Max) Open(OpenedBy.Switch);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    internal bool IsOpen => By is not null;

    /// <summary>Null: it is still closed.</summary>
    internal OpenedBy? By { get; private set; }

    internal TimeSpan Length { get; private set; }

    internal HoldTally Tally { get; private set; }

    /// <summary>False: it was disturbed, and the tally says nothing.</summary>
    internal bool IsTallied { get; private set; }

    internal TimeSpan LeftUntilCap => _hold.Scope.Max - Stopwatch.GetElapsedTime(_closed);

    /// <summary>The first call opens it and removes everything; others do nothing.</summary>
    /// <exception cref="KernelException">The kernel would not open it by the usual way; it is open all the same, as everything was removed.</exception>
    internal void Open(OpenedBy by)
    {
        if (IsOpen) return;
        int errno = _hold.Open();
        Length = Stopwatch.GetElapsedTime(_closed);
        By = by;
        KernelException? failure = errno == 0 ? null : _hold.Failure;
        try
        {
            if (failure is null)
            {
                _deadMan!.Disarm();
                if (_deadMan.HasFired) By = OpenedBy.Switch;
                Tally = _hold.Tally();
                // Who is late reads late when the first one came.
                if (By == OpenedBy.Switch && Tally.Held > 0) Tally = Tally with { LongestWait = Length };
                IsTallied = true;
            }
        }
        finally
        {
            Dispose();
        }
        if (failure is not null) throw failure;
    }

    public void Dispose()
    {
        if (_disposed) return;
        _disposed = true;
        try
        {
            _hold.Dispose(); // opens it if nothing else did
        }
        finally
        {
            _deadMan?.Disarm();
        }
    }
}
