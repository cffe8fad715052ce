using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Clients;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using Xunit;

namespace FlipController.Linux.Tests.Clients;

public sealed class ClientClosingTests
{
    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    [Fact(Timeout = 60_000)]
    public async Task A_peer_is_closed_through_the_session_of_a_stopping_HAProxy_and_nobody_else()
    {
        using var place = new ClientsPlace();
        using ClientsHaproxy old = await ClientsHaproxy.StartAsync(place.Netns);
        AdminSession session = await old.Admin.OpenSessionAsync(Stop);
        Socket meant = place.Tunnel(), six = place.Tunnel("::1"), download = place.Connect(21004, from: "127.0.5.1", receiveBuffer: 4096), half = place.Connect(21002);
        ClientsPlace.Echo(half);
        await place.Until(old, s => s.Total == 4, "four");
        old.SoftStop();
        await FlipController.Tests.Shared.Eventually.True(() => place.Diag.Listeners().All(l => l.Local.Port < 21000), TimeSpan.FromSeconds(10), "it stops listening");
        using ClientsHaproxy next = await ClientsHaproxy.StartAsync(place.Netns);
        Socket[] untouched = [place.Tunnel(), place.Tunnel("::1"), place.Idle()];

        var closing = new ClientClosing(place.Clients);
        AdminChannel channel = new(session);
        Assert.True(PeerFilter.TryParse(ClientsPlace.NameOf(meant), out PeerFilter? peer));
        ClientsClosed one = await closing.CloseAsync(old.Of(1, true), new ClientQuery(peer, Limit: int.MaxValue), channel, null, DateTimeOffset.UtcNow, Stop);
        Assert.Equal(new ClientsClosed(1, 1, 0, 0, 0, null), one);
        Assert.Equal(0, meant.Receive(new byte[1])); // an end, not a reset
        ClientsPlace.Echo(six);
        ClientsPlace.Echo(half);
        await place.Until(old, s => s.Total == 3, "three are left", shared: true);

        Assert.True(PeerFilter.TryParse("127.0.5.0/24", out PeerFilter? network));
        Assert.Equal(new ClientsClosed(1, 1, 0, 0, 0, null),
            await closing.CloseAsync(old.Of(1, true), new ClientQuery(network), channel, null, DateTimeOffset.UtcNow, Stop));
        Assert.Equal(new ClientsClosed(2, 2, 0, 0, 0, null),
            await closing.CloseAsync(old.Of(1, true), new ClientQuery(Limit: int.MaxValue), channel, null, DateTimeOffset.UtcNow, Stop));
        // The download's client reads nothing: HAProxy keeps it, until the kernel is asked.
        // The others leave when the threads of theirs come to it, which is after HAProxy's answer.
        await place.Until(old, s => s.Total == 1, "the download is left", shared: true);
        Assert.Equal(new ClientsClosed(0, 0, 0, 0, 0, null),
            await closing.CloseAsync(old.Of(1, true), new ClientQuery(Limit: int.MaxValue), channel, null, DateTimeOffset.UtcNow, Stop));
        Assert.Equal(new ClientsClosed(1, 0, 1, 0, 0, null, Again: 1),
            await closing.CloseAsync(old.Of(1, true), new ClientQuery(Limit: int.MaxValue), channel, null, DateTimeOffset.UtcNow + ClientClosing.Grace, Stop));
        await FlipController.Tests.Shared.Eventually.True(async () => AdminSession.IsDrained(await session.ShowInfoAsync()), TimeSpan.FromSeconds(10), () => "drained");
        await session.DisposeAsync();
        await old.ExitAsync();
        foreach (Socket tunnel in untouched[..2]) ClientsPlace.Echo(tunnel);
        Assert.All(untouched, s => Assert.True(ClientsPlace.IsOpen(s)));
        GC.KeepAlive(download);
    }

