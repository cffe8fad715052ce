using System.Net;
using System.Net.Sockets;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;
using FlipController.Linux.Tests.Kernel;
using Xunit;

namespace FlipController.Linux.Tests.Redirect;

// UDP behind the same rules: a flow stays where it is until it is forgotten.
public abstract partial class RedirectTests
{
    private static readonly Service Log = new(IPAddress.IPv6Any, 514, Transport: Transport.Udp);

    private protected abstract void RemoveTheWayOfUdp(TestNetwork network);

    [Fact(Timeout = 30000)]
    public async Task A_known_sender_stays_until_its_flow_is_forgotten_and_a_new_one_meets_the_rule() => await Task.Run(() =>
    {
        (TestNetwork server, TestNetwork client) = TestNetwork.CreateTwo();
        using (client)
        using (server)
        {
            PairRedirect redirect = Open(server);
            Conntrack conntrack = server.Own(() => Conntrack.Open()!);
            server.Own(() => new NamedReceiver(21000, "one"));
            server.Own(() => new NamedReceiver(22000, "two"));
            server.Own(() => new NamedReceiver(515, "other"));
            redirect.EnsureBase([Edge]);
            foreach ((int number, int port) in ((int, int)[])[(1, 21000), (2, 22000)])
                redirect.AddGeneration("edge", number, Mark(number), Mask, [new(Log, port), new(new Service(IPAddress.Any, 80), port + 1)]);
            Flip(redirect, 1);
            Assert.Equal(new HashSet<ServicePort> { new(Log, 21000), new(new Service(IPAddress.Any, 80), 21001) },
                redirect.ReadAll().Pairs["edge"].Generations[1].ToHashSet());
            Assert.Equal((Edge.Blue, Edge.Green), (redirect.ReadAll().Pairs["edge"].Blue, redirect.ReadAll().Pairs["edge"].Green));

            Sender[] known = [new(client, "10.9.0.1", 514), new(client, "fd09::1", 514), new(server, "127.0.0.1", 514), new(server, "::1", 514)];
            Sender other = new(client, "10.9.0.1", 515);
            foreach (Sender sender in known) Assert.Equal("one", sender.Ask());
            Assert.Equal("other", other.Ask());

            Flip(redirect, 2);
            foreach (Sender sender in known) Assert.Equal("one", sender.Ask());
            Assert.Equal("two", new Sender(client, "10.9.0.1", 514).Ask());

            Service[] services = [Log, new(IPAddress.Any, 80)];
            Assert.Equal(0, conntrack.ForgetFlows(services, Mask, (_, _) => true));
            Assert.Equal(0, conntrack.ForgetFlows([Log with { Transport = Transport.Tcp }], Mask, (_, _) => false));
            Assert.Equal(4, conntrack.ForgetFlows(services, Mask, (service, mark) => service != Log || mark != Mark(1)));
            Assert.Equal(0, conntrack.ForgetFlows(services, Mask, (_, mark) => mark != Mark(1)));
            foreach (Sender sender in known) Assert.Equal("two", sender.Ask());
            Assert.Equal("other", other.Ask());
            Assert.Equal(5, conntrack.ForgetFlows([Log], Mask, (_, mark) => mark == Mark(1)));
        }
    });

