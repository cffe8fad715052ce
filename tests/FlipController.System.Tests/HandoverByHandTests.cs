using System.Globalization;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.HandoverTests;

namespace FlipController.SystemTests;

/// <summary>What README.md says of a handover that goes other ways than the straight one, with real nodes.</summary>
[Collection(PairUnderTest.Alone)]
public sealed class HandoverByHandTests
{
    private const int Limit = 300_000;
    private static readonly TimeSpan s_patience = PairUnderTest.Patience;

    /// <summary>The block of the README that undoes it, with this bed's names in its first line.</summary>
    [Theory(Timeout = Limit)]
    [InlineData("emptying", "10m")]
    [InlineData("leaving", "1s")]
    public async Task Without_any_daemon_it_can_be_undone_by_hand(string phase, string deadline)
    {
        using TwoNodes nodes = await NodesAsync();
        await using LoadRun old = await PairUnderTest.StartedAsync(TwoNodesTests.Busy(nodes, 20, 100));
        await MoreAsync(old, 100);
        await FlipctlAsync(nodes.A, "handover", "start", "--deadline", deadline, "--no-wait");
        await PhaseAsync(nodes.A, phase);
        if (phase == "emptying") await DivertsAsync(nodes.A, true);
        string block = Block();
        foreach (TwoNodes.Node node in nodes.Both)
        {
            node.Daemon!.Signal(Signals.Kill);
            await node.Daemon.Exit(s_patience);
        }
        Assert.Contains("flipcontroller-handover", nodes.A.Net.Exec("nft", "list", "tables"), StringComparison.Ordinal);
        foreach (TwoNodes.Node node in nodes.Both)
        {
            string names = $"device={TwoNodes.Device} vips='{nodes.VipV4}/32 {nodes.VipV6}/128' state={node["state"]} track={node.TrackFile}";
            node.Net.Exec("bash", "-euo", "pipefail", "-c", $"{names}\n{block}");
        }
        Untouched(nodes);
        await nodes.HasVipsAsync(nodes.A);
        await ServesAsync(nodes, "a");
        // And it is forgotten: no daemon goes on with it.
        foreach (TwoNodes.Node node in nodes.Both) node.StartDaemon();
        foreach (TwoNodes.Node node in nodes.Both) await PhaseAsync(node, "none");
        Untouched(nodes);
        Assert.Null((await ReportAsync(nodes.B)).Receiving);
        await nodes.HasVipsAsync(nodes.A);
        await ServesAsync(nodes, "a");
    }

    [Fact(Timeout = Limit)]
    public async Task Reset_leaves_nothing_of_it()
    {
        using TwoNodes nodes = await NodesAsync();
        await using LoadRun old = await PairUnderTest.StartedAsync(TwoNodesTests.Busy(nodes, 4, 100));
        await MoreAsync(old, 50);
        await FlipctlAsync(nodes.A, "handover", "start", "--deadline", "10m", "--no-wait");
        await Eventually.True(async () => (await ReportAsync(nodes.B)).Receiving is not null, s_patience, nodes.B.Said);
        foreach (TwoNodes.Node node in nodes.Both)
        {
            node.Daemon!.Signal(Signals.Kill);
            await node.Daemon.Exit(s_patience);
        }
        foreach (TwoNodes.Node node in nodes.Both)
        {
            (int code, string said, string errors) = await node.FlipctlAsync("reset", "--yes", "--config", node["flipcontroller.yaml"]);
            Assert.True(code == 0, $"{code}: {said}{errors}");
            foreach (string removed in (string[])["table netdev flipcontroller-handover", $"{nodes.VipV4} on lo", $"{nodes.VipV6} on lo", "arp_ignore = 0 again"])
                Assert.Contains(removed, said, StringComparison.Ordinal);
        }
        Untouched(nodes);
        foreach (TwoNodes.Node node in nodes.Both) node.StartDaemon();
        foreach (TwoNodes.Node node in nodes.Both) await PhaseAsync(node, "none");
        await nodes.HasVipsAsync(nodes.A);
        await ServesAsync(nodes, "a");
        Untouched(nodes);
    }

    [Fact(Timeout = Limit)]
    public async Task Nodes_that_do_not_preempt_are_handed_over_by_a_FAULT_and_taken_back_the_same_way()
    {
        using TwoNodes nodes = await NodesAsync(new TwoNodesOptions { NoPreempt = true, Handover = "deadline: 1s, second_chance: 10m" });
        await using LoadRun fresh = await PairUnderTest.StartedAsync(TwoNodesTests.Fresh(nodes, 100)), busy = await PairUnderTest.StartedAsync(TwoNodesTests.Busy(nodes, 20, 100));
        await MoreAsync(busy, 100);
        await FlipctlAsync(nodes.A, "handover", "start", "--no-wait");
        await nodes.HasVipsAsync(nodes.B);
        await PhaseAsync(nodes.A, "leaving");
        await MoreAsync(busy, 100);
        await MoreAsync(fresh, 100);
        await FlipctlAsync(nodes.A, "handover", "cancel", "--no-wait");
        await nodes.HasVipsAsync(nodes.A);
        await PhaseAsync(nodes.A, "none");
        await PhaseAsync(nodes.B, "none");
        await MoreAsync(busy, 100);
        await MoreAsync(fresh, 100);
        Assert.Equal(20, (await PairUnderTest.PassedAsync(busy)).Connections);
        await PairUnderTest.PassedAsync(fresh);
        Untouched(nodes);
    }

