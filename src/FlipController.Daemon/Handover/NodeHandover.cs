using System.Collections.Immutable;
using System.Net;
using FlipController.Core;
using FlipController.Core.Handover;
using FlipController.Core.Keepalived;
using FlipController.Daemon.Keepalived;
using FlipController.Daemon.Peer;
using FlipController.Linux.Handover;
using FlipController.Linux.State;

namespace FlipController.Daemon.Handover;

/// <summary>
/// This node's side of handovers, whether it gives or takes: the machine, what holds in the kernel by it, and the talk with the peer. One
/// writer at a time; nobody is asked anything while it writes.
/// </summary>
internal sealed partial class NodeHandover : IAsyncDisposable
{
    /// <summary>Between looks while something goes on. With <see cref="s_answer"/> it fits into the lease.</summary>
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan s_rest = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_answer = TimeSpan.FromMilliseconds(500);

    /// <summary>Who gives says something of it several times a second.</summary>
    private static readonly TimeSpan s_silence = TimeSpan.FromSeconds(5);

    /// <summary>NEW connections go to a peer for so long after it has proven itself: less than a second.</summary>
    private static readonly TimeSpan s_lease = TimeSpan.FromMilliseconds(900);

    /// <summary>In one ask: the peer has them in the kernel before it answers, well within <see cref="s_answer"/>.</summary>
    private const int MostNamed = 2000;

    private readonly HandoverOptions _options;
    private readonly Fleet _fleet;
    private readonly PeerClient _peer;
    private readonly Node _thisNode;
    private readonly HandoverStore _store;
    private readonly HandoverKernel _kernel;
    private readonly TimeProvider _time;
    private readonly ILogger _log;
    private readonly SemaphoreSlim _turn = new(1), _wake = new(0, 1);
    private readonly CancellationTokenSource _stop = new();
    private readonly HashSet<FourTuple> _named = [];
    private HandoverRecord _record;
    private PeerNode? _node;
    private VipCensus _census = new(0, 0, [], []);
    private PeerSays? _says, _saidLast; // the one is null while the peer is being asked
    private string? _namedTo, _said;
    private long _led;
    private DateTimeOffset _ledAt, _heard, _proven;
    private int _old;
    private bool _mustNameAll = true;
    private Task _work = Task.CompletedTask;

    public NodeHandover(Configuration configuration, HandoverOptions options, Fleet fleet, PeerClient peer, Node node, TimeProvider time, ILogger log)
    {
        (_options, _fleet, _peer, _thisNode, _time, _log) = (options, fleet, peer, node, time, log);
        _store = new HandoverStore(configuration.State);
        _kernel = new HandoverKernel(options, IPEndPoint.Parse(configuration.Peer!.Address).Address, fleet.HoldTurn);
        _record = _store.Read(out _); // what is wrong with it has been said when the node began
    }

    /// <summary>Takes up what was under way, and answers the peer from now on.</summary>
    public void Start(PeerServer server)
    {
        _heard = _ledAt = _time.GetUtcNow();
        // Before keepalived hears anything else of us.
        if (_record.Giving.IsLowered) _thisNode.Priority.Lower(HandoverStore.Reason);
        // Whatever a daemon that was killed at the end of one has left.
        if (!_record.Giving.HasRules && _record.Receiving is null) Keep(HandoverPhase.Returning);
        server.On("handover/receive", HandoverJson.Default.ReceiveAsk, HandoverJson.Default.ReceiveAnswer, ReceiveAsync);
        server.On("handover/end", HandoverJson.Default.HandoverNamed, HandoverJson.Default.Done, EndAsync);
        server.On("handover/under-way", HandoverJson.Default.HandoverNamed, HandoverJson.Default.Done, UnderWayAsync);
        server.On("handover/return", HandoverJson.Default.HandoverNamed, HandoverJson.Default.Done, ReturnAsync);
        _work = Task.Run(LookOnAsync);
    }

    public async Task<HandoverReport> StartAsync(HandoverStartRequest request)
    {
        HandoverWish wish = Wish(request);
        return await InTurnAsync(() =>
        {
            _ = _kernel.Self(); // whether there is a way to lead packets at all
            if (VipServices().IsEmpty) throw new RefusedException("handover: no pair serves at any of handover.vips; nothing was done");
            Happened(new StartWanted(_time.GetUtcNow(), NewId(), wish, Look(null)));
            return Report();
        });
    }

    public Task<HandoverReport> CancelAsync() => InTurnAsync(() =>
    {
        Happened(new CancelWanted(_time.GetUtcNow(), Look(null)));
        return Report();
    });

