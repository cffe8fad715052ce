using System.Globalization;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>How a file gets its new text: as editors, `mv` and configuration management do it.</summary>
internal enum Edit { InPlace, RenameOver, SymlinkSwap }

/// <summary>These tests measure: they run one after another, beside nothing else. Others that start a pair may run side by side.</summary>
[CollectionDefinition(PairUnderTest.Alone, DisableParallelization = true)]
public sealed class PairsUnderTest;

/// <summary>What flipctl said and how it ended.</summary>
internal sealed record Said(int ExitCode, string Output, string Error);

/// <summary>What stands in flipcontroller.yaml for the pair, as it is written there.</summary>
internal sealed record PairYaml
{
    public string Watch { get; init; } = "{ undo: 1s }";
    public string Drain { get; init; } = "{ deadline: 1m }";
    public string Gate { get; init; } = "{ timeout: 10s }";
    public string Continuity { get; init; } = "{}";
    public string Hold { get; init; } = "{}";
    public string Redirect { get; init; } = "{}";
    /// <summary>Flip by itself when files change.</summary>
    public bool FlipsByItself { get; init; } = true;
    /// <summary>Names in the test's directory.</summary>
    public string[] AlsoWatch { get; init; } = [];
    /// <summary>More of <c>haproxy:</c>, a comma first; {dir} is the test's directory.</summary>
    public string Haproxy { get; init; } = "";
    /// <summary>What stands under <c>command:</c> instead of HAProxy, <c>config</c> apart; {dir} is the test's directory.</summary>
    public string? Command { get; init; }
    /// <summary>The name of the configuration file, and what it holds at first; none: a command pair has no file.</summary>
    public string? ConfigName { get; init; } = "haproxy.cfg";
    public string Config { get; init; } = PairUnderTest.Config("v1");
    /// <summary>Lines beside <c>pairs:</c>; {dir} is the test's directory.</summary>
    public string Top { get; init; } = "";
    /// <summary>More keys of the pair, a line each.</summary>
    public string[] More { get; init; } = [];
    /// <summary>It serves no port 80, only the paths of unix sockets.</summary>
    public bool OnlyPaths { get; init; }
}

/// <summary>
/// A pair and everything around it, all of it real: the daemon, its HAProxys and a backend in the server's network namespace,
/// clients in another. What lives in the namespaces ends with the test, however the test ends.
/// <code>
///   Client ── veth ── Server:  :80 (IPv4 and IPv6) -> active generation -> 127.0.0.1:8080 (Backend)
/// </code>
/// </summary>
internal sealed class PairUnderTest : IAsyncDisposable
{
    public const string Alone = "pairs under test", Name = "edge";
    public const int Kill = Signals.Kill, Terminate = Signals.Terminate, Hangup = 1; // SIGHUP: signal(7)
    /// <summary>FLIP_SLOW in the environment says how many times as long everything takes here, as in an emulated machine.</summary>
    public static readonly int Slowness = int.TryParse(Environment.GetEnvironmentVariable("FLIP_SLOW"), out int times) ? times : 1;
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(20) * Slowness;

    private readonly HttpClient _http;
    private NetnsProcess _daemon = null!;
    private readonly List<HeldConnection> _held = [];
    private int _targets;

    private PairUnderTest()
    {
        Nets = Netns.Pair();
        Files = new TempDir();
        ConfigFile = Files["haproxy.cfg"];
        Backend = Backend.Start(new BackendOptions { Namespace = Nets.Server.Name, Listen = [new(IPAddress.Loopback, 8080)], Name = "app" });
        Services = [new(Nets.ServerV4, 80), new(Nets.ServerV6, 80)];
        LocalServices = [new(IPAddress.Loopback, 80), new(IPAddress.IPv6Loopback, 80), .. Services];
        _http = new HttpClient(new SocketsHttpHandler
        {
            ConnectCallback = async (_, stop) =>
            {
                var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                await socket.ConnectAsync(new UnixDomainSocketEndPoint(Socket), stop);
                return new NetworkStream(socket, ownsSocket: true);
            },
        }) { BaseAddress = new Uri("http://daemon"), Timeout = Patience };
    }

    public NetnsPair Nets { get; }

    public TempDir Files { get; }

    public Backend Backend { get; }

