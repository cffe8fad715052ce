using System.Collections.Concurrent;
using System.Collections.Immutable;
using System.Net;
using System.Threading.Channels;
using FlipController.Core;
using FlipController.Core.Keepalived;
using FlipController.Core.Machine;
using FlipController.Daemon.Peer;
using FlipController.Linux.Keepalived;
using FlipController.Linux.State;

namespace FlipController.Daemon.Keepalived;

/// <summary>
/// This node among two: what keepalived says of it, what follows for the pairs, and what keepalived is told in return.
/// <code>
///   FIFO, notify ──► VrrpBoard ──► RoleRule ──► each pair: may a changed file flip by itself?
///   pairs' health, maintenance, handover ──► NodePriority ──► track file, link ──► keepalived
/// </code>
/// </summary>
internal sealed class Node : IAsyncDisposable
{
    private static readonly TimeSpan s_look = TimeSpan.FromSeconds(1), s_askFor = TimeSpan.FromSeconds(3);
    private const string OfMaintenance = "maintenance", OfPairs = "pair ", OfStart = "the daemon has only just started, and it was so before";

    private readonly Configuration _configuration;
    private readonly TimeProvider _time;
    private readonly ILogger _log;
    private readonly Maintenance _maintenance;
    private readonly VrrpBoard _board;
    private readonly NotifyFifo? _fifo;
    private readonly OwnEvents _events;
    private readonly Channel<(VrrpEvent Event, VrrpSource Source, DateTimeOffset At)> _heard = Channel.CreateUnbounded<(VrrpEvent, VrrpSource, DateTimeOffset)>(
        new UnboundedChannelOptions { SingleReader = true });
    private readonly SemaphoreSlim _wake = new(0);
    private readonly ConcurrentDictionary<string, (string Content, PeerProof Proof)> _proofs = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, bool> _healthy = new(StringComparer.Ordinal);
    private readonly CancellationTokenSource _stop = new();
    private Task _work = Task.CompletedTask;
    private Func<IEnumerable<Pair>> _pairs = () => [];

    public Node(Configuration configuration, TimeProvider time, ILogger log)
    {
        (_configuration, _time, _log) = (configuration, time, log);
        Priority = new NodePriority(configuration.Keepalived, log);
        _maintenance = new Maintenance(configuration.State);
        _board = new VrrpBoard(configuration.State, log);
        _events = new OwnEvents(configuration.Events is { } events ? new OwnFifo(events.Fifo, configuration.Control.Group) : null, log);
        if (configuration.Keepalived?.Fifo is { } fifo)
            _fifo = new NotifyFifo(fifo, e => _heard.Writer.TryWrite((e, VrrpSource.Fifo, time.GetUtcNow())), what => log.LogWarning(new EventId(206, "Fifo"), "{What}", what));
        Priority.Changed += Wake;
    }

    /// <summary>What keepalived is told of this node.</summary>
    public NodePriority Priority { get; }

    /// <summary>Asks the peer whether it has proven these files; the daemon's own when there is a channel.</summary>
    public Func<string, string, CancellationToken, Task<PeerProof>> AskPeer { get; set; } =
        (_, _, _) => Task.FromResult(new PeerProof(false, "is not configured"));

    public ImmutableArray<VrrpStanding>? Standings => _configuration.Keepalived is null ? null : _board.All;

    public NodeStatus? Status => _configuration.Keepalived is null ? null : Priority.Status(_maintenance.Status, _fifo?.Trouble);

    /// <summary>Looked at now: whoever asks may do so without a keepalived in the configuration, and the last look is up to a second old.</summary>
    public HealthReport Health
    {
        get
        {
            ImmutableArray<string> reasons =
            [
                .. Priority.Reasons.Where(r => !r.StartsWith(OfPairs, StringComparison.Ordinal)), .. _pairs().Where(p => !p.IsHealthy).Select(p => Unhealthy(p.Name)),
            ];
            return new HealthReport(reasons.IsEmpty, reasons);
        }
    }

