using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Hold;
using FlipController.Linux.Kernel;
using FlipController.Linux.Tests.Kernel;
using FlipController.Tests.Shared;
using Xunit;
using Eventually = FlipController.Linux.Tests.Kernel.Eventually;
using LinuxHold = FlipController.Linux.Hold.Hold;

namespace FlipController.Linux.Tests.Hold;

/// <summary>Plug holds on a kernel that has sch_plug.</summary>
[Trait("needs", "plug")]
public sealed class PlugHoldTests : IDisposable
{
    private const int Limit = 120_000; // an emulated machine, beside others
    private static readonly HoldScope Incoming = PlugRefusalTests.Incoming, Local = PlugRefusalTests.Local;

    private readonly TestNetwork _server, _client;
    private readonly List<IDisposable> _opened = [];

    public PlugHoldTests()
    {
        Require.Plug();
        (_server, _client) = TestNetwork.CreateTwo();
    }

    public void Dispose()
    {
        for (int i = _opened.Count - 1; i >= 0; i--) _opened[i].Dispose();
        _server.Dispose();
        _client.Dispose();
    }

    [Fact(Timeout = Limit)]
    public async Task Opening_SYNs_of_both_families_wait_and_go_on_in_order() => await Task.Run(() =>
    {
        Socket listener = Listen(80);
        Socket before = Connecting(_client, "10.9.0.1", 80).Socket;
        Socket served = Opened(listener.Accept());
        PlugHold hold = Prepared(Incoming);
        hold.Rehearse();
        long allocated = GC.GetAllocatedBytesForCurrentThread();
        int closed = hold.Close();
        Assert.Equal((0, allocated), (closed, GC.GetAllocatedBytesForCurrentThread()));
        List<(Socket Socket, Task Done)> waiting = [];
        for (int i = 0; i < 6; i++)
        {
            waiting.Add(Connecting(_client, i % 2 == 0 ? "10.9.0.1" : "fd09::1", 80));
            Eventually.True(() => Queued("flip-edge") > i, $"SYN {i} waits");
        }
        before.Send("hello"u8);
        Assert.Equal(5, served.Receive(new byte[9]));
        Assert.All(waiting, w => Assert.False(w.Done.IsCompleted));
        allocated = GC.GetAllocatedBytesForCurrentThread();
        int opened = hold.Open();
        Assert.Equal((0, allocated), (opened, GC.GetAllocatedBytesForCurrentThread()));
        int[] order = [.. waiting.Select(_ => ((IPEndPoint)Opened(listener.Accept()).RemoteEndPoint!).Port)];
        Assert.Equal(waiting.Select(w => ((IPEndPoint)w.Socket.LocalEndPoint!).Port), order);
        HoldTally tally = Waited(hold, 6);
        Assert.Equal(0, tally.Dropped);
        Assert.True(tally.LongestWait > TimeSpan.Zero);
        Gone(hold);
    });

    [Fact(Timeout = Limit)]
    public async Task What_is_released_meets_the_rule_of_after_the_release() => await Task.Run(() =>
    {
        _server.Serve("::", 21000, "old", dual: true);
        _server.Serve("::", 22000, "new", dual: true);
        Nft("add table inet t; add chain inet t pre { type nat hook prerouting priority dstnat; }; add rule inet t pre tcp dport 80 redirect to :21000");
        Assert.Equal("old", _client.Ask("10.9.0.1", 80));
        PlugHold hold = Prepared(Incoming);
        Assert.Equal(0, hold.Close());
        (Socket socket, Task done) = Connecting(_client, "10.9.0.1", 80);
        Eventually.True(() => Queued("flip-edge") >= 1, "it waits");
        Nft("flush chain inet t pre; add rule inet t pre tcp dport 80 redirect to :22000");
        Assert.Equal(0, hold.Open());
        Assert.True(done.Wait(10_000));
        Assert.Equal("new", TestNetwork.Line(socket));
        hold.Dispose();
    });

