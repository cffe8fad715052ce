using System.Net;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Tests.Kernel;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy;

/// <summary>One session, several callers, answers of any length.</summary>
[Collection(ManyDescriptors.Alone)]
public sealed class AdminSessionTests
{
    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    [Fact(Timeout = 60_000)]
    public async Task Several_callers_get_each_their_own_answer()
    {
        using var haproxy = await RunningHaproxy.StartAsync("");
        await using AdminSession session = await haproxy.Admin.OpenSessionAsync(Stop);
        await Task.WhenAll(Enumerable.Range(0, 200).Select(async i =>
        {
            if (i % 3 == 0) Assert.Equal(haproxy.Pid, (await session.ShowInfoAsync(Stop)).Pid);
            else if (i % 3 == 1) Assert.Equal("Session not found.\n", await session.CommandAsync($"show sess 0x{i + 1:x}", Stop));
            else Assert.Equal(["Unknown command", "No such backend", "No such session"],
                (await session.AnswersAsync(["bogus", "disable server x/y", "shutdown session 0x1"], Stop)).Select(a => a.Split(['.', ',', '('])[0].Trim()));
        }));
    }

    [Fact(Timeout = 60_000)]
    public async Task A_caller_that_gives_up_or_throws_leaves_the_session_in_order()
    {
        using var haproxy = await RunningHaproxy.StartAsync("");
        await using AdminSession session = await haproxy.Admin.OpenSessionAsync(Stop);
        await Assert.ThrowsAsync<FormatException>(() => session.LinesAsync("show info", _ => throw new FormatException(), Stop));
        Assert.Equal(haproxy.Pid, (await session.ShowInfoAsync(Stop)).Pid);
        using (var soon = CancellationTokenSource.CreateLinkedTokenSource(Stop))
        {
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => session.LinesAsync("show stat", _ => soon.Cancel(), soon.Token)
                .ContinueWith(t => t.IsCompletedSuccessfully ? throw new OperationCanceledException() : t, Stop).Unwrap());
        }
        int lines = 0;
        await session.LinesAsync("show info", line => lines += line.StartsWith("Pid: "u8) ? 1 : 0, Stop);
        Assert.Equal(1, lines);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_long_answer_passes_line_by_line_through_the_session_and_the_socket()
    {
        int port = RunningHaproxy.FreePort();
        using var silent = new TcpListener(IPAddress.Loopback, 0);
        silent.Start(4096);
        using var haproxy = await RunningHaproxy.StartAsync($"""
            listen waits
              mode tcp
              bind 127.0.0.1:{port}
              server silent {silent.LocalEndpoint}

            """);
        await using AdminSession session = await haproxy.Admin.OpenSessionAsync(Stop);
        List<Socket> clients = [];
        try
        {
            for (int i = 0; i < 1000; i++)
            {
                var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
                clients.Add(client);
                await client.ConnectAsync(IPAddress.Loopback, port, Stop);
            }
            foreach (AdminChannel channel in (AdminChannel[])[new(session), new(haproxy.Admin)])
            {
                HaproxyStreams streams = await HaproxyStreams.ReadAsync(channel, Stop);
                await FlipController.Tests.Shared.Eventually.True(async () => (streams = await HaproxyStreams.ReadAsync(channel, Stop)).Count == 1000, TimeSpan.FromSeconds(20), () => $"{streams.Count} of 1000");
            }
            List<string> ids = [];
            await session.LinesAsync("show sess", line =>
            {
                if (StreamLine.TryParse(line, out StreamLine stream) && !stream.IsOwn) ids.Add(System.Text.Encoding.ASCII.GetString(stream.Id));
            }, Stop);
            foreach (string[] some in ids.Chunk(16))
                Assert.All(await session.AnswersAsync([.. some.Select(i => $"shutdown session {i}")], Stop), answer => Assert.Equal("", answer.Trim()));
            await FlipController.Tests.Shared.Eventually.True(async () => (await HaproxyStreams.ReadAsync(new AdminChannel(session), Stop)).Count == 0, TimeSpan.FromSeconds(20), () => "all are shut down");
            Assert.StartsWith("No such session", await session.CommandAsync($"shutdown session {ids[0]}", Stop));
        }
        finally
        {
            foreach (Socket client in clients) client.Dispose();
        }
    }

    [Fact(Timeout = 60_000)]
    public async Task A_session_that_HAProxy_has_ended_says_so()
    {
        using var haproxy = await RunningHaproxy.StartAsync("");
        await using AdminSession session = await haproxy.Admin.OpenSessionAsync(Stop);
        Assert.True(FlipController.Tests.Shared.Signals.Send(haproxy.Pid, FlipController.Tests.Shared.Signals.Kill));
        FlipException error = await Assert.ThrowsAsync<FlipException>(() => session.CommandAsync("show info", Stop));
        Assert.Contains("in the session on", error.Message);
        await Assert.ThrowsAsync<FlipException>(() => session.CommandAsync("show info", Stop));
    }
}