    [Fact(Timeout = Limit)]
    public async Task A_node_that_is_away_by_a_FAULT_has_the_VIPs_again_when_it_is_let()
    {
        using TwoNodes nodes = await NodesAsync(new TwoNodesOptions { NoPreempt = true, Handover = "deadline: 1s, second_chance: 10m" });
        await FlipctlAsync(nodes.A, "handover", "start");
        await PhaseAsync(nodes.A, "away");
        await nodes.HasVipsAsync(nodes.B);
        // A vrrp_script that asks while no daemon answers must not bring them back.
        nodes.A.Daemon!.Signal(Signals.Kill);
        await nodes.A.Daemon.Exit(s_patience);
        (int code, _, string errors) = await nodes.A.FlipctlAsync("check", "--config", nodes.A["flipcontroller.yaml"]);
        Assert.True(code == 1 && errors.Contains("handed over to the peer", StringComparison.Ordinal), $"{code}: {errors}");
        nodes.A.StartDaemon();
        await PhaseAsync(nodes.A, "away");
        await nodes.B.StopKeepalivedAsync();
        await Eventually.True(() => nodes.B.VipCount() == 0, s_patience, nodes.B.Said);
        Assert.Equal(0, nodes.A.VipCount());
        await FlipctlAsync(nodes.A, "handover", "finish");
        await nodes.HasVipsAsync(nodes.A);
        await PhaseAsync(nodes.A, "none");
        await ServesAsync(nodes, "a");
    }

    [Fact(Timeout = Limit)]
    public async Task Keepalived_that_is_stopped_in_the_middle_moves_the_VIPs_and_cuts_nobody()
    {
        using TwoNodes nodes = await NodesAsync();
        await using LoadRun busy = await PairUnderTest.StartedAsync(TwoNodesTests.Busy(nodes, 20, 100));
        await MoreAsync(busy, 100);
        await FlipctlAsync(nodes.A, "handover", "start", "--deadline", "10m", "--no-wait");
        await PhaseAsync(nodes.A, "emptying");
        await DivertsAsync(nodes.A, true);
        await nodes.A.StopKeepalivedAsync();
        await nodes.HasVipsAsync(nodes.B);
        await PhaseAsync(nodes.A, "leaving");
        await MoreAsync(busy, 100);
        await ServesAsync(nodes, "b");
        nodes.A.StartKeepalived();
        await FlipctlAsync(nodes.A, "handover", "cancel", "--no-wait");
        await nodes.HasVipsAsync(nodes.A);
        await PhaseAsync(nodes.A, "none");
        await PhaseAsync(nodes.B, "none");
        Assert.Equal(20, (await PairUnderTest.PassedAsync(busy)).Connections);
        Untouched(nodes);
    }

    [Fact(Timeout = Limit)]
    public async Task Keepalived_that_is_killed_in_the_middle_leaves_the_VIPs_in_two_places_and_cuts_nobody()
    {
        using TwoNodes nodes = await NodesAsync();
        await using LoadRun busy = await PairUnderTest.StartedAsync(TwoNodesTests.Busy(nodes, 20, 100)), fresh = await PairUnderTest.StartedAsync(TwoNodesTests.Fresh(nodes, 100));
        await MoreAsync(busy, 100);
        await FlipctlAsync(nodes.A, "handover", "start", "--deadline", "10m", "--no-wait");
        await PhaseAsync(nodes.A, "emptying");
        await DivertsAsync(nodes.A, true);
        // The parent would start another child, and the child ends in order when its parent dies.
        string child = (await File.ReadAllTextAsync(nodes.A["vrrp.pid"])).Trim();
        nodes.A.Net.Exec("kill", "-KILL", child, nodes.A.Keepalived!.Pid.ToString(CultureInfo.InvariantCulture));
        await nodes.A.Keepalived.Exit(s_patience);
        await Eventually.True(() => nodes.Both.All(n => n.VipCount() == 2), s_patience, () => nodes.A.Said() + nodes.B.Said());
        await MoreAsync(busy, 100);
        await MoreAsync(fresh, 100);
        await FlipctlAsync(nodes.A, "handover", "finish");
        await PhaseAsync(nodes.A, "moving");
        await Eventually.True(async () => await File.ReadAllTextAsync(nodes.A.TrackFile) == "100\n", s_patience, nodes.A.Said);
        nodes.A.StartKeepalived();
        await nodes.HasVipsAsync(nodes.B);
        await PhaseAsync(nodes.A, "leaving");
        await MoreAsync(busy, 100);
        await MoreAsync(fresh, 100);
        Assert.Equal(20, (await PairUnderTest.PassedAsync(busy)).Connections);
        await PairUnderTest.PassedAsync(fresh);
    }

    private static async Task ServesAsync(TwoNodes nodes, string name)
    {
        await using LoadRun run = await PairUnderTest.StartedAsync(TwoNodesTests.Fresh(nodes, 50));
        await MoreAsync(run, 20);
        Assert.Equal([name], (await PairUnderTest.PassedAsync(run)).ServedBy.Keys);
    }

    /// <summary>But for the line that gives names, which are others here.</summary>
    private static string Block()
    {
        string text = File.ReadAllText(Path.Combine(Repository.Root, "README.md"));
        const string mark = $"# run by: {nameof(HandoverByHandTests)}\ndevice=eth0 ";
        int from = text.IndexOf(mark, StringComparison.Ordinal);
        Assert.True(from >= 0, "README.md has no block that undoes a handover by hand");
        from = text.IndexOf('\n', from + mark.Length) + 1;
        return text[from..text.IndexOf("```", from, StringComparison.Ordinal)];
    }
}