    [Fact(Timeout = Limit)]
    public async Task Several_devices_at_once_beside_what_others_have_there() => await Task.Run(() =>
    {
        _server.Exec("ip", "link", "add", "other", "type", "veth", "peer", "name", "other", "netns", _client.Name);
        foreach ((TestNetwork end, int host) in ((TestNetwork, int)[])[(_server, 1), (_client, 2)])
        {
            end.Exec("ip", "address", "add", $"10.8.0.{host}/24", "dev", "other");
            end.Exec("ip", "link", "set", "other", "up");
        }
        _server.Exec("tc", "qdisc", "add", "dev", "wire", "root", "handle", "7:", "htb", "default", "1");
        _server.Exec("tc", "class", "add", "dev", "wire", "parent", "7:", "classid", "7:1", "htb", "rate", "1gbit");
        _server.Exec("tc", "qdisc", "add", "dev", "wire", "clsact");
        _server.Exec("tc", "filter", "add", "dev", "wire", "ingress", "pref", "4601", "protocol", "ip", "flower", "ip_proto", "tcp", "dst_port", "9999", "action", "drop");
        Nft("add table netdev foreign; add chain netdev foreign c { type filter hook ingress device \"wire\" priority 0; }; add rule netdev foreign c tcp dport 80 accept");
        string before = Foreign();
        Socket listener = Listen(80);
        PlugHold hold = Prepared(Incoming);
        Assert.Equal(0, hold.Close());
        Connecting(_client, "10.9.0.1", 80);
        Connecting(_client, "10.8.0.1", 80);
        Eventually.True(() => Queued("flip-edge") >= 2, "both wait");
        Assert.Equal(0, hold.Open());
        Opened(listener.Accept());
        Opened(listener.Accept());
        Waited(hold, 2);
        Assert.StartsWith(before, Foreign());
        hold.Dispose();
        Assert.Equal(before, Foreign());

        string Foreign() => _server.Exec("tc", "qdisc", "show", "dev", "wire") + _server.Exec("tc", "filter", "show", "dev", "wire", "ingress")
            + _server.Exec("nft", "list", "ruleset");
    });

    [Theory(Timeout = Limit)]
    [InlineData(false, "flip-edge"), InlineData(true, "lo")]
    public async Task Local_clients_wait_and_go_on(bool lanes, string device) => await Task.Run(() =>
    {
        Socket listener = Listen(80);
        PlugHold hold = Prepared(Local, lanes);
        hold.Rehearse();
        Assert.Equal(0, hold.Close());
        (Socket, Task Done)[] waiting = [Connecting(_server, "127.0.0.1", 80), Connecting(_server, "::1", 80), Connecting(_server, "10.9.0.1", 80)];
        Eventually.True(() => Queued(device) >= 3, "three wait");
        Assert.All(waiting, w => Assert.False(w.Done.IsCompleted));
        _server.Serve("127.0.0.1", 81, "not held");
        Assert.Equal("not held", _server.Ask("127.0.0.1", 81));
        Assert.Equal(0, hold.Open());
        foreach ((Socket, Task Done) w in waiting) Opened(listener.Accept());
        Assert.True(Task.WaitAll([.. waiting.Select(w => w.Done)], 10_000));
        Waited(hold, 3);
        Gone(hold);
        Assert.Contains("noqueue", _server.Exec("tc", "qdisc", "show", "dev", "lo"));
    });

    [Fact(Timeout = Limit)]
    public async Task What_finds_no_room_is_counted_as_lost() => await Task.Run(() =>
    {
        Listen(80);
        PlugHold hold = Prepared(Incoming, limit: 200); // of 74 bytes each
        Assert.Equal(0, hold.Close());
        for (int i = 0; i < 3; i++) Connecting(_client, "10.9.0.1", 80);
        Eventually.True(() => Dropped("flip-edge") >= 1, "the third is lost");
        Assert.Equal(0, hold.Open());
        HoldTally tally = hold.Tally();
        Assert.Equal(2, tally.Held);
        Assert.True(tally.Dropped >= 1);
        Gone(hold);
    });

