using System.Diagnostics;
using System.Net;
using FlipController.Core;

namespace FlipController.Linux.Kernel;

/// <param name="Live">In SYN_SENT, SYN_RECV or ESTABLISHED.</param>
/// <param name="Opening">Of those, in SYN_SENT or SYN_RECV.</param>
/// <param name="AsOf">The instant the numbers tell of.</param>
/// <param name="IsCurrent">False while the first dump, or the one that makes lost events good, is still to come or under way.</param>
public readonly record struct LedgerCount(int Live, int Opening, DateTimeOffset AsOf, bool IsCurrent);

/// <param name="IsExact">It began then; false: it was there then at the latest.</param>
public readonly record struct FirstSeen(DateTimeOffset Instant, bool IsExact);

/// <param name="Messages">Events read; those of marks that nobody follows are not among them.</param>
/// <param name="Overflows">How often the kernel had to throw events away.</param>
/// <param name="Dumps">Walks over the kernel's table.</param>
public readonly record struct LedgerActivity(long Messages, long Overflows, long Dumps);

/// <summary>
/// Which TCP connections conntrack remembers under some marks, kept up by events: one dump, then only what changes. It answers for the
/// namespace of the thread that opens it; every member may be called by any thread. While no mark is followed it costs nothing.
/// <code>
///   Follow -> filter, join the groups -> dump of the new marks -> events, from those that came during the dump on
///                                            ^                       |
///                                            |   wait a while        v
///                                            +-- empty the queue &lt;- ENOBUFS: events were lost
/// </code>
/// An event of a connection is newer than what a dump before it said, and doing an old one again ends in the same: so events that wait
/// while a dump is read need not be told from those after it.
/// </summary>
/// <remarks>
/// Since Linux 5.19 net.netfilter.nf_conntrack_events is 2 by default: connections that began while nobody listened never have events
/// (nf_ct_ecache_ext_add() in net/netfilter/nf_conntrack_ecache.c). As long as such ones are left the dump is repeated, so seldom that it
/// does not cost more than about a hundredth of a core, and <see cref="LedgerCount.AsOf"/> is that of the last one. With 1 events tell of
/// all, as they did before 5.19. <see cref="Listen"/> makes them tell of all that begins after it.
/// </remarks>
public sealed class ConntrackLedger : IDisposable
{
    public const int DefaultReceiveBufferBytes = 16 << 20; // some thirteen thousand events

    private const string EventsRule = "nf_conntrack_events";
    private const int CoalesceMilliseconds = 20;
    private const int MostCallsInARow = 256; // then whoever asks for something gets a hearing

    private readonly TimeProvider _time;
    private readonly Conntrack _conntrack;
    private readonly ConntrackEvents _events;
    private readonly ConntrackEvents.Reader _take;
    private readonly LedgerPace _pace;
    private readonly Wakeup _wakeup = new();
    private readonly Thread _thread;

    // Under the lock, which the thread takes for a batch of events at a time. Only the thread writes _lost, and reads it without.
    private readonly Lock _lock = new();
    private readonly LedgerBook _book = new();
    private bool _changed, _stop, _lost, _unreadable, _eventsTellNothing;
    /// <summary>Events that came during a dump are still to be read.</summary>
    private bool _behind;
    /// <summary>Nothing waits to be read: what is known is true now.</summary>
    private bool _idle;
    private DateTimeOffset _readAt;
    private string? _failure;
    private long _messages, _overflows, _dumps;
    private ConntrackListener? _listener;
    private DateTimeOffset _listeningSince;

    private ConntrackLedger(TimeProvider time, Conntrack conntrack, ConntrackEvents events, LedgerPace pace)
    {
        (_time, _conntrack, _events, _pace, _take, _readAt) = (time, conntrack, events, pace, Take, time.GetUtcNow());
        // It begins in the namespace of its creator, so that /proc/sys/net is the right one's.
        _thread = new Thread(Run) { IsBackground = true, Name = "conntrack ledger" };
        _thread.Start();
    }

    /// <summary>Null when the kernel cannot be asked about conntrack by netlink.</summary>
    public static ConntrackLedger? Open(TimeProvider time, int receiveBufferBytes = DefaultReceiveBufferBytes) =>
        Open(time, receiveBufferBytes, new LedgerPace());

