using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Text;

namespace FlipController.Load;

//   schedule --ask--> lane: Free -> Connecting -> Exchanging -> Closing -> Free         (Fresh)
//                                                   |  ^
//                                                   v  |
//                                                   Idle                                (Keepalive, Download)
//                                                   |  ^
//                                                   v  |
//                                                 Echoing                               (Echo, after the upgrade)
//
// In a closed loop a Free lane is asked at once again, in place of the schedule.
//
// One thread: ask what is due, time out what is late, wait for the kernel until the next of either, serve its events. Nothing
// here blocks but that one wait, and nothing allocates in the steady state.
internal sealed unsafe partial class LoadLoop
{
    private const long Millisecond = 1_000_000, Second = 1_000_000_000;
    private const int MaxSamples = 20;

    public readonly LoadOptions Options;
    public readonly LoadCounters Counts = new();

    private readonly Histogram _latency = new(), _connect = new(), _lag = new();
    private readonly Tally _servedBy;
    private readonly List<FailureSample> _samples = [];
    private readonly SocketAddress[] _addresses;
    private readonly byte[][] _requests;
    private readonly Deadlines _timeouts;
    private readonly Deadlines _lingering = new(250 * Millisecond);
    private readonly Lane[] _lanes;
    private readonly Stack<Lane> _free = new();     // Fresh
    private readonly Queue<Lane> _ready = new();    // lanes that may have something in their backlog
    private readonly List<Lane> _scheduled = [];    // Keepalive and Echo: they are asked in turn
    private readonly List<Lane> _downloads = [];
    private readonly int _maxBacklog;
    private readonly byte[] _buffer = new byte[64 * 1024];
    private volatile bool _stopped;
    private int _epoll;
    private int _open, _busy;
    private long _start, _end;

    public LoadLoop(LoadOptions options)
    {
        Options = options;
        _servedBy = new Tally(options.ServedByHeader);
        _addresses = [.. options.Targets.Select(t => t.Serialize())];
        _requests = [.. options.Targets.Select(t => RequestBytes(t, options.Path, ConnectionHeader(options.Mode)))];
        _timeouts = new Deadlines(Nanoseconds(options.Timeout));
        _maxBacklog = options.MaxInFlight ?? 1000;
        _lanes = new Lane[options.Mode == LoadMode.Fresh
            ? options.ClosedLoop ?? options.MaxInFlight ?? (int)Math.Clamp(Math.Ceiling(options.Rate * (options.Timeout.TotalSeconds + 0.5)), 64, 16_000)
            : options.Connections];
        for (var i = 0; i < _lanes.Length; i++)
        {
            // Where every second one downloads, targets change with every second one too: each gets both kinds.
            var turn = options is { Mode: LoadMode.Long, Long: LongTraffic.Both } ? i / 2 : i;
            var lane = _lanes[i] = new Lane(i, WorkOf(i), options.Expect.NewCheck()) { Target = turn % _addresses.Length };
            (lane.Work == Work.Download ? _downloads : _scheduled).Add(lane);
        }
        if (options.Mode == LoadMode.Fresh)
        {
            for (var i = _lanes.Length - 1; i >= 0; i--) _free.Push(_lanes[i]);
        }
    }

    public void Stop() => _stopped = true;

    public LoadResult Run()
    {
        _epoll = Kernel.OpenEpoll();
        if (_epoll < 0) throw new IOException($"epoll_create1: {Reason(Errno)}");
        try
        {
            Kernel.SharpenTimers();
            var cpu = Kernel.ThreadCpu();
            _start = Now();
            _end = _start + Nanoseconds(Options.Duration);
            Turn();
            var seconds = (Now() - _start) / 1e9;
            return Result(seconds, (Kernel.ThreadCpu() - cpu) / 1e7 / seconds);
        }
        finally
        {
            foreach (var lane in _lanes)
            {
                if (lane.Fd >= 0) Close(lane);
            }
            _ = Kernel.close(_epoll);
        }
    }

