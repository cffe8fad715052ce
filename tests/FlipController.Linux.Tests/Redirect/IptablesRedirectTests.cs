using System.Collections.Immutable;
using System.Net;
using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;
using FlipController.Linux.Tests.Kernel;
using Xunit;

namespace FlipController.Linux.Tests.Redirect;

public sealed class IptablesNftRedirectTests() : IptablesRedirectTests(IptablesVariant.Nft)
{
    [Fact(Timeout = 30000)]
    public async Task Its_watch_tells_of_a_flush_within_a_second() => await Task.Run(Watched);
}

public sealed class IptablesLegacyRedirectTests() : IptablesRedirectTests(IptablesVariant.Legacy)
{
    [Fact(Timeout = 30000)]
    public async Task Its_watch_tells_of_a_flush_within_a_second() => await Task.Run(Watched);

    /// <summary>Each family is a commit of its own: what somebody else does in between waits for the lock.</summary>
    [Fact(Timeout = 30000)]
    public async Task Whoever_is_ready_keeps_others_out_until_it_is_done_or_let_go() => await Task.Run(() =>
    {
        using TestNetwork server = TestNetwork.Create("l");
        PairRedirect redirect = Made(server);
        using (PreparedSwitch flip = redirect.PrepareSwitch("edge", 2))
        {
            flip.MakeReady();
            Assert.ThrowsAny<Exception>(() => server.Exec("iptables-legacy", "-w", "1", "-t", "nat", "-A", "OUTPUT", "-j", "ACCEPT"));
            Assert.Equal(1, redirect.ReadActive("edge"));
        }
        server.Exec("iptables-legacy", "-t", "nat", "-A", "OUTPUT", "-j", "ACCEPT");
        Assert.Equal(1, redirect.ReadActive("edge"));
    });
}

public abstract class IptablesRedirectTests(IptablesVariant variant) : RedirectTests
{
    private readonly string _name = variant.ToString().ToLowerInvariant();

    private string[] Programs => [$"iptables-{_name}", $"ip6tables-{_name}"];

    private protected override PairRedirect Open(TestNetwork network) =>
        new There(network, network.Own(() => IptablesRedirect.Open(variant)));

    private protected override string Listing(TestNetwork network) => string.Concat(Programs.Select(p =>
        string.Concat(((string[])["nat", "filter"]).Select(table => string.Join('\n', network.Exec($"{p}-save", "-t", table)
            .Split('\n').Where(l => !l.StartsWith('#')).Select(l => l.Split('[')[0]))))));

    private protected override void Flush(TestNetwork network)
    {
        foreach (string program in Programs)
            foreach (string table in (string[])["nat", "filter"])
            {
                network.Exec(program, "-t", table, "-F");
                network.Exec(program, "-t", table, "-X");
            }
    }

    private protected override void FlushServices(TestNetwork network)
    {
        foreach (string program in Programs) network.Exec(program, "-t", "nat", "-F", "FLIP-SERVICES");
    }

    private protected override void FlushGuard(TestNetwork network)
    {
        foreach (string program in Programs) network.Exec(program, "-F", "FLIP-GUARD");
    }

    private protected override void RemoveTheWayOfUdp(TestNetwork network) => network.Exec(Programs[1], "-t", "nat", "-D", "FLIP-SERVICES", "2");

    private protected override int LeastFlips => 10;

    private protected PairRedirect Made(TestNetwork server)
    {
        PairRedirect redirect = Open(server);
        redirect.EnsureBase([Edge]);
        Generation(redirect, 1, new ServicePort(Web, 21000));
        Generation(redirect, 2, new ServicePort(Web, 22000));
        Flip(redirect, 1);
        return redirect;
    }

