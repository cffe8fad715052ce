namespace FlipController.Load;

internal enum Work
{
    Fresh,
    Keepalive,
    Echo,
    Download,
}

internal enum Phase
{
    /// <summary>No connection.</summary>
    Free,
    Connecting,

    /// <summary>A request is on its way or its response is.</summary>
    Exchanging,

    /// <summary>A connection with nothing outstanding.</summary>
    Idle,

    /// <summary>An upgraded connection with a frame outstanding.</summary>
    Echoing,

    /// <summary>The response is complete; the server's FIN is awaited, so that nobody resets and TIME_WAIT is not on our side.</summary>
    Closing,
}

/// <summary>One connection at a time, and what it is doing. Made once and used again.</summary>
internal sealed class Lane(int index, Work work, BodyCheck check)
{
    public readonly int Index = index;
    public readonly Work Work = work;
    public readonly ResponseReader Reader = new();
    public BodyCheck Check = check;

    public Phase Phase;
    public int Fd = -1;
    public uint Version; // a new one for every connection: an event of the one before is told by it
    public int Target;
    public long Scheduled;

    public byte[] Request = [];
    public int Sent;
    public bool Reused, Retried, HalfClosed, Upgraded, Opened;

    /// <summary>Scheduled times of requests that wait for this connection.</summary>
    public readonly Queue<long> Backlog = new();
    public long Frames; // sent on this connection
    public int FrameReceived;

    // Where it stands among those that wait equally long; see Deadlines.
    public Deadlines? Waits;
    public Lane? Before, After;
    public long Deadline;
}

/// <summary>
/// Lanes that all wait for the same span: in the order they began is in the order they end, so a linked list is a timer queue
/// with every operation in constant time.
/// </summary>
internal sealed class Deadlines(long nanoseconds)
{
    private Lane? _first, _last;

    public long Next => _first?.Deadline ?? long.MaxValue;

    public Lane? Expired(long now) => _first is { } lane && lane.Deadline <= now ? lane : null;

    public void Start(Lane lane, long now)
    {
        lane.Waits?.Stop(lane);
        lane.Waits = this;
        lane.Deadline = now + nanoseconds;
        lane.Before = _last;
        if (_last is null) _first = lane;
        else _last.After = lane;
        _last = lane;
    }

    public void Stop(Lane lane)
    {
        if (lane.Waits != this) return;
        if (lane.Before is null) _first = lane.After;
        else lane.Before.After = lane.After;
        if (lane.After is null) _last = lane.Before;
        else lane.After.Before = lane.Before;
        lane.Waits = null;
        lane.Before = lane.After = null;
    }
}
