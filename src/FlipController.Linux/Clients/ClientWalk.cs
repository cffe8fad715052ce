using System.Collections.Immutable;
using System.Net;
using System.Runtime.InteropServices;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Clients;

/// <summary>One connection, as much of it as is kept while others may still come before it.</summary>
/// <param name="IdleMs">Null: the kernel does not tell.</param>
/// <param name="AgeS">Null: not known, or not looked up yet.</param>
internal readonly record struct ClientRow(
    PeerAddress Peer, int PeerPort, int Service, TcpStates State, bool Orphan, uint Inode, uint? IdleMs, long BytesIn, long BytesOut,
    double? AgeS, bool AgeIsAtLeast, TcpSocketId Socket);

/// <summary>One walk over a generation's sockets: what is counted, and the rows that come first so far. See <see cref="GenerationClients"/>.</summary>
internal sealed class ClientWalk
{
    internal const TcpStates States = TcpStates.Listen | TcpStates.Live | TcpStates.LastAck | TcpStates.Closing;
    private const TcpStates Open = TcpStates.Established | TcpStates.CloseWait;

    private readonly ClientsOf _generation;
    private readonly ClientQuery _query;
    private readonly ProcessDescriptors? _held;
    private readonly HaproxyStreams? _streams;
    private readonly HashSet<(PeerAddress, int)> _met = [];
    private readonly FirstSeen? _firstSeen;
    private readonly DateTimeOffset _now;
    private readonly int _firstPort;
    private readonly int[] _serviceOfPort, _nextOnPort;
    private readonly bool[] _asked;
    private readonly bool[] _listens;
    private readonly int[] _count;
    private readonly Comparison<ClientRow> _order;
    private readonly PriorityQueue<ClientRow, ClientRow> _first;
    private readonly Dictionary<PeerAddress, NetworkSum> _networks = [];
    private int _established, _halfClosed, _finishing, _notAccepted, _orphans, _ending, _unknown;

    /// <param name="held">Null: every socket on the ports is the generation's, and the addresses of its streams are those of their clients.</param>
    internal ClientWalk(
        ClientsOf generation, ClientQuery query, ProcessDescriptors? held, HaproxyStreams? streams, FirstSeen? firstSeen, DateTimeOffset now)
    {
        (_generation, _query, _held, _streams, _firstSeen, _now) = (generation, query, held, streams, firstSeen, now);
        ImmutableArray<ServicePort> ports = generation.Ports;
        PortBlock span = ports.IsEmpty ? default : generation.Span;
        _firstPort = span.First;
        _serviceOfPort = new int[span.Count];
        Array.Fill(_serviceOfPort, -1);
        _nextOnPort = new int[ports.Length];
        for (int i = 0; i < ports.Length; i++)
            (_nextOnPort[i], _serviceOfPort[ports[i].PrivatePort - _firstPort]) = (_serviceOfPort[ports[i].PrivatePort - _firstPort], i);
        _asked = [.. ports.Select(p => query.Service is null || ClientQuery.MatchesService(query.Service, p.Service))];
        _listens = new bool[ports.Length];
        _count = new int[ports.Length];
        _order = Order(query.Order);
        // The last of those kept stands at the head, to be driven out.
        _first = new PriorityQueue<ClientRow, ClientRow>(Comparer<ClientRow>.Create((a, b) => _order(b, a)));
    }

    /// <summary>
    /// After a walk by addresses: they do tell which stream is whose. Else the descriptors have to be asked for, which takes longer than all
    /// the rest.
    /// </summary>
    internal bool AddressesTell => _streams is null
        || (!_streams.HasDoubles && _streams.Samples.All(s => _met.Contains(s.Key) || ProcessDescriptors.Inode(_generation.Pid, s.Value) == 0));

    /// <summary>Says of a connection that is counted, by <see cref="TcpSocketId.Cookie"/>, that it is not to be among the rows.</summary>
    internal Func<ulong, bool>? LeavesOut { private get; init; }

    internal int Matched { get; private set; }

