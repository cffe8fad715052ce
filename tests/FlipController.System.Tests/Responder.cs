using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using FlipController.Core;

namespace FlipController.SystemTests;

internal sealed record Request(string Method, string Path, string Body);

/// <param name="Text">Sent as it is; null: nothing, and the connection stays open.</param>
/// <param name="Open">The connection stays open after it.</param>
internal sealed record Reply(string? Text, bool Open = false)
{
    /// <summary>It is sent when this is set.</summary>
    public ManualResetEventSlim? After { get; init; }

    public static Reply HangUp { get; } = new("");

    public static Reply Never { get; } = new(null, Open: true);

    public static Reply Json<T>(int status, T record, JsonTypeInfo<T> type)
    {
        string body = JsonSerializer.Serialize(record, type);
        return new($"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {Encoding.UTF8.GetByteCount(body)}\r\nConnection: close\r\n\r\n{body}");
    }

    public static Reply Stream(params PairNotice[] notices) =>
        new("HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n"
            + string.Concat(notices.Select(n => JsonSerializer.Serialize(n, WireJson.Default.PairNotice) + "\n")), Open: true);
}

/// <summary>A unix socket that gives one answer to each request: for what flipctl makes of answers, not for what the daemon does.</summary>
internal sealed class Responder : IDisposable
{
    private readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly CancellationTokenSource _over = new();
    private readonly TaskCompletionSource _asked = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Task _accepting;

    public Responder(string path, Func<Request, Reply> answer)
    {
        _listener.Bind(new UnixDomainSocketEndPoint(path));
        _listener.Listen();
        _accepting = AcceptAsync(answer);
    }

    /// <summary>Done when the first request has arrived.</summary>
    public Task Asked => _asked.Task;

    public void Dispose()
    {
        _over.Cancel();
        _listener.Dispose();
        _accepting.GetAwaiter().GetResult();
        _over.Dispose();
    }

    private async Task AcceptAsync(Func<Request, Reply> answer)
    {
        var serving = new List<Task>();
        try
        {
            while (true)
            {
                Socket connection = await _listener.AcceptAsync(_over.Token);
                serving.Add(Task.Run(() => ServeAsync(connection, answer)));
            }
        }
        catch (Exception e) when (e is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            await Task.WhenAll(serving);
        }
    }

    private async Task ServeAsync(Socket connection, Func<Request, Reply> answer)
    {
        using (connection)
        {
            try
            {
                if (await ReadAsync(connection) is not { } request) return;
                _asked.TrySetResult();
                Reply reply = answer(request);
                reply.After?.Wait(_over.Token);
                if (reply.Text is { Length: > 0 } text) await connection.SendAsync(Encoding.UTF8.GetBytes(text), _over.Token);
                // Until the other side has had enough.
                if (reply.Open) await connection.ReceiveAsync(new byte[1], _over.Token);
            }
            catch (Exception e) when (e is OperationCanceledException or SocketException)
            {
                // The test is over, or flipctl hung up.
            }
        }
    }

    private async Task<Request?> ReadAsync(Socket connection)
    {
        var text = new StringBuilder();
        byte[] buffer = new byte[4096];
        while (true)
        {
            int head = text.ToString().IndexOf("\r\n\r\n", StringComparison.Ordinal);
            if (head >= 0)
            {
                string[] lines = text.ToString(0, head).Split("\r\n");
                string body = text.ToString(head + 4, text.Length - head - 4);
                int length = lines.FirstOrDefault(l => l.StartsWith("Content-Length: ", StringComparison.Ordinal)) is { } l ? int.Parse(l["Content-Length: ".Length..]) : 0;
                if (body.Length >= length)
                {
                    string[] words = lines[0].Split(' ');
                    return new Request(words[0], words[1], body);
                }
            }
            int read = await connection.ReceiveAsync(buffer, _over.Token);
            if (read == 0) return null;
            text.Append(Encoding.UTF8.GetString(buffer, 0, read));
        }
    }
}
