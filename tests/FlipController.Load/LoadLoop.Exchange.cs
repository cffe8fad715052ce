namespace FlipController.Load;

// What goes over a lane's connection: requests and their responses, echoed frames, downloads.
internal sealed unsafe partial class LoadLoop
{
    private const int FrameBytes = 64;

    private void BeginRequest(Lane lane, byte[] request, long scheduled, long now)
    {
        lane.Request = request;
        lane.Scheduled = scheduled;
        lane.Sent = 0;
        lane.Retried = false;
        lane.Reader.Begin();
        lane.Check.Begin();
        if (lane.Phase == Phase.Idle)
        {
            lane.Reused = true;
            _timeouts.Start(lane, now);
            SetPhase(lane, Phase.Exchanging);
            Send(lane);
        }
        else
        {
            Open(lane, now);
        }
    }

    private void TakeResponse(Lane lane, ReadOnlySpan<byte> data)
    {
        var used = lane.Reader.Feed(data, lane.Check, _servedBy);
        if (lane.Reader.Malformed is { } why)
        {
            Fail(lane, Failure.Other, why);
        }
        else if (lane.Reader.Done)
        {
            Complete(lane);
            if (used < data.Length && lane.Fd >= 0) Take(lane, data[used..]);
        }
        else if (lane.Work == Work.Download)
        {
            _timeouts.Start(lane, Now());
        }
    }

    private void Complete(Lane lane)
    {
        var (now, reader) = (Now(), lane.Reader);
        if (reader.ServedBy.Length > 0) _servedBy.Count(reader.ServedBy, lane.Scheduled);
        if (lane.Work == Work.Echo)
        {
            if (reader.Status != 101)
            {
                Fail(lane, Failure.WrongStatus, $"status {reader.Status} to the upgrade");
                return;
            }
            _timeouts.Stop(lane);
            lane.Upgraded = true;
            SetPhase(lane, Phase.Idle);
            Leisure(lane);
            return;
        }

        if (Options.Status is { } wanted ? reader.Status != wanted : reader.Status is < 200 or > 299)
            CountFailure(Failure.WrongStatus, lane.Target, lane.Scheduled, $"status {reader.Status}");
        else if (lane.Check.Verdict() is { } wrong)
            CountFailure(Failure.WrongContent, lane.Target, lane.Scheduled, wrong);
        else
            CountOk(lane, now);

        if (lane.Work == Work.Fresh)
        {
            Linger(lane, halfClose: false);
            return;
        }
        if (reader.Closes)
        {
            Counts.Reconnected++;
            Linger(lane, halfClose: false);
            return;
        }
        _timeouts.Stop(lane);
        SetPhase(lane, Phase.Idle);
        Leisure(lane);
    }

    private void CountOk(Lane lane, long now)
    {
        Counts.Ok++;
        // A download takes as long as it was told to: its time says nothing, that it came whole does.
        if (lane.Work != Work.Download) _latency.Record((now - lane.Scheduled) / 1000);
    }

    // ---- echo

    private void NextFrame(Lane lane, long now)
    {
        if (lane.Phase == Phase.Free && (lane.Backlog.Count > 0 || !lane.Opened))
        {
            lane.Request = _requests[lane.Target];
            lane.Scheduled = lane.Backlog.TryPeek(out var first) ? first : now;
            lane.Reader.Begin();
            Open(lane, now);
        }
        else if (lane is { Phase: Phase.Idle, Upgraded: true } && lane.Backlog.TryDequeue(out lane.Scheduled))
        {
            if (lane.Request == _requests[lane.Target]) lane.Request = new byte[FrameBytes];
            Content.Fill(lane.Request, Seed(lane), lane.Frames * FrameBytes);
            lane.Frames++;
            lane.Sent = lane.FrameReceived = 0;
            _timeouts.Start(lane, now);
            SetPhase(lane, Phase.Echoing);
            Send(lane);
        }
    }

    private void TakeEcho(Lane lane, ReadOnlySpan<byte> data)
    {
        if (lane.FrameReceived + data.Length > FrameBytes || !data.SequenceEqual(lane.Request.AsSpan(lane.FrameReceived, data.Length)))
        {
            Fail(lane, Failure.WrongContent, $"frame {lane.Frames} came back changed");
            return;
        }
        lane.FrameReceived += data.Length;
        if (lane.FrameReceived < FrameBytes) return;
        CountOk(lane, Now());
        _timeouts.Stop(lane);
        SetPhase(lane, Phase.Idle);
        Leisure(lane);
    }

    // ---- downloads

    // As long as what is left of the run, and no new one for the last moment of it. One that failed is begun again, a second
    // after it was last begun at the earliest: a dead server is not to be hammered.
    private void StartDownload(Lane lane, long now)
    {
        if (_end - now < Second / 2 && lane.Opened || _stopped || (lane.Opened && now - lane.Scheduled < Second)) return;
        var length = Math.Max(1, (long)(Options.DownloadRateBytes * 0.9 * (_end - now) / Second));
        Counts.Requests++;
        lane.Check = new BytesCheck(length, Seed(lane));
        var path = $"/bytes/{length}?seed={Seed(lane)}&rate={Options.DownloadRateBytes}";
        BeginRequest(lane, RequestBytes(Options.Targets[lane.Target], path, "Connection: keep-alive"), now, now);
    }

    private static ulong Seed(Lane lane) => (ulong)lane.Index + 1;
}
