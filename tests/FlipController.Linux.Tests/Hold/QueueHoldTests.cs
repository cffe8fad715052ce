using System.Collections.Immutable;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Hold;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;
using FlipController.Linux.Tests.Kernel;
using FlipController.Tests.Shared;
using Xunit;
using Eventually = FlipController.Linux.Tests.Kernel.Eventually;

namespace FlipController.Linux.Tests.Hold;

public sealed class QueueHoldTests
{
    [Fact(Timeout = 60000)]
    public async Task Remote_and_local_SYNs_of_both_families_wait_and_everybody_else_passes() => await Task.Run(() =>
    {
        using HeldNetwork network = new(80, 81);
        network.Server.Serve("::", 80, "web", dual: true);
        network.Server.Serve("::", 81, "other", dual: true);
        using Socket established = network.Client.Connect("10.9.0.1", 80);
        Assert.Equal("web", TestNetwork.Line(established));
        QueueHold hold = network.Prepare(HeldNetwork.Scope("edge", 80));
        hold.Rehearse();
        Assert.Equal("web", network.Client.Ask("fd09::1", 80));
        Assert.Equal(default, hold.Tally());

        Assert.Equal(0, hold.Close());
        network.SendingBegins();
        Held[] held =
        [
            new(network.Client, "10.9.0.1", 80), new(network.Client, "fd09::1", 80),
            new(network.Server, "127.0.0.1", 80), new(network.Server, "::1", 80), new(network.Server, "10.9.0.1", 80),
        ];
        Eventually.True(() => hold.Tally().Held >= 5, "five wait");
        Assert.Equal("still", TestNetwork.Echo(established, "still"));
        Assert.Equal("other", network.Client.Ask("10.9.0.1", 81));
        Assert.Equal("other", network.Server.Ask("::1", 81));
        Assert.DoesNotContain(held, one => one.IsConnected);
        Assert.Equal(0, hold.Open());

        foreach (Held one in held)
        {
            Assert.Equal("web", one.Line());
            one.Dispose();
        }
        HoldTally tally = hold.Tally();
        Assert.Equal(0, tally.Dropped);
        Assert.True(tally.LongestWait > TimeSpan.Zero, $"{tally}");
        network.SentOnce(80, 4); // established, the rehearsed one, and two that waited: none had to be sent again
        Assert.Equal("web", network.Client.Ask("10.9.0.1", 80));
        hold.Dispose();
        Assert.False(network.HasTable);
        Assert.Equal("web", network.Client.Ask("10.9.0.1", 80));
    });

    [Fact(Timeout = 60000)]
    public async Task They_go_on_in_the_order_they_came() => await Task.Run(() =>
    {
        using HeldNetwork network = new(80);
        using Socket listener = network.Server.Run(() =>
        {
            Socket socket = new(AddressFamily.InterNetworkV6, SocketType.Stream, ProtocolType.Tcp) { DualMode = true };
            socket.Bind(new IPEndPoint(IPAddress.IPv6Any, 80));
            socket.Listen(100);
            return socket;
        });
        QueueHold hold = network.Prepare(HeldNetwork.Scope("edge", 80));
        Assert.Equal(0, hold.Close());
        network.SendingBegins();
        List<Held> held = [];
        for (int i = 0; i < 20; i++)
        {
            held.Add(new Held(network.Client, i % 2 == 0 ? "10.9.0.1" : "fd09::1", 80));
            Eventually.True(() => hold.Tally().Held >= i + 1, "it waits");
        }
        Assert.Equal(0, hold.Open());
        int[] accepted = [.. held.Select(_ =>
        {
            using Socket socket = listener.Accept();
            return ((IPEndPoint)socket.RemoteEndPoint!).Port;
        })];
        Assert.Equal(held.Select(h => h.Port), accepted);
        network.SentOnce(80, 20);
        foreach (Held one in held) one.Dispose();
    });

