using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>What the next generation knows of what the one before has seen, and who outside can ask it.</summary>
public sealed class ContinuityTests
{
    private const int Limit = 20;

    // The servers change places: persistence is by their names.
    private static string Config(string label, bool turned = false) => PairUnderTest.Config(label,
        frontend: $$"""
            stick-table type ip size 10k expire 10m store gpc0,conn_cnt,http_req_rate(10m) # limited clients
              http-request track-sc0 src if { req.hdr(X-Limited) -m found }
              http-request sc-inc-gpc0(0) if { req.hdr(X-Limited) -m found }
              http-request deny deny_status 429 if { req.hdr(X-Limited) -m found } { sc_http_req_rate(0) gt {{Limit}} }
              http-after-response set-header X-Server %s
            """,
        backend: $"""
            balance random
              stick-table type ip size 10k expire 10m
              stick on src
              {string.Join("\n  ", (turned ? ["s3", "s1", "s2"] : new[] { "s1", "s2", "s3" }).Select(s => $"server {s} 127.0.0.1:8080"))}
            """);

    /// <summary>A request over a connection of its own, from an address of the host's own.</summary>
    private static async Task<(int Status, string Label, string Server)> GetAsync(PairUnderTest pair, int client, bool limited = false)
    {
        using Socket socket = pair.Nets.Server.Run(() => new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp));
        socket.Bind(new IPEndPoint(IPAddress.Parse($"127.0.1.{client}"), 0));
        await socket.ConnectAsync(IPAddress.Loopback, 80);
        using var http = new HttpClient(new SocketsHttpHandler
        {
            ConnectCallback = (_, _) => ValueTask.FromResult<Stream>(new NetworkStream(socket)),
        });
        using var ask = new HttpRequestMessage(HttpMethod.Get, "http://service/");
        if (limited) ask.Headers.Add("X-Limited", "1");
        using HttpResponseMessage answer = await http.SendAsync(ask);
        return ((int)answer.StatusCode, answer.Headers.GetValues("X-Served-By").Single(), answer.Headers.GetValues("X-Server").Single());
    }

    private static string Entry(PairUnderTest pair, GenerationStatus active, int client)
    {
        string socket = Path.Combine(pair.Files["run"], PairUnderTest.Name, $"g{active.Number:00000}.sock");
        string table = pair.Nets.Server.Exec("bash", "-c", $"echo 'show table web' | socat - UNIX-CONNECT:{socket}");
        return Regex.Match(table, $@"(?<=key=127\.0\.1\.{client} ).*").Value;
    }

    [Fact(Timeout = 120_000)]
    public async Task Counters_a_rate_limit_and_persistence_hold_across_ten_flips_and_an_undo()
    {
        Require.Program("socat");
        var cold = System.Diagnostics.Stopwatch.StartNew();
        await using PairUnderTest pair = await PairUnderTest.StartAsync(
            new PairYaml { Continuity = "{ stick_tables: shared }", Watch = "{ undo: 30s }" }, p => p.Write(Config("v0")));
        Show($"serving {cold.ElapsedMilliseconds} ms after a cold start");
        await using LoadRun load = await StartedAsync(pair.Load(200));
        int[] clients = [.. Enumerable.Range(10, 20)];
        Dictionary<int, string> servers = [];
        foreach (int client in clients) servers[client] = (await GetAsync(pair, client)).Server;
        Assert.Equal(3, servers.Values.Distinct().Count());

        int asked = 0;
        async Task AskAsync(string label, GenerationStatus active)
        {
            for (int i = 0; i < 3; i++)
            {
                var (status, from, _) = await GetAsync(pair, 5, limited: true);
                Assert.Equal((++asked > Limit ? 429 : 200, label), (status, from));
            }
            foreach (int client in clients) Assert.Equal((200, label, servers[client]), await GetAsync(pair, client));
            Assert.Matches($@"\bgpc0={asked} conn_cnt={asked} http_req_rate\(600000\)={asked}$", Entry(pair, active, 5).Trim());
        }

        await AskAsync("v0", (await pair.StatusAsync()).Active!);
        for (int i = 1; i <= 10; i++)
        {
            var clock = System.Diagnostics.Stopwatch.StartNew();
            PairStatus status = await pair.FlipByEditAsync(Config($"v{i}", turned: i % 2 == 1));
            Show($"flip {i}: {clock.ElapsedMilliseconds} ms from the edit");
            await AskAsync($"v{i}", status.Active!);
            if (i != 5) continue;
            await pair.RestartDaemonAsync(PairUnderTest.Kill);
            await pair.UntilAsync(s => s.State is "watching" or "steady", "the daemon should be back");
        }
        FlipRecord back = await pair.RollbackAsync();
        Assert.Equal("rolled-back", back.Outcome);
        await AskAsync("v9", (await pair.StatusAsync()).Active!);
        await PassedAsync(load);
        Assert.Equal(36, asked);
        // Nobody on the host reads the key that lets one in.
        string key = File.ReadAllText(Path.Combine(pair.Files["state"], "pairs", PairUnderTest.Name, "peers.key"));
        Assert.Matches("^[0-9a-f]{16}$", key);
        foreach (int pid in pair.HaproxyPids()) Assert.DoesNotContain(key, File.ReadAllText($"/proc/{pid}/cmdline"), StringComparison.Ordinal);
        Assert.DoesNotContain(key, pair.DaemonLog, StringComparison.Ordinal);
    }

    [Fact(Timeout = 60_000)]
    public async Task Tables_are_separate_unless_they_are_to_be_shared()
    {
        Require.Program("socat");
        await using PairUnderTest pair = await PairUnderTest.StartAsync(before: p => p.Write(Config("v0")));
        await GetAsync(pair, 5, limited: true);
        Assert.Contains("gpc0=1 ", Entry(pair, (await pair.StatusAsync()).Active!, 5), StringComparison.Ordinal);
        PairStatus status = await pair.FlipByEditAsync(Config("v1"));
        Assert.Equal("", Entry(pair, status.Active!, 5));
    }

    [Fact(Timeout = 60_000)]
    public async Task The_users_stats_socket_is_found_by_another_user_wherever_traffic_is()
    {
        string setpriv = Require.Program("setpriv"), socat = Require.Program("socat");
        const string sockets = "stats socket /run/haproxy/first.sock mode 600 level admin\n  stats socket /run/haproxy/admin.sock mode 666 level user";
        await using PairUnderTest pair = await PairUnderTest.StartAsync(
            new PairYaml { Watch = "{ undo: 30s }" }, p => p.Write(PairUnderTest.Config("v1", global: sockets)));
        // The test's own directory is private; /run/flipcontroller's are not.
        File.SetUnixFileMode(pair.Files.Path, (UnixFileMode)Convert.ToInt32("711", 8));
        string place = Path.Combine(pair.Files["run"], PairUnderTest.Name);
        // As an exporter asks, run by a user without any right of its own.
        async Task<Said> AskAsync(string name)
        {
            NetnsProcess asks = pair.Nets.Server.Start(setpriv, "--reuid=65534", "--regid=65534", "--clear-groups",
                "bash", "-c", $"echo 'show info' | {socat} - UNIX-CONNECT:{place}/{name}");
            return new Said(await asks.Exit(Patience), asks.Output, asks.Errors);
        }

        async Task LeadsToAsync(GenerationStatus active)
        {
            Said said = await AskAsync("stats-2.sock");
            Assert.True(said.ExitCode == 0, said.Error);
            Assert.Contains(string.Create(CultureInfo.InvariantCulture, $"\nPid: {active.Pid}\n"), said.Output, StringComparison.Ordinal);
        }

        GenerationStatus first = (await pair.StatusAsync()).Active!;
        await LeadsToAsync(first);
        // As the user wrote it: for root alone.
        Assert.Contains("Permission denied", (await AskAsync("stats-1.sock")).Error, StringComparison.Ordinal);

        await LeadsToAsync((await pair.FlipByEditAsync(PairUnderTest.Config("v2", global: sockets))).Active!);
        await pair.RollbackAsync();
        await LeadsToAsync(first);
        File.Delete(Path.Combine(place, "stats-2.sock"));
        await pair.RestartDaemonAsync(PairUnderTest.Terminate);
        await LeadsToAsync(first);

        await pair.FlipByEditAsync(PairUnderTest.Config("v3", global: "stats socket /run/haproxy/one.sock"));
        Assert.Equal(["stats-1.sock"], Directory.GetFiles(place, "stats-*").Select(Path.GetFileName));
        await pair.FlipByEditAsync(PairUnderTest.Config("v4"));
        Assert.Empty(Directory.GetFiles(place, "stats-*"));
        // Passed through, not listed; what is in the private directories stays private.
        NetnsProcess lists = pair.Nets.Server.Start(setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", "ls", place);
        Assert.NotEqual(0, await lists.Exit(Patience));
        Assert.All(Directory.GetDirectories(place), d => Assert.Equal((UnixFileMode)Convert.ToInt32("700", 8), File.GetUnixFileMode(d)));
        Assert.Equal((UnixFileMode)Convert.ToInt32("711", 8), File.GetUnixFileMode(place));
    }
}
