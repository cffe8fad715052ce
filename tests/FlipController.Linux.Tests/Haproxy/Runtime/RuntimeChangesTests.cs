using System.Collections.Immutable;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using FlipController.Linux.Haproxy.Runtime;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy.Runtime;

/// <summary>Two real HAProxies, one in the place of the active generation and one in the standby's.</summary>
public sealed class RuntimeChangesTests : IDisposable
{
    private static readonly HashSet<string> s_nothing = [];
    private static readonly Comparer<KeyValuePair<string, string>> s_byName =
        Comparer<KeyValuePair<string, string>>.Create((one, other) => string.CompareOrdinal(one.Key, other.Key));
    private readonly TemporaryDirectory _files = new();
    private readonly List<RunningHaproxy> _running = [];

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    public void Dispose()
    {
        foreach (RunningHaproxy haproxy in _running) haproxy.Dispose();
        _files.Dispose();
    }

    private async Task<(RunningHaproxy Haproxy, RuntimeState Baseline)> StartedAsync(string text)
    {
        RunningHaproxy haproxy = await RunningHaproxy.StartAsync(text.Replace("127.0.0.1:0", $"127.0.0.1:{RunningHaproxy.FreePort()}", StringComparison.Ordinal));
        _running.Add(haproxy);
        return (haproxy, (await RuntimeReading.ReadAsync(haproxy.Admin, Stop)).AsConfigured());
    }

    private static async Task SayAsync(RunningHaproxy haproxy, params string[] commands)
    {
        foreach (string command in commands)
        {
            string said = (await haproxy.Admin.CommandAsync(command, Stop)).Trim();
            Assert.True(said.Length == 0 || said.Contains("changed") || said.Contains("updated") || said.Contains("deleted")
                || said.Contains("registered") || said.Contains("ransaction") || said.Contains("Success"), $"{command}: {said}");
        }
    }

    private static async Task<string[]> ChangesAsync(RunningHaproxy haproxy, RuntimeState baseline) =>
        [.. RuntimeChanges.Between(baseline, await RuntimeReading.ReadAsync(haproxy.Admin, Stop)).Select(c => c.Sentence)];

    /// <summary>Carries once more; the sentences, those of what is lost with their reasons.</summary>
    private static async Task<string[]> CarryAsync(
        RunningHaproxy active, RuntimeState before, RunningHaproxy standby, RuntimeState file, HashSet<string>? made = null, bool late = true)
    {
        var changes = new RuntimeChanges(before, await RuntimeReading.ReadAsync(active.Admin, Stop), file,
            await RuntimeReading.ReadAsync(standby.Admin, Stop), late, made ?? s_nothing);
        ImmutableArray<RuntimeChange> found = changes.All();
        ImmutableArray<RuntimeChange> carried = await RuntimeCarry.MakeAsync(standby.Admin, changes.Undone, found, Stop);
        if (made is not null)
        {
            made.Clear();
            made.UnionWith(changes.Made);
        }
        return [.. carried.Select(c => c.Sentence)];
    }

    private const string Backends = """
        frontend g
          bind 127.0.0.1:0
          maxconn 100
        backend app
          server one 127.0.0.1:1 weight 10 check inter 60s
          server two 127.0.0.1:2 check inter 60s agent-check agent-port 9 agent-inter 60s
          server three 127.0.0.1:3 disabled
          server four 127.0.0.1:4
          server five 127.0.0.1:5 maxconn 50
          server zero 127.0.0.1:6 weight 0
          server six 127.0.0.1:7 ssl verify none check inter 60s port 70 agent-check agent-port 9 agent-inter 60s

        """;

