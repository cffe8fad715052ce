using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Core.Handover;
using FlipController.Daemon.Peer;
using FlipController.Linux.Handover;
using FlipController.Linux.State;

namespace FlipController.Daemon.Handover;

// The side that takes.
internal sealed partial class NodeHandover
{
    private Task<ReceiveAnswer> ReceiveAsync(ReceiveAsk ask, CancellationToken stop) => InTurnQuietlyAsync(() =>
    {
        bool isNew = _record.Receiving?.Id != ask.Id;
        string? why = Unfit(ask);
        if (why is null)
        {
            _node = ask.Node.Node();
            _heard = _time.GetUtcNow();
            if (isNew || _record.Receiving!.Phase != ask.Phase)
            {
                if (isNew) _log.LogInformation(new EventId(186, "Receiving"), "handover {Id}: the peer hands over to this node", ask.Id);
                Save(_record with { Receiving = new ReceivingRecord(ask.Id, ask.Phase, isNew ? _heard : _record.Receiving!.Since) });
                Wake();
            }
            Keep();
            if (isNew || ask.IsFirst)
            {
                _kernel.Table.ForgetOld();
                _old = 0;
            }
            if (!ask.Old.IsEmpty) _kernel.Table.AddOld(ask.Old.Select(FlowText.Read));
            _old += ask.Old.Length;
            if (ask.Phase is HandoverPhase.Moving or HandoverPhase.Leaving && _record.Giving.IsLowered) Happened(new VipsCome(_heard));
            why = NotReady(ask.Services);
        }
        return new ReceiveAnswer(why, NodeWire.Of(_kernel.Self()), _kernel.Held().Length == _options.Vips.Length, _kernel.Count(Ports(), mustBeNow: false).Live,
            _record.Giving.Phase is HandoverPhase.Proving or HandoverPhase.Emptying or HandoverPhase.Moving or HandoverPhase.Leaving,
            IsNew: _record.Receiving?.Id == ask.Id && isNew && !ask.IsFirst);
    });

    private Task<Done> EndAsync(HandoverNamed named, CancellationToken stop) => InTurnQuietlyAsync(() =>
    {
        if (_record.Receiving?.Id != named.Id) return new Done(false);
        EndReceiving($"handover {named.Id} of the peer has ended");
        return new Done(true);
    });

    /// <summary>Of one that the peer takes, and has not heard of for a while.</summary>
    private Task<Done> UnderWayAsync(HandoverNamed named, CancellationToken stop) => InTurnQuietlyAsync(() =>
        new Done(_record.Giving.Id == named.Id && _record.Giving.HasRules));

    /// <summary>Its end may have been said while this daemon, or the link, was down.</summary>
    private async Task AskWhetherUnderWayAsync(string id)
    {
        try
        {
            Done answer = await _peer.AskAsync("handover/under-way", new HandoverNamed(id), HandoverJson.Default.HandoverNamed, HandoverJson.Default.Done, s_answer, _stop.Token);
            await InTurnQuietlyAsync(() =>
            {
                if (!answer.Was && _record.Receiving?.Id == id) EndReceiving($"handover {id} of the peer has ended meanwhile");
                return true;
            });
        }
        catch (PeerException)
        {
            // It is asked again.
        }
    }

    /// <summary>The peer wants back what it handed over.</summary>
    private Task<Done> ReturnAsync(HandoverNamed named, CancellationToken stop) => InTurnAsync(() =>
    {
        if (_record.Giving.Phase is HandoverPhase.Proving or HandoverPhase.Emptying or HandoverPhase.Moving or HandoverPhase.Leaving) return new Done(false);
        Happened(new StartWanted(_time.GetUtcNow(), NewId(), 
            // Nobody waits for who is left here: they are led back here from there.
            new HandoverWish(TimeSpan.Zero, 0, _options.SecondChance, $"the peer asks for what handover {named.Id} gave"), Look(null), AsReturn: true));
        return new Done(true);
    });

    private void EndReceiving(string why)
    {
        _log.LogInformation(new EventId(187, "Received"), "{Why}", why);
        _old = 0;
        Save(_record with { Receiving = null });
        if (_record.Giving.HasRules) _kernel.Table.ForgetOld();
        else Keep();
    }

    /// <summary>Why nothing can be taken from who asks; null: it can.</summary>
    private string? Unfit(ReceiveAsk ask)
    {
        if (_record.Giving.Phase is HandoverPhase.Proving or HandoverPhase.Emptying or HandoverPhase.Moving) return "it hands over itself";
        string theirs = string.Join(", ", ask.Vips.Order()), ours = string.Join(", ", _options.Vips.Select(v => v.ToString()).Order());
        return theirs == ours ? null : $"its handover.vips are {ours}, and not {theirs}";
    }

    /// <summary>Why NEW connections cannot be taken now; null: they can.</summary>
    private string? NotReady(ImmutableArray<PairServices> wanted)
    {
        if (_thisNode.Priority.Reasons.FirstOrDefault(r => r != HandoverStore.Reason) is { } lowered) return $"it should not have the VIPs itself: {lowered}";
        foreach (PairServices asked in wanted)
        {
            if (_fleet.Find(asked.Pair) is not { } pair) return $"it has no pair {asked.Pair}";
            if (pair.State.Fault is { } fault) return $"its pair {pair.Name} is faulted: {fault}";
            if (pair.State.Active is null) return $"its pair {pair.Name} has nothing active";
            ImmutableArray<Service> served = [.. Services(pair)];
            foreach (string text in asked.Services)
                if (!Service.TryParse(text, out Service? service) || !served.Any(s => s.IsTcp == service.IsTcp && s.Overlaps(service)))
                    return $"its pair {pair.Name} does not serve {text}";
        }
        return null;
    }
}