    [Fact(Timeout = 60000)]
    public async Task The_rules_of_the_moment_it_opens_decide_where_they_land() => await Task.Run(() =>
    {
        using HeldNetwork network = new(80);
        NftRedirect redirect = network.Server.Own(NftRedirect.Open);
        network.Server.Serve("::", 21000, "one", dual: true);
        network.Server.Serve("::", 22000, "two", dual: true);
        redirect.EnsureBase([new PairPorts("edge", new PortBlock(21000, 1), new PortBlock(22000, 1))]);
        foreach ((int number, int port) in ((int, int)[])[(1, 21000), (2, 22000)])
            redirect.AddGeneration("edge", number, (uint)number << 8, 0x00ffff00, [new ServicePort(new Service(IPAddress.IPv6Any, 80), port)]);
        Assert.Equal(0, redirect.PrepareSwitch("edge", 1).Commit());
        PreparedSwitch there = redirect.PrepareSwitch("edge", 2);
        Assert.Equal("one", network.Client.Ask("10.9.0.1", 80));
        QueueHold hold = network.Prepare(HeldNetwork.Scope("edge", 80));
        Assert.Equal(0, hold.Close());
        network.SendingBegins();
        using Held remote = new(network.Client, "10.9.0.1", 80), remote6 = new(network.Client, "fd09::1", 80);
        using Held local = new(network.Server, "127.0.0.1", 80), local6 = new(network.Server, "::1", 80);
        Eventually.True(() => hold.Tally().Held >= 4, "four wait");
        Assert.Equal(0, there.Commit());
        Assert.Equal(0, hold.Open());
        Assert.All([remote, remote6, local, local6], held => Assert.Equal("two", held.Line()));
        network.SentOnce(80, 3);
    });

    /// <summary>The kernel that has sch_plug has nft_queue, too: the other one's rule is an NFQUEUE of xtables.</summary>
    [Fact(Timeout = 60000), Trait("needs", "plug")]
    public async Task Where_the_kernel_has_nft_queue_the_rule_is_one_that_nft_can_print() => await Task.Run(() =>
    {
        Require.Plug();
        using HeldNetwork network = new(80);
        network.Server.Serve("::", 80, "web", dual: true);
        QueueHold hold = network.Prepare(HeldNetwork.Scope("edge", 80));
        hold.Rehearse();
        Assert.Matches(@"queue flags bypass to \d+\n", network.Server.Exec("nft", "list", "chain", "inet", HoldTable.Name, "hold-edge"));
        Assert.Equal(0, hold.Close());
        network.SendingBegins();
        using Held remote = new(network.Client, "10.9.0.1", 80), remote6 = new(network.Client, "fd09::1", 80), local = new(network.Server, "::1", 80);
        Eventually.True(() => hold.Tally().Held >= 3, "three wait");
        Assert.Equal(0, hold.Open());
        Assert.All([remote, remote6, local], held => Assert.Equal("web", held.Line()));
        network.SentOnce(80, 2);
    });

    [Fact(Timeout = 60000)]
    public async Task Only_whom_the_scope_names_is_held() => await Task.Run(() =>
    {
        using HeldNetwork network = new(80);
        network.Server.Serve("::", 80, "web", dual: true);
        QueueHold incoming = network.Prepare(HeldNetwork.Scope("incoming", 80) with { Local = false });
        Assert.Equal(0, incoming.Close());
        Assert.Equal("web", network.Server.Ask("10.9.0.1", 80));
        incoming.Dispose();
        QueueHold local = network.Prepare(HeldNetwork.Scope("local", 80) with { Incoming = false });
        Assert.Equal(0, local.Close());
        Assert.Equal("web", network.Client.Ask("10.9.0.1", 80));
        Assert.Equal(0, local.Tally().Held);
    });

