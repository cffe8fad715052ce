using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux.Kernel;

namespace FlipController.Daemon;

/// <summary>
/// UDP knows no connections: a sender's flow goes where conntrack remembers that it went, whatever the rules say now. It is forgotten
/// here when it is to meet them again; the generation before listens on, so that what was sent until then arrives there.
/// </summary>
internal sealed class DatagramFlows(PairEdge edge, Func<PairState> state)
{
    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(1);
    private Generation? _to;
    private string? _told;

    /// <summary>Where the rules lead; null: to no generation.</summary>
    public Generation? To
    {
        private get => Volatile.Read(ref _to);
        set => Volatile.Write(ref _to, value);
    }

    /// <summary>There is UDP to look after.</summary>
    public bool Any => Fronts(To).Length > 0;

    /// <summary>NEW ones go to this generation from now on: those that move (redirect.udp) follow, and so do those whose generation is gone.</summary>
    /// <param name="to">Null: to no generation.</param>
    public void Move(Generation? to)
    {
        To = to;
        Forget(to);
    }

    /// <summary>
    /// Until nothing is left to move: a datagram that met the rule before, and whose flow was not in the table yet, is there after a grace
    /// period, or later if somebody's queue had it.
    /// </summary>
    public async Task KeepAsync(CancellationToken stop)
    {
        TimeSpan pause = TimeSpan.FromMilliseconds(10);
        await Task.Run(GracePeriod.Wait, stop);
        while (Forget(To) > 0)
        {
            await Task.Delay(pause, edge.Time, stop);
            if (pause < s_longestPause) pause *= 2;
        }
    }

    /// <summary>
    /// What the soft stop of a generation that does not have the NEW ones should wait for; null: nothing. It closes the sockets of every
    /// dgram-bind, with what is in them: so even flows that stay move by then. QUIC's go on, HAProxy has a socket for each connection.
    /// </summary>
    /// <exception cref="KernelException">The kernel does not tell.</exception>
    public string? Standing(Generation leaving)
    {
        ServicePort[] own = [.. leaving.Ports.Where(p => !p.Service.IsTcp)];
        if (own.Length == 0) return null;
        uint mark = edge.Mark.ValueOf(leaving.Tag);
        using Conntrack? conntrack = Conntrack.Open();
        if (conntrack?.ForgetFlows([.. own.Select(p => p.Service)], edge.Mark.Mask, (service, of) =>
            of != mark || (service.Transport == Transport.Quic && UdpRules.Of(edge.Options.Redirect, service) == UdpRule.Stick)) is > 0 and int flows)
            return $"{flows} UDP senders still sent to it";
        using var sockets = new SockDiag();
        long unread = sockets.Receivers(PairEdge.SpanOf(leaving)).Where(s => own.Any(p => p.PrivatePort == s.Local.Port)).Sum(s => s.ReceiveQueue);
        return unread > 0 ? "it has not read all datagrams yet" : null;
    }

    /// <returns>How many there were.</returns>
    private int Forget(Generation? to)
    {
        Service[] fronts = Fronts(to);
        if (fronts.Length == 0) return 0;
        uint mark = to is null ? 0 : edge.Mark.ValueOf(to.Tag);
        HashSet<uint> living = [.. state().Generations.Where(g => ProcessIdentity.Of(g).IsAlive).Select(g => edge.Mark.ValueOf(g.Tag))];
        bool adopted = state().IsAdopted;
        try
        {
            using Conntrack? conntrack = Conntrack.Open();
            int found = conntrack?.ForgetFlows(fronts, edge.Mark.Mask, Stays) ?? 0;
            if (found > 0) edge.Log.LogDebug("pair {Pair}: {Count} UDP senders meet the rules again", edge.Name, found);
            _told = null;
            return found;
        }
        catch (KernelException e)
        {
            if (Interlocked.Exchange(ref _told, e.Message) != e.Message)
                edge.Log.LogWarning(new EventId(168, "FlowsStay"), "pair {Pair}: UDP senders that are known already stay where they are: {Why}", edge.Name, e.Message);
            return 0;
        }

        bool Stays(Service service, uint of)
        {
            if (of == mark || (of != 0 && !edge.Mark.IsOfPair(of))) return true;
            if (UdpRules.Of(edge.Options.Redirect, service) == UdpRule.Move) return false;
            // Without a mark: it met no rule of ours, and is an unmanaged HAProxy's, which may be told to stop at any time, or nobody's.
            return of == 0 ? adopted && service.Transport == Transport.Quic : living.Contains(of);
        }
    }

    /// <summary>Of every generation: a sender may still use one that the newest does not have.</summary>
    private Service[] Fronts(Generation? to) =>
    [
        .. state().Generations.Concat(to is null ? [] : [to]).SelectMany(g => g.Ports).Select(p => p.Service).Where(s => !s.IsTcp).Distinct(),
    ];
}