    [Fact(Timeout = 30_000)]
    public async Task What_an_operator_says_on_the_socket_is_found_and_nothing_else()
    {
        var (haproxy, baseline) = await StartedAsync(Backends);
        // "one" and "two" go DOWN by themselves.
        await Eventually.True(async () => (await haproxy.Admin.ServersAsync(Stop)).Count(s => s.HasCheck && !s.IsUp) >= 1, TimeSpan.FromSeconds(10), () => "a check should fail");
        Assert.Empty(await ChangesAsync(haproxy, baseline));

        await SayAsync(haproxy, "set server app/one state maint", "set server app/one weight 50%", "disable health app/one",
            "disable agent app/two", "set server app/three state ready", "set server app/four state drain", "set server app/four addr 127.0.0.9 port 99",
            "set maxconn server app/five 77", "set maxconn frontend g 55", "disable frontend g", "set maxconn global 500",
            "set rate-limit sessions global 99");
        Assert.Equal(
        [
            "frontend g takes at most 55 connections instead of 100 connections (maxconn)",
            "frontend g is disabled",
            "process takes at most 500 connections instead of " + baseline.Find("process", "Maxconn") + " connections (maxconn)",
            "process has a rate limit of 99 instead of 0 (sessions)",
            "server app/five takes at most 77 connections instead of 50 connections (maxconn)",
            "server app/four has address 127.0.0.9 instead of 127.0.0.1",
            "server app/four has port 99 instead of 4",
            "server app/four drains",
            "server app/one has its health checks disabled",
            "server app/one is in maintenance",
            "server app/one has weight 5 instead of 10",
            "server app/three is ready, out of maintenance",
            "server app/two has its agent check disabled",
        ], await ChangesAsync(haproxy, baseline));
    }

    [Fact(Timeout = 30_000)]
    public async Task A_carry_makes_the_standby_the_same_and_a_second_one_does_nothing()
    {
        var (active, before) = await StartedAsync(Backends);
        var (standby, file) = await StartedAsync(Backends);
        await SayAsync(active, "set server app/one state maint", "set server app/one weight 3", "disable health app/one", "disable agent app/two",
            "set server app/three state ready", "set server app/four state drain", "set server app/four addr 127.0.0.9 port 99",
            "set maxconn server app/five 77", "set maxconn frontend g 55", "disable frontend g", "set maxconn global 500",
            "set rate-limit sessions global 99", "set rate-limit connections global 98",
            "set server app/six ssl off", "set server app/six check-addr 127.0.0.8", "set server app/six check-port 71", "set server app/six agent-addr 127.0.0.7",
            "set rate-limit ssl-sessions global 97", "set rate-limit http-compression global 96");
        HashSet<string> made = [];
        string[] first = await CarryAsync(active, before, standby, file, made, late: false);
        Assert.DoesNotContain(first, s => s.Contains(':'));
        // The frontend that does not listen any more would keep the gate from passing.
        Assert.Equal("enabled", (await RuntimeReading.ReadAsync(standby.Admin, Stop)).Find("frontend g", "state"));
        Assert.Equal(first, await CarryAsync(active, before, standby, file, made));

        RuntimeState one = await RuntimeReading.ReadAsync(active.Admin, Stop), other = await RuntimeReading.ReadAsync(standby.Admin, Stop);
        foreach (string subject in one.Settings.Keys.Where(s => s != "frontend f")) Assert.Equal(one.Settings[subject].Order(s_byName), other.Settings[subject].Order(s_byName));
        Assert.All(new RuntimeChanges(before, one, file, other, true, made).All(), c => Assert.Empty(c.Commands));

        // Taken back on the active one while the gate was at work.
        await SayAsync(active, "set server app/one state ready", "enable frontend g");
        string[] third = await CarryAsync(active, before, standby, file, made);
        Assert.Equal(first.Except(["server app/one is in maintenance", "frontend g is disabled"]), third);
        other = await RuntimeReading.ReadAsync(standby.Admin, Stop);
        Assert.Equal(("ready", "enabled"), (other.Find("server app/one", "state"), other.Find("frontend g", "state")));
    }

