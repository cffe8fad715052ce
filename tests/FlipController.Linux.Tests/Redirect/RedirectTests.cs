using System.Net;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;
using FlipController.Linux.Tests.Kernel;
using Xunit;

namespace FlipController.Linux.Tests.Redirect;

/// <summary>What every redirect by rules does, whatever they are written with.</summary>
public abstract partial class RedirectTests
{
    protected const uint Mask = 0x00ffff00;
    protected static readonly PairPorts Edge = new("edge", new PortBlock(21000, 64), new PortBlock(22000, 64));
    protected static readonly Service Web = new(IPAddress.IPv6Any, 80);

    /// <summary>That acts in the network.</summary>
    private protected abstract PairRedirect Open(TestNetwork network);

    /// <summary>Everything that redirects there, whoever made it.</summary>
    private protected abstract string Listing(TestNetwork network);

    private protected abstract void Flush(TestNetwork network);

    private protected abstract void FlushServices(TestNetwork network);

    private protected abstract void FlushGuard(TestNetwork network);

    /// <summary>In the time of 1,500 connections.</summary>
    private protected abstract int LeastFlips { get; }

    private static uint Mark(int generation) => 0x00100000 | (uint)generation << 8;

    private protected static void Generation(PairRedirect redirect, int number, params ServicePort[] ports) =>
        redirect.AddGeneration("edge", number, Mark(number), Mask, [.. ports]);

    private protected static void Flip(PairRedirect redirect, int to)
    {
        using PreparedSwitch flip = redirect.PrepareSwitch("edge", to);
        flip.Rehearse();
        Assert.Equal(0, flip.Commit());
    }

    [Fact(Timeout = 30000)]
    public async Task Everyone_is_redirected_over_both_families_from_outside_and_from_here() => await Task.Run(() =>
    {
        (TestNetwork server, TestNetwork client) = TestNetwork.CreateTwo();
        using (client)
        using (server)
        {
            PairRedirect redirect = Open(server);
            server.Serve("::", 21000, "one", dual: true);
            server.Serve("::", 22000, "two", dual: true);
            redirect.EnsureBase([Edge]);
            Generation(redirect, 1, new ServicePort(Web, 21000));
            Generation(redirect, 2, new ServicePort(Web, 22000));
            foreach ((int number, string name) in ((int, string)[])[(1, "one"), (2, "two"), (1, "one")])
            {
                Flip(redirect, number);
                Assert.Equal(number, redirect.ReadActive("edge"));
                Assert.Equal(name, client.Ask("10.9.0.1", 80));
                Assert.Equal(name, client.Ask("fd09::1", 80));
                foreach (string own in (string[])["127.0.0.1", "::1", "10.9.0.1", "fd09::1"]) Assert.Equal(name, server.Ask(own, 80));
            }
        }
    });

    [Fact(Timeout = 30000)]
    public async Task Specific_addresses_go_before_wildcards_and_families_are_kept_apart() => await Task.Run(() =>
    {
        (TestNetwork server, TestNetwork client) = TestNetwork.CreateTwo();
        using (client)
        using (server)
        {
            PairRedirect redirect = Open(server);
            server.Serve("0.0.0.0", 21000, "any4");
            server.Serve("::", 21001, "any6");
            server.Serve("10.9.0.1", 21002, "this4");
            server.Serve("fd09::1", 21003, "this6");
            redirect.EnsureBase([Edge]);
            Generation(redirect, 1, new(new Service(IPAddress.Any, 80), 21000), new(new Service(IPAddress.IPv6Any, 80, V6Only: true), 21001),
                new(new Service(IPAddress.Parse("10.9.0.1"), 80), 21002), new(new Service(IPAddress.Parse("fd09::1"), 80), 21003));
            Flip(redirect, 1);
            Assert.Equal("this4", client.Ask("10.9.0.1", 80));
            Assert.Equal("this6", client.Ask("fd09::1", 80));
            Assert.Equal("any4", server.Ask("127.0.0.1", 80));
            Assert.Equal("any6", server.Ask("::1", 80));
        }
    });