    internal static ConntrackLedger? Open(TimeProvider time, int receiveBufferBytes, LedgerPace pace)
    {
        Conntrack? conntrack = Conntrack.Open();
        if (conntrack is null) return null;
        ConntrackEvents? events = null;
        try
        {
            if (conntrack.IsPresent())
            {
                events = new ConntrackEvents(receiveBufferBytes);
                return new ConntrackLedger(time, conntrack, events, pace);
            }
            conntrack.Dispose();
            return null;
        }
        catch
        {
            events?.Dispose();
            conntrack.Dispose();
            throw;
        }
    }

    /// <summary>Why nothing can be told, in a sentence or two; null: it can.</summary>
    public string? Failure
    {
        get { lock (_lock) return _failure; }
    }

    /// <summary>For tests.</summary>
    internal int EventsDescriptor => _events.Fd;

    public LedgerActivity Activity
    {
        get { lock (_lock) return new LedgerActivity(_messages, _overflows, _dumps); }
    }

    /// <summary>
    /// Connections that begin from now on have events, whether their mark is followed then or later. To be called on a thread of the
    /// ledger's namespace.
    /// </summary>
    public void Listen()
    {
        var listener = new ConntrackListener();
        lock (_lock)
        {
            _listener?.Dispose();
            (_listener, _listeningSince) = (listener, _time.GetUtcNow());
        }
    }

    /// <summary>
    /// Counts connections whose mark under <paramref name="mask"/> is <paramref name="mark"/> from now on. Masks of two marks are equal or
    /// share no bit. One that is followed already goes on.
    /// </summary>
    /// <param name="since">No connection with the mark is older; null: that is not known.</param>
    public void Follow(uint mark, uint mask, DateTimeOffset? since = null)
    {
        if ((mark & ~mask) != 0) throw new ArgumentException($"mark 0x{mark:x} has bits outside of its mask 0x{mask:x}", nameof(mark));
        lock (_lock)
        {
            // One that has failed for good counts nothing, and says so (Failure): no reason for whoever follows to fail, too.
            if (_stop || _book.Find(mark) is not null) return;
            _book.Add(mark, mask, _listener is not null && since > _listeningSince);
            _changed = true;
            _wakeup.Set();
        }
    }

    /// <summary>Tolerates absence.</summary>
    public void Unfollow(uint mark)
    {
        lock (_lock)
        {
            if (_stop || !_book.Remove(mark)) return;
            _changed = true;
            _wakeup.Set();
        }
    }

    /// <summary>Null: the mark is not followed, or it cannot be told (<see cref="Failure"/>).</summary>
    public LedgerCount? CountOf(uint mark)
    {
        lock (_lock)
        {
            if (_failure is not null || _book.Find(mark) is not { } followed) return null;
            DateTimeOffset asOf = MayBeSilent(followed) ? followed.DumpedAt : _idle ? _time.GetUtcNow() : _readAt;
            return new LedgerCount(followed.Live, followed.Opening, asOf, !_lost && !_behind && !followed.NeedsDump);
        }
    }

    /// <summary>
    /// Since when a connection is there: of this client (IPv4 may be written as IPv6) at this private port. Null: it is not known as a
    /// live one. Of several that one client port has to several front addresses, the oldest.
    /// </summary>
    public FirstSeen? FirstSeen(uint mark, IPEndPoint peer, int privatePort)
    {
        lock (_lock) return _book.FirstSeen(mark, peer, privatePort);
    }

    public void Dispose()
    {
        lock (_lock)
        {
            if (!_stop) _wakeup.Set();
            _stop = true;
        }
        _thread.Join();
    }

    private void Run()
    {
        try
        {
            while (Step())
            {
            }
        }
        catch (Exception e) // nobody else would ever hear of it
        {
            lock (_lock) _failure = $"the watch over conntrack's events has ended ({e}). "
                + "Connections are not counted any more; restart the daemon.";
        }
        lock (_lock) _stop = true; // from here on nobody wakes it
        _listener?.Dispose();
        _events.Dispose();
        _conntrack.Dispose();
        _wakeup.Dispose();
    }

