using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy;

/// <summary>The stats socket of a real HAProxy on 127.0.0.1.</summary>
public sealed class AdminSocketTests
{
    [Fact(Timeout = 30_000)]
    public async Task Show_info_tells_of_the_process()
    {
        using var haproxy = await RunningHaproxy.StartAsync("");
        HaproxyInfo info = await haproxy.Admin.ShowInfoAsync(TestContext.Current.CancellationToken);
        Assert.Equal(haproxy.Pid, info.Pid);
        Assert.Equal((await HaproxyBinary.VersionAsync("haproxy", TestContext.Current.CancellationToken)).Text, info.Version);
        Assert.False(info.Stopping);
        Assert.Equal(0, info.CurrConns);
        Assert.True(info.Maxconn > 0 && info.Jobs > 0 && info.UnstoppableJobs == 0 && info.Listeners >= 2);
        Assert.Equal("1", info.Fields["Nbproc"]);
    }

    [Fact(Timeout = 30_000)]
    public async Task Open_connections_count_until_they_close()
    {
        using var haproxy = await RunningHaproxy.StartAsync("");
        using (var client = new TcpClient())
        {
            await client.ConnectAsync(IPAddress.Loopback, haproxy.Port, TestContext.Current.CancellationToken);
            await Until(async () => (await haproxy.Admin.ShowInfoAsync()).CurrConns == 1);
        }
        await Until(async () => (await haproxy.Admin.ShowInfoAsync()).CurrConns == 0);
    }

    [Fact(Timeout = 30_000)]
    public async Task Show_stat_has_a_row_for_each_frontend_backend_and_server()
    {
        using var haproxy = await RunningHaproxy.StartAsync("backend app\n server one 127.0.0.1:1\n");
        using (var http = new HttpClient()) await http.GetAsync($"http://127.0.0.1:{haproxy.Port}/", TestContext.Current.CancellationToken);
        var rows = await haproxy.Admin.ShowStatAsync(TestContext.Current.CancellationToken);
        Assert.Equal([("f", "FRONTEND", StatKind.Frontend), ("app", "one", StatKind.Server), ("app", "BACKEND", StatKind.Backend)],
            rows.Select(r => (r.Proxy, r.Name, r.Kind)));
        Assert.Equal("OPEN", rows[0].Status);
        Assert.Equal((1, 1), (rows[0].Requests, rows[0].Responses5xx));
    }

    [Fact(Timeout = 30_000)]
    public async Task A_server_is_not_believed_before_its_first_check_has_ended()
    {
        // An accept queue that is full answers no SYN: the first check of "slow" runs until its timeout, which is long.
        using var silent = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        silent.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        silent.Listen(4);
        int port = ((IPEndPoint)silent.LocalEndPoint!).Port;
        using var haproxy = await RunningHaproxy.StartAsync($"""
            backend app
              option httpchk GET /
              default-server inter 60s
              server slow 127.0.0.1:{port} check
              server follower 127.0.0.1:1 track app/slow
              server unchecked 127.0.0.1:1
              server out 127.0.0.1:1 check disabled
              server dead 127.0.0.1:1 check inter 50ms
              server agent 127.0.0.1:1 agent-check agent-port {port} agent-inter 60s
              server third 127.0.0.1:1 track app/follower

            """);
        var servers = new Dictionary<string, ServerState>();
        await Until(async () => (servers = (await haproxy.Admin.ServersAsync()).ToDictionary(s => s.Name))["dead"] is { IsUp: false, FirstCheckDone: true });
        Assert.Equal((true, true, false, false), Of("slow"));
        Assert.Equal((true, true, false, false), Of("follower"));
        Assert.Equal((true, true, false, false), Of("third"));
        Assert.Equal((true, false, true, false), Of("unchecked"));
        Assert.Equal((false, true, true, true), Of("out"));
        Assert.Equal((false, true, true, false), Of("dead"));
        Assert.Equal((true, true, false, false), Of("agent"));
        Assert.Equal("L4CON: Connection refused", servers["dead"].LastCheck);
        Assert.Equal("app", servers["dead"].Backend);

        (bool, bool, bool, bool) Of(string name) =>
            (servers[name].IsUp, servers[name].HasCheck, servers[name].FirstCheckDone, servers[name].Maintenance);
    }