    [Fact(Timeout = 60000)]
    public async Task Five_thousand_at_once_wait_and_none_is_lost() => await Task.Run(() =>
    {
        using HeldNetwork network = new(80);
        QueueHold hold = network.Prepare(HeldNetwork.Scope("edge", 80));
        using SynStorm storm = new(network.Client, "10.9.0.2", "10.9.0.1", 80);
        storm.Send(1);
        Eventually.True(() => network.Passed(80) == 1, "the first one passes");
        hold.Rehearse();
        Assert.Equal(0, hold.Close());
        long start = Stopwatch.GetTimestamp();
        storm.Send(5000);
        TimeSpan sending = Stopwatch.GetElapsedTime(start);
        Eventually.True(() => hold.Tally().Held == 5000, "all wait");
        Assert.Equal(1, network.Passed(80));
        start = Stopwatch.GetTimestamp();
        Assert.Equal(0, hold.Open());
        TestContext.Current.TestOutputHelper?.WriteLine($"5000 SYNs sent in {sending.TotalMilliseconds:0} ms, let go in {Stopwatch.GetElapsedTime(start).TotalMilliseconds:0} ms");
        Eventually.True(() => network.Passed(80) == 5001, "all went on");
        Assert.Equal((5000, 0), (hold.Tally().Held, hold.Tally().Dropped));
    });

    [Fact(Timeout = 120000)]
    public async Task Hundreds_of_holds_in_a_storm_lose_none() => await Task.Run(() =>
    {
        using HeldNetwork network = new(80);
        using SynStorm storm = new(network.Client, "10.9.0.2", "10.9.0.1", 80);
        using CancellationTokenSource stop = new();
        Task sending = Task.Factory.StartNew(() =>
        {
            while (!stop.IsCancellationRequested) storm.Send(100);
        }, TaskCreationOptions.LongRunning);
        long held = 0;
        try
        {
            for (int round = 0; round < 10; round++)
            {
                using QueueHold hold = network.Server.Run(() => QueueHold.Prepare(HeldNetwork.Scope("edge", 80)));
                for (int i = 0; i < 50; i++)
                {
                    Assert.Equal(0, hold.Close());
                    if (i % 10 == 0) Eventually.True(() => hold.Tally().Held > 0, "somebody waits");
                    Assert.Equal(0, hold.Open());
                    HoldTally tally = hold.Tally();
                    Assert.Equal(0, tally.Dropped);
                    held += tally.Held;
                }
            }
        }
        finally
        {
            stop.Cancel();
            sending.Wait();
        }
        TestContext.Current.TestOutputHelper?.WriteLine($"{held} of {storm} waited");
        Eventually.True(() => network.Passed(80) == network.Sent(80), "all went on");
        Assert.False(network.HasTable);
    });

    [Theory(Timeout = 60000)]
    [InlineData(HoldingProcess.Kill)]
    [InlineData(HoldingProcess.Stop)]
    public async Task Opens_without_its_owner(int signal) => await Task.Run(() =>
    {
        using HeldNetwork network = new(80);
        network.Server.Serve("::", 80, "web", dual: true);
        using (HoldingProcess holding = HoldingProcess.Start(network.Server, 80, TimeSpan.FromMilliseconds(500)))
        {
            network.SendingBegins();
            using Held held = new(network.Client, "10.9.0.1", 80), local = new(network.Server, "::1", 80);
            holding.Signal(signal);
            Assert.All([held, local], one => Assert.Equal("web", one.Line()));
            network.SentOnce(80, 1); // let go, and not lost and sent again
            Assert.Equal("web", network.Client.Ask("10.9.0.1", 80));
            if (signal == HoldingProcess.Stop) Assert.Equal([(HoldingProcess.Owner, true)], network.Server.Run(HoldTraces.Find));
        }
        Assert.Equal([(HoldingProcess.Owner, false)], network.Server.Run(HoldTraces.Find));
        Eventually.True(() => network.Server.Run(QueuesThere) == 0, "the queue is gone with the last one who had its socket");
        HoldLeftovers removed = network.Server.Run(HoldTable.RemoveAll);
        Assert.Equal([HoldingProcess.Owner], removed.Owners);
        Assert.Null(removed.Kept);
        Assert.False(network.HasTable);
        Assert.Equal("web", network.Client.Ask("10.9.0.1", 80));
    });

