using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using FlipController.Core;
using FlipController.Linux.Files;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>HAProxy configurations that must not go live: traffic stays where it was, and it is said why.</summary>
public sealed class TroubleWithHaproxyTests
{
    private const int Limit = 90_000;

    [Fact(Timeout = Limit)]
    public async Task A_bad_configuration_moves_nothing_says_why_and_the_next_good_one_goes_live()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync(
            "    gate: { timeout: 2s, probes: [ { http: { service: \"127.0.0.1:8080\", path: /healthz } } ] }\n");
        using Backend backend = Backend.Start(new BackendOptions { Namespace = pair.Netns.Name });
        using Backend other = Backend.Start(new BackendOptions { Namespace = pair.Netns.Name, Listen = [new IPEndPoint(IPAddress.Loopback, 8099)] });
        string Balanced(string name, int port) => TroubledPair.Serving(name, more: $"""
            backend shop
              server s1 127.0.0.1:{port} check inter 100ms fall 1 rise 1
            """);
        // Parity counts the servers that are UP on the active side.
        pair.Save(Balanced("v2", backend.Endpoint.Port));
        await pair.FlipsAsync(2);
        await pair.UntilAsync(s => s.State == "steady");
        LoadRun load = pair.Load();
        int flips = 2;

        (string What, string Configuration, string Says)[] bad =
        [
            ("rejected", Balanced("bad", 1) + "nonsense here\n", $"{pair.Config}:11"),
            ("rejected, in HAProxy's words", TroubledPair.Serving("bad", more: "  http-reqest deny"), "unknown keyword 'http-reqest' in 'frontend' section"),
            ("a value HAProxy does not know", TroubledPair.Serving("bad").Replace("timeout client 5s", "timeout client soon", StringComparison.Ordinal), $"{pair.Config}:4"),
            ("a server is down", Balanced("bad", 1), "s1"),
            ("the probe is answered 500", Balanced("bad", backend.Endpoint.Port).Replace("status 200", "status 500", StringComparison.Ordinal), "was answered 500, not 200-399"),
            ("nothing answers the probe", Balanced("bad", backend.Endpoint.Port).Replace("http-request return", "http-request silent-drop\n  http-request return", StringComparison.Ordinal), "/healthz"),
            ("a port in use", Balanced("bad", backend.Endpoint.Port).Replace("bind 127.0.0.1:8080", "bind 127.0.0.1:8080\n  bind 127.0.0.1:8099", StringComparison.Ordinal), "127.0.0.1:8099 is in use"),
            ("a port in use by a wildcard", Balanced("bad", backend.Endpoint.Port).Replace("bind 127.0.0.1:8080", "bind 127.0.0.1:8080\n  bind :8099", StringComparison.Ordinal), ":8099 is in use"),
            ("a service is dropped", Balanced("bad", backend.Endpoint.Port).Replace("8080", "8081", StringComparison.Ordinal), "--allow-drop"),
            ("no listener at all", "defaults\n  mode http\n", "no frontend or listen section binds an address that can be redirected"),
            ("an empty file", "", "no frontend or listen section binds an address that can be redirected"),
            ("no text at all", "\0\u0001\ud83d\ude00\0", pair.Config),
            ("half a line", Balanced("bad", backend.Endpoint.Port)[..^30], pair.Config),
        ];
        foreach (var (what, configuration, says) in bad)
        {
            pair.Save(configuration);
            FlipRecord failed = (await pair.FlipsAsync(++flips))[^1];
            PairStatus status = await pair.StatusAsync();
            Assert.True(failed.Outcome == "failed" && failed.Error!.Contains(says, StringComparison.Ordinal), $"{what}: {failed}");
            Assert.Contains("NEW connections go on to", failed.Error);
            Assert.Equal(failed.Error, status.Fault);
            await pair.SaysAsync(failed.Error!);
            Assert.Equal((2, 2), (status.Active!.Number, status.Redirect.Generation));
            Assert.DoesNotContain("/run/edge/", failed.Error!);
        }
        // An operator's word does not make it better.
        Outcome asked = await pair.FlipctlAsync("flip", "edge");
        Assert.Equal(1, asked.Code);
        Assert.Contains($"{pair.Config}:", asked.Errors);

        pair.Save(Balanced("v3", backend.Endpoint.Port));
        FlipRecord good = (await pair.FlipsAsync(flips + 2))[^1];
        Assert.Equal("done", good.Outcome);
        Assert.Null((await pair.StatusAsync()).Fault);
        await Eventually.True(() => pair.Get() == "v3", TroubledPair.Soon, "v3 does not answer");
        await pair.NothingFailedAsync(load, "v2", "v3");
        await Eventually.True(() => pair.Processes().Length <= 2, TroubledPair.Soon, () => string.Join(", ", pair.Processes()));
    }

    [Fact(Timeout = Limit)]
    public async Task A_service_that_is_added_is_served_and_one_that_is_dropped_needs_a_word()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync();
        LoadRun load = pair.Load();
        pair.Save(TroubledPair.Serving("v2").Replace("bind 127.0.0.1:8080", "bind 127.0.0.1:8080\n  bind 127.0.0.1:8085", StringComparison.Ordinal));
        await pair.FlipsAsync(2);
        Assert.Equal("v2", pair.Get("127.0.0.1:8085"));
        pair.Save(TroubledPair.Serving("v3"));
        FlipRecord refused = (await pair.FlipsAsync(3))[^1];
        Assert.Contains("no longer serves 127.0.0.1:8085", refused.Error);
        Assert.Equal("v2", pair.Get("127.0.0.1:8085"));
        Outcome allowed = await pair.FlipctlAsync("flip", "edge", "--allow-drop", "--reason", "the old port is gone");
        Assert.True(allowed.Code == 0, $"{allowed}\n{pair.Log}");
        Assert.Equal("the old port is gone", (await pair.HistoryAsync())[^1].Reason);
        Assert.Equal("v3", pair.Get());
        Assert.ThrowsAny<Exception>(() => pair.Get("127.0.0.1:8085"));
        await pair.NothingFailedAsync(load, "v1", "v2", "v3");
    }

    [Theory(Timeout = Limit)]
    [InlineData("kill -9 $pid")]
    [InlineData("(sleep 0.2; kill -9 $pid) >/dev/null 2>&1 &")]
    // Not before it has let go of its output: until then it is still starting, which may take two minutes.
    [InlineData("until [ \"$(readlink /proc/$pid/fd/2)\" = /dev/null ]; do :; done; kill -STOP $pid")]
    public async Task A_haproxy_that_crashes_or_hangs_once_started_moves_nothing(string crash)
    {
        // v2 never gets ready by itself, so that the crash comes before the end of the gate.
        await using TroubledPair pair = await TroubledPair.StartAsync(
            "    gate: { timeout: 3s, probes: [ { http: { service: \"127.0.0.1:8080\" } } ] }\n", haproxyOptions: ", binary: {dir}/wrapper",
            prepare: p => p.Script("wrapper", $"""
                #!/bin/sh
                {Require.Program("haproxy")} "$@" || exit $?
                while [ $# -gt 0 ]; do [ "$1" = -p ] && pid=$(cat "$2"); shift; done
                [ -n "$pid" ] && [ -e {p.Dir["crash"]} ] || exit 0
                {crash}
                exit 0

                """));
        LoadRun load = pair.Load();
        pair.Dir.Write("crash", "");
        pair.Save(TroubledPair.Serving("v2").Replace("status 200", "status 500", StringComparison.Ordinal));
        FlipRecord failed = (await pair.FlipsAsync(2))[^1];
        Assert.Equal("failed", failed.Outcome);
        Assert.Equal(failed.Error, (await pair.StatusAsync()).Fault);
        await pair.SaysAsync(failed.Error!);
        File.Delete(pair.Dir["crash"]);
        pair.Save(TroubledPair.Serving("v3"));
        await pair.FlipsAsync(3);
        await Eventually.True(() => pair.Get() == "v3", TroubledPair.Soon, "v3 does not answer");
        await pair.NothingFailedAsync(load, "v1", "v3");
        // The one that hung is gone as well.
        await Eventually.True(() => pair.Processes().Length <= 2, TroubledPair.Soon, () => string.Join(", ", pair.Processes()));
    }
}

