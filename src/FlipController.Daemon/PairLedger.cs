using System.Collections.Concurrent;
using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux.Clients;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FirstSeenLookup = FlipController.Linux.Clients.FirstSeen;

namespace FlipController.Daemon;

/// <summary>What the three witnesses say of a pair's generations, and who their clients are.</summary>
internal sealed class PairLedger(PairEdge edge, Func<PairState> state, Drains drains) : IDisposable
{
    /// <summary>So few connections that HAProxy may be asked for its streams whenever somebody looks.</summary>
    private const int FewConnections = 2000;
    private static readonly TimeSpan s_observation = TimeSpan.FromSeconds(1), s_fresh = TimeSpan.FromSeconds(3);

    private readonly ConcurrentDictionary<int, Closing> _closings = new();

    private sealed record Member(Generation Generation, string Role);

    private static IEnumerable<Member> Members(PairState s)
    {
        if (s.Active is { } active) yield return new Member(active, "active");
        if (s.Phase.Standby is { } standby) yield return new Member(standby, "standby");
        if (s.Phase.Previous is { } previous && previous != s.Active) yield return new Member(previous, "previous");
        foreach (RetiredGeneration retired in s.Retired) yield return new Member(retired.Generation, "retired");
    }

    /// <summary>Whose clients: another generation on the same private ports makes a port alone prove nothing.</summary>
    public static ClientsOf ClientsOf(PairState s, Generation generation, string role)
    {
        HashSet<int> own = [.. generation.Ports.Select(p => p.PrivatePort)];
        bool shared = generation.IsOnFronts || s.Generations.Any(g => g.Number != generation.Number && g.Ports.Any(p => own.Contains(p.PrivatePort)));
        return new ClientsOf(generation, role, shared);
    }

    /// <summary>The kernel's sockets of its clients as they are now.</summary>
    /// <exception cref="KernelException">They cannot be listed.</exception>
    public static async Task<ClientSockets> SocketsAsync(PairState s, Generation generation, CancellationToken stop)
    {
        using var sockets = new SockDiag();
        return await new GenerationClients(sockets).CountAsync(ClientsOf(s, generation, ""), null, stop);
    }

    public FirstSeenLookup? FirstSeenOf(Generation generation)
    {
        if (edge.Ledger is not { } ledger) return null;
        uint mark = edge.Mark.ValueOf(generation.Tag);
        return (peer, port) => ledger.FirstSeen(mark, peer, port) is { } seen ? (seen.Instant, seen.IsExact) : (null, false);
    }

    /// <summary>Null: it stops, and nobody has a session with it; or it is not HAProxy.</summary>
    public AdminChannel? ChannelOf(Generation generation) => drains.Find(generation.Number) switch
    {
        { Session: { } session } => new AdminChannel(session),
        { IsStopped: true } => null,
        _ => edge.AdminOf(generation, s_observation) is { } admin ? new AdminChannel(admin) : null,
    };

    /// <summary>Of every generation there is, by number.</summary>
    public async Task<IReadOnlyDictionary<int, ConnectionCounts>> CountsAsync(PairState s, CancellationToken stop)
    {
        Generation[] all = [.. s.Generations];
        IReadOnlyDictionary<int, int?> conntrack = Remembered(all);
        ConntrackFill? fill = ConntrackFill.Read();
        using var sockets = new SockDiag();
        var clients = new GenerationClients(sockets);
        var counts = new Dictionary<int, ConnectionCounts>();
        foreach (Generation generation in all)
        {
            ClientSockets? seen = await SocketsAsync(clients, s, generation, stop);
            HaproxyInfo? info = await InfoAsync(generation, stop);
            int? streams = drains.Find(generation.Number) is not null && info is { CurrConns: > 0 and <= FewConnections } ? await StreamsAsync(generation, stop) : null;
            counts[generation.Number] = Compared(generation, conntrack[generation.Number], seen, info, streams, fill);
        }
        return counts;
    }

    /// <summary>Side by side, and why they disagree.</summary>
    private ConnectionCounts Compared(
        Generation generation, int? conntrack, ClientSockets? sockets, HaproxyInfo? info, int? streams, ConntrackFill? fill)
    {
        // One whose process is gone has none, whatever the kernel still delivers for it.
        bool isHaproxy = edge.AdminOf(generation) is not null;
        int? paths = PathClients(generation);
        int? haproxy = info?.CurrConns ?? (!isHaproxy || ProcessIdentity.Of(generation).IsAlive ? null : 0);
        ImmutableArray<string> why = WitnessComparison.Explain(new Witnesses(
            conntrack, sockets, haproxy, streams, drains.Find(generation.Number)?.IsStopped == true,
            TableEntries: (int?)fill?.Entries, TableLimit: (int?)fill?.Limit,
            IsHaproxy: isHaproxy, UnixClients: paths ?? 0, OnFronts: generation.IsOnFronts,
            HasQuic: generation.Ports.Any(p => p.Service.Transport == Transport.Quic)));
        return new ConnectionCounts(conntrack, sockets?.Total, haproxy, why.IsEmpty ? null : why, paths);
    }