    [Fact(Timeout = 30000)]
    public async Task A_connection_open_before_the_rules_stays_and_new_ones_go_to_the_pair() => await Task.Run(() =>
    {
        (TestNetwork server, TestNetwork client) = TestNetwork.CreateTwo();
        using (client)
        using (server)
        {
            server.Serve("::", 80, "unmanaged", dual: true);
            server.Serve("::", 21000, "one", dual: true);
            using Socket four = client.Connect("10.9.0.1", 80), six = client.Connect("fd09::1", 80), local = server.Connect("127.0.0.1", 80);
            Socket[] open = [four, six, local];
            foreach (Socket socket in open) Assert.Equal("unmanaged", TestNetwork.Line(socket));

            PairRedirect redirect = Open(server);
            redirect.EnsureBase([Edge]);
            Generation(redirect, 1, new ServicePort(Web, 21000));
            Flip(redirect, 1);

            // Their packets in the middle of a stream pass by, though conntrack calls them new.
            for (int i = 0; i < 3; i++)
                foreach (Socket socket in open) Assert.Equal("still here", TestNetwork.Echo(socket, "still here"));
            Assert.Equal("one", client.Ask("10.9.0.1", 80));

            redirect.Clear("edge");
            Assert.Null(redirect.ReadActive("edge"));
            Assert.Equal("unmanaged", client.Ask("10.9.0.1", 80));
            redirect.Remove();
            redirect.Remove();
            foreach (Socket socket in open) Assert.Equal("and after", TestNetwork.Echo(socket, "and after"));
            Assert.DoesNotContain("edge", Listing(server), StringComparison.Ordinal);
        }
    });

    [Fact(Timeout = 30000)]
    public async Task An_open_connection_stays_on_its_generation_when_others_flip_and_its_chain_goes() => await Task.Run(() =>
    {
        (TestNetwork server, TestNetwork client) = TestNetwork.CreateTwo();
        using (client)
        using (server)
        {
            PairRedirect redirect = Open(server);
            server.Serve("::", 21000, "one", dual: true);
            server.Serve("::", 22000, "two", dual: true);
            redirect.EnsureBase([Edge]);
            Generation(redirect, 1, new ServicePort(Web, 21000));
            Generation(redirect, 2, new ServicePort(Web, 22000));
            Flip(redirect, 1);
            using Socket old = client.Connect("10.9.0.1", 80);
            Assert.Equal("one", TestNetwork.Line(old));
            Assert.Equal(Errno.Busy, Assert.Throws<KernelException>(() => redirect.RemoveGeneration("edge", 1)).Errno);
            Flip(redirect, 2);
            redirect.RemoveGeneration("edge", 1);
            redirect.RemoveGeneration("edge", 1);
            Assert.Equal([2], redirect.Generations("edge"));
            Assert.Equal("still", TestNetwork.Echo(old, "still"));
            Assert.Equal("two", client.Ask("10.9.0.1", 80));
        }
    });

    [Fact(Timeout = 30000)]
    public async Task The_guard_refuses_private_ports_from_outside_and_lets_probes_in() => await Task.Run(() =>
    {
        (TestNetwork server, TestNetwork client) = TestNetwork.CreateTwo();
        using (client)
        using (server)
        {
            PairRedirect redirect = Open(server);
            server.Serve("::", 21000, "one", dual: true);
            server.Serve("::", 22063, "last", dual: true);
            server.Serve("::", 22064, "beyond", dual: true);
            Assert.Equal("one", client.Ask("10.9.0.1", 21000));
            redirect.EnsureBase([Edge]);
            Generation(redirect, 1, new ServicePort(Web, 21000));
            Flip(redirect, 1);
            foreach ((string address, int port) in ((string, int)[])[("10.9.0.1", 21000), ("fd09::1", 21000), ("10.9.0.1", 22063)])
                Assert.Equal(SocketError.ConnectionRefused, Assert.Throws<SocketException>(() => client.Ask(address, port)).SocketErrorCode);
            Assert.Equal("beyond", client.Ask("10.9.0.1", 22064));
            Assert.Equal("one", client.Ask("10.9.0.1", 80));
            foreach (string own in (string[])["127.0.0.1", "::1", "10.9.0.1"]) Assert.Equal("one", server.Ask(own, 21000));
        }
    });

