using System.Buffers;
using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;

namespace FlipController.Load;

/// <summary>One client of a <see cref="Backend"/>, request after request.</summary>
internal sealed class BackendConnection(Backend backend, Socket socket)
{
    private const int MaxHead = 16 * 1024;

    // Full sizes only while there is much to say: thousands of idle connections must cost little.
    private byte[] _buffer = new byte[1024];
    private int _start, _end;

    private readonly record struct Request(
        string Method, string Path, string Query, long BodyLength, bool Closes, bool Upgrade, string? Key);

    public async Task Serve()
    {
        while (await ReadRequest() is { } request)
        {
            backend.CountRequest();
            if (!await Skip(request.BodyLength)) return;
            await backend.WaitWhileStalled();
            if (request.Upgrade)
            {
                await Echo(request);
                return;
            }
            await Answer(request);
            if (request.Closes)
            {
                await Part();
                return;
            }
        }
    }

    private async Task Answer(Request request)
    {
        var (head, segments) = (request.Method == "HEAD", request.Path.Split('/'));
        switch (segments)
        {
            case ["", ""]:
                await Send(request, 200, head);
                break;
            case ["", "bytes", var n] when long.TryParse(n, NumberStyles.None, CultureInfo.InvariantCulture, out var length):
                await SendBytes(request, length, head);
                break;
            case ["", "status", var code] when int.TryParse(code, NumberStyles.None, CultureInfo.InvariantCulture, out var status)
                    && status is >= 200 and <= 599:
                await Send(request, status, head);
                break;
            case ["", "slow", var ms] when int.TryParse(ms, NumberStyles.None, CultureInfo.InvariantCulture, out var delay):
                await Task.Delay(delay, backend.Ending);
                await Send(request, 200, head);
                break;
            case ["", "health"]:
                await Send(request, backend.Healthy ? 200 : 503, head);
                break;
            case ["", "health", "up" or "down"] when request.Method == "POST":
                backend.Healthy = segments[2] == "up";
                await Send(request, 200, head);
                break;
            default:
                await Send(request, 404, head);
                break;
        }
    }

    private async Task Send(Request request, int status, bool headOnly)
    {
        // 204 and 304 have no body, by definition.
        var body = status is 204 or 304 ? "" : backend.Name + "\n";
        var head = Head(request, status, Encoding.UTF8.GetByteCount(body), noBody: body.Length == 0);
        await Send(Encoding.UTF8.GetBytes(headOnly ? head : head + body));
    }

    private string Head(Request request, int status, long length, bool noBody = false) =>
        $"HTTP/1.1 {status} {(status < 400 ? "OK" : "Error")}\r\nX-Backend: {backend.Name}\r\n"
        + (noBody ? "" : string.Create(CultureInfo.InvariantCulture, $"Content-Type: text/plain\r\nContent-Length: {length}\r\n"))
        + (request.Closes ? "Connection: close\r\n\r\n" : "\r\n");