    [Fact(Timeout = 30000)]
    public async Task Everything_can_be_done_twice_and_rules_of_others_are_not_touched() => await Task.Run(() =>
    {
        using TestNetwork server = TestNetwork.Create("d");
        string four = Programs[0];
        // As a container engine leaves them.
        server.Exec(four, "-t", "nat", "-N", "DOCKER");
        server.Exec(four, "-t", "nat", "-A", "PREROUTING", "-m", "addrtype", "--dst-type", "LOCAL", "-j", "DOCKER");
        server.Exec(four, "-t", "nat", "-A", "DOCKER", "!", "-i", "docker0", "-p", "tcp", "--dport", "8443", "-j", "DNAT", "--to-destination", "172.17.0.2:443");
        server.Exec(four, "-A", "INPUT", "-p", "tcp", "--dport", "22", "-m", "comment", "--comment", "the \"door\" of all", "-j", "ACCEPT");
        foreach (string save in Programs) server.Exec(save, "-t", "nat", "-L", "-n"); // its tables are there
        PairRedirect redirect = Open(server);
        server.Serve("0.0.0.0", 21000, "one");
        Assert.Equal(RedirectState.Nothing, redirect.ReadAll());
        string before = Listing(server);
        redirect.RemoveGeneration("edge", 1);
        redirect.Clear("edge");
        redirect.Remove();
        Assert.Equal(before, Listing(server));
        redirect.EnsureBase([Edge]);
        Generation(redirect, 1, new ServicePort(new Service(IPAddress.Any, 80), 21000));
        Flip(redirect, 1);
        Assert.Equal("one", server.Ask("127.0.0.1", 80));
        string once = Listing(server);
        redirect.EnsureBase([Edge]);
        Assert.Equal(once, Listing(server));
        Assert.Equal(Errno.Exists, Assert.Throws<KernelException>(() => Generation(redirect, 1)).Errno);
        PairRules state = redirect.ReadAll().Pairs["edge"];
        Assert.Equal((1, true, Edge.Blue, Edge.Green), (state.Active, state.Reached, state.Blue, state.Green));
        Assert.Equal([new ServicePort(new Service(IPAddress.Any, 80), 21000)], state.Generations[1]);
        redirect.Remove();
        Assert.Equal(before, Listing(server));
    });

    [Fact(Timeout = 30000)]
    public async Task A_rehearsal_changes_nothing_and_a_flip_that_one_family_refuses_is_none() => await Task.Run(() =>
    {
        using TestNetwork server = TestNetwork.Create("r");
        PairRedirect redirect = Made(server);
        string before = Listing(server);
        using PreparedSwitch good = redirect.PrepareSwitch("edge", 2), bad = redirect.PrepareSwitch("edge", 3);
        good.Rehearse();
        Assert.Contains("cannot switch pair edge to generation 3", Assert.ThrowsAny<FlipException>(bad.Rehearse).Message, StringComparison.Ordinal);
        Assert.NotEqual(0, bad.Commit());
        Assert.Contains("cannot switch pair edge to generation 3", bad.Failure().Message, StringComparison.Ordinal);
        Assert.Equal(before, Listing(server));
        foreach (string program in Programs)
        {
            server.Exec(program, "-t", "nat", "-F", "FLIP-G-edge-2");
            server.Exec(program, "-t", "nat", "-X", "FLIP-G-edge-2");
            Assert.NotEqual(0, good.Commit());
            Assert.Equal(1, redirect.ReadActive("edge"));
            redirect.RemoveGeneration("edge", 2);
            Generation(redirect, 2, new ServicePort(Web, 22000));
        }
        good.MakeReady();
        Assert.Equal(0, good.Commit());
        Assert.Equal(2, redirect.ReadActive("edge"));
        Assert.InRange(good.Elapsed, TimeSpan.FromMicroseconds(1), TimeSpan.FromSeconds(1));
    });

    [Fact(Timeout = 30000)]
    public async Task A_family_whose_chains_are_gone_or_that_leads_elsewhere_is_put_right() => await Task.Run(() =>
    {
        using TestNetwork server = TestNetwork.Create("o");
        PairRedirect redirect = Made(server);
        foreach (string program in Programs)
        {
            foreach (string all in (string[])["-F", "-X"]) server.Exec(program, "-t", "nat", all);
            Assert.Null(redirect.ReadActive("edge"));
            redirect.EnsureBase([Edge]);
            for (int number = 1; number <= 2; number++) redirect.RestoreGeneration("edge", number, 0x100000 | (uint)number << 8, Mask, [new ServicePort(Web, 20000 + 1000 * number)]);
            redirect.EnsureBase([Edge]);
            Assert.Equal(1, redirect.ReadActive("edge"));
        }
        // As a kill between two commits leaves it.
        server.Exec(Programs[1], "-t", "nat", "-R", "FLIP-P-edge", "1", "-g", "FLIP-G-edge-2");
        Assert.Null(redirect.ReadActive("edge"));
        redirect.EnsureBase([Edge]);
        Assert.Equal(1, redirect.ReadActive("edge"));
    });

