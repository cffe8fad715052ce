using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>What the ledger says against what is: clients of every kind, and the kernel's own tools.</summary>
public sealed class DrainTruthTests
{
    private static async Task<Socket> SaidAsync(PairUnderTest pair, IPEndPoint service, string request)
    {
        Socket socket = await pair.ConnectAsync(service);
        await socket.SendAsync(Encoding.ASCII.GetBytes(request));
        return socket;
    }

    private static string Get(string path) => $"GET {path} HTTP/1.1\r\nHost: service\r\n\r\n";

    /// <summary>Sockets of the process that a client may still be served on, as ss lists them.</summary>
    private static int ByTool(PairUnderTest pair, int pid) =>
        pair.Nets.Server.Exec("ss", "-tnpH", "state", "established", "state", "close-wait", "state", "fin-wait-1", "state", "fin-wait-2")
            .Split('\n').Count(l => l.Contains($"pid={pid.ToString(CultureInfo.InvariantCulture)},", StringComparison.Ordinal)
                && !l.Contains("127.0.0.1:8080", StringComparison.Ordinal));

    [Fact(Timeout = 120_000)]
    public async Task A_generation_has_drained_when_the_last_of_every_kind_of_client_has_left_and_not_before()
    {
        const int length = 8_000_000;
        await using PairUnderTest pair = await StartAsync(new PairYaml { FlipsByItself = false, Drain = "{ deadline: 10m, spread: 1s }" });
        await using (LoadRun flood = await StartedAsync(pair.Load(400)))
        {
            await Eventually.True(() => flood.Now.Ok >= 500, Patience, () => flood.Now.ToString()); // as many in TIME_WAIT
            await PassedAsync(flood);
        }

        using Socket idle = await SaidAsync(pair, pair.Services[0], Get("/"));
        Assert.True(await idle.ReceiveAsync(new byte[4096]) > 0);
        using Socket slow = await SaidAsync(pair, pair.Services[1], Get($"/bytes/{length}?seed=7"));
        HeldConnection chat = await pair.HoldAsync(), vanished = await pair.HoldAsync();
        using Socket half = await SaidAsync(pair, pair.Services[0], Get("/slow/18000"));
        half.Shutdown(SocketShutdown.Send);
        IPEndPoint gone = vanished.Local;
        string port = gone.Port.ToString(CultureInfo.InvariantCulture);
        pair.Nets.Client.Exec("nft", $"add table ip lost; add chain ip lost out {{ type filter hook output priority 0; }}; add rule ip lost out tcp sport {port} drop");
        vanished.Dispose();

        PairStatus status = await pair.StatusAsync();
        int pid = status.Active!.Pid;
        Assert.Equal((5, 5), (status.Active.Connections.Sockets, ByTool(pair, pid)));
        pair.Write(Config("v2"));
        await pair.FlipAsync();
        // The idle client is told to leave with the soft stop; the others stay. conntrack's entry of the one that has finished only waits for a timer.
        status = await pair.UntilAsync(
            s => s.Retired is [{ Leaving.Step: "draining", Connections: { Conntrack: 3, Sockets: 4, Haproxy: 4 } }], "four clients should be left");
        Assert.Equal(0, await idle.ReceiveAsync(new byte[4096]));
        Assert.Equal(4, ByTool(pair, pid));
        ConnectionCounts counts = status.Retired[0].Connections;
        Assert.Contains(counts.Why!.Value, w => w.Contains("close-wait", StringComparison.Ordinal));
        ConnectionsReport report = await pair.ConnectionsAsync("?generation=1&sort=bytes");
        Assert.Equal(["close-wait", "established", "established", "established"], report.Connections.Select(c => c.State).Order());
        Assert.Equal(slow.LocalEndPoint!.ToString(), report.Connections[0].Peer);

        Task<int> answered = ReadAllAsync(half), downloaded = ReadAllAsync(slow, length);
        Assert.True(await answered > 0);
        Assert.True(await downloaded >= length);
        chat.Dispose();
        status = await pair.UntilAsync(s => s.Retired is [{ Connections.Sockets: <= 2 }], "the one that vanished keeps it");
        report = await pair.ConnectionsAsync($"?generation=1&peer={gone}");
        Assert.Equal(1, report.Matched);
        slow.Dispose();
        Assert.Equal(1, (await pair.CloseAsync(new CloseRequest(Peer: gone.ToString()))).Closed);
        await pair.UntilAsync(s => s.Retired.IsEmpty, "then nothing keeps it");
        Assert.Equal(0, ByTool(pair, pid));
        Assert.DoesNotContain(pid, pair.HaproxyPids());
    }

    private static async Task<int> ReadAllAsync(Socket socket, int atLeast = int.MaxValue)
    {
        byte[] buffer = new byte[65536];
        int all = 0;
        while (all < atLeast && await socket.ReceiveAsync(buffer) is var read and > 0) all += read;
        return all;
    }

    [Fact(Timeout = 90_000)]
    public async Task Keepalive_clients_are_told_to_leave_over_the_close_spread_time_of_the_users_file()
    {
        const int clients = 24;
        await using PairUnderTest pair = await StartAsync(
            new PairYaml { FlipsByItself = false }, before: p => p.Write(Config("v1", global: "close-spread-time 4s")));
        var idle = new List<Socket>();
        for (int i = 0; i < clients; i++)
        {
            idle.Add(await SaidAsync(pair, pair.Services[i % 2], Get("/")));
            Assert.True(await idle[i].ReceiveAsync(new byte[4096]) > 0);
        }
        pair.Write(Config("v2", global: "close-spread-time 4s"));
        await pair.FlipAsync();
        var clock = Stopwatch.StartNew();
        TimeSpan[] left = await Task.WhenAll(idle.Select(async socket =>
        {
            Assert.Equal(0, await socket.ReceiveAsync(new byte[4096]));
            return clock.Elapsed;
        }));
        Show($"{clients} idle clients left over {(left.Max() - left.Min()).TotalSeconds:0.0} s");
        Assert.InRange(left.Max() - left.Min(), TimeSpan.FromSeconds(1), TimeSpan.FromSeconds(10));
        foreach (Socket socket in idle) socket.Dispose();
        await pair.UntilAsync(s => s.Retired.IsEmpty, "then it has drained");
    }
}
