using System.Globalization;
using System.Net;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Clients;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using Xunit;

namespace FlipController.Linux.Tests.Clients;

public sealed class GenerationClientsTests
{
    [Fact(Timeout = 60_000)]
    public async Task Clients_of_every_family_are_listed_with_what_HAProxy_does_for_them()
    {
        using var place = new ClientsPlace();
        using ClientsHaproxy haproxy = await ClientsHaproxy.StartAsync(place.Netns);
        Socket idle = place.Idle(), idle6 = place.Idle(21003, "::1"), tunnel = place.Tunnel(), tunnel6 = place.Tunnel("::1");
        ClientsFound found = null!;
        // What a client has got counts when its acknowledgement has come back.
        await FlipController.Tests.Shared.Eventually.True(
            async () => (found = await place.FindAsync(haproxy, new ClientQuery(Order: ClientOrder.Peer))).Rows.All(r => r is { BytesIn: >= 4, BytesOut: >= 4 }),
            TimeSpan.FromSeconds(15), () => string.Join("\n", found.Rows));
        Assert.Equal((4, 4, 2), (found.Total, found.Matched, found.Streams));
        Assert.Equal(found.Sockets with { ByService = found.Sockets.ByService }, new ClientSockets(4, 0, 0, 0, 0, 0, 0, found.Sockets.ByService));
        Assert.Equal(["*:80 1", "[::]:80 v6only 1", "[::]:90 2"], found.Sockets.ByService.Select(s => $"{s.Key} {s.Value}"));
        var rows = found.Rows.ToDictionary(r => r.Peer);
        Assert.Equal(4, rows.Count);
        Assert.Equal(("*:80", null, "established"), Seen(idle));
        Assert.Equal(("[::]:80 v6only", null, "established"), Seen(idle6));
        Assert.Equal(("[::]:90", "tunnel/tunnel/echo", "established"), Seen(tunnel)); // IPv4 on a bind for both families
        Assert.Equal(("[::]:90", "tunnel/tunnel/echo", "established"), Seen(tunnel6));
        Assert.Equal((4, 4), (rows[ClientsPlace.NameOf(tunnel)].BytesIn, rows[ClientsPlace.NameOf(tunnel)].BytesOut));
        Assert.True(rows[ClientsPlace.NameOf(tunnel)] is { AgeS: >= 0, AgeIsAtLeast: true, IdleS: >= 0 and < 10, Role: "retired", Generation: 1 });
        Assert.True(rows[ClientsPlace.NameOf(idle)] is { AgeS: null, IdleS: >= 0 and < 10, BytesIn: 27, BytesOut: > 40 });

        (string, string?, string) Seen(Socket socket)
        {
            ConnectionStatus row = rows[ClientsPlace.NameOf(socket)];
            return (row.Service, row.Frontend is null ? null : $"{row.Frontend}/{row.Backend}/{row.Server}", row.State);
        }
    }

