using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Serialization;
using FlipController.Core;
using FlipController.Daemon.Peer;
using FlipController.Linux.Files;
using FlipController.Tests.Shared;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Xunit;

namespace FlipController.SystemTests;

internal sealed record PeerAsk(int Number, string Text = "");

internal sealed record PeerReply(int Number, string Text = "");

[JsonSerializable(typeof(PeerAsk))]
[JsonSerializable(typeof(PeerReply))]
internal sealed partial class PeerTestJson : JsonSerializerContext;

/// <summary>Two daemons' channel on this host's loopback, with somebody in the middle where a test needs one.</summary>
public sealed class PeerChannelTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(20) * PairUnderTest.Slowness;

    [Fact(Timeout = 60_000)]
    public async Task Each_asks_and_each_answers()
    {
        await using var nodes = new Nodes();
        await nodes.ListenAsync();
        Assert.Null(nodes.A.Client.BootId);
        Assert.Equal(8, (await nodes.AskAsync(7)).Number);
        string? boot = nodes.A.Client.BootId;
        Assert.Equal(9, (await nodes.AskAsync(8)).Number);
        Assert.Matches("^[0-9a-f]{32}$", boot);
        Assert.Equal(boot, nodes.A.Client.BootId);
        Assert.Equal(2, (await Nodes.AskAsync(nodes.B, 1)).Number);
        Assert.NotEqual(boot, nodes.B.Client.BootId);
    }

    [Fact(Timeout = 60_000)]
    public async Task Megabytes_go_both_ways()
    {
        await using var nodes = new Nodes();
        await nodes.ListenAsync();
        string text = new('x', 20_000_000);
        PeerReply reply = await nodes.A.Client.AskAsync("next", new PeerAsk(1, text), PeerTestJson.Default.PeerAsk, PeerTestJson.Default.PeerReply, s_patience, default);
        Assert.Equal(text, reply.Text);
        FlipException e = await Assert.ThrowsAsync<FlipException>(() => nodes.A.Client.AskAsync(
            "next", new PeerAsk(1, new string('x', PeerSeal.LargestBodyBytes)), PeerTestJson.Default.PeerAsk, PeerTestJson.Default.PeerReply, s_patience, default));
        Assert.Contains("nothing was sent", e.Message, StringComparison.Ordinal);
    }

    [Fact(Timeout = 60_000)]
    public async Task What_the_peer_cannot_do_is_told_in_its_words()
    {
        await using var nodes = new Nodes();
        await nodes.ListenAsync();
        nodes.B.Server.On("fail", PeerTestJson.Default.PeerAsk, PeerTestJson.Default.PeerReply, (_, _) => throw new FlipException("cannot take the VIP: the sky is falling"));
        nodes.B.Server.On("break", PeerTestJson.Default.PeerAsk, PeerTestJson.Default.PeerReply, (_, _) => throw new InvalidOperationException("a mistake"));
        Assert.Equal("cannot take the VIP: the sky is falling", (await Assert.ThrowsAsync<FlipException>(() => nodes.AskAsync(1, "fail"))).Message);
        Assert.Contains("a mistake", (await Assert.ThrowsAsync<FlipException>(() => nodes.AskAsync(1, "break"))).Message, StringComparison.Ordinal);
        Assert.Contains("\"nothing\"", (await Assert.ThrowsAsync<FlipException>(() => nodes.AskAsync(1, "nothing"))).Message, StringComparison.Ordinal);
        Assert.NotNull(nodes.A.Client.BootId); // it answered
    }

    [Fact(Timeout = 60_000)]
    public async Task Another_key_is_denied_said_once_and_does_nothing()
    {
        await using var nodes = new Nodes(sameKey: false);
        await nodes.ListenAsync();
        for (int i = 0; i < 20; i++) Assert.Equal(PeerTrouble.Denied, (await Assert.ThrowsAsync<PeerException>(() => nodes.AskAsync(i))).Trouble);
        Assert.Empty(nodes.Done);
        Assert.Single(nodes.Log.Lines, l => l.Contains("not authenticated", StringComparison.Ordinal));
        Assert.Null(nodes.A.Client.BootId);
    }

    [Fact(Timeout = 60_000)]
    public async Task An_ask_that_somebody_recorded_is_not_done_again()
    {
        await using var nodes = new Nodes(inTheMiddle: true);
        await nodes.ListenAsync();
        await nodes.AskAsync(7);
        byte[] recorded = nodes.Middle!.Asks.Last();
        Assert.StartsWith("HTTP/1.1 409", await nodes.SayAsync(recorded), StringComparison.Ordinal);
        Assert.Equal([7], nodes.Done);
        // Nor by a run of the daemon that has never seen it.
        await nodes.RestartBAsync();
        Assert.StartsWith("HTTP/1.1 409", await nodes.SayAsync(recorded), StringComparison.Ordinal);
        Assert.Empty(nodes.Done);
    }

    [Fact(Timeout = 60_000)]
    public async Task An_answer_that_somebody_recorded_is_not_believed()
    {
        await using var nodes = new Nodes(inTheMiddle: true);
        await nodes.ListenAsync();
        await nodes.AskAsync(7);
        byte[] recorded = nodes.Middle!.Answers.Last();
        nodes.Middle.Answer = _ => recorded;
        PeerException e = await Assert.ThrowsAsync<PeerException>(() => nodes.AskAsync(8));
        Assert.Equal(PeerTrouble.Denied, e.Trouble);
        Assert.Contains("not believed", e.Message, StringComparison.Ordinal);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_changed_answer_is_not_believed()
    {
        await using var nodes = new Nodes(inTheMiddle: true);
        await nodes.ListenAsync();
        await nodes.AskAsync(7);
        nodes.Middle!.Answer = answer => Encoding.ASCII.GetBytes(Encoding.ASCII.GetString(answer).Replace("\"Number\":9", "\"Number\":1", StringComparison.Ordinal));
        Assert.Equal(PeerTrouble.Denied, (await Assert.ThrowsAsync<PeerException>(() => nodes.AskAsync(8))).Trouble);
        nodes.Middle.Answer = answer => Encoding.ASCII.GetBytes(Encoding.ASCII.GetString(answer).Replace("200 OK", "422 No", StringComparison.Ordinal));
        Assert.Equal(PeerTrouble.Denied, (await Assert.ThrowsAsync<PeerException>(() => nodes.AskAsync(8))).Trouble);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_changed_or_cut_ask_is_not_done()
    {
        await using var nodes = new Nodes(inTheMiddle: true);
        await nodes.ListenAsync();
        await nodes.AskAsync(7);
        nodes.Middle!.Ask = ask => Encoding.ASCII.GetBytes(Encoding.ASCII.GetString(ask).Replace("\"Number\":8", "\"Number\":5", StringComparison.Ordinal));
        Assert.Equal(PeerTrouble.Denied, (await Assert.ThrowsAsync<PeerException>(() => nodes.AskAsync(8))).Trouble);
        nodes.Middle.Ask = ask => Encoding.ASCII.GetBytes(Encoding.ASCII.GetString(ask).Replace("/v1/peer/next", "/v1/peer/last", StringComparison.Ordinal));
        Assert.Equal(PeerTrouble.Denied, (await Assert.ThrowsAsync<PeerException>(() => nodes.AskAsync(8))).Trouble);
        nodes.Middle.Ask = ask => ask[..^3];
        nodes.Middle.CutAfterAsk = true;
        Assert.Equal(PeerTrouble.Refused, (await Assert.ThrowsAsync<PeerException>(() => nodes.AskAsync(8))).Trouble);
        Assert.Equal([7], nodes.Done);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_connection_that_dies_is_replaced_once()
    {
        await using var nodes = new Nodes(inTheMiddle: true);
        await nodes.ListenAsync();
        await nodes.AskAsync(7);
        int cut = 1;
        nodes.Middle!.Answer = answer => Interlocked.Decrement(ref cut) >= 0 ? null : answer;
        Assert.Equal(9, (await nodes.AskAsync(8)).Number);
        cut = 1;
        nodes.Middle.Answer = answer => Interlocked.Decrement(ref cut) >= 0 ? answer[..^2] : answer;
        Assert.Equal(10, (await nodes.AskAsync(9)).Number);
        nodes.Middle.Answer = _ => null;
        Assert.Equal(PeerTrouble.Refused, (await Assert.ThrowsAsync<PeerException>(() => nodes.AskAsync(10))).Trouble);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_peer_that_was_started_anew_is_asked_at_once_and_known_to_be_new()
    {
        await using var nodes = new Nodes();
        await nodes.ListenAsync();
        await nodes.AskAsync(7);
        string? before = nodes.A.Client.BootId;
        await nodes.RestartBAsync();
        Assert.Equal(8, (await nodes.AskAsync(7)).Number);
        Assert.NotEqual(before, nodes.A.Client.BootId);
        Assert.Equal([7], nodes.Done);
    }

    [Fact(Timeout = 60_000)]
    public async Task Many_at_once_are_each_done_once()
    {
        await using var nodes = new Nodes();
        await nodes.ListenAsync();
        PeerReply[] replies = await Task.WhenAll(Enumerable.Range(0, 500).Select(i => nodes.AskAsync(i)));
        Assert.Equal(Enumerable.Range(1, 500), replies.Select(r => r.Number));
        Assert.Equal(Enumerable.Range(0, 500), nodes.Done.Order());
    }

    [Fact(Timeout = 60_000)]
    public async Task Nobody_listening_is_told_from_nobody_answering()
    {
        await using var nodes = new Nodes();
        Assert.Equal(PeerTrouble.Refused, (await Assert.ThrowsAsync<PeerException>(() => nodes.AskAsync(1))).Trouble);
        await nodes.ListenAsync();
        nodes.B.Server.On("sleep", PeerTestJson.Default.PeerAsk, PeerTestJson.Default.PeerReply, async (_, stop) =>
        {
            await Task.Delay(Timeout.Infinite, stop);
            return new PeerReply(0);
        });
        PeerException late = await Assert.ThrowsAsync<PeerException>(() => nodes.A.Client.AskAsync(
            "sleep", new PeerAsk(1), PeerTestJson.Default.PeerAsk, PeerTestJson.Default.PeerReply, TimeSpan.FromMilliseconds(300), default));
        Assert.Equal(PeerTrouble.Unreachable, late.Trouble);
        Assert.Contains("within 0.3 s", late.Message, StringComparison.Ordinal);
        Assert.Equal(8, (await nodes.AskAsync(7)).Number); // the next is not held up by it
        using var stop = new CancellationTokenSource();
        Task given = nodes.A.Client.AskAsync("sleep", new PeerAsk(1), PeerTestJson.Default.PeerAsk, PeerTestJson.Default.PeerReply, s_patience, stop.Token);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => given);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_host_that_says_nothing_is_unreachable()
    {
        using var silent = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        silent.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        silent.Listen();
        using var client = new PeerClient(IPAddress.Loopback, (IPEndPoint)silent.LocalEndPoint!, new PeerSeal(new byte[32]), PeerSeal.RandomId());
        Assert.Equal(PeerTrouble.Unreachable, (await Assert.ThrowsAsync<PeerException>(() => client.AskAsync(
            "next", new PeerAsk(1), PeerTestJson.Default.PeerAsk, PeerTestJson.Default.PeerReply, TimeSpan.FromMilliseconds(300), default))).Trouble);
    }

    [Fact(Timeout = 60_000)]
    public async Task Calls_come_from_the_address_of_this_node_and_no_other_caller_is_heard()
    {
        await using var nodes = new Nodes(a: "127.0.0.3");
        await nodes.ListenAsync();
        Assert.Equal(8, (await nodes.AskAsync(7)).Number);
        Assert.Equal("", await nodes.SayAsync("POST /v1/peer/hello HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n"u8.ToArray(), from: "127.0.0.4"));
        Assert.Single(nodes.Log.Lines, l => l.Contains("127.0.0.4 called", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("GET /v1/status")]
    [InlineData("GET /metrics")]
    [InlineData("POST /v1/pairs/edge/flip")]
    [InlineData("POST /v1/peer/next")]
    [InlineData("POST /v1/peer/next%0Ax")]
    public async Task Nothing_is_told_or_done_without_the_key(string what)
    {
        await using var nodes = new Nodes();
        await nodes.ListenAsync();
        string answer = await nodes.SayAsync(Encoding.ASCII.GetBytes($"{what} HTTP/1.1\r\nHost: b\r\nContent-Length: 12\r\n\r\n{{\"Number\":1}}"));
        Assert.StartsWith("HTTP/1.1 401", answer, StringComparison.Ordinal);
        Assert.EndsWith("\r\n\r\nnot authenticated", answer, StringComparison.Ordinal);
        Assert.Empty(nodes.Done);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_daemon_does_not_take_itself_for_its_peer()
    {
        using var files = new TempDir();
        string key = Nodes.Key(files, "key");
        string here = $"127.0.0.1:{Nodes.FreePort()}";
        await using var alone = new PeerChannel(new PeerOptions { Listen = here, Address = here, Key = key }, NullLogger.Instance);
        await alone.Server.ListenAsync(default);
        PeerException e = await Assert.ThrowsAsync<PeerException>(() => Nodes.AskAsync(alone, 1));
        Assert.Contains("this daemon itself", e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(31, "600", "31 bytes")]
    [InlineData(5000, "600", "more than 4096")]
    [InlineData(32, "640", "mode 640")]
    [InlineData(32, "604", "mode 604")]
    public void A_key_that_is_short_or_open_to_others_is_refused(int bytes, string mode, string why)
    {
        using var files = new TempDir();
        File.WriteAllBytes(files["key"], new byte[bytes]);
        File.SetUnixFileMode(files["key"], (UnixFileMode)Convert.ToInt32(mode, 8));
        Assert.Contains(why, Assert.Throws<FlipException>(() => KeyFile.Read(files["key"])).Message, StringComparison.Ordinal);
        Assert.Contains("openssl", Assert.Throws<FlipException>(() => KeyFile.Read(files["none"])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Asks_may_overtake_each_other_but_none_is_taken_twice()
    {
        var admission = new PeerAdmission("aa");
        Admitted At(ulong counter, string client = "c") => admission.Admit(admission.Boot, client, counter);
        Assert.Equal(Admitted.Yes, At(10));
        Assert.Equal(Admitted.Again, At(10));
        Assert.Equal(Admitted.Yes, At(5));
        Assert.Equal(Admitted.Again, At(5));
        Assert.Equal(Admitted.Yes, At(73)); // 10 is 63 behind: still known
        Assert.Equal(Admitted.Again, At(10));
        Assert.Equal(Admitted.Yes, At(11));
        Assert.Equal(Admitted.Again, At(9)); // 64 behind: too late to tell
        Assert.Equal(Admitted.Yes, At(1_000_000));
        Assert.Equal(Admitted.Again, At(73));
        Assert.Equal(Admitted.Yes, At(ulong.MaxValue));
        Assert.Equal(Admitted.Yes, At(1, "d"));
        Assert.Equal(Admitted.OtherBoot, admission.Admit("bb.0", "c", 2));
    }

    [Fact]
    public void A_client_that_is_forgotten_cannot_be_replayed()
    {
        var admission = new PeerAdmission("aa");
        string boot = admission.Boot;
        for (int i = 0; i < PeerAdmission.MostClients; i++) Assert.Equal(Admitted.Yes, admission.Admit(boot, $"{i}", 1));
        Assert.Equal(Admitted.OtherBoot, admission.Admit(boot, "one more", 1));
        Assert.Equal(Admitted.OtherBoot, admission.Admit(boot, "0", 1));
        Assert.NotEqual(boot, admission.Boot);
        Assert.Equal(PeerAdmission.IdOf(boot), PeerAdmission.IdOf(admission.Boot));
        Assert.Equal(Admitted.Yes, admission.Admit(admission.Boot, "one more", 2));
    }

    /// <summary>Any order within the window, by a model: each counter is taken once.</summary>
    [Fact]
    public void Shuffled_asks_are_each_taken_once()
    {
        var random = new Random(1);
        var admission = new PeerAdmission("aa");
        ulong[] counters = [.. Enumerable.Range(1, 10_000).Select(i => (ulong)i)];
        for (int i = 0; i < counters.Length; i += 32) random.Shuffle(counters.AsSpan(i, Math.Min(32, counters.Length - i)));
        Assert.All(counters, c => Assert.Equal(Admitted.Yes, admission.Admit(admission.Boot, "c", c)));
        Assert.All(counters, c => Assert.Equal(Admitted.Again, admission.Admit(admission.Boot, "c", c)));
    }

    /// <summary>A asks B, through somebody in the middle or not.</summary>
    private sealed class Nodes : IAsyncDisposable
    {
        private readonly TempDir _files = new();
        private readonly IPEndPoint _b;
        private readonly PeerOptions _optionsB;

        public Nodes(bool sameKey = true, bool inTheMiddle = false, string a = "127.0.0.1")
        {
            string key = Key(_files, "key");
            int portA = FreePort();
            _b = new IPEndPoint(IPAddress.Loopback, FreePort());
            if (inTheMiddle) Middle = new Middle(_b);
            IPEndPoint there = Middle?.Address ?? _b;
            A = new PeerChannel(new PeerOptions { Listen = $"{a}:{portA}", Address = $"{there}", Key = key }, NullLogger.Instance);
            _optionsB = new PeerOptions { Listen = $"{_b}", Address = $"{a}:{portA}", Key = sameKey ? key : Key(_files, "other") };
            B = new PeerChannel(_optionsB, Log);
        }

        public PeerChannel A { get; }

        public PeerChannel B { get; private set; }

        public Middle? Middle { get; }

        public ConcurrentQueue<int> Done { get; private set; } = new();

        public KeptLog Log { get; } = new();

        public async Task ListenAsync()
        {
            await ListenAsync(A);
            await ListenAsync(B);
        }

        private Task ListenAsync(PeerChannel node)
        {
            node.Server.On("next", PeerTestJson.Default.PeerAsk, PeerTestJson.Default.PeerReply, (ask, _) =>
            {
                Done.Enqueue(ask.Number);
                return Task.FromResult(new PeerReply(ask.Number + 1, ask.Text));
            });
            return node.Server.ListenAsync(default);
        }

        public async Task RestartBAsync()
        {
            await B.DisposeAsync();
            Done = new();
            B = new PeerChannel(_optionsB, Log);
            await ListenAsync(B);
        }

        public Task<PeerReply> AskAsync(int number, string name = "next") => AskAsync(A, number, name);

        public static Task<PeerReply> AskAsync(PeerChannel asker, int number, string name = "next") =>
            asker.Client.AskAsync(name, new PeerAsk(number), PeerTestJson.Default.PeerAsk, PeerTestJson.Default.PeerReply, s_patience, default);

        /// <summary>Bytes straight to B, and all it says until it has said one answer or hung up.</summary>
        public async Task<string> SayAsync(byte[] bytes, string from = "127.0.0.1")
        {
            using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            socket.Bind(new IPEndPoint(IPAddress.Parse(from), 0));
            await socket.ConnectAsync(_b);
            try
            {
                await socket.SendAsync(bytes);
                return Encoding.ASCII.GetString(await Middle.MessageAsync(socket));
            }
            catch (SocketException)
            {
                return "";
            }
        }

        public async ValueTask DisposeAsync()
        {
            Middle?.Dispose();
            await A.DisposeAsync();
            await B.DisposeAsync();
            _files.Dispose();
        }

        public static string Key(TempDir files, string name)
        {
            File.WriteAllBytes(files[name], RandomNumberGenerator.GetBytes(32));
            File.SetUnixFileMode(files[name], UnixFileMode.UserRead | UnixFileMode.UserWrite);
            return files[name];
        }

        public static int FreePort()
        {
            using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            socket.Bind(new IPEndPoint(IPAddress.Any, 0));
            return ((IPEndPoint)socket.LocalEndPoint!).Port;
        }
    }

    /// <summary>Hears every word of a connection, and may change them.</summary>
    private sealed class Middle : IDisposable
    {
        private readonly Socket _listening = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        private readonly IPEndPoint _to;

        public Middle(IPEndPoint to)
        {
            _to = to;
            _listening.Bind(new IPEndPoint(IPAddress.Loopback, 0));
            _listening.Listen();
            _ = AcceptAsync();
        }

        public IPEndPoint Address => (IPEndPoint)_listening.LocalEndPoint!;

        public ConcurrentQueue<byte[]> Asks { get; } = new();

        public ConcurrentQueue<byte[]> Answers { get; } = new();

        public Func<byte[], byte[]> Ask { get; set; } = ask => ask;

        /// <summary>Null: it hangs up instead. Shorter: it hangs up after that.</summary>
        public Func<byte[], byte[]?> Answer { get; set; } = answer => answer;

        public bool CutAfterAsk { get; set; }

        public void Dispose() => _listening.Dispose();

        private async Task AcceptAsync()
        {
            try
            {
                while (true) _ = CarryAsync(await _listening.AcceptAsync());
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                // The test has ended.
            }
        }

        private async Task CarryAsync(Socket client)
        {
            using Socket from = client, to = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            try
            {
                await to.ConnectAsync(_to);
                while (await MessageAsync(from) is { Length: > 0 } ask)
                {
                    Asks.Enqueue(ask);
                    await to.SendAsync(Ask(ask));
                    if (CutAfterAsk) return;
                    byte[] answer = await MessageAsync(to);
                    Answers.Enqueue(answer);
                    if (Answer(answer) is not { } told) return;
                    await from.SendAsync(told);
                    if (told.Length < answer.Length) return;
                }
            }
            catch (SocketException)
            {
                // One of them has hung up.
            }
        }

        /// <summary>One HTTP message that has a Content-Length; empty: there is none.</summary>
        public static async Task<byte[]> MessageAsync(Socket socket)
        {
            var message = new List<byte>();
            byte[] buffer = new byte[64 * 1024];
            while (true)
            {
                string text = Encoding.ASCII.GetString([.. message]);
                int head = text.IndexOf("\r\n\r\n", StringComparison.Ordinal) + 4;
                if (head > 3 && text.Split("\r\n").FirstOrDefault(l => l.StartsWith("Content-Length:", StringComparison.OrdinalIgnoreCase)) is { } length
                    && message.Count >= head + int.Parse(length.Split(':')[1], System.Globalization.CultureInfo.InvariantCulture)) return [.. message];
                int read = await socket.ReceiveAsync(buffer).WaitAsync(s_patience);
                if (read == 0) return [.. message];
                message.AddRange(buffer.AsSpan(0, read));
            }
        }
    }

    private sealed class KeptLog : ILogger
    {
        public ConcurrentQueue<string> Lines { get; } = new();

        public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
            Lines.Enqueue(formatter(state, exception));
    }
}
