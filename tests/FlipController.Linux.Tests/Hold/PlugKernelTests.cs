using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Hold;

/// <summary>What we rely on in the kernel's plug qdisc (net/sched/sch_plug.c), shown with `tc` alone.</summary>
[Trait("needs", "plug")]
public sealed class PlugKernelTests
{
    [Fact]
    public void Created_it_is_closed_and_released_it_lets_go_in_order()
    {
        using Scene scene = new();
        scene.Tc("add", "limit", "1000000");
        scene.Send(1, 2, 3);
        Assert.Equal(new Counters(Held: 3, HeldBytes: 3000, Dropped: 0), scene.Counters());
        Assert.Equal(0, scene.Waiting);

        scene.Tc("change", "release_indefinite");
        scene.Send(4);
        Assert.Equal([1, 2, 3, 4], scene.Receive(4));

        scene.Tc("change", "block");
        scene.Send(5);
        Assert.Equal(1, scene.Counters().Held);
        scene.Tc("change", "release_indefinite");
        Assert.Equal([5], scene.Receive(1));
    }

    [Fact]
    public void Its_limit_counts_bytes_and_what_is_beyond_is_dropped()
    {
        using Scene scene = new();
        scene.Tc("add", "limit", "3500");
        scene.Send(1, 2, 3, 4, 5);
        Assert.Equal(new Counters(Held: 3, HeldBytes: 3000, Dropped: 2), scene.Counters());
        scene.Tc("change", "limit", "4000"); // while it is closed
        scene.Send(6);
        scene.Tc("change", "release_indefinite");
        Assert.Equal([1, 2, 3, 6], scene.Receive(4));
    }

    [Fact]
    public void Created_with_an_action_it_ignores_it_and_has_no_room()
    {
        using Scene scene = new();
        scene.Tc("add", "release_indefinite");
        scene.Send(1);
        Assert.Equal(new Counters(Held: 0, HeldBytes: 0, Dropped: 1), scene.Counters());
    }

    private sealed record Counters(int Held, int HeldBytes, int Dropped);

    /// <summary>A plug at the client's end of a link, and datagrams of 1000 bytes through it, each with a number.</summary>
    private sealed class Scene : IDisposable
    {
        private const int Headers = 14 + 20 + 8; // Ethernet, IPv4, UDP

        private readonly NetnsPair _pair;
        private readonly Socket _client, _server;

        public Scene()
        {
            Require.Plug();
            _pair = Netns.Pair();
            // Nothing of the kernel's own shall be held among ours: no IPv6, and nobody to be asked for.
            _pair.Client.Sysctl($"net.ipv6.conf.{_pair.Device}.disable_ipv6", "1");
            using var link = JsonDocument.Parse(_pair.Server.Ip("-j", "link", "show", _pair.Device));
            _pair.Client.Ip("neighbour", "replace", _pair.ServerV4.ToString(), "lladdr", link.RootElement[0].GetProperty("address").GetString()!,
                "dev", _pair.Device, "nud", "permanent");
            _server = _pair.Server.Run(Datagrams);
            _server.Bind(new IPEndPoint(_pair.ServerV4, 0));
            _client = _pair.Client.Run(Datagrams);
            _client.Connect(_server.LocalEndPoint!);
        }

        public int Waiting => _server.Available;

        public void Tc(string verb, params string[] options) =>
            _pair.Client.Exec("tc", ["qdisc", verb, "dev", _pair.Device, "root", "plug", .. options]);

        public void Send(params byte[] numbers)
        {
            foreach (byte number in numbers)
            {
                var datagram = new byte[1000 - Headers];
                datagram[0] = number;
                _client.Send(datagram);
            }
        }

        public int[] Receive(int count)
        {
            var datagram = new byte[1000];
            return [.. Enumerable.Range(0, count).Select(_ => _server.Receive(datagram) > 0 ? datagram[0] : -1)];
        }

        public Counters Counters()
        {
            using var shown = JsonDocument.Parse(_pair.Client.Exec("tc", "-j", "-s", "qdisc", "show", "dev", _pair.Device, "root"));
            int Value(string name) => shown.RootElement[0].GetProperty(name).GetInt32();
            return new Counters(Value("qlen"), Value("backlog"), Value("drops"));
        }

        public void Dispose()
        {
            _client.Dispose();
            _server.Dispose();
            _pair.Dispose();
        }

        private static Socket Datagrams() => new(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp) { ReceiveTimeout = 10_000 };
    }
}
