using System.Collections.Immutable;
using System.Net;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Clients;

/// <summary>Whose clients are asked for.</summary>
/// <param name="Role">active, standby, previous or retired: as it is told.</param>
/// <param name="PortsShared">
/// Another generation that still has sockets uses the same private ports, as the slot's next one does, or it listens on the front addresses. Then a port does not tell whose a
/// socket is that no process holds.
/// </param>
public sealed record ClientsOf(int Number, string Role, int Pid, ImmutableArray<ServicePort> Ports, bool PortsShared)
{
    public ClientsOf(Generation generation, string role, bool portsShared)
        : this(generation.Number, role, generation.Pid, generation.Ports, portsShared) { }

    internal PortBlock Span
    {
        get
        {
            int first = Ports.Min(p => p.PrivatePort);
            return new PortBlock(first, Ports.Max(p => p.PrivatePort) - first + 1);
        }
    }
}

/// <summary>When a connection was seen first; exactly: its opening was seen. Null: the ledger of the generation does not know it.</summary>
public delegate (DateTimeOffset? FirstSeen, bool Exact) FirstSeen(IPEndPoint peer, int privatePort);

/// <summary>What was found.</summary>
/// <param name="Matched">Connections that pass the query's filters; <paramref name="Rows"/> holds the first of them.</param>
/// <param name="Streams">HAProxy's streams; null: it was not asked.</param>
public sealed record ClientsFound(
    ClientSockets Sockets, int Matched, ImmutableArray<ConnectionStatus> Rows, ImmutableArray<NetworkStatus>? Networks, int? Streams)
{
    public int Total => Sockets.Total;
}

/// <summary>
/// Who is connected to a generation: the kernel's sockets on its private ports, joined with what HAProxy and the ledger know of them.
/// One walk over the sockets; memory follows what is shown, not what is there, but for a hundred bytes a stream.
/// <para>Whose a socket is: the process's whose descriptor it is, or whose descendant's, which need not be asked where nobody shares the ports. One that is open and that nobody holds waits in a listener's queue, and is
/// the listener's. One that is closing and that nobody holds (an orphan) is the generation's when its ledger knows the connection, or when
/// no other generation uses the port; else nobody can say, and it is counted apart.</para>
/// </summary>
/// <param name="sockets">
/// Of the namespace in which the generations listen, and of nobody else's use: any number may ask, and one walks while the next one's
/// HAProxy writes its list.
/// </param>
public sealed class GenerationClients(SockDiag sockets)
{
    private readonly SemaphoreSlim _turn = new(1, 1), _reading = new(1, 1);

    /// <param name="haproxy">Null: it cannot be asked; then no names are told, and ages only by the ledger.</param>
    /// <exception cref="FlipException">The kernel or HAProxy refused.</exception>
    public async Task<ClientsFound> FindAsync(
        ClientsOf generation, ClientQuery query, AdminChannel? haproxy, FirstSeen? firstSeen, DateTimeOffset now, CancellationToken stop = default)
    {
        HaproxyStreams? streams = haproxy is null ? null : await ReadAsync(haproxy, stop);
        await _turn.WaitAsync(stop);
        try
        {
            ClientWalk walk = await Task.Run(() => Walk(generation, query, streams, firstSeen, now), stop);
            return new ClientsFound(walk.Sockets(), walk.Matched, walk.Rows(), walk.Networks(), streams?.Count);
        }
        finally
        {
            _turn.Release();
        }
    }

    /// <summary>One list at a time: each takes some memory.</summary>
    private async Task<HaproxyStreams> ReadAsync(AdminChannel haproxy, CancellationToken stop)
    {
        await _reading.WaitAsync(stop);
        try
        {
            return await HaproxyStreams.ReadAsync(haproxy, stop);
        }
        finally
        {
            _reading.Release();
        }
    }

    /// <summary>Only the counts.</summary>
    public async Task<ClientSockets> CountAsync(ClientsOf generation, FirstSeen? firstSeen = null, CancellationToken stop = default) =>
        (await FindAsync(generation, new ClientQuery(Limit: 0), null, firstSeen, default, stop)).Sockets;

    /// <summary>The connections that come first by the query, as they are to be closed, and HAProxy's descriptors of those with a stream.</summary>
    internal async Task<IReadOnlyList<(ClientRow Row, int Descriptor)>> RowsAsync(
        ClientsOf generation, ClientQuery query, HaproxyStreams? streams, FirstSeen? firstSeen, DateTimeOffset now, Func<ulong, bool> leavesOut,
        CancellationToken stop)
    {
        await _turn.WaitAsync(stop);
        try
        {
            return await Task.Run(() =>
            {
                ClientWalk walk = Walk(generation, query, streams, firstSeen, now, leavesOut);
                return walk.Sorted().Select(r => (r, walk.DescriptorOf(r))).ToList();
            }, stop);
        }
        finally
        {
            _turn.Release();
        }
    }

    /// <summary>By the kernel, without a word to HAProxy.</summary>
    internal async Task<(int Destroyed, int Gone, int Left, string? Why)> DestroyAsync(IReadOnlyCollection<ClientRow> rows, CancellationToken stop)
    {
        if (rows.Count == 0) return default;
        await _turn.WaitAsync(stop);
        try
        {
            return Destroy(rows);
        }
        finally
        {
            _turn.Release();
        }
    }

    private (int Destroyed, int Gone, int Left, string? Why) Destroy(IEnumerable<ClientRow> rows)
    {
        int destroyed = 0, gone = 0, left = 0;
        string? why = null;
        foreach (ClientRow row in rows)
        {
            if (why is not null)
            {
                left++; // one refusal is every one's
                continue;
            }
            try
            {
                if (sockets.Destroy(row.Socket)) destroyed++;
                else gone++;
            }
            catch (KernelException e)
            {
                why = e.Message;
                left++;
            }
        }
        return (destroyed, gone, left, why);
    }

    private ClientWalk Walk(
        ClientsOf generation, ClientQuery query, HaproxyStreams? streams, FirstSeen? firstSeen, DateTimeOffset now, Func<ulong, bool>? leavesOut = null)
    {
        ClientWalk walk = Walk(generation.PortsShared ? ProcessDescriptors.ReadFamily(generation.Pid) : null);
        return generation.PortsShared || walk.AddressesTell ? walk : Walk(ProcessDescriptors.ReadFamily(generation.Pid));

        ClientWalk Walk(ProcessDescriptors? held)
        {
            var walk = new ClientWalk(generation, query, held, streams, firstSeen, now) { LeavesOut = leavesOut };
            if (!generation.Ports.IsEmpty) sockets.Walk(ClientWalk.States, generation.Span, walk, static (walk, scoped in socket) => walk.Look(socket));
            return walk;
        }
    }
}