    public Task<HandoverReport> FinishAsync() => InTurnAsync(() =>
    {
        // A node that only takes has nothing to hasten but to let go of what it took.
        if (_record.Giving.Phase == HandoverPhase.None && _record.Receiving is { } receiving)
        {
            EndReceiving($"handover {receiving.Id} of the peer was ended here by an operator");
            return Report();
        }
        Happened(new FinishWanted(_time.GetUtcNow(), Look(null)));
        return Report();
    });

    public Task<HandoverReport> ReportAsync() => InTurnAsync(() =>
    {
        _census = _kernel.Count(Ports(), mustBeNow: false);
        return Report();
    });

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _work;
        _kernel.Dispose();
        _stop.Dispose();
    }

    private HandoverWish Wish(HandoverStartRequest request)
    {
        TimeSpan Time(string? text, TimeSpan configured, string name) => text is null ? configured
            : Durations.TryParse(text, out TimeSpan time) && time <= TimeSpan.FromHours(24) ? time
            : throw new UsageException($"{name} \"{text}\" must be a duration of at most 24h, such as 30s or 10m; nothing was done");
        if (request.Threshold is < 0) throw new UsageException($"threshold {request.Threshold} must be at least 0; nothing was done");
        return new HandoverWish(Time(request.Deadline, _options.Deadline, "deadline"), request.Threshold ?? _options.Threshold,
            Time(request.SecondChance, _options.SecondChance, "secondChance"), request.Reason);
    }

    private static string NewId() => Guid.NewGuid().ToString("N")[..12];

    private async Task<T> InTurnAsync<T>(Func<T> work)
    {
        await _turn.WaitAsync(_stop.Token);
        try
        {
            return work();
        }
        finally
        {
            _turn.Release();
            if (_wake.CurrentCount == 0) Wake();
        }
    }

    private void Wake()
    {
        try
        {
            _wake.Release();
        }
        catch (SemaphoreFullException)
        {
            // Somebody else has.
        }
    }

    private async Task LookOnAsync()
    {
        while (!_stop.IsCancellationRequested)
        {
            try
            {
                HandoverRecord record = _record;
                TimeSpan rest = record.Giving.HasRules ? s_look
                    : record.IsInKernel || record.Giving.Phase == HandoverPhase.Away ? s_rest : Timeout.InfiniteTimeSpan;
                await _wake.WaitAsync(rest, _stop.Token);
                await LookOnceAsync();
            }
            catch (OperationCanceledException) when (_stop.IsCancellationRequested)
            {
                return;
            }
            catch (Exception e)
            {
                // The next look is a new chance; meanwhile the lease ends by itself, and NEW connections are served here.
                if (_said != e.Message) _log.LogError(new EventId(181, "HandoverLook"), "handover: {Why}", e.Message);
                _said = e.Message;
                await Task.Delay(s_look, CancellationToken.None);
            }
        }
    }

    private async Task LookOnceAsync()
    {
        if (_record.Receiving is { } taken && _time.GetUtcNow() - _heard > s_silence) await AskWhetherUnderWayAsync(taken.Id);
        (string? id, HandoverPhase phase, ReceiveAsk? ask, ImmutableArray<FourTuple> naming) = await InTurnQuietlyAsync(Prepared);
        ReceiveAnswer? answer = null;
        string? trouble = null;
        if (ask is not null)
        {
            try
            {
                answer = await _peer.AskAsync("handover/receive", ask, HandoverJson.Default.ReceiveAsk, HandoverJson.Default.ReceiveAnswer, s_answer, _stop.Token);
            }
            catch (FlipException e)
            {
                trouble = e.Message;
            }
        }
        await InTurnQuietlyAsync(() =>
        {
            HandoverState giving = _record.Giving;
            if (giving.Id != id || giving.Phase != phase) return true; // a word came between: the next look is about that
            if (answer is not null) Heard(answer, naming);
            _saidLast = _says;
            if (_record.Receiving is { } receiving && giving.Phase == HandoverPhase.None && _time.GetUtcNow() - _heard > _options.SecondChance + s_rest)
                EndReceiving($"handover {receiving.Id} of the peer: nothing was heard of it for {Durations.Format(_options.SecondChance)}");
            if (giving.Phase != HandoverPhase.None) Happened(new Looked(_time.GetUtcNow(), Look(trouble)));
            else if (_record is { Receiving: null, IsInKernel: true }) Keep();
            return true;
        });
    }

    /// <summary>As <see cref="InTurnAsync"/>, without another look at once.</summary>
    private async Task<T> InTurnQuietlyAsync<T>(Func<T> work)
    {
        await _turn.WaitAsync(_stop.Token);
        try
        {
            return work();
        }
        finally
        {
            _turn.Release();
        }
    }

    private (string? Id, HandoverPhase Phase, ReceiveAsk? Ask, ImmutableArray<FourTuple> Naming) Prepared()
    {
        HandoverState giving = _record.Giving;
        _says = null;
        if (!giving.HasRules) return (giving.Id, giving.Phase, null, []);
        // Who is not named before the VIPs go is cut.
        _census = _kernel.Count(Ports(), mustBeNow: giving.Phase == HandoverPhase.Moving);
        long led = _kernel.Table.Led() ?? 0;
        if (led != _led) (_led, _ledAt) = (led, _time.GetUtcNow());
        bool isFirst = _mustNameAll || _namedTo != _peer.BootId;
        if (isFirst) _named.Clear();
        ImmutableArray<FourTuple> naming = [.. _census.Flows.Where(f => !_named.Contains(f)).Take(MostNamed)];
        var ask = new ReceiveAsk(giving.Id!, giving.Phase, NodeWire.Of(_kernel.Self()), [.. _options.Vips.Select(v => v.ToString())],
            [.. _fleet.Pairs.Select(p => new PairServices(p.Name, [.. Services(p).Select(s => s.ToString())])).Where(s => !s.Services.IsEmpty)],
            [.. naming.Select(FlowText.Of)], isFirst);
        return (giving.Id, giving.Phase, ask, naming);
    }

    private void Heard(ReceiveAnswer answer, ImmutableArray<FourTuple> naming)
    {
        _node = answer.Node.Node();
        _mustNameAll = answer.IsNew && _named.Count > 0;
        _namedTo = _peer.BootId;
        if (_mustNameAll) return; // it has forgotten what was named before: nothing depends on this answer
        _named.UnionWith(naming);
        _says = new PeerSays(answer.Why, answer.HoldsVips, answer.Connections, answer.IsGiving);
        _said = null;
        bool isAllNamed = naming.Length < MostNamed;
        if (!isAllNamed) Wake();
        // Now the peer knows every connection that is here: the VIPs may go.
        if (isAllNamed && _record.Giving is { IsLowered: true, Phase: not HandoverPhase.Recalling } && answer.Why is null) _thisNode.Priority.Lower(HandoverStore.Reason);
    }

    private HandoverLook Look(string? trouble) => new(_says, trouble, _census.Live, !_kernel.Held().IsEmpty, _time.GetUtcNow() - _ledAt);

    /// <exception cref="RefusedException">It is not to happen now.</exception>
    private void Happened(HandoverEvent happened)
    {
        HandoverState before = _record.Giving;
        HandoverDecision decision = HandoverMachine.Decide(before, happened);
        if (decision.Denial is { } denial) throw new RefusedException($"handover: {denial}; nothing was done");
        HandoverState next = decision.Next;
        if (next != before) Save(_record with { Giving = next });
        if (next.Phase != before.Phase)
        {
            if (before.Phase is HandoverPhase.None or HandoverPhase.Returning && next.Phase == HandoverPhase.Proving) (_mustNameAll, _ledAt) = (true, _time.GetUtcNow());
            _log.LogInformation(new EventId(182, "Handover"), "handover {Id}: {Phase}{Outcome}", next.Id, HandoverMachine.Name(next.Phase),
                next.Outcome is { } outcome && next.Outcome != before.Outcome ? $": {outcome}" : "");
            if (next.Phase == HandoverPhase.Emptying && before.Phase == HandoverPhase.Proving) _thisNode.Tell(OwnState.Handover);
            if (next.Phase == HandoverPhase.Returning || (next.Phase == HandoverPhase.None && before.Phase is not (HandoverPhase.Proving or HandoverPhase.Returning)))
                _thisNode.Tell(OwnState.Normal);
        }
        if (next.Note is { } note && note != before.Note) _log.LogWarning(new EventId(183, "HandoverNote"), "handover {Id}: {Note}", next.Id, note);
        if (!next.IsLowered && before.IsLowered) _thisNode.Priority.Raise(HandoverStore.Reason);
        Keep(before.Phase);
        foreach (HandoverEffect effect in decision.Effects) _ = TellAsync(effect, before.Id ?? next.Id!);
    }

    /// <summary>Has the kernel have what the state means.</summary>
    private void Keep(HandoverPhase? before = null)
    {
        HandoverState giving = _record.Giving;
        try
        {
            if (!giving.HasRules && _record.Receiving is null)
            {
                if (!_record.IsInKernel && before is null or HandoverPhase.None or HandoverPhase.Away) return;
                (HandoverRecord record, ImmutableArray<string> left) = _kernel.Remove(_record);
                Save(record);
                foreach (string line in left) _log.LogWarning(new EventId(184, "SettingLeft"), "handover: {Left}", line);
                return;
            }
            if (_node is not { } node) return; // not heard of since the start: what is in the kernel stays
            if (giving.Phase == HandoverPhase.Emptying && before == HandoverPhase.Proving)
            {
                // A SYN whose retransmission went to the peer would be answered by both: what is begun here stays here. What begins between
                // this list and the next rule is noted by the rule before.
                Put(node, OpeningRule.Note);
                _kernel.Table.Note(_kernel.Count(Ports(), mustBeNow: true).Handshakes);
            }
            Put(node, giving.Diverts ? OpeningRule.Divert : giving.Phase == HandoverPhase.Proving ? OpeningRule.Note : OpeningRule.Keep);
            if (giving.HasRules && giving.Phase != HandoverPhase.Proving && _says is { Ready: true })
            {
                _kernel.Table.Renew(s_lease);
                _proven = _time.GetUtcNow();
            }
        }
        catch (Exception e) when (e is FlipException or IOException && giving.Phase == HandoverPhase.Proving)
        {
            Happened(new NotPrepared(_time.GetUtcNow(), e.Message));
        }
    }

    private void Put(PeerNode node, OpeningRule opening) => _record = _kernel.Put(_record, node, VipServices(), opening, Save);

    private void Save(HandoverRecord record)
    {
        _store.Save(record);
        _record = record;
    }

    private async Task TellAsync(HandoverEffect effect, string id)
    {
        string name = effect == HandoverEffect.AskReturn ? "handover/return" : "handover/end";
        const int tries = 5;
        for (int attempt = 1; ; attempt++)
        {
            try
            {
                await _peer.AskAsync(name, new HandoverNamed(id), HandoverJson.Default.HandoverNamed, HandoverJson.Default.Done, TimeSpan.FromSeconds(2), _stop.Token);
                return;
            }
            catch (OperationCanceledException)
            {
                return;
            }
            catch (FlipException e)
            {
                // It forgets by itself what nobody speaks of any more; and who waits for it to hand back looks, too.
                if (attempt < tries && e is PeerException) continue;
                _log.LogWarning(new EventId(185, "PeerNotTold"), "handover {Id}: {Why}", id, e.Message);
                return;
            }
        }
    }

    private static IEnumerable<Service> Services(Pair pair) => pair.State.Active is { } active ? active.Ports.Select(p => p.Service) : [];

    private ImmutableArray<VipService> VipServices() =>
    [
        .. from pair in _fleet.Pairs
           from service in Services(pair)
           from vip in _options.Vips
           where service.Overlaps(new Service(vip, service.Port, Transport: service.Transport))
           select new VipService(vip, service.Port, service.Transport,
               service.IsTcp ? UdpRule.Move : UdpRules.Of(pair.Options.Redirect, service)),
    ];

    /// <summary>Where connections of the pairs' may end on this host, by the front port that clients know.</summary>
    private Dictionary<int, int> Ports()
    {
        Dictionary<int, int> ports = [];
        foreach (ServicePort port in _fleet.Pairs.SelectMany(p => p.State.Generations).SelectMany(g => g.Ports))
        {
            ports[port.PrivatePort] = port.Service.Port;
            ports.TryAdd(port.Service.Port, port.Service.Port);
        }
        return ports;
    }

    private HandoverReport Report()
    {
        HandoverState giving = _record.Giving;
        bool goesOn = giving.Phase != HandoverPhase.None;
        return new HandoverReport(HandoverMachine.Name(giving.Phase), giving.Id, giving.Id is null ? null : giving.Started, giving.Id is null ? null : giving.Since,
            giving.Phase == HandoverPhase.Emptying ? giving.Started + giving.Wish!.Deadline : null, _census.Live, _census.OfThisHost,
            goesOn ? _saidLast?.Connections : null, goesOn ? _led : 0, giving.Diverts && _time.GetUtcNow() - _proven < s_lease, giving.IsLowered,
            [.. _kernel.Held().Select(v => v.ToString())], goesOn ? _saidLast?.HoldsVips : null, giving.Note, giving.Outcome, giving.Failed,
            _record.Receiving is { } receiving ? new HandoverReceiving(receiving.Id, HandoverMachine.Name(receiving.Phase), receiving.Since, _heard, _old) : null);
    }
}