    /// <summary>The front addresses, for clients on the other side of the wire.</summary>
    public IPEndPoint[] Services { get; }

    /// <summary>The front addresses, for clients on the server itself.</summary>
    public IPEndPoint[] LocalServices { get; }

    public string ConfigFile { get; private set; }

    public string Socket => Files["control.sock"];

    public int DaemonPid => _daemon.Pid;

    public string DaemonLog => _daemon.Output + _daemon.Errors;

    /// <summary>Serving its first generation when it returns.</summary>
    /// <param name="before">Runs before the daemon starts, when haproxy.cfg is <see cref="Config"/> of v1.</param>
    /// <param name="until">What to wait for instead, when something other than the pair serves at first.</param>
    public static async Task<PairUnderTest> StartAsync(
        PairYaml? yaml = null, Action<PairUnderTest>? before = null, Func<PairStatus, bool>? until = null)
    {
        Require.Netns();
        Require.Program("haproxy");
        var pair = new PairUnderTest();
        try
        {
            yaml ??= new PairYaml();
            pair.Choose(yaml);
            before?.Invoke(pair);
            pair.Configure(yaml);
            pair.StartDaemon();
            PairStatus first = await pair.UntilAsync(until ?? (s => s.State == "steady"), "the first generation should serve");
            if (first.State == "faulted") return pair;
            if (yaml.OnlyPaths) return pair;
            // Neighbours that do not know each other yet lose SYNs for a second: not what is measured here.
            foreach (IPEndPoint service in pair.Services) (await pair.ConnectAsync(service)).Dispose();
            return pair;
        }
        catch
        {
            await pair.DisposeAsync();
            throw;
        }
    }

    /// <summary>A haproxy.cfg whose answers say who gave them.</summary>
    /// <param name="label">The value of X-Served-By, in errors of HAProxy's own too.</param>
    /// <param name="frontend">More lines for the frontend.</param>
    /// <param name="backend">The server lines.</param>
    public static string Config(string label, string frontend = "", string backend = "server s1 127.0.0.1:8080 check inter 2s", string global = "") => $"""
        global
          maxconn 4000
          {global}
        defaults
          mode http
          timeout connect 5s
          timeout client 30s
          timeout server 30s
          timeout tunnel 60s
          timeout http-request 10s
        frontend web
          bind :80
          bind :::80 v6only
          http-after-response set-header X-Served-By {label}
          {frontend}
          default_backend app
        backend app
          {backend}

        """;

    private void Choose(PairYaml yaml)
    {
        if (yaml.ConfigName is not { } name) return;
        ConfigFile = Files[name];
        Write(yaml.Config);
    }

    private void Configure(PairYaml yaml) => Files.Write("flipcontroller.yaml", Text(yaml));

    /// <summary>The daemon reads another configuration for the pair.</summary>
    public async Task ReconfigureAsync(PairYaml yaml)
    {
        Choose(yaml);
        Configure(yaml);
        int before = DaemonLog.Split("was read again").Length;
        SignalDaemon(Hangup);
        await Eventually.True(() => DaemonLog.Split("was read again").Length > before, Patience, () => $"the configuration should be taken\n{Tail(DaemonLog, 40)}");
    }

    private string Text(PairYaml yaml) => $$"""
        control: { socket: {{Socket}} }
        state: {{Files["state"]}}
        runtime: {{Files["run"]}}
        {{yaml.Top.Replace("{dir}", Files.Path, StringComparison.Ordinal)}}
        pairs:
          {{Name}}:
            {{(yaml.Command is null ? "haproxy" : "command")}}: { config: [{{(yaml.ConfigName is null ? "" : ConfigFile)}}], watch: {{(yaml.FlipsByItself ? "true" : "false")}}, settle: 10ms, also_watch: [{{string.Join(", ", yaml.AlsoWatch.Select(n => Files[n]))}}]{{(yaml.Command is { } command ? $", {command}" : yaml.Haproxy).Replace("{dir}", Files.Path, StringComparison.Ordinal)}} }
            gate: {{yaml.Gate}}
            watch: {{yaml.Watch}}
            drain: {{yaml.Drain}}
            {{(yaml.Command is null ? $"continuity: {yaml.Continuity}" : "")}}
            hold: {{yaml.Hold}}
            redirect: {{yaml.Redirect}}
            {{string.Join("\n    ", yaml.More).Replace("{dir}", Files.Path, StringComparison.Ordinal)}}

        """;