    [Fact(Timeout = 60_000)]
    public async Task Filters_orders_limits_and_networks()
    {
        using var place = new ClientsPlace();
        using ClientsHaproxy haproxy = await ClientsHaproxy.StartAsync(place.Netns);
        Socket a = place.Idle(from: "127.0.1.1"), b = place.Tunnel(from: "127.0.1.2"), c = place.Tunnel(from: "127.0.2.3"), d = place.Tunnel("::1");
        c.Send(new byte[10_000]);
        DateTimeOffset now = DateTimeOffset.UtcNow;
        var ages = new Dictionary<string, (double, bool)>
        {
            [ClientsPlace.NameOf(a)] = (100, true), [ClientsPlace.NameOf(b)] = (50, false), [ClientsPlace.NameOf(c)] = (10, true),
        };
        List<int> ports = [];
        (DateTimeOffset?, bool) Seen(IPEndPoint peer, int port)
        {
            ports.Add(port);
            return ages.TryGetValue(peer.ToString(), out var age) ? (now - TimeSpan.FromSeconds(age.Item1), age.Item2) : (null, false);
        }
        async Task<ClientsFound> Ask(ClientQuery query) => await place.Clients.FindAsync(haproxy.Of(), query, haproxy.Channel, Seen, now, TestContext.Current.CancellationToken);
        async Task<string> Peers(ClientQuery query)
        {
            ClientsFound found = await Ask(query);
            Assert.Equal(4, found.Total);
            return $"{found.Matched}: {string.Concat(found.Rows.Select(r => "abcd"[Array.FindIndex([a, b, c, d], s => ClientsPlace.NameOf(s) == r.Peer)]))}";
        }
        await FlipController.Tests.Shared.Eventually.True(async () => (await Ask(new ClientQuery())).Rows.Any(r => r.BytesIn == 10_004),
            TimeSpan.FromSeconds(15), () => "what was sent should arrive");
        ports.Clear();
        Assert.Equal("4: abcd", await Peers(new ClientQuery(Order: ClientOrder.Age)));
        Assert.Equal("4: ab", await Peers(new ClientQuery(Order: ClientOrder.Age, Limit: 2)));
        Assert.Equal("4: ", await Peers(new ClientQuery(Limit: 0)));
        Assert.Equal("4: c", await Peers(new ClientQuery(Order: ClientOrder.Bytes, Limit: 1)));
        Assert.Equal("4: dabc", await Peers(new ClientQuery(Order: ClientOrder.Peer)));
        Assert.Equal("2: ab", await Peers(new ClientQuery(Filter("127.0.1.0/24"), Order: ClientOrder.Age)));
        Assert.Equal("1: c", await Peers(new ClientQuery(Filter("127.0.2.3"))));
        Assert.Equal("1: b", await Peers(new ClientQuery(Filter(ClientsPlace.NameOf(b)))));
        Assert.Equal("1: d", await Peers(new ClientQuery(Filter("::/0"))));
        Assert.Equal("1: a", await Peers(new ClientQuery(Service: ":80")));
        Assert.Equal("3: bcd", await Peers(new ClientQuery(Service: "[::]:90", Order: ClientOrder.Age)));
        Assert.Equal("2: ab", await Peers(new ClientQuery(Older: TimeSpan.FromSeconds(49), Order: ClientOrder.Age)));
        Assert.Equal([21001, 21002], ports.Distinct().Order());

        ClientsFound told = await Ask(new ClientQuery(Order: ClientOrder.Age, Networks: new NetworkPrefixes()));
        Assert.Equal([(100.0, false), (50.0, true), (10.0, false)], told.Rows.Take(3).Select(r => (r.AgeS!.Value, r.AgeIsAtLeast)));
        Assert.Equal(["127.0.1.0/24 2", "::/64 1", "127.0.2.0/24 1"], told.Networks!.Value.Select(n => $"{n.Network} {n.Connections}"));
        Assert.Equal((100, 31L), (told.Networks.Value[0].OldestS!.Value, told.Networks.Value[0].BytesIn));
        Assert.True(told.Networks.Value[2].BytesIn is 10_004);
        Assert.Equal(["127.0.0.0/16 3"], (await Ask(new ClientQuery(Filter("127.0.0.0/8"), Networks: new NetworkPrefixes(16)))).Networks!.Value.Select(n => $"{n.Network} {n.Connections}"));
    }

    private static PeerFilter Filter(string text) => PeerFilter.TryParse(text, out PeerFilter? filter) ? filter : throw new FormatException(text);

