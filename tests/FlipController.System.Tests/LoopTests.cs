using System.Net.Sockets;
using System.Text;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>
/// A configuration that connects to itself, through loopback and through a socket in the file system: clients of a generation that
/// has stopped listening need new such connections.
/// </summary>
public sealed class LoopTests
{
    private static readonly string[] s_ways = ["/tcp", "/unix"];

    // Each request needs a connection of its own to the inner frontend; a check that finds nobody there would take the server away.
    private static string Config(PairUnderTest pair, string label, bool chroot) => PairUnderTest.Config(label,
        global: chroot ? $"chroot {pair.Files.Path}\n  uid 65534\n  gid 65534" : "",
        frontend: """
            timeout http-keep-alive 60s
              use_backend over_unix if { path_beg /unix }
            """,
        backend: $"""
            option http-server-close
              server inner 127.0.0.1:8443 send-proxy-v2 check inter 200ms check-send-proxy
            backend over_unix
              option http-server-close
              server inner unix@{(chroot ? "" : pair.Files.Path)}/inner.sock send-proxy-v2 check inter 200ms check-send-proxy
            frontend inner
              bind 127.0.0.1:8443 accept-proxy
              bind {pair.Files["inner.sock"]} accept-proxy mode 666
              http-after-response set-header X-Inner {label}
              http-after-response set-header X-Client %[src]
              http-request replace-path ^/(tcp|unix)(.*) \2
              default_backend servers
            backend servers
              server s1 127.0.0.1:8080 check inter 2s
            """);

    [Theory(Timeout = 120_000)]
    [InlineData(false), InlineData(true)]
    public async Task Clients_of_a_retired_generation_reach_what_it_connects_to_itself_for(bool chroot)
    {
        const int length = 3_000_000, rate = 250_000;
        await using PairUnderTest pair = await PairUnderTest.StartAsync(
            new PairYaml { FlipsByItself = false, Drain = "{ deadline: 5m }" }, p =>
            {
                File.SetUnixFileMode(p.Files.Path, (UnixFileMode)Convert.ToInt32("711", 8));
                p.Write(Config(p, "v1", chroot));
            });
        async Task NextAsync(int number)
        {
            pair.Write(Config(pair, $"v{number}", chroot));
            await pair.FlipAsync();
            PairStatus after = await pair.UntilAsync(s => s is { State: "steady" } && s.Retired.Any(r => r.Number == number - 1),
                $"generation {number - 1} should be retired, with its connections");
            await StoppedAsync(pair, after.Retired.Single(r => r.Number == number - 1));
        }

        await using LoadRun load = await StartedAsync(pair.Load(200) with { Mode = LoadMode.Keepalive, Connections = 16, Path = "/tcp/" });
        await using LoadRun overUnix = await StartedAsync(pair.Load(200) with { Mode = LoadMode.Keepalive, Connections = 16, Path = "/unix/" });
        // Each is told to close with the first answer after the soft stop: some for each time that they are asked.
        List<KeptAlive> first = await KeptAlive.OpenAsync(pair, 8, "v1");
        using HttpClient client = pair.Client(pair.Services[0]);
        using HttpResponseMessage answer = await client.GetAsync($"/tcp/bytes/{length}?seed=7&rate={rate}", HttpCompletionOption.ResponseHeadersRead);
        Task<byte[]> download = answer.Content.ReadAsByteArrayAsync();

        await NextAsync(2);
        List<KeptAlive> second = await KeptAlive.OpenAsync(pair, 6, "v2");
        await AskAsync(first, 2, "v1", "v2");

        await NextAsync(3);
        await AskAsync(first, 2, "v1", "v3");
        await AskAsync(second, 2, "v2", "v3");

        // Nobody is needed for it to go on, and who comes back keeps it so.
        await pair.EndDaemonAsync(PairUnderTest.Kill);
        await AskAsync(first, 2, "v1", "v3");
        pair.StartDaemon();
        await pair.UntilAsync(s => s is { State: "steady", Retired.Length: 2 }, "the daemon should be back");
        await AskAsync(second, 2, "v2", "v3");
        await NextAsync(4);
        await AskAsync(first, 2, "v1", "v4");
        await AskAsync(second, 2, "v2", "v4");

        await PassedAsync(load);
        await PassedAsync(overUnix);
        byte[] whole = await download;
        Assert.Equal(length, whole.Length);
        client.Dispose();
        Assert.Empty(first.Concat(second));
        await pair.UntilAsync(s => s.Retired.IsEmpty, "the retired generations should be gone with their last connections");
        await Eventually.True(() => Chain(pair).Length == 0, Patience, () => $"nothing should be led anywhere: {string.Join('\n', Chain(pair))}");
        string[] Sockets() => [.. Directory.GetFileSystemEntries(pair.Files.Path, "*inner.sock*").Select(p => Path.GetFileName(p))];
        await Eventually.True(() => Sockets() is ["inner.sock.g00004"], Patience, () => $"only the active one's socket should be left: {string.Join(' ', Sockets())}");
    }