    [Fact(Timeout = 60000)]
    public async Task What_waits_for_the_dead_is_let_go_when_it_is_removed_and_the_livings_guard_is_left_alone() => await Task.Run(() =>
    {
        using HeldNetwork network = new(80, 81);
        network.Server.Serve("::", 80, "web", dual: true);
        network.Server.Serve("::", 81, "other", dual: true);
        using QueueHold living = network.Prepare(HeldNetwork.Scope("living", 81));
        using DeadMan guard = DeadMan.Arm(living.ForcedOpenings, living.Scope.Max);
        Assert.Equal(0, living.Close());
        using Held waiting = new(network.Client, "10.9.0.1", 81);
        using (HoldingProcess holding = HoldingProcess.Start(network.Server, 80, TimeSpan.FromSeconds(60)))
        {
            network.SendingBegins();
            using Held held = new(network.Client, "10.9.0.1", 80), local = new(network.Server, "::1", 80);
            Eventually.True(() => network.Server.Run(WaitingThere) >= 3, "all wait");
            holding.Signal(HoldingProcess.Kill);
            holding.WaitForEnd();
            Assert.Equal([HoldingProcess.Owner], network.Server.Run(HoldTable.RemoveAll).Owners);
            Assert.All([held, local], one => Assert.Equal("web", one.Line()));
            network.SentOnce(80, 1); // let go, and not lost and sent again
        }
        Assert.Equal(1, network.Server.Run(QueuesThere));
        Assert.False(waiting.IsConnected);
        Assert.False(guard.HasFired);
        Assert.Equal(0, living.Open());
        Assert.Equal("other", waiting.Line());
    });

    /// <summary>As when the close had to wait for another's transaction: the ports are in the set for longer than the guard waits.</summary>
    [Fact(Timeout = 60000)]
    public async Task Once_it_is_opened_from_outside_nobody_waits_in_it_any_more() => await Task.Run(() =>
    {
        using HeldNetwork network = new(80);
        network.Server.Serve("::", 80, "web", dual: true);
        QueueHold hold = network.Prepare(HeldNetwork.Scope("edge", 80) with { Max = TimeSpan.FromMinutes(1) });
        using DeadMan guard = DeadMan.Arm(hold.ForcedOpenings, TimeSpan.FromMilliseconds(300));
        Assert.Equal(0, hold.Close());
        network.SendingBegins();
        using Held held = new(network.Client, "10.9.0.1", 80), local = new(network.Server, "::1", 80);
        Eventually.True(() => guard.HasFired, "its time is over");
        Assert.All([held, local], one => Assert.Equal("web", one.Line()));
        using Held late = new(network.Client, "fd09::1", 80), lateLocal = new(network.Server, "127.0.0.1", 80);
        Assert.All([late, lateLocal], one => Assert.Equal("web", one.Line()));
        network.SentOnce(80, 2);
        Assert.Equal(0, network.Server.Run(WaitingThere));
        Assert.Equal(0, hold.Open());
    });

    [Fact(Timeout = 60000)]
    public async Task Whoever_finds_no_room_goes_on_unheld() => await Task.Run(() =>
    {
        using HeldNetwork network = new(80);
        QueueHold hold = network.Server.Own(() => QueueHold.Prepare(HeldNetwork.Scope("edge", 80), length: 10));
        using SynStorm storm = new(network.Client, "10.9.0.2", "10.9.0.1", 80);
        Assert.Equal(0, hold.Close());
        storm.Send(100);
        Eventually.True(() => network.Passed(80) == 90, "ninety went on");
        Assert.Equal(0, hold.Open());
        Eventually.True(() => network.Passed(80) == 100, "all went on");
        Assert.Equal((10, 0), (hold.Tally().Held, hold.Tally().Dropped));
    });