    [Fact(Timeout = 30000)]
    public async Task Names_too_long_for_a_chain_are_cut_and_known_again() => await Task.Run(() =>
    {
        using TestNetwork server = TestNetwork.Create("n");
        PairRedirect redirect = Open(server);
        string[] names = [new string('a', 100), new string('a', 99) + "b", "mail front/\u00e9", "flipcontroller"];
        PairPorts[] pairs = [.. names.Select((n, i) => new PairPorts(n, new PortBlock(23000 + i, 1), new PortBlock(24000 + i, 1)))];
        redirect.EnsureBase(pairs);
        foreach (PairPorts pair in pairs)
        {
            redirect.AddGeneration(pair.Name, 99999999, 0x100, Mask, [new ServicePort(new Service(IPAddress.Any, pair.Blue.First - 20000), pair.Blue.First)]);
            using PreparedSwitch flip = redirect.PrepareSwitch(pair.Name, 99999999);
            Assert.Equal(0, flip.Commit());
        }
        RedirectState state = redirect.ReadAll();
        Assert.Equal(names.Order(StringComparer.Ordinal), state.Pairs.Keys);
        foreach (PairPorts pair in pairs)
            Assert.Equal((99999999, pair.Blue, pair.Green), (state.Active(pair.Name), state.Pairs[pair.Name].Blue, state.Pairs[pair.Name].Green));
        foreach (PairPorts pair in pairs) redirect.RemovePair(pair.Name);
        Assert.Equal(RedirectState.Nothing, redirect.ReadAll());
        Assert.DoesNotContain("FLIP-", Listing(server), StringComparison.Ordinal);
    });

    private protected void Watched()
    {
        using TestNetwork server = TestNetwork.Create("w");
        PairRedirect redirect = Made(server);
        int told = 0;
        using IptablesWatch watch = server.Run(() => new IptablesWatch(variant, () => Interlocked.Increment(ref told)));
        Flush(server);
        Eventually.True(() => Volatile.Read(ref told) > 0, "it tells of it");
        Assert.Equal(RedirectState.Nothing, redirect.ReadAll());
    }

    /// <summary>Its programs start in the namespace of whoever calls.</summary>
    private sealed class There(TestNetwork network, PairRedirect inner) : PairRedirect
    {
        public override string Method => inner.Method;
        public override string Place => inner.Place;
        public override int Priority => inner.Priority;

        public override void EnsureBase(IReadOnlyCollection<PairPorts> pairs, bool removeOthers = false) => network.Run(() => inner.EnsureBase(pairs, removeOthers));

        public override string Describe(string pair, int number, uint mark, uint mask, ImmutableArray<ServicePort> ports) => inner.Describe(pair, number, mark, mask, ports);

        public override string DescribeSwitch(string pair, int number) => inner.DescribeSwitch(pair, number);

        public override void AddGeneration(string pair, int number, uint mark, uint mask, ImmutableArray<ServicePort> ports) =>
            network.Run(() => inner.AddGeneration(pair, number, mark, mask, ports));

        public override void RestoreGeneration(string pair, int number, uint mark, uint mask, ImmutableArray<ServicePort> ports) =>
            network.Run(() => inner.RestoreGeneration(pair, number, mark, mask, ports));

        public override void RemoveGeneration(string pair, int number) => network.Run(() => inner.RemoveGeneration(pair, number));

        public override void SetLoops(string pair, uint mark, uint mask, ImmutableArray<LoopRoute> routes) => network.Run(() => inner.SetLoops(pair, mark, mask, routes));

        public override PreparedSwitch PrepareSwitch(string pair, int toNumber) => new SwitchThere(network, inner.PrepareSwitch(pair, toNumber));

        public override void Clear(string pair) => network.Run(() => inner.Clear(pair));

        public override void RemovePair(string pair) => network.Run(() => inner.RemovePair(pair));

        public override void Remove() => network.Run(inner.Remove);

        public override RedirectState ReadAll() => network.Run(inner.ReadAll);

        public override void Dispose() => inner.Dispose();
    }

    private sealed class SwitchThere(TestNetwork network, PreparedSwitch inner) : PreparedSwitch(inner.Pair, inner.To)
    {
        public override void Rehearse() => network.Run(inner.Rehearse);

        public override void MakeReady() => network.Run(inner.MakeReady);

        public override int Commit()
        {
            int code = network.Run(inner.Commit);
            ElapsedTicks = inner.ElapsedTicks;
            return code;
        }

        public override FlipException Failure() => inner.Failure();

        public override void Dispose() => inner.Dispose();
    }
}
