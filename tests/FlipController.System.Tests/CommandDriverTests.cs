using System.Net.Security;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>The promises hold for any service: Debian's nginx, and a program of one's own.</summary>
[Collection(Alone)]
public sealed class CommandDriverTests
{
    private const string Services = "services: { web: ':80', web6: '[::]:80 v6only' }";

    private static readonly PairYaml s_nginx = new()
    {
        ConfigName = "nginx.conf",
        Config = Nginx("v1"),
        Command = Services + ", check: [nginx, -t, -q, -c, '{config}'], start: [nginx, -c, '{config}'], pidfile: '{directory}/nginx.pid', "
            + "stop: [nginx, -c, '{config}', -s, quit]",
    };

    /// <summary>An nginx.conf whose answers say who gave them.</summary>
    /// <param name="server">More lines for the server.</param>
    private static string Nginx(string label, string server = "") => $$"""
        pid {pidfile};
        error_log {directory}/error.log;
        worker_processes 2;
        events { worker_connections 4000; }
        http {
          access_log off;
          map $http_upgrade $connection_header { default upgrade; '' ''; }
          server {
            listen {port:web};
            listen [::]:{port:web6} ipv6only=on;
            add_header X-Served-By {{label}} always;
            {{server}}
            location / {
              proxy_pass http://127.0.0.1:8080;
              proxy_http_version 1.1;
              proxy_set_header Upgrade $http_upgrade;
              proxy_set_header Connection $connection_header;
              proxy_read_timeout 1h;
            }
          }
        }

        """;

    private static Task<PairUnderTest> StartAsync(PairYaml yaml, Action<PairUnderTest>? before = null)
    {
        Require.Program("nginx");
        return PairUnderTest.StartAsync(yaml, before);
    }

    /// <summary>The masters: of every other one the parent is an nginx, too.</summary>
    private static int[] Masters(PairUnderTest pair)
    {
        int[] all = pair.Nets.Server.Pids("nginx");
        return [.. all.Where(p => !all.Contains(ParentOf(p)))];
    }

    private static int ParentOf(int pid)
    {
        try
        {
            return int.Parse(File.ReadLines($"/proc/{pid}/status").First(l => l.StartsWith("PPid:", StringComparison.Ordinal)).AsSpan(5));
        }
        catch (IOException)
        {
            return 0;
        }
    }

    private static async Task OneIsLeftAsync(PairUnderTest pair)
    {
        await pair.UntilAsync(s => s is { State: "steady", Retired: [], Previous: null }, "every old generation should drain");
        await Eventually.True(() => pair.Nets.Server.Pids("nginx").Length == 3, Patience, () => $"a master and two workers: {string.Join(' ', pair.Nets.Server.Pids("nginx"))}");
        await Eventually.True(() => pair.GenerationChains().Length == 1, Patience, () => $"chains left: {string.Join(' ', pair.GenerationChains())}");
        await Eventually.True(() => Directory.GetDirectories(Path.Combine(pair.Files["run"], Name), "g*").Length == 1, Patience, "one generation's files");
    }

    [Fact(Timeout = 120_000)]
    public async Task Nginx_is_flipped_by_edits_under_load_and_no_connection_is_lost()
    {
        await using PairUnderTest pair = await StartAsync(s_nginx);
        await using LoadRun remote = await StartedAsync(pair.Load(500)), local = await StartedAsync(pair.LocalLoad(100)),
            keepalive = await StartedAsync(pair.Load(100) with { Mode = LoadMode.Keepalive });
        for (int i = 0; i < 20; i++) await pair.FlipByEditAsync(Nginx($"n{i}"), (Edit)(i % 3));
        LoadResult far = await PassedAsync(remote);
        await PassedAsync(local);
        await PassedAsync(keepalive);
        Assert.True(far.ServedBy.Count >= 15, $"clients met {far.ServedBy.Count} generations");
        Assert.Equal("n19", await pair.ServedByAsync());
        await OneIsLeftAsync(pair);
        PairStatus status = await pair.StatusAsync();
        Assert.Equal((null, null, null), (status.Active!.Version, status.Active.Connections.Haproxy, status.Fault));
        Assert.Equal(["*:80", "[::]:80 v6only"], status.Active.Ports.Keys.Order(StringComparer.Ordinal));
        Assert.Equal(status.Active.Pid, Assert.Single(Masters(pair)));
        // Proven at the lowest priority, serving at the usual one.
        Assert.All(pair.Nets.Server.Pids("nginx"), p => Assert.Equal("0", File.ReadAllText($"/proc/{p}/stat").Split(") ")[^1].Split(' ')[16]));
    }