    [Fact(Timeout = 30_000)]
    public async Task What_the_new_file_says_wins_and_what_it_no_longer_has_is_named()
    {
        string map = _files.File("a.map"), gone = _files.File("gone.map");
        await File.WriteAllTextAsync(map, "kept 1\nedited 1\nboth 1\n", Stop);
        await File.WriteAllTextAsync(gone, "x 1\n", Stop);
        string Config(string servers, string more) => $"""
            frontend g
              bind 127.0.0.1:0
              http-request set-header x %[req.hdr(host),map({map})]
              {more}
            backend app
              {servers}

            """;
        var (active, before) = await StartedAsync(Config("server one 127.0.0.1:1 weight 10\n  server two 127.0.0.1:2 weight 10\n  server three 127.0.0.1:3 weight 10\n  server old 127.0.0.1:4",
            $"http-request set-header y %[req.hdr(host),map({gone})]"));
        await SayAsync(active, "set server app/one weight 15", "set server app/two weight 20", "set server app/three weight 30", "set server app/old state maint",
            $"set map {map} kept 2", $"set map {map} edited 2", $"set map {map} both 3", $"add map {gone} y 1");
        await File.WriteAllTextAsync(map, "kept 1\nedited 9\nboth 3\n", Stop);
        var (standby, file) = await StartedAsync(Config("server one 127.0.0.1:1 weight 20\n  server two 127.0.0.1:2 weight 20\n  server three 127.0.0.1:3 weight 10", ""));
        Assert.Equal(
        [
            "server app/old is in maintenance: the new configuration does not have it",
            "server app/one has weight 15 instead of 10: the new file says 20",
            "server app/three has weight 30 instead of 10",
            $"map {map} has changed kept",
            $"map {map} has changed edited: the new file says otherwise",
            $"map {gone} has new y: the new configuration does not have it",
        ], await CarryAsync(active, before, standby, file));
        RuntimeState there = await RuntimeReading.ReadAsync(standby.Admin, Stop);
        Assert.Equal(("20", "20", "30"), (there.Find("server app/one", "weight"), there.Find("server app/two", "weight"), there.Find("server app/three", "weight")));
        Assert.Equal(["kept 2", "edited 9", "both 3"], Assert.Single(there.Patterns, p => p.File == map).Entries!);
    }

    [Fact(Timeout = 60_000)]
    public async Task Maps_and_acls_are_carried_entry_by_entry_by_file_whatever_their_numbers_and_words()
    {
        string map = _files.File("a.map"), acl = _files.File("b.acl");
        await File.WriteAllTextAsync(map, "a 1\nb 2\nc 3\ntwice 1\ntwice 2\n", Stop);
        await File.WriteAllTextAsync(acl, "10.0.0.1\n10.0.0.2\n", Stop);
        string Config(string first) => $"""
            frontend g
              bind 127.0.0.1:0
              {first}
              acl bad src -f {acl}
              acl special path /secret /hidden
              http-request deny if bad or special
              http-request set-header x %[req.hdr(host),map({map})]

            """;
        var (active, before) = await StartedAsync(Config(""));
        // Another ACL in front: every number and line is another one.
        var (standby, file) = await StartedAsync(Config("acl first path /other\n  http-request deny if first"));
        int inline = (await RuntimeReading.ReadAsync(active.Admin, Stop)).Patterns.Single(p => p.Entries!.Value.Contains("/secret")).Id;
        await SayAsync(active, $"set map {map} a changed", $"del map {map} b", $"add map {map} new some\\ words\\ and\\ a\\ \\\\\\ and\\ a\\ \\;",
            $"add map {map} ;\\;odd\\\\key x".Replace(" ;", " "), $"del map {map} twice", $"add map {map} twice 2", $"add map {map} twice 3", $"add map {map} \"quoted\" 'it''",
            $"add acl {acl} 10.0.0.3", $"del acl {acl} 10.0.0.1", $"add acl #{inline} /more\\ with\\ blank", $"del acl #{inline} /hidden", $"add map {map} \\<\\< y");
        HashSet<string> made = [];
        Assert.Equal(
        [
            $"map {map} has new \"quoted\", ;odd\\key, << and 1 more; lacks b; has changed a, twice",
            $"ACL {acl} has new 10.0.0.3; lacks 10.0.0.1",
            "ACL acl 'path' file 'h.cfg' line 17 has new /more with blank; lacks /hidden",
        ], await CarryAsync(active, before, standby, file, made));
        Assert.Equal(await EntriesAsync(active), await EntriesAsync(standby, except: "/other"));
        Assert.Contains(@"new some words and a \ and a ;", await EntriesAsync(standby));

        await SayAsync(active, $"clear map {map}", $"add map {map} a 1", $"add map {map} c 3");
        await CarryAsync(active, before, standby, file, made);
        Assert.Equal(await EntriesAsync(active), await EntriesAsync(standby, except: "/other"));
        // All of it taken back: nothing to tell, and nothing stays.
        await SayAsync(active, $"clear map {map}", $"add map {map} a 1", $"add map {map} b 2", $"add map {map} c 3", $"add map {map} twice 1", $"add map {map} twice 2");
        Assert.DoesNotContain(await CarryAsync(active, before, standby, file, made), s => s.StartsWith("map", StringComparison.Ordinal));
        Assert.Equal(await EntriesAsync(active), await EntriesAsync(standby, except: "/other"));
    }

