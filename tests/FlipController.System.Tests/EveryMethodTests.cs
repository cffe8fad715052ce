using System.Globalization;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>With nftables, for comparison: its other tests say more.</summary>
[Collection(Alone)]
public sealed class MethodNftablesTests() : RuleMethod("{ method: nftables }", "nftables")
{
    private protected override string[][] Flushes => [["nft", "flush", "ruleset"]];
}

[Collection(Alone)]
public sealed class MethodIptablesNftTests() : IptablesMethod("nft")
{
    /// <summary>What others have in iptables-legacy is not looked at.</summary>
    [Fact(Timeout = 60_000)]
    public async Task Rules_of_others_that_are_met_first_are_named_and_those_after_ours_are_not()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(Yaml);
        pair.Nets.Server.Exec("iptables-nft", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "80", "-j", "REDIRECT", "--to-ports", "9");
        Assert.DoesNotContain((await pair.StatusAsync()).Warnings, w => w.Contains("is met before ours", StringComparison.Ordinal));
        Assert.Equal("v1", await pair.ServedByAsync());
        pair.Nets.Server.Exec("iptables-nft", "-t", "nat", "-I", "PREROUTING", "1", "-p", "tcp", "--dport", "80", "-j", "REDIRECT", "--to-ports", "9");
        PairStatus warned = await pair.UntilAsync(s => s.Warnings.Any(w => w.Contains("is met before ours", StringComparison.Ordinal)), "it should warn");
        Assert.Contains(warned.Warnings, w => w.Contains("ip nat PREROUTING handle", StringComparison.Ordinal) && w.Contains("ours are at -100", StringComparison.Ordinal));
    }
}

[Collection(Alone)]
public sealed class MethodIptablesLegacyTests() : IptablesMethod("legacy");

/// <summary>Generations that listen on the front addresses themselves: no rule is ours, and none can be taken away.</summary>
[Collection(Alone)]
public sealed class MethodListenerTests() : HaproxyMethod("{ method: listener }", "listener");

/// <summary>The same as units of systemd, and with nobody held.</summary>
[Collection(Alone)]
public sealed class MethodListenerUnitsTests() : EveryMethod("{ method: listener }", "listener")
{
    private protected override PairYaml Yaml => base.Yaml with { Haproxy = ", driver: systemd", Hold = "{ method: none }" };

    private protected override Task<PairUnderTest> StartAsync(PairYaml yaml) => PairUnderTest.StartAsync(yaml, p => p.UseUnits());
}

[Collection(Alone)]
public sealed class MethodIptablesNftCommandTests() : CommandMethod("nft");

[Collection(Alone)]
public sealed class MethodIptablesLegacyCommandTests() : CommandMethod("legacy");

/// <summary>
/// One suite over every way to redirect; a class of its own for each, so that a report names it. FLIP_METHOD_FLIPS=N: so many flips
/// instead of a few.
/// </summary>
public abstract class EveryMethod(string redirect, string method)
{
    private static readonly int s_flips = int.TryParse(Environment.GetEnvironmentVariable("FLIP_METHOD_FLIPS"), NumberStyles.None, CultureInfo.InvariantCulture, out int flips) ? flips : 6;

    protected string Redirect => redirect;

    private protected virtual PairYaml Yaml => new() { Redirect = redirect };

    /// <summary>A configuration whose answers say who gave them.</summary>
    private protected virtual string Text(string label) => Config(label);

    private protected virtual Task<PairUnderTest> StartAsync(PairYaml yaml) => PairUnderTest.StartAsync(yaml);

    private async Task<string> FlippedAsync(PairUnderTest pair, string label)
    {
        await pair.FlipByEditAsync(Text(label));
        return await pair.ServedByAsync();
    }

    [Fact(Timeout = 600_000)]
    public async Task Flips_under_load_lose_nothing_and_open_connections_stay()
    {
        await using PairUnderTest pair = await StartAsync(Yaml with { Drain = "{ deadline: 1h, max_retired: 8 }", Watch = "{ undo: 1s }" });
        Assert.Equal(method, (await pair.StatusAsync()).Redirect.Method);
        await using LoadRun remote = await StartedAsync(pair.Load(400)), local = await StartedAsync(pair.LocalLoad(100));
        await using LoadRun keepalive = await StartedAsync(pair.Load(100) with { Mode = LoadMode.Keepalive });
        HeldConnection four = await pair.HoldAsync(pair.Services[0]), six = await pair.HoldAsync(pair.Services[1]);
        for (int i = 2; i < s_flips + 2; i++)
        {
            Assert.Equal($"v{i}", await FlippedAsync(pair, $"v{i}"));
            await four.StaysAsync();
            await six.StaysAsync();
        }
        await PassedAsync(remote);
        await PassedAsync(local);
        await PassedAsync(keepalive);
        FlipRecord[] flips = [.. (await pair.HistoryAsync()).Flips.Where(f => f is { Trigger: "files", Outcome: "done" })];
        Assert.True(flips.Length >= s_flips, $"{flips.Length} flips");
        long[] windows = [.. flips.Select(f => f.Hold!.WindowUs).Order()];
        Show($"{method}: {flips.Length} flips, hold {string.Join("/", flips.Select(f => f.Hold!.Method).Distinct())}, window p50 {windows[windows.Length / 2]} us, max {windows[^1]} us, "
            + $"{flips.Sum(f => f.Hold!.Held)} held, longest {flips.Max(f => f.Hold!.LongestWaitUs)} us");
        pair.NothingIsHeld();
    }