    [Fact(Timeout = Limit)]
    public async Task Its_device_deleted_by_somebody_is_told_and_traffic_is_open() => await Task.Run(() =>
    {
        _server.Serve("10.9.0.1", 80, "served");
        PlugHold hold = Prepared(Incoming);
        Assert.Equal(0, hold.Close());
        _server.Exec("ip", "link", "delete", "flip-edge");
        Assert.Equal(Errno.NoDevice, hold.Open());
        Assert.Equal("cannot open the plug hold of edge: ENODEV (flip-edge is gone)", hold.Failure.Message);
        Assert.Equal("served", _client.Ask("10.9.0.1", 80));
        Assert.NotEqual(0, hold.Close());
        Assert.Equal("served", _client.Ask("10.9.0.1", 80));
        Gone(hold);
    });

    [Fact(Timeout = Limit)]
    public async Task A_network_device_that_goes_away_keeps_nothing_closed() => await Task.Run(() =>
    {
        Listen(80);
        PlugHold hold = Prepared(Incoming with { Local = true });
        Assert.Equal(0, hold.Close());
        Connecting(_client, "10.9.0.1", 80);
        (Socket, Task Done) local = Connecting(_server, "127.0.0.1", 80);
        Eventually.True(() => Queued("flip-edge") >= 2, "both wait");
        _server.Exec("ip", "link", "delete", "wire");
        Assert.Equal(0, hold.Open());
        Assert.True(local.Done.Wait(10_000));
        Gone(hold);
    });

    [Fact(Timeout = Limit)]
    public async Task The_forced_opening_opens_both_plugs() => await Task.Run(() =>
    {
        Socket listener = Listen(80);
        PlugHold hold = Prepared(Incoming with { Local = true }, lanes: true);
        Assert.Equal(0, hold.Close());
        Connecting(_client, "10.9.0.1", 80);
        Connecting(_server, "127.0.0.1", 80);
        Eventually.True(() => Queued("flip-edge") >= 1 && Queued("lo") >= 1, "both wait");
        ForcedOpening opening = Assert.Single(hold.ForcedOpenings);
        Write(opening);
        Opened(listener.Accept());
        Opened(listener.Accept());
        Write(opening); // late, and once more: harms nobody
        Assert.Equal(0, hold.Open());
        Gone(hold);

        static unsafe void Write(ForcedOpening opening)
        {
            fixed (byte* bytes = opening.Message.Span) Assert.Equal(opening.Message.Length, (int)Libc.Write(opening.Socket, bytes, (nuint)opening.Message.Length));
        }
    });

    [Fact(Timeout = Limit)]
    public async Task What_the_dead_left_is_opened_and_removed_and_the_livings_stays() => await Task.Run(() =>
    {
        Socket listener = Listen(80);
        PlugHold alive = Prepared(Incoming with { Owner = "alive", Ports = [443] });
        // As a hold of "edge" leaves it when it is killed while closed.
        _server.Exec("ip", "link", "add", "flip-edge", "type", "ifb");
        _server.Exec("ip", "link", "set", "flip-edge", "alias", "flipcontroller hold edge", "up");
        _server.Exec("tc", "qdisc", "add", "dev", "flip-edge", "root", "handle", "1:", "plug", "limit", "1000000");
        Link ifb = _server.Run(() => { using var route = new RouteNetlink(); return route.Links().Single(l => l.Name == "flip-edge"); });
        Link wire = _server.Run(() => { using var route = new RouteNetlink(); return route.Links().Single(l => l.Name == "wire"); });
        Nft(PlugIngress.Text("edge", ifb, [wire], [80]));
        (Socket, Task Done) waiting = Connecting(_client, "10.9.0.1", 80);
        Eventually.True(() => Queued("flip-edge") >= 1, "it waits");
        Assert.Equal(["device flip-edge: the plug hold of edge was opened and removed"], _server.Run(() => PlugLeftovers.Remove()));
        Assert.True(waiting.Done.Wait(10_000));
        Opened(listener.Accept());
        Assert.Contains("flip-alive", _server.Exec("ip", "link"));
        FlipException refusal = Assert.ThrowsAny<FlipException>(() => _server.Run(() => PlugHold.Prepare(Incoming with { Ports = [80, 443] })));
        Assert.Equal("cannot hold port 443: alive holds it already; nothing is held by this one; wait until that hold has ended", refusal.Message);
        Assert.Equal(["device flip-alive: the plug hold of alive was opened and removed"], _server.Run(() => PlugLeftovers.Remove(all: true)));
        alive.Dispose();
        PlugRefusalTests.NothingOfOurs(_server);
    });