/// <summary>Files in the middle of being written, files that only look changed, and many changes at once.</summary>
public sealed class TroubleWithFilesTests
{
    private const int Limit = 60_000;

    [Fact(Timeout = Limit)]
    public async Task A_file_whose_writer_pauses_is_not_taken_before_it_is_closed()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync();
        LoadRun load = pair.Load();
        // What is on disk meanwhile is a whole, valid configuration.
        await using (var file = new FileStream(pair.Config, FileMode.Create, FileAccess.Write, FileShare.ReadWrite))
        {
            file.Write(Encoding.UTF8.GetBytes(TroubledPair.Serving("v2")));
            file.Flush(flushToDisk: true);
            await pair.UntilAsync(s => s.Fault is not null);
            Assert.Equal($"cannot read {pair.Config}: another process has it open for writing", (await pair.StatusAsync()).Fault);
            await TroubledPair.LongEnoughAsync();
            Assert.Single(await pair.HistoryAsync());
            file.Position = 0;
            file.Write(Encoding.UTF8.GetBytes(TroubledPair.Serving("v3")));
        }
        Assert.Equal("done", (await pair.FlipsAsync(2))[^1].Outcome);
        Assert.Null((await pair.StatusAsync()).Fault);
        Assert.Equal("v3", pair.Get());
        await pair.NothingFailedAsync(load, "v1", "v3");
    }

    [Fact(Timeout = Limit)]
    public async Task A_file_that_is_emptied_or_gone_for_a_while_moves_nothing()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync();
        LoadRun load = pair.Load();
        File.Move(pair.Config, pair.Config + ".old");
        await pair.UntilAsync(s => s.Fault is not null);
        Assert.StartsWith($"cannot read {pair.Config}: Could not find file", (await pair.StatusAsync()).Fault);
        // Asked for now, a flip fails for the same reason and moves nothing.
        Outcome asked = await pair.FlipctlAsync("flip", "edge");
        Assert.Equal(1, asked.Code);
        Assert.Contains($"cannot read {pair.Config}", asked.Errors);
        File.Move(pair.Config + ".old", pair.Config);
        await TroubledPair.LongEnoughAsync();
        Assert.Equal("failed", (await pair.FlipsAsync(2))[^1].Outcome);
        await pair.UntilAsync(s => s.Fault is null);

        File.WriteAllText(pair.Config, "");
        FlipRecord empty = (await pair.FlipsAsync(3))[^1];
        Assert.Equal("failed", empty.Outcome);
        File.WriteAllText(pair.Config, TroubledPair.Serving("v2"));
        Assert.Equal("done", (await pair.FlipsAsync(4))[^1].Outcome);
        await pair.NothingFailedAsync(load, "v1", "v2");
    }

    [Fact(Timeout = Limit)]
    public async Task Touching_or_rewriting_the_same_bytes_flips_nothing_and_several_files_at_once_flip_once()
    {
        // Long enough for a test that is kept waiting between two of its changes: they are to be one.
        TimeSpan settle = TimeSpan.FromMilliseconds(500);
        await using TroubledPair pair = await TroubledPair.StartAsync(haproxyOptions: "settle: 500ms, also_watch: [{dir}/certs, {dir}/maps]", prepare: p =>
        {
            p.Dir.Write("certs/a.pem", "a1");
            p.Dir.Write("certs/b.pem", "b1");
            p.Dir.Write("maps/hosts.map", "m1");
        });
        File.SetLastWriteTimeUtc(pair.Config, DateTime.UtcNow);
        File.WriteAllText(pair.Config, File.ReadAllText(pair.Config));
        pair.Save(File.ReadAllText(pair.Config));
        pair.Dir.Write("certs/a.pem", "a1");
        File.SetUnixFileMode(pair.Dir["certs/a.pem"], UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead);
        // What editors leave beside a file is none of the pair's.
        pair.Dir.Write(".haproxy.cfg.swp", "x");
        pair.Dir.Write("haproxy.cfg~", "x");
        await TroubledPair.LongEnoughAsync(settle);
        Assert.Single(await pair.HistoryAsync());

        pair.Save(TroubledPair.Serving("v2"));
        pair.Dir.Write("certs/a.pem", "a2");
        pair.Dir.Write("certs/c.pem", "c1");
        File.Delete(pair.Dir["certs/b.pem"]);
        pair.Dir.Write("maps/hosts.map", "m2");
        await pair.FlipsAsync(2);
        await TroubledPair.LongEnoughAsync(settle);
        Assert.Equal(2, (await pair.HistoryAsync()).Count);
        Assert.Equal("v2", pair.Get());

        // Certificates alone, replaced, renamed into place and taken away.
        foreach (Action change in new Action[]
                 {
                     () => pair.Dir.Write("certs/a.pem", "a3"), () => pair.Replace(pair.Dir["certs/a.pem"], "a4"),
                     () => File.Delete(pair.Dir["certs/c.pem"]),
                 })
        {
            int before = (await pair.HistoryAsync()).Count;
            change();
            await pair.FlipsAsync(before + 1);
        }
        await TroubledPair.LongEnoughAsync(settle);
        Assert.Equal(5, (await pair.HistoryAsync()).Count);
    }

    /// <summary>As Kubernetes changes a mounted ConfigMap, and as many deployments change a release.</summary>
    [Fact(Timeout = Limit)]
    public async Task A_link_on_the_way_to_the_file_that_is_swapped_flips_once()
    {
        await using var pair = new TroubledPair();
        pair.Dir.Write("releases/1/haproxy.cfg", TroubledPair.Serving("v1"));
        pair.Dir.Write("releases/2/haproxy.cfg", TroubledPair.Serving("v2"));
        Directory.CreateSymbolicLink(pair.Dir["current"], "releases/1");
        File.CreateSymbolicLink(pair.Config, "current/haproxy.cfg");
        pair.WriteYaml();
        await pair.StartDaemonAsync();
        Directory.CreateSymbolicLink(pair.Dir["next"], "releases/2");
        // `mv -T next current`: .NET would look through the links.
        Command.Run("mv", "-T", pair.Dir["next"], pair.Dir["current"]);
        await pair.FlipsAsync(2);
        Assert.Equal("v2", pair.Get());
    }

    [Fact(Timeout = Limit)]
    public async Task Changes_during_a_slow_flip_are_not_lost_and_not_queued()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync(
            "    gate: { timeout: 30s, probes: [ { http: { service: \"127.0.0.1:8080\", path: /health, expect: 200 } } ] }\n");
        using Backend slow = Backend.Start(new BackendOptions { Namespace = pair.Netns.Name });
        string Slow(string name) => TroubledPair.Serving(name, more: $"backend shop\n  server s1 127.0.0.1:{slow.Endpoint.Port}")
            .Replace("  http-request return", "  use_backend shop if { path /health }\n  http-request return", StringComparison.Ordinal)
            .Replace($"hdr X-Served-By {name}", $"hdr X-Served-By {name} if !{{ path /health }}", StringComparison.Ordinal);
        slow.Healthy = false;
        LoadRun load = pair.Load();
        pair.Save(Slow("v2"));
        await pair.UntilAsync(s => s.State == "gating");
        for (int i = 1; i <= 20; i++)
        {
            pair.Save(Slow($"change{i}"));
            var seen = System.Diagnostics.Stopwatch.StartNew();
            await Eventually.True(() => seen.Elapsed > 2 * TroubledPair.Settle, TroubledPair.Soon, "time stands still");
        }
        Assert.True(await pair.StatusAsync() is { State: "gating", Pending: true, Active.Number: 1 }, $"{await pair.StatusAsync()}");
        Assert.Equal("v1", pair.Get());
        // A rollback now is refused: nothing has moved.
        Outcome refused = await pair.FlipctlAsync("rollback", "edge");
        Assert.Equal((3, "flipctl: pair edge: a flip is under way and has not moved anything yet; wait for it to end, then roll back\n"), (refused.Code, refused.Errors));
        slow.Healthy = true;
        IReadOnlyList<FlipRecord> flips = await pair.FlipsAsync(3);
        Assert.All(flips, f => Assert.Equal("done", f.Outcome));
        Assert.Equal("change20", pair.Get());
        Assert.False((await pair.StatusAsync()).Pending);
        await pair.NothingFailedAsync(load, "v1", "v2", "change20");
    }

    /// <summary>The kernel tells whoever holds a lease that a writer has come, by a signal that ends a process unless it is another one.</summary>
    [Fact(Timeout = Limit)]
    public async Task A_writer_that_opens_a_file_while_it_is_looked_at_ends_nobody()
    {
        using var dir = new TempDir();
        string path = dir.Write("haproxy.cfg", TroubledPair.Serving("v1"));
        var files = new WatchedFiles(new HaproxyOptions { Config = [path] });
        using var enough = new CancellationTokenSource(TimeSpan.FromMilliseconds(500));
        Task writer = Task.Run(() =>
        {
            while (!enough.IsCancellationRequested) File.OpenHandle(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite).Dispose();
        });
        while (!enough.IsCancellationRequested)
        {
            try
            {
                _ = files.Read();
            }
            catch (FlipException)
            {
                // It was being written at that moment; on a busy machine that may be each time.
            }
        }
        await writer;
        Assert.Single(files.Read().Files);
    }
}