    private bool Step()
    {
        FollowedMark[] all;
        bool changed;
        lock (_lock)
        {
            if (_stop) return false;
            (changed, _changed) = (_changed, false);
            all = [.. _book.Marks];
        }
        try
        {
            if (changed) _events.Follow([.. all.Select(f => (f.Mark, f.Mask))]);
            if (all.Length == 0)
            {
                _events.Discard();
                lock (_lock) (_lost, _behind, _failure) = (false, false, null);
                _wakeup.Wait(-1, -1);
                return true;
            }
            long now = Stopwatch.GetTimestamp();
            if (!_lost || now >= _pace.MayRepairAt)
            {
                // Whoever needs one brings along those that wait for the next: it is a walk over the whole table in any case, and begins their
                // wait anew.
                if (all.Any(f => _lost || f.NeedsDump || now >= _pace.MayLookAgainAt && MayBeSilent(f)))
                    Dump([.. all.Where(f => _lost || f.NeedsDump || MayBeSilent(f))]);
            }
            if (_lost || Read() != EventsRead.Some) Wait(all);
        }
        catch (KernelException e)
        {
            lock (_lock)
            {
                _failure = $"{e.Message}. Connections are not counted until it works; "
                    + $"it is tried again every {_pace.AfterFailure.TotalSeconds:0.#} s.";
                _lost = _changed = true;
            }
            _pace.Failed();
            _wakeup.Wait(-1, _pace.MillisecondsUntil(_pace.MayRepairAt));
        }
        return true;
    }

    /// <summary>Connections may end, or begin, without an event.</summary>
    private bool MayBeSilent(FollowedMark followed) => followed.Unheard > 0 || _eventsTellNothing;

    private void Wait(FollowedMark[] all)
    {
        if (_lost)
        {
            // Not read meanwhile: what comes would be thrown away before the dump, and a full queue costs the kernel the least.
            _wakeup.Wait(-1, _pace.MillisecondsUntil(_pace.MayRepairAt));
            return;
        }
        lock (_lock) _idle = true;
        bool readable = _wakeup.Wait(_events.Fd, all.Any(MayBeSilent) ? _pace.MillisecondsUntil(_pace.MayLookAgainAt) : -1);
        lock (_lock) (_idle, _readAt) = (false, _time.GetUtcNow());
        // A little later there are many, for one waking up.
        if (readable) _wakeup.Wait(-1, CoalesceMilliseconds);
    }

    private EventsRead Read()
    {
        DateTimeOffset now = _time.GetUtcNow();
        for (int calls = 0; calls < MostCallsInARow; calls++)
        {
            lock (_lock)
            {
                _book.Now = now.ToUnixTimeMilliseconds();
                EventsRead read = _events.Read(_take);
                if (_unreadable) read = EventsRead.Lost;
                _unreadable = false;
                switch (read)
                {
                    case EventsRead.Lost:
                        _overflows++;
                        _lost = true;
                        return read;
                    case EventsRead.All:
                        (_behind, _readAt) = (false, now);
                        return read;
                }
            }
        }
        return EventsRead.Some;
    }

    private void Take(ReadOnlySpan<byte> message)
    {
        _messages++;
        if (!_book.TakeEvent(message)) _unreadable = true;
    }

    private void Dump(FollowedMark[] due)
    {
        long began = Stopwatch.GetTimestamp();
        DateTimeOffset at = _time.GetUtcNow();
        long? events = ConntrackFill.Number(EventsRule); // absent: the kernel is built without
        lock (_lock)
        {
            if (_lost)
            {
                _events.Discard();
                foreach (FollowedMark followed in due) followed.NeedsDump = true;
                _lost = false; // from here on what comes is kept, and losing it is noticed anew
            }
            (_book.EventsTellOfAll, _eventsTellNothing) = (events == 1, events is null or 0);
            _book.Now = at.ToUnixTimeMilliseconds();
            _book.BeginDump();
        }
        foreach (IGrouping<uint, FollowedMark> same in due.GroupBy(f => f.Mask))
        {
            _conntrack.Dump([.. same.Select(f => f.Mark)], same.Key, () => this, static (ledger, _, payload) =>
            {
                ConntrackEntry entry = ConntrackEntry.Read(payload);
                if (!entry.IsLive) return;
                lock (ledger._lock) ledger._book.TakeDumped(entry);
            });
            lock (_lock) _dumps++;
        }
        lock (_lock)
        {
            _book.EndDump(due, at);
            (_behind, _failure) = (true, null);
        }
        _pace.Dumped(Stopwatch.GetElapsedTime(began));
    }
}
