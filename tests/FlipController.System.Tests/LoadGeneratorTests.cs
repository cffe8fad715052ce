using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>A load generator that reports no failure is worth something only if it sees every kind there is.</summary>
[Collection(PairUnderTest.Alone)]
public sealed class LoadGeneratorTests
{
    private const int Deadline = 30_000;

    private static readonly IPEndPoint AnyV4 = new(IPAddress.Loopback, 0), AnyV6 = new(IPAddress.IPv6Loopback, 0);

    private static LoadOptions Brief(params IPEndPoint[] targets) => new()
    {
        Targets = targets, Rate = 200, Duration = TimeSpan.FromMilliseconds(500), Timeout = TimeSpan.FromSeconds(10), Connections = 4,
    };

    private static async Task<LoadResult> Run(LoadOptions options)
    {
        var result = await LoadRun.RunAsync(options, TestContext.Current.CancellationToken);
        Assert.Equal(result.Requests, result.Ok + result.Failed);
        return result;
    }

    // ---- nothing fails when nothing is wrong

    [Theory(Timeout = Deadline)]
    [InlineData(LoadMode.Fresh, false)]
    [InlineData(LoadMode.Fresh, true)]
    [InlineData(LoadMode.Keepalive, false)]
    [InlineData(LoadMode.Keepalive, true)]
    [InlineData(LoadMode.Long, false)]
    [InlineData(LoadMode.Long, true)]
    public async Task A_good_backend_gives_no_failure(LoadMode mode, bool v6)
    {
        using var backend = Backend.Start(new BackendOptions { Listen = [v6 ? AnyV6 : AnyV4], Name = "alpha" });
        var result = await Run(Brief(backend.Endpoint) with
        {
            Mode = mode, Duration = TimeSpan.FromSeconds(1), ServedByHeader = "X-Backend", Expect = Expectation.Contains("alpha"),
        });

        Assert.True(result.Passed, result.ToJson());
        Assert.Equal(mode == LoadMode.Long ? 202 : 200, result.Requests); // two of the four download
        Assert.Equal(mode == LoadMode.Fresh ? 200 : 4, result.Connections);
        Assert.Equal(200, result.Latency.Count);
        Assert.Equal(0, result.LateResets + result.Reconnected + result.Raced);
        Assert.Equal(["alpha"], result.ServedBy.Keys);
        await Eventually.True(() => backend.Connections == 0, TimeSpan.FromSeconds(5), "connections were left open");
    }

    [Fact(Timeout = Deadline)]
    public async Task Targets_are_taken_in_turn_and_told_apart_by_the_header()
    {
        using var blue = Backend.Start(new BackendOptions { Name = "blue" });
        using var green = Backend.Start(new BackendOptions { Listen = [AnyV6], Name = "green" });
        var result = await Run(Brief(blue.Endpoint, green.Endpoint) with { ServedByHeader = "x-backend" });

        Assert.True(result.Passed, result.ToJson());
        Assert.Equal(50, result.ServedBy["blue"].Count);
        Assert.Equal(50, result.ServedBy["green"].Count);
        Assert.Equal(0, result.ServedBy["blue"].FirstMs, 1.0);
        Assert.Equal(495, result.ServedBy["green"].LastMs, 1.0);
    }

    [Theory(Timeout = Deadline)]
    [InlineData("/bytes/300000?seed=7", "bytes:300000:7", true)]
    [InlineData("/bytes/300000?seed=7", "bytes:300000:8", false)]
    [InlineData("/bytes/300000?seed=7", "bytes:300001:7", false)]
    [InlineData("/bytes/300000?seed=7", "length:300000", true)]
    [InlineData("/bytes/4", "length:5", false)]
    [InlineData("/", "sha256:6a20c7ef6ee70eba29a2b1c12ae5dcf6b4b4c66f8e3d4b48b4b0b6ce3bd6bd05", false)]
    [InlineData("/", "back", true)]
    [InlineData("/", "text:length:3", false)]
    [InlineData("/slow/5", "backend", true)]
    public async Task Content_is_compared(string path, string expect, bool right)
    {
        using var backend = Backend.Start(new BackendOptions());
        var result = await Run(Brief(backend.Endpoint) with { Path = path, Expect = Expectation.Parse(expect), Rate = 50 });

        Assert.True(25 == (right ? result.Ok : result.WrongContent), result.ToJson());
    }