    [Fact(Timeout = 30000)]
    public async Task A_closed_port_leads_this_host_and_nobody_else_to_the_one_that_stands_in() => await Task.Run(() =>
    {
        (TestNetwork server, TestNetwork client) = TestNetwork.CreateTwo();
        using (client)
        using (server)
        {
            PairRedirect redirect = Open(server);
            using Conntrack conntrack = server.Run(Conntrack.Open)!;
            server.Serve("::", 22000, "two", dual: true);
            server.Serve("127.0.0.1", 22001, "specific");
            redirect.EnsureBase([Edge]);
            Generation(redirect, 2, new ServicePort(Web, 22000));
            Flip(redirect, 2);
            void Refused(TestNetwork from, string address, int port) =>
                Assert.Equal(SocketError.ConnectionRefused, Assert.Throws<SocketException>(() => from.Ask(address, port)).SocketErrorCode);

            Refused(server, "127.0.0.1", 21000);
            LoopRoute[] routes =
            [
                new(1, new Service(IPAddress.Loopback, 80), 21000, 22001), new(1, Web, 21000, 22000), new(1, new Service(IPAddress.IPv6Any, 81, V6Only: true), 21001, 22000),
            ];
            redirect.SetLoops("edge", Mark(2), Mask, [.. routes]);
            Assert.Equal(routes, redirect.ReadAll().Pairs["edge"].Loops);
            Assert.Equal("specific", server.Ask("127.0.0.1", 21000));
            foreach (string own in (string[])["127.0.0.2", "::1", "10.9.0.1", "fd09::1"]) Assert.Equal("two", server.Ask(own, 21000));
            Assert.Equal("two", server.Ask("::1", 21001));
            Refused(server, "127.0.0.1", 21001);
            foreach (string outside in (string[])["10.9.0.1", "fd09::1"]) Refused(client, outside, 21000);
            Assert.Equal(6, conntrack.Count(Mark(2), Mask)!.Value.All);

            // The next start of a daemon leaves it as it is.
            redirect.EnsureBase([Edge]);
            Assert.Equal((2, 3), (redirect.ReadActive("edge"), redirect.ReadAll().Pairs["edge"].Loops.Length));
            redirect.SetLoops("edge", 0, Mask, []);
            Assert.Empty(redirect.ReadAll().Pairs["edge"].Loops);
            Refused(server, "::1", 21000);
            redirect.EnsureBase([], removeOthers: true);
            Assert.DoesNotContain("edge", Listing(server), StringComparison.Ordinal);
        }
    });

    [Fact(Timeout = 30000)]
    public async Task A_service_comes_and_another_goes_in_one_switch() => await Task.Run(() =>
    {
        (TestNetwork server, TestNetwork client) = TestNetwork.CreateTwo();
        using (client)
        using (server)
        {
            PairRedirect redirect = Open(server);
            server.Serve("::", 21000, "one", dual: true);
            server.Serve("::", 22000, "two", dual: true);
            server.Serve("::", 8080, "nobody's", dual: true);
            redirect.EnsureBase([Edge]);
            Generation(redirect, 1, new ServicePort(Web, 21000), new ServicePort(new Service(IPAddress.Any, 8080), 21000));
            Generation(redirect, 2, new ServicePort(Web, 22000), new ServicePort(new Service(IPAddress.Any, 9090), 22000));
            Flip(redirect, 1);
            Assert.Equal("one", client.Ask("10.9.0.1", 8080));
            Assert.Throws<SocketException>(() => client.Ask("10.9.0.1", 9090));
            Flip(redirect, 2);
            Assert.Equal("nobody's", client.Ask("10.9.0.1", 8080));
            Assert.Equal("two", client.Ask("10.9.0.1", 9090));
            Assert.Equal("two", client.Ask("10.9.0.1", 80));
        }
    });

