using System.Net.Sockets;
using System.Text;
using FlipController.Core;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// Many commands over one connection to HAProxy's stats socket: interactive mode ("prompt"; management manual, 9.3), in which every
/// answer ends with an empty line and <c>&gt; </c>. Bytes pass as they are, a character each (Latin-1): names and patterns need not
/// be text. What was asked for waits for nothing, so 100,000 commands cost about as much as their bytes.
/// </summary>
internal static class AdminBatch
{
    private const string Prompt = "\n> ";

    /// <param name="silence">How long HAProxy may say nothing.</param>
    /// <param name="longestAnswer">Characters an answer may have; a longer one is an error, so that memory is bounded.</param>
    /// <returns>An answer for each command, without the empty line that ends it.</returns>
    public static async Task<string[]> RunAsync(
        string path, IReadOnlyList<string> commands, TimeSpan silence, int longestAnswer, CancellationToken stop)
    {
        if (commands.Count == 0) return [];
        using var overrun = new CancellationTokenSource(silence);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(overrun.Token, stop);
        string asked = commands[0];
        try
        {
            using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), either.Token);
            await using var stream = new NetworkStream(socket);
            // Beside the reading: HAProxy takes no more commands while nobody takes its answers.
            Task writing = WriteAsync(stream, commands, either.Token);
            var answers = new List<string>(commands.Count);
            var pending = new StringBuilder();
            byte[] buffer = new byte[65536];
            bool greeted = false;
            while (answers.Count < commands.Count)
            {
                asked = commands[answers.Count];
                int read = await stream.ReadAsync(buffer, either.Token);
                if (read == 0) throw Failure(asked, path, "HAProxy closed the session", null);
                overrun.CancelAfter(silence);
                int searched = Math.Max(0, pending.Length - Prompt.Length);
                pending.Append(Encoding.Latin1.GetString(buffer, 0, read));
                if (pending.Length > longestAnswer)
                    throw Failure(asked, path, $"the answer has more than {longestAnswer} characters", null);
                // Only what is new can hold the end of an answer.
                if (pending.ToString(searched, pending.Length - searched).Contains(Prompt, StringComparison.Ordinal))
                    Take(pending, answers, ref greeted);
            }
            await writing;
            // A name of HAProxy's with a line's end in it makes two commands of one: from there on nothing answers what was asked.
            return answers.Count == commands.Count ? [.. answers]
                : throw Failure(asked, path, $"{commands.Count} questions have {answers.Count} answers", null);
        }
        catch (OperationCanceledException) when (overrun.IsCancellationRequested && !stop.IsCancellationRequested)
        {
            throw Failure(asked, path, $"no answer within {silence.TotalSeconds:0.###} s", null);
        }
        catch (Exception e) when (e is SocketException or IOException or ArgumentException)
        {
            throw Failure(asked, path, e.Message, e);
        }
    }

    private static void Take(StringBuilder pending, List<string> answers, ref bool greeted)
    {
        string text = pending.ToString();
        int at = 0;
        for (int end; (end = text.IndexOf(Prompt, at, StringComparison.Ordinal)) >= 0; at = end + Prompt.Length)
        {
            // The first is the answer to "prompt" itself.
            if (greeted) answers.Add(text[at..end]);
            greeted = true;
        }
        pending.Clear().Append(text, at, text.Length - at);
    }

    private static async Task WriteAsync(NetworkStream stream, IReadOnlyList<string> commands, CancellationToken stop)
    {
        var text = new StringBuilder("prompt\n");
        foreach (string command in commands)
        {
            text.Append(command).Append('\n');
            if (text.Length < 8192) continue;
            await stream.WriteAsync(Encoding.Latin1.GetBytes(text.ToString()), stop);
            text.Clear();
        }
        await stream.WriteAsync(Encoding.Latin1.GetBytes(text.ToString()), stop);
    }

    private static FlipException Failure(string command, string path, string why, Exception? inner) =>
        new($"cannot ask HAProxy \"{Shortened(command)}\" on {path}: {why}", inner);

    /// <summary>Never whole: it may name a secret.</summary>
    private static string Shortened(string command) => string.Join(' ', command.Split(' ').Take(3));
}