    [Fact(Timeout = Deadline)]
    public async Task A_hash_that_matches_is_content_that_matches()
    {
        using var backend = Backend.Start(new BackendOptions { Name = "alpha" });
        var hash = Convert.ToHexString(global::System.Security.Cryptography.SHA256.HashData("alpha\n"u8));
        var result = await Run(Brief(backend.Endpoint) with { Expect = Expectation.Parse($"sha256:{hash}"), Mode = LoadMode.Keepalive });

        Assert.True(result.Passed, result.ToJson());
    }

    [Fact(Timeout = Deadline)]
    public async Task Health_is_switched_by_post()
    {
        using var backend = Backend.Start(new BackendOptions());
        using var http = new HttpClient { BaseAddress = new Uri($"http://{backend.Endpoint}") };
        Assert.Equal(HttpStatusCode.OK, (await http.GetAsync("/health")).StatusCode);
        await http.PostAsync("/health/down", new StringContent("a body that is read and dropped"));
        Assert.Equal(HttpStatusCode.ServiceUnavailable, (await http.GetAsync("/health")).StatusCode);

        var result = await Run(Brief(backend.Endpoint) with { Path = "/health" });
        Assert.True(result.WrongStatus == 100, result.ToJson());

        await http.PostAsync("/health/up", null);
        Assert.Equal(HttpStatusCode.OK, (await http.GetAsync("/health")).StatusCode);
        using var head = await http.SendAsync(new HttpRequestMessage(HttpMethod.Head, "/bytes/1000000"));
        Assert.Equal(1_000_000, head.Content.Headers.ContentLength);
        Assert.Equal(HttpStatusCode.OK, (await http.GetAsync("/")).StatusCode); // the connection survived the HEAD
    }