    /// <summary>
    /// Before anything else of the daemon: what was known, and what keepalived goes by until the pairs have been looked at. A pair of
    /// which something lives counts as healthy so long, or every restart of the daemon would move the addresses.
    /// </summary>
    public void Begin()
    {
        if (_configuration.Keepalived is null) return;
        _maintenance.Load();
        _board.Load();
        TakeUpLeft();
        PairKeepalivedOptions[] follows = [.. _configuration.Pairs.Values.Select(p => p.Keepalived).OfType<PairKeepalivedOptions>().DistinctBy(k => (k.Instance, k.Group))];
        // Of several it is not known which of them has which address.
        if (_configuration.Handover is { } handover && follows is [var one]) _board.LookAtAddresses(handover.Vips, one, _time.GetUtcNow());
        _board.Save();
        string[] dead = [.. _configuration.Pairs.Keys.Where(p => GenerationNote.Living(_configuration.Runtime, p).IsEmpty).Select(Unhealthy)];
        string? broken = null;
        bool isAway = _configuration.Handover is not null && new HandoverStore(_configuration.State).Read(out broken).Giving.IsLowered;
        if (broken is not null) _log.LogError(new EventId(180, "HandoverLost"), "{Broken}; `flipctl reset` removes what a handover may have left", broken);
        // What lowered it before may be known only later. Until then it stays so.
        Priority.Replace(_ => true, [.. dead, .. MaintenanceReason(), .. isAway ? [HandoverStore.Reason] : Array.Empty<string>(), .. Priority.IsToldLowered ? [OfStart] : Array.Empty<string>()]);
        Priority.Tell();
    }

    /// <summary>What `flipctl notify` has left while no daemon answered, be it that it runs and did not answer in time.</summary>
    private void TakeUpLeft() => EventSpool.TakeUp(_configuration.State, (e, at) => _board.HearLeft(e, at), what => _log.LogWarning(new EventId(207, "Spool"), "{What}", what));

    /// <summary>From now on, for as long as the daemon runs. Whoever has a reason of his own to lower the node from before has named it by now.</summary>
    public void Run(Fleet fleet, PeerChannel? peer)
    {
        _pairs = () => fleet.Pairs;
        if (peer is not null)
        {
            AskPeer = (pair, content, stop) => AskAsync(peer.Client, pair, content, stop);
            peer.Server.On("proven", PeerJson.Default.ProvenAsk, PeerJson.Default.PeerProof, (ask, _) => Task.FromResult(Proven(ask)));
        }
        if (_configuration.Keepalived is null && _configuration.Events is null && _configuration.Pairs.Values.All(p => p.Hooks.Notify.IsEmpty)) return;
        _work = Task.WhenAll(
            _fifo?.RunAsync(_stop.Token) ?? Task.CompletedTask, Guarded(HearAsync), Guarded(LookAsync), Guarded(stop => WatchAsync(fleet.Notices, stop)), Guarded(AskAgainAsync));
    }

    /// <summary>Whether a changed file may flip this pair by itself, by what is known now; null: it may.</summary>
    public FlipRestraint? RestraintOf(PairOptions pair, PairState state)
    {
        if (pair.Keepalived is not { } follows || _configuration.Keepalived is null) return null;
        string? waiting = state.Pending is { Trigger: FlipTrigger.Files } wish ? wish.ContentSha256 : null;
        PeerProof? proof = waiting is not null && _proofs.TryGetValue(pair.Name, out var known) && known.Content == waiting ? known.Proof : null;
        return RoleRule.Of(follows, _board.StateOf(follows), Priority.IsLowered, waiting, proof);
    }

    /// <summary>From `flipctl notify`.</summary>
    /// <exception cref="RefusedException">keepalived is not listened to.</exception>
    public void Notify(VrrpEvent e)
    {
        if (_configuration.Keepalived is null)
            throw new RefusedException("keepalived is not listened to, as the configuration has no keepalived; the event was not kept");
        _heard.Writer.TryWrite((e, VrrpSource.Notify, _time.GetUtcNow()));
    }

    /// <exception cref="RefusedException">Nobody would be told.</exception>
    public NodeStatus SetMaintenance(MaintenanceRequest request)
    {
        if (!Priority.CanTell)
            throw new RefusedException("maintenance needs keepalived.track_file or keepalived.link, by which keepalived is told; nothing was changed");
        bool was = _maintenance.Status is not null;
        _maintenance.Set(request.On ? new MaintenanceStatus(was ? _maintenance.Status!.Since : _time.GetUtcNow(), request.Reason) : null);
        Priority.Replace(r => r.StartsWith(OfMaintenance, StringComparison.Ordinal), MaintenanceReason());
        if (was != request.On) Tell(request.On ? OwnState.Maintenance : OwnState.Normal);
        return Status!;
    }

    /// <summary>An event of the whole node: told of each of its pairs.</summary>
    public void Tell(OwnState state)
    {
        foreach (Pair pair in _pairs()) _events.Post(OwnEvent.Of(pair.Name, state), [pair.Options]);
    }

    private IEnumerable<string> MaintenanceReason() => _maintenance.Status is { } m ? [m.Reason is null ? OfMaintenance : $"{OfMaintenance}: {m.Reason}"] : [];

    private static string Unhealthy(string pair) => $"{OfPairs}{pair} has no healthy active side";

    private PeerProof Proven(ProvenAsk ask) => _pairs().FirstOrDefault(p => p.Name == ask.Pair) is { } pair
        ? pair.Proven(ask.Content) : new PeerProof(false, $"has no pair {ask.Pair}");

