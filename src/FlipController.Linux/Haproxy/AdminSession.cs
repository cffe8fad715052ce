using System.Net.Sockets;
using System.Text;
using FlipController.Core;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// A session with HAProxy's stats socket that outlives a soft stop. The soft stop closes the socket, but not a session that was
/// opened before it in interactive mode ("prompt"): through it a stopping process can still be asked how many connections it has.
/// <b>The session is itself a job that keeps the process alive:</b> once nothing else is left (<see cref="IsDrained"/>) it has to
/// be closed, and then HAProxy ends. One command at a time.
/// </summary>
public sealed class AdminSession : IAsyncDisposable
{
    private const string Prompt = "\n> ";

    private readonly NetworkStream stream;
    private readonly string path;
    private readonly TimeSpan timeout;

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

    public async Task<HaproxyInfo> ShowInfoAsync(CancellationToken cancellation = default)
    {
        string answer = await CommandAsync("show info", cancellation);
        return HaproxyInfo.Parse(answer) ?? throw Failure("show info", $"it answered \"{answer.Trim()}\"", null);
    }

    private async Task<string> CommandAsync(string command, CancellationToken cancellation)
    {
        using var overrun = new CancellationTokenSource(timeout);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(overrun.Token, cancellation);
        try
        {
            await stream.WriteAsync(Encoding.UTF8.GetBytes(command + "\n"), either.Token);
            var answer = new StringBuilder();
            var buffer = new byte[16384];
            while (!(answer.Length >= Prompt.Length && answer.ToString(answer.Length - Prompt.Length, Prompt.Length) == Prompt))
            {
                int read = await stream.ReadAsync(buffer, either.Token);
                if (read == 0) throw Failure(command, "HAProxy closed the session", null);
                answer.Append(Encoding.Latin1.GetString(buffer, 0, read));
            }
            return answer.ToString(0, answer.Length - Prompt.Length);
        }
        catch (OperationCanceledException) when (overrun.IsCancellationRequested && !cancellation.IsCancellationRequested)
        {
            throw Failure(command, $"no answer within {timeout.TotalSeconds:0.###} s", null);
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            throw Failure(command, e.Message, e);
        }
    }

    private FlipException Failure(string command, string why, Exception? inner) =>
        new($"cannot ask the stopping HAProxy \"{command}\" in the session on {path}: {why}; nothing was changed", inner);

    public ValueTask DisposeAsync() => stream.DisposeAsync();
}