    // ---- the files

    public void Write(string text, Edit edit = Edit.InPlace)
    {
        switch (edit)
        {
            case Edit.InPlace:
                File.WriteAllText(ConfigFile, text);
                break;
            case Edit.RenameOver:
                File.WriteAllText(ConfigFile + ".new", text);
                File.Move(ConfigFile + ".new", ConfigFile, overwrite: true);
                break;
            case Edit.SymlinkSwap:
                string target = Path.Combine(Files.Path, "releases", Path.GetRandomFileName() + ".cfg");
                Directory.CreateDirectory(Path.GetDirectoryName(target)!);
                File.WriteAllText(target, text);
                File.CreateSymbolicLink(ConfigFile + ".link", target);
                File.Move(ConfigFile + ".link", ConfigFile, overwrite: true);
                break;
        }
    }

    /// <summary>Writes the configuration and waits until NEW connections go to a generation that runs it.</summary>
    public async Task<PairStatus> FlipByEditAsync(string text, Edit edit = Edit.InPlace)
    {
        Write(text, edit);
        string sha = Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(ConfigFile)));
        return await UntilAsync(s => s.Active?.ConfigSha256 == sha && s.LastFlip?.Outcome == "done", $"NEW connections should go to the configuration written ({edit})");
    }

    /// <summary>Flips to <see cref="Config"/> of the label; who serves a NEW connection then.</summary>
    public async Task<string> FlippedAsync(string label)
    {
        await FlipByEditAsync(Config(label));
        return await ServedByAsync();
    }

    // ---- the daemon

    public void StartDaemon() => _daemon = Units is null ? Nets.Server.Start(Programs.Daemon, Files["flipcontroller.yaml"], "--verbose")
        : Nets.Server.Start("env", $"PATH={Units.SearchPath}", Programs.Daemon, Files["flipcontroller.yaml"], "--verbose");

    /// <summary>What the daemon takes for systemd; null: nothing is put before it.</summary>
    public StandInUnits? Units { get; private set; }

    /// <summary>For the daemon that is started next.</summary>
    public void UseUnits() => Units = new StandInUnits(Files["systemd"], Files["run"]);

    /// <summary>A second daemon beside it, with the same configuration.</summary>
    public NetnsProcess StartAnotherDaemon() => Nets.Server.Start(Programs.Daemon, Files["flipcontroller.yaml"]);

    public void SignalDaemon(int signal) => _daemon.Signal(signal);

    /// <returns>Its exit code.</returns>
    public async Task<int> EndDaemonAsync(int signal)
    {
        _daemon.Signal(signal);
        return await _daemon.Exit(Patience);
    }

    public Task DaemonIsGoneAsync() => _daemon.Exit(Patience);

    /// <summary>Whether somebody waited in a queue of the server's before it was told to stop; looked at without a pause.</summary>
    public Task<bool> UntilHeldAsync(CancellationToken stop) => Task.Factory.StartNew(() =>
    {
        string queues = $"/proc/{DaemonPid}/net/netfilter/nfnetlink_queue";
        while (!stop.IsCancellationRequested)
        {
            // Its third field is how many wait: seq_show() in net/netfilter/nfnetlink_queue.c.
            if (File.ReadLines(queues).Any(l => l.Split(' ', StringSplitOptions.RemoveEmptyEntries)[2] != "0")) return true;
        }
        return false;
    }, TaskCreationOptions.LongRunning);

    public async Task RestartDaemonAsync(int signal)
    {
        await EndDaemonAsync(signal);
        StartDaemon();
        await UntilAsync(s => s.State is not "cold", "the daemon should answer again");
    }

    public async Task<PairStatus> StatusAsync() => await GetAsync($"/v1/pairs/{Name}", WireJson.Default.PairStatus);

    /// <summary>Of the whole node.</summary>
    public async Task<StatusReport> ReportAsync() => await GetAsync("/v1/status", WireJson.Default.StatusReport);

    public async Task<HistoryReport> HistoryAsync() => await GetAsync($"/v1/pairs/{Name}/history", WireJson.Default.HistoryReport);

    /// <summary>Until the pair is as described; its status then.</summary>
    public async Task<PairStatus> UntilAsync(Func<PairStatus, bool> condition, string what, TimeSpan? deadline = null)
    {
        PairStatus? last = null;
        await Eventually.True(async () => (last = await TryStatusAsync()) is not null && condition(last), deadline ?? Patience,
            () => $"{what}; the status was {(last is null ? "not to be had" : JsonSerializer.Serialize(last))}\n{Tail(DaemonLog, 40)}");
        return last!;
    }

    private async Task<PairStatus?> TryStatusAsync()
    {
        if (_daemon.HasExited) throw new InvalidOperationException($"the daemon ended with exit code {_daemon.ExitCode}: {DaemonLog}");
        try
        {
            return await StatusAsync();
        }
        catch (HttpRequestException)
        {
            return null; // It does not listen yet.
        }
    }

    /// <summary>Until the daemon has said what matches: what it wrote before an answer may come through its pipe after the answer.</summary>
    public Task SaysAsync(string pattern) =>
        Eventually.True(() => Regex.IsMatch(DaemonLog, pattern), Patience, () => $"not said: {pattern}\n{Tail(DaemonLog, 40)}");

    public async Task<ConnectionsReport> ConnectionsAsync(string query = "") => await GetAsync($"/v1/pairs/{Name}/connections{query}", WireJson.Default.ConnectionsReport);

    public async Task<DrainCurve> DrainCurveAsync(int generation) => await GetAsync($"/v1/pairs/{Name}/drains/{generation}", WireJson.Default.DrainCurve);

    /// <summary>What the daemon says to a POST, and its status.</summary>
    public async Task<(HttpStatusCode Code, string Text)> PostAsync<T>(string path, T body, JsonTypeInfo<T> type)
    {
        using HttpResponseMessage answer = await _http.PostAsync($"/v1/pairs/{Name}/{path}", JsonContent.Create(body, type));
        return (answer.StatusCode, await answer.Content.ReadAsStringAsync());
    }

    /// <summary>A drain that must be done; it is when this returns.</summary>
    public async Task<DrainRecord> DrainAsync(DrainRequest request)
    {
        var (code, text) = await PostAsync("drain", request, WireJson.Default.DrainRequest);
        Assert.True(code == HttpStatusCode.OK, $"drain: {(int)code} {text}\n{Tail(DaemonLog, 40)}");
        return JsonSerializer.Deserialize(text, WireJson.Default.DrainAnswer)!.Drain!;
    }

    public async Task<CloseAnswer> CloseAsync(CloseRequest request)
    {
        var (code, text) = await PostAsync("close", request, WireJson.Default.CloseRequest);
        Assert.True(code == HttpStatusCode.OK, $"close: {(int)code} {text}\n{Tail(DaemonLog, 40)}");
        return JsonSerializer.Deserialize(text, WireJson.Default.CloseAnswer)!;
    }

    private async Task<T> GetAsync<T>(string path, JsonTypeInfo<T> type) => (await _http.GetFromJsonAsync(path, type))!;

    /// <summary>A flip that must succeed; it has when this returns.</summary>
    public async Task<FlipRecord> FlipAsync() => await DoneAsync("flip", JsonContent.Create(new FlipRequest(), WireJson.Default.FlipRequest));

    public async Task<FlipRecord> RollbackAsync() => await DoneAsync("rollback", JsonContent.Create(new RollbackRequest(), WireJson.Default.RollbackRequest));

    private async Task<FlipRecord> DoneAsync(string verb, JsonContent body)
    {
        using HttpResponseMessage answer = await _http.PostAsync($"/v1/pairs/{Name}/{verb}", body);
        string text = await answer.Content.ReadAsStringAsync();
        Assert.True(answer.StatusCode == HttpStatusCode.OK, $"{verb}: {(int)answer.StatusCode} {text}\n{Tail(DaemonLog, 40)}");
        return JsonSerializer.Deserialize(text, WireJson.Default.FlipAnswer)!.Flip!;
    }

    /// <summary>The real flipctl.</summary>
    public async Task<Said> FlipctlAsync(params string[] arguments)
    {
        NetnsProcess flipctl = Nets.Server.Start(Programs.Cli, ["--socket", Socket, .. arguments]);
        int code = await flipctl.Exit(TimeSpan.FromSeconds(40));
        return new Said(code, flipctl.Output, flipctl.Errors);
    }

    // ---- clients

    /// <summary>Fresh connections to both families from the other side of the wire, until it is stopped.</summary>
    public LoadOptions Load(double rate = 500) => new()
    {
        Targets = Services, Rate = rate, Duration = TimeSpan.FromMinutes(5), Namespace = Nets.Client.Name, Expect = Expectation.Contains("app"),
        Timeout = TimeSpan.FromSeconds(10),
    };

    /// <summary>Under way when it returns.</summary>
    public static async Task<LoadRun> StartedAsync(LoadOptions options)
    {
        LoadRun run = LoadRun.Start(options);
        await Eventually.True(() => run.Now.Ok >= 20, Patience, () => $"the load should get answers: {run.Now}");
        return run;
    }

    /// <summary>Its result, which is that nothing failed.</summary>
    public static async Task<LoadResult> PassedAsync(LoadRun run)
    {
        LoadResult result = await EndedAsync(run);
        Assert.True(result.Passed, result.ToJson());
        Assert.Equal(0, result.LateResets);
        return result;
    }

    public static async Task<LoadResult> EndedAsync(LoadRun run)
    {
        run.Stop();
        LoadResult result = await run.Completion;
        Show($"{result.Mode}: {result.Requests} requests in {result.Seconds:0.0} s, {result.Failed} failed (refused {result.Refused}, reset {result.Reset}, timed out {result.TimedOut}, "
            + $"truncated {result.Truncated}, status {result.WrongStatus}); {result.Connections} connections, {result.Raced} raced, {result.Reconnected} reconnected, "
            + $"connect p99 {result.Connect.P99:0.0} max {result.Connect.Max:0.0} ms, latency p99 {result.Latency.P99:0.0} max {result.Latency.Max:0.0} ms");
        return result;
    }

    /// <summary>A figure for whoever reads the report.</summary>
    public static void Show(string line) => TestContext.Current.TestOutputHelper?.WriteLine("FIGURE " + line);

    /// <summary>The same from the server itself.</summary>
    public LoadOptions LocalLoad(double rate = 100) => Load(rate) with { Targets = LocalServices, Namespace = Nets.Server.Name };

    /// <summary>An HTTP client of its own, with connections of its own.</summary>
    public HttpClient Client()
    {
        int next = Interlocked.Increment(ref _targets);
        return Client(Services[next % Services.Length]);
    }

    public HttpClient Client(IPEndPoint service) => new(new SocketsHttpHandler { ConnectCallback = async (_, stop) => new NetworkStream(await ConnectAsync(service, stop), ownsSocket: true) })
    {
        BaseAddress = new Uri("http://service"), Timeout = Patience,
    };

    public async Task<Socket> ConnectAsync(IPEndPoint service, CancellationToken stop = default)
    {
        Socket socket = Nets.Client.Run(() => new Socket(service.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true });
        await socket.ConnectAsync(service, stop);
        return socket;
    }

    /// <summary>A connection like a websocket's, open until the test ends or HAProxy closes it.</summary>
    public async Task<HeldConnection> HoldAsync(IPEndPoint? service = null)
    {
        var held = await HeldConnection.OpenAsync(await ConnectAsync(service ?? Services[0]));
        _held.Add(held);
        return held;
    }

    /// <summary>Who serves a NEW connection now.</summary>
    public async Task<string> ServedByAsync()
    {
        using HttpClient client = Client();
        using HttpResponseMessage answer = await client.GetAsync("/");
        return answer.Headers.GetValues("X-Served-By").Single();
    }

    // ---- what is there

    public int[] HaproxyPids() => Nets.Server.Pids("haproxy");

    /// <summary>The chains of generations in our table.</summary>
    public string[] GenerationChains() =>
        [.. Nets.Server.Exec("nft", "list", "table", "inet", "flipcontroller").Split('\n').Select(l => l.Trim())
            .Where(l => l.StartsWith("chain generation-", StringComparison.Ordinal)).Select(l => l.Split(' ')[1])];

    /// <summary>Until one HAProxy and the chain of one generation are all there is.</summary>
    public async Task OneIsLeftAsync()
    {
        await Eventually.True(() => HaproxyPids().Length == 1, Patience, () => $"HAProxys left: {string.Join(' ', HaproxyPids())}");
        await Eventually.True(() => GenerationChains().Length == 1, Patience, () => $"chains left: {string.Join(' ', GenerationChains())}");
    }

    /// <summary>No hold of ours is in the kernel.</summary>
    public void NothingIsHeld()
    {
        Assert.DoesNotContain("flipcontroller-hold", Nets.Server.Exec("nft", "list", "tables"), StringComparison.Ordinal);
        Assert.DoesNotContain("plug", Nets.Server.Exec("tc", "qdisc", "show"), StringComparison.Ordinal);
        Assert.DoesNotContain("ifb", Nets.Server.Exec("ip", "-d", "link", "show"), StringComparison.Ordinal);
    }

    /// <summary>What the daemon has open, by kind: `socket`, `anon_inode:inotify`, a path; without the assemblies of .NET, which come as they are needed.</summary>
    public IReadOnlyDictionary<string, int> DaemonDescriptors() => Directory.GetFileSystemEntries($"/proc/{DaemonPid}/fd")
        .Select(fd => new FileInfo(fd).LinkTarget?.Split(":[")[0]).OfType<string>()
        .Where(k => !k.EndsWith(".dll", StringComparison.Ordinal) && !k.EndsWith(".pdb", StringComparison.Ordinal)).CountBy(k => k).ToDictionary();

    public async ValueTask DisposeAsync()
    {
        if (_daemon is not null) TestContext.Current.TestOutputHelper?.WriteLine(Tail(DaemonLog, 3000));
        _http.Dispose();
        foreach (HeldConnection held in _held) held.Dispose();
        Nets.Dispose();
        Backend.Dispose();
        Files.Dispose();
        await ValueTask.CompletedTask;
    }

    private static string Tail(string text, int lines) => string.Join('\n', text.Split('\n').TakeLast(lines));
}