    private static async Task<string[]> EntriesAsync(RunningHaproxy haproxy, string? except = null) =>
        [.. (await RuntimeReading.ReadAsync(haproxy.Admin, Stop)).Patterns.SelectMany(p => p.Entries!.Value).Where(e => e != except).Order(StringComparer.Ordinal)];

    [Fact(Timeout = 120_000)]
    public async Task A_map_of_100_000_entries_is_compared_and_carried_in_seconds()
    {
        const int Count = 100_000;
        string map = _files.File("big.map");
        await File.WriteAllLinesAsync(map, Enumerable.Range(0, Count).Select(i => $"host-{i}.example.org backend-{i}"), Stop);
        string config = $"frontend g\n  bind 127.0.0.1:0\n  http-request set-header x %[req.hdr(host),map({map})]\n";
        var (active, before) = await StartedAsync(config);
        var (standby, file) = await StartedAsync(config);
        string Name(int i) => $"host-{i}.example.org {(i < Count / 2 ? "other" : "backend")}-{i}";
        await RuntimeCarry.MakeAsync(active.Admin, [],
            [new RuntimeChange("", "", [$"clear map {map}", .. Enumerable.Range(0, Count).Select(i => $"add map {map} {Name(i)}")])], Stop);
        await SayAsync(active, $"add map {map} another 1", $"del map {map} host-7.example.org");
        var watch = Stopwatch.StartNew();
        string said = Assert.Single(await CarryAsync(active, before, standby, file));
        TestContext.Current.TestOutputHelper?.WriteLine($"FIGURE 50,000 of 100,000 entries carried in {watch.ElapsedMilliseconds} ms");
        Assert.Equal($"map {map} has new another; lacks host-7.example.org; has changed host-0.example.org, host-1.example.org, host-10.example.org and 49996 more", said);
        watch.Restart();
        RuntimeState now = await RuntimeReading.ReadAsync(active.Admin, Stop), there = await RuntimeReading.ReadAsync(standby.Admin, Stop);
        TestContext.Current.TestOutputHelper?.WriteLine($"FIGURE both read in {watch.ElapsedMilliseconds} ms");
        Assert.Equal(now.Patterns[0].Entries!.Value, there.Patterns[0].Entries!.Value);
        // A few are told one by one.
        await SayAsync(active, $"set map {map} host-99999.example.org x", $"add map {map} z 1");
        watch.Restart();
        Assert.Single(await CarryAsync(active, before, standby, file));
        TestContext.Current.TestOutputHelper?.WriteLine($"FIGURE two more carried in {watch.ElapsedMilliseconds} ms");
        Assert.Equal((await RuntimeReading.ReadAsync(active.Admin, Stop)).Patterns[0].Entries!.Value.Order(StringComparer.Ordinal),
            (await RuntimeReading.ReadAsync(standby.Admin, Stop)).Patterns[0].Entries!.Value.Order(StringComparer.Ordinal));
    }

    [Fact(Timeout = 30_000)]
    public async Task What_an_agent_says_is_nobodys_change()
    {
        using var agent = new TcpListener(IPAddress.Loopback, 0);
        agent.Start();
        int port = ((IPEndPoint)agent.LocalEndpoint).Port;
        Task serving = Task.Run(async () =>
        {
            while (true)
            {
                using TcpClient asked = await agent.AcceptTcpClientAsync(Stop);
                await asked.GetStream().WriteAsync("50% drain\n"u8.ToArray(), Stop);
            }
        }, Stop);
        string config = $"backend app\n  server one 127.0.0.1:1 weight 10 agent-check agent-addr 127.0.0.1 agent-port {port} agent-inter 100ms\n";
        var (haproxy, baseline) = await StartedAsync(config);
        await Eventually.True(async () => (await haproxy.Admin.CommandAsync("get weight app/one", Stop)).StartsWith("5 ", StringComparison.Ordinal),
            TimeSpan.FromSeconds(10), () => "the agent should have set the weight");
        Assert.Empty(await ChangesAsync(haproxy, baseline));
        // Maintenance is told all the same: to lose it would send traffic to a machine somebody works on.
        await SayAsync(haproxy, "set server app/one state maint");
        Assert.Equal(["server app/one is in maintenance"], await ChangesAsync(haproxy, baseline));
        agent.Stop();
        await Assert.ThrowsAnyAsync<Exception>(() => serving);
    }

