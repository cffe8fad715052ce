using System.Collections.Immutable;
using System.Diagnostics;
using System.Runtime.InteropServices;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Hold;

/// <summary>
/// Opening SYNs wait in an NFQUEUE, before conntrack and NAT: what is let go is judged by the rules of that moment. No device is
/// touched, and local clients wait like those from outside.
/// <code>
///   Close   ports into the set, with a timeout               one nft transaction
///           SYN -> set -> queue                              a thread reads what stands in front of each: count, first arrival
///   Open    set emptied                                      one nft transaction
///           everything in the queue goes on, in order        one message on the queue's own socket
///           SYN that had passed the set but was not queued   the thread lets it go when it reads it
///   Dispose rule out, everybody past it in the queue, let go, queue unbound
/// </code>
/// In the other order, queue before rule, the SYNs in between are lost for a second.
/// </summary>
public sealed unsafe class QueueHold : Hold
{
    private readonly HoldTable _table;
    private readonly NfQueue _queue;

    /// <summary>
    /// Accept goes on behind our chain. Repeat goes through it once more, where another one's hold of the same ports may stand: right as soon
    /// as our own set is empty, and only then.
    /// </summary>
    private readonly byte[] _accept, _repeat, _acceptLate, _repeatLate;
    private readonly Wakeup _wakeup = new();
    private readonly Lock _reading = new();
    private readonly Thread _reader;

    private volatile bool _open = true;
    private volatile bool _emptied = true;
    private volatile bool _stopping;
    private bool _rehearsing;
    private int _sendErrno;
    private bool _disposed;

    // Of all closes together; Close remembers where it began.
    private long _arrived, _lost, _dropped;
    private long _letGo; // of those that arrived, so many by the reader, or before them
    private long _arrivedBefore, _lostBefore, _droppedBefore;
    private long _first, _closed, _released, _tallied;

    private QueueHold(HoldScope scope, HoldTable table, NfQueue queue) : base(scope)
    {
        _table = table;
        _queue = queue;
        _accept = queue.ReleaseMessage(NfQueue.Accept, NfQueue.MainVerdict);
        _repeat = queue.ReleaseMessage(NfQueue.Repeat, NfQueue.MainVerdict);
        _acceptLate = queue.ReleaseMessage(NfQueue.Accept, NfQueue.LateVerdict);
        _repeatLate = queue.ReleaseMessage(NfQueue.Repeat, NfQueue.LateVerdict);
        ForcedOpenings = [new ForcedOpening(queue.Fd, queue.EndMessage())];
        _reader = new Thread(Read) { IsBackground = true, Name = $"queue of {scope.Owner}" };
        _reader.Start();
    }

    /// <summary>In the calling thread's network namespace.</summary>
    /// <exception cref="FlipException">Nothing is left of it then.</exception>
    public static QueueHold Prepare(HoldScope scope) => Prepare(scope, NfQueue.UsualLength);

    /// <param name="length">So many may wait; who comes then goes on unheld.</param>
    internal static QueueHold Prepare(HoldScope scope, uint length) => Explained(scope, "queue", () =>
    {
        NfQueue queue = NfQueue.BindFree(length);
        try
        {
            return new QueueHold(scope, HoldTable.Prepare(scope, queue.Number), queue);
        }
        catch
        {
            queue.Dispose();
            throw;
        }
    });

    public override string Method => "queue";

    public override ImmutableArray<ForcedOpening> ForcedOpenings { get; }

    public override KernelException Failure => _table.Failure ?? (_sendErrno != 0
        ? new KernelException($"let go who waits in NFQUEUE {Number}", _sendErrno)
        : throw new InvalidOperationException("nothing has failed"));

    /// <summary>The number of its queue.</summary>
    internal int Number => _queue.Number;

    public override void Rehearse()
    {
        _rehearsing = true;
        try
        {
            if (Close() != 0 || Open() != 0) throw Failure;
        }
        finally
        {
            _rehearsing = false;
        }
        _ = Tally();
    }