/// <summary>The control socket under all kinds of callers, and what may be read by whom.</summary>
public sealed class TroubleAtTheSocketTests
{
    private const int Limit = 60_000;

    [Fact(Timeout = Limit)]
    public async Task A_wrong_request_gets_its_status_one_sentence_and_changes_nothing()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync();
        Outcome curl = Curl("--data", "{}", "http://x/v1/pairs/nosuch/flip");
        Assert.Equal("404", curl.Errors);
        Assert.Equal(new ErrorAnswer("usage", "cannot POST /v1/pairs/nosuch/flip: there is no pair \"nosuch\"; nothing was done. There are: edge."), Error(curl.Output));
        Outcome flipctl = await pair.FlipctlAsync("flip", "nosuch");
        Assert.Equal(new Outcome(2, "", "flipctl: cannot POST /v1/pairs/nosuch/flip: there is no pair \"nosuch\"; nothing was done. There are: edge.\n"), flipctl);

        Outcome back = await pair.FlipctlAsync("rollback", "edge");
        Assert.Equal(new Outcome(3, "", "flipctl: pair edge: there is no previous generation to return to\n"), back);
        Assert.Equal(409, (await pair.PostAsync("v1/pairs/edge/rollback")).Status);

        foreach (string wrong in new[] { "{", "[]", "{\"wait\":\"yes\"}", "\"flip\"", "{\"reason\":{}}", "nonsense", "{\"wait\":true}}" })
        {
            (int status, string body) = await pair.PostAsync("v1/pairs/edge/flip", wrong);
            Assert.True(status == 400 && Error(body).Error.StartsWith("the request's body is not what /v1/pairs/edge/flip takes: ", StringComparison.Ordinal), $"{wrong}: {status} {body}");
        }
        string large = $"{{\"reason\":\"{new string('x', 70_000)}\"}}";
        Assert.Equal(413, (await pair.PostAsync("v1/pairs/edge/flip", large)).Status);
        File.WriteAllText(pair.Dir["large"], large);
        Assert.Equal("413", Curl("--header", "Transfer-Encoding: chunked", "--data-binary", $"@{pair.Dir["large"]}", "http://x/v1/pairs/edge/flip").Errors);

        Assert.Equal("404", Curl("http://x/v1/nothing").Errors);
        Assert.Equal("404", Curl("--request", "DELETE", "http://x/v1/pairs/edge").Errors);
        Assert.Equal("there is no GET /", Error(Curl("http://x/").Output).Error);
        Assert.Equal("400", Curl("http://x/v1/pairs/edge/render/red").Errors);
        Assert.Equal("404", Curl("--path-as-is", "http://x/v1/pairs/../../etc/passwd").Errors);
        Assert.Equal("404", Curl("http://x/v1/pairs/%2e%2e%2fedge/render/blue").Errors);
        Assert.Equal("404", Curl("http://x/v1/events?pair=nosuch").Errors);

        // Not one of them made a flip, and the daemon is well.
        Assert.Single(await pair.HistoryAsync());
        Assert.Equal("200", Curl("http://x/v1/status").Errors);

        Outcome Curl(params string[] arguments)
        {
            string said = pair.Netns.Exec("curl", ["--silent", "--unix-socket", pair.Socket, "--write-out", "\n%{http_code}", "--max-time", "5", .. arguments]);
            int end = said.LastIndexOf('\n');
            return new Outcome(0, said[..end], said[(end + 1)..]);
        }

