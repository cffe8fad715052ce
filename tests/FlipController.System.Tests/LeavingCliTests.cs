using System.Collections.Immutable;
using System.Text.Json;
using System.Xml;
using FlipController.Core;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.FlipctlProcess;

namespace FlipController.SystemTests;

/// <summary>What flipctl shows of generations that leave: connections, status, watch, history.</summary>
public sealed class LeavingCliTests : IDisposable
{
    private const int Limit = 60_000;

    private static readonly DateTimeOffset At = new(2026, 3, 1, 12, 0, 0, TimeSpan.Zero);

    private readonly string _directory = Directory.CreateTempSubdirectory("flipctl").FullName;

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    [Theory(Timeout = Limit)]
    [InlineData("", "sort=idle&limit=20")]
    [InlineData("--generation 6 --peer 192.0.2.0/24 --service [::]:443 --older 10m --sort bytes --limit 5",
        "generation=6&peer=192.0.2.0%2F24&service=%5B%3A%3A%5D%3A443&older=10m&sort=bytes&limit=5")]
    [InlineData("--networks", "sort=idle&limit=20&networks=24%2C64")]
    [InlineData("--networks 16,48 --sort peer", "sort=peer&limit=20&networks=16%2C48")]
    public async Task Connections_are_asked_for_as_the_contract_says(string arguments, string query)
    {
        Request? seen = null;
        using var daemon = new Responder(Socket, request =>
        {
            seen = request;
            return Reply.Json(200, Report(), WireJson.Default.ConnectionsReport);
        });
        Ran json = await AskAsync(["connections", "edge", "--json", .. arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries)]);
        Assert.Equal((0, ""), (json.ExitCode, json.Error));
        Assert.Equal(new Request("GET", $"/v1/pairs/edge/connections?{query}", ""), seen);
        Assert.Equal(2, JsonSerializer.Deserialize(json.Output, WireJson.Default.ConnectionsReport)!.Connections.Length);
    }

    [Fact(Timeout = Limit)]
    public async Task Connections_are_a_table_below_what_the_witnesses_say()
    {
        ConnectionsReport report = Report();
        using var daemon = new Responder(Socket, _ => Reply.Json(200, report, WireJson.Default.ConnectionsReport));
        Assert.Equal(new Ran(0, """
            generation 6 (blue, retired): conntrack 31, sockets 30, haproxy ?
              why: conntrack still remembers a closed peer
            30 of 42 connections match
              peer               service  haproxy     state                    age    idle       in      out
              192.0.2.7:51234    *:80     www/app/s1  established          >=2h 0m  1m 30s    512 B  1.4 MiB
              [2001:db8::1]:443  *:443    -           fin-wait-1 (orphan)        ?       ?  1.0 KiB  1.0 GiB
              ... and 28 more

            """, ""), await AskAsync("connections", "edge"));

        report = report with { Generations = [], Total = 0, Matched = 0, Connections = [] };
        Assert.Equal(new Ran(0, "edge: no generation\n0 connections\n", ""), await AskAsync("connections", "edge"));

        report = Report() with
        {
            Total = 2, Matched = 2, Connections = [Report().Connections[0], Report().Connections[1] with { Generation = 7 }],
        };
        Ran several = await AskAsync("connections", "edge");
        Assert.Contains("\n2 connections\n  gen  peer ", several.Output);
        Assert.Contains("\n  7    [2001:db8::1]:443 ", several.Output);

        report = report with { Networks = [new("192.0.2.0/24", 28, 7200, 0.5, 10, 20_000), new("2001:db8::/64", 2, null, null, 0, 0)] };
        Assert.EndsWith("""
            2 connections
              network       connections  oldest  least idle    in       out
              192.0.2.0/24           28   2h 0m        0.5s  10 B  19.5 KiB
              ... and 1 more networks

            """, (await AskAsync("connections", "edge", "--networks", "--limit", "1")).Output);
    }

    [Fact(Timeout = Limit)]
    public async Task Connections_are_looked_at_again_and_again_until_interrupted()
    {
        int asked = 0;
        using var daemon = new Responder(Socket,
            _ => Reply.Json(200, Report() with { Matched = Interlocked.Increment(ref asked) }, WireJson.Default.ConnectionsReport));
        Ran json = await EndAsync(Begin(Flipctl, ["--socket", Socket, "connections", "edge", "--watch", "100ms", "--json"], out _), until: "\"matched\":3,");
        Assert.Equal((0, ""), (json.ExitCode, json.Error));
        string[] lines = json.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal([1, 2, 3], lines.Take(3).Select(l => JsonSerializer.Deserialize(l, WireJson.Default.ConnectionsReport)!.Matched));

        asked = 0;
        Ran live = await AtTerminalAsync($"--socket {Socket} connections edge --watch 100ms", until: "3 of 42 connections");
        Assert.Equal(0, live.ExitCode);
        Assert.Contains("\u001b[7A\n\u001b[J", live.Output); // A bare \r is a line ending to the test.
        asked = 0;
        Ran plain = await EndAsync(Begin(Flipctl, ["--socket", Socket, "connections", "edge", "--watch", "100ms"], out _), until: "2 of 42 connections");
        Assert.Equal((0, ""), (plain.ExitCode, plain.Error));
        Assert.DoesNotContain('\u001b', plain.Output);
    }

    [Theory(Timeout = Limit)]
    [InlineData("--peer 192.0.2.7", """{"peer":"192.0.2.7","older":null,"service":null,"generation":null,"force":false,"reason":null}""")]
    [InlineData("--older 2h --service :443 --generation 6 --force --reason why",
        """{"peer":null,"older":"2h","service":":443","generation":6,"force":true,"reason":"why"}""")]
    public async Task Closing_is_asked_for_as_the_contract_says(string arguments, string body)
    {
        Request? seen = null;
        using var daemon = new Responder(Socket, request =>
        {
            seen = request;
            return Reply.Json(200, new CloseAnswer("edge", 3, 3), WireJson.Default.CloseAnswer);
        });
        Assert.Equal(new Ran(0, "edge: 3 connections match, 3 were closed\n", ""), await AskAsync(["close", "edge", .. arguments.Split(' ')]));
        Assert.Equal(new Request("POST", "/v1/pairs/edge/close", body), seen);
    }

    [Theory(Timeout = Limit)]
    [InlineData(0, 0, null, 0, "edge: no connection matches; nothing was closed\n", "")]
    [InlineData(1, 1, null, 0, "edge: 1 connection matches, 1 was closed\n", "")]
    [InlineData(3, 1, "2 are on the active generation", 1, "", "flipctl: edge: 3 connections match, 1 was closed; 2 are on the active generation\n")]
    public async Task What_could_not_be_closed_makes_exit_code_1(int matched, int closed, string? remark, int exitCode, string output, string error)
    {
        using var daemon = new Responder(Socket, _ => Reply.Json(200, new CloseAnswer("edge", matched, closed, remark), WireJson.Default.CloseAnswer));
        Assert.Equal(new Ran(exitCode, output, error), await AskAsync("close", "edge", "--older", "1h"));
        Ran json = await AskAsync("close", "edge", "--older", "1h", "--json");
        Assert.Equal((exitCode, ""), (json.ExitCode, json.Error));
        Assert.Equal(matched, JsonSerializer.Deserialize(json.Output, WireJson.Default.CloseAnswer)!.Matched);
    }

    [Fact(Timeout = Limit)]
    public async Task Status_shows_how_far_each_is_that_leaves_and_what_was_asked_for()
    {
        DateTimeOffset now = DateTimeOffset.Now;
        LeavingStatus warm = new("warm", now.AddMinutes(4.99), "draining", 9, 0);
        PairStatus edge = Edge() with
        {
            UndoEnds = now.AddMinutes(4.99), Previous = Generation("green", 6, 0) with { Leaving = warm },
            Retired =
            [
                Generation("blue", 5, 38_500_000) with { Leaving = new("draining", now.AddMinutes(3.99), "closing", 12, 0) },
                Generation("green", 4, 0) with
                {
                    Leaving = new("closing", null, "ending", 300, 7, new Dictionary<string, DateTimeOffset> { ["*:443"] = now.AddHours(1.99) }.ToImmutableSortedDictionary()),
                    Connections = new ConnectionCounts(3, 1, 1, ["conntrack still remembers [2] closed peers"]),
                },
                Generation("blue", 3, 0) with { Leaving = new("kept", null, null, null, 0) },
            ],
            Drain = new DrainStatus(3, Slot.Blue, [3, 5], TimeSpan.FromMinutes(10), now.AddMinutes(-2), "[maintenance]"), HeldSlot = Slot.Blue,
        };
        using var daemon = new Responder(Socket, _ => Reply.Json(200, edge, WireJson.Default.PairStatus));
        Ran text = await AskAsync("status", "edge");
        Assert.Equal((0, ""), (text.ExitCode, text.Error));
        string[] lines = [.. text.Output.Split('\n').Select(l => string.Join(' ', l.Split(' ', StringSplitOptions.RemoveEmptyEntries)))];
        Assert.Contains(lines, l => l.EndsWith("conntrack sockets haproxy memory", StringComparison.Ordinal));
        Assert.Contains(lines, l => l.StartsWith("previous green 6 ", StringComparison.Ordinal) && l.Contains(" warm, undo for another 4m ", StringComparison.Ordinal));
        Assert.Contains(lines, l => l.StartsWith("retired blue 5 ", StringComparison.Ordinal) && l.Contains(" 1 1 1 37 MiB draining, in 3m ", StringComparison.Ordinal));
        Assert.Contains(lines, l => l.Contains(" closing, next: ending; 7 closed; *:443 closes in 1h 5", StringComparison.Ordinal));
        Assert.Contains(lines, l => l.StartsWith("retired blue 3 ", StringComparison.Ordinal) && l.EndsWith(" kept", StringComparison.Ordinal));
        Assert.Contains("why generation 4: conntrack still remembers [2] closed peers", lines);
        Assert.Contains(lines, l => l.StartsWith("drain 3: blue (generations 3, 5), deadline 10m, began 2m ", StringComparison.Ordinal) && l.EndsWith("s ago ([maintenance])", StringComparison.Ordinal));
        Assert.Contains("held blue: nothing starts there and flips are refused, until `flipctl undrain edge`", lines);
    }

    [Fact(Timeout = Limit)]
    public async Task Watch_through_a_pipe_tells_of_what_leaves_only_now_and_then_but_everything_in_JSON()
    {
        PairNotice[] notices = [.. Enumerable.Range(0, 25).Select(i => Look(At.AddSeconds(i), i < 15 ? "draining" : "closing", 300 - i)), End()];
        using var daemon = new Responder(Socket, _ => Reply.Stream(notices));
        Ran text = await EndAsync(Begin(Flipctl, ["--socket", Socket, "watch"], out _), until: "generation 6 is gone");
        Assert.Equal(["300 connections", "290 connections", "285 connections", "generation 6 is gone"],
            text.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(l => l[(l.LastIndexOf("  ", StringComparison.Ordinal) + 2)..]));
        Ran json = await EndAsync(Begin(Flipctl, ["--socket", Socket, "watch", "--json"], out _), until: "generation 6 is gone");
        PairNotice[] seen = [.. json.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(l => JsonSerializer.Deserialize(l, WireJson.Default.PairNotice)!)];
        Assert.Equal(26, seen.Length);
        Assert.Equal(276, seen[24].Drain!.Connections);
    }

    [Theory(Timeout = Limit)]
    [InlineData("NO_COLOR", "1")]
    [InlineData("TERM", "dumb")]
    public async Task Watch_at_a_terminal_that_cannot_redraw_tells_lines(string name, string value)
    {
        using var daemon = new Responder(Socket, _ => Reply.Stream(Look(At, "draining", 300), Look(At.AddSeconds(1), "draining", 299), End()));
        Ran ran = await AtTerminalAsync($"--socket {Socket} watch", until: "generation 6 is gone", (name, value));
        Assert.Equal(0, ran.ExitCode);
        // But for the terminal's own opening words.
        Assert.DoesNotContain("\u001b[J", ran.Output);
        Assert.Contains("edge  steady     300 connections\n", ran.Output);
        Assert.DoesNotContain("299 connections", ran.Output); // the first line names a pid, which may be any number
    }

    [Theory(Timeout = Limit)]
    [InlineData("C.UTF-8", "300┤█")]
    [InlineData("C", "300+#")]
    public async Task Watch_at_a_terminal_draws_the_falling_curve_below_the_events(string locale, string curve)
    {
        DateTimeOffset now = DateTimeOffset.Now;
        using var daemon = new Responder(Socket, request => request.Path.Contains("/drains/", StringComparison.Ordinal)
            ? Reply.Json(404, new ErrorAnswer("usage", "no such drain"), WireJson.Default.ErrorAnswer)
            : Reply.Stream(End() with { Text = "a flip begins" }, Look(now, "draining", 300), Look(now.AddSeconds(2), "draining", 100), End() with { Text = "a flip ends" }));
        Ran ran = await AtTerminalAsync($"--socket {Socket} watch", until: "a flip ends", ("LC_ALL", locale));
        Assert.Equal(0, ran.ExitCode);
        Assert.Contains(curve, ran.Output);
        // The event takes the place of the curve, which is drawn again below it.
        string end = ran.Output[ran.Output.IndexOf("a flip ends", StringComparison.Ordinal)..];
        Assert.Contains(curve, end);
        Assert.Contains("\u001b[?7h\u001b[11A\n\u001b[J2026-03-01 ", ran.Output); // A bare \r is a line ending to the test.
    }

    [Theory(Timeout = Limit)]
    [InlineData("history edge 12")]
    [InlineData("history 12")]
    public async Task History_of_one_flip_tells_how_the_side_it_left_drained(string arguments)
    {
        using var daemon = Historian();
        Ran ran = await AskAsync(arguments.Split(' '));
        Assert.Equal((0, ""), (ran.ExitCode, ran.Error));
        Assert.StartsWith("edge: flip 12\n  started  ", ran.Output);
        Assert.Contains("\n  trigger  files\n  from     6\n  to       7\n  outcome  done\n  window   212 us (none)\n  took     812 ms\n"
            + "  reason   new certificate\n  stayed   300 connections on the old side\n"
            + "  drain    generation 6 (blue): 300 connections at first, 0 at last; 4 were closed; gone after 2m 0s\n"
            + "    +30s       retired   soft stop\n", ran.Output);
        Assert.Contains("300+", ran.Output); // No locale: ASCII.
        Ran json = await AskAsync([.. arguments.Split(' '), "--json"]);
        using JsonDocument document = JsonDocument.Parse(json.Output);
        Assert.Equal(12, document.RootElement.GetProperty("flip").GetProperty("id").GetInt32());
        Assert.Equal(3, document.RootElement.GetProperty("drain").GetProperty("samples").GetArrayLength());
    }

    [Fact(Timeout = Limit)]
    public async Task A_drain_is_drawn_into_a_file_or_to_standard_output()
    {
        using var daemon = Historian();
        Ran output = await AskAsync("history", "12", "--plot", "-");
        Assert.Equal((0, ""), (output.ExitCode, output.Error));
        new XmlDocument().LoadXml(output.Output);

        string file = Path.Combine(_directory, "drain.svg"), link = Path.Combine(_directory, "link.svg");
        await File.WriteAllTextAsync(file, "old");
        File.SetUnixFileMode(file, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead);
        File.CreateSymbolicLink(link, file);
        Ran written = await AskAsync("history", "edge", "12", "--plot", link);
        Assert.Equal((0, ""), (written.ExitCode, written.Error));
        Assert.EndsWith($"\ndrawn into {link}\n", written.Output);
        Assert.Equal(output.Output, await File.ReadAllTextAsync(file));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead, File.GetUnixFileMode(file));
        Assert.NotNull(new FileInfo(link).LinkTarget);
        Assert.Equal(3, Directory.GetFileSystemEntries(_directory).Length); // The socket, the file, the link.
    }

    [Fact(Timeout = Limit)]
    public async Task What_cannot_be_drawn_or_written_says_why_and_leaves_everything()
    {
        using var daemon = Historian();
        await RunAsync("mkfifo", [Path.Combine(_directory, "pipe")]);
        foreach (string place in (string[])["/dev/null", _directory, Path.Combine(_directory, "pipe")])
            Assert.Equal(new Ran(1, "", $"flipctl: cannot write {place}: it is there and no regular file; nothing was written; name another\n"),
                await AskAsync("history", "edge", "12", "--plot", place));
        Ran nowhere = await AskAsync("history", "edge", "12", "--plot", Path.Combine(_directory, "no", "where.svg"), "--json");
        Assert.Equal((1, ""), (nowhere.ExitCode, nowhere.Output));
        Assert.EndsWith("; nothing was written", JsonSerializer.Deserialize(nowhere.Error, WireJson.Default.ErrorAnswer)!.Error);
        Assert.Equal(new Ran(1, "", "flipctl: history: no drain that followed flip 11 of pair edge is kept, so there is nothing to draw; x.svg was not written\n"),
            await AskAsync("history", "edge", "11", "--plot", "x.svg"));
        Assert.Equal(new Ran(2, "", "flipctl: history: pair edge has no flip 99 in its history, which has 11 to 12\n"), await AskAsync("history", "edge", "99"));
        Assert.Contains("  drain    none that is kept followed it\n", (await AskAsync("history", "edge", "11")).Output);
    }

    [Fact(Timeout = Limit)]
    public async Task A_number_alone_is_a_flip_only_where_it_is_clear_of_which_pair()
    {
        StatusReport status = new([Edge(), Edge() with { Name = "echo" }]);
        using var daemon = new Responder(Socket, request => request.Path == "/v1/status" ? Reply.Json(200, status, WireJson.Default.StatusReport)
            : Reply.Json(200, new HistoryReport("12", []), WireJson.Default.HistoryReport));
        Assert.Equal(new Ran(2, "", "flipctl: history: which pair's flip 12 is meant is not clear: there are 2 pairs (edge, echo); say `flipctl history PAIR 12`\n"),
            await AskAsync("history", "12"));
        status = new([Edge(), Edge() with { Name = "12" }]);
        Assert.Equal(new Ran(0, "12  no flip yet\n", ""), await AskAsync("history", "12"));
        Ran plot = await AskAsync("history", "12", "--plot", "x.svg");
        Assert.Equal((2, ""), (plot.ExitCode, plot.Output));
        Assert.StartsWith("flipctl: history: --plot x.svg draws how the side that a flip left drained: that flip's ID is missing", plot.Error);
    }

    [Theory(Timeout = Limit)]
    [InlineData("flipctl drain edge ", "blue green 3 6 7")]
    [InlineData("flipctl drain edge b", "blue")]
    [InlineData("flipctl connections edge --sort ", "age bytes idle peer")]
    [InlineData("flipctl connections edge --generation ", "3 6 7")]
    [InlineData("flipctl close edge --generation ", "3 6 7")]
    [InlineData("flipctl undr", "undrain")]
    [InlineData("flipctl undrain ", "edge")]
    public async Task A_shell_is_offered_what_may_come_next(string line, string words)
    {
        PairStatus edge = Edge() with { Previous = Generation("green", 6, 0), Retired = [Generation("blue", 3, 0)] };
        using var daemon = new Responder(Socket, request => request.Path == "/v1/status"
            ? Reply.Json(200, new StatusReport([edge]), WireJson.Default.StatusReport) : Reply.Json(200, edge, WireJson.Default.PairStatus));
        string[] offered = [];
        // A shell is not kept waiting: on a busy machine a Tab may have nothing to offer, and the next one has.
        await Eventually.True(async () =>
        {
            Ran ran = await RunAsync(Flipctl, [$"[suggest:{line.Length}]", line], ("FLIPCONTROLLER_SOCKET", Socket));
            offered = [.. ran.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Where(w => !w.StartsWith('-')).Order()];
            return offered.SequenceEqual(words.Split(' ').Order());
        }, TimeSpan.FromSeconds(30), () => $"offered are {string.Join(' ', offered)}");
    }

    private string Socket => Path.Combine(_directory, "c.sock");

    private Task<Ran> AskAsync(params string[] arguments) => FlipctlAsync(["--socket", Socket, .. arguments]);

    private Responder Historian()
    {
        var flip = new FlipRecord(12, "files", 6, 7, "done", At, 812, new HoldReport("none", 212, 0, 0), "new certificate", null, 300);
        var curve = new DrainCurve("edge", 6, "blue", 12, At, At.AddMinutes(2), 4, [new(0, 300), new(60, 20), new(120, 0)], [new(30, "retired", "soft stop"), new(120, "ended", "gone")]);
        return new Responder(Socket, request => request.Path switch
        {
            "/v1/status" => Reply.Json(200, new StatusReport([Edge()]), WireJson.Default.StatusReport),
            "/v1/pairs/edge/history" => Reply.Json(200, new HistoryReport("edge", [flip with { Id = 11 }, flip]), WireJson.Default.HistoryReport),
            "/v1/pairs/edge/drains" => Reply.Json(200, new DrainsReport("edge", [curve with { Generation = 2, Flip = 3 }, curve with { Samples = [] }]), WireJson.Default.DrainsReport),
            "/v1/pairs/edge/drains/6" => Reply.Json(200, curve, WireJson.Default.DrainCurve),
            _ => Reply.Json(404, new ErrorAnswer("usage", $"no {request.Path}"), WireJson.Default.ErrorAnswer),
        });
    }

    private static ConnectionsReport Report() => new("edge", At,
        [new(6, "blue", "retired", new ConnectionCounts(31, 30, null, ["conntrack still remembers a closed peer"]))], 42, 30,
        [
            new(6, "retired", "192.0.2.7:51234", "*:80", "www", "app", "s1", "established", 7200, true, 90.4, 512, 1_500_000),
            new(6, "retired", "[2001:db8::1]:443", "*:443", null, null, null, "fin-wait-1", null, false, null, 1024, 1L << 30, true),
        ]);

    private static PairNotice Look(DateTimeOffset at, string step, int connections) => new(at, "edge", "drain", "steady", $"{connections} connections", null,
        new DrainLook(6, "blue", connections, new LeavingStatus(step, at.AddMinutes(1), "closing", 300, 0)));

    private static PairNotice End() => new(At.AddSeconds(30), "edge", "drained", "steady", "generation 6 is gone");

    private static PairStatus Edge() => new("edge", "steady", Generation("blue", 7, 0), null, null, [], false,
        new RedirectStatus("nftables", 7), new HoldStatus("auto", "none", "one transaction"), null, null, null, []);

    private static GenerationStatus Generation(string slot, int number, long memory) => new(slot, number, 4242, "0123456789abcdef", At,
        new Dictionary<string, int> { ["*:80"] = 21000 }.ToImmutableSortedDictionary(), new ConnectionCounts(1, 1, 1), "2.6.12", null, memory == 0 ? null : memory);
}