    [Fact(Timeout = 30_000)]
    public async Task A_refusal_is_told_and_the_rest_is_carried()
    {
        var (active, before) = await StartedAsync("backend app\n  server one 127.0.0.1:1\n  server two 127.0.0.1:2\n");
        var (standby, file) = await StartedAsync("backend app\n  server one 127.0.0.1:1\n  server two 127.0.0.1:2\n");
        await SayAsync(active, "set server app/one state maint", "set server app/two weight 7");
        // Gone between the look and the word.
        var changes = new RuntimeChanges(before, await RuntimeReading.ReadAsync(active.Admin, Stop), file, file, true, s_nothing);
        ImmutableArray<RuntimeChange> found = changes.All();
        await SayAsync(standby, "set server app/one state maint", "del server app/one");
        Assert.Equal(["server app/one is in maintenance: HAProxy refused it: No such server", "server app/two has weight 7 instead of 1"],
            (await RuntimeCarry.MakeAsync(standby.Admin, [], found, Stop)).Select(c => c.Sentence));
    }

    [Fact(Timeout = 30_000)]
    public async Task Servers_added_are_named_and_servers_deleted_are_deleted_again()
    {
        const string Config = "backend app\n  server one 127.0.0.1:1\n  server two 127.0.0.1:2\n";
        var (active, before) = await StartedAsync(Config);
        var (standby, file) = await StartedAsync(Config);
        await SayAsync(active, "add server app/new 127.0.0.1:3", "set server app/two state maint", "del server app/two");
        Assert.Equal(
        [
            "server app/new was added: HAProxy does not tell with which parameters; write it into the configuration",
            "server app/two was deleted",
        ], await CarryAsync(active, before, standby, file));
        Assert.Equal(["one"], (await standby.Admin.ServersAsync(Stop)).Select(s => s.Name));
    }

    [Fact(Timeout = 30_000)]
    public async Task A_server_state_loaded_at_the_start_is_not_taken_for_the_file()
    {
        string config(string state) => $"""
            global
              server-state-file {state}
            defaults
              load-server-state-from-file global
            backend app
              server one 127.0.0.1:1 weight 10
              server two 127.0.0.1:2
              server three 127.0.0.1:3 disabled

            """;
        var (active, before) = await StartedAsync(config(_files.File("none")));
        await SayAsync(active, "set server app/one weight 3", "set server app/two state maint", "set server app/three state ready", "set server app/two addr 127.0.0.1 port 77");
        await File.WriteAllTextAsync(_files.File("state"), await active.Admin.CommandAsync("show servers state", Stop), Stop);
        var (standby, file) = await StartedAsync(config(_files.File("state")));
        RuntimeState now = await RuntimeReading.ReadAsync(active.Admin, Stop), there = await RuntimeReading.ReadAsync(standby.Admin, Stop);
        Assert.Equal(("3", "maint", "ready"), (there.Find("server app/one", "weight"), there.Find("server app/two", "state"), there.Find("server app/three", "state")));
        RuntimeState baseline = file.WithoutLoaded(before, now);
        Assert.Equal(("10", "ready", "maint", "2"), (baseline.Find("server app/one", "weight"), baseline.Find("server app/two", "state"),
            baseline.Find("server app/three", "state"), baseline.Find("server app/two", "port")));
        // It lives on through the next one, which loads no state.
        var (third, files) = await StartedAsync(config(_files.File("none")));
        Assert.Equal(4, (await CarryAsync(standby, baseline, third, files)).Length);
        there = await RuntimeReading.ReadAsync(third.Admin, Stop);
        Assert.Equal(("3", "maint", "ready", "77"), (there.Find("server app/one", "weight"), there.Find("server app/two", "state"),
            there.Find("server app/three", "state"), there.Find("server app/two", "port")));
    }