    [Fact(Timeout = 120_000)]
    public async Task Given_back_it_is_the_unmanaged_HAProxy_and_taken_over_again_the_pair()
    {
        const string unmanaged = "unmanaged";
        await using PairUnderTest pair = await PairUnderTest.StartAsync(
            new PairYaml { FlipsByItself = false, Drain = "{ deadline: 5m }" }, p => p.Write(Config(p, "v1", chroot: false)));
        List<KeptAlive> first = await KeptAlive.OpenAsync(pair, 4, "v1");
        NetnsProcess haproxy = pair.Nets.Server.Start("haproxy", "-D", "-f", pair.Files.Write("unmanaged.cfg", Config(pair, unmanaged, chroot: false)));
        Assert.Equal(0, await haproxy.Exit(Patience));
        GenerationStatus one = (await pair.StatusAsync()).Active!;
        foreach ((string verb, string inner) in ((string, string)[])[("release", unmanaged), ("adopt", "v1")])
        {
            Said said = await pair.FlipctlAsync(verb, PairUnderTest.Name);
            Assert.True(said.ExitCode == 0, $"{verb}: {said.Error}{said.Output}\n{pair.DaemonLog}");
            await StoppedAsync(pair, one);
            await Eventually.True(() => Chain(pair).Length == 1 && Chain(pair)[0].Contains(inner == unmanaged ? "dnat to :8443" : "dnat to :2", StringComparison.Ordinal),
                Patience, () => $"what it connects to itself for should be led to {inner}: {string.Join('\n', Chain(pair))}");
            await AskAsync(first, 2, "v1", inner);
        }
    }

    private static async Task AskAsync(List<KeptAlive> clients, int count, string outer, string inner)
    {
        for (int i = 0; i < count; i++)
        {
            using KeptAlive asked = clients[0];
            clients.RemoveAt(0);
            Answer answer = await asked.AskAsync(s_ways[i % s_ways.Length]);
            Assert.Equal((200, outer, inner), (answer.Status, answer.ServedBy, answer.Inner));
            Assert.Equal(asked.Address, answer.Client);
        }
    }

    private static string[] Chain(PairUnderTest pair) =>
        [.. pair.Nets.Server.Exec("nft", "list", "chain", "inet", "flipcontroller", "loops-edge").Split('\n').Where(l => l.Contains("dnat", StringComparison.Ordinal))];

    /// <summary>Until it listens on none of its ports.</summary>
    private static Task StoppedAsync(PairUnderTest pair, GenerationStatus retired) => Eventually.True(
        () => !pair.Nets.Server.Exec("ss", "-Hltnp").Contains($"pid={retired.Pid},", StringComparison.Ordinal),
        Patience, () => $"generation {retired.Number} should have stopped listening: {pair.Nets.Server.Exec("ss", "-Hltnp")}");

    private sealed record Answer(int Status, string? ServedBy, string? Inner, string? Client);

    /// <summary>One connection, and no other behind its back.</summary>
    private sealed class KeptAlive(Socket socket) : IDisposable
    {
        public string Address => ((System.Net.IPEndPoint)socket.LocalEndPoint!).Address.ToString();

        /// <summary>They have been served once, and are idle now.</summary>
        public static async Task<List<KeptAlive>> OpenAsync(PairUnderTest pair, int count, string label)
        {
            var opened = new List<KeptAlive>();
            for (int i = 0; i < count; i++)
            {
                var client = new KeptAlive(await pair.ConnectAsync(pair.Services[0]));
                opened.Add(client);
                Assert.Equal(new Answer(200, label, label, client.Address), await client.AskAsync(s_ways[i % s_ways.Length]));
            }
            return opened;
        }

        public async Task<Answer> AskAsync(string path)
        {
            await socket.SendAsync(Encoding.ASCII.GetBytes($"GET {path}/ HTTP/1.1\r\nHost: service\r\n\r\n"));
            var text = new StringBuilder();
            byte[] buffer = new byte[8192];
            while (Body(text.ToString()) is not { } body || text.Length < body)
            {
                int read = await socket.ReceiveAsync(buffer).WaitAsync(Patience);
                Assert.True(read > 0, $"the connection was closed instead of answered: {text}");
                text.Append(Encoding.Latin1.GetString(buffer, 0, read));
            }
            string[] lines = text.ToString().Split("\r\n");
            string? Header(string name) => lines.FirstOrDefault(l => l.StartsWith($"{name}: ", StringComparison.OrdinalIgnoreCase))?.Split(' ')[1];
            return new Answer(int.Parse(lines[0].Split(' ')[1], System.Globalization.CultureInfo.InvariantCulture), Header("X-Served-By"), Header("X-Inner"), Header("X-Client"));
        }

        /// <summary>Where the answer ends; null: its head is not there yet.</summary>
        private static int? Body(string text)
        {
            int head = text.IndexOf("\r\n\r\n", StringComparison.Ordinal);
            if (head < 0) return null;
            int at = text.IndexOf("content-length: ", StringComparison.OrdinalIgnoreCase);
            return head + 4 + int.Parse(text[(at + 16)..].Split("\r\n")[0], System.Globalization.CultureInfo.InvariantCulture);
        }

        public void Dispose() => socket.Dispose();
    }
}