    [Fact(Timeout = Limit)]
    public async Task A_plug_is_attached_open_and_read() => await Task.Run(() =>
    {
        using RouteNetlink route = _client.Run(() => new RouteNetlink());
        Link wire = route.Links().Single(l => l.Name == "wire");
        var plug = new PlugQdisc(route, wire, TcHandle.Root, new TcHandle(0x40, 0));
        plug.Attach(1 << 20);
        Assert.Contains("qdisc plug 40: root", _client.Exec("tc", "qdisc", "show", "dev", "wire"));
        _server.Serve("10.9.0.1", 80, "served");
        Assert.Equal("served", _client.Ask("10.9.0.1", 80));
        plug.Buffer();
        (Socket, Task Done) waiting = Connecting(_client, "10.9.0.1", 80);
        Eventually.True(() => plug.Read()!.Value.Queued >= 1, "it waits");
        plug.ReleaseOne();
        plug.Limit(1 << 16);
        plug.ReleaseIndefinite();
        Assert.True(waiting.Done.Wait(10_000));
        plug.Detach();
        Assert.Null(plug.Read());
        Assert.Contains("noqueue", _client.Exec("tc", "qdisc", "show", "dev", "wire"));
    });

    private PlugHold Prepared(HoldScope scope, bool lanes = false, uint limit = PlugHold.DefaultLimitBytes) =>
        Opened(_server.Run(() => PlugHold.Prepare(scope, lanes, limit)));

    private T Opened<T>(T opened) where T : IDisposable
    {
        _opened.Add(opened);
        return opened;
    }

    /// <summary>In an emulated machine a client may have sent its SYN again before it was let go.</summary>
    private static HoldTally Waited(LinuxHold hold, int clients)
    {
        HoldTally tally = hold.Tally();
        Assert.InRange(tally.Held, clients, 5 * clients);
        return tally;
    }

    private void Gone(LinuxHold hold)
    {
        hold.Dispose();
        PlugRefusalTests.NothingOfOurs(_server);
    }

    private Socket Listen(int port) => Opened(_server.Run(() =>
    {
        Socket socket = new(AddressFamily.InterNetworkV6, SocketType.Stream, ProtocolType.Tcp) { DualMode = true, ReceiveTimeout = 10_000 };
        socket.Bind(new IPEndPoint(IPAddress.IPv6Any, port));
        socket.Listen(64);
        return socket;
    }));

    private (Socket Socket, Task Done) Connecting(TestNetwork from, string address, int port)
    {
        IPAddress to = IPAddress.Parse(address);
        Socket socket = Opened(from.Run(() => new Socket(to.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { ReceiveTimeout = 10_000 }));
        return (socket, socket.ConnectAsync(to, port));
    }

    private void Nft(string commands) => Shell.RunWithInput(commands, "ip", "netns", "exec", _server.Name, "nft", "-f", "-");

    private uint Queued(string device) => Plug(device).Queued;

    private uint Dropped(string device) => Plug(device).Dropped;

    private QdiscStatistics Plug(string device) => _server.Run(() =>
    {
        using var route = new RouteNetlink();
        return route.Qdiscs(route.Links().Single(l => l.Name == device).Index).Single(q => q.Kind == PlugQdisc.Kind).Statistics;
    });
}
