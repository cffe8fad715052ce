using System.Globalization;

namespace FlipController.Load;

// What is said of a run afterwards.
internal sealed unsafe partial class LoadLoop
{
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
            Options.Mode, [.. Options.Targets.Select(t => t.ToString())], Options.ClosedLoop is null ? Options.Rate : 0, seconds, Counts.Requests, Counts.Ok, f.Sum(),
            f[(int)Failure.Refused], f[(int)Failure.Reset], f[(int)Failure.TimedOut], f[(int)Failure.Truncated],
            f[(int)Failure.WrongContent], f[(int)Failure.WrongStatus], f[(int)Failure.Overrun], f[(int)Failure.PortsExhausted],
            f[(int)Failure.Other], Counts.Raced, Counts.Reconnected, Counts.LateResets, Counts.Connections, Counts.BytesReceived,
            _latency.Read(), _connect.Read(), _lag.Read(), cpu, _servedBy.Read(_start), [.. _samples]);
    }
}
