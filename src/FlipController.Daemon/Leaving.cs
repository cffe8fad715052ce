using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Linux.Haproxy;

namespace FlipController.Daemon;

/// <summary>
/// One generation on its way out: how far it is, how many are still connected over time, and the session through which its HAProxy
/// can still be asked. Any thread may look; one at a time moves it on.
/// </summary>
internal sealed class Leaving
{
    private const int MostSamples = 600;
    private readonly Lock _lock = new();
    private readonly PairEdge _edge;
    private readonly List<DrainSample> _samples = [];
    private readonly List<DrainMark> _marks = [];
    private TimeSpan _spacing = TimeSpan.FromSeconds(1);
    private DateTimeOffset _began;
    private LeavingStatus _status = new("warm", null, null, null, 0);
    private DateTimeOffset? _ended;
    private bool _left;
    private readonly Lock _saving = new();

    public Leaving(PairEdge edge, Generation generation, int? flip)
    {
        (_edge, Generation, Flip, _began) = (edge, generation, flip, edge.Now);
        // A controller before this one saw how it began.
        if (edge.Drains.Read(generation.Number) is not { Ended: null } before) return;
        (_began, Flip) = (before.Began, before.Flip);
        _samples.AddRange(before.Samples);
        _marks.AddRange(before.Marks);
        // The mark is the last that is done about it; only what another process of ours has noted is looked at again.
        IsStopped = before.Marks.Any(m => m.Kind == "retired") && (Session is not null || !PairEdge.Listens(generation));
        _status = _status with { Closed = before.Closed, AtBegin = before.Samples.IsEmpty ? null : before.Samples[0].Connections };
    }

    public Generation Generation { get; }

    public int? Flip { get; }

    /// <inheritdoc cref="DrainSessions.Find"/>
    public AdminSession? Session => _edge.Sessions.Find(Generation.Number);

    /// <summary>It has been told to stop listening.</summary>
    public bool IsStopped { get; set; }

    /// <summary>Whoever tells it to stop.</summary>
    public SemaphoreSlim Turn { get; } = new(1, 1);

    public LeavingStatus Status
    {
        get
        {
            lock (_lock) return _status;
        }
    }

    /// <summary>How many were connected when it was last looked at; null: nobody has looked.</summary>
    public int? LastCount
    {
        get
        {
            lock (_lock) return _samples.Count == 0 ? null : _samples[^1].Connections;
        }
    }

    public void Enter(
        string step, DateTimeOffset? until, string? then, ImmutableSortedDictionary<string, DateTimeOffset>? deadlines = null)
    {
        bool isNew;
        lock (_lock)
        {
            isNew = _status.Step != step;
            _status = _status with { Step = step, Until = until, Then = then, Deadlines = deadlines };
        }
        if (!isNew) return;
        _edge.Log.LogInformation(new EventId(150, "Leaving"), "pair {Pair}: {Generation} is {Step} with {Count} connections",
            _edge.Name, Generation, step, LastCount?.ToString() ?? "unknown");
        Tell();
    }

    public void CountClosed(int connections)
    {
        lock (_lock) _status = _status with { Closed = _status.Closed + connections };
    }

    public void Mark(string kind, string text)
    {
        lock (_lock) _marks.Add(new DrainMark(Seconds(_edge.Now), kind, text));
        Save();
    }

    /// <summary>Takes what is seen now into the curve, whose points grow further apart the longer it gets.</summary>
    public void Sample(int connections)
    {
        lock (_lock)
        {
            double at = Seconds(_edge.Now);
            _status = _status with { AtBegin = _status.AtBegin ?? connections };
            var sample = new DrainSample(at, connections);
            // The last point is always the newest look; it becomes a lasting one once it is far enough from the one before it.
            if (_samples.Count >= 2 && at - _samples[^2].AtS < _spacing.TotalSeconds) _samples[^1] = sample;
            else _samples.Add(sample);
            if (_samples.Count <= MostSamples) return;
            for (int i = _samples.Count - 2; i > 0; i -= 2) _samples.RemoveAt(i);
            _spacing *= 2;
        }
    }

    public void Tell()
    {
        LeavingStatus status = Status;
        string left = status.Until is { } until && until > _edge.Now ? $", {Durations.Format(TimeSpan.FromSeconds(Math.Ceiling((until - _edge.Now).TotalSeconds)))} left" : "";
        int count = LastCount ?? 0;
        _edge.Notices.Post(new PairNotice(
            _edge.Now, _edge.Name, "drain", status.Step, $"{Generation} is {status.Step}: {count} connections{left}", null,
            new DrainLook(Generation.Number, Generation.Slot.Name(), count, status)));
    }

    /// <summary>conntrack's count is kept up by events from now on, until it has left.</summary>
    public void Follow()
    {
        lock (_lock)
        {
            if (!_left) _edge.Ledger?.Follow(_edge.Mark.ValueOf(Generation.Tag), _edge.Mark.Mask, Generation.Since);
        }
    }

    /// <summary>It leaves no more, or its next owner takes it up.</summary>
    public void Unfollow()
    {
        lock (_lock)
        {
            _left = true;
            _edge.Ledger?.Unfollow(_edge.Mark.ValueOf(Generation.Tag));
        }
    }

    /// <summary>Its process is gone: told once, however many have seen it.</summary>
    public void End()
    {
        Sample(0);
        lock (_lock)
        {
            if (_ended is not null) return;
            _ended = _edge.Now;
            _marks.Add(new DrainMark(Seconds(_edge.Now), "ended", "its process is gone"));
        }
        Save();
    }

    public DrainCurve Curve()
    {
        lock (_lock)
            return new DrainCurve(
                _edge.Name, Generation.Number, Generation.Slot.Name(), Flip, _began, _ended, _status.Closed, [.. _samples], [.. _marks]);
    }

    /// <summary>What cannot be written is only not remembered.</summary>
    public void Save()
    {
        try
        {
            // In turns: the last one written is the newest.
            lock (_saving) _edge.Drains.Save(Curve());
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _edge.Log.LogWarning("pair {Pair}: how {Generation} leaves cannot be written down: {Why}", _edge.Name, Generation, e.Message);
        }
    }

    private double Seconds(DateTimeOffset at) => Math.Round(Math.Max(0, (at - _began).TotalSeconds), 3);

    /// <inheritdoc cref="DrainSessions.LetGoAsync"/>
    public ValueTask LetGoAsync() => _edge.Sessions.LetGoAsync(Generation.Number);
}