    [Theory(Timeout = 60000)]
    [InlineData("delete table inet flipcontroller-hold")]
    [InlineData("flush ruleset")]
    public async Task A_table_that_somebody_removes_while_it_holds_is_told_and_traffic_flows(string command) => await Task.Run(() =>
    {
        using HeldNetwork network = new(80);
        network.Server.Serve("::", 80, "web", dual: true);
        QueueHold hold = network.Prepare(HeldNetwork.Scope("edge", 80));
        Assert.Equal(0, hold.Close());
        using Held held = new(network.Client, "10.9.0.1", 80);
        Eventually.True(() => hold.Tally().Held >= 1, "one waits");
        network.Server.Exec(["nft", .. command.Split(' ')]);
        Assert.Equal("web", network.Client.Ask("fd09::1", 80));
        Assert.Equal(Errno.NoEntry, hold.Open());
        Assert.Equal("cannot open the hold of edge: ENOENT (at \"flush set inet flipcontroller-hold ports-edge\": somebody else removed the table)",
            hold.Failure.Message);
        Assert.InRange(hold.Tally().Dropped, 1, 5); // the kernel drops who waits when a hook goes
        Assert.Equal(Errno.NoEntry, hold.Close());
        Assert.Equal(0, hold.Tally().Held);
        Assert.Equal("web", held.Line()); // sent again
        hold.Dispose();
        Assert.Equal("web", network.Client.Ask("10.9.0.1", 80));
        Assert.False(network.HasTable);
    });

    [Fact(Timeout = 60000)]
    public async Task Foreign_rules_and_packets_in_a_foreign_queue_are_not_touched() => await Task.Run(() =>
    {
        using HeldNetwork network = new(80);
        network.Server.Serve("::", 80, "web", dual: true);
        network.Server.Serve("::", 9000, "inspected", dual: true);
        network.Server.Exec("nft", "table inet ids { chain inspect { }; chain early { type filter hook prerouting priority raw; tcp dport 22 counter accept; }; "
            + "chain late { type filter hook input priority 10; tcp dport 9000 tcp flags & (syn|ack) == syn jump inspect; }; }");
        NfQueue foreign = network.Server.Own(() => NfQueue.BindFree());
        using NetlinkSocket netlink = network.Server.Run(() => new NetlinkSocket(NetlinkProtocol.Netfilter));
        Assert.Equal(0, HoldBatches.AddXtQueue(netlink.Fd, "ids", "inspect", (ushort)foreign.Number));
        string before = network.Foreign();
        using Held inspected = new(network.Client, "10.9.0.1", 9000);
        Eventually.True(() => foreign.ReadLine() is { Waiting: >= 1 }, "a packet waits in the foreign queue");

        using (QueueHold hold = network.Prepare(HeldNetwork.Scope("edge", 80)))
        {
            Assert.Equal(foreign.Number + 1, hold.Number); // the first number is taken
            hold.Rehearse();
            Assert.Equal(0, hold.Close());
            Assert.Equal(before, network.Foreign());
            Assert.Equal(0, hold.Open());
        }
        // After a second its client sends it again, and both wait.
        Assert.True(foreign.ReadLine()?.Waiting >= 1);
        Assert.True(network.HasTable);
        HoldLeftovers kept = network.Server.Run(HoldTable.RemoveAll);
        Assert.Empty(kept.Owners);
        Assert.Equal($"the empty chains of table inet flipcontroller-hold stay, as removing them could lose packets that wait in NFQUEUE {foreign.Number}", kept.Kept);
        Assert.Equal(before, network.Foreign());
        Assert.True(foreign.ReadLine()?.Waiting >= 1);
        foreign.Dispose(); // drops the packet, which its client sends again
        Assert.Equal("inspected", inspected.Line());
        Assert.Null(network.Server.Run(HoldTable.RemoveAll).Kept);
        Assert.False(network.HasTable);
        Assert.Equal(before, network.Foreign());
    });