    private async Task<ClientSockets?> SocketsAsync(GenerationClients clients, PairState s, Generation generation, CancellationToken stop)
    {
        try
        {
            return await clients.CountAsync(ClientsOf(s, generation, ""), FirstSeenOf(generation), stop);
        }
        catch (FlipException e)
        {
            edge.Log.LogDebug("pair {Pair}: the sockets of {Generation} cannot be listed: {Why}", edge.Name, generation, e.Message);
            return null;
        }
    }

    /// <summary>Null: it serves no path, or the kernel does not tell.</summary>
    private static int? PathClients(Generation generation)
    {
        try
        {
            return generation.UnixFronts.IsEmpty ? null : UnixQueues.Clients(generation);
        }
        catch (KernelException)
        {
            return null;
        }
    }

    private async Task<HaproxyInfo?> InfoAsync(Generation generation, CancellationToken stop)
    {
        try
        {
            return ChannelOf(generation) is { } channel ? await channel.ShowInfoAsync(stop) : null;
        }
        catch (FlipException)
        {
            // A witness that cannot be asked is shown as such.
            return null;
        }
    }

    private async Task<int?> StreamsAsync(Generation generation, CancellationToken stop)
    {
        try
        {
            return ChannelOf(generation) is { } channel ? (await HaproxyStreams.ReadAsync(channel, stop)).Count : null;
        }
        catch (FlipException)
        {
            return null;
        }
    }

    /// <summary>What is followed by events costs nothing to tell; the others are found in one walk over the kernel's table.</summary>
    private Dictionary<int, int?> Remembered(Generation[] generations)
    {
        var live = generations.ToDictionary(
            g => g.Number, g => edge.Ledger?.CountOf(edge.Mark.ValueOf(g.Tag)) is { IsCurrent: true } count && edge.Now - count.AsOf < s_fresh ? count.Live : (int?)null);
        // Where nothing is redirected nothing is marked, and conntrack need not even be at work.
        Generation[] rest = [.. generations.Where(g => live[g.Number] is null && !g.IsOnFronts)];
        if (rest.Length == 0) return live;
        try
        {
            using Conntrack? conntrack = Conntrack.Open();
            ConntrackCounts[]? counts = conntrack?.CountAll([.. rest.Select(g => edge.Mark.ValueOf(g.Tag))], edge.Mark.Mask);
            for (int i = 0; i < rest.Length; i++) live[rest[i].Number] = counts?[i].Live;
        }
        catch (KernelException e)
        {
            edge.Log.LogDebug("pair {Pair}: conntrack cannot be asked: {Why}", edge.Name, e.Message);
        }
        return live;
    }

    /// <param name="only">One generation; null: every one.</param>
    public async Task<ConnectionsReport> ConnectionsAsync(ClientQuery query, int? only, CancellationToken stop)
    {
        PairState s = state();
        Member[] members = [.. Members(s).Where(m => only is null || m.Generation.Number == only)];
        if (only is not null && members.Length == 0)
            throw new UsageException($"pair {edge.Name}: there is no generation {only}; there are {string.Join(", ", Members(s).Select(m => m.Generation.Number).Order())}");
        RefuseUnknown(query, members);
        using var sockets = new SockDiag();
        var clients = new GenerationClients(sockets);
        IReadOnlyDictionary<int, int?> conntrack = Remembered([.. members.Select(m => m.Generation)]);
        ConntrackFill? fill = ConntrackFill.Read();
        var generations = ImmutableArray.CreateBuilder<GenerationConnections>();
        List<ConnectionStatus> rows = [];
        List<NetworkStatus> networks = [];
        int total = 0, matched = 0;
        foreach ((Generation generation, string role) in members)
        {
            HaproxyInfo? info = await InfoAsync(generation, stop);
            ClientsFound found = await FindAsync(clients, ClientsOf(s, generation, role), generation, query, info is not null, stop);
            total += found.Total;
            matched += found.Matched;
            rows.AddRange(found.Rows);
            networks.AddRange(found.Networks ?? []);
            generations.Add(new GenerationConnections(generation.Number, generation.Slot.Name(), role,
                Compared(generation, conntrack[generation.Number], found.Sockets, info, found.Streams, fill)));
        }
        rows.Sort(ClientQuery.Comparison(query.Order));
        return new ConnectionsReport(
            edge.Name, edge.Now, generations.ToImmutable(), total, matched, [.. rows.Take(query.Limit)],
            query.Networks is null ? null : Summed(networks, query.Limit));
    }

    /// <summary>A front address that nobody has is a slip, and must not look as if nobody were there.</summary>
    private void RefuseUnknown(ClientQuery query, Member[] members)
    {
        Service[] services = [.. members.SelectMany(m => m.Generation.Ports).Select(p => p.Service).Distinct()];
        if (members.Length > 0 && query.Service is { } named && !services.Any(s => ClientQuery.MatchesService(named, s)))
            throw new UsageException($"pair {edge.Name}: there is no front address {named}; there are {string.Join(", ", services.Select(s => s.ToString()).Order(StringComparer.Ordinal))}; nothing was done");
    }