        static ErrorAnswer Error(string body) => JsonSerializer.Deserialize(body, WireJson.Default.ErrorAnswer)!;
    }

    [Fact(Timeout = Limit)]
    public async Task Half_a_request_and_many_callers_keep_nobody_from_flipping()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync();
        var callers = new List<Socket>();
        try
        {
            for (int i = 0; i < 100; i++)
            {
                var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                callers.Add(socket);
                socket.Connect(new UnixDomainSocketEndPoint(pair.Socket));
                socket.Send("POST /v1/pairs/edge/flip HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"u8);
            }
            // Whoever waits for events and reads none of them holds up nothing.
            var watcher = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveBufferSize = 1 };
            callers.Add(watcher);
            watcher.Connect(new UnixDomainSocketEndPoint(pair.Socket));
            watcher.Send("GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n"u8);
            Outcome flipped = await pair.FlipctlAsync("flip", "edge", "--reason", "\"quotes\", {pair} and\nlines");
            Assert.True(flipped.Code == 0, flipped.All);
            Assert.Equal("\"quotes\", {pair} and\nlines", (await pair.HistoryAsync())[^1].Reason);
        }
        finally
        {
            foreach (Socket socket in callers) socket.Dispose();
        }
        // Twenty at once, and nobody is left without an answer.
        (int Status, string Body)[] answers = await Task.WhenAll(Enumerable.Range(0, 20).Select(_ => pair.PostAsync("v1/pairs/edge/flip")));
        Assert.All(answers, a => Assert.Equal(200, a.Status));
        Assert.True((await pair.HistoryAsync()).Count <= 2 + 3, string.Join("; ", await pair.HistoryAsync()));
    }

    [Fact(Timeout = Limit)]
    public async Task Nobody_else_can_read_what_may_hold_a_secret()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync(haproxy: TroubledPair.Serving("v1", more: "userlist u\n  user admin insecure-password secret"));
        const UnixFileMode file = UnixFileMode.UserRead | UnixFileMode.UserWrite, directory = file | UnixFileMode.UserExecute;
        await pair.FlipctlAsync("plan", "edge");
        string[] entries = [.. Directory.EnumerateFileSystemEntries(pair.Dir["state"], "*", SearchOption.AllDirectories),
            .. Directory.EnumerateFileSystemEntries(pair.Dir["run/edge"], "*", SearchOption.AllDirectories)];
        Assert.Contains(entries, e => e.EndsWith("1-haproxy.cfg", StringComparison.Ordinal));
        foreach (string entry in entries.Append(pair.Dir["state"]))
        {
            // The lock holds a pid and nothing else, and is held.
            if (entry == pair.Dir["state/lock"]) continue;
            bool guarded = (File.GetUnixFileMode(entry) & ~(Directory.Exists(entry) ? directory : file)) == 0;
            Assert.True(guarded || !Directory.Exists(entry) && !File.ReadAllText(entry).Contains("secret", StringComparison.Ordinal), $"{entry}: {File.GetUnixFileMode(entry)}");
        }
        // Others may pass to the user's own stats sockets in it, and see nothing.
        Assert.Equal(directory | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute, File.GetUnixFileMode(pair.Dir["run/edge"]));
        Assert.Equal(file, File.GetUnixFileMode(pair.Dir["run/edge/g00001/1-haproxy.cfg"]));
        Assert.Equal(file, File.GetUnixFileMode(pair.Socket));
        Assert.Equal(UnixFileMode.None, File.GetUnixFileMode(pair.Dir["run/edge/g00001.sock"]) & (UnixFileMode.OtherRead | UnixFileMode.OtherWrite));
        // Nor does the log or the history tell it.
        Assert.DoesNotContain("secret", pair.Log);
        Assert.DoesNotContain("secret", string.Join(' ', await pair.HistoryAsync()));
    }

    [Fact(Timeout = Limit)]
    public async Task The_named_group_may_use_the_socket_and_nobody_else()
    {
        await using var pair = new TroubledPair();
        pair.Save(TroubledPair.Serving("v1"));
        pair.Replace(pair.Yaml, pair.YamlText().Replace("no-such-group", "daemon", StringComparison.Ordinal));
        await pair.StartDaemonAsync();
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.GroupWrite, File.GetUnixFileMode(pair.Socket));
        Assert.Equal("root daemon", Command.Run("stat", "-c", "%U %G", pair.Socket).Trim());
    }

    [Fact(Timeout = Limit)]
    public async Task Over_TCP_there_are_metrics_in_Prometheus_text_and_nothing_else()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync(top: "metrics: { listen: \"127.0.0.1:9107\" }");
        string[] lines = pair.Netns.Exec("curl", "--silent", "--include", "http://127.0.0.1:9107/metrics").Split('\n').Select(l => l.TrimEnd('\r')).ToArray();
        Assert.Contains("HTTP/1.1 200 OK", lines);
        Assert.Contains("Content-Type: text/plain; version=0.0.4; charset=utf-8", lines);
        Assert.Contains("flipcontroller_active_generation{pair=\"edge\",slot=\"blue\"} 1", lines);
        Assert.Contains("flipcontroller_flips_total{pair=\"edge\",outcome=\"done\"} 1", lines);
        string[] body = lines[(Array.IndexOf(lines, "") + 1)..^1];
        Assert.All(body, l => Assert.Matches(@"^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+\{([a-z]+=""[^""]*"",?)*\} [0-9.eE+-]+)$", l));
        foreach (string path in new[] { "", "v1/status", "v1/events", "metrics/", "v1/reload", "v1/pairs/edge/render/blue", "metrics/../v1/status", "%6detrics/x" })
            Assert.Equal("404", pair.Netns.Exec("curl", "--silent", "--path-as-is", "--output", "/dev/null", "--write-out", "%{http_code}", $"http://127.0.0.1:9107/{path}"));
        Assert.Equal("404", pair.Netns.Exec("curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--data", "{}", "http://127.0.0.1:9107/v1/pairs/edge/flip"));
        Assert.Single(await pair.HistoryAsync());
    }

    [Fact(Timeout = Limit)]
    public async Task Who_watches_sees_the_flip_from_its_beginning_to_its_end()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync();
        NetnsProcess watch = pair.Netns.Start(Programs.Cli, "--socket", pair.Socket, "--json", "watch", "edge");
        // A watcher says nothing of when it began: what changes is asked for until it is seen.
        await Eventually.True(async () =>
        {
            await pair.PostAsync("v1/pairs/edge/flip", "{\"reason\":\"to be seen\"}");
            return watch.Output.Contains("\"outcome\":\"done\"", StringComparison.Ordinal);
        }, TroubledPair.Soon, () => watch.Output + watch.Errors);
        PairNotice[] notices = [.. watch.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(l => JsonSerializer.Deserialize(l, WireJson.Default.PairNotice)!)];
        Assert.Contains(notices, n => n is { Kind: "flip", Flip: { Outcome: "done", Reason: "to be seen" } });
        Assert.Contains(notices, n => n is { Kind: "state", State: "watching" });
        watch.Signal(2);
        Assert.Equal(0, await watch.Exit(TroubledPair.Soon));
    }

    [Fact(Timeout = Limit)]
    public async Task A_hook_gets_nothing_of_the_daemons_environment_and_no_input()
    {
        Environment.SetEnvironmentVariable("FLIP_TEST_SECRET", "hunter2");
        await using TroubledPair pair = await TroubledPair.StartAsync("    hooks: { switched: [ \"{dir}/tell\" ] }\n", prepare: p => p.Script("tell", $"""
            #!/bin/sh
            [ -z "$(cat)" ] && tr '\0' '\n' < /proc/$$/environ | sort > {p.Dir["told.new"]}
            pwd >> {p.Dir["told.new"]}
            mv {p.Dir["told.new"]} {p.Dir["told"]}

            """));
        Assert.Contains("FLIP_TEST_SECRET=hunter2", File.ReadAllText($"/proc/{pair.Daemon.Pid}/environ"));
        await Eventually.True(() => File.Exists(pair.Dir["told"]), TroubledPair.Soon, () => pair.Log);
        Assert.Equal(["HOME=/", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "/"], File.ReadAllLines(pair.Dir["told"]));
    }

    [Fact(Timeout = Limit)]
    public async Task Hooks_get_their_arguments_and_one_that_hangs_or_fails_changes_nothing()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync(
            "    hooks:\n"
            + "      switched: [ \"{dir}/tell\", switched, \"{pair}\", \"{from}\", \"{to}\", \"{slot}\", \"{flip}\", \"{reason}\" ]\n"
            + "      failed: [ \"{dir}/tell\", failed, \"{pair}\", \"{from}\", \"{to}\", \"{slot}\", \"{flip}\", \"{reason}\" ]\n"
            + "      drained: [ \"{dir}/tell\", drained, \"{pair}\", \"{from}\" ]\n", prepare: p => p.Script("tell", $"""
            #!/bin/sh
            for a; do printf '<%s>' "$a"; done >> {p.Dir["told"]}
            echo >> {p.Dir["told"]}
            [ -e {p.Dir["hang"]} ] && exec sleep 600
            [ -e {p.Dir["fail"]} ] && echo "the pager is out of order" >&2 && exit 7
            exit 0

            """));
        string[] Told() => File.Exists(pair.Dir["told"]) ? File.ReadAllLines(pair.Dir["told"]) : [];
        async Task ToldAsync(string line) => await Eventually.True(() => Told().Contains(line), TroubledPair.Soon, () => $"not told {line}: {string.Join('\n', Told())}\n{pair.Log}");

        await ToldAsync("<switched><edge><><1><blue><1><>");
        Assert.Equal(0, (await pair.FlipctlAsync("flip", "edge", "--reason", "$(id) `id` {to} \"x\"")).Code);
        await ToldAsync("<switched><edge><1><2><green><2><$(id) `id` {to} \"x\">");
        await ToldAsync("<drained><edge><1>");

        pair.Dir.Write("hang", "");
        Assert.Equal(0, (await pair.FlipctlAsync("flip", "edge", "--reason", "hanging")).Code);
        await ToldAsync("<switched><edge><2><3><blue><3><hanging>");
        await pair.UntilAsync(s => s.State == "steady");
        File.Delete(pair.Dir["hang"]);

        pair.Dir.Write("fail", "");
        Assert.Equal(0, (await pair.FlipctlAsync("flip", "edge", "--reason", "failing")).Code);
        await Eventually.True(() => pair.Log.Contains("the pager is out of order", StringComparison.Ordinal), TroubledPair.Soon, () => pair.Log);
        Assert.Contains("hook switched: cannot run", pair.Log);
        await pair.UntilAsync(s => s is { State: "steady", Fault: null });

        pair.Save("nonsense\n");
        FlipRecord failed = (await pair.FlipsAsync(5))[^1];
        await ToldAsync($"<failed><edge><5><4><green><5><{failed.Error}>");
    }
}

/// <summary>What must touch nothing, what must leave nothing, and whom a flip must leave alone.</summary>
public sealed class TroubleWithTheKernelTests
{
    private const int Limit = 60_000;

