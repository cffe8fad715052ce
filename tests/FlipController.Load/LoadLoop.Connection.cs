using System.Globalization;

namespace FlipController.Load;

// A connection's life: opened, served as the kernel says, ended by the server, broken, late, or closed in good order.
internal sealed unsafe partial class LoadLoop
{
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
        if (Kernel.Watch(_epoll, fd, (ulong)lane.Version << 32 | (uint)lane.Index) != 0)
            Fail(lane, Failure.Other, $"epoll_ctl: {Reason(Errno)}");
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
            fixed (byte* data = lane.Request)
                sent = Kernel.send(lane.Fd, data + lane.Sent, (nuint)(lane.Request.Length - lane.Sent), Kernel.MsgNosignal);
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
}
