using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>A daemon with one pair, alone in a namespace, and everything a test does to it.</summary>
internal sealed class TroubledPair : IAsyncDisposable
{
    public const string Front = "127.0.0.1:8080";
    public static readonly TimeSpan Settle = TimeSpan.FromMilliseconds(50), Soon = TimeSpan.FromSeconds(20);

    private readonly HttpClient _http;
    private string _earlierLog = "";

    public TroubledPair()
    {
        Require.Netns();
        Require.Program("haproxy");
        Netns = Netns.Create();
        Dir = new TempDir();
        Socket = Dir["run/control.sock"];
        Config = Dir["haproxy.cfg"];
        Yaml = Dir["flipcontroller.yaml"];
        _http = new HttpClient(new SocketsHttpHandler
        {
            ConnectCallback = async (_, stop) =>
            {
                var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                await socket.ConnectAsync(new UnixDomainSocketEndPoint(Socket), stop);
                return new NetworkStream(socket, ownsSocket: true);
            },
        })
        { BaseAddress = new Uri("http://flipcontrollerd/"), Timeout = TimeSpan.FromSeconds(30) };
    }

    public Netns Netns { get; }

    public TempDir Dir { get; }

    public string Config { get; }

    public string Yaml { get; }

    public string Socket { get; }

    public NetnsProcess Daemon { get; private set; } = null!;

    /// <summary>All that the daemon said, of every start.</summary>
    public string Log => _earlierLog + Daemon.Output + Daemon.Errors;

    /// <summary>A daemon whose pair serves <c>v1</c>.</summary>
    public static async Task<TroubledPair> StartAsync(string options = "", string? haproxy = null, string top = "", string haproxyOptions = "",
        Action<TroubledPair>? prepare = null)
    {
        var pair = new TroubledPair();
        try
        {
            prepare?.Invoke(pair);
            pair.Save((haproxy ?? Serving("v1")).Replace("{dir}", pair.Dir.Path, StringComparison.Ordinal));
            pair.WriteYaml(options, top, haproxyOptions);
            await pair.StartDaemonAsync();
            return pair;
        }
        catch
        {
            await pair.DisposeAsync();
            throw;
        }
    }

    /// <param name="options">More of the pair's own keys, already indented by four.</param>
    /// <param name="haproxyOptions">More within haproxy: { ... }. In all of them {dir} is the test's directory.</param>
    public void WriteYaml(string options = "", string top = "", string haproxyOptions = "") =>
        Replace(Yaml, YamlText(options, top, haproxyOptions));

    public string YamlText(string options = "", string top = "", string haproxyOptions = "", string ports = "blue: 21000, green: 22000") => $$"""
        control: { socket: {{Socket}}, group: no-such-group }
        state: {{Dir["state"]}}
        runtime: {{Dir["run"]}}
        {{top}}
        pairs:
          edge:
            haproxy: { config: [{{Config}}], {{(haproxyOptions.Contains("settle:", StringComparison.Ordinal) ? "" : "settle: 50ms")}}{{haproxyOptions}} }
            ports: { {{ports}} }
        {{(options.Contains("gate:", StringComparison.Ordinal) ? "" : "    gate: { timeout: 2s }\n")}}{{(options.Contains("watch:", StringComparison.Ordinal) ? "" : "    watch: { undo: 1s }\n")}}{{options}}

        """.Replace("{dir}", Dir.Path, StringComparison.Ordinal);

    /// <param name="wrapper">A program that becomes the daemon, with its arguments; none: it is started as it is.</param>
    public async Task StartDaemonAsync(params string[] wrapper)
    {
        if (Daemon is not null) _earlierLog = Log;
        string[] words = [.. wrapper, Programs.Daemon, Yaml];
        Daemon = Netns.Start(words[0], words[1..]);
        await Eventually.True(async () =>
        {
            if (Daemon.HasExited) throw new InvalidOperationException($"the daemon ended: {Log}");
            try
            {
                return File.Exists(Socket) && await StatusAsync() is { Active: not null, State: "steady" };
            }
            catch (InvalidOperationException)
            {
                return false; // The socket of the one before.
            }
        }, Soon, () => Log);
    }

    public static string Serving(string name, string front = Front, string more = "") => $"""
        defaults
          mode http
          timeout connect 1s
          timeout client 5s
          timeout server 5s
        frontend web
          bind {front}
          http-request return status 200 content-type text/plain string {name} hdr X-Served-By {name}
        {more}

        """;

    /// <summary>Puts the HAProxy configuration in place at once, as a careful editor does.</summary>
    public void Save(string text) => Replace(Config, text);

    /// <returns>Its path.</returns>
    public string Script(string name, string text)
    {
        string path = Dir.Write(name, text);
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        return path;
    }

    public void Replace(string path, string text)
    {
        // Under a name that a watched directory does not count.
        string temporary = System.IO.Path.Combine(System.IO.Path.GetDirectoryName(path)!, $".{System.IO.Path.GetFileName(path)}.tmp");
        File.WriteAllText(temporary, text);
        File.Move(temporary, path, overwrite: true);
    }