    [Fact(Timeout = 60000)]
    public async Task Two_owners_hold_at_once_each_its_own_ports_and_both_the_same() => await Task.Run(() =>
    {
        using HeldNetwork network = new(80);
        network.Server.Serve("::", 80, "web", dual: true);
        network.Server.Serve("::", 81, "other", dual: true);
        QueueHold edge = network.Prepare(HeldNetwork.Scope("edge", 80)), protect = network.Prepare(HeldNetwork.Scope("protect-1234", 80, 81));
        Assert.StartsWith("cannot hold for edge: another process holds for it already; nothing new is held",
            Assert.Throws<FlipException>(() => network.Server.Run(() => QueueHold.Prepare(HeldNetwork.Scope("edge", 82)))).Message,
            StringComparison.Ordinal);
        Assert.Equal(0, edge.Close());
        Assert.Equal("other", network.Client.Ask("10.9.0.1", 81));
        Assert.Equal(0, protect.Close());
        network.SendingBegins();
        using Held web = new(network.Client, "10.9.0.1", 80), other = new(network.Server, "::1", 81);
        Eventually.True(() => edge.Tally().Held >= 1 && protect.Tally().Held >= 1, "each holds one");
        // Whom one lets go, the other holds.
        Assert.Equal(0, edge.Open());
        Eventually.True(() => protect.Tally().Held >= 2, "the second holds whom the first let go");
        edge.Dispose();
        Assert.True(network.HasTable);
        Assert.Equal(0, protect.Open());
        Assert.Equal(("web", "other"), (web.Line(), other.Line()));
        network.SentOnce(80, 1);
        protect.Dispose();
        Assert.False(network.HasTable);
    });