    [Fact(Timeout = 120_000)]
    public async Task It_goes_back_under_load()
    {
        await using PairUnderTest pair = await StartAsync(Yaml with { Watch = "{ undo: 1m }" });
        await using LoadRun load = await StartedAsync(pair.Load(400)), local = await StartedAsync(pair.LocalLoad(100));
        for (int i = 0; i < 3; i++)
        {
            HeldConnection held = await pair.HoldAsync(pair.Services[i % 2]);
            Assert.Equal($"v{i + 2}", await FlippedAsync(pair, $"v{i + 2}"));
            Assert.Equal("rolled-back", (await pair.RollbackAsync()).Outcome);
            Assert.Equal("v1", await pair.ServedByAsync());
            await held.StaysAsync();
            await pair.UntilAsync(s => s.State == "steady", "it rests");
        }
        await PassedAsync(load);
        await PassedAsync(local);
    }

    [Fact(Timeout = 240_000)]
    public async Task Killed_along_a_flip_it_loses_no_connection_and_goes_on()
    {
        await using PairUnderTest pair = await StartAsync(Yaml);
        await using LoadRun load = await StartedAsync(pair.Load(400));
        HeldConnection held = await pair.HoldAsync();
        List<string> found = [];
        foreach (string state in (string[])["gating", "switching", "watching"])
        {
            string label = $"v{found.Count + 2}";
            pair.Write(Text(label));
            await pair.SaysAsync($"-> {state} .flip {(await pair.HistoryAsync()).Flips.Max(f => f.Id) + 1}.");
            await pair.RestartDaemonAsync(Kill);
            found.Add(Regex.Match(pair.DaemonLog, "was ([a-z]+), found").Groups[1].Value);
            await Eventually.True(async () => await pair.ServedByAsync() == label, Patience, () => pair.DaemonLog);
            await held.StaysAsync();
            await pair.UntilAsync(s => s is { State: "steady", Fault: null }, "it rests");
        }
        Show($"{method}: killed while {string.Join(", ", found)}");
        await PassedAsync(load);
        pair.NothingIsHeld();
    }

    /// <summary>Whatever anybody redirects with.</summary>
    private protected static string Ruleset(PairUnderTest pair) => pair.Nets.Server.Exec("nft", "list", "ruleset")
        + string.Concat(((string[])["iptables-legacy-save", "ip6tables-legacy-save"]).Select(save => pair.Nets.Server.Exec(save)));

    private protected static async Task<bool> ServesAsync(PairUnderTest pair)
    {
        try
        {
            await pair.ServedByAsync();
            return true;
        }
        catch (Exception e) when (e is HttpRequestException or System.Net.Sockets.SocketException)
        {
            return false;
        }
    }
}

/// <summary>What HAProxy has to show.</summary>
public abstract class HaproxyMethod(string redirect, string method) : EveryMethod(redirect, method)
{
    [Fact(Timeout = 120_000)]
    public async Task A_HAProxy_is_taken_over_and_given_back_under_load()
    {
        await using PairUnderTest pair = await AdoptionTests.BesideAsync("-W -D", Redirect);
        await using LoadRun load = await StartedAsync(pair.Load(500)), local = await StartedAsync(pair.LocalLoad(100));
        for (int i = 0; i < 2; i++)
        {
            HeldConnection unmanaged = await pair.HoldAsync(pair.Services[i]);
            Assert.Equal(AdoptionTests.Unmanaged, unmanaged.ServedBy);
            await AdoptionTests.DoneAsync(pair, "adopt", "--stop");
            Assert.Equal("v1", await pair.ServedByAsync());
            HeldConnection managed = await pair.HoldAsync(pair.Services[i]);
            await AdoptionTests.DoneAsync(pair, "release");
            Assert.Equal(AdoptionTests.Unmanaged, await pair.ServedByAsync());
            await unmanaged.StaysAsync();
            await managed.StaysAsync();
        }
        await PassedAsync(load);
        await PassedAsync(local);
    }
}

