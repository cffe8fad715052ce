using System.Net.Sockets;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>Others flush, change and reload rules; the pair's are there again, and open connections never notice.</summary>
[Collection(Alone)]
public sealed class LostRulesTests
{
    [Fact(Timeout = 120_000)]
    public async Task Whatever_somebody_does_to_the_rules_they_are_right_again()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { Watch = "{ undo: 60s }" });
        await pair.FlipByEditAsync(Config("v2"));
        HeldConnection held = await pair.HoldAsync();
        string whole = Rules(pair);
        foreach (string command in (string[])
                 [
                     "flush ruleset", "delete table inet flipcontroller", "flush chain inet flipcontroller pair-edge", "flush chain inet flipcontroller services",
                     "flush chain inet flipcontroller prerouting", "flush chain inet flipcontroller guard", "flush chain inet flipcontroller generation-edge-2",
                     "flush chain inet flipcontroller generation-edge-1", "flush table inet flipcontroller", "flush chain inet flipcontroller output",
                 ])
        {
            pair.Nets.Server.Exec("nft", command);
            await Eventually.True(() => Rules(pair) == whole, Patience,
                () => $"{command}: {pair.Nets.Server.Exec("nft", "list", "ruleset")}\n{pair.DaemonLog}");
            Assert.Equal("v2", await pair.ServedByAsync());
            Assert.True(await held.EchoesAsync(), command);
            PairStatus status = await pair.UntilAsync(s => s.Fault is null, command);
            Assert.Equal(("watching", 2, 2), (status.State, status.Redirect.Generation, status.Active!.Number));
        }
        // A firewall that is loaded again, with rules of its own that stay.
        pair.Files.Write("firewall.nft", "flush ruleset\ntable inet firewall { chain input { type filter hook input priority 0; policy accept; counter; }; }\n");
        for (int i = 0; i < 5; i++)
        {
            pair.Nets.Server.Exec("nft", "-f", pair.Files["firewall.nft"]);
            await Eventually.True(async () => await AnswersAsync(pair), Patience, () => "NEW connections are led there again");
        }
        Assert.Contains("table inet firewall", pair.Nets.Server.Exec("nft", "list", "ruleset"), StringComparison.Ordinal);
        Assert.Equal("rolled-back", (await pair.RollbackAsync()).Outcome);
        Assert.Equal("v1", await pair.ServedByAsync());
        await held.StaysAsync();
        await pair.SaysAsync("they are gone.: NEW connections were not led to generation 2 .green.; they are again, ");
        Show($"repaired, from the notice on: {string.Join(", ", Regex.Matches(pair.DaemonLog, @"they are again, ([0-9.]+) ms").Select(m => m.Groups[1].Value))} ms");
    }

    [Fact(Timeout = 120_000)]
    public async Task Under_load_only_those_of_the_moment_are_refused()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        await using LoadRun load = await StartedAsync(pair.Load(500)), keepalive = await StartedAsync(pair.Load(100) with { Mode = LoadMode.Keepalive });
        for (int i = 0; i < 5; i++)
        {
            long ok = load.Now.Ok;
            pair.Nets.Server.Exec("nft", "flush", "ruleset");
            await Eventually.True(() => load.Now.Ok > ok + 200, Patience, "NEW connections are led there again");
        }
        LoadResult fresh = await EndedAsync(load), open = await EndedAsync(keepalive);
        Show($"5 times `nft flush ruleset` under {load.Now.Requests} requests: {fresh.Failed} refused, {fresh.Failed / 5.0 / 500 * 1000:0} ms each; of those on open connections {open.Failed}");
        Assert.Equal(fresh.Failed, fresh.Refused + fresh.Reset);
        Assert.InRange(fresh.Failed, 0, 5 * 500); // within a second each
        Assert.Equal("v2", (await pair.FlippedAsync("v2")));
    }

    [Fact(Timeout = 60_000)]
    public async Task Where_only_a_report_is_wanted_it_says_what_to_do()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { Redirect = "{ lost: report }" });
        pair.Nets.Server.Exec("nft", "flush", "ruleset");
        PairStatus status = await pair.UntilAsync(s => s.Fault is not null, "it is reported");
        Assert.Matches("^somebody removed or changed our rules .* and are not .redirect.lost is report.; `systemctl restart flipcontrollerd` sets", status.Fault);
        Assert.False(await AnswersAsync(pair));
        await pair.RestartDaemonAsync(Terminate);
        await Eventually.True(async () => await AnswersAsync(pair), Patience, () => "a restart sets them again");
        Assert.Null((await pair.UntilAsync(s => s.State == "steady", "as it was")).Fault);
    }

    /// <summary>The chains of our table, whatever order they were made in.</summary>
    private static string Rules(PairUnderTest pair) =>
        string.Join("\n\n", pair.Nets.Server.Exec("nft", "list", "ruleset").Split("table ").Where(t => t.StartsWith("inet flipcontroller {", StringComparison.Ordinal))
            .SelectMany(t => t.Split("\n\t}\n")).Select(chain => chain.Trim('\n', '}').Replace("inet flipcontroller {\n", "", StringComparison.Ordinal)).Order(StringComparer.Ordinal));

    private static async Task<bool> AnswersAsync(PairUnderTest pair)
    {
        try
        {
            (await pair.ConnectAsync(pair.Services[0])).Dispose();
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }
}
