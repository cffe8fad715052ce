using System.Collections.Immutable;
using System.Globalization;
using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Handover;
using FlipController.Linux.Kernel;
using FlipController.Linux.Tests.Kernel;
using Xunit;
using static FlipController.Linux.Tests.Kernel.TestNetwork;

namespace FlipController.Linux.Tests.Handover;

/// <summary>The rules in two real nodes and a client on one link: no HAProxy, no keepalived, each node's server says its name.</summary>
public sealed class HandoverTableTests
{
    private static readonly TimeSpan s_long = TimeSpan.FromMinutes(5);

    public static TheoryData<string> Families => ["10.9.0.100", "fd09::100"];

    [Theory(Timeout = 60000)]
    [MemberData(nameof(Families))]
    public async Task NEW_connections_go_to_the_peer_while_the_lease_holds_and_open_ones_stay(string vip) => await Task.Run(() =>
    {
        using var link = new Link3();
        using Socket open = link.Client.Connect(vip, 80);
        Assert.Equal("a", Line(open));
        link.Put(OpeningRule.Note);
        link.A.Table.Renew(s_long);
        Assert.Equal("a", link.Client.Ask(vip, 80)); // nothing is led away yet, lease or no
        link.Put(OpeningRule.Divert);
        using Socket moved = link.Client.Connect(vip, 80);
        Assert.Equal("b", Line(moved));
        Assert.Equal("hello", Echo(open, "hello"));

        link.A.Lapse();
        Assert.Equal("a", link.Client.Ask(vip, 80));
        Assert.Equal("still there", Echo(moved, "still there")); // what the peer has it keeps
        link.A.Table.Renew(TimeSpan.FromMilliseconds(300));
        Assert.Equal("b", link.Client.Ask(vip, 80));
        Eventually.True(() => link.Client.Ask(vip, 80) == "a", "the lease should end by itself");

        link.A.Table.Renew(s_long);
        link.Put(OpeningRule.Keep); // cancelled
        Assert.Equal("a", link.Client.Ask(vip, 80));
        Assert.Equal("and there", Echo(moved, "and there"));
        Assert.Equal("hello again", Echo(open, "hello again"));
        Assert.True(link.A.Table.Led() > 10);
        Assert.True(link.A.Table.Remove());
        Assert.False(link.A.Table.Remove());
        Assert.Equal("hello", Echo(open, "hello"));
    });

    [Theory(Timeout = 60000)]
    [MemberData(nameof(Families))]
    public async Task A_SYN_that_comes_again_goes_where_it_went_first(string vip) => await Task.Run(() =>
    {
        using var link = new Link3();
        // The node hears the SYN, the client not the answer: it sends the SYN again, a second later.
        link.Put(OpeningRule.Note);
        link.A.Network.Exec("nft", "add table inet deaf; add chain inet deaf out { type filter hook output priority 0; policy accept; }; "
            + "add rule inet deaf out tcp sport 80 tcp flags & (syn|ack) == (syn|ack) counter drop");
        using var early = new Opening(link.Client, vip);
        Eventually.True(() => link.A.Network.Exec("nft", "list", "chain", "inet", "deaf", "out").Contains("packets 1 ", StringComparison.Ordinal)
            || link.A.Network.Exec("nft", "list", "chain", "inet", "deaf", "out").Contains("packets 2 ", StringComparison.Ordinal), "the SYN should have come");
        link.A.Table.Renew(s_long);
        link.Put(OpeningRule.Divert);
        Assert.Equal("b", link.Client.Ask(vip, 80));
        link.A.Network.Exec("nft", "delete", "table", "inet", "deaf");
        Assert.Equal("a", early.Name());
    });