    internal void Look(scoped in TcpSocketView socket)
    {
        int offset = socket.LocalPort - _firstPort;
        int service = (uint)offset < (uint)_serviceOfPort.Length ? _serviceOfPort[offset] : -1;
        if (service >= 0 && _nextOnPort[service] >= 0) service = ServiceOf(service, socket.Local);
        if (service < 0) return;
        TcpStates state = socket.State;
        uint inode = socket.Inode;
        if (state == TcpStates.Listen)
        {
            _listens[service] |= _held?.Holds(inode) ?? true;
            return;
        }
        if (inode != 0)
        {
            // What came after the look at the descriptors is the generation's too if nobody else can have it.
            if (_generation.PortsShared && !_held!.Holds(inode)) return;
            if (_held is null && _streams is not null && _streams.Samples.ContainsKey((socket.Peer, socket.PeerPort))) _met.Add((socket.Peer, socket.PeerPort));
            if (state == TcpStates.Established) _established++;
            else if (state == TcpStates.CloseWait) _halfClosed++;
            else _finishing++;
        }
        else if ((state & Open) != 0)
        {
            if (!_listens[service]) return;
            _notAccepted++;
        }
        else if (socket.SendQueue <= 1) // a FIN is one
        {
            _ending++;
            return;
        }
        else if (_generation.PortsShared && !IsKnown(socket))
        {
            _unknown++;
            return;
        }
        else
        {
            _orphans++;
        }
        _count[service]++;
        Match(socket, service, state, inode);
    }

    /// <summary>Of several front addresses with one port: that very address before the one that has it among others.</summary>
    private int ServiceOf(int first, PeerAddress local)
    {
        IPAddress address = local.ToIPAddress();
        int found = -1;
        for (int i = first; i >= 0; i = _nextOnPort[i])
        {
            Service service = _generation.Ports[i].Service;
            if (new Service(address, service.Port).Overlaps(service) && (found < 0 || service.Breadth < _generation.Ports[found].Service.Breadth)) found = i;
        }
        return found;
    }

    internal ClientSockets Sockets() => new(_established, _halfClosed, _finishing, _notAccepted, _orphans, _ending, _unknown,
        Enumerable.Range(0, _count.Length).Where(i => _count[i] > 0).GroupBy(i => _generation.Ports[i].Service.ToString(), i => _count[i])
            .ToImmutableSortedDictionary(g => g.Key, g => g.Sum(), StringComparer.Ordinal));

    internal IReadOnlyList<ClientRow> Sorted()
    {
        List<ClientRow> rows = [.. _first.UnorderedItems.Select(r => r.Element)];
        rows.Sort(_order);
        return rows;
    }

    internal ImmutableArray<ConnectionStatus> Rows() => [.. Sorted().Select(Told)];

    internal ImmutableArray<NetworkStatus>? Networks()
    {
        if (_query.Networks is not { } prefixes) return null;
        return [.. _networks.OrderByDescending(n => n.Value.Connections).ThenBy(n => n.Key).Take(_query.Limit).Select(n => new NetworkStatus(
            $"{n.Key}/{(n.Key.IsIPv4 ? prefixes.IPv4 : prefixes.IPv6)}", n.Value.Connections, Round(n.Value.OldestS),
            n.Value.LeastIdleMs / 1000.0, n.Value.BytesIn, n.Value.BytesOut))];
    }

    private void Match(scoped in TcpSocketView socket, int service, TcpStates state, uint inode)
    {
        if (LeavesOut?.Invoke(socket.Id.Cookie) == true || !_asked[service]) return;
        PeerAddress peer = socket.Peer;
        int port = socket.PeerPort;
        if (_query.Peer is { } filter && !filter.Matches(peer, port)) return;
        var (age, atLeast) = _query.NeedsEveryAge ? Age(peer, port, service, inode) : (null, false);
        if (_query.Older is { } older && !(age > older.TotalSeconds)) return;
        Matched++;
        TcpInfoView info = socket.Info;
        var row = new ClientRow(peer, port, service, state, inode == 0 && (state & Open) == 0, inode, info.IdleMs, (long)(info.BytesReceived ?? 0),
            (long)(info.BytesAcknowledged ?? 0), age, atLeast, socket.Id);
        if (_query.Networks is { } prefixes)
        {
            PeerAddress network = peer.NetworkOf(peer.IsIPv4 ? prefixes.IPv4 : prefixes.IPv6);
            CollectionsMarshal.GetValueRefOrAddDefault(_networks, network, out _).Add(row);
        }
        if (_first.Count < _query.Limit) _first.Enqueue(row, row);
        else if (_query.Limit > 0 && _order(row, _first.Peek()) < 0) _first.DequeueEnqueue(row, row);
    }

    private bool IsKnown(scoped in TcpSocketView socket) =>
        _firstSeen?.Invoke(new IPEndPoint(socket.Peer.ToIPAddress(), socket.PeerPort), socket.LocalPort).FirstSeen is not null;