    [Fact(Timeout = 60_000)]
    public async Task Half_closed_unread_unaccepted_and_vanished_clients_are_told_apart()
    {
        using var place = new ClientsPlace();
        using ClientsHaproxy haproxy = await ClientsHaproxy.StartAsync(place.Netns);
        Socket half = place.Tunnel(), slow = place.Connect(21004, receiveBuffer: 4096), vanished = place.Tunnel(from: "127.0.3.3"), idle = place.Idle();
        // The backend echoes and closes after the client; an idle client that has finished is closed at once, so HAProxy must wait for
        // somebody: the download, whose client finishes and reads nothing.
        slow.Shutdown(SocketShutdown.Send);
        await place.Until(haproxy, s => s is { Established: 3, HalfClosed: 1 }, "the slow one is half-closed");
        ClientsFound found = await place.FindAsync(haproxy);
        ConnectionStatus download = found.Rows.Single(r => r.Peer == ClientsPlace.NameOf(slow));
        Assert.Equal(("close-wait", "*:99", "downloads", "endless", "zeros"), (download.State, download.Service, download.Frontend, download.Backend, download.Server));

        // What the vanished one is sent is never acknowledged; it stays until a timeout, and is seen so.
        place.Netns.Exec("nft", "add table inet t; add chain inet t c { type filter hook input priority 0; }; add rule inet t c ip saddr 127.0.3.3 drop; add rule inet t c ip daddr 127.0.3.3 drop");
        vanished.Close(0);
        half.Shutdown(SocketShutdown.Both);
        await place.Until(haproxy, s => s is { Established: 2, HalfClosed: 1, Total: 3 }, "one has gone, one vanished");
        Assert.Contains((await place.FindAsync(haproxy)).Rows, r => r is { State: "established" } && r.Peer.StartsWith("127.0.3.3:", StringComparison.Ordinal));

        // Stopped by SIGSTOP it accepts nobody.
        Assert.True(FlipController.Tests.Shared.Signals.Send(haproxy.Pid, 19));
        await FlipController.Tests.Shared.Eventually.True(() => Directory.GetDirectories($"/proc/{haproxy.Pid}/task")
            .All(thread => File.ReadAllText($"{thread}/stat").Split(") ")[^1].StartsWith('T')), TimeSpan.FromSeconds(10), "every thread of it stops");
        Socket waiting = place.Connect(21001);
        await place.Until(haproxy, s => s is { NotAccepted: 1, Total: 4 }, "one waits");
        Assert.True(FlipController.Tests.Shared.Signals.Send(haproxy.Pid, 18));
        await place.Until(haproxy, s => s is { NotAccepted: 0, Established: 3, Total: 4 }, "it is accepted");

        // HAProxy dies with data unsent: the kernel goes on delivering what is for the download.
        haproxy.Kill();
        await place.Until(haproxy, s => s is { Orphans: >= 1, Established: 0, HalfClosed: 0 }, "orphans");
        ClientsFound orphans = await place.Clients.FindAsync(haproxy.Of(), new ClientQuery(), null, null, DateTimeOffset.UtcNow, TestContext.Current.CancellationToken);
        Assert.True(orphans.Rows.Single(r => r.Peer == ClientsPlace.NameOf(slow)) is { Orphan: true, State: "last-ack" or "fin-wait-1", Frontend: null });
        GC.KeepAlive(idle);
        GC.KeepAlive(waiting);
    }