    private void Turn()
    {
        const int MaxEvents = 256;
        var events = stackalloc byte[MaxEvents * 16];
        var period = Second / Options.Rate;
        bool isClosedLoop = Options.ClosedLoop is not null;
        var total = isClosedLoop ? Options.Requests ?? long.MaxValue
            : _scheduled.Count == 0 ? 0 : (long)Math.Round(Options.Rate * Options.Duration.TotalSeconds);
        long asked = 0, look = 0;
        if (Options.Mode == LoadMode.Long)
        {
            foreach (var lane in _scheduled) _ready.Enqueue(lane); // upgraded at once, not when the first frame is due
        }
        while (true)
        {
            var now = Now();
            if (_stopped || (isClosedLoop && (asked == total || now >= _end))) (total, _end) = (asked, Math.Min(_end, now));
            // At most a few before the events are looked at, or catching up after a pause would delay answers already here.
            for (var i = 0; i < 32 && asked < total && Due(asked) <= now; i++, asked++)
            {
                if (isClosedLoop) now = Now(); // nothing is due but now, and what was asked before it took its time
                Ask(asked, isClosedLoop ? now : Due(asked), now);
            }
            if (now >= look)
            {
                look = now + 50 * Millisecond;
                foreach (var lane in _downloads)
                {
                    if (lane.Phase is Phase.Free or Phase.Idle) StartDownload(lane, now);
                }
            }
            for (var i = _ready.Count; i > 0; i--) Next(_ready.Dequeue(), Now());
            while (_timeouts.Expired(now) is { } lane) TimeOut(lane);
            while (_lingering.Expired(now) is { } lane) StopLingering(lane, now);

            if (asked == total && _busy == 0 && _ready.Count == 0 && now >= _end - (_downloads.Count > 0 ? Second / 2 : 0))
            {
                if (_open == 0) return;
                foreach (var lane in _lanes)
                {
                    if (lane.Phase == Phase.Idle) Linger(lane, halfClose: true);
                }
            }

            var next = asked < total ? Due(asked) : asked == total && _busy == 0 && now < _end ? _end : long.MaxValue;
            if (_ready.Count > 0) next = now;
            next = Math.Min(Math.Min(next, now + 100 * Millisecond), Math.Min(_timeouts.Next, _lingering.Next));
            var count = Kernel.Wait(_epoll, events, MaxEvents, Math.Max(0, next - Now()));
            if (count < 0 && Errno != Kernel.Eintr) throw new IOException($"epoll_pwait2: {Reason(Errno)}");
            for (var i = 0; i < count; i++)
            {
                var e = events + i * Kernel.EventSize;
                var data = *(ulong*)(e + Kernel.EventData);
                var lane = _lanes[(int)(uint)data];
                if (lane.Fd >= 0 && lane.Version == (uint)(data >> 32)) Serve(lane, *(uint*)e);
            }
        }

        long Due(long k) => !isClosedLoop ? _start + (long)(k * period) : _free.Count > 0 ? _start : long.MaxValue;
    }

    private void Ask(long k, long scheduled, long now)
    {
        Counts.Requests++;
        if (Options.ClosedLoop is null) _lag.Record((now - scheduled) / 1000);
        if (Options.Mode == LoadMode.Fresh)
        {
            var target = (int)(k % _addresses.Length);
            if (!_free.TryPop(out var lane))
            {
                CountFailure(Failure.Overrun, target, scheduled, $"{_lanes.Length} connections were open already");
                return;
            }
            lane.Target = target;
            BeginRequest(lane, _requests[target], scheduled, now);
            return;
        }
        var turn = _scheduled[(int)(k % _scheduled.Count)];
        if (turn.Backlog.Count >= _maxBacklog)
        {
            CountFailure(Failure.Overrun, turn.Target, scheduled, $"{_maxBacklog} requests waited for the connection already");
            return;
        }
        turn.Backlog.Enqueue(scheduled);
        Next(turn, now);
    }

    /// <summary>The next thing a lane has to do, if it is at leisure.</summary>
    private void Next(Lane lane, long now)
    {
        if (lane.Work == Work.Echo)
        {
            NextFrame(lane, now);
        }
        else if (lane is { Work: Work.Keepalive, Phase: Phase.Free or Phase.Idle or Phase.Closing }
            && lane.Backlog.TryDequeue(out var scheduled))
        {
            if (lane.Phase == Phase.Closing) Close(lane); // its response is complete: the next request does not wait for a FIN
            BeginRequest(lane, _requests[lane.Target], scheduled, now);
        }
    }

    private Work WorkOf(int index) => Options.Mode switch
    {
        LoadMode.Fresh => Work.Fresh,
        LoadMode.Keepalive => Work.Keepalive,
        LoadMode.Long => Options.Long switch
        {
            LongTraffic.Echo => Work.Echo,
            LongTraffic.Download => Work.Download,
            LongTraffic.Both => index % 2 == 0 ? Work.Echo : Work.Download,
        },
    };

    private static string ConnectionHeader(LoadMode mode) => mode switch
    {
        LoadMode.Fresh => "Connection: close",
        LoadMode.Keepalive => "Connection: keep-alive",
        LoadMode.Long => "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                         + "Sec-WebSocket-Key: ZmxpcGxvYWQgZWNobyAgIA==",
    };

    private byte[] RequestBytes(IPEndPoint target, string path, string connection) => Encoding.UTF8.GetBytes(
        $"GET {path} HTTP/1.1\r\nHost: {Options.Host ?? target.ToString()}\r\nUser-Agent: flipload\r\n{connection}\r\n\r\n");

    private static int Errno => System.Runtime.InteropServices.Marshal.GetLastPInvokeError();

    private static string Reason(int errno) => System.Runtime.InteropServices.Marshal.GetPInvokeErrorMessage(errno);

    private static long Now() => Stopwatch.GetTimestamp(); // CLOCK_MONOTONIC, in nanoseconds on Linux

    private static long Nanoseconds(TimeSpan span) => span.Ticks * TimeSpan.NanosecondsPerTick;
}