/// <summary>An upgraded connection that echoes.</summary>
internal sealed class HeldConnection : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);
    private readonly Socket _socket;

    private HeldConnection(Socket socket, string servedBy) => (_socket, ServedBy) = (socket, servedBy);

    public string ServedBy { get; }

    public IPEndPoint Local => (IPEndPoint)_socket.LocalEndPoint!;

    public static async Task<HeldConnection> OpenAsync(Socket socket)
    {
        await socket.SendAsync("GET /chat HTTP/1.1\r\nHost: service\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"u8.ToArray());
        var head = new StringBuilder();
        byte[] buffer = new byte[4096];
        while (!head.ToString().EndsWith("\r\n\r\n", StringComparison.Ordinal))
        {
            int read = await socket.ReceiveAsync(buffer).WaitAsync(s_patience);
            Assert.True(read > 0, $"the connection was closed instead of upgraded: {head}");
            head.Append(Encoding.ASCII.GetString(buffer, 0, read));
        }
        string[] lines = head.ToString().Split("\r\n");
        Assert.Contains(" 101 ", lines[0], StringComparison.Ordinal);
        return new HeldConnection(socket, lines.Single(l => l.StartsWith("x-served-by: ", StringComparison.OrdinalIgnoreCase)).Split(' ')[1]);
    }

    /// <summary>Fails, with words that tests/run.sh knows, when the connection has been closed.</summary>
    public async Task StaysAsync(string text = "still there?") => Assert.True(await EchoesAsync(text), "a connection was lost");

    /// <summary>Whether what is said comes back; false: the connection has been closed.</summary>
    public async Task<bool> EchoesAsync(string text = "still there?")
    {
        byte[] said = Encoding.UTF8.GetBytes(text), heard = new byte[said.Length];
        try
        {
            await _socket.SendAsync(said);
            for (int have = 0; have < heard.Length;)
            {
                int read = await _socket.ReceiveAsync(heard.AsMemory(have)).AsTask().WaitAsync(s_patience);
                if (read == 0) return false;
                have += read;
            }
            return said.AsSpan().SequenceEqual(heard);
        }
        catch (SocketException)
        {
            return false;
        }
    }

    /// <summary>Until the other side has closed it, well or badly.</summary>
    public async Task ClosedAsync()
    {
        try
        {
            while (await _socket.ReceiveAsync(new byte[64]) > 0)
            {
            }
        }
        catch (SocketException)
        {
            // A reset is an end, too.
        }
    }

    public void Dispose() => _socket.Dispose();
}