    // What a container engine and a firewall leave in a kernel.
    private const string Docker = """
        table ip nat {
          chain DOCKER {
            iifname != "docker0" tcp dport 8088 counter dnat to 127.0.0.1:8099
          }
          chain PREROUTING {
            type nat hook prerouting priority dstnat; policy accept;
            fib daddr type local counter jump DOCKER
          }
          chain OUTPUT {
            type nat hook output priority -100; policy accept;
            fib daddr type local counter jump DOCKER
          }
          chain POSTROUTING {
            type nat hook postrouting priority srcnat; policy accept;
            ip saddr 172.17.0.0/16 oifname != "docker0" counter masquerade
          }
        }

        """;

    private const string Firewalld = """
        table inet firewalld {
          chain filter_INPUT {
            type filter hook input priority filter + 10; policy accept;
            ct state { established, related } accept
            ct status dnat accept
            iifname "lo" accept
            ct state invalid drop
          }
          chain nat_PREROUTING {
            type nat hook prerouting priority dstnat + 10; policy accept;
          }
          chain mangle_PREROUTING {
            type filter hook prerouting priority mangle + 10; policy accept;
            ct mark set ct mark or 0x1
          }
        }

        """;

    [Fact(Timeout = Limit)]
    public async Task Plan_and_render_tell_all_and_touch_nothing()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync("    watch: { undo: 1s }\n", haproxyOptions: ", watch: false");
        pair.Save(TroubledPair.Serving("v2", more: "listen more\n  bind 127.0.0.1:8086\n"));
        await Eventually.True(() => File.Exists(pair.Dir["state/pairs/edge/history.jsonl"]), TimeSpan.FromSeconds(10), "the first flip should be written down");
        await Eventually.True(() => File.Exists(pair.Dir["run/edge/g00001/runtime-baseline.json"]), TimeSpan.FromSeconds(10), "what its files give should be written down");
        (int[] processes, string rules, IReadOnlyList<string> run, IReadOnlyList<string> state, string history) before = Seen();

        PlanReport added = await PlanAsync(0);
        Assert.True(added.Changes);
        Assert.Equal(["127.0.0.1:8086"], added.ServicesAdded);
        Assert.Equal([TroubledPair.Front], added.ServicesKept);
        Assert.Contains("\n-  http-request return status 200 content-type text/plain string v1 hdr X-Served-By v1\n", added.ConfigDiff);
        Assert.Contains("\n+  http-request return status 200 content-type text/plain string v2 hdr X-Served-By v2\n", added.ConfigDiff);
        Assert.Contains("\n+add rule inet flipcontroller generation-edge-2 ip daddr 127.0.0.1 tcp dport 8086", added.RulesetDiff);
        Assert.Contains("\n-add rule inet flipcontroller pair-edge goto generation-edge-1\n", added.RulesetDiff);
        Assert.Contains("\n+add rule inet flipcontroller pair-edge goto generation-edge-2\n", added.RulesetDiff);
        Assert.Empty(added.ServicesChanged);
        Assert.Equal(added.BinaryNow, added.BinaryThen);
        Assert.Empty(added.Problems);

        pair.Save(TroubledPair.Serving("v2", front: TroubledPair.Front + " maxconn 50 name web"));
        PlanReport changed = await PlanAsync(0);
        Assert.EndsWith(": maxconn 50 name web", Assert.Single(changed.ServicesChanged).After);
        Assert.Equal(TroubledPair.Front, changed.ServicesChanged[0].Service);

        pair.Save(TroubledPair.Serving("v2", front: "127.0.0.1:8087"));
        PlanReport dropped = await PlanAsync(0);
        Assert.Equal(["127.0.0.1:8087"], dropped.ServicesAdded);
        Assert.Equal([TroubledPair.Front], dropped.ServicesRemoved);
        Assert.Contains("--allow-drop", Assert.Single(dropped.Problems));
        Assert.Equal(3, (await pair.FlipctlAsync("plan", "edge", "--exit-code")).Code);

        pair.Save(TroubledPair.Serving("v2", more: "  nonsense"));
        Assert.Contains($"{pair.Config}:9", Assert.Single((await PlanAsync(0)).Problems));
        File.Delete(pair.Config);
        Assert.Contains($"cannot read {pair.Config}", Assert.Single((await PlanAsync(0)).Problems));
        Assert.Equal(1, (await pair.FlipctlAsync("render", "edge", "green")).Code);

        pair.Save(TroubledPair.Serving("v2"));
        Outcome rendered = await pair.FlipctlAsync("render", "edge", "green");
        Assert.Equal(0, rendered.Code);
        Assert.Contains("127.0.0.1:22000", rendered.Output);
        // Ten at once do not disturb each other.
        (int Status, string Body)[] plans = await Task.WhenAll(Enumerable.Range(0, 10).Select(_ => pair.SendAsync(HttpMethod.Get, "v1/pairs/edge/plan")));
        Assert.All(plans, p => Assert.Contains("\"problems\":[]", p.Body));

        var after = Seen();
        Assert.Equal(before.processes, after.processes);
        Assert.Equal(before.rules, after.rules);
        Assert.Equal(before.run, after.run);
        Assert.Equal(before.state, after.state);
        Assert.Equal(before.history, after.history);
        Assert.Equal("v1", pair.Get());

        async Task<PlanReport> PlanAsync(int code)
        {
            Outcome said = await pair.FlipctlAsync("--json", "plan", "edge");
            Assert.True(said.Code == code, said.All);
            return JsonSerializer.Deserialize(said.Output, WireJson.Default.PlanReport)!;
        }

        (int[] processes, string rules, IReadOnlyList<string> run, IReadOnlyList<string> state, string history) Seen() =>
            (pair.Processes(), pair.Ruleset(), TroubledPair.Tree(pair.Dir["run"]), TroubledPair.Tree(pair.Dir["state"]),
                File.ReadAllText(pair.Dir["state/pairs/edge/history.jsonl"]));
    }

    [Fact(Timeout = Limit)]
    public async Task Reset_leaves_nothing_of_ours_and_everything_of_others()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync();
        pair.Netns.Exec("nft", "-f", pair.Dir.Write("docker.nft", Docker));
        pair.Netns.Exec("nft", "-f", pair.Dir.Write("firewalld.nft", Firewalld));
        string[] Tables() => pair.Netns.Exec("nft", "list", "tables").Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Contains("table inet flipcontroller", Tables());
        Outcome asked = await pair.FlipctlAsync("reset");
        Assert.Equal(2, asked.Code);
        Assert.Contains("table inet flipcontroller", Tables());
        Outcome warned = await pair.FlipctlAsync("reset", "--yes");
        Assert.Equal(0, warned.Code);
        Assert.Contains("removed: table inet flipcontroller", warned.Output);
        Assert.Contains("still answers on", warned.Output.ReplaceLineEndings(" "));
        // Whoever took the rules away, the daemon is there to put them back.
        await Eventually.True(() => pair.Netns.Exec("nft", "list", "tables").Contains("table inet flipcontroller", StringComparison.Ordinal), TroubledPair.Soon, "the rules are back");
        pair.Daemon.Terminate();
        Assert.Equal(0, await pair.Daemon.Exit(TroubledPair.Soon));
        Assert.Equal(0, (await pair.FlipctlAsync("reset", "--yes")).Code);
        Assert.Equal(["table ip nat", "table inet firewalld"], Tables());
        Assert.Contains("dnat to 127.0.0.1:8099", pair.Ruleset());
        Outcome again = await pair.FlipctlAsync("reset", "--yes");
        Assert.Contains("nothing: the kernel has no rule of ours", again.Output);
        // The daemon started anew puts right what it finds missing, with the HAProxy that still runs.
        await pair.StartDaemonAsync();
        Assert.Equal(1, (await pair.StatusAsync()).Redirect.Generation);
        Assert.Equal("v1", pair.Get());
        Assert.Contains("table inet firewalld", Tables());
    }

    [Fact(Timeout = Limit)]
    public async Task Foreign_rules_stay_as_they_are_and_work_while_flips_go_on()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync();
        pair.Netns.Exec("nft", "-f", pair.Dir.Write("docker.nft", Docker));
        pair.Netns.Exec("nft", "-f", pair.Dir.Write("firewalld.nft", Firewalld));
        using Backend container = Backend.Start(new BackendOptions { Namespace = pair.Netns.Name, Name = "container", Listen = [new IPEndPoint(IPAddress.Loopback, 8099)] });
        string Foreign() => System.Text.RegularExpressions.Regex.Replace(
            pair.Netns.Exec("nft", "list", "table", "ip", "nat") + pair.Netns.Exec("nft", "list", "table", "inet", "firewalld"), "packets [0-9]+ bytes [0-9]+", "");
        string before = Foreign();
        LoadRun ours = pair.Load();
        await using LoadRun theirs = pair.Load("127.0.0.1:8088", 100);
        foreach (string name in new[] { "v2", "v3", "v4" })
        {
            int flips = (await pair.HistoryAsync()).Count;
            pair.Save(TroubledPair.Serving(name));
            Assert.Equal("done", (await pair.FlipsAsync(flips + 1))[^1].Outcome);
            // A firewall that is loaded again in the middle of it.
            pair.Netns.Exec("nft", "delete", "table", "inet", "firewalld");
            pair.Netns.Exec("nft", "-f", pair.Dir["firewalld.nft"]);
        }
        await pair.NothingFailedAsync(ours, "v1", "v2", "v3", "v4");
        theirs.Stop();
        Assert.True((await theirs.Completion).Passed, (await theirs.Completion).ToJson());
        Assert.Equal(before, Foreign());
        // Bits of the mark that are not ours are left to their owners, and ours do not hide the ledger.
        Assert.Equal("container\n", pair.Get("127.0.0.1:8088"));
    }
}