/// <summary>A server that a pair's commands run: here a HAProxy of which the controller knows nothing.</summary>
public abstract class CommandMethod(string variant) : EveryMethod($"{{ method: iptables, iptables: {variant} }}", $"iptables ({variant})")
{
    private protected override PairYaml Yaml => base.Yaml with
    {
        Command = "services: { web: ':80', web6: '[::]:80 v6only' }, check: [haproxy, -c, -f, '{config}'], start: [haproxy, -db, -f, '{config}'], stop_signal: USR1",
        Config = Text("v1"),
    };

    private protected override string Text(string label) => Config(label)
        .Replace("bind :80\n", "bind :{port:web}\n", StringComparison.Ordinal).Replace("bind :::80 ", "bind :::{port:web6} ", StringComparison.Ordinal);
}

/// <summary>What rules have to show.</summary>
public abstract class RuleMethod(string redirect, string method) : HaproxyMethod(redirect, method)
{
    /// <summary>What somebody may do that takes all the rules away.</summary>
    private protected abstract string[][] Flushes { get; }

    [Fact(Timeout = 120_000)]
    public async Task Rules_that_somebody_takes_away_are_there_again_and_reset_takes_all_of_them()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(Yaml);
        HeldConnection held = await pair.HoldAsync();
        int repaired = 0;
        foreach (string[] flush in Flushes)
        {
            pair.Nets.Server.Exec(flush[0], flush[1..]);
            int repairs = ++repaired;
            await Eventually.True(() => Regex.Count(pair.DaemonLog, "they are again, ") >= repairs, Patience, () => $"{string.Join(' ', flush)}: {pair.DaemonLog}");
            Assert.True(await ServesAsync(pair));
            await held.StaysAsync();
        }
        Assert.Equal("v2", await pair.FlippedAsync("v2"));
        await pair.EndDaemonAsync(Terminate);
        Assert.Equal("v2", await pair.ServedByAsync());
        Said reset = await pair.FlipctlAsync("reset", "--yes");
        Assert.True(reset.ExitCode == 0, reset.Error);
        Assert.Contains("pair edge: new connections went to generation 2", reset.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("FLIP-", Ruleset(pair), StringComparison.Ordinal);
        Assert.DoesNotContain("dnat", Ruleset(pair), StringComparison.Ordinal);
        Assert.False(await ServesAsync(pair));
        // Nobody else here has a rule with conntrack in it: without one the kernel would translate no more.
        await held.StaysAsync();
        Assert.Matches("open connections: [0-9]+ were redirected and go on", reset.Output);
        Assert.Contains("open connections: ", (await pair.FlipctlAsync("reset", "--yes")).Output, StringComparison.Ordinal);
        await held.StaysAsync();
        Assert.Equal(0, (await pair.FlipctlAsync("reset", "--yes", "--cut")).ExitCode);
        Assert.DoesNotContain("flipcontroller", Ruleset(pair), StringComparison.Ordinal);
        Assert.Contains("nothing: the kernel has no rule of ours", (await pair.FlipctlAsync("reset", "--yes")).Output, StringComparison.Ordinal);
    }
}

/// <summary>What only iptables has to show, once for each of its variants.</summary>
public abstract class IptablesMethod(string variant) : RuleMethod($"{{ method: iptables, iptables: {variant} }}", $"iptables ({variant})")
{
    private protected override string[][] Flushes =>
    [
        [$"iptables-{variant}", "-t", "nat", "-F"], [$"ip6tables-{variant}", "-t", "nat", "-F", "FLIP-P-edge"], [$"iptables-{variant}", "-F"],
        [$"iptables-{variant}", "-t", "nat", "-D", "OUTPUT", "1"],
    ];

    [Fact(Timeout = 120_000)]
    public async Task Another_method_by_a_reload_moves_no_connection_and_leaves_nothing_of_the_first()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml());
        await using LoadRun load = await StartedAsync(pair.Load(400)), local = await StartedAsync(pair.LocalLoad(100));
        HeldConnection held = await pair.HoldAsync();
        string yaml = File.ReadAllText(pair.Files["flipcontroller.yaml"]);
        foreach ((string wanted, string called, string gone) in ((string, string, string)[])
                 [(Redirect, $"iptables ({variant})", "table inet flipcontroller {"), ("{}", "nftables", "FLIP-")])
        {
            pair.Files.Write("flipcontroller.yaml", yaml.Replace("redirect: {}", $"redirect: {wanted}", StringComparison.Ordinal));
            pair.SignalDaemon(Signals.Reload);
            await pair.UntilAsync(s => s.Redirect is { Generation: not null } r && r.Method == called, $"{called} should lead");
            await Eventually.True(() => !Ruleset(pair).Contains(gone, StringComparison.Ordinal), Patience, () => $"{gone} is there: {pair.DaemonLog}");
            Assert.Equal($"v-{called[..3]}", await pair.FlippedAsync($"v-{called[..3]}"));
            await held.StaysAsync();
        }
        await PassedAsync(load);
        await PassedAsync(local);
    }
}
