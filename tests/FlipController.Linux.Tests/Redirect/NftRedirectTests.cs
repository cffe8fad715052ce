using System.Net;
using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;
using FlipController.Linux.Tests.Kernel;
using Xunit;

namespace FlipController.Linux.Tests.Redirect;

public sealed class NftRedirectTests : RedirectTests
{
    private protected override PairRedirect Open(TestNetwork network) => network.Own(NftRedirect.Open);

    private protected override string Listing(TestNetwork network) => network.Exec("nft", "list", "ruleset");

    private protected override void Flush(TestNetwork network) => network.Exec("nft", "flush", "ruleset");

    private protected override void FlushServices(TestNetwork network) => network.Exec("nft", "flush", "chain", "inet", "flipcontroller", "services");

    private protected override void FlushGuard(TestNetwork network) => network.Exec("nft", "flush", "chain", "inet", "flipcontroller", "guard");

    private protected override void RemoveTheWayOfUdp(TestNetwork network)
    {
        string rule = network.Exec("nft", "-a", "list", "chain", "inet", "flipcontroller", "services").Split('\n').Single(l => l.Contains("udp", StringComparison.Ordinal));
        network.Exec("nft", "delete", "rule", "inet", "flipcontroller", "services", "handle", rule.Split("# handle ")[1]);
    }

    private protected override int LeastFlips => 100;

    [Fact(Timeout = 30000)]
    public async Task Everything_can_be_done_twice_and_other_tables_are_not_touched() => await Task.Run(() =>
    {
        using TestNetwork server = TestNetwork.Create("d");
        // As a container engine and a firewall leave them.
        const string foreign = """
            table ip nat {
              chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local counter jump DOCKER; }
              chain OUTPUT { type nat hook output priority -100; policy accept; ip daddr != 127.0.0.0/8 fib daddr type local counter jump DOCKER; }
              chain DOCKER { iifname != "docker0" tcp dport 8443 counter dnat to 172.17.0.2:443; }
            }
            table inet firewalld {
              set allowed { type inet_service; elements = { 22, 80 } }
              chain filter_INPUT { type filter hook input priority filter + 10; policy accept; ct state { established, related } accept; tcp dport @allowed accept; }
            }
            """;
        Shell.RunWithInput(foreign, "ip", "netns", "exec", server.Name, "nft", "-f", "-");
        string before = server.Exec("nft", "list", "ruleset");
        PairRedirect redirect = Open(server);
        server.Serve("0.0.0.0", 21000, "one");
        Assert.Equal(RedirectState.Nothing, redirect.ReadAll());
        redirect.RemoveGeneration("edge", 1);
        redirect.Clear("edge");
        redirect.EnsureBase([Edge]);
        Generation(redirect, 1, new ServicePort(new Service(IPAddress.Any, 80), 21000));
        Flip(redirect, 1);
        Assert.Equal("one", server.Ask("127.0.0.1", 80));
        string once = server.Exec("nft", "list", "ruleset");
        redirect.EnsureBase([Edge]);
        Assert.Equal(once, server.Exec("nft", "list", "ruleset"));
        Assert.Equal(Errno.Exists, Assert.Throws<KernelException>(() => Generation(redirect, 1)).Errno);
        Assert.Equal(once, server.Exec("nft", "list", "ruleset"));
        PairRules state = redirect.ReadAll().Pairs["edge"];
        Assert.Equal((1, true, Edge.Blue, Edge.Green), (state.Active, state.Reached, state.Blue, state.Green));
        Assert.Equal([new ServicePort(new Service(IPAddress.Any, 80), 21000)], state.Generations[1]);
        redirect.Remove();
        Assert.Equal(before, server.Exec("nft", "list", "ruleset"));
    });

    [Fact(Timeout = 30000)]
    public async Task A_rehearsal_changes_nothing_and_says_what_a_commit_would_run_into() => await Task.Run(() =>
    {
        using TestNetwork server = TestNetwork.Create("r");
        PairRedirect redirect = Open(server);
        redirect.EnsureBase([Edge]);
        Generation(redirect, 1, new ServicePort(Web, 21000));
        Flip(redirect, 1);
        Generation(redirect, 2, new ServicePort(Web, 22000));
        string before = server.Exec("nft", "list", "ruleset");
        using PreparedSwitch good = redirect.PrepareSwitch("edge", 2), bad = redirect.PrepareSwitch("edge", 3);
        good.Rehearse();
        const string error = "cannot switch pair edge to generation 3: ENOENT (at "
            + "\"add rule inet flipcontroller pair-edge goto generation-edge-3\")";
        Assert.Equal(error, Assert.Throws<KernelException>(bad.Rehearse).Message);
        Assert.Equal(Errno.NoEntry, bad.Commit());
        Assert.Equal(error, bad.Failure().Message);
        Assert.Equal(before, server.Exec("nft", "list", "ruleset"));
        long allocated = GC.GetAllocatedBytesForCurrentThread();
        int code = good.Commit();
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - allocated);
        Assert.Equal(0, code);
        Assert.Equal(2, redirect.ReadActive("edge"));
        Assert.InRange(good.Elapsed, TimeSpan.FromMicroseconds(1), TimeSpan.FromSeconds(1));
    });
}