    [Fact(Timeout = 60_000)]
    public async Task What_nginx_rejects_moves_nothing_and_is_told_in_its_words_by_the_users_line()
    {
        await using PairUnderTest pair = await StartAsync(s_nginx);
        await using LoadRun load = await StartedAsync(pair.Load(500));
        pair.Write(Nginx("broken", "no_such_directive on;"));
        PairStatus status = await pair.UntilAsync(s => s.LastFlip?.Outcome == "failed", "the flip should fail");
        Assert.Contains("nginx rejects the configuration: ", status.Fault, StringComparison.Ordinal);
        Assert.Contains($"unknown directive \"no_such_directive\" in {pair.ConfigFile}:12", status.Fault, StringComparison.Ordinal);
        Said plan = await pair.FlipctlAsync("plan", Name);
        Assert.Contains("no_such_directive", plan.Output, StringComparison.Ordinal);
        pair.Write(Nginx("unnamed", "listen {port:admin};"));
        status = await pair.UntilAsync(s => s.Fault?.Contains("{port:admin}", StringComparison.Ordinal) == true, "a port of no service should be refused");
        Assert.Contains($"{pair.ConfigFile}:12: {{port:admin}} is the port of no service; there are web, web6", status.Fault, StringComparison.Ordinal);
        Assert.Equal("v1", await pair.ServedByAsync());
        Assert.Null((await pair.FlipByEditAsync(Nginx("mended"))).Fault);
        await PassedAsync(load);
    }

    [Fact(Timeout = 120_000)]
    public async Task The_way_back_the_drain_and_its_deadline_are_those_of_HAProxy()
    {
        await using PairUnderTest pair = await StartAsync(s_nginx with { Watch = "{ undo: 1m }", Drain = "{ deadline: 1m, spread: 1s }" });
        await using LoadRun load = await StartedAsync(pair.Load(300));
        HeldConnection one = await pair.HoldAsync(pair.Services[0]), other = await pair.HoldAsync(pair.Services[1]);
        Assert.Equal(("v1", "v1"), (one.ServedBy, other.ServedBy));
        await pair.FlipByEditAsync(Nginx("v2"));
        Assert.Equal("v2", await pair.ServedByAsync());
        Assert.Equal("rolled-back", (await pair.RollbackAsync()).Outcome);
        Assert.Equal("v1", await pair.ServedByAsync());

        await pair.FlipByEditAsync(Nginx("v3"));
        PairStatus status = await pair.UntilAsync(s => s.Previous is { Connections.Sockets: 2, Connections.Conntrack: 2 }, "both witnesses should count who stayed");
        Assert.Null(status.Previous!.Connections.Haproxy);
        Assert.DoesNotContain(status.Previous.Connections.Why ?? [], w => w.Contains("HAProxy", StringComparison.Ordinal));
        ConnectionsReport open = await pair.ConnectionsAsync($"?generation={status.Previous.Number}");
        Assert.Equal(2, open.Matched);
        await one.StaysAsync();
        await other.StaysAsync();
        DrainRecord drain = await pair.DrainAsync(new DrainRequest(Deadline: "1s", SkipUndo: true));
        Assert.Equal(("drained", 2), (drain.Outcome, drain.Closed));
        await one.ClosedAsync();
        await other.ClosedAsync();
        await OneIsLeftAsync(pair);

        // After the undo window the kept copy is started again.
        Assert.Equal("done", (await pair.RollbackAsync()).Outcome);
        Assert.Equal("v1", await pair.ServedByAsync());
        await PassedAsync(load);
    }

