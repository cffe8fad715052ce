using System.Net.Sockets;
using System.Text;
using FlipController.Core;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// A session with HAProxy's stats socket that outlives a soft stop. The soft stop closes the socket, but not a session that was
/// opened before it in interactive mode ("prompt"): through it a stopping process can still be asked how many connections it has.
/// <b>The session is itself a job that keeps the process alive:</b> once nothing else is left (<see cref="IsDrained"/>) it has to
/// be closed, and then HAProxy ends. Any number of callers may ask; each waits for its turn.
/// </summary>
public sealed class AdminSession : IAsyncDisposable
{
    private readonly NetworkStream stream;
    private readonly string path;
    private readonly TimeSpan timeout;
    private readonly SemaphoreSlim turn = new(1, 1);
    private readonly AdminLines lines = new();
    /// <summary>Answers that have not ended: those of the present caller, and of earlier ones that gave up.</summary>
    private int owed;
    private string? broken;
    private bool overdue;

    private AdminSession(NetworkStream stream, string path, TimeSpan timeout) =>
        (this.stream, this.path, this.timeout) = (stream, path, timeout);

    internal static async Task<AdminSession> OpenAsync(string path, TimeSpan timeout, CancellationToken cancellation)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), cancellation);
        }
        catch (Exception e)
        {
            socket.Dispose();
            if (e is not (SocketException or ArgumentException)) throw;
            throw new FlipException($"cannot open a session with HAProxy on {path}: {e.Message}; nothing was changed", e);
        }
        var session = new AdminSession(new NetworkStream(socket, ownsSocket: true), path, timeout);
        try
        {
            await session.CommandAsync("prompt", cancellation);
            // Otherwise "stats timeout", 10 s unless the user says more, ends it between two questions.
            await session.CommandAsync("set timeout cli 24h", cancellation);
            return session;
        }
        catch
        {
            await session.DisposeAsync();
            throw;
        }
    }

    /// <summary>Nothing but this session keeps the process alive.</summary>
    public static bool IsDrained(HaproxyInfo info) => info is { Stopping: true, CurrConns: 0 } && info.Jobs - info.UnstoppableJobs <= 1;

    /// <summary>Nothing can be asked through it any more, and it still keeps HAProxy alive: it is to be closed.</summary>
    public bool IsBroken => Volatile.Read(ref broken) is not null && turn.CurrentCount > 0;

    public async Task<HaproxyInfo> ShowInfoAsync(CancellationToken cancellation = default)
    {
        string answer = await CommandAsync("show info", cancellation);
        return HaproxyInfo.Parse(answer) ?? throw Failure("show info", $"it answered \"{answer.Trim()}\"", null);
    }

    /// <summary>The answer, without the empty line that ends it.</summary>
    public async Task<string> CommandAsync(string command, CancellationToken cancellation = default) =>
        (await AnswersAsync([command], cancellation))[0];

    /// <summary>
    /// Gives the answer to a command line by line, and holds none of it. A visitor that throws, or a caller that gives up, leaves the
    /// session in order: the rest of that answer is passed over.
    /// </summary>
    public Task LinesAsync(string command, LineVisitor visit, CancellationToken cancellation = default) =>
        AskAsync([command], (_, line) => visit(line), cancellation);

    /// <summary>Asks several short things at once: all are sent before the first is answered, so keep them below a few kilobytes.</summary>
    public async Task<string[]> AnswersAsync(IReadOnlyList<string> commands, CancellationToken cancellation = default)
    {
        var texts = new StringBuilder?[commands.Count];
        await AskAsync(commands, (i, line) =>
            (texts[i] is { } text ? text.Append('\n') : texts[i] = new StringBuilder()).Append(Encoding.Latin1.GetString(line)), cancellation);
        return [.. texts.Select(t => t?.ToString() ?? "")];
    }

    private async Task AskAsync(IReadOnlyList<string> commands, Action<int, ReadOnlySpan<byte>> visit, CancellationToken cancellation)
    {
        if (commands.Count == 0) return;
        if (!await turn.WaitAsync(timeout, cancellation))
            throw Failure(commands[0], $"it has not answered another question for {timeout.TotalSeconds:0.###} s", null);
        // HAProxy may take long for a long answer, but not be silent for long.
        using var silence = new CancellationTokenSource(timeout);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(silence.Token, cancellation);
        try
        {
            if (broken is not null) throw Failure(commands[0], broken, null);
            // It owes an answer that is overdue: until it says something nobody else need wait for it.
            if (overdue && !stream.DataAvailable) throw Failure(commands[0], $"it has not answered for {timeout.TotalSeconds:0.###} s", null);
            overdue = false;
            // A line each: with ';' newer versions write one prompt for all of them (src/cli.c, cli_io_handler: "pipelined commands").
            broken = "a command before it was sent in part";
            // Who gives up meanwhile must not leave half a command behind.
            await stream.WriteAsync(Encoding.Latin1.GetBytes(string.Join('\n', commands) + "\n"), silence.Token);
            broken = null;
            owed += commands.Count;
            while (owed > 0)
            {
                switch (lines.Next(interactive: true, out ReadOnlySpan<byte> line))
                {
                    case AdminLines.Piece.Prompt:
                        owed--;
                        break;
                    case AdminLines.Piece.Line when owed <= commands.Count:
                        visit(commands.Count - owed, line);
                        break;
                    case AdminLines.Piece.None:
                        int read = await stream.ReadAsync(lines.Room(), either.Token);
                        if (read == 0) throw Failure(commands[0], broken = "HAProxy closed the session", null);
                        lines.Added(read);
                        silence.CancelAfter(timeout);
                        break;
                }
            }
        }
        catch (OperationCanceledException) when (silence.IsCancellationRequested && !cancellation.IsCancellationRequested)
        {
            overdue = true;
            throw Failure(commands[0], $"no answer within {timeout.TotalSeconds:0.###} s", null);
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            throw Failure(commands[0], e.Message, e);
        }
        finally
        {
            turn.Release();
        }
    }

    private FlipException Failure(string command, string why, Exception? inner) =>
        new($"cannot ask HAProxy \"{command}\" in the session on {path}: {why}; nothing was changed", inner);

    public ValueTask DisposeAsync() => stream.DisposeAsync();
}
