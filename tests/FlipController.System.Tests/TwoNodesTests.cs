using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>The test bed of two nodes does what the tests that stand on it rest on.</summary>
[Collection(PairUnderTest.Alone)]
public sealed class TwoNodesTests
{
    private static readonly TimeSpan s_patience = PairUnderTest.Patience;

    [Fact(Timeout = 120_000)]
    public async Task The_VIPs_move_with_keepalived_and_its_track_file_and_back()
    {
        Require.Netns();
        Require.Program("haproxy");
        Require.Program("keepalived");
        using TwoNodes nodes = await TwoNodes.StartAsync(new TwoNodesOptions { WithDaemons = false });
        Assert.Equal("a", await ServedByAsync(nodes));
        await nodes.A.StopKeepalivedAsync();
        await nodes.HasVipsAsync(nodes.B);
        Assert.Equal("b", await ServedByAsync(nodes));
        nodes.A.StartKeepalived();
        await nodes.HasVipsAsync(nodes.A);
        await File.WriteAllTextAsync(nodes.A.TrackFile, "100\n");
        await nodes.HasVipsAsync(nodes.B);
        await File.WriteAllTextAsync(nodes.A.TrackFile, "0\n");
        await nodes.HasVipsAsync(nodes.A);
        nodes.A.Net.Ip("link", "set", TwoNodes.Dummy, "down");
        await nodes.HasVipsAsync(nodes.B);
        nodes.A.Net.Ip("link", "set", TwoNodes.Dummy, "up");
        await nodes.HasVipsAsync(nodes.A);
        nodes.Cable(nodes.A, isIn: false);
        await Eventually.True(() => nodes.B.VipCount() == 2, s_patience, nodes.B.Said);
        nodes.Cable(nodes.A, isIn: true);
        await nodes.HasVipsAsync(nodes.A);
    }

    [Fact(Timeout = 120_000)]
    public async Task Daemons_serve_behind_the_VIPs_and_ask_each_other()
    {
        Require.Netns();
        Require.Program("haproxy");
        Require.Program("keepalived");
        using TwoNodes nodes = await TwoNodes.StartAsync();
        await using LoadRun fresh = await PairUnderTest.StartedAsync(Fresh(nodes, 100)), busy = await PairUnderTest.StartedAsync(Busy(nodes, 20, 200));
        await Eventually.True(() => busy.Now.Ok > 400, s_patience, () => $"{busy.Now}");
        LoadResult news = await PairUnderTest.PassedAsync(fresh), kept = await PairUnderTest.PassedAsync(busy);
        Assert.Equal(20, kept.Connections);
        Assert.Equal(["a"], news.ServedBy.Keys);
        foreach (TwoNodes.Node node in nodes.Both)
            Assert.Contains("the other node's daemon", node.Said(), StringComparison.Ordinal);
    }

    /// <summary>A VIP that moves cuts what is open, which is why there is a handover: the busy clients notice and say so.</summary>
    [Fact(Timeout = 120_000)]
    public async Task A_plain_move_cuts_connections_and_the_clients_count_them()
    {
        Require.Netns();
        Require.Program("haproxy");
        Require.Program("keepalived");
        using TwoNodes nodes = await TwoNodes.StartAsync(new TwoNodesOptions { WithDaemons = false });
        await using LoadRun busy = await PairUnderTest.StartedAsync(Busy(nodes, 20, 200));
        await Eventually.True(() => busy.Now.Ok > 200, s_patience, () => $"{busy.Now}");
        await nodes.A.StopKeepalivedAsync();
        await nodes.HasVipsAsync(nodes.B);
        long ok = busy.Now.Ok;
        await Eventually.True(() => busy.Now.Ok > ok + 200, s_patience, () => $"{busy.Now}");
        LoadResult result = await PairUnderTest.EndedAsync(busy);
        Assert.Equal(40, result.Connections); // each was cut and made anew
        Assert.True(result.Failed >= 20, result.ToJson());
        Assert.Equal(20, result.ServedBy["b"].Count);
    }

    internal static LoadOptions Fresh(TwoNodes nodes, double rate) => new()
    {
        Targets = nodes.Services, Rate = rate, Duration = TimeSpan.FromMinutes(10), Namespace = nodes.Client.Name,
    };

    /// <summary>Connections that stay and say something in turn, <paramref name="rate"/> times a second together; what comes back is compared.</summary>
    internal static LoadOptions Busy(TwoNodes nodes, int connections, double rate) => Fresh(nodes, rate) with
    {
        Mode = LoadMode.Long, Long = LongTraffic.Echo, Connections = connections,
    };

    private static async Task<string> ServedByAsync(TwoNodes nodes)
    {
        LoadResult result = await LoadRun.RunAsync(Fresh(nodes, 50) with { Duration = TimeSpan.FromSeconds(0.2) });
        Assert.True(result.Passed, result.ToJson());
        return Assert.Single(result.ServedBy).Key;
    }
}