    /// <summary>FLIP_KILLS=N: so many kills instead of one in each state.</summary>
    [Fact(Timeout = 3_600_000)]
    public async Task The_daemon_may_be_killed_anywhere()
    {
        string[] states = ["steady", "preparing", "gating", "switching", "watching"];
        int kills = int.TryParse(Environment.GetEnvironmentVariable("FLIP_KILLS"), out int n) ? n : states.Length;
        await using PairUnderTest pair = await StartAsync(s_nginx with { Drain = "{ deadline: 2h }" });
        await using LoadRun load = await StartedAsync(pair.Load(300) with { Duration = TimeSpan.FromHours(1) });
        HeldConnection held = await pair.HoldAsync();
        for (int i = 0; i < kills; i++)
        {
            string state = states[i % states.Length], label = $"k{i}";
            PairStatus before = await pair.UntilAsync(s => s.State == "steady", "the pair should rest");
            if (state != "steady")
            {
                pair.Write(Nginx(label));
                await Eventually.True(async () => (await pair.StatusAsync()) is { } s && (s.State == state || s.Active!.Number > before.Active!.Number), Patience,
                    () => $"the pair should be {state}, or be done");
            }
            Assert.Equal(128 + Kill, await pair.EndDaemonAsync(Kill));
            Assert.NotNull(await pair.ServedByAsync()); // There is no daemon now.
            pair.StartDaemon();
            PairStatus after = await pair.UntilAsync(s => s.State is "steady" or "watching", "the daemon should go on");
            if (state == "steady") Assert.Equal((before.Active!.Pid, before.LastFlip!.Id), (after.Active!.Pid, after.LastFlip!.Id));
            else await Eventually.True(async () => await pair.ServedByAsync() == label, Patience, () => $"{label} should be served; {pair.DaemonLog}");
        }
        await held.StaysAsync();
        Assert.Equal("v1", held.ServedBy);
        held.Dispose();
        await OneIsLeftAsync(pair);
        await PassedAsync(load);
    }

    [Fact(Timeout = 60_000)]
    public async Task Of_a_master_that_is_killed_no_worker_stays_and_another_serves()
    {
        await using PairUnderTest pair = await StartAsync(s_nginx);
        PairStatus before = await pair.StatusAsync();
        Assert.True(Signals.Send(before.Active!.Pid, Kill));
        PairStatus after = await pair.UntilAsync(s => s.Active is { } a && a.Number > before.Active.Number && s.State == "steady", "another should serve");
        Assert.Equal("death", after.LastFlip!.Trigger);
        Assert.Equal("v1", await pair.ServedByAsync());
        await OneIsLeftAsync(pair);
    }