    private async Task<ClientsFound> FindAsync(
        GenerationClients clients, ClientsOf of, Generation generation, ClientQuery query, bool answers, CancellationToken stop)
    {
        AdminChannel? channel = answers ? ChannelOf(generation) : null;
        try
        {
            return await clients.FindAsync(of, query, channel, FirstSeenOf(generation), edge.Now, stop);
        }
        catch (FlipException e) when (channel is not null)
        {
            // The kernel knows who is there even when HAProxy does not say what they do.
            edge.Log.LogDebug("pair {Pair}: the streams of {Generation} cannot be listed: {Why}", edge.Name, generation, e.Message);
            return await clients.FindAsync(of, query, null, FirstSeenOf(generation), edge.Now, stop);
        }
    }

    private static ImmutableArray<NetworkStatus> Summed(IEnumerable<NetworkStatus> networks, int limit) =>
    [
        .. networks.GroupBy(n => n.Network).Select(g => new NetworkStatus(
                g.Key, g.Sum(n => n.Connections), g.Max(n => n.OldestS), g.Min(n => n.LeastIdleS), g.Sum(n => n.BytesIn), g.Sum(n => n.BytesOut)))
            .OrderByDescending(n => n.Connections).ThenBy(n => n.Network, StringComparer.Ordinal).Take(limit),
    ];

    /// <summary>
    /// Closes them; one that HAProxy was told to close and did not, the kernel closes when it is asked for again. Whose sockets are whose
    /// is judged when its turn comes, not when it was asked for.
    /// </summary>
    /// <param name="services">Only theirs; empty: every one.</param>
    /// <param name="mayServe">Also of a generation that is not retired (any more).</param>
    public async Task<ClientsClosed> CloseAsync(
        Generation generation, ImmutableArray<ServicePort> services, ClientQuery query, bool mayServe, CancellationToken stop)
    {
        Closing closing = ClosingOf(generation);
        await closing.Turn.WaitAsync(stop);
        try
        {
            PairState s = state();
            bool isRetired = s.Retired.Any(r => r.Generation == generation);
            if (!isRetired && !(mayServe && s.Generations.Contains(generation))) return new ClientsClosed(0, 0, 0, 0, 0, null);
            ClientsOf of = ClientsOf(s, generation, isRetired ? "retired" : "");
            if (!services.IsEmpty) of = of with { Ports = services };
            return await closing.Clients.CloseAsync(of, query, ChannelOf(generation), FirstSeenOf(generation), edge.Now, stop);
        }
        finally
        {
            closing.Turn.Release();
        }
    }

    /// <summary>Connections that HAProxy was told to close and that are there still.</summary>
    public int ToldToLeave(Generation generation) => _closings.GetValueOrDefault(generation.Number)?.Clients.Told ?? 0;

    private Closing ClosingOf(Generation generation)
    {
        lock (_closings)
        {
            HashSet<int> living = [.. state().Generations.Select(g => g.Number)];
            foreach ((int gone, Closing old) in _closings.Where(c => !living.Contains(c.Key) && c.Value.Turn.CurrentCount > 0).ToList())
                if (_closings.TryRemove(gone, out _)) old.Dispose();
            return _closings.GetOrAdd(generation.Number, _ => new Closing());
        }
    }

    private sealed class Closing : IDisposable
    {
        private readonly SockDiag _sockets = new();

        public Closing() => Clients = new ClientClosing(new GenerationClients(_sockets));

        public SemaphoreSlim Turn { get; } = new(1, 1);

        public ClientClosing Clients { get; }

        public void Dispose() => _sockets.Dispose();
    }

    public void Dispose()
    {
        foreach (Closing closing in _closings.Values) closing.Dispose();
    }

    /// <summary>Closes connections of retired generations, with <paramref name="force"/> of every one.</summary>
    public async Task<CloseAnswer> CloseAsync(ClientQuery query, int? only, bool force, CancellationToken stop)
    {
        PairState s = state();
        Member[] members = [.. Members(s).Where(m => only is null ? m.Role == "retired" || force : m.Generation.Number == only)];
        if (only is not null && members.Length == 0)
            throw new UsageException($"pair {edge.Name}: there is no generation {only}; nothing was closed");
        if (members.FirstOrDefault(m => m.Role != "retired") is { } serving && !force)
            throw new RefusedException($"pair {edge.Name}: {serving.Generation} is the {serving.Role} one, not retired; nothing was closed; --force closes its connections too");
        RefuseUnknown(query, members);
        int matched = 0, closed = 0, left = 0;
        string? why = null;
        foreach (Generation generation in members.Select(m => m.Generation))
        {
            ClientsClosed done = await CloseAsync(generation, [], query, force, stop);
            matched += done.Matched;
            closed += done.Closed;
            left += done.Left;
            why ??= done.Why;
            drains.Find(generation.Number)?.CountClosed(done.Closed);
            if (done.Closed > 0)
                edge.Log.LogInformation(new EventId(152, "Closed"), "pair {Pair}: {Count} connections of {Generation} were closed by hand",
                    edge.Name, done.Closed, generation);
        }
        return new CloseAnswer(edge.Name, matched, closed, left == 0 ? null : $"{left} are left: {why}");
    }
}