    [Fact(Timeout = 60_000)]
    public async Task Two_generations_on_the_same_ports_have_each_its_own()
    {
        using var place = new ClientsPlace();
        using ClientsHaproxy old = await ClientsHaproxy.StartAsync(place.Netns);
        await using AdminSession session = await old.Admin.OpenSessionAsync(TestContext.Current.CancellationToken);
        Socket[] first = [place.Tunnel(), place.Tunnel("::1"), place.Connect(21004, receiveBuffer: 4096)];
        await place.Until(old, s => s.Total == 3, "three on the old one");
        old.SoftStop();
        await FlipController.Tests.Shared.Eventually.True(() => place.Diag.Listeners().All(l => l.Local.Port < 21000), TimeSpan.FromSeconds(10), "it stops listening");
        using ClientsHaproxy next = await ClientsHaproxy.StartAsync(place.Netns);
        Socket[] second = [place.Tunnel(), place.Tunnel("::1"), place.Idle(), place.Idle()];

        ClientsFound ofOld = await place.Clients.FindAsync(old.Of(1, portsShared: true), new ClientQuery(), new AdminChannel(session), null, DateTimeOffset.UtcNow, TestContext.Current.CancellationToken);
        ClientsFound ofNext = await place.FindAsync(next, shared: true);
        Assert.Equal(first.Select(ClientsPlace.NameOf).Order(), ofOld.Rows.Select(r => r.Peer).Order());
        Assert.Equal(second.Select(ClientsPlace.NameOf).Order(), ofNext.Rows.Select(r => r.Peer).Order());
        Assert.Equal(["downloads", "tunnel", "tunnel"], ofOld.Rows.Select(r => r.Frontend!).Order());
        Assert.Equal((3, 2), (ofOld.Streams, ofNext.Streams));

        // The old one's orphan: only its ledger knows whose it is.
        string orphan = ClientsPlace.NameOf(first[2]);
        old.Kill();
        await place.Until(old, s => s is { Total: 0, OrphansOfUnknown: 1 }, "one of unknown", shared: true);
        Assert.Equal((4, 1), ((await place.CountAsync(next, shared: true)).Total, (await place.CountAsync(next, shared: true)).OrphansOfUnknown));
        (DateTimeOffset?, bool) Ledger(IPEndPoint peer, int port) => peer.ToString() == orphan && port == 21004 ? (DateTimeOffset.UtcNow, true) : (null, false);
        Assert.Equal((1, 0), (await place.Clients.CountAsync(old.Of(1, true), Ledger, TestContext.Current.CancellationToken)) is var s ? (s.Orphans, s.OrphansOfUnknown) : default);
    }

    /// <summary>The addresses HAProxy tells are nobody's peers then, and the descriptors tell instead.</summary>
    [Theory(Timeout = 60_000)]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Clients_behind_the_PROXY_protocol_have_the_peer_that_the_kernel_knows(bool shared)
    {
        using var place = new ClientsPlace();
        using ClientsHaproxy haproxy = await ClientsHaproxy.StartAsync(place.Netns);
        Socket proxied = place.Connect(21005);
        proxied.Send("PROXY TCP4 192.0.2.1 192.0.2.2 1111 80\r\n"u8);
        ClientsPlace.Echo(proxied);
        Socket direct = place.Tunnel();
        ClientsFound found = await place.FindAsync(haproxy, new ClientQuery(Order: ClientOrder.Age), shared);
        Assert.Equal(((string?)"proxied", (string?)"tunnel"), (Row(proxied).Frontend, Row(direct).Frontend));
        Assert.True(Row(proxied) is { AgeS: >= 0, AgeIsAtLeast: true });
        ConnectionStatus Row(Socket socket) => found.Rows.Single(r => r.Peer == ClientsPlace.NameOf(socket));

        Assert.True(PeerFilter.TryParse(ClientsPlace.NameOf(proxied), out PeerFilter? peer));
        Assert.Equal(new ClientsClosed(1, 1, 0, 0, 0, null), await new ClientClosing(place.Clients).CloseAsync(
            haproxy.Of(portsShared: shared), new ClientQuery(peer), haproxy.Channel, null, DateTimeOffset.UtcNow, TestContext.Current.CancellationToken));
        Assert.Equal(0, proxied.Receive(new byte[1]));
        ClientsPlace.Echo(direct);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_generation_that_is_gone_has_nobody_and_a_listener_alone_too()
    {
        using var place = new ClientsPlace();
        using ClientsHaproxy haproxy = await ClientsHaproxy.StartAsync(place.Netns);
        Assert.Equal(0, (await place.FindAsync(haproxy)).Total);
        Assert.Equal(0, (await place.Clients.FindAsync(new ClientsOf(1, "retired", int.MaxValue, ClientsHaproxy.Ports, true), new ClientQuery(), null, null, default)).Total);
        Assert.Equal(0, (await place.Clients.FindAsync(new ClientsOf(1, "retired", haproxy.Pid, [], false), new ClientQuery(), null, null, default)).Total);
    }
}