    private (double? Seconds, bool AtLeast) Age(PeerAddress peer, int port, int service, uint inode)
    {
        double? ledger = null;
        if (_firstSeen is not null)
        {
            var (seen, exact) = _firstSeen(new IPEndPoint(peer.ToIPAddress(), port), _generation.Ports[service].PrivatePort);
            if (seen is { } since) ledger = Math.Max(0, (_now - since).TotalSeconds);
            if (exact && ledger is not null) return (ledger, false);
        }
        // A stream is at most as old as its connection, and its age is told in cut units: both are bounds from below.
        double? stream = StreamOf(peer, port, inode) is { AgeSeconds: >= 0 and var told } ? told : null;
        double? age = ledger is { } a && stream is { } b ? Math.Max(a, b) : ledger ?? stream;
        return (age, age is not null);
    }

    private ClientStream? StreamOf(PeerAddress peer, int port, uint inode) =>
        _streams is null || inode == 0 ? null : _streams[_held?.DescriptorOf(inode) ?? _streams.DescriptorOf(peer, port)];

    /// <summary>HAProxy's descriptor for the connection, looked at once more; -1: it has no stream for it.</summary>
    internal int DescriptorOf(ClientRow row)
    {
        if (_streams is null || row.Inode == 0) return -1;
        int descriptor = _held?.DescriptorOf(row.Inode) ?? _streams.DescriptorOf(row.Peer, row.PeerPort);
        // Closed, and opened again, between two looks: another socket.
        return _streams[descriptor] is not null && ProcessDescriptors.Inode(_generation.Pid, descriptor) == row.Inode ? descriptor : -1;
    }

    private ConnectionStatus Told(ClientRow row)
    {
        ClientStream? stream = _streams?[DescriptorOf(row)];
        var (age, atLeast) = row.AgeS is null ? Age(row.Peer, row.PeerPort, row.Service, row.Inode) : (row.AgeS, row.AgeIsAtLeast);
        return new ConnectionStatus(_generation.Number, _generation.Role, new IPEndPoint(row.Peer.ToIPAddress(), row.PeerPort).ToString(),
            _generation.Ports[row.Service].Service.ToString(), stream?.Frontend, stream?.Backend, stream?.Server, NameOf(row.State),
            Round(age), atLeast, row.IdleMs / 1000.0, row.BytesIn, row.BytesOut, row.Orphan);
    }

    private static double? Round(double? seconds) => seconds is { } s ? Math.Round(s, 3) : null;

    /// <summary>As ss(8) says it.</summary>
    private static string NameOf(TcpStates state) => state switch
    {
        TcpStates.Established => "established",
        TcpStates.CloseWait => "close-wait",
        TcpStates.FinWait1 => "fin-wait-1",
        TcpStates.FinWait2 => "fin-wait-2",
        TcpStates.LastAck => "last-ack",
        TcpStates.Closing => "closing",
        _ => state.ToString(),
    };

    private static Comparison<ClientRow> Order(ClientOrder order)
    {
        Comparison<ClientRow> key = order switch
        {
            ClientOrder.Age => (a, b) => (b.AgeS ?? -1).CompareTo(a.AgeS ?? -1),
            ClientOrder.Bytes => (a, b) => (b.BytesIn + b.BytesOut).CompareTo(a.BytesIn + a.BytesOut),
            ClientOrder.Peer => (_, _) => 0,
            _ => (a, b) => (b.IdleMs ?? -1L).CompareTo(a.IdleMs ?? -1L),
        };
        return (a, b) => key(a, b) is not 0 and var first ? first
            : a.Peer.CompareTo(b.Peer) is not 0 and var peer ? peer
            : a.PeerPort.CompareTo(b.PeerPort);
    }

    private struct NetworkSum
    {
        internal int Connections;
        internal double? OldestS;
        internal uint? LeastIdleMs;
        internal long BytesIn, BytesOut;

        internal void Add(in ClientRow row)
        {
            Connections++;
            if (row.AgeS > OldestS || OldestS is null) OldestS = row.AgeS ?? OldestS;
            if (row.IdleMs < LeastIdleMs || LeastIdleMs is null) LeastIdleMs = row.IdleMs ?? LeastIdleMs;
            BytesIn += row.BytesIn;
            BytesOut += row.BytesOut;
        }
    }
}
