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
            ? options.MaxInFlight ?? (int)Math.Clamp(Math.Ceiling(options.Rate * (options.Timeout.TotalSeconds + 0.5)), 64, 16_000)
            : options.Connections];
        for (var i = 0; i < _lanes.Length; i++)
        {
            var lane = _lanes[i] = new Lane(i, WorkOf(i), options.Expect.NewCheck()) { Target = i % _addresses.Length };
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
        var total = _scheduled.Count == 0 ? 0 : (long)Math.Round(Options.Rate * Options.Duration.TotalSeconds);
        long asked = 0, look = 0;
        if (Options.Mode == LoadMode.Long)
        {
            foreach (var lane in _scheduled) _ready.Enqueue(lane); // upgraded at once, not when the first frame is due
        }
        while (true)
        {
            var now = Now();
            if (_stopped) (total, _end) = (asked, Math.Min(_end, now));
            // At most a few before the events are looked at, or catching up after a pause would delay answers already here.
            for (var i = 0; i < 32 && asked < total && Due(asked) <= now; i++, asked++) Ask(asked, Due(asked), now);
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

        long Due(long k) => _start + (long)(k * period);
    }

    private void Ask(long k, long scheduled, long now)
    {
        Counts.Requests++;
        _lag.Record((now - scheduled) / 1000);
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
        else if (lane.Work == Work.Keepalive && lane.Phase is Phase.Free or Phase.Idle or Phase.Closing && lane.Backlog.TryDequeue(out var scheduled))
        {
            if (lane.Phase == Phase.Closing) Close(lane); // its response is complete: the next request does not wait for a FIN
            BeginRequest(lane, _requests[lane.Target], scheduled, now);
        }
    }

    // ---- a connection's life

    private void Open(Lane lane, long now)
    {
        var address = _addresses[lane.Target];
        (lane.Sent, lane.Reused, lane.HalfClosed, lane.Upgraded, lane.Opened) = (0, false, false, false, true);
        lane.Frames = 0;
        lane.FrameReceived = 0;
        _timeouts.Start(lane, now);
        SetPhase(lane, Phase.Connecting);
        var fd = Kernel.OpenTcp(address.Family);
        if (fd < 0)
        {
            Fail(lane, Failure.Other, $"socket: {Reason(Errno)}");
            return;
        }
        lane.Fd = fd;
        lane.Version++;
        _open++;
        int result;
        fixed (byte* a = address.Buffer.Span) result = Kernel.connect(fd, a, address.Size);
        if (result != 0 && Errno is not (Kernel.Einprogress or Kernel.Eintr))
        {
            FailBecause(lane, Errno);
            return;
        }
        // Watched after connect: a socket that is neither connecting nor connected counts as hung up.
        if (Kernel.Watch(_epoll, fd, (ulong)lane.Version << 32 | (uint)lane.Index) != 0) Fail(lane, Failure.Other, $"epoll_ctl: {Reason(Errno)}");
    }

    private void Serve(Lane lane, uint events)
    {
        const uint Ends = Kernel.EpollRdhup | Kernel.EpollHup | Kernel.EpollErr;
        if (lane.Phase == Phase.Connecting)
        {
            if ((events & (Kernel.EpollErr | Kernel.EpollHup)) != 0 && Kernel.SocketError(lane.Fd) is var error and not 0)
            {
                FailBecause(lane, error);
                return;
            }
            if ((events & Kernel.EpollOut) == 0) return;
            Counts.Connections++;
            _connect.Record((Now() - lane.Scheduled) / 1000);
            SetPhase(lane, Phase.Exchanging);
            Send(lane);
        }
        else if ((events & Kernel.EpollOut) != 0 && lane.Sent < lane.Request.Length)
        {
            Send(lane);
        }
        if (lane.Fd >= 0 && (events & (Kernel.EpollIn | Ends)) != 0) Receive(lane, (events & Ends) != 0);
    }

    private void Send(Lane lane)
    {
        while (lane.Sent < lane.Request.Length)
        {
            nint sent;
            fixed (byte* data = lane.Request) sent = Kernel.send(lane.Fd, data + lane.Sent, (nuint)(lane.Request.Length - lane.Sent), Kernel.MsgNosignal);
            if (sent >= 0) lane.Sent += (int)sent;
            else if (Errno == Kernel.Eagain) return; // an edge will come
            else if (Errno != Kernel.Eintr)
            {
                Broken(lane, Errno);
                return;
            }
        }
    }

    /// <param name="ending">The kernel said that an end or an error is there: read up to it. Otherwise a short read was the last.</param>
    private void Receive(Lane lane, bool ending)
    {
        var version = lane.Version;
        fixed (byte* buffer = _buffer)
        {
            while (lane.Fd >= 0 && lane.Version == version)
            {
                var count = Kernel.recv(lane.Fd, buffer, (nuint)_buffer.Length, 0);
                if (count > 0)
                {
                    Counts.BytesReceived += count;
                    Take(lane, new ReadOnlySpan<byte>(buffer, (int)count));
                    if (!ending && count < _buffer.Length) return;
                }
                else if (count == 0)
                {
                    Ended(lane);
                    return;
                }
                else if (Errno == Kernel.Eagain)
                {
                    return;
                }
                else if (Errno != Kernel.Eintr)
                {
                    Broken(lane, Errno);
                    return;
                }
            }
        }
    }

    private void Take(Lane lane, ReadOnlySpan<byte> data)
    {
        switch (lane.Phase)
        {
            case Phase.Exchanging:
                TakeResponse(lane, data);
                break;
            case Phase.Echoing:
                TakeEcho(lane, data);
                break;
            case Phase.Idle:
                Unasked(lane, Failure.WrongContent, $"{data.Length} bytes that nobody asked for");
                break;
            case Phase.Closing: // more than the response: its length was checked, this much is the server's affair
            case Phase.Connecting:
            case Phase.Free:
                break;
        }
    }

    /// <summary>The server ended the connection in good order.</summary>
    private void Ended(Lane lane)
    {
        switch (lane.Phase)
        {
            case Phase.Closing:
                Close(lane);
                Leisure(lane);
                break;
            case Phase.Idle when lane.Upgraded:
                Unasked(lane, Failure.Truncated, "the upgraded connection was ended by the server");
                break;
            case Phase.Idle:
                Counts.Reconnected++;
                Close(lane);
                Leisure(lane);
                break;
            case Phase.Exchanging when lane.Reader.EndsHere():
                Complete(lane);
                if (lane.Fd >= 0) Ended(lane); // now Closing
                break;
            case Phase.Exchanging when MayRetry(lane):
                Retry(lane);
                break;
            case Phase.Echoing:
                Fail(lane, Failure.Truncated, "the upgraded connection ended with a frame outstanding");
                break;
            case Phase.Exchanging:
            case Phase.Connecting:
            case Phase.Free:
                Fail(lane, Failure.Truncated, $"the connection ended {Progress(lane)}");
                break;
        }
    }

    /// <summary>The kernel has no hope for the connection.</summary>
    private void Broken(Lane lane, int errno)
    {
        switch (lane.Phase)
        {
            case Phase.Closing:
                if (errno == Kernel.Econnreset) Counts.LateResets++;
                Close(lane);
                Leisure(lane);
                break;
            case Phase.Idle:
                Unasked(lane, Classify(errno), $"the idle connection broke: {Reason(errno)}");
                break;
            // EPIPE is a reset that came after a FIN: the close crossed our request.
            case Phase.Exchanging when errno == Kernel.Epipe && MayRetry(lane):
                Retry(lane);
                break;
            case Phase.Exchanging:
            case Phase.Echoing:
            case Phase.Connecting:
            case Phase.Free:
                FailBecause(lane, errno);
                break;
        }
    }

    private static bool MayRetry(Lane lane) => lane is { Reused: true, Retried: false, Reader.Started: false };

    private void Retry(Lane lane)
    {
        Counts.Raced++;
        Close(lane);
        lane.Retried = true;
        lane.Reader.Begin();
        lane.Check.Begin();
        Open(lane, Now());
    }

    private void TimeOut(Lane lane) => Fail(lane, Failure.TimedOut, string.Create(CultureInfo.InvariantCulture,
        $"nothing for {Options.Timeout.TotalSeconds:0.###} s {Progress(lane)}"));

    private void Linger(Lane lane, bool halfClose)
    {
        SetPhase(lane, Phase.Closing);
        _lingering.Start(lane, Now());
        if (halfClose) HalfClose(lane);
    }

    // A server that does not close by itself is told to; one that still does not is left.
    private void StopLingering(Lane lane, long now)
    {
        if (!lane.HalfClosed)
        {
            HalfClose(lane);
            _lingering.Start(lane, now);
            return;
        }
        Close(lane);
        Leisure(lane);
    }

    private static void HalfClose(Lane lane)
    {
        lane.HalfClosed = true;
        _ = Kernel.shutdown(lane.Fd, Kernel.ShutWr);
    }

    private void Close(Lane lane)
    {
        lane.Waits?.Stop(lane);
        if (lane.Fd >= 0)
        {
            _ = Kernel.close(lane.Fd); // leaves the epoll set by itself
            lane.Fd = -1;
            _open--;
        }
        SetPhase(lane, Phase.Free);
    }

    private void Leisure(Lane lane)
    {
        if (lane.Work == Work.Fresh) _free.Push(lane);
        else if (lane.Work != Work.Download) _ready.Enqueue(lane);
    }

    private void SetPhase(Lane lane, Phase phase)
    {
        if (IsBusy(lane.Phase)) _busy--;
        lane.Phase = phase;
        if (IsBusy(phase)) _busy++;

        static bool IsBusy(Phase p) => p is Phase.Connecting or Phase.Exchanging or Phase.Echoing;
    }

    // ---- the account

    private void Fail(Lane lane, Failure failure, string message)
    {
        // A handshake is not a request: what fails with it is the frame that waits for it, or else the connection itself.
        if (lane.Work == Work.Echo && lane.Phase != Phase.Echoing && !lane.Backlog.TryDequeue(out lane.Scheduled))
        {
            lane.Scheduled = Now();
            Counts.Requests++;
        }
        CountFailure(failure, lane.Target, lane.Scheduled, message);
        Close(lane);
        lane.Retried = false;
        Leisure(lane);
    }

    private void FailBecause(Lane lane, int errno) => Fail(lane, Classify(errno), $"{Reason(errno)} {Progress(lane)}");

    /// <summary>A connection failed that had no request outstanding: counted as a request of its own.</summary>
    private void Unasked(Lane lane, Failure failure, string message)
    {
        if (lane.Work != Work.Echo)
        {
            lane.Scheduled = Now();
            Counts.Requests++;
        }
        Fail(lane, failure, message);
    }

    private void CountFailure(Failure failure, int target, long scheduled, string message)
    {
        Counts.Failures[(int)failure]++;
        if (_samples.Count < MaxSamples && _samples.Count(s => s.Failure == failure) < MaxSamples / 4)
            _samples.Add(new FailureSample((scheduled - _start) / 1e6, failure, Options.Targets[target].ToString(), message));
    }

    private static string Progress(Lane lane) => lane.Phase switch
    {
        Phase.Connecting => "while connecting",
        Phase.Exchanging when !lane.Reader.Started => "before any byte of the response",
        Phase.Exchanging when lane.Reader.Status == 0 => "in the head of the response",
        Phase.Exchanging => $"after {lane.Reader.BodyBytes} bytes of the body",
        Phase.Echoing => "with a frame outstanding",
        Phase.Idle or Phase.Closing or Phase.Free => "between requests",
    };

    private static Failure Classify(int errno) => errno switch
    {
        Kernel.Econnrefused => Failure.Refused,
        Kernel.Econnreset or Kernel.Epipe => Failure.Reset,
        Kernel.Etimedout => Failure.TimedOut,
        Kernel.Eaddrnotavail => Failure.PortsExhausted,
        _ => Failure.Other,
    };

    private LoadResult Result(double seconds, double cpu)
    {
        var f = Counts.Failures;
        return new LoadResult(
            Options.Mode, [.. Options.Targets.Select(t => t.ToString())], Options.Rate, seconds, Counts.Requests, Counts.Ok, f.Sum(),
            f[(int)Failure.Refused], f[(int)Failure.Reset], f[(int)Failure.TimedOut], f[(int)Failure.Truncated],
            f[(int)Failure.WrongContent], f[(int)Failure.WrongStatus], f[(int)Failure.Overrun], f[(int)Failure.PortsExhausted],
            f[(int)Failure.Other], Counts.Raced, Counts.Reconnected, Counts.LateResets, Counts.Connections, Counts.BytesReceived,
            _latency.Read(), _connect.Read(), _lag.Read(), cpu, _servedBy.Read(_start), [.. _samples]);
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
        LoadMode.Long => "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ZmxpcGxvYWQgZWNobyAgIA==",
    };

    private byte[] RequestBytes(IPEndPoint target, string path, string connection) =>
        Encoding.UTF8.GetBytes($"GET {path} HTTP/1.1\r\nHost: {Options.Host ?? target.ToString()}\r\nUser-Agent: flipload\r\n{connection}\r\n\r\n");

    private static int Errno => System.Runtime.InteropServices.Marshal.GetLastPInvokeError();

    private static string Reason(int errno) => System.Runtime.InteropServices.Marshal.GetPInvokeErrorMessage(errno);

    private static long Now() => Stopwatch.GetTimestamp(); // CLOCK_MONOTONIC, in nanoseconds on Linux

    private static long Nanoseconds(TimeSpan span) => span.Ticks * TimeSpan.NanosecondsPerTick;
}