    [Fact(Timeout = 30000)]
    public async Task What_a_pair_does_not_serve_is_the_next_pairs() => await Task.Run(() =>
    {
        using TestNetwork server = TestNetwork.Create("p");
        PairRedirect redirect = Open(server);
        server.Serve("::", 21000, "edge", dual: true);
        server.Serve("::", 23000, "mail", dual: true);
        PairPorts mail = new("mail", new PortBlock(23000, 1), new PortBlock(24000, 1));
        redirect.EnsureBase([Edge, mail]);
        Generation(redirect, 1, new ServicePort(Web, 21000));
        redirect.AddGeneration("mail", 1, Mark(1), Mask, [new ServicePort(new Service(IPAddress.Any, 25), 23000)]);
        Flip(redirect, 1);
        using (PreparedSwitch first = redirect.PrepareSwitch("mail", 1)) Assert.Equal(0, first.Commit());
        Assert.Equal("edge", server.Ask("127.0.0.1", 80));
        Assert.Equal("mail", server.Ask("127.0.0.1", 25));

        // The other pair is left alone, then told to go.
        redirect.EnsureBase([Edge]);
        Assert.Equal("mail", server.Ask("127.0.0.1", 25));
        Assert.Equal(mail.Blue, redirect.ReadAll().Pairs["mail"].Blue);
        FlushGuard(server);
        redirect.EnsureBase([Edge]);
        Assert.Equal("mail", server.Ask("127.0.0.1", 25));
        redirect.EnsureBase([Edge], removeOthers: true);
        Assert.Equal(["edge"], redirect.ReadAll().Pairs.Keys);
        Assert.Throws<SocketException>(() => server.Ask("127.0.0.1", 25));
        Assert.Equal("edge", server.Ask("127.0.0.1", 80));
    });

    [Fact(Timeout = 60000)]
    public async Task Flips_under_connects_lose_nothing() => await Task.Run(() =>
    {
        (TestNetwork server, TestNetwork client) = TestNetwork.CreateTwo();
        using (client)
        using (server)
        {
            PairRedirect redirect = Open(server);
            NamedServer one = server.Serve("::", 21000, "one", dual: true), two = server.Serve("::", 22000, "two", dual: true);
            redirect.EnsureBase([Edge]);
            Generation(redirect, 1, new ServicePort(Web, 21000));
            Generation(redirect, 2, new ServicePort(Web, 22000));
            Flip(redirect, 1);
            using PreparedSwitch there = redirect.PrepareSwitch("edge", 2), back = redirect.PrepareSwitch("edge", 1);
            using CancellationTokenSource stop = new();
            int flips = 0;
            Thread flipping = new(() =>
            {
                while (!stop.IsCancellationRequested)
                {
                    Assert.Equal(0, there.Commit());
                    Assert.Equal(0, back.Commit());
                    flips += 2;
                }
            });
            flipping.Start();
            try
            {
                for (int i = 0; i < 500; i++)
                {
                    Assert.Contains(client.Ask("10.9.0.1", 80), (string[])["one", "two"]);
                    Assert.Contains(client.Ask("fd09::1", 80), (string[])["one", "two"]);
                    Assert.Contains(server.Ask("127.0.0.1", 80), (string[])["one", "two"]);
                }
            }
            finally
            {
                stop.Cancel();
                flipping.Join();
            }
            Assert.True(one.Accepted > 0 && two.Accepted > 0 && flips > LeastFlips, $"{one.Accepted} and {two.Accepted} in {flips} flips");
            Assert.Equal(1500, one.Accepted + two.Accepted);
        }
    });

    [Fact(Timeout = 30000)]
    public async Task A_ruleset_somebody_flushed_is_noticed_and_put_right() => await Task.Run(() =>
    {
        using TestNetwork server = TestNetwork.Create("f");
        PairRedirect redirect = Open(server);
        redirect.EnsureBase([Edge]);
        Generation(redirect, 1, new ServicePort(Web, 21000));
        Flip(redirect, 1);
        Assert.Equal(1, redirect.ReadActive("edge"));
        FlushServices(server);
        Assert.Null(redirect.ReadActive("edge"));
        redirect.EnsureBase([Edge]);
        Assert.Equal(1, redirect.ReadActive("edge"));
        Flush(server);
        Assert.Equal(RedirectState.Nothing, redirect.ReadAll());
    });