    private async Task SendBytes(Request request, long length, bool headOnly)
    {
        ulong seed = 0;
        long rate = 0;
        foreach (var pair in request.Query.Split('&'))
        {
            if (pair.StartsWith("seed=", StringComparison.Ordinal)) _ = ulong.TryParse(pair.AsSpan(5), CultureInfo.InvariantCulture, out seed);
            if (pair.StartsWith("rate=", StringComparison.Ordinal)) _ = long.TryParse(pair.AsSpan(5), CultureInfo.InvariantCulture, out rate);
        }
        await Send(Encoding.ASCII.GetBytes(Head(request, 200, length)));
        if (headOnly) return;

        var piece = ArrayPool<byte>.Shared.Rent(rate > 0 ? (int)Math.Clamp(rate / 20, 1, 64 * 1024) : 64 * 1024);
        try
        {
            var begun = Stopwatch.StartNew();
            for (long sent = 0; sent < length;)
            {
                if (rate > 0)
                {
                    // Ahead of the rate by no more than a piece.
                    var due = TimeSpan.FromSeconds((double)sent / rate) - begun.Elapsed;
                    if (due > TimeSpan.FromMilliseconds(1)) await Task.Delay(due, backend.Ending);
                }
                var count = (int)Math.Min(piece.Length, length - sent);
                Content.Fill(piece.AsSpan(0, count), seed, sent);
                await Send(piece.AsMemory(0, count));
                sent += count;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(piece);
        }
    }

    private async Task Echo(Request request)
    {
        // RFC 6455 section 4.2.2; HAProxy makes a 502 of a handshake without the answer to its key.
        var accept = request.Key is { } key
            ? "Sec-WebSocket-Accept: "
              + Convert.ToBase64String(SHA1.HashData(Encoding.ASCII.GetBytes(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))) + "\r\n"
            : "";
        await Send(Encoding.ASCII.GetBytes(
            $"HTTP/1.1 101 Switching Protocols\r\nX-Backend: {backend.Name}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{accept}\r\n"));
        do
        {
            if (_start < _end)
            {
                await backend.WaitWhileStalled();
                await Send(_buffer.AsMemory(_start, _end - _start));
            }
            _start = _end = 0;
        }
        while (await Fill());
        await Part();
    }

    /// <summary>Says that this was all and lets the client finish, so that neither side resets.</summary>
    private async Task Part()
    {
        socket.Shutdown(SocketShutdown.Send);
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(backend.Ending);
        patience.CancelAfter(TimeSpan.FromSeconds(5));
        while (await socket.ReceiveAsync(_buffer, SocketFlags.None, patience.Token) > 0)
        {
        }
    }

    private async Task Send(ReadOnlyMemory<byte> data)
    {
        while (!data.IsEmpty) data = data[await socket.SendAsync(data, SocketFlags.None, backend.Ending)..];
    }

    private async ValueTask<bool> Fill()
    {
        if (_end == _buffer.Length)
        {
            if (_start > 0)
            {
                _buffer.AsSpan(_start, _end - _start).CopyTo(_buffer);
                (_start, _end) = (0, _end - _start);
            }
            else
            {
                Array.Resize(ref _buffer, _buffer.Length * 2);
            }
        }
        var count = await socket.ReceiveAsync(_buffer.AsMemory(_end), SocketFlags.None, backend.Ending);
        _end += count;
        return count > 0;
    }

    private async ValueTask<bool> Skip(long bytes)
    {
        while (true)
        {
            var here = (int)Math.Min(bytes, _end - _start);
            _start += here;
            bytes -= here;
            if (bytes == 0) return true;
            _start = _end = 0;
            if (!await Fill()) return false;
        }
    }

    private async ValueTask<Request?> ReadRequest()
    {
        while (true)
        {
            var end = _buffer.AsSpan(_start, _end - _start).IndexOf("\r\n\r\n"u8);
            if (end >= 0)
            {
                var request = Parse(_buffer.AsSpan(_start, end + 2));
                _start += end + 4;
                return request;
            }
            if (_end - _start >= MaxHead || !await Fill()) return null;
        }
    }

    // One string for the request line, none for the headers but an upgrade's key.
    private static Request? Parse(ReadOnlySpan<byte> head)
    {
        var line = head[..head.IndexOf("\r\n"u8)];
        head = head[(line.Length + 2)..];
        var words = Encoding.Latin1.GetString(line).Split(' ');
        if (words.Length != 3) return null;
        long length = 0;
        var (closes, upgrade) = (words[2] == "HTTP/1.0", false);
        string? key = null;
        while (head.IndexOf("\r\n"u8) is var end and > 0)
        {
            var header = head[..end];
            head = head[(end + 2)..];
            var colon = header.IndexOf((byte)':');
            if (colon < 0) continue;
            var name = header[..colon];
            var value = header[(colon + 1)..].Trim((byte)' ');
            if (Ascii.EqualsIgnoreCase(name, "content-length"u8)) _ = System.Buffers.Text.Utf8Parser.TryParse(value, out length, out _);
            else if (Ascii.EqualsIgnoreCase(name, "upgrade"u8)) upgrade = true;
            else if (Ascii.EqualsIgnoreCase(name, "sec-websocket-key"u8)) key = Encoding.Latin1.GetString(value);
            else if (Ascii.EqualsIgnoreCase(name, "connection"u8))
                closes = Ascii.EqualsIgnoreCase(value, "close"u8) || (closes && !Ascii.EqualsIgnoreCase(value, "keep-alive"u8));
        }
        var question = words[1].IndexOf('?');
        var (path, query) = question < 0 ? (words[1], "") : (words[1][..question], words[1][(question + 1)..]);
        return new Request(words[0], path, query, Math.Max(0, length), closes, upgrade, key);
    }
}
