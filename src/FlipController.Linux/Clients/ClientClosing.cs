using System.Collections.Immutable;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Clients;

/// <summary>What became of connections that were to be closed.</summary>
/// <param name="Matched">Those that were meant, without those that HAProxy was told to close a moment ago.</param>
/// <param name="ByHaproxy">Their streams were shut down: the client gets what HAProxy sends then, and the end.</param>
/// <param name="ByKernel">They had no stream, or HAProxy cannot be asked: the kernel reset them (SOCK_DESTROY).</param>
/// <param name="Gone">They were closed by themselves meanwhile.</param>
/// <param name="Left">Neither could be done: they end with the process.</param>
/// <param name="Why">Why they are left; null: none is.</param>
/// <param name="Again">Of those that the kernel was to close: HAProxy had been told before, and they were counted then.</param>
public sealed record ClientsClosed(int Matched, int ByHaproxy, int ByKernel, int Gone, int Left, string? Why, int Again = 0)
{
    /// <summary>Each counted once, whatever it took.</summary>
    public int Closed => ByHaproxy + Math.Max(0, ByKernel - Again);
}

/// <summary>
/// Closes connections of a generation: through HAProxy (<c>shutdown session</c>) where it has a stream for them, which ends both sides as
/// a timeout would; else by the kernel. HAProxy's list is read for whose streams are whose, and for their ids again once that is known; a stream's id is a pointer that HAProxy uses again, so right
/// before its shutdown it is looked at once more: the same source, and the descriptor still the same socket.
/// <para>HAProxy still sends what it has for the client, which one that reads nothing would keep waiting until its timeout, and a stream
/// that waits for content (<c>inspect-delay</c>) does not notice its shutdown: one that is there <see cref="Grace"/> after it is closed
/// by the kernel when it comes to it again. One of these a generation, for it remembers whom it has told.</para>
/// </summary>
public sealed class ClientClosing(GenerationClients clients)
{
    /// <summary>So many at a time are looked at and shut down: some 100 kB of answers, a millisecond or two.</summary>
    private const int Batch = 16;

    public static readonly TimeSpan Grace = TimeSpan.FromSeconds(5);

    /// <summary>By <see cref="TcpSocketId.Cookie"/>: when its streams were shut down.</summary>
    private Dictionary<ulong, DateTimeOffset> _told = [];

    /// <summary>How many were told to leave and had not left when it was last looked.</summary>
    public int Told => _told.Count;

    /// <param name="query">Whom; its limit is how many are closed at most, those that come first by its order.</param>
    /// <param name="haproxy">Null: it cannot be asked.</param>
    /// <exception cref="FlipException">The kernel or HAProxy could not be asked for the list; nothing was closed.</exception>
    public async Task<ClientsClosed> CloseAsync(
        ClientsOf generation, ClientQuery query, AdminChannel? haproxy, FirstSeen? firstSeen, DateTimeOffset now, CancellationToken stop = default)
    {
        string? why = null;
        HaproxyStreams? streams = null;
        try
        {
            if (haproxy is not null) streams = await HaproxyStreams.ReadAsync(haproxy, stop);
        }
        catch (FlipException e) when (!query.NeedsEveryAge)
        {
            (haproxy, why) = (null, e.Message);
        }
        Dictionary<ulong, DateTimeOffset> still = [];
        IReadOnlyList<(ClientRow Row, int Descriptor)> rows = await clients.RowsAsync(generation, query with { Networks = null }, streams, firstSeen, now, socket =>
        {
            if (!_told.TryGetValue(socket, out DateTimeOffset told)) return false;
            still[socket] = told;
            return now - told < Grace;
        }, stop);
        _told = still;
        var meant = rows.ToDictionary(r => r.Row.Socket.Cookie, r => r.Row);
        var gentle = rows.Where(r => r.Descriptor >= 0 && !_told.ContainsKey(r.Row.Socket.Cookie)).ToDictionary(r => r.Descriptor, r => r.Row);
        if (haproxy is not null && gentle.Count > 0)
        {
            try
            {
                await ShutDownAsync(generation.Pid, haproxy, gentle, meant, stop);
            }
            catch (FlipException e)
            {
                why = e.Message; // what is left the kernel closes
            }
            finally
            {
                foreach ((ClientRow row, _) in rows)
                    if (!meant.ContainsKey(row.Socket.Cookie)) _told[row.Socket.Cookie] = now;
            }
        }
        int byHaproxy = rows.Count - meant.Count, again = meant.Keys.Count(_told.ContainsKey);
        var (byKernel, gone, left, refused) = await clients.DestroyAsync(meant.Values, stop);
        return new ClientsClosed(rows.Count, byHaproxy, byKernel, gone, left, left > 0 ? refused ?? why : null, again);
    }

    /// <summary>Takes from <paramref name="meant"/> what HAProxy closes.</summary>
    private static async Task ShutDownAsync(
        int pid, AdminChannel haproxy, Dictionary<int, ClientRow> byDescriptor, Dictionary<ulong, ClientRow> meant, CancellationToken stop)
    {
        var listed = new List<Listed>();
        await haproxy.LinesAsync("show sess", line =>
        {
            if (StreamLine.TryParse(line, out StreamLine stream) && !stream.IsOwn && byDescriptor.TryGetValue(stream.ClientDescriptor, out ClientRow row))
                listed.Add(new Listed(Encoding.ASCII.GetString(stream.Id), Encoding.ASCII.GetString(stream.Source), stream.ClientDescriptor, row));
        }, stop);
        foreach (Listed[] batch in listed.Chunk(Batch))
        {
            string[] looks = await haproxy.AnswersAsync([.. batch.Select(s => $"show sess {s.Id}")], stop);
            Listed[] still = [.. batch.Where((s, i) => IsStill(s, looks[i], pid))];
            string[] answers = await haproxy.AnswersAsync([.. still.Select(s => $"shutdown session {s.Id}")], stop);
            // Silence is success; what it says is that the stream is gone.
            for (int i = 0; i < still.Length; i++)
                if (string.IsNullOrWhiteSpace(answers[i])) meant.Remove(still[i].Row.Socket.Cookie);
        }
    }

    /// <summary><c>0x55d0: [..] id=3 proto=tcpv4 source=127.0.0.1:1234</c>; without an address, <c>source=unix:1</c> or none at all.</summary>
    private static bool IsStill(Listed stream, string look, int pid)
    {
        int end = look.IndexOf('\n', StringComparison.Ordinal);
        string first = end < 0 ? look : look[..end];
        return first.StartsWith(stream.Id + ":", StringComparison.Ordinal)
            && (stream.Source.Length == 0 || first.TrimEnd().EndsWith($"source={stream.Source}", StringComparison.Ordinal))
            && ProcessDescriptors.Inode(pid, stream.Descriptor) == stream.Row.Inode;
    }

    private sealed record Listed(string Id, string Source, int Descriptor, ClientRow Row);
}