    [Fact(Timeout = 60000)]
    public async Task Close_and_open_allocate_nothing() => await Task.Run(() =>
    {
        using HeldNetwork network = new(80);
        QueueHold hold = network.Prepare(HeldNetwork.Scope("edge", [.. Enumerable.Range(80, 2500)]));
        Assert.Equal(0, hold.Close()); // as many ports as need several messages
        string set = network.Server.Exec("nft", "list", "set", "inet", "flipcontroller-hold", "ports-edge");
        Assert.Equal(2500, set.Split("timeout 1m ").Length - 1);
        Assert.Equal(0, hold.Open());
        Assert.DoesNotContain("elements", network.Server.Exec("nft", "list", "set", "inet", "flipcontroller-hold", "ports-edge"), StringComparison.Ordinal);
        hold.Dispose();

        hold = network.Prepare(HeldNetwork.Scope("edge", 80, 443));
        hold.Rehearse();
        const int rounds = 1000;
        long[] ticks = new long[rounds];
        long allocated = GC.GetAllocatedBytesForCurrentThread();
        int failures = 0;
        for (int i = 0; i < rounds; i++)
        {
            long start = Stopwatch.GetTimestamp();
            if (hold.Close() != 0 || hold.Open() != 0) failures++;
            ticks[i] = Stopwatch.GetTimestamp() - start;
        }
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - allocated);
        Assert.Equal(0, failures);
        TestContext.Current.TestOutputHelper?.WriteLine($"first {Microseconds(ticks[0]):0} us");
        Array.Sort(ticks);
        TestContext.Current.TestOutputHelper?.WriteLine($"close and open: p50 {Microseconds(ticks[rounds / 2]):0} us, p99 {Microseconds(ticks[rounds * 99 / 100]):0} us");

        static double Microseconds(long ticks) => Stopwatch.GetElapsedTime(0, ticks).TotalMicroseconds;
    });

    [Fact(Timeout = 60000)]
    public async Task Without_rights_it_says_so_in_a_sentence_and_leaves_nothing() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("q");
        // The namespace's own thread gives up its capabilities, and only that.
        network.Run(Capabilities.DropAll);
        foreach ((string method, Func<IDisposable> prepare) in ((string, Func<IDisposable>)[])
            [("queue", () => QueueHold.Prepare(HeldNetwork.Scope("edge", 80))), ("drop", () => DropHold.Prepare(HeldNetwork.Scope("edge", 80)))])
        {
            FlipException refused = Assert.Throws<FlipException>(() => network.Run(prepare));
            Assert.StartsWith($"cannot prepare the hold of edge ({method}): cannot ", refused.Message, StringComparison.Ordinal);
            Assert.EndsWith("; nothing is held; it takes CAP_NET_ADMIN: run it as root", refused.Message, StringComparison.Ordinal);
            TestContext.Current.TestOutputHelper?.WriteLine(refused.Message);
        }
        Assert.DoesNotContain(HoldTable.Name, network.Exec("nft", "list", "ruleset"), StringComparison.Ordinal);
        Assert.Empty(Directory.GetFiles("/run", Path.GetFileName(network.Run(() => HoldLock.PathOf("edge")))));
    });

    [Fact(Timeout = 60000)]
    public async Task A_drop_hold_loses_them_and_counts() => await Task.Run(() =>
    {
        using HeldNetwork network = new(80);
        network.Server.Serve("::", 80, "web", dual: true);
        using (DropHold hold = network.Server.Run(() => DropHold.Prepare(HeldNetwork.Scope("edge", 80))))
        {
            hold.Rehearse();
            Assert.Equal("web", network.Client.Ask("10.9.0.1", 80));
            Assert.Equal(0, hold.Close());
            using Held held = new(network.Client, "10.9.0.1", 80);
            Eventually.True(() => hold.Tally().Dropped >= 1, "one is dropped");
            Assert.Equal(0, hold.Open());
            Assert.Equal("web", held.Line());
            Assert.Equal(0, hold.Tally().Held);
        }
        Assert.False(network.HasTable);
        DropHold brief = network.Server.Own(() => DropHold.Prepare(HeldNetwork.Scope("edge", 80) with { Max = TimeSpan.FromMilliseconds(50) }));
        Assert.Equal(0, brief.Close());
        Assert.Equal("web", network.Client.Ask("10.9.0.1", 80)); // nobody opened it but the kernel
    });

    private static long WaitingThere()
    {
        using NfQueueList list = NfQueueList.Open();
        return list.Read().Sum(line => line.Waiting);
    }

    private static int QueuesThere()
    {
        using NfQueueList list = NfQueueList.Open();
        return list.Read().Count;
    }

    /// <summary>A connection that is begun and not waited for.</summary>
    private sealed class Held : IDisposable
    {
        private readonly Socket _socket;
        private readonly Task _connected;

        internal Held(TestNetwork from, string address, int port)
        {
            IPAddress to = IPAddress.Parse(address);
            _socket = from.Run(() => new Socket(to.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { ReceiveTimeout = 10000 });
            _connected = _socket.ConnectAsync(to, port); // the SYN has been sent when this returns
        }

        internal bool IsConnected => _connected.IsCompleted;

        internal int Port
        {
            get
            {
                // .NET knows its own end only then.
                Assert.True(_connected.Wait(TimeSpan.FromSeconds(20)), "it does not connect");
                return ((IPEndPoint)_socket.LocalEndPoint!).Port;
            }
        }

        internal string Line()
        {
            Assert.True(_connected.Wait(TimeSpan.FromSeconds(20)), "it does not connect");
            return TestNetwork.Line(_socket);
        }

        public void Dispose() => _socket.Dispose();
    }
}
