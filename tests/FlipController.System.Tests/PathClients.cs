using System.Collections.Concurrent;
using System.Net.Sockets;
using System.Text;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>Clients of a unix socket's path: each connection is a fresh one, asks once and reads to its end.</summary>
internal sealed class PathClients : IAsyncDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(20);
    private readonly CancellationTokenSource _stop = new();
    private readonly ConcurrentQueue<string> _failures = new();
    private readonly ConcurrentDictionary<string, long> _served = new(StringComparer.Ordinal);
    private readonly Task[] _loops;
    private long _answers;

    private PathClients(string path, int clients) =>
        _loops = [.. Enumerable.Range(0, clients).Select(_ => Task.Run(() => AskOnAsync(path)))];

    /// <summary>Under way when it returns.</summary>
    public static async Task<PathClients> StartAsync(string path, int clients = 8)
    {
        var started = new PathClients(path, clients);
        await Eventually.True(() => started.Answers >= 20, s_patience, () => $"the path should answer: {started.Failures}");
        return started;
    }

    public long Answers => Interlocked.Read(ref _answers);

    private string Failures => $"{_failures.Count} failed: {string.Join(" | ", _failures.Take(5))}";

    public IEnumerable<string> ServedBy => _served.Keys;

    private async Task AskOnAsync(string path)
    {
        while (!_stop.IsCancellationRequested)
        {
            try
            {
                _served.AddOrUpdate(await AskAsync(path), 1, (_, n) => n + 1);
                Interlocked.Increment(ref _answers);
            }
            catch (Exception e) when (e is SocketException or IOException)
            {
                _failures.Enqueue(e.Message);
            }
        }
    }

    public static Socket Connect(string path)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            socket.Connect(new UnixDomainSocketEndPoint(path));
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>Who answers one connection.</summary>
    public static async Task<string> AskAsync(string path)
    {
        using Socket socket = Connect(path);
        await socket.SendAsync("GET / HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n"u8.ToArray());
        var text = new StringBuilder();
        byte[] buffer = new byte[4096];
        while (await socket.ReceiveAsync(buffer).WaitAsync(s_patience) is > 0 and var read) text.Append(Encoding.ASCII.GetString(buffer, 0, read));
        string[] lines = text.ToString().Split("\r\n");
        if (!lines[0].Contains(" 200 ", StringComparison.Ordinal)) throw new IOException($"answered \"{lines[0]}\"");
        return lines.Single(l => l.StartsWith("x-served-by: ", StringComparison.OrdinalIgnoreCase)).Split(' ')[1];
    }

    /// <summary>So many more answers have come.</summary>
    public Task GoOnAsync(long answers)
    {
        long then = Answers;
        return Eventually.True(() => Answers >= then + answers, s_patience, () => $"the load goes on: {Failures}");
    }

    /// <summary>None has failed.</summary>
    public async Task PassedAsync()
    {
        await _stop.CancelAsync();
        await Task.WhenAll(_loops);
        PairUnderTest.Show($"paths: {Answers} connections, {_failures.Count} failed");
        Assert.True(_failures.IsEmpty, Failures);
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await Task.WhenAll(_loops);
        _stop.Dispose();
    }
}