/// <summary>A configuration of ours that is wrong, and a host on which something is missing.</summary>
public sealed class TroubleWithTheHostTests
{
    private const int Limit = 60_000;

    [Fact(Timeout = Limit)]
    public async Task A_bad_reload_names_every_fault_and_keeps_what_runs()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync();
        LoadRun load = pair.Load();
        string good = File.ReadAllText(pair.Yaml);
        string bad = pair.YamlText("    drain: { deadline: 0s }\n    watch: { undo: 1s, max_5xx_ratio: 2 }\n    hoks: {}\n", top: "colour: blue", ports: "blue: 80, green: 22000");
        int Line(string part) => bad.Split('\n').TakeWhile(l => !l.Contains(part, StringComparison.Ordinal)).Count() + 1;
        string[] faults =
        [
            $"{pair.Yaml}:{Line("colour")}: colour: \"colour\" is no key here",
            $"{pair.Yaml}:{Line("ports")}: pairs.edge.ports.blue: \"80\" must be a whole number between 1024 and 65535",
            $"{pair.Yaml}:{Line("drain")}: pairs.edge.drain.deadline: \"0s\" must be between 1s and 24h",
            $"{pair.Yaml}:{Line("watch")}: pairs.edge.watch.max_5xx_ratio: \"2\" must be a number between 0 and 1",
            $"{pair.Yaml}:{Line("hoks")}: pairs.edge.hoks: \"hoks\" is no key here; did you mean hooks?",
        ];
        pair.Replace(pair.Yaml, bad);
        (int status, string body) = await pair.PostAsync("v1/reload");
        Assert.Equal(400, status);
        string[] told = JsonSerializer.Deserialize(body, WireJson.Default.ErrorAnswer)!.Error.Split('\n');
        Assert.Equal(faults.Length, told.Length);
        Assert.All(faults, f => Assert.Contains(told, t => t.StartsWith(f, StringComparison.Ordinal)));

        foreach (string worse in new[] { "", "pairs: [", "pairs:\n\tedge: {}\n", "\0", "pairs: &a { edge: *a }", good + "pairs: {}\n", good.Replace(pair.Socket, pair.Socket + "2", StringComparison.Ordinal) })
        {
            pair.Replace(pair.Yaml, worse);
            (status, body) = await pair.PostAsync("v1/reload");
            Assert.True(status == 400, $"{worse}: {status} {body}");
            Assert.Contains(pair.Yaml, body);
        }
        pair.Replace(pair.Yaml, bad);
        await pair.SaysAsync("handover and events change only with a restart"); // the last of those before
        int before = pair.Log.Split("reload refused").Length;
        pair.Daemon.Signal(1);
        await Eventually.True(() => pair.Log.Split("reload refused").Length == before + faults.Length, TroubledPair.Soon, () => pair.Log);
        Assert.All(faults, f => Assert.Contains($"reload refused, the running configuration stays: {f}", pair.Log));

        // It still flips, and with what it was told at first.
        pair.Save(TroubledPair.Serving("v2"));
        await pair.FlipsAsync(2);
        pair.Replace(pair.Yaml, good);
        Assert.Equal(200, (await pair.PostAsync("v1/reload")).Status);
        Assert.Equal(2, (await pair.StatusAsync()).Active!.Number);
        await pair.NothingFailedAsync(load, "v1", "v2");