    [Fact(Timeout = 30000)]
    public async Task A_way_in_that_is_gone_for_UDP_alone_is_noticed() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("u");
        PairRedirect redirect = Open(network);
        redirect.EnsureBase([Edge]);
        redirect.AddGeneration("edge", 1, Mark(1), Mask, [new(Log, 21000)]);
        Flip(redirect, 1);
        Assert.Equal(1, redirect.ReadActive("edge"));
        RemoveTheWayOfUdp(network);
        Assert.Null(redirect.ReadActive("edge"));
        redirect.EnsureBase([Edge]);
        Assert.Equal(1, redirect.ReadActive("edge"));
    });

    [Fact(Timeout = 30000)]
    public async Task Who_sent_before_there_were_rules_meets_them_once_forgotten_and_private_ports_are_shut_to_the_outside() => await Task.Run(() =>
    {
        (TestNetwork server, TestNetwork client) = TestNetwork.CreateTwo();
        using (client)
        using (server)
        {
            PairRedirect redirect = Open(server);
            Conntrack conntrack = server.Own(() => Conntrack.Open()!);
            server.Own(() => new NamedReceiver(21000, "one"));
            server.Own(() => new NamedReceiver(514, "unmanaged"));
            redirect.EnsureBase([Edge]);
            redirect.AddGeneration("edge", 1, Mark(1), Mask, [new(Log, 21000)]);
            Sender early = new(client, "10.9.0.1", 514);
            Assert.Equal("unmanaged", early.Ask());
            Flip(redirect, 1);
            Assert.Equal("unmanaged", early.Ask());
            // Of a specific address nothing else is asked about.
            Assert.Equal(0, server.Run(() => conntrack.ForgetFlows([Log with { Address = IPAddress.Parse("10.9.0.7") }], Mask, (_, _) => false)));
            Assert.Equal(1, server.Run(() => conntrack.ForgetFlows([Log], Mask, (_, mark) => mark == Mark(1))));
            Assert.Equal("one", early.Ask());

            foreach (string address in (string[])["10.9.0.1", "fd09::1"])
                Assert.Equal(SocketError.ConnectionRefused, Assert.Throws<SocketException>(() => new Sender(client, address, 21000).Ask()).SocketErrorCode);
            Assert.Equal("one", new Sender(server, "127.0.0.1", 21000).Ask());
            // An answer to what was asked from there is none of the outside's.
            using Socket asking = server.Run(() => Bound(21005)), asked = client.Run(() => Bound(53));
            asking.SendTo("?"u8, new IPEndPoint(IPAddress.Parse("10.9.0.2"), 53));
            EndPoint from = new IPEndPoint(IPAddress.Any, 0);
            asked.ReceiveFrom(new byte[8], ref from);
            asked.SendTo("!"u8, from);
            Assert.Equal(1, asking.Receive(new byte[8]));
        }
    });

    private static Socket Bound(int port)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp) { ReceiveTimeout = 5000 };
        socket.Bind(new IPEndPoint(IPAddress.Any, port));
        return socket;
    }

    /// <summary>A client with one port for ever.</summary>
    private sealed class Sender
    {
        private readonly Socket _socket;

        internal Sender(TestNetwork network, string address, int port) => _socket = network.Own(() =>
        {
            var to = new IPEndPoint(IPAddress.Parse(address), port);
            var socket = new Socket(to.AddressFamily, SocketType.Dgram, ProtocolType.Udp) { ReceiveTimeout = 5000 };
            socket.Connect(to);
            return socket;
        });

        internal string Ask()
        {
            _socket.Send("?"u8);
            byte[] buffer = new byte[64];
            return Encoding.ASCII.GetString(buffer, 0, _socket.Receive(buffer));
        }
    }
}

/// <summary>Says its name to whoever sends something.</summary>
internal sealed class NamedReceiver : IDisposable
{
    private readonly Socket _socket;

    internal NamedReceiver(int port, string name)
    {
        _socket = new Socket(AddressFamily.InterNetworkV6, SocketType.Dgram, ProtocolType.Udp) { DualMode = true };
        _socket.Bind(new IPEndPoint(IPAddress.IPv6Any, port));
        _ = AnswerAsync(Encoding.ASCII.GetBytes(name));
    }

    public void Dispose() => _socket.Dispose();

    private async Task AnswerAsync(byte[] name)
    {
        byte[] buffer = new byte[64];
        try
        {
            while (true)
            {
                SocketReceiveFromResult asked = await _socket.ReceiveFromAsync(buffer, new IPEndPoint(IPAddress.IPv6Any, 0));
                await _socket.SendToAsync(name, asked.RemoteEndPoint);
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The test is over.
        }
    }
}