    public override int Close()
    {
        _arrivedBefore = Volatile.Read(ref _arrived);
        _lostBefore = Volatile.Read(ref _lost);
        Volatile.Write(ref _first, 0);
        _sendErrno = 0;
        _open = false;
        _closed = Stopwatch.GetTimestamp();
        int errno = _table.Close(_rehearsing);
        if (errno != 0) _ = Open(); // should the kernel have done it and not said so
        return errno;
    }

    public override int Open()
    {
        bool main = !_open;
        int errno = _table.Open(_rehearsing);
        // From here on the reader lets go what it reads: what comes after the verdict below is read after this.
        _emptied = errno == 0;
        _open = true;
        _sendErrno = Send(_emptied ? (main ? _repeat : _repeatLate) : (main ? _accept : _acceptLate));
        if (main) _released = Stopwatch.GetTimestamp();
        return errno != 0 ? errno : _sendErrno;
    }

    /// <summary>While it is closed: as if it were opened now.</summary>
    public override HoldTally Tally()
    {
        Drain();
        if (_tallied != _closed)
        {
            _tallied = _closed;
            _droppedBefore = _dropped;
        }
        if (_queue.ReadLine() is { } line) _dropped = line.Dropped;
        long arrived = Volatile.Read(ref _arrived) - _arrivedBefore, lost = Volatile.Read(ref _lost) - _lostBefore;
        if (arrived == 0) return new HoldTally(0, TimeSpan.Zero, _dropped - _droppedBefore);
        // One who came late was read after the rest had been let go.
        long end = _open ? _released : Stopwatch.GetTimestamp(), first = Math.Min(Volatile.Read(ref _first), end);
        return new HoldTally(arrived, Stopwatch.GetElapsedTime(first, end), _dropped - _droppedBefore + lost);
    }

    public override void Dispose()
    {
        if (_disposed) return;
        _disposed = true;
        _ = Open();
        try
        {
            _table.RemoveRules();
            GracePeriod.Wait(); // who was between our rule and the queue is in the queue
        }
        finally
        {
            _stopping = true;
            _wakeup.Set();
            _reader.Join();
            Drain();
            _ = Send(_acceptLate);
            _queue.Dispose();
            _wakeup.Dispose();
            _table.Dispose();
        }
    }

    /// <summary>0, or an errno. The kernel has done it when this returns.</summary>
    private int Send(byte[] message)
    {
        fixed (byte* bytes = message)
        {
            while (Libc.SendTo(_queue.Fd, bytes, (nuint)message.Length, 0, null, 0) < 0)
            {
                int errno = Marshal.GetLastPInvokeError();
                if (errno is not (Errno.Interrupted or Errno.Again)) return errno;
            }
        }
        return 0;
    }

    private void Read()
    {
        while (!_stopping)
        {
            if (_wakeup.Wait(_queue.Fd, -1)) Drain();
        }
    }

    /// <summary>Reads all there is, and if it is open lets go who came late.</summary>
    private void Drain()
    {
        lock (_reading)
        {
            bool any = false;
            while (true)
            {
                switch (_queue.Next(out int errno, out uint sequence))
                {
                    case NfQueueEvent.None:
                        if (any && _open)
                        {
                            _ = Send(_emptied ? _repeatLate : _acceptLate);
                            _letGo = _arrived;
                        }
                        return;
                    case NfQueueEvent.Arrival:
                        any = true;
                        if (Volatile.Read(ref _first) == 0) Volatile.Write(ref _first, Stopwatch.GetTimestamp());
                        Volatile.Write(ref _arrived, _arrived + 1);
                        break;
                    case NfQueueEvent.Failure:
                        // ENOENT: the queue was empty. If somebody had arrived, a device or base chain that went away took them along.
                        // Unless the hold was so long that others have opened it.
                        if (errno != 0 && sequence == NfQueue.MainVerdict && Stopwatch.GetElapsedTime(_closed) < Scope.Max)
                            Volatile.Write(ref _lost, _lost + _arrived - Math.Max(_letGo, _arrivedBefore));
                        break;
                }
            }
        }
    }
}