        pair.Daemon.Terminate();
        Assert.Equal(0, await pair.Daemon.Exit(TroubledPair.Soon));
        pair.Replace(pair.Yaml, bad);
        NetnsProcess again = pair.Netns.Start(Programs.Daemon, pair.Yaml);
        Assert.Equal(2, await again.Exit(TroubledPair.Soon));
        Assert.All(faults, f => Assert.Contains(f, again.Errors));
        Assert.Contains("nothing was started or changed", again.Errors);
        Assert.Equal("v2", pair.Get());
    }

    [Fact(Timeout = Limit)]
    public async Task Names_files_paths_and_ports_that_collide_are_refused_before_anything_starts()
    {
        await using var pair = new TroubledPair();
        pair.Save(TroubledPair.Serving("v1"));
        foreach (var (collision, says) in new[]
                 {
                     ("  edge:\n    haproxy: { config: [/x.cfg] }\n", "edge"),
                     ("  ed-ge:\n    haproxy: { config: [/x.cfg] }\n    ports: { blue: 23000, green: 24000 }\n  ed_ge:\n    haproxy: { config: [/y.cfg] }\n    ports: { blue: 25000, green: 26000 }\n", "in more than - and _"),
                     ($"  other:\n    haproxy: {{ config: [{pair.Config}] }}\n    ports: {{ blue: 23000, green: 24000 }}\n", "must not be the file of two pairs; pair edge has it"),
                     ("  other:\n    haproxy: { config: [/x.cfg] }\n    ports: { blue: 21000, green: 24000 }\n", "must be a port of its own; it is also the first of pair edge, blue"),
                     ("  other:\n    haproxy: { config: [/x.cfg] }\n    ports: { blue: 23000, green: 22001 }\n", "must leave at least 16 ports"),
                 })
        {
            pair.Replace(pair.Yaml, pair.YamlText() + collision);
            NetnsProcess refused = pair.Netns.Start(Programs.Daemon, pair.Yaml);
            Assert.Equal(2, await refused.Exit(TroubledPair.Soon));
            Assert.Contains(says, refused.Errors);
            Assert.Matches($"{pair.Yaml}:[0-9]+: ", refused.Errors);
        }
        Assert.False(Directory.Exists(pair.Dir["state"]) || Directory.Exists(pair.Dir["run"]));
        Assert.Equal("", pair.Ruleset());
    }

    /// <summary>Two pairs cannot be told apart by their files before these are read: then it is the front address that decides.</summary>
    [Fact(Timeout = Limit)]
    public async Task Two_pairs_with_one_front_address_the_second_is_refused_and_the_first_serves()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync();
        LoadRun load = pair.Load();
        pair.Dir.Write("other.cfg", TroubledPair.Serving("other"));
        pair.Replace(pair.Yaml, pair.YamlText() + $"  another:\n    haproxy: {{ config: [{pair.Dir["other.cfg"]}] }}\n    ports: {{ blue: 23000, green: 24000 }}\n");
        Assert.Equal(200, (await pair.PostAsync("v1/reload")).Status);
        await pair.SaysAsync("the front address 127.0.0.1:8080 belongs to pair edge already; one address has one pair");
        string another = "";
        await Eventually.True(async () => (another = (await pair.SendAsync(HttpMethod.Get, "v1/pairs/another")).Body).Contains("\"state\":\"faulted\"", StringComparison.Ordinal),
            TroubledPair.Soon, () => another);
        // Taken out again, nothing of it stays in the way; the first pair never noticed.
        pair.WriteYaml();
        Assert.Equal(200, (await pair.PostAsync("v1/reload")).Status);
        pair.Save(TroubledPair.Serving("v2"));
        await pair.FlipsAsync(2);
        await pair.NothingFailedAsync(load, "v1", "v2");
    }

    [Fact(Timeout = Limit)]
    public async Task Two_pairs_that_start_together_with_one_front_address_only_one_of_them_serves()
    {
        await using var pair = new TroubledPair();
        pair.Save(TroubledPair.Serving("v1"));
        pair.Dir.Write("other.cfg", TroubledPair.Serving("other", front: ":8080"));
        pair.Replace(pair.Yaml, pair.YamlText() + $"  another:\n    haproxy: {{ config: [{pair.Dir["other.cfg"]}] }}\n    ports: {{ blue: 23000, green: 24000 }}\n");
        NetnsProcess daemon = pair.Netns.Start(Programs.Daemon, pair.Yaml);
        string Log() => daemon.Output + daemon.Errors;
        await Eventually.True(() => Log().Contains("already; one address has one pair", StringComparison.Ordinal)
            && Log().Contains("NEW connections go to generation 1", StringComparison.Ordinal), TroubledPair.Soon, Log);
        bool anotherServes = Log().Contains("the front address 127.0.0.1:8080 belongs to pair another already", StringComparison.Ordinal);
        Assert.Equal(anotherServes ? "other" : "v1", pair.Get());
        Assert.DoesNotContain(anotherServes ? "pair edge: flip 1: NEW" : "pair another: flip 1: NEW", Log());
        daemon.Terminate();
        Assert.Equal(0, await daemon.Exit(TroubledPair.Soon));
    }

    /// <summary>The rules of a pair that is configured no more stay, so a pair of another name would get nothing, or take all, by its place in the alphabet.</summary>
    [Theory(Timeout = Limit)]
    [InlineData("a-new-name")]
    [InlineData("zone")]
    public async Task A_pair_that_is_renamed_does_not_quietly_share_the_address_of_its_old_name(string name)
    {
        await using TroubledPair pair = await TroubledPair.StartAsync();
        LoadRun load = pair.Load();
        string yaml = File.ReadAllText(pair.Yaml);
        pair.Replace(pair.Yaml, yaml.Replace("  edge:", $"  {name}:", StringComparison.Ordinal));
        Assert.Equal(200, (await pair.PostAsync("v1/reload")).Status);
        await pair.SaysAsync("pair edge is no longer configured: its HAProxy and rules stay as they are, unmanaged");
        await Eventually.True(() => pair.Log.Contains($"pair {name}: generation 1 could not be made: the front address 127.0.0.1:8080 is redirected to generation 1 of pair edge", StringComparison.Ordinal),
            TroubledPair.Soon, () => pair.Log);
        Assert.Equal("v1", pair.Get());
        // Under its own name it goes on where it was.
        pair.Replace(pair.Yaml, yaml);
        Assert.Equal(200, (await pair.PostAsync("v1/reload")).Status);
        pair.Save(TroubledPair.Serving("v2"));
        await pair.FlipsAsync(2);
        Assert.Equal("v2", pair.Get());
        await pair.NothingFailedAsync(load, "v1", "v2");
    }

    [Fact(Timeout = Limit)]
    public async Task Two_daemons_with_everything_of_their_own_leave_each_other_alone()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync();
        pair.Dir.Write("other.cfg", TroubledPair.Serving("other", front: "127.0.0.1:8090"));
        string own = pair.Dir.Write("other.yaml", $$"""
            control: { socket: {{pair.Dir["other.sock"]}}, group: no-such-group }
            state: {{pair.Dir["state2"]}}
            runtime: {{pair.Dir["run2"]}}
            pairs:
              other:
                haproxy: { config: [{{pair.Dir["other.cfg"]}}], settle: 50ms }
                ports: { blue: 23000, green: 24000 }

            """);
        LoadRun load = pair.Load();
        NetnsProcess second = pair.Netns.Start(Programs.Daemon, own);
        await Eventually.True(() => second.Output.Contains("NEW connections go to generation 1", StringComparison.Ordinal), TroubledPair.Soon, () => second.Output);
        await using LoadRun theirs = pair.Load("127.0.0.1:8090");
        pair.Save(TroubledPair.Serving("v2"));
        await pair.FlipsAsync(2);
        // And one that starts anew, and one that reads its configuration again.
        pair.Daemon.Terminate();
        await pair.Daemon.Exit(TroubledPair.Soon);
        await pair.StartDaemonAsync();
        second.Signal(1);
        await Eventually.True(() => second.Output.Contains("was read again", StringComparison.Ordinal), TroubledPair.Soon, () => second.Output);
        await pair.UntilAsync(s => s.State == "steady");
        await pair.NothingFailedAsync(load, "v1", "v2");
        theirs.Stop();
        Assert.True((await theirs.Completion).Passed, (await theirs.Completion).ToJson());
        Assert.Equal("other", pair.Get("127.0.0.1:8090"));
    }

    [Fact(Timeout = Limit)]
    public async Task Who_may_not_use_the_socket_is_told_so_and_what_would_help()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync();
        File.SetUnixFileMode(pair.Dir.Path, File.GetUnixFileMode(pair.Dir.Path) | UnixFileMode.OtherExecute | UnixFileMode.OtherRead);
        string[] nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
        NetnsProcess can = pair.Netns.Start("setpriv", [.. nobody, Programs.Cli, "--help"]);
        Require.That("a build that another user can run", await can.Exit(TroubledPair.Soon) == 0 ? null : can.Errors);
        NetnsProcess flip = pair.Netns.Start("setpriv", [.. nobody, Programs.Cli, "--socket", pair.Socket, "flip", "edge"]);
        Assert.Equal(4, await flip.Exit(TroubledPair.Soon));
        Assert.Equal($"flipctl: flip: cannot reach the daemon at {pair.Socket}: permission denied; nothing was changed; run it as root or as a member of the group that control.group names\n", flip.Errors);
        NetnsProcess reset = pair.Netns.Start("setpriv", [.. nobody, Programs.Cli, "--socket", pair.Socket, "reset", "--yes"]);
        Assert.Equal(1, await reset.Exit(TroubledPair.Soon));
        Assert.Contains("EPERM", reset.Errors);
        Assert.Equal("v1", pair.Get());
        Assert.Single(await pair.HistoryAsync());
    }

    [Fact(Timeout = Limit)]
    public async Task Who_asks_for_a_change_stands_in_the_log_and_so_does_who_is_refused_one()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync();
        string own = $"root (uid 0), process {Environment.ProcessId} (";
        Assert.Equal(200, (await pair.PostAsync("v1/pairs/edge/flip", "{\"reason\":\n\"because\"}")).Status);
        await pair.SaysAsync($"INF {own}");
        await pair.SaysAsync(") asks for POST /v1/pairs/edge/flip {\"reason\":?\"because\"}\n");
        foreach (string path in new[] { "v1/reload", "v1/pairs/edge/rollback", "v1/pairs/edge/drain", "v1/pairs/edge/drain/cancel", "v1/pairs/edge/undrain", "v1/pairs/edge/close" })
        {
            await pair.PostAsync(path, "{\"wait\":false}");
            await pair.SaysAsync($") asks for POST /{path} {{");
        }
        // Who only looks is not worth a line.
        int lines = pair.Log.Split(" asks for ").Length;
        await pair.StatusAsync();
        Assert.Equal(lines, pair.Log.Split(" asks for ").Length);

        File.SetUnixFileMode(pair.Dir.Path, File.GetUnixFileMode(pair.Dir.Path) | UnixFileMode.OtherExecute);
        File.SetUnixFileMode(pair.Socket, File.GetUnixFileMode(pair.Socket) | UnixFileMode.OtherRead | UnixFileMode.OtherWrite);
        foreach (string path in new[] { "adopt", "release", "flip" })
        {
            NetnsProcess nobody = pair.Netns.Start("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "curl", "--silent", "--unix-socket", pair.Socket,
                "--data", "{\"binary\":\"/tmp/evil\"}", $"http://flip/v1/pairs/edge/{path}");
            Assert.Equal(0, await nobody.Exit(TroubledPair.Soon));
            Assert.Contains("only root may", nobody.Output);
            // It is the program's name that counts, and the process that asked.
            await pair.SaysAsync($"nobody (uid 65534), process {nobody.Pid}");
            await pair.SaysAsync($"asks for POST /v1/pairs/edge/{path} {{\"binary\":\"/tmp/evil\"}}");
            await pair.SaysAsync($"is refused /v1/pairs/edge/{path}: only root may");
        }
    }

    [Fact(Timeout = Limit)]
    public async Task A_second_daemon_refuses_what_the_first_one_holds()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync();
        NetnsProcess same = pair.Netns.Start(Programs.Daemon, pair.Yaml);
        Assert.Equal(1, await same.Exit(TroubledPair.Soon));
        Assert.Contains($"cannot take the state directory {pair.Dir["state"]}: another flipcontrollerd holds its lock; that one goes on, this one did nothing", same.Output);

        string own = pair.Dir.Write("own.yaml", File.ReadAllText(pair.Yaml).Replace(pair.Dir["state"], pair.Dir["state2"], StringComparison.Ordinal));
        NetnsProcess socket = pair.Netns.Start(Programs.Daemon, own);
        Assert.Equal(1, await socket.Exit(TroubledPair.Soon));
        Assert.Contains($"cannot take the control socket {pair.Socket}: another daemon answers on it", socket.Output);

        // The first is none the worse for it.
        Assert.Equal(0, (await pair.FlipctlAsync("flip", "edge")).Code);
        // And one that was killed leaves nothing that keeps the next from starting.
        pair.Daemon.Signal(9);
        await pair.Daemon.Exit(TroubledPair.Soon);
        await pair.StartDaemonAsync();
        Assert.Equal("v1", pair.Get());
    }

    /// <summary>What is taken away, and what doctor and the daemon's start say to it.</summary>
    [Theory(Timeout = Limit)]
    [InlineData("no rights", "setpriv --bounding-set -all --inh-caps -all", "rights: uid 0 without CAP_KILL, CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_SYS_NICE", "run it as root", "EPERM")]
    [InlineData("no libnftables", "env LD_LIBRARY_PATH={dir}/nolib", "libnftables: libnftables.so.1 cannot be loaded", "install it: libnftables1", "libnftables.so.1")]
    [InlineData("no haproxy", "env PATH=/nonexistent", "haproxy: cannot run", "install haproxy", "haproxy")]
    [InlineData("no conntrack", "unshare --mount sh -c 'mount -t tmpfs none /proc/sys/net/netfilter && exec \"$@\"' sh", "conntrack: the kernel shows no connection tracking", "modprobe nf_conntrack", null)]
    [InlineData("a full disk", "unshare --mount sh -c 'mkdir -p {dir}/state && mount -t tmpfs -o ro none {dir}/state && exec \"$@\"' sh", "state directory: {dir}/state: Read-only file system", "name another directory", "Read-only file system")]
    public async Task What_is_missing_is_named_with_its_remedy_and_nothing_is_half_done(string what, string wrapper, string doctorSays, string remedy, string? daemonSays)
    {
        await using var pair = new TroubledPair();
        pair.Save(TroubledPair.Serving("v1"));
        pair.WriteYaml();
        pair.Dir.Write("nolib/libnftables.so.1", "");
        string[] Wrapped(params string[] command)
        {
            // Split as a shell would; what stands in quotes is one word.
            string script = wrapper.Replace("{dir}", pair.Dir.Path, StringComparison.Ordinal);
            return ["-c", $"exec {script} \"$@\"", "sh", .. command];
        }

        NetnsProcess doctor = pair.Netns.Start("/bin/sh", Wrapped(Programs.Cli, "doctor", "--config", pair.Yaml));
        int code = await doctor.Exit(TroubledPair.Soon);
        string said = string.Join(' ', (doctor.Output + doctor.Errors).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));
        Assert.Contains(doctorSays.Replace("{dir}", pair.Dir.Path, StringComparison.Ordinal), said);
        Assert.Contains(remedy, said);
        // Without conntrack's own files only the ledger is poorer.
        Assert.Equal(daemonSays is null ? 0 : 1, code);

        NetnsProcess daemon = pair.Netns.Start("/bin/sh", Wrapped(Programs.Daemon, pair.Yaml));
        if (daemonSays is null)
        {
            await Eventually.True(() => File.Exists(pair.Socket) && daemon.Output.Contains("NEW connections go to generation 1", StringComparison.Ordinal), TroubledPair.Soon, () => $"{what}: {daemon.Output}{daemon.Errors}");
            Assert.Equal("v1", pair.Get());
            daemon.Terminate();
            Assert.Equal(0, await daemon.Exit(TroubledPair.Soon));
            return;
        }
        await Eventually.True(() => (daemon.Output + daemon.Errors).Contains(daemonSays, StringComparison.Ordinal), TroubledPair.Soon, () => $"{what}: {daemon.Output}{daemon.Errors}");
        Assert.DoesNotContain("   at ", daemon.Output + daemon.Errors);
        if (what == "no haproxy")
        {
            // That can be put right while it runs: it stays, says so, and tries again.
            Assert.False(daemon.HasExited);
            daemon.Terminate();
            Assert.Equal(0, await daemon.Exit(TroubledPair.Soon));
            return;
        }
        Assert.Equal(1, await daemon.Exit(TroubledPair.Soon));
        Assert.Contains($"`flipctl doctor --config {pair.Yaml}` looks at everything it needs.", daemon.Output);
        Assert.Empty(pair.Processes());
    }

    [Fact(Timeout = Limit)]
    public async Task A_certificate_for_the_wrong_name_does_not_go_live()
    {
        await using TroubledPair pair = await TroubledPair.StartAsync(
            "    gate: { timeout: 4s, probes: [ { http: { service: \"127.0.0.1:8443\", tls: true, host: good.test, expect: 200 } } ] }\n",
            haproxy: TroubledPair.Serving("v1", front: "127.0.0.1:8443 ssl crt {dir}/certs strict-sni"),
            haproxyOptions: ", also_watch: [{dir}/certs]",
            prepare: p => Certificate(p, "good.test"));
        string served = Fingerprint();
        Certificate(pair, "evil.test");
        FlipRecord failed = (await pair.FlipsAsync(2))[^1];
        Assert.Contains("its probes are answered: GET https://good.test/ on 127.0.0.1:22000 for 127.0.0.1:8443", failed.Error);
        Assert.Equal(served, Fingerprint());
        pair.Dir.Write("certs/site.pem", "no certificate");
        failed = (await pair.FlipsAsync(3))[^1];
        Assert.Contains("HAProxy rejects the configuration", failed.Error);
        Assert.Contains($"{pair.Config}:7", failed.Error);
        Assert.Contains("certs/site.pem", failed.Error);
        Certificate(pair, "good.test");
        Assert.Equal("done", (await pair.FlipsAsync(4))[^1].Outcome);
        Assert.NotEqual(served, Fingerprint());

        string Fingerprint() => pair.Netns.Exec("sh", "-c", "openssl s_client -connect 127.0.0.1:8443 -servername good.test </dev/null 2>/dev/null | openssl x509 -noout -fingerprint");

        static void Certificate(TroubledPair pair, string name)
        {
            using RSA key = RSA.Create(2048);
            var request = new CertificateRequest($"CN={name}", key, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
            var names = new SubjectAlternativeNameBuilder();
            names.AddDnsName(name);
            request.CertificateExtensions.Add(names.Build());
            using X509Certificate2 certificate = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(30));
            Directory.CreateDirectory(pair.Dir["certs"]);
            pair.Replace(pair.Dir["certs/site.pem"], certificate.ExportCertificatePem() + "\n" + key.ExportPkcs8PrivateKeyPem() + "\n");
        }
    }
}