    [Fact(Timeout = Deadline)]
    public async Task The_upgrade_is_the_one_of_RFC_6455()
    {
        using var backend = Backend.Start(new BackendOptions());
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        await socket.ConnectAsync(backend.Endpoint);
        await ScriptedServer.Say(socket, "GET /chat HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
        var answer = new byte[1024];
        var count = await socket.ReceiveAsync(answer);
        Assert.Contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", Encoding.ASCII.GetString(answer, 0, count), StringComparison.Ordinal);
    }

    [Fact(Timeout = 60_000)]
    public async Task HAProxy_in_between_changes_nothing_and_a_reload_leaves_long_connections_alone()
    {
        Require.Netns();
        var haproxy = Require.Program("haproxy");
        using var netns = Netns.Create();
        using var temp = new TempDir();
        using var backend = Backend.Start(new BackendOptions { Namespace = netns.Name, Listen = [new(IPAddress.Loopback, 8080)], Name = "alpha" });
        var config = temp.Write("haproxy.cfg", """
            defaults
              mode http
              timeout connect 5s
              timeout client 30s
              timeout server 30s
            listen f
              bind 127.0.0.1:80
              bind [::1]:80
              http-response set-header X-Served-By %pid
              server s 127.0.0.1:8080

            """);
        string[] start = ["-D", "-f", config, "-p", temp["pid"]];
        netns.Exec(haproxy, start);
        var options = Brief(new IPEndPoint(IPAddress.Loopback, 80), new IPEndPoint(IPAddress.IPv6Loopback, 80)) with
        {
            Namespace = netns.Name, Expect = Expectation.Contains("alpha"), Duration = TimeSpan.FromSeconds(2), Timeout = TimeSpan.FromSeconds(10),
        };

        await using var keepalive = LoadRun.Start(options with { Mode = LoadMode.Keepalive });
        await using var @long = LoadRun.Start(options with { Mode = LoadMode.Long, Expect = Expectation.Any });
        await Eventually.True(() => keepalive.Now.Ok > 50 && @long.Now.Ok > 50, TimeSpan.FromSeconds(20), () => $"{keepalive.Now} {@long.Now}");
        netns.Exec(haproxy, [.. start, "-sf", (await File.ReadAllTextAsync(temp["pid"])).Trim()]);
        var (kept, stayed) = (await keepalive.Completion, await @long.Completion);

        Assert.True(kept.Passed, kept.ToJson());
        Assert.Equal(2, kept.ServedBy.Count);
        Assert.True(kept.Reconnected + kept.Raced > 0, kept.ToJson());
        Assert.True(stayed.Passed, stayed.ToJson());
        Assert.Equal(4, stayed.Connections);
    }

    [Theory(Timeout = Deadline)]
    [InlineData("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n", "hello world")]
    [InlineData("HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end")]
    [InlineData("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok")]
    public async Task Any_framing_of_HTTP_is_understood_in_pieces_of_any_size(string response, string text)
    {
        await using var server = new ScriptedServer(async (socket, number) =>
        {
            await ScriptedServer.Request(socket);
            var bytes = Encoding.ASCII.GetBytes(response);
            var size = number % 7 + 1;
            for (var i = 0; i < bytes.Length; i += size) await socket.SendAsync(bytes.AsMemory(i, Math.Min(size, bytes.Length - i)));
            socket.Shutdown(SocketShutdown.Send);
        });
        var result = await Run(Brief(server.Endpoint) with { Expect = Expectation.Contains(text) });

        Assert.True(result.Passed, result.ToJson());
    }

    // ---- and every failure is seen

    [Theory(Timeout = Deadline)]
    [InlineData(LoadMode.Fresh)]
    [InlineData(LoadMode.Keepalive)]
    [InlineData(LoadMode.Long)]
    public async Task A_port_without_a_listener_refuses(LoadMode mode)
    {
        using var gone = Backend.Start(new BackendOptions());
        gone.Dispose();
        var result = await Run(Brief(gone.Endpoint) with { Mode = mode });

        Assert.True(result.Failed >= 100, result.ToJson());
        Assert.Equal(result.Requests, result.Refused);
        Assert.False(result.Passed);
        Assert.Equal("Connection refused while connecting", result.Samples[0].Message);
    }

    [Theory(Timeout = Deadline)]
    [InlineData(LoadMode.Fresh)]
    [InlineData(LoadMode.Keepalive)]
    public async Task A_reset_in_the_middle_of_a_response_is_a_reset(LoadMode mode)
    {
        await using var server = new ScriptedServer(async (socket, _) =>
        {
            await ScriptedServer.Request(socket);
            await ScriptedServer.Say(socket, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf");
            ScriptedServer.Reset(socket);
        });
        var result = await Run(Brief(server.Endpoint) with { Mode = mode });

        Assert.Equal(100, result.Reset);
        Assert.Equal(100, result.Failed);
    }

    [Fact(Timeout = Deadline)]
    public async Task A_reset_before_any_response_is_a_reset()
    {
        await using var server = new ScriptedServer((socket, _) =>
        {
            ScriptedServer.Reset(socket);
            return Task.CompletedTask;
        });
        var result = await Run(Brief(server.Endpoint));

        Assert.Equal(100, result.Reset);
    }

    [Fact(Timeout = Deadline)]
    public async Task One_reset_among_good_answers_is_found()
    {
        await using var server = new ScriptedServer(async (socket, number) =>
        {
            await ScriptedServer.Request(socket);
            if (number == 57) ScriptedServer.Reset(socket);
            else await ScriptedServer.Say(socket, ScriptedServer.Ok);
        });
        var result = await Run(Brief(server.Endpoint));

        Assert.Equal((99L, 1L), (result.Ok, result.Reset));
        Assert.Equal(57 * 5, result.Samples.Single().AtMs, 10.0);
    }

    [Theory(Timeout = Deadline)]
    [InlineData(LoadMode.Fresh, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf", "the connection ended after 4 bytes of the body")]
    [InlineData(LoadMode.Keepalive, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf", "the connection ended after 4 bytes of the body")]
    [InlineData(LoadMode.Fresh, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "the connection ended after 4 bytes of the body")]
    [InlineData(LoadMode.Fresh, "HTTP/1.1 200 OK\r\nConte", "the connection ended in the head of the response")]
    [InlineData(LoadMode.Fresh, "", "the connection ended before any byte of the response")]
    public async Task A_body_that_ends_early_is_truncated(LoadMode mode, string response, string message)
    {
        await using var server = new ScriptedServer(async (socket, _) =>
        {
            await ScriptedServer.Request(socket);
            await ScriptedServer.Say(socket, response);
        });
        var result = await Run(Brief(server.Endpoint) with { Mode = mode });

        Assert.Equal(100, result.Truncated);
        Assert.Equal(message, result.Samples[0].Message);
    }

    [Fact(Timeout = Deadline)]
    public async Task What_is_not_HTTP_is_a_failure_and_says_what_it_was()
    {
        await using var server = new ScriptedServer((socket, _) => ScriptedServer.Say(socket, "220 mail.example ESMTP\r\n\r\n"));
        var result = await Run(Brief(server.Endpoint));

        Assert.Equal(100, result.Other);
        Assert.Contains("220 mail.example", result.Samples[0].Message, StringComparison.Ordinal);
    }

    [Fact(Timeout = Deadline)]
    public async Task A_server_that_never_answers_times_out()
    {
        using var backend = Backend.Start(new BackendOptions());
        backend.Stall();
        var result = await Run(Brief(backend.Endpoint) with { Timeout = TimeSpan.FromMilliseconds(300) });

        Assert.Equal(100, result.TimedOut);
        Assert.Equal("nothing for 0.3 s before any byte of the response", result.Samples[0].Message);
    }

    [Fact(Timeout = Deadline)]
    public async Task Memory_is_bounded_and_what_the_bound_cost_is_counted()
    {
        using var backend = Backend.Start(new BackendOptions());
        backend.Stall();
        var result = await Run(Brief(backend.Endpoint) with { MaxInFlight = 10, Timeout = TimeSpan.FromSeconds(2) });

        Assert.Equal((10L, 90L), (result.TimedOut, result.Overrun));
    }

    [Fact(Timeout = Deadline)]
    public async Task Running_out_of_source_ports_is_its_own_count()
    {
        Require.Netns();
        using var netns = Netns.Create();
        netns.Sysctl("net.ipv4.ip_local_port_range", "40000 40019");
        using var backend = Backend.Start(new BackendOptions { Namespace = netns.Name, Listen = [new(IPAddress.Loopback, 80)] });
        backend.Stall();
        var result = await Run(Brief(backend.Endpoint) with { Namespace = netns.Name, Timeout = TimeSpan.FromSeconds(3) });

        Assert.Equal((20L, 80L), (result.TimedOut, result.PortsExhausted));
    }

    // ---- time

    [Theory(Timeout = Deadline)]
    [InlineData(LoadMode.Fresh)]
    [InlineData(LoadMode.Keepalive)]
    [InlineData(LoadMode.Long)]
    public async Task A_stall_counts_for_every_request_that_was_due_in_it(LoadMode mode)
    {
        const int Rate = 400, Stalled = 200; // half a second's worth of a run of one and a half
        using var backend = Backend.Start(new BackendOptions());
        await using var run = LoadRun.Start(Brief(backend.Endpoint) with
        {
            Mode = mode, Long = LongTraffic.Echo, Rate = Rate, Duration = TimeSpan.FromSeconds(1.5), Timeout = TimeSpan.FromSeconds(5),
        });
        await Eventually.True(() => run.Now.Ok > 100, TimeSpan.FromSeconds(10), () => run.Now.ToString());
        backend.Stall();
        var before = run.Now.Requests;
        // The schedule goes on whatever comes back: this ends only with an open loop, and half a second later.
        await Eventually.True(() => run.Now.Requests >= before + Stalled, TimeSpan.FromSeconds(10), () => run.Now.ToString());
        backend.Resume();
        var result = await run.Completion;

        // A third of the requests were due in the stall and waited from 500 ms down to nothing: the worst tenth of all of them
        // waited above 350 ms. Measured from when they were sent, only the few outstanding when it began would show.
        Assert.True(result.Passed, result.ToJson());
        Assert.Equal(600, result.Latency.Count);
        Assert.InRange(result.Latency.Max, 450, 1500);
        Assert.InRange(result.Latency.P90, 250, 1200);
        Assert.InRange(result.Latency.P50, 0, 200);
    }

    [Fact(Timeout = Deadline)]
    public async Task Two_thousand_new_connections_a_second_are_sustained_with_little_processor()
    {
        using var backend = Backend.Start(new BackendOptions());
        var result = await Run(Brief(backend.Endpoint) with { Rate = 2000, Duration = TimeSpan.FromSeconds(2), Timeout = TimeSpan.FromSeconds(5) });

        Assert.True(result.Passed, result.ToJson());
        Assert.Equal(4000, result.Connections);
        Assert.InRange(result.Seconds, 1.9, 15);
        Assert.InRange(result.CpuPercent, 0.1, 80);
    }

    [Fact(Timeout = Deadline)]
    public async Task A_run_can_be_stopped_early_in_good_order()
    {
        using var backend = Backend.Start(new BackendOptions());
        await using var run = LoadRun.Start(Brief(backend.Endpoint) with { Duration = TimeSpan.FromMinutes(10) });
        await Eventually.True(() => run.Now.Ok > 20, TimeSpan.FromSeconds(10), () => run.Now.ToString());
        run.Stop();
        var result = await run.Completion;

        Assert.True(result.Passed, result.ToJson());
        Assert.InRange(result.Seconds, 0, 20);
    }

    [Fact]
    public void A_percentile_is_never_below_the_value_and_at_most_one_percent_above()
    {
        var histogram = new Histogram();
        for (var i = 1; i <= 100_000; i++) histogram.Record(i);
        foreach (var percent in new[] { 0.1, 1, 50, 90, 99, 99.9, 100 })
            Assert.InRange(histogram.Percentile(percent), percent * 1000, percent * 1000 * 1.01);
        Assert.Equal(100_000, histogram.MaxMicroseconds);
        histogram.Record(long.MaxValue); // longer than it has buckets for: kept in the last, and exact as the maximum
        Assert.Equal(long.MaxValue, histogram.MaxMicroseconds);
    }

    // ---- connections that are used again

    [Fact(Timeout = Deadline)]
    public async Task An_orderly_close_between_requests_is_no_failure()
    {
        await using var server = new ScriptedServer(async (socket, _) =>
        {
            for (var i = 0; i < 5; i++)
            {
                await ScriptedServer.Request(socket);
                await ScriptedServer.Say(socket, ScriptedServer.Ok);
            }
        });
        var result = await Run(Brief(server.Endpoint) with { Mode = LoadMode.Keepalive, Rate = 100 });

        Assert.True(result.Passed, result.ToJson());
        Assert.Equal(50, result.Ok);
        Assert.Equal(12, result.Connections); // four lanes of 12 or 13 requests
        Assert.InRange(result.Reconnected, 8, 12);
    }

    [Fact(Timeout = Deadline)]
    public async Task A_close_that_crosses_a_request_is_retried_once_and_told()
    {
        await using var server = new ScriptedServer(async (socket, _) =>
        {
            await ScriptedServer.Request(socket);
            await ScriptedServer.Say(socket, ScriptedServer.Ok);
            await ScriptedServer.Request(socket); // and ends instead of answering
        });
        var result = await Run(Brief(server.Endpoint) with { Mode = LoadMode.Keepalive, Rate = 100, Connections = 1 });

        Assert.True(result.Passed, result.ToJson());
        Assert.Equal((50L, 49L), (result.Ok, result.Raced));
    }

    [Fact(Timeout = Deadline)]
    public async Task A_reset_between_requests_is_a_failure()
    {
        await using var server = new ScriptedServer(async (socket, _) =>
        {
            await ScriptedServer.Request(socket);
            await ScriptedServer.Say(socket, ScriptedServer.Ok);
            ScriptedServer.Reset(socket);
        });
        var result = await Run(Brief(server.Endpoint) with { Mode = LoadMode.Keepalive, Rate = 20, Connections = 1 });

        Assert.Equal(10, result.Ok);
        Assert.InRange(result.Reset, 9, 10);
    }

    [Fact(Timeout = Deadline)]
    public async Task A_long_connection_that_is_cut_is_a_failure()
    {
        using var backend = Backend.Start(new BackendOptions());
        await using var run = LoadRun.Start(Brief(backend.Endpoint) with { Mode = LoadMode.Long, Duration = TimeSpan.FromMinutes(1), Rate = 40 });
        await Eventually.True(() => run.Now.Ok > 4, TimeSpan.FromSeconds(10), () => run.Now.ToString());
        backend.Dispose();
        await Eventually.True(() => run.Now.Failed >= 4, TimeSpan.FromSeconds(10), () => run.Now.ToString());
        run.Stop();
        var result = await run.Completion;

        Assert.True(result.Truncated + result.Reset >= 4, result.ToJson());
    }

    [Fact(Timeout = Deadline)]
    public async Task An_echo_that_comes_back_changed_is_wrong_content()
    {
        await using var server = new ScriptedServer(async (socket, _) =>
        {
            await ScriptedServer.Request(socket);
            await ScriptedServer.Say(socket, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n");
            var frame = new byte[64];
            for (var i = 0; await socket.ReceiveAsync(frame) is var count and > 0; i++)
            {
                if (i == 3) frame[63] ^= 1;
                await socket.SendAsync(frame.AsMemory(0, count));
            }
        });
        var result = await Run(Brief(server.Endpoint) with { Mode = LoadMode.Long, Long = LongTraffic.Echo, Connections = 1, Rate = 12 });

        Assert.Equal((5L, 1L), (result.Ok, result.WrongContent));
    }

    // ---- a closed loop

    [Fact(Timeout = Deadline)]
    public async Task A_closed_loop_sends_so_many_and_has_at_most_so_many_clients()
    {
        int together = 0, most = 0;
        await using var server = new ScriptedServer(async (socket, _) =>
        {
            int now = Interlocked.Increment(ref together);
            for (int seen = most; now > seen && Interlocked.CompareExchange(ref most, now, seen) != seen; seen = most) { }
            await ScriptedServer.Request(socket);
            await ScriptedServer.Say(socket, ScriptedServer.Ok);
            Interlocked.Decrement(ref together); // before the end of the connection, after which its client comes again
        });
        var result = await Run(Brief(server.Endpoint) with { ClosedLoop = 3, Requests = 500, Duration = TimeSpan.FromSeconds(20) });

        Assert.True(result.Passed, result.ToJson());
        Assert.Equal((500L, 500L, 500L), (result.Requests, result.Connections, result.Latency.Count));
        Assert.Equal((0.0, 0L), (result.Rate, result.Lag.Count));
        Assert.InRange(most, 2, 3);
    }

    [Fact(Timeout = Deadline)]
    public async Task A_client_of_a_closed_loop_waits_for_its_answer_and_counts_it_once()
    {
        using var backend = Backend.Start(new BackendOptions());
        var result = await Run(Brief(backend.Endpoint) with { ClosedLoop = 2, Path = "/slow/100", Duration = TimeSpan.FromSeconds(1) });

        Assert.True(result.Passed, result.ToJson());
        Assert.InRange(result.Requests, 4, 22); // each of two clients one every 100 ms at most, the first at 0 and the last at 1 s
        Assert.InRange(result.Latency.P50, 98, 400); // as exact as its histogram
    }

    [Fact(Timeout = Deadline)]
    public async Task A_client_of_a_closed_loop_that_failed_asks_again()
    {
        await using var server = new ScriptedServer(async (socket, number) =>
        {
            await ScriptedServer.Request(socket);
            if (number % 2 == 0) ScriptedServer.Reset(socket);
            else await ScriptedServer.Say(socket, ScriptedServer.Ok);
        });
        var result = await Run(Brief(server.Endpoint) with { ClosedLoop = 1, Requests = 100, Duration = TimeSpan.FromSeconds(20) });

        Assert.Equal((50L, 50L), (result.Ok, result.Reset));
    }

    // ---- as programs

    [Fact(Timeout = Deadline)]
    public async Task The_program_s_exit_code_and_JSON_say_whether_anything_failed()
    {
        Require.Netns();
        using var pair = Netns.Pair();
        using var temp = new TempDir();
        var serve = pair.Server.Start(Programs.Load, "serve", "--listen", $"{pair.ServerV4}:8080", "--listen", $"[{pair.ServerV6}]:8080", "--name", "far", "--pid-file", temp["pid"]);
        await Eventually.True(() => serve.Output.Contains($"listening on [{pair.ServerV6}]:8080", StringComparison.Ordinal), TimeSpan.FromSeconds(10), () => serve.Errors);
        Assert.Equal(serve.Pid.ToString(), File.ReadAllText(temp["pid"]).Trim());

        var options = Brief(new IPEndPoint(pair.ServerV4, 8080), new IPEndPoint(pair.ServerV6, 8080)) with { Expect = Expectation.Contains("far") };
        var good = pair.Client.Start(Programs.Load, [.. options.ToArguments()]);
        Assert.Equal(0, await good.Exit(TimeSpan.FromSeconds(20)));
        var result = LoadResult.FromJson(good.Output);
        Assert.True(result.Passed, good.Output);
        Assert.Equal(100, result.Ok);

        serve.Terminate();
        Assert.Equal(0, await serve.Exit(TimeSpan.FromSeconds(10)));
        Assert.False(File.Exists(temp["pid"]));

        var bad = pair.Client.Start(Programs.Load, [.. options.ToArguments()]);
        Assert.Equal(1, await bad.Exit(TimeSpan.FromSeconds(20)));
        Assert.Equal(100, LoadResult.FromJson(bad.Output).Refused);

        var nonsense = pair.Client.Start(Programs.Load, "run", "--target", "nowhere", "--rate", "0");
        Assert.NotEqual(0, await nonsense.Exit(TimeSpan.FromSeconds(20)));
        Assert.Contains("\"nowhere\" is not ADDR:PORT", nonsense.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public void Options_survive_the_command_line_and_results_survive_JSON()
    {
        var arguments = (Brief(AnyV6) with { Expect = Expectation.Bytes(5, 6), Status = 201, Host = "example.org", MaxInFlight = 9, Namespace = "n" }).ToArguments();
        Assert.Equal(
            "run --json --mode fresh --target [::1]:0 --rate 200 --duration 500ms --timeout 10000ms --connections 4 --path / --served-by X-Served-By "
            + "--long both --download-rate 65536 --expect bytes:5:6 --host example.org --status 201 --max-in-flight 9 --netns n", string.Join(' ', arguments));
        Assert.EndsWith(" --closed-loop 3 --requests 7", string.Join(' ', (Brief(AnyV6) with { ClosedLoop = 3, Requests = 7 }).ToArguments()), StringComparison.Ordinal);
        var wrong = Assert.Throws<ArgumentException>(() => LoadRun.Start(new LoadOptions { Targets = [], Rate = 0, Path = "x" }));
        Assert.Contains("no target; rate: 0 must be above 0", wrong.Message, StringComparison.Ordinal);
        Assert.Contains("path: \"x\" must start with /", wrong.Message, StringComparison.Ordinal);
        wrong = Assert.Throws<ArgumentException>(() => LoadRun.Start(Brief(AnyV6) with { ClosedLoop = 0, Mode = LoadMode.Long, Requests = 0 }));
        Assert.Contains("closed-loop: 0 must be between 1 and 16000 clients; closed-loop: each of its requests has a connection of its own", wrong.Message, StringComparison.Ordinal);
        Assert.Contains("requests: 0 must be at least 1", wrong.Message, StringComparison.Ordinal);
        wrong = Assert.Throws<ArgumentException>(() => LoadRun.Start(Brief(AnyV6) with { Requests = 5 }));
        Assert.Contains("requests: only a closed loop ends by their number", wrong.Message, StringComparison.Ordinal);
    }

    /// <summary>A server that does to each connection just what a test says, then closes it in good order unless told otherwise.</summary>
    private sealed class ScriptedServer : IAsyncDisposable
    {
        public const string Ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

        private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        private readonly Task _accepting;

        public ScriptedServer(Func<Socket, int, Task> script)
        {
            _listener.Bind(AnyV4);
            _listener.Listen(512);
            _accepting = Accept(script);
        }

        public IPEndPoint Endpoint => (IPEndPoint)_listener.LocalEndPoint!;

        public static async Task Request(Socket socket)
        {
            var (buffer, count) = (new byte[4096], 0);
            while (buffer.AsSpan(0, count).IndexOf("\r\n\r\n"u8) < 0)
            {
                var more = await socket.ReceiveAsync(buffer.AsMemory(count));
                if (more == 0) throw new SocketException((int)SocketError.ConnectionAborted);
                count += more;
            }
        }

        public static async Task Say(Socket socket, string text) => await socket.SendAsync(Encoding.ASCII.GetBytes(text));

        /// <summary>SO_LINGER with 0 seconds: close sends a RST.</summary>
        public static void Reset(Socket socket)
        {
            socket.LingerState = new LingerOption(true, 0);
            socket.Close();
        }

        public async ValueTask DisposeAsync()
        {
            _listener.Dispose();
            await _accepting;
        }

        private async Task Accept(Func<Socket, int, Task> script)
        {
            List<Task> connections = [];
            try
            {
                for (var number = 0; ; number++) connections.Add(Serve(await _listener.AcceptAsync(), number, script));
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                // The test is over.
            }
            await Task.WhenAll(connections);
        }

        private static async Task Serve(Socket socket, int number, Func<Socket, int, Task> script)
        {
            using (socket)
            {
                try
                {
                    await script(socket, number);
                }
                catch (Exception e) when (e is SocketException or ObjectDisposedException)
                {
                    // The client went first.
                }
            }
        }
    }
}
