using System.Diagnostics;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>Clients of a unix socket's path: a flip replaces the link they follow, and none is refused, reset or cut.</summary>
[Collection(Alone)]
public sealed class UnixFrontTests
{
    private const string Unmanaged = "unmanaged";

    private static string PathOf(PairUnderTest pair) => pair.Files["app.sock"];

    private static string Both(PairUnderTest pair, string label) => Config(label, $"bind {PathOf(pair)} mode 666");

    private static string PathOnly(PairUnderTest pair, string label) =>
        Both(pair, label).Replace("  bind :80\n", "", StringComparison.Ordinal).Replace("  bind :::80 v6only\n", "", StringComparison.Ordinal);

    private static async Task<PairUnderTest> StartAsync(PairYaml? yaml = null, Func<PairUnderTest, string, string>? config = null, bool onlyPaths = false) =>
        await PairUnderTest.StartAsync((yaml ?? new PairYaml()) with { OnlyPaths = onlyPaths }, p => p.Write((config ?? Both)(p, "v1")));

    /// <summary>Of a client in HAProxy's own network namespace, as those of one host are; the others here are in another.</summary>
    private static async Task<HeldConnection> HoldAsync(PairUnderTest pair)
    {
        Socket socket = pair.Nets.Server.Run(() => new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified));
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(PathOf(pair)));
        return await HeldConnection.OpenAsync(socket);
    }

    private static string Target(PairUnderTest pair) => new FileInfo(PathOf(pair)).LinkTarget ?? "no link";

    [Theory(Timeout = 240_000)]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Twenty_flips_and_kills_of_the_daemon_along_them_lose_no_connection(bool tcpToo)
    {
        Func<PairUnderTest, string, string> config = tcpToo ? Both : PathOnly;
        await using PairUnderTest pair = await StartAsync(new PairYaml { Drain = "{ deadline: 10m, max_retired: 64 }" }, config, onlyPaths: !tcpToo);
        await using PathClients clients = await PathClients.StartAsync(PathOf(pair));
        await using LoadRun? load = tcpToo ? await StartedAsync(pair.Load(200)) : null;
        List<HeldConnection> held = [];
        for (int i = 2; i <= 21; i++)
        {
            held.Add(await HoldAsync(pair));
            await FlipByEditAsync(pair, config(pair, $"v{i}"));
            Assert.Equal($"v{i}", await PathClients.AskAsync(PathOf(pair)));
            if (i % 4 == 0) await KillAlongAsync(pair, config(pair, $"v{i}.again"), clients, 40 * i);
            foreach (HeldConnection connection in held) await connection.StaysAsync();
        }
        Assert.Equal(20, held.Select(h => h.ServedBy).Distinct().Count());
        PairStatus status = await pair.UntilAsync(s => s is { State: "steady", Previous: null }, "the pair should rest");
        Assert.Equal([new FrontStatus(PathOf(pair), $"{PathOf(pair)}.g{status.Active!.Number:00000}", status.Active.Number)], status.Fronts!.Value);
        Assert.Equal(20, status.Retired.Count(r => r.Connections.Unix > 0));
        await clients.PassedAsync();
        if (load is not null) await PassedAsync(load);
        foreach (HeldConnection connection in held) connection.Dispose();
        await pair.UntilAsync(s => s.Retired.IsEmpty, "every old generation should drain");
        await Eventually.True(() => Directory.GetFileSystemEntries(pair.Files.Path, "*app.sock*").Length == 2, Patience,
            () => $"left beside the path: {string.Join(", ", Directory.GetFileSystemEntries(pair.Files.Path, "*app.sock*"))}");
        pair.NothingIsHeld();
    }

    private static async Task FlipByEditAsync(PairUnderTest pair, string text)
    {
        int before = (await pair.StatusAsync()).Active!.Number;
        pair.Write(text);
        await pair.UntilAsync(s => s.Active?.Number > before && s.LastFlip?.Outcome == "done", "NEW connections should go to the configuration written");
    }

    /// <summary>The daemon is killed so many connections after the files changed, and the next one comes to the same end.</summary>
    private static async Task KillAlongAsync(PairUnderTest pair, string text, PathClients clients, long connections)
    {
        int before = (await pair.StatusAsync()).Active!.Number;
        pair.Write(text);
        await clients.GoOnAsync(connections);
        await pair.RestartDaemonAsync(Kill);
        await pair.UntilAsync(s => s.Active?.Number > before && s.State is "steady" or "watching", "the flip should be done by the next daemon");
    }

    [Fact(Timeout = 120_000)]
    public async Task A_rollback_leads_the_path_back_and_a_restart_keeps_where_it_leads()
    {
        await using PairUnderTest pair = await StartAsync(new PairYaml { FlipsByItself = false, Watch = "{ undo: 10m }" });
        await using PathClients clients = await PathClients.StartAsync(PathOf(pair));
        pair.Write(Both(pair, "v2"));
        await pair.FlipAsync();
        Assert.Equal(("v2", "app.sock.g00002"), (await PathClients.AskAsync(PathOf(pair)), Target(pair)));
        HeldConnection held = await HoldAsync(pair);
        await pair.RestartDaemonAsync(Kill);
        Assert.Equal("app.sock.g00002", Target(pair));
        await pair.RollbackAsync();
        Assert.Equal(("v1", "app.sock.g00001"), (await PathClients.AskAsync(PathOf(pair)), Target(pair)));
        await held.StaysAsync();
        await pair.UntilAsync(s => s.State == "steady", "the pair should rest");
        await held.StaysAsync();
        held.Dispose();
        await pair.UntilAsync(s => s.Retired.IsEmpty, "what was left should drain");
        await clients.PassedAsync();
    }

    [Fact(Timeout = 120_000)]
    public async Task A_path_goes_to_the_pair_that_adopts_and_back_while_what_is_open_stays()
    {
        await using PairUnderTest pair = await BesideAsync();
        await using PathClients clients = await PathClients.StartAsync(PathOf(pair));
        await using LoadRun load = await StartedAsync(pair.Load(200));
        List<HeldConnection> held = [];
        for (int i = 0; i < 5; i++)
        {
            held.Add(await HoldAsync(pair));
            Assert.Equal(Unmanaged, held[^1].ServedBy);
            await AdoptionTests.DoneAsync(pair, "adopt");
            Assert.Equal("v1", await PathClients.AskAsync(PathOf(pair)));
            Assert.True((await pair.StatusAsync()).Unmanaged!.Listens);
            held.Add(await HoldAsync(pair));
            Assert.Equal("v1", held[^1].ServedBy);
            if (i % 2 == 0) await pair.RestartDaemonAsync(Kill);
            await AdoptionTests.DoneAsync(pair, "release");
            Assert.Equal((Unmanaged, "no link"), (await PathClients.AskAsync(PathOf(pair)), Target(pair)));
            foreach (HeldConnection connection in held) await connection.StaysAsync();
        }
        await clients.PassedAsync();
        await PassedAsync(load);
    }

    [Fact(Timeout = 120_000)]
    public async Task An_adopted_HAProxy_that_was_told_to_stop_leaves_the_link_alone_and_the_path_does_not_go_back_to_it()
    {
        await using PairUnderTest pair = await BesideAsync();
        await using PathClients clients = await PathClients.StartAsync(PathOf(pair));
        HeldConnection held = await HoldAsync(pair);
        await AdoptionTests.DoneAsync(pair, "adopt", "--stop");
        string link = Target(pair);
        Assert.StartsWith("app.sock.g", link, StringComparison.Ordinal);
        await held.StaysAsync();
        Said refused = await pair.FlipctlAsync("release", PairUnderTest.Name);
        Assert.Equal(1, refused.ExitCode);
        Assert.Contains("does not listen at", refused.Error, StringComparison.Ordinal);
        held.Dispose();
        await Eventually.True(() => pair.HaproxyPids().Length == 1, Patience, "the adopted one should end");
        Assert.Equal((link, "v1"), (Target(pair), await PathClients.AskAsync(PathOf(pair))));
        await clients.PassedAsync();
    }

    [Fact(Timeout = 120_000)]
    public async Task When_the_active_one_dies_the_path_leads_to_its_successor_and_a_removed_link_comes_back()
    {
        await using PairUnderTest pair = await StartAsync();
        PairStatus before = await pair.StatusAsync();
        using (var process = Process.GetProcessById(before.Active!.Pid)) process.Kill();
        await pair.UntilAsync(s => s is { State: "steady", Standby: null } && s.Active?.Number > before.Active.Number, "another one should serve");
        Assert.Equal("v1", await PathClients.AskAsync(PathOf(pair)));
        File.Delete(PathOf(pair));
        await Eventually.True(() => File.Exists(PathOf(pair)), Patience, "the link should be put back");
        Assert.Equal("v1", await PathClients.AskAsync(PathOf(pair)));
        File.Delete(PathOf(pair));
        using var other = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        other.Bind(new UnixDomainSocketEndPoint(PathOf(pair)));
        other.Listen();
        PairStatus told = await pair.UntilAsync(s => s.Fault is not null, "a stranger should be told");
        Assert.Contains($"the front path {PathOf(pair)} is in use: ", told.Fault, StringComparison.Ordinal);
        other.Dispose();
        await pair.UntilAsync(s => s.Fault is null, "the path is the pair's once nobody listens there");
        Assert.Equal("v1", await PathClients.AskAsync(PathOf(pair)));
    }

    [Theory(Timeout = 60_000)]
    [InlineData("file", "is a file that is no socket, which is not replaced; remove it, or bind another path")]
    [InlineData("link", "is a link to /etc/passwd that FlipController has not made")]
    [InlineData("socket", "is in use: ")]
    [InlineData("directory", "which is no directory here; make it")]
    public async Task What_is_not_ours_at_the_path_refuses_the_flip_and_nothing_is_lost(string what, string why)
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        string path = what == "directory" ? pair.Files["not/there.sock"] : PathOf(pair);
        using var other = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        if (what == "file") File.WriteAllText(path, "mine");
        if (what == "link") File.CreateSymbolicLink(path, "/etc/passwd");
        if (what == "socket")
        {
            other.Bind(new UnixDomainSocketEndPoint(path));
            other.Listen();
        }
        pair.Write(Config("v2", $"bind {path}"));
        PairStatus status = await pair.UntilAsync(s => s.LastFlip?.Outcome == "failed", "the flip should be refused");
        Assert.Contains($"the front path {path} ", status.Fault, StringComparison.Ordinal);
        Assert.Contains(why, status.Fault, StringComparison.Ordinal);
        Assert.Equal("v1", await pair.ServedByAsync());
        if (what == "file") Assert.Equal("mine", File.ReadAllText(path));
        if (what == "link") Assert.Equal("/etc/passwd", new FileInfo(path).LinkTarget);
        if (what == "socket") PathClients.Connect(path).Dispose();
    }

    [Fact(Timeout = 60_000)]
    public async Task A_dropped_path_needs_consent_and_is_gone_once_its_generation_stops()
    {
        await using PairUnderTest pair = await StartAsync(new PairYaml { FlipsByItself = false });
        pair.Write(Config("v2"));
        Said said = await pair.FlipctlAsync("flip", PairUnderTest.Name);
        Assert.Contains($"no longer serves {PathOf(pair)}, whose clients would be refused", said.Error, StringComparison.Ordinal);
        Assert.Equal(0, (await pair.FlipctlAsync("flip", PairUnderTest.Name, "--allow-drop")).ExitCode);
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "the old generation should go");
        Assert.Empty(Directory.GetFileSystemEntries(pair.Files.Path, "*app.sock*"));
    }

    [Fact(Timeout = 60_000)]
    public async Task At_its_deadline_a_generation_that_only_a_path_led_to_is_closed_and_until_then_told_with_its_clients()
    {
        await using PairUnderTest pair = await StartAsync(new PairYaml { FlipsByItself = false, Watch = "{ undo: 10m }" }, PathOnly, onlyPaths: true);
        HeldConnection held = await HoldAsync(pair);
        Assert.Equal(1, (await pair.StatusAsync()).Active!.Connections.Unix);
        pair.Write(PathOnly(pair, "v2"));
        FlipRecord flip = await pair.FlipAsync();
        Assert.Equal((1, "none"), (flip.OldSideConnections, flip.Hold!.Method));
        await held.StaysAsync();
        PairStatus warm = await pair.StatusAsync();
        Assert.Equal((1, 1), (warm.Previous!.Connections.Unix, warm.Previous.Connections.Haproxy));
        Said status = await pair.FlipctlAsync("status", PairUnderTest.Name);
        Assert.Contains($"{PathOf(pair)} -> app.sock.g00002", status.Output.Replace("\n", "", StringComparison.Ordinal), StringComparison.Ordinal);
        await pair.DrainAsync(new DrainRequest(Deadline: "100ms"));
        await held.ClosedAsync();
        Assert.Equal("v2", await PathClients.AskAsync(PathOf(pair)));
        held.Dispose();
    }

    [Fact(Timeout = 60_000)]
    public async Task A_HAProxy_that_takes_the_path_of_the_pair_is_told_and_gets_what_it_took_until_it_ends()
    {
        await using PairUnderTest pair = await StartAsync();
        NetnsProcess haproxy = pair.Nets.Server.Start("haproxy", "-D", "-p", pair.Files["other.pid"], "-f", pair.Files.Write("other.cfg", PathOnly(pair, Unmanaged)));
        Assert.Equal(0, await haproxy.Exit(Patience));
        PairStatus told = await pair.UntilAsync(s => s.Fault is not null, "a stranger should be told");
        Assert.Contains("is in use: haproxy (process ", told.Fault, StringComparison.Ordinal);
        Assert.Equal((Unmanaged, "v1"), (await PathClients.AskAsync(PathOf(pair)), await pair.ServedByAsync()));
        using (var process = Process.GetProcessById(int.Parse(File.ReadAllText(pair.Files["other.pid"]), System.Globalization.CultureInfo.InvariantCulture))) process.Kill();
        await pair.UntilAsync(s => s.Fault is null, "the path is the pair's again");
        Assert.Equal("v1", await PathClients.AskAsync(PathOf(pair)));
    }

    /// <summary>A HAProxy that nobody manages has the path and port 80.</summary>
    private static async Task<PairUnderTest> BesideAsync()
    {
        PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { FlipsByItself = false, Drain = "{ deadline: 10m, max_retired: 64 }" }, p =>
        {
            p.Write(Both(p, "v1"));
            NetnsProcess haproxy = p.Nets.Server.Start("haproxy", "-D", "-f", p.Files.Write("unmanaged.cfg", Both(p, Unmanaged)));
            Assert.Equal(0, haproxy.Exit(Patience).GetAwaiter().GetResult());
        }, s => s.Fault is not null);
        Assert.Contains("is in use: haproxy (process ", (await pair.StatusAsync()).Fault, StringComparison.Ordinal);
        return pair;
    }
}
