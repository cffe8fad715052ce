using System.Collections.Immutable;
using System.Globalization;
using System.Net.Sockets;
using System.Text;
using FlipController.Core;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// HAProxy's stats socket (management manual, 9.3 "Unix Socket commands"): one command a connection, answered until HAProxy
/// closes it. A cut answer is an error, never half a truth; nothing is asked twice.
/// A soft stop closes this socket with every other listener (src/proxy.c, do_soft_stop_now): a process that is
/// stopping can only be asked through a session opened before, <see cref="OpenSessionAsync"/>.
/// </summary>
public sealed class AdminSocket(string path, TimeSpan? timeout = null)
{
    private const int LongestAnswer = 1 << 20;

    private readonly TimeSpan timeout = timeout ?? TimeSpan.FromSeconds(5);

    public string Path { get; } = path;

    /// <summary>The answer to any command, as HAProxy gives it.</summary>
    public async Task<string> CommandAsync(string command, CancellationToken cancellation = default)
    {
        using var overrun = new CancellationTokenSource(timeout);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(overrun.Token, cancellation);
        try
        {
            using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(Path), either.Token);
            await using var stream = new NetworkStream(socket);
            await stream.WriteAsync(Encoding.UTF8.GetBytes(command + "\n"), either.Token);
            using var reader = new StreamReader(stream, Encoding.UTF8);
            return await reader.ReadToEndAsync(either.Token);
        }
        catch (OperationCanceledException) when (overrun.IsCancellationRequested && !cancellation.IsCancellationRequested)
        {
            throw Failure(command, $"no answer within {timeout.TotalSeconds:0.###} s", null);
        }
        catch (Exception e) when (e is SocketException or IOException or ArgumentException)
        {
            throw Failure(command, e.Message, e);
        }
    }

    /// <summary>Gives the answer to a command line by line, and holds none of it. The empty line that ends it comes last.</summary>
    public async Task LinesAsync(string command, LineVisitor visit, CancellationToken cancellation = default)
    {
        // HAProxy may take long for a long answer, but not be silent for long.
        using var silence = new CancellationTokenSource(timeout);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(silence.Token, cancellation);
        try
        {
            using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(Path), either.Token);
            await using var stream = new NetworkStream(socket);
            await stream.WriteAsync(Encoding.UTF8.GetBytes(command + "\n"), either.Token);
            var lines = new AdminLines();
            bool ended = false;
            while (await stream.ReadAsync(lines.Room(), either.Token) is > 0 and int read)
            {
                silence.CancelAfter(timeout);
                lines.Added(read);
                while (lines.Next(interactive: false, out ReadOnlySpan<byte> line) == AdminLines.Piece.Line)
                {
                    ended = line.IsEmpty;
                    visit(line);
                }
            }
            if (!ended || !lines.IsEmpty) throw Failure(command, "the answer was cut", null);
        }
        catch (OperationCanceledException) when (silence.IsCancellationRequested && !cancellation.IsCancellationRequested)
        {
            throw Failure(command, $"no answer within {timeout.TotalSeconds:0.###} s", null);
        }
        catch (Exception e) when (e is SocketException or IOException or ArgumentException)
        {
            throw Failure(command, e.Message, e);
        }
    }

    /// <summary>Asks many short things over one connection.</summary>
    public Task<string[]> AnswersAsync(IReadOnlyList<string> commands, CancellationToken cancellation = default) =>
        AdminBatch.RunAsync(Path, commands, timeout, LongestAnswer, cancellation);

    /// <summary><c>show info</c>.</summary>
    public async Task<HaproxyInfo> ShowInfoAsync(CancellationToken cancellation = default)
    {
        string answer = await WholeAsync("show info", cancellation);
        return HaproxyInfo.Parse(answer) ?? throw Unexpected("show info", answer);
    }

    /// <summary><c>show stat</c>: every frontend, backend, server and listener.</summary>
    public async Task<ImmutableArray<StatRow>> ShowStatAsync(CancellationToken cancellation = default)
    {
        string answer = await WholeAsync("show stat", cancellation);
        return StatRow.Parse(answer) ?? throw Unexpected("show stat", answer);
    }

    /// <summary>Every server with what its checks have found.</summary>
    public async Task<ImmutableArray<ServerState>> ServersAsync(CancellationToken cancellation = default) =>
        ServerState.Of(await ShowStatAsync(cancellation));

    /// <summary><c>show peers</c>: one entry a section, none when the configuration has no peers.</summary>
    public async Task<ImmutableArray<PeersState>> PeersAsync(CancellationToken cancellation = default) =>
        PeersState.Parse(await WholeAsync("show peers", cancellation));

    /// <summary>A session that goes on during a soft stop, and keeps the process from ending until it is closed.</summary>
    public Task<AdminSession> OpenSessionAsync(CancellationToken cancellation = default) =>
        AdminSession.OpenAsync(Path, timeout, cancellation);

    /// <summary>An answer ends with an empty line (management manual, 9.3); one without it was cut, as by the death of HAProxy.</summary>
    private async Task<string> WholeAsync(string command, CancellationToken cancellation)
    {
        string answer = await CommandAsync(command, cancellation);
        return answer.EndsWith("\n\n", StringComparison.Ordinal) || answer == "\n" ? answer : throw Unexpected(command, answer);
    }

    private FlipException Unexpected(string command, string answer)
    {
        string end = answer.Trim() is { Length: > 200 } text ? $"… {text[^200..]}" : answer.Trim();
        return Failure(command, $"it answered {answer.Length} characters, \"{end}\"", null);
    }

    private FlipException Failure(string command, string why, Exception? inner) =>
        new($"cannot ask HAProxy \"{command}\" on {Path}: {why}; nothing was changed", inner);
}

/// <param name="CurrConns">Open client connections; not those of the stats socket and of peers (src/listener.c, LI_O_UNLIMITED).</param>
/// <param name="Stopping">A soft stop is under way.</param>
/// <param name="Jobs">What keeps the process alive: listeners, connections, peers.</param>
/// <param name="UnstoppableJobs">Those of them that a soft stop does not wait for.</param>
public sealed record HaproxyInfo(
    string Version, int Pid, TimeSpan Uptime, int CurrConns, int Maxconn, bool Stopping, int Jobs, int UnstoppableJobs, int Listeners,
    ImmutableDictionary<string, string> Fields)
{
    public static HaproxyInfo? Parse(string answer)
    {
        var fields = ImmutableDictionary.CreateBuilder<string, string>();
        foreach (string line in answer.Split('\n'))
            if (line.IndexOf(':', StringComparison.Ordinal) is > 0 and int colon) fields[line[..colon]] = line[(colon + 1)..].Trim();
        int Number(string name) =>
            int.TryParse(fields.GetValueOrDefault(name), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int n) ? n : 0;
        return Number("Pid") == 0 ? null : new(
            fields.GetValueOrDefault("Version", ""), Number("Pid"), TimeSpan.FromSeconds(Number("Uptime_sec")), Number("CurrConns"),
            Number("Maxconn"), Number("Stopping") != 0, Number("Jobs"), Number("Unstoppable Jobs"), Number("Listeners"),
            fields.ToImmutable());
    }
}