    [Fact(Timeout = 60_000)]
    public async Task The_longest_idle_go_first_and_clients_without_a_stream_by_the_kernel()
    {
        using var place = new ClientsPlace();
        using ClientsHaproxy haproxy = await ClientsHaproxy.StartAsync(place.Netns);
        Socket[] sockets = [place.Idle(), place.Tunnel(), place.Idle(), place.Tunnel(), place.Idle()];
        await using AdminSession session = await haproxy.Admin.OpenSessionAsync(Stop);
        // The idle time of each is to be its own, by far more than the kernel's clock tick.
        foreach (Socket socket in sockets.Reverse())
        {
            await Task.Delay(30, Stop);
            if (sockets.IndexOf(socket) % 2 == 1) ClientsPlace.Echo(socket);
            else Ask(socket);
        }
        var closing = new ClientClosing(place.Clients);
        for (int closed = 1; closed <= 5; closed++)
        {
            ClientsClosed one = await closing.CloseAsync(haproxy.Of(), new ClientQuery(Limit: 1), new AdminChannel(session), null, DateTimeOffset.UtcNow, Stop);
            Socket last = sockets[^closed];
            bool tunnel = sockets.IndexOf(last) % 2 == 1;
            Assert.Equal(new ClientsClosed(1, tunnel ? 1 : 0, tunnel ? 0 : 1, 0, 0, null), one);
            Assert.True(last.Poll(10_000_000, SelectMode.SelectRead));
            if (tunnel) Assert.Equal(0, last.Receive(new byte[1]));
            else Assert.Equal(SocketError.ConnectionReset, Assert.Throws<SocketException>(() => last.Receive(new byte[1])).SocketErrorCode);
            Assert.All(sockets[..^closed], s => Assert.True(ClientsPlace.IsOpen(s)));
            await place.Until(haproxy, s => s.Total == 5 - closed, $"{5 - closed} are left");
        }

        static void Ask(Socket socket)
        {
            socket.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n"u8);
            byte[] buffer = new byte[4096];
            string answer = "";
            while (!answer.EndsWith("hello", StringComparison.Ordinal)) answer += System.Text.Encoding.ASCII.GetString(buffer, 0, socket.Receive(buffer));
        }
    }

    [Fact(Timeout = 60_000)]
    public async Task Without_a_session_the_kernel_closes_and_HAProxy_ends()
    {
        using var place = new ClientsPlace();
        using ClientsHaproxy haproxy = await ClientsHaproxy.StartAsync(place.Netns);
        Socket tunnel = place.Tunnel(), idle = place.Idle(21003, "::1"), mapped = place.Tunnel("::1");
        haproxy.SoftStop();
        await FlipController.Tests.Shared.Eventually.True(() => place.Diag.Listeners().All(l => l.Local.Port < 21000), TimeSpan.FromSeconds(10), "it stops listening");
        ClientsClosed closed = await new ClientClosing(place.Clients).CloseAsync(
            haproxy.Of(), new ClientQuery(Limit: int.MaxValue), null, null, DateTimeOffset.UtcNow, Stop);
        Assert.Equal(closed.Matched, closed.ByKernel);
        Assert.InRange(closed.Matched, 2, 3); // a soft stop may close idle clients at once
        Assert.Throws<SocketException>(() => tunnel.Receive(new byte[1]));
        Assert.Throws<SocketException>(() => mapped.Receive(new byte[1]));
        await haproxy.ExitAsync();
        GC.KeepAlive(idle);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_socket_that_is_gone_is_not_closed_and_one_of_the_same_addresses_is_left_alone()
    {
        using var place = new ClientsPlace();
        using ClientsHaproxy haproxy = await ClientsHaproxy.StartAsync(place.Netns);
        Socket first = place.Tunnel(from: "127.0.6.1");
        int port = ((System.Net.IPEndPoint)first.LocalEndPoint!).Port;
        TcpSocketId id = default;
        Look();
        TcpSocketId kept = id;
        first.LingerState = new LingerOption(true, 0); // a reset, so that the port is free at once
        first.Dispose();
        await place.Until(haproxy, s => s.Total == 0, "the first is gone");
        Assert.False(place.Diag.Destroy(kept));
        Socket second = place.Netns.Run(() =>
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            socket.Bind(new System.Net.IPEndPoint(System.Net.IPAddress.Parse("127.0.6.1"), port));
            socket.Connect(System.Net.IPAddress.Loopback, 21002);
            return socket;
        });
        using (second)
        {
            ClientsPlace.Echo(second);
            Assert.False(place.Diag.Destroy(kept));
            ClientsPlace.Echo(second);
            Look();
            Assert.True(place.Diag.Destroy(id));
            Assert.Throws<SocketException>(() => second.Receive(new byte[1]));
        }

        void Look() => place.Diag.Walk<object?>(TcpStates.Established, new PortBlock(21002, 1), null, (_, scoped in socket) => id = socket.Id);
    }
}