    private static async Task<PeerProof> AskAsync(PeerClient client, string pair, string content, CancellationToken stop)
    {
        try
        {
            return await client.AskAsync("proven", new ProvenAsk(pair, content), PeerJson.Default.ProvenAsk, PeerJson.Default.PeerProof, s_askFor, stop);
        }
        catch (FlipException e)
        {
            return new PeerProof(false, $"does not say whether it has proven them: {e.Message}");
        }
    }

    private void Wake()
    {
        if (_wake.CurrentCount == 0) _wake.Release();
    }

    /// <summary>A mistake of ours in one of them must not be silent, nor end the others.</summary>
    private async Task Guarded(Func<CancellationToken, Task> work)
    {
        while (!_stop.IsCancellationRequested)
        {
            try
            {
                await work(_stop.Token);
                return;
            }
            catch (OperationCanceledException) when (_stop.IsCancellationRequested)
            {
                return;
            }
            catch (Exception e) when (e is not OutOfMemoryException)
            {
                _log.LogError(new EventId(208, "Node"), e, "what follows from keepalived's states was interrupted by an error and goes on");
                await Task.Delay(s_look, _time, CancellationToken.None);
            }
        }
    }

    private async Task HearAsync(CancellationToken stop)
    {
        while (await _heard.Reader.WaitToReadAsync(stop))
        {
            while (_heard.Reader.TryRead(out var heard))
            {
                if (!_board.Hear(heard.Event, heard.At, heard.Source)) continue;
                _events.Post(OwnEvent.Of(heard.Event), _pairs().Select(p => p.Options).Where(o => Follows(o, heard.Event)));
            }
            _board.Save();
            Wake();
        }
    }

    private static bool Follows(PairOptions pair, VrrpEvent e) => pair.Keepalived is { } k && (e.Kind == VrrpKind.Group ? k.Group : k.Instance) == e.Name;

    private async Task LookAsync(CancellationToken stop)
    {
        while (true)
        {
            Pair[] pairs = [.. _pairs()];
            var unhealthy = new List<string>();
            foreach (Pair pair in pairs)
            {
                bool healthy = pair.IsHealthy;
                if (!healthy) unhealthy.Add(Unhealthy(pair.Name));
                // One that is being started for the first time has not failed.
                bool news = _healthy.TryGetValue(pair.Name, out bool was) ? was != healthy : healthy || pair.State.LastGood is not null;
                if (news)
                {
                    _healthy[pair.Name] = healthy;
                    _events.Post(OwnEvent.Of(pair.Name, healthy ? OwnState.Master : OwnState.Fault), [pair.Options]);
                }
            }
            Priority.Replace(r => r == OfStart || r.StartsWith(OfPairs, StringComparison.Ordinal), unhealthy);
            if (_configuration.Keepalived is not null)
            {
                Priority.Tell();
                TakeUpLeft();
                _board.Save();
            }
            foreach (Pair pair in pairs) pair.Restrain(RestraintOf(pair.Options, pair.State));
            await _wake.WaitAsync(s_look, stop);
        }
    }

    private async Task WatchAsync(NoticeBoard notices, CancellationToken stop)
    {
        await foreach (PairNotice notice in notices.WatchAsync(stop))
        {
            OwnState? told = notice switch
            {
                { Kind: "flip", Flip.Outcome: "done" } => OwnState.Switched,
                { Kind: "flip", Flip.Outcome: "returned" or "rolled-back" } => OwnState.Returned,
                { Kind: "flip", Flip.Outcome: "failed" } => OwnState.Failed,
                { Kind: "drained" } => OwnState.Drained,
                _ => null,
            };
            if (told is { } state && _pairs().FirstOrDefault(p => p.Name == notice.Pair) is { } pair) _events.Post(OwnEvent.Of(pair.Name, state), [pair.Options]);
            Wake();
        }
    }

    /// <summary>The peer is asked as long as something waits for its word.</summary>
    private async Task AskAgainAsync(CancellationToken stop)
    {
        while (true)
        {
            foreach (Pair pair in _pairs().Where(p => p.Options.Keepalived is { Role: KeepalivedRole.BackupFirst }))
            {
                if (pair.State is not { HeldBack: not null, Pending.ContentSha256: { } content }) continue;
                PeerProof proof = await AskPeer(pair.Name, content, stop);
                _proofs[pair.Name] = (content, proof);
                Wake();
            }
            await Task.Delay(s_look, _time, stop);
        }
    }

    public async ValueTask DisposeAsync()
    {
        Priority.Changed -= Wake;
        await _stop.CancelAsync();
        await _work;
        _board.Save();
        await _events.DisposeAsync();
        _stop.Dispose();
        _wake.Dispose();
    }
}