    [Fact(Timeout = 30_000)]
    public async Task A_change_lives_across_ten_generations_until_it_is_taken_back()
    {
        const string Config = "backend app\n  server one 127.0.0.1:1 weight 10\n";
        var (active, before) = await StartedAsync(Config);
        await SayAsync(active, "set server app/one state maint", "set server app/one weight 3");
        for (int i = 0; i < 10; i++)
        {
            var (standby, file) = await StartedAsync(Config);
            Assert.Equal(["server app/one is in maintenance", "server app/one has weight 3 instead of 10"], await CarryAsync(active, before, standby, file));
            (active, before) = (standby, file);
        }
        await SayAsync(active, "set server app/one state ready", "set server app/one weight 100%");
        Assert.Empty(await ChangesAsync(active, before));
    }

    [Fact(Timeout = 30_000)]
    public async Task A_baseline_is_read_back_as_it_was_saved_by_its_owner_only()
    {
        string map = _files.File("a.map");
        await File.WriteAllTextAsync(map, "a 1\n", Stop);
        var (haproxy, baseline) = await StartedAsync($"{Backends}frontend h\n  bind 127.0.0.1:0\n  http-request set-header x %[req.hdr(host),map({map})]\n");
        var place = new FlipController.Linux.Haproxy.GenerationPlace(_files.Path, "edge", 1);
        Assert.Null(RuntimeBaseline.Files.Read(place));
        Directory.CreateDirectory(place.Directory);
        RuntimeBaseline.Files.Save(place, baseline);
        RuntimeState read = RuntimeBaseline.Files.Read(place)!;
        Assert.All(Directory.GetFiles(place.Directory), f => Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(f)));
        Assert.Equal(baseline.Settings.Keys.Order(), read.Settings.Keys.Order());
        Assert.Empty(await ChangesAsync(haproxy, read));
        await SayAsync(haproxy, "set server app/one state maint", $"add map {map} b 2");
        Assert.Equal(["server app/one is in maintenance", $"map {map} has new b"], await ChangesAsync(haproxy, read));
    }

    [Fact(Timeout = 30_000)]
    public async Task Ticket_keys_are_carried_and_certificates_named_unless_their_file_has_them()
    {
        string[] keys = [.. Enumerable.Range(0, 5).Select(_ => Convert.ToBase64String(System.Security.Cryptography.RandomNumberGenerator.GetBytes(48)))];
        await File.WriteAllLinesAsync(_files.File("keys"), keys[..3], Stop);
        string Config() => $"""
            frontend g
              bind 127.0.0.1:0 ssl crt {_files.File("cert.pem")} tls-ticket-keys {_files.File("keys")}

            """;
        await File.WriteAllTextAsync(_files.File("cert.pem"), TestCertificate.Pem("one"), Stop);
        var (active, before) = await StartedAsync(Config());
        Assert.DoesNotContain(keys[0], System.Text.Json.JsonSerializer.Serialize(before.Settings));
        await SayAsync(active, $"set ssl tls-key {_files.File("keys")} {keys[3]}", $"set ssl tls-key {_files.File("keys")} {keys[4]}");
        string renewed = TestCertificate.Pem("two");
        await SayAsync(active, $"set ssl cert {_files.File("cert.pem")} <<\n{renewed}\n", $"commit ssl cert {_files.File("cert.pem")}");
        string ticket = $"TLS ticket keys {_files.File("keys")} were changed", certificate = $"certificate {_files.File("cert.pem")} was replaced";
        var (standby, file) = await StartedAsync(Config());
        Assert.Equal([ticket, $"{certificate}: HAProxy does not give private keys back; write it to its file"],
            (await CarryAsync(active, before, standby, file)).Order(StringComparer.Ordinal));
        RuntimeState one = await RuntimeReading.ReadAsync(active.Admin, Stop), other = await RuntimeReading.ReadAsync(standby.Admin, Stop);
        Assert.Equal(keys[2..], other.TicketKeys.Single().Value);
        Assert.Equal(one.Find(ticket[..^" were changed".Length], "keys"), other.Find(ticket[..^" were changed".Length], "keys"));

        await File.WriteAllTextAsync(_files.File("cert.pem"), renewed, Stop);
        (standby, file) = await StartedAsync(Config());
        Assert.Equal([ticket], await CarryAsync(active, before, standby, file));
    }
}