    [Fact(Timeout = 30000)]
    public async Task Connections_carry_their_generations_mark_and_conntrack_counts_them() => await Task.Run(() =>
    {
        (TestNetwork server, TestNetwork client) = TestNetwork.CreateTwo();
        using (client)
        using (server)
        {
            PairRedirect redirect = Open(server);
            using Conntrack conntrack = server.Run(Conntrack.Open)!;
            server.Serve("::", 21000, "one", dual: true);
            server.Serve("::", 22000, "two", dual: true);
            redirect.EnsureBase([Edge]);
            Generation(redirect, 1, new ServicePort(Web, 21000));
            Generation(redirect, 2, new ServicePort(Web, 22000));
            Flip(redirect, 1);
            // Bits that are somebody else's stay what they were.
            server.Exec("nft", "add table inet other; add chain inet other c { type filter hook prerouting priority mangle; }; "
                + "add rule inet other c ip6 saddr fd09::2 tcp flags syn / syn,ack ct mark set 0x7f0000aa");
            List<Socket> open = [];
            try
            {
                for (int i = 0; i < 3; i++) open.Add(client.Connect("10.9.0.1", 80));
                for (int i = 0; i < 2; i++) open.Add(client.Connect("fd09::1", 80));
                foreach (Socket socket in open) Assert.Equal("one", TestNetwork.Line(socket));
                Flip(redirect, 2);
                open.Add(server.Connect("::1", 80));
                open.Add(client.Connect("10.9.0.1", 80));
                foreach (Socket socket in open[^2..].ToArray()) Assert.Equal("two", TestNetwork.Line(socket)); // answered: the server has it established, too

                Assert.Equal(new ConntrackCounts(5, 0, 5), conntrack.Count(Mark(1), Mask));
                Assert.Equal(new ConntrackCounts(2, 0, 2), conntrack.Count(Mark(2), Mask));
                Assert.Equal(new ConntrackCounts(0, 0, 0), conntrack.Count(Mark(3), Mask));
                Assert.Equal(2, conntrack.Count(0x7f1001aa, uint.MaxValue)!.Value.Live);
                foreach (int number in (int[])[1, 2])
                {
                    int listed = ((string[])["ipv4", "ipv6"]).Sum(family => server
                        .Exec("conntrack", "-L", "-f", family, "-p", "tcp", "-m", $"0x{Mark(number):x}/0x{Mask:x}")
                        .Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
                    Assert.Equal(listed, conntrack.Count(Mark(number), Mask)!.Value.All);
                }

                // Closed ones stay in the table for two minutes, and are not waited for.
                for (int i = 0; i < 3; i++) open[i].Dispose();
                Eventually.True(() => conntrack.Count(Mark(1), Mask)!.Value is { Live: 2, All: 5 }, "three of five closed");
            }
            finally
            {
                foreach (Socket socket in open) socket.Dispose();
            }
        }
    });

    [Fact(Timeout = 30000)]
    public async Task A_handshake_under_way_is_counted_by_conntrack_and_by_the_listener() => await Task.Run(() =>
    {
        (TestNetwork server, TestNetwork client) = TestNetwork.CreateTwo();
        using (client)
        using (server)
        {
            PairRedirect redirect = Open(server);
            using Conntrack conntrack = server.Run(Conntrack.Open)!;
            using SockDiag sockets = server.Run(() => new SockDiag());
            server.Serve("::", 21000, "one", dual: true);
            redirect.EnsureBase([Edge]);
            Generation(redirect, 1, new ServicePort(Web, 21000));
            Flip(redirect, 1);
            // The SYN-ACKs get lost on the way.
            client.Exec("nft", "add table inet lossy; add chain inet lossy c { type filter hook input priority -200; }; "
                + "add rule inet lossy c tcp sport 80 drop");
            List<Socket> opening = [];
            try
            {
                foreach (string address in (string[])["10.9.0.1", "10.9.0.1", "fd09::1"])
                {
                    opening.Add(client.Run(() =>
                    {
                        IPAddress to = IPAddress.Parse(address);
                        Socket socket = new(to.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { Blocking = false };
                        try { socket.Connect(to, 80); }
                        catch (SocketException e) when (e.SocketErrorCode == SocketError.WouldBlock) { }
                        return socket;
                    }));
                }
                Eventually.True(() => conntrack.Count(Mark(1), Mask)!.Value == new ConntrackCounts(3, 3, 3), "three opening in conntrack");
                // conntrack sees a SYN before the listener does.
                Eventually.True(() => sockets.HandshakesByPort(Edge.Blue).GetValueOrDefault(21000) == 3, "three at the listener");
                Assert.Empty(sockets.HandshakesByPort(Edge.Green));
                Assert.Empty(sockets.Connections(Edge.Blue));
                TcpSocket request = sockets.Sockets(TcpStates.SynReceived, Edge.Blue)[0];
                Assert.Equal((0u, 21000), (request.Inode, request.Local.Port));
            }
            finally
            {
                foreach (Socket socket in opening) socket.Dispose();
            }
        }
    });
}