    [Theory(Timeout = 60000)]
    [MemberData(nameof(Families))]
    public async Task Handshakes_that_were_begun_before_the_rules_stay(string vip) => await Task.Run(() =>
    {
        using var link = new Link3();
        link.A.Network.Exec("nft", "add table inet deaf; add chain inet deaf out { type filter hook output priority 0; policy accept; }; "
            + "add rule inet deaf out tcp sport 80 tcp flags & (syn|ack) == (syn|ack) drop");
        using var early = new Opening(link.Client, vip);
        VipCensus census = new(0, 0, [], []);
        Eventually.True(() => !(census = link.A.Count()).Handshakes.IsEmpty, "the handshake should be listed");
        Assert.Equal((1, IPAddress.Parse(vip), 80), (census.Live, census.Handshakes[0].Vip.Address, census.Handshakes[0].Vip.Port));
        link.Put(OpeningRule.Note);
        link.A.Table.Renew(s_long);
        link.A.Table.Note(census.Handshakes);
        link.Put(OpeningRule.Divert);
        Assert.Equal("b", link.Client.Ask(vip, 80));
        link.A.Network.Exec("nft", "delete", "table", "inet", "deaf");
        Assert.Equal("a", early.Name());
    });

    [Theory(Timeout = 60000)]
    [MemberData(nameof(Families))]
    public async Task The_second_chance_leads_old_connections_back_and_a_port_used_again_is_new(string vip) => await Task.Run(() =>
    {
        using var link = new Link3();
        using Socket old = link.Client.Connect(vip, 80);
        var mine = (IPEndPoint)old.LocalEndPoint!;
        Assert.Equal("a", Line(old));
        VipCensus census = link.A.Count();
        Assert.Equal((1, new FourTuple(6, mine, new IPEndPoint(IPAddress.Parse(vip), 80))), (census.Live, Assert.Single(census.Flows)));
        link.B.Put(link.A, OpeningRule.Keep);
        link.B.Table.AddOld(census.Flows);
        link.MoveVips();
        Assert.Equal("b", link.Client.Ask(vip, 80));
        Assert.Equal("led back", Echo(old, "led back"));
        Assert.True(link.B.Table.Led() > 0);

        old.LingerState = new LingerOption(true, 0);
        old.Close(); // by a reset, so that the port is free at once
        Eventually.True(() => link.A.Count().Flows.IsEmpty, "the reset should have been led back, too");
        string again = link.Client.Run(() =>
        {
            using var socket = new Socket(mine.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { ReceiveTimeout = 5000 };
            socket.Bind(mine);
            socket.Connect(IPAddress.Parse(vip), 80);
            return Line(socket) + Echo(socket, "!");
        });
        Assert.Equal("b!", again);
        link.B.Table.ForgetOld();
        Assert.Equal("b", link.Client.Ask(vip, 80));
    });

    /// <summary>Each leads to the other, as when both had gone mad: a packet goes over once.</summary>
    [Theory(Timeout = 60000)]
    [MemberData(nameof(Families))]
    public async Task Two_that_lead_to_each_other_make_no_loop(string vip) => await Task.Run(() =>
    {
        using var link = new Link3();
        link.Put(OpeningRule.Divert);
        link.B.Put(link.A, OpeningRule.Divert);
        link.A.Table.Renew(s_long);
        link.B.Table.Renew(s_long);
        for (int i = 0; i < 20; i++) Assert.Equal("b", link.Client.Ask(vip, 80));
        Assert.Equal(0, link.B.Table.Led());
    });

    [Fact(Timeout = 60000)]
    public async Task Other_ports_and_other_addresses_are_not_touched() => await Task.Run(() =>
    {
        using var link = new Link3();
        link.A.Network.Serve("::", 8080, "other port", dual: true);
        link.Put(OpeningRule.Divert);
        link.A.Table.Renew(s_long);
        Assert.Equal("other port", link.Client.Ask("10.9.0.100", 8080));
        Assert.Equal("a", link.Client.Ask("10.9.0.1", 80));
        Assert.Equal("b", link.Client.Ask("10.9.0.100", 80));
        Assert.Equal("a", link.A.Network.Ask("10.9.0.100", 80)); // its own clients do not come in by the device
        using Socket stays = link.A.Network.Connect("10.9.0.100", 80);
        Assert.Equal("a", Line(stays));
        VipCensus census = link.A.Count();
        Assert.Equal((0, 1), (census.Live, census.OfThisHost));
    });

    [Theory(Timeout = 60000)]
    [MemberData(nameof(Families))]
    public async Task Datagrams_move_or_stick(string vip) => await Task.Run(() =>
    {
        using var link = new Link3();
        foreach (int port in (int[])[514, 443])
        {
            link.A.Answer(port);
            link.B.Answer(port);
        }
        using Sender moving = new(link.Client, vip, 514), sticking = new(link.Client, vip, 443);
        Assert.Equal(("a", "a"), (moving.Ask(), sticking.Ask()));
        link.Put(OpeningRule.Note);
        link.A.Table.Renew(s_long);
        Assert.Equal(("a", "a"), (moving.Ask(), sticking.Ask()));
        link.Put(OpeningRule.Divert);
        Assert.Equal(("b", "a"), (moving.Ask(), sticking.Ask()));
        using Sender another = new(link.Client, vip, 443);
        Assert.Equal("b", another.Ask());
        link.Put(OpeningRule.Keep);
        Assert.Equal(("a", "a", "b"), (moving.Ask(), sticking.Ask(), another.Ask()));
        link.A.Lapse();
        Assert.Equal("a", another.Ask());
    });

    [Fact(Timeout = 60000)]
    public async Task A_vip_on_lo_is_told_to_nobody_and_settings_are_put_back_unless_somebody_else_was_there() => await Task.Run(() =>
    {
        using TestNetwork node = Create("n"), other = Create("o");
        Shell.Run("ip", "-n", node.Name, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", other.Name);
        foreach ((TestNetwork end, int host) in ((TestNetwork, int)[])[(node, 1), (other, 2)])
        {
            end.Exec("ip", "address", "add", $"10.9.0.{host}/24", "dev", "wire");
            end.Exec("ip", "link", "set", "wire", "up");
            end.Exec("ip", "link", "set", "lo", "up");
        }
        IPAddress[] vips = [IPAddress.Parse("10.9.0.100"), IPAddress.Parse("fd09::100")];
        var places = node.Own(() => new VipPlaces());
        var settings = node.Own(() => new FrontSettings());
        ImmutableArray<ChangedSetting> needed = node.Run(() => FrontSettings.Needed("wire"));
        Assert.Equal(["arp_ignore", "arp_announce"], needed.Select(s => s.Setting));
        node.Run(() =>
        {
            foreach (ChangedSetting setting in needed) settings.Write(setting);
            foreach (IPAddress vip in vips) places.AddToLoopback(vip);
            foreach (IPAddress vip in vips) places.AddToLoopback(vip); // twice is once
        });
        Assert.Equal("1", node.Exec("cat", "/proc/sys/net/ipv4/conf/wire/arp_ignore").Trim());
        Assert.Equal("2", node.Exec("cat", "/proc/sys/net/ipv4/conf/wire/arp_announce").Trim());
        Assert.Empty(node.Run(() => FrontSettings.Needed("wire")));
        Assert.Equal(vips, node.Run(() => places.OnLoopback([.. vips])));
        Assert.Empty(node.Run(() => places.Held([.. vips])));
        Assert.Throws<SocketException>(() => other.Connect("10.9.0.100", 9)); // no neighbour answers for it
        Assert.Contains("FAILED", other.Exec("ip", "neighbour", "show", "10.9.0.100"), StringComparison.Ordinal);

        node.Exec("sysctl", "-q", "net.ipv4.conf.wire.arp_announce=1");
        string?[] left = node.Run(() => needed.Select(settings.Restore).ToArray());
        Assert.Null(left[0]);
        Assert.Contains("left alone", left[1], StringComparison.Ordinal);
        Assert.Equal("0", node.Exec("cat", "/proc/sys/net/ipv4/conf/wire/arp_ignore").Trim());
        Assert.Equal("1", node.Exec("cat", "/proc/sys/net/ipv4/conf/wire/arp_announce").Trim());
        foreach (IPAddress vip in vips) Assert.True(node.Run(() => places.DeleteFromLoopback(vip)));
        foreach (IPAddress vip in vips) Assert.False(node.Run(() => places.DeleteFromLoopback(vip)));
    });

    [Fact(Timeout = 60000)]
    public async Task What_leads_to_a_peer_is_found_or_refused_with_its_reason() => await Task.Run(() =>
    {
        using TestNetwork node = Create("n");
        node.Exec("ip", "link", "add", "wire", "type", "veth", "peer", "name", "end");
        node.Exec("ip", "address", "add", "10.9.0.1/24", "dev", "wire");
        node.Exec("ip", "link", "set", "wire", "up");
        node.Exec("ip", "link", "set", "end", "up");
        node.Exec("ip", "link", "set", "lo", "up");
        var places = node.Own(() => new VipPlaces());
        Assert.Equal("wire", node.Run(() => places.DeviceTo(IPAddress.Parse("10.9.0.2"))));
        Assert.Contains("there is no route", Assert.Throws<FlipException>(() => node.Run(() => places.DeviceTo(IPAddress.Parse("192.0.2.1")))).Message, StringComparison.Ordinal);
        node.Exec("ip", "route", "add", "192.0.2.0/24", "via", "10.9.0.9");
        Assert.Contains("by way of the router 10.9.0.9", Assert.Throws<FlipException>(() => node.Run(() => places.DeviceTo(IPAddress.Parse("192.0.2.1")))).Message, StringComparison.Ordinal);
        Assert.Contains("there is none", Assert.Throws<FlipException>(() => node.Run(() => places.Self("eth9", []))).Message, StringComparison.Ordinal);
        PeerNode self = node.Run(() => places.Self("wire", []));
        Assert.Equal(Mac(node), HandoverRules.Spell(self.Hardware));
        Assert.Equal(IPAddress.Parse("10.9.0.1"), self.V4);
        Assert.Contains("cannot read", Assert.Throws<FlipException>(() => node.Run(() => FrontSettings.Needed("eth9"))).Message, StringComparison.Ordinal);
    });

    private static string Mac(TestNetwork node) => node.Exec("cat", "/sys/class/net/wire/address").Trim();

    /// <summary>Connects and hears the name later.</summary>
    private sealed class Opening(TestNetwork client, string vip) : IDisposable
    {
        private readonly Socket _socket = client.Run(() =>
        {
            var socket = new Socket(IPAddress.Parse(vip).AddressFamily, SocketType.Stream, ProtocolType.Tcp) { ReceiveTimeout = 10_000, Blocking = false };
            try
            {
                socket.Connect(IPAddress.Parse(vip), 80);
            }
            catch (SocketException e) when (e.SocketErrorCode is SocketError.WouldBlock or SocketError.InProgress)
            {
                // As it should be.
            }
            return socket;
        });

        public string Name()
        {
            Assert.True(_socket.Poll(TimeSpan.FromSeconds(20), SelectMode.SelectWrite));
            _socket.Blocking = true;
            return Line(_socket);
        }

        public void Dispose() => _socket.Dispose();
    }

    /// <summary>One UDP sender.</summary>
    private sealed class Sender : IDisposable
    {
        private readonly Socket _socket;

        public Sender(TestNetwork client, string vip, int port)
        {
            IPAddress address = IPAddress.Parse(vip);
            _socket = client.Run(() => new Socket(address.AddressFamily, SocketType.Dgram, ProtocolType.Udp) { ReceiveTimeout = 5000 });
            _socket.Connect(address, port);
        }

        public string Ask()
        {
            _socket.Send("?"u8);
            byte[] answer = new byte[16];
            return Encoding.ASCII.GetString(answer, 0, _socket.Receive(answer));
        }

        public void Dispose() => _socket.Dispose();
    }

    private sealed class Node
    {
        private readonly IPAddress[] _vips = [IPAddress.Parse("10.9.0.100"), IPAddress.Parse("fd09::100")];
        private readonly string _name;

        public Node(string name, int host, TestNetwork hub)
        {
            _name = name;
            Network = Create(name);
            Wire(Network, host, hub, name);
            Network.Exec("sysctl", "-q", "net.ipv4.conf.wire.arp_ignore=1", "net.ipv4.conf.wire.arp_announce=2");
            Places = Network.Own(() => new VipPlaces());
            foreach (IPAddress vip in _vips) Network.Run(() => Places.AddToLoopback(vip));
            Network.Serve("::", 80, name, dual: true);
            Table = Network.Own(HandoverTable.Open);
            Sockets = Network.Own(() => new VipConnections());
        }

        public TestNetwork Network { get; }
        public VipPlaces Places { get; }
        public HandoverTable Table { get; }
        public VipConnections Sockets { get; }

        public PeerNode Self() => Network.Run(() => Places.Self("wire", [.. _vips]));

        public void Lapse() => Network.Exec("nft", "flush", "set", "netdev", HandoverRules.Table, "alive");

        public VipCensus Count() => Network.Run(() => Sockets.Count(_vips.ToHashSet(), new Dictionary<int, int> { [80] = 80 }, Places.Own()));

        public void Put(Node peer, OpeningRule opening) => Network.Run(() => Table.Make("wire", peer.Self(), [.. _vips],
        [
            .. _vips.Select(v => new VipService(v, 80, Transport.Tcp, UdpRule.Move)),
            .. _vips.Select(v => new VipService(v, 514, Transport.Udp, UdpRule.Move)),
            .. _vips.Select(v => new VipService(v, 443, Transport.Quic, UdpRule.Stick)),
        ], opening));

        /// <summary>Says the node's name to whoever sends, from the address it was sent to.</summary>
        public void Answer(int port)
        {
            foreach (IPAddress vip in _vips)
            {
                Socket socket = Network.Own(() => new Socket(vip.AddressFamily, SocketType.Dgram, ProtocolType.Udp));
                socket.Bind(new IPEndPoint(vip, port));
                _ = AnswerAsync(socket);
            }
        }

        private async Task AnswerAsync(Socket socket)
        {
            byte[] asked = new byte[16];
            EndPoint any = new IPEndPoint(socket.AddressFamily == AddressFamily.InterNetwork ? IPAddress.Any : IPAddress.IPv6Any, 0);
            try
            {
                while (true)
                {
                    SocketReceiveFromResult from = await socket.ReceiveFromAsync(asked, any);
                    await socket.SendToAsync(Encoding.ASCII.GetBytes(_name), from.RemoteEndPoint);
                }
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                // The test has ended.
            }
        }
    }

    /// <summary>Nodes a (10.9.0.1, which has the VIPs) and b (10.9.0.2), and a client (10.9.0.9), on one switch.</summary>
    private sealed class Link3 : IDisposable
    {
        private readonly TestNetwork _hub = Create("h");

        public Link3()
        {
            _hub.Exec("ip", "link", "add", "br0", "type", "bridge");
            _hub.Exec("ip", "link", "set", "br0", "up");
            Client = Create("c");
            Wire(Client, 9, _hub, "c");
            A = new Node("a", 1, _hub);
            B = new Node("b", 2, _hub);
            Give(A, "add");
        }

        public TestNetwork Client { get; }
        public Node A { get; }
        public Node B { get; }

        public void Put(OpeningRule opening) => A.Put(B, opening);

        /// <summary>As keepalived does it: the neighbours are told.</summary>
        public void MoveVips()
        {
            Give(A, "delete");
            Give(B, "add");
            Client.Exec("ip", "neighbour", "flush", "dev", "wire");
        }

        private static void Give(Node node, string verb)
        {
            node.Network.Exec("ip", "address", verb, "10.9.0.100/24", "dev", "wire");
            node.Network.Exec("ip", "address", verb, "fd09::100/64", "dev", "wire");
        }

        public void Dispose()
        {
            A.Network.Dispose();
            B.Network.Dispose();
            Client.Dispose();
            _hub.Dispose();
        }
    }

    private static void Wire(TestNetwork end, int host, TestNetwork hub, string port)
    {
        end.Exec("ip", "link", "set", "lo", "up");
        end.Exec("ip", "link", "add", "wire", "type", "veth", "peer", "name", $"to-{port}", "netns", hub.Name);
        hub.Exec("ip", "link", "set", $"to-{port}", "master", "br0");
        hub.Exec("ip", "link", "set", $"to-{port}", "up");
        end.Exec("sysctl", "-q", "net.ipv6.conf.wire.accept_dad=0");
        end.Exec("ip", "address", "add", string.Create(CultureInfo.InvariantCulture, $"10.9.0.{host}/24"), "dev", "wire");
        end.Exec("ip", "address", "add", string.Create(CultureInfo.InvariantCulture, $"fd09::{host}/64"), "dev", "wire", "nodad");
        end.Exec("ip", "link", "set", "wire", "up");
    }
}