    [Fact(Timeout = 30_000)]
    public async Task A_passed_first_check_counts()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        int port = ((IPEndPoint)listener.LocalEndpoint).Port;
        using var haproxy = await RunningHaproxy.StartAsync($"backend app\n server a 127.0.0.1:{port} check inter 50ms\n server b 127.0.0.1:1 track app/a\n");
        await Until(async () => (await haproxy.Admin.ServersAsync()).All(s => s is { IsUp: true, HasCheck: true, FirstCheckDone: true, Status: "UP" }));
    }

    [Fact(Timeout = 30_000)]
    public async Task Peers_tell_whether_they_have_learned()
    {
        int port = RunningHaproxy.FreePort();
        using var haproxy = await RunningHaproxy.StartAsync($"""
            peers p
              peer local 127.0.0.1:{port}
            peers q
              disabled
              peer gone 127.0.0.1:1
            backend t
              stick-table type ip size 1k peers p

            """);
        // Nobody to learn from: it waits 5 s for an older process of its own name, then for a remote one (src/peers.c).
        PeersState section = Assert.Single(await haproxy.Admin.PeersAsync(TestContext.Current.CancellationToken), s => s.Section == "p");
        Assert.False(section.ResyncFinished);
        Assert.False(section.Disabled);
        Assert.Equal(new PeerState("local", true, false, "NONE"), Assert.Single(section.Peers));
        await Until(async () => (await haproxy.Admin.PeersAsync()).Single(s => s.Section == "p").ResyncFinished, TimeSpan.FromSeconds(20));
    }

    [Fact(Timeout = 30_000)]
    public async Task Without_peers_there_are_none()
    {
        using var haproxy = await RunningHaproxy.StartAsync("");
        Assert.Empty(await haproxy.Admin.PeersAsync(TestContext.Current.CancellationToken));
    }

    [Fact(Timeout = 30_000)]
    public async Task A_raw_command_gets_HAProxys_own_words()
    {
        using var haproxy = await RunningHaproxy.StartAsync("");
        Assert.StartsWith("Unknown command", await haproxy.Admin.CommandAsync("bogus", TestContext.Current.CancellationToken));
        Assert.Equal("No such backend.\n\n", await haproxy.Admin.CommandAsync("disable server x/y", TestContext.Current.CancellationToken));
    }

    [Fact(Timeout = 30_000)]
    public async Task A_missing_socket_is_one_sentence()
    {
        using var directory = new TemporaryDirectory();
        string path = directory.File("none");
        var e = await Assert.ThrowsAsync<FlipException>(() => new AdminSocket(path).ShowInfoAsync(TestContext.Current.CancellationToken));
        Assert.StartsWith($"cannot ask HAProxy \"show info\" on {path}: ", e.Message);
        Assert.EndsWith("; nothing was changed", e.Message);
        string far = "/" + new string('x', 200);
        await Assert.ThrowsAsync<FlipException>(() => new AdminSocket(far).CommandAsync("x", TestContext.Current.CancellationToken));
    }

    [Fact(Timeout = 30_000)]
    public async Task An_answer_that_does_not_come_or_is_cut_is_an_error()
    {
        using var directory = new TemporaryDirectory();
        using var server = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        server.Bind(new UnixDomainSocketEndPoint(directory.File("s")));
        server.Listen(4);
        var admin = new AdminSocket(directory.File("s"), TimeSpan.FromMilliseconds(100));
        var e = await Assert.ThrowsAsync<FlipException>(() => admin.ShowInfoAsync(TestContext.Current.CancellationToken));
        Assert.Contains("no answer within 0.1 s", e.Message);
        using (Socket unanswered = await server.AcceptAsync(TestContext.Current.CancellationToken)) { }

        using var cancelled = new CancellationTokenSource();
        Task<string> pending = new AdminSocket(directory.File("s")).CommandAsync("x", cancelled.Token);
        await cancelled.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => pending);
        using (Socket unanswered = await server.AcceptAsync(TestContext.Current.CancellationToken)) { }

        Task<HaproxyInfo> asked = new AdminSocket(directory.File("s")).ShowInfoAsync(TestContext.Current.CancellationToken);
        using (Socket client = await server.AcceptAsync(TestContext.Current.CancellationToken))
        {
            await client.ReceiveAsync(new byte[100], TestContext.Current.CancellationToken);
            await client.SendAsync(Encoding.ASCII.GetBytes("Name: HAProxy\nPid: 12"), TestContext.Current.CancellationToken);
        }
        Assert.Contains("Pid: 12", (await Assert.ThrowsAsync<FlipException>(() => asked)).Message);
    }

    [Theory]
    [InlineData("flags=0x0", false)]
    [InlineData("flags=0x11", false)]
    [InlineData("flags=0x3", true)]
    [InlineData("flags=0x33", true)]
    [InlineData("flags=0x300003", true)]
    public void Two_bits_tell_that_a_resync_is_finished(string flags, bool finished)
    {
        PeersState section = Assert.Single(PeersState.Parse($"0x564b568fe000: [21/Nov/2026:03:14:23] id=p disabled=0 {flags} resync_timeout=4s task_calls=1\n" +
            "  0x564b56901110: id=other(remote,active) addr=127.0.0.1:19902 last_status=CONN last_hdshk=0s\n        reconnect=4s\n\n"));
        Assert.Equal(finished, section.ResyncFinished);
        Assert.Equal(new PeerState("other", false, true, "CONN"), Assert.Single(section.Peers));
    }

    [Fact]
    public void Cells_with_commas_quotes_and_line_ends_are_one_cell()
    {
        var rows = StatRow.Parse("# pxname,svname,last_chk,type,\nb,s,\"a, \"\"b\"\"\nc\",2,\nb,BACKEND,,1,\n\n")!.Value;
        Assert.Equal(["a, \"b\"\nc", ""], rows.Select(r => r.LastCheck));
        Assert.Equal([StatKind.Server, StatKind.Backend], rows.Select(r => r.Kind));
        Assert.Null(StatRow.Parse("Unknown command\n\n"));
    }

    private static async Task Until(Func<Task<bool>> condition, TimeSpan? deadline = null)
    {
        var waited = Stopwatch.StartNew();
        while (!await condition())
        {
            Assert.True(waited.Elapsed < (deadline ?? TimeSpan.FromSeconds(10)), "the condition did not come true in time");
            await Task.Yield();
        }
    }
}
