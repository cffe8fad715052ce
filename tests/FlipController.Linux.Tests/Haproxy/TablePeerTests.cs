using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy;

/// <summary>Real HAProxys that share their tables, in a namespace of their own.</summary>
public sealed partial class TablePeerTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(15);

    /// <summary>As a distribution starts it: in a chroot, without privileges. No warning is let pass.</summary>
    private static string Config(TempDir files, string table = "type ip size 1k expire 1h store gpc0,conn_cnt,http_req_rate(1m)") => $"""
        global
          zero-warning
          chroot {files["jail"]}
          user nobody
          log stdout format raw local0
        defaults
          mode http
          log global
          timeout client 30s
          timeout server 30s
          timeout connect 1s
        frontend web
          bind 127.0.0.1:80
          stick-table {table} # of clients
          http-request track-sc0 src
          http-request sc-inc-gpc0(0)
          http-request return status 200 content-type text/plain string hello

        """;

    private sealed class Generation(Netns net, TempDir files, int number)
    {
        private RenderedConfiguration _copy = null!;
        private NetnsProcess _process = null!;

        public AdminSocket Admin => new(files[$"g{number}.sock"]);

        public int Seat { get; private set; }

        public NetnsProcess Process => _process;

        public async Task<Generation> StartAsync(string text)
        {
            TablePeer peer = net.Run(() => TablePeer.Free("edge", "00ff00ff00ff00ff", number));
            Seat = peer.Seat;
            var place = new SlotPlace(
                files[$"g{number}"], files[$"g{number}.sock"], new PortBlock(21000 + 10 * number, 10), new HashSet<int>(), "lb1", peer);
            _copy = Projection.Render([new("/etc/haproxy/haproxy.cfg", Encoding.UTF8.GetBytes(text))], place).Configuration!;
            Assert.Empty(_copy.Notes);
            Directory.CreateDirectory(files["jail"]);
            Directory.CreateDirectory(place.Directory);
            foreach (RenderedFile file in _copy.Files) await File.WriteAllBytesAsync(file.Path, file.Content);
            HaproxyCheck check = await HaproxyBinary.CheckAsync("haproxy", _copy.Files.Select(f => f.Path), _copy.LocalPeer, files.Path);
            Assert.True(check is { Verdict: HaproxyVerdict.Valid, Warnings: [] }, check.Output);
            _process = net.Start("haproxy", ["-db", .. _copy.LocalPeerOption, .. _copy.Files.SelectMany(f => new[] { "-f", f.Path })]);
            await Eventually.True(Answers, Patience, () => _process.Errors);
            return this;
        }

        private async Task<bool> Answers()
        {
            try
            {
                return (await Admin.ShowInfoAsync()).Pid > 0;
            }
            catch (FlipException) when (!_process.HasExited)
            {
                return false;
            }
        }

        public async Task<PeersState> PeersAsync() => Assert.Single(await Admin.PeersAsync());

        /// <returns>How long its first lesson took, milliseconds.</returns>
        public async Task<long> TaughtAsync()
        {
            var clock = Stopwatch.StartNew();
            await Eventually.True(async () => (await PeersAsync()).ResyncFinished, Patience, () => "no lesson ended");
            return clock.ElapsedMilliseconds;
        }

        public async Task RequestAsync()
        {
            using Socket socket = net.Run(() => new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp));
            await socket.ConnectAsync(IPAddress.Loopback, _copy.Services[0].PrivatePort);
            await socket.SendAsync("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"u8.ToArray());
            using var reader = new StreamReader(new NetworkStream(socket));
            Assert.StartsWith("HTTP/1.1 200", await reader.ReadToEndAsync(), StringComparison.Ordinal);
        }

        /// <summary>What its table says of 127.0.0.1.</summary>
        public string Entry() => Regex.Match(Said("show table web"), @"(?<=key=127.0.0.1 ).*").Value;

        public string Said(string command)
        {
            using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            socket.Connect(new UnixDomainSocketEndPoint(files[$"g{number}.sock"]));
            socket.Send(Encoding.ASCII.GetBytes(command + "\n"));
            using var reader = new StreamReader(new NetworkStream(socket));
            return reader.ReadToEnd();
        }

        public async Task HasAsync(string what) => await Eventually.True(() => Entry().Contains(what, StringComparison.Ordinal), Patience, Entry);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_new_generation_is_taught_at_once_and_both_stay_in_step()
    {
        Require.Netns();
        Require.Program("haproxy");
        using Netns net = Netns.Create();
        using var files = new TempDir();
        Generation first = await new Generation(net, files, 7).StartAsync(Config(files));
        await first.TaughtAsync(); // By nobody: 5 s.
        for (int i = 0; i < 20; i++) await first.RequestAsync();

        Generation second = await new Generation(net, files, 8).StartAsync(Config(files));
        long lesson = await second.TaughtAsync();
        TestContext.Current.TestOutputHelper?.WriteLine($"FIGURE taught after {lesson} ms");
        Assert.InRange(lesson, 0, 1000);
        await second.HasAsync("gpc0=20 conn_cnt=20 http_req_rate(60000)=20");
        Assert.Equal((7, 0), (first.Seat, second.Seat));

        await second.RequestAsync();
        await first.HasAsync("gpc0=21 ");
        await first.RequestAsync();
        await second.HasAsync("gpc0=22 ");

        // The third while both are warm; then the first leaves, with 8 after its number, and its seat is free again.
        Generation third = await new Generation(net, files, 16).StartAsync(Config(files));
        Assert.Equal(1, third.Seat);
        await third.TaughtAsync();
        await third.HasAsync("gpc0=22 ");
        string said = first.Process.Output + first.Process.Errors; // After 5 s, when it has tried the others again.
        first.Process.Signal(10); // SIGUSR1
        Assert.Equal(0, await first.Process.Exit(Patience));
        Generation fourth = await new Generation(net, files, 15).StartAsync(Config(files));
        Assert.Equal(7, fourth.Seat);
        Assert.InRange(await fourth.TaughtAsync(), 0, 1000);
        await fourth.RequestAsync();
        await second.HasAsync("gpc0=23 ");
        await third.HasAsync("gpc0=23 ");
        // Seats where nobody is are not talked of.
        said += string.Concat(new[] { second, third, fourth }.Select(g => g.Process.Output + g.Process.Errors));
        Assert.All(said.Split('\n', StringSplitOptions.RemoveEmptyEntries), l => Assert.Contains("(web/HTTP)", l, StringComparison.Ordinal));
        Assert.Equal(["edge-0-00ff00ff00ff00ff", "edge-1-00ff00ff00ff00ff"],
            (await fourth.PeersAsync()).Peers.Where(p => p.Connected && !p.Local).Select(p => p.Name).Order());
    }

    [Fact(Timeout = 60_000)]
    public async Task A_generation_that_is_seconds_old_teaches_in_part_what_is_all()
    {
        Require.Netns();
        Require.Program("haproxy");
        using Netns net = Netns.Create();
        using var files = new TempDir();
        Generation first = await new Generation(net, files, 1).StartAsync(Config(files));
        for (int i = 0; i < 3; i++) await first.RequestAsync();
        Generation second = await new Generation(net, files, 2).StartAsync(Config(files));
        await Eventually.True(async () => (await second.PeersAsync()).TaughtInPart, Patience, () => second.Said("show peers"));
        Assert.Contains("gpc0=3 ", second.Entry(), StringComparison.Ordinal);
        Assert.False((await first.PeersAsync()).ResyncFinished);
        await second.TaughtAsync();
    }

    [Theory(Timeout = 60_000)]
    [InlineData("type ip size 2k expire 2h store http_req_rate(10s),gpt0,gpc0", "gpt0=0 gpc0=3 http_req_rate(10000)=3")]
    [InlineData("type string len 40 size 1k store gpc0", "")]
    public async Task A_table_that_is_defined_anew_takes_what_fits(string table, string entry)
    {
        Require.Netns();
        Require.Program("haproxy");
        using Netns net = Netns.Create();
        using var files = new TempDir();
        Generation first = await new Generation(net, files, 1).StartAsync(Config(files));
        await first.TaughtAsync();
        for (int i = 0; i < 3; i++) await first.RequestAsync();
        Generation second = await new Generation(net, files, 2).StartAsync(Config(files, table));
        Assert.InRange(await second.TaughtAsync(), 0, 1000);
        Assert.EndsWith(entry, second.Entry(), StringComparison.Ordinal);
    }

    [Fact(Timeout = 30_000)]
    public async Task Who_does_not_know_the_names_is_told_nothing()
    {
        Require.Netns();
        Require.Program("haproxy");
        using Netns net = Netns.Create();
        using var files = new TempDir();
        Generation only = await new Generation(net, files, 1).StartAsync(Config(files));
        string name = net.Run(() => File.ReadLines("/proc/thread-self/net/unix").Select(l => AbstractName().Match(l)).First(m => m.Success).Value);
        Assert.DoesNotContain("00ff00ff", name, StringComparison.Ordinal);
        foreach (string hello in new[] { "edge-1\nedge-2", "lb1\nedge-2-00ff00ff00ff00ff", "edge-1-00ff00ff00ff00ff\nedge-2" })
        {
            using Socket socket = net.Run(() =>
            {
                var s = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                s.Connect(new UnixDomainSocketEndPoint($"\0{name}".PadRight(108, '\0')));
                return s;
            });
            socket.Send(Encoding.ASCII.GetBytes($"HAProxyS 2.1\n{hello} 1 1\n"));
            using var reader = new StreamReader(new NetworkStream(socket));
            // Not 200: 503 is a wrong host, 504 an unknown peer (src/peers.c, PEER_SESS_SC_ERRHOST, _ERRPEER).
            Assert.Matches("^50[34]\n$", await reader.ReadToEndAsync());
        }
        Assert.Equal("", only.Process.Errors);
    }

    [GeneratedRegex("(?<=@)flipcontroller-edge-[0-9a-f]+-1")]
    private static partial Regex AbstractName();
}