    public async Task<PairStatus> StatusAsync() => await GetAsync("v1/pairs/edge", WireJson.Default.PairStatus);

    public async Task<IReadOnlyList<FlipRecord>> HistoryAsync() => (await GetAsync("v1/pairs/edge/history", WireJson.Default.HistoryReport)).Flips;

    private async Task<T> GetAsync<T>(string path, JsonTypeInfo<T> type)
    {
        try
        {
            return JsonSerializer.Deserialize(await _http.GetStringAsync(path), type)!;
        }
        catch (HttpRequestException e)
        {
            throw new InvalidOperationException($"{path}: {e.Message}\n{Log}", e);
        }
    }

    public async Task<(int Status, string Body)> SendAsync(HttpMethod method, string path, HttpContent? body = null)
    {
        using var request = new HttpRequestMessage(method, path) { Content = body };
        using HttpResponseMessage response = await _http.SendAsync(request);
        return ((int)response.StatusCode, await response.Content.ReadAsStringAsync());
    }

    public Task<(int Status, string Body)> PostAsync(string path, string json = "{}") =>
        SendAsync(HttpMethod.Post, path, new StringContent(json, Encoding.UTF8, "application/json"));

    public async Task<Outcome> FlipctlAsync(params string[] arguments)
    {
        NetnsProcess flipctl = Netns.Start(Programs.Cli, ["--socket", Socket, .. arguments]);
        int code = await flipctl.Exit(Soon);
        return new Outcome(code, flipctl.Output, flipctl.Errors);
    }

    /// <summary>Waits until the pair is at rest with so many flips in its history; fails when there are more.</summary>
    public async Task<IReadOnlyList<FlipRecord>> FlipsAsync(int count)
    {
        IReadOnlyList<FlipRecord> flips = [];
        await Eventually.True(async () =>
        {
            flips = await HistoryAsync();
            Assert.True(flips.Count <= count, $"{flips.Count} flips, not {count}: {string.Join("; ", flips)}");
            return flips.Count == count && (await StatusAsync()).State is "steady" or "watching";
        }, Soon, () => $"{flips.Count} flips, not {count}\n{Log}");
        return flips;
    }

    /// <summary>Until the daemon has said it: what it wrote before an answer may come through its pipe after the answer.</summary>
    public Task SaysAsync(string text) => Eventually.True(() => Log.Contains(text, StringComparison.Ordinal), Soon, () => $"not said: {text}\n{Log}");

    public async Task UntilAsync(Func<PairStatus, bool> condition)
    {
        PairStatus? seen = null;
        await Eventually.True(async () => condition(seen = await StatusAsync()), Soon, () => $"{seen}\n{Log}");
    }

    /// <summary>Longer than the daemon would take to notice something: the only way to see that nothing happens.</summary>
    /// <param name="settle">When it is not <see cref="Settle"/>.</param>
    public static async Task LongEnoughAsync(TimeSpan? settle = null)
    {
        var waited = System.Diagnostics.Stopwatch.StartNew();
        await Eventually.True(() => waited.Elapsed > (settle ?? Settle) + 7 * Settle, Soon, "time stands still");
    }

    public string Get(string address = Front, params string[] options) =>
        Netns.Exec("curl", [.. options, "--silent", "--show-error", "--max-time", "5", $"http://{address}/"]);

    public LoadRun Load(string front = Front, double rate = 200) => LoadRun.Start(new LoadOptions
    {
        Targets = [IPEndPoint.Parse(front)], Namespace = Netns.Name, Rate = rate, Duration = TimeSpan.FromMinutes(2),
    });

    /// <summary>Ends the load; nothing of it may have failed, and these alone may have served it.</summary>
    public async Task NothingFailedAsync(LoadRun load, params string[] servedBy)
    {
        load.Stop();
        LoadResult result = await load.Completion;
        Assert.True(result.Passed, $"{result.ToJson()}\n{Log}");
        Assert.Equal(servedBy.Order(), result.ServedBy.Keys.Order());
    }

    public string Ruleset() => Netns.Exec("nft", "list", "ruleset");

    public int[] Processes() => Netns.Pids("haproxy");

    /// <summary>Every file and directory below, with mode and time.</summary>
    public static IReadOnlyList<string> Tree(string directory) =>
        [.. Directory.EnumerateFileSystemEntries(directory, "*", SearchOption.AllDirectories).Order(StringComparer.Ordinal)
            .Select(path => $"{path} {File.GetUnixFileMode(path)} {File.GetLastWriteTimeUtc(path).Ticks}")];

    public async ValueTask DisposeAsync()
    {
        _http.Dispose();
        if (Daemon is not null && Daemon.Terminate())
        {
            try
            {
                await Daemon.Exit(TimeSpan.FromSeconds(5));
            }
            catch (TimeoutException)
            {
                // The namespace's end kills it.
            }
        }
        Netns.Dispose();
        Dir.Dispose();
    }
}

internal sealed record Outcome(int Code, string Output, string Errors)
{
    public string All => Output + Errors;
}
