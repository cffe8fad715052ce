using System.Globalization;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using FlipController.Core;

namespace FlipController.Cli;

/// <summary>
/// One question to the daemon for what keepalived runs: it has a second for all of it, start-up included, on a host that may be busy.
/// HttpClient's first request costs more processor time than the whole rest of such a verb.
/// </summary>
internal static class QuickAsk
{
    private const int LongestAnswer = 64 * 1024;

    /// <param name="body">JSON; null: a GET.</param>
    /// <returns>The answer's body; null: there was none in time, for <paramref name="why"/>.</returns>
    /// <exception cref="VerbFailure">The daemon said no.</exception>
    public static string? Send(string socketPath, string path, string? body, TimeSpan within, out string why)
    {
        why = $"there is no daemon at {socketPath}";
        if (!File.Exists(socketPath)) return null;
        long deadline = Environment.TickCount64 + (long)within.TotalMilliseconds;
        try
        {
            using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            // Where the daemon's queue is full this fails at once, instead of waiting for room in it.
            socket.Blocking = false;
            socket.Connect(new UnixDomainSocketEndPoint(socketPath));
            socket.Blocking = true;
            string head = body is null ? $"GET {path} HTTP/1.1\r\nHost: flip\r\nConnection: close\r\n\r\n"
                : string.Create(CultureInfo.InvariantCulture,
                    $"POST {path} HTTP/1.1\r\nHost: flip\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {Encoding.UTF8.GetByteCount(body)}\r\n\r\n");
            socket.SendTimeout = Left(deadline);
            socket.Send(Encoding.UTF8.GetBytes(head + body));
            var answer = new MemoryStream();
            byte[] buffer = new byte[4096];
            while (answer.Length < LongestAnswer)
            {
                socket.ReceiveTimeout = Left(deadline);
                int read = socket.Receive(buffer);
                if (read == 0) break;
                answer.Write(buffer, 0, read);
            }
            string text = Encoding.UTF8.GetString(answer.ToArray());
            if (text.StartsWith("HTTP/1.1 2", StringComparison.Ordinal)) return Json(text);
            why = $"the daemon at {socketPath} went away before it answered";
            return text.Length == 0 ? null : throw Refused(text);
        }
        catch (SocketException e)
        {
            why = e.SocketErrorCode is SocketError.TimedOut or SocketError.WouldBlock ? $"the daemon at {socketPath} did not answer in time"
                : $"the daemon at {socketPath} cannot be reached ({e.Message})";
            return null;
        }
    }

    private static int Left(long deadline) => (int)Math.Max(1, deadline - Environment.TickCount64);

    /// <summary>What is between the braces: a body may come in chunks, whose lengths stand around it.</summary>
    private static string Json(string answer)
    {
        int from = answer.IndexOf('{', StringComparison.Ordinal), to = answer.LastIndexOf('}');
        return from < 0 || to < from ? "{}" : answer[from..(to + 1)];
    }

    private static VerbFailure Refused(string answer)
    {
        ExitCode code = answer.Split(' ') is [_, var status, ..] ? status switch { "409" => ExitCode.Refused, "400" or "404" => ExitCode.Usage, _ => ExitCode.Failed } : ExitCode.Failed;
        try
        {
            return new VerbFailure(code, JsonSerializer.Deserialize(Json(answer), WireJson.Default.ErrorAnswer)?.Error ?? "the daemon refused without a reason");
        }
        catch (JsonException)
        {
            return new VerbFailure(code, "the daemon refused, and its reason cannot be read");
        }
    }
}