    [Fact(Timeout = 120_000)]
    public async Task A_pair_goes_from_HAProxy_to_nginx_and_back_and_loses_nobody()
    {
        await using PairUnderTest pair = await StartAsync(new PairYaml { Watch = "{ undo: 5s }" });
        await using LoadRun load = await StartedAsync(pair.Load(300));
        HeldConnection one = await pair.HoldAsync();
        await pair.ReconfigureAsync(s_nginx with { Config = Nginx("n1"), Watch = "{ undo: 5s }" });
        await pair.UntilAsync(s => s is { State: "watching", Active.Version: null }, "nginx should serve");
        Assert.Equal("n1", await pair.ServedByAsync());
        Assert.Equal("rolled-back", (await pair.RollbackAsync()).Outcome);
        Assert.Equal("v1", await pair.ServedByAsync());
        await pair.FlipByEditAsync(Nginx("n2"));
        HeldConnection other = await pair.HoldAsync();
        Assert.Equal(("v1", "n2"), (one.ServedBy, other.ServedBy));
        PairStatus status = await pair.UntilAsync(s => s is { State: "steady", Retired: [{ Connections.Haproxy: 1 }] }, "the HAProxy should drain, and be asked");
        Assert.Null(status.Active!.Connections.Haproxy);

        await pair.ReconfigureAsync(new PairYaml { Config = Config("v3") });
        await Eventually.True(async () => await pair.ServedByAsync() == "v3", Patience, () => $"HAProxy should serve; {pair.DaemonLog}");
        await pair.UntilAsync(s => s is { State: "steady", Retired.Length: 2 }, "both should drain");
        await one.StaysAsync();
        await other.StaysAsync();
        one.Dispose();
        other.Dispose();
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "both should end");
        await pair.OneIsLeftAsync();
        Assert.Empty(pair.Nets.Server.Pids("nginx"));
        await PassedAsync(load);
    }

    [Fact(Timeout = 60_000)]
    public async Task Probes_are_asked_by_the_gate_and_again_while_there_is_a_way_back()
    {
        const string well = "location = /health { return 200; }";
        await using PairUnderTest pair = await StartAsync(s_nginx with
        {
            Config = Nginx("v1", well),
            Watch = "{ undo: 30s, parity_grace: 1s }",
            Gate = "{ timeout: 3s, probes: [ { http: { service: ':80', path: /health } }, { command: [test, '!', -e, '{directory}/config/refused'], timeout: 2s }, "
                + "{ command: [curl, -fsS, 'http://127.0.0.1:{port:web}/health'] } ] }",
        });
        await using LoadRun load = await StartedAsync(pair.Load(300));
        pair.Write(Nginx("v2", "location = /health { return 500; }"));
        PairStatus status = await pair.UntilAsync(s => s.LastFlip?.Outcome == "failed", "the probe should refuse it");
        Assert.Contains("/health", status.Fault, StringComparison.Ordinal);
        Assert.Contains("was answered 500", status.Fault, StringComparison.Ordinal);
        await pair.FlipByEditAsync(Nginx("v3", "location = /health { proxy_pass http://127.0.0.1:8080; }"));
        Assert.Equal("v3", await pair.ServedByAsync());
        using (HttpClient client = pair.Client()) Assert.True((await client.PostAsync("/health/down", null)).IsSuccessStatusCode);
        status = await pair.UntilAsync(s => s.LastFlip?.Outcome == "returned", "the new side should be found worse");
        Assert.Contains("was answered 503", status.LastFlip!.Error, StringComparison.Ordinal);
        Assert.Equal("v1", await pair.ServedByAsync());
        await PassedAsync(load);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_probe_that_is_a_program_is_told_with_what_it_said()
    {
        await using PairUnderTest pair = await StartAsync(s_nginx with
        {
            FlipsByItself = false,
            Gate = "{ timeout: 1s, probes: [ { command: [ls, '{dir}/allowed-{generation}'] } ] }".Replace("{dir}", "/nonexistent", StringComparison.Ordinal),
        }, until: s => s.State == "faulted");
        Assert.Contains("the probe \"ls /nonexistent/allowed-1\" exited 2: ls: cannot access", (await pair.StatusAsync()).LastFlip!.Error, StringComparison.Ordinal);
    }

    [Fact(Timeout = 90_000)]
    public async Task A_renewed_certificate_is_read_again_in_place_and_a_bad_one_is_not()
    {
        Require.Program("openssl");
        PairYaml yaml = s_nginx with { AlsoWatch = ["certs"], ConfigName = "nginx.conf" };
        await using PairUnderTest pair = await StartAsync(yaml with
        {
            Command = yaml.Command!.Replace("web6:", "tls: ':443', web6:", StringComparison.Ordinal) + ", reload: [nginx, -c, '{config}', -s, reload]",
        }, p =>
        {
            Certify(p, "old.example");
            p.Write(Nginx("v1", $"listen {{port:tls}} ssl; ssl_certificate {p.Files["certs"]}/site.pem; ssl_certificate_key {p.Files["certs"]}/site.pem;"));
        });
        await using LoadRun load = await StartedAsync(pair.Load(300));
        PairStatus before = await pair.StatusAsync();
        Assert.Equal("CN=old.example", await CertificateAsync(pair));
        Certify(pair, "new.example");
        await Eventually.True(async () => await CertificateAsync(pair) == "CN=new.example", Patience, () => $"the new certificate should be shown; {pair.DaemonLog}");

        File.WriteAllText(Path.Combine(pair.Files["certs"], "site.pem"), "nothing");
        PairStatus refused = await pair.UntilAsync(s => s.Fault is not null, "a bad certificate should be a fault");
        Assert.Contains("does not read again what has changed: nginx rejects the configuration", refused.Fault, StringComparison.Ordinal);
        Assert.Equal("CN=new.example", await CertificateAsync(pair));
        Certify(pair, "newest.example");
        await Eventually.True(async () => await CertificateAsync(pair) == "CN=newest.example", Patience, () => "it should be shown once it is right");
        PairStatus after = await pair.UntilAsync(s => s.Fault is null, "the fault is over");
        Assert.Equal((before.Active!.Number, before.Active.Pid, before.LastFlip!.Id), (after.Active!.Number, after.Active.Pid, after.LastFlip!.Id));
        // Another daemon knows what was read.
        await pair.RestartDaemonAsync(Terminate);
        await pair.FlipByEditAsync(File.ReadAllText(pair.ConfigFile) + "# once more\n");
        await PassedAsync(load);
    }

    [Fact(Timeout = 120_000)]
    public async Task A_program_that_knows_no_graceful_stop_is_ended_when_nobody_is_connected()
    {
        await using PairUnderTest pair = await StartAsync(new PairYaml
        {
            ConfigName = null, FlipsByItself = false,
            Command = $"{Services}, start: ['{Programs.Load}', serve, --listen, '0.0.0.0:{{port:web}}', --listen, '[::]:{{port:web6}}', --name, 'app-{{generation}}']",
        });
        LoadOptions options = pair.Load(300) with { ServedByHeader = "X-Backend" };
        await using LoadRun load = await StartedAsync(options), longer = await StartedAsync(options with { Mode = LoadMode.Long, Long = LongTraffic.Echo, Connections = 20, Expect = Expectation.Any });
        int first = (await pair.StatusAsync()).Active!.Pid;
        Said refused = await pair.FlipctlAsync("flip", Name, "--binary", "/bin/true");
        Assert.Equal(2, refused.ExitCode);
        Assert.Contains("--binary chooses an HAProxy", refused.Error, StringComparison.Ordinal);
        for (int i = 0; i < 3; i++) await pair.FlipAsync();
        PairStatus status = await pair.UntilAsync(s => s.State == "steady" && s.Retired.Any(r => r.Pid == first), "the first should stay with its connections");
        // Its output lies where it was told to lie, and it is nobody's but init's once the daemon is gone.
        Assert.Contains("listening on 0.0.0.0:", File.ReadAllText(Path.Combine(pair.Files["run"], Name, "g00001", "output.log")), StringComparison.Ordinal);
        await pair.EndDaemonAsync(Kill);
        pair.StartDaemon();
        await pair.UntilAsync(s => s.State == "steady" && s.Retired.Any(r => r.Pid == first), "the daemon should find them");
        LoadResult stayed = await PassedAsync(longer);
        Assert.True(stayed.Connections >= 20);
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "those that nobody is connected to should be ended");
        Assert.False(Directory.Exists($"/proc/{first}/fd") && File.ReadAllText($"/proc/{first}/cmdline").Contains("serve", StringComparison.Ordinal));
        await PassedAsync(load);
        await Eventually.True(() => pair.Nets.Server.Pids("flipload").Length == 1, Patience, () => $"programs left: {string.Join(' ', pair.Nets.Server.Pids("flipload"))}");
    }

    [Fact(Timeout = 60_000)]
    public async Task A_program_that_ends_at_once_is_told_with_its_last_words()
    {
        await using PairUnderTest pair = await StartAsync(new PairYaml
        {
            ConfigName = null, FlipsByItself = false, Command = $"{Services}, start: [ls, '/nonexistent/{{port:web}}']",
        }, until: s => s.State == "faulted");
        Assert.Contains("ls: cannot access '/nonexistent/2", (await pair.StatusAsync()).LastFlip!.Error, StringComparison.Ordinal);
    }

    private static async Task<PairUnderTest> StartAsync(PairYaml yaml, Func<PairStatus, bool> until)
    {
        Require.Program("nginx");
        return await PairUnderTest.StartAsync(yaml, until: until);
    }

    private static async Task<string> CertificateAsync(PairUnderTest pair)
    {
        using Socket socket = await pair.ConnectAsync(new(pair.Nets.ServerV4, 443));
        await using var tls = new SslStream(new NetworkStream(socket), false, (_, _, _, _) => true);
        await tls.AuthenticateAsClientAsync("service");
        return tls.RemoteCertificate!.Subject;
    }

    private static void Certify(PairUnderTest pair, string name)
    {
        Directory.CreateDirectory(pair.Files["certs"]);
        string key = pair.Files["key.pem"], certificate = pair.Files["crt.pem"];
        pair.Nets.Server.Exec("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", $"/CN={name}", "-keyout", key, "-out", certificate);
        string all = pair.Files.Write("all.pem", File.ReadAllText(certificate) + File.ReadAllText(key));
        File.Move(all, Path.Combine(pair.Files["certs"], "site.pem"), overwrite: true);
    }
}
