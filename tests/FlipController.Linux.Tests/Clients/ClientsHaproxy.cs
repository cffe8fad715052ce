using System.Collections.Immutable;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Clients;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FirstSeen = FlipController.Linux.Clients.FirstSeen;
using FlipController.Linux.Tests.Haproxy;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Clients;

/// <summary>
/// One generation: a real HAProxy in a namespace. Private port 21001 is an HTTP service on IPv4, 21002 a TCP service for both families with a
/// backend that echoes, 21003 HTTP by IPv6, 21004 sends without end, 21005 is
/// 21002 behind the PROXY protocol.
/// </summary>
internal sealed class ClientsHaproxy : IDisposable
{
    internal static readonly ImmutableArray<ServicePort> Ports =
    [
        new(new Service(IPAddress.Any, 80), 21001), new(new Service(IPAddress.IPv6Any, 90), 21002),
        new(new Service(IPAddress.IPv6Any, 80, V6Only: true), 21003), new(new Service(IPAddress.Any, 99), 21004),
        new(new Service(IPAddress.Any, 91), 21005),
    ];

    private readonly TempDir _files = new();
    private readonly NetnsProcess _process;

    private ClientsHaproxy(Netns netns, string more)
    {
        _files.Write("h.cfg", $"""
            global
              stats socket {_files["admin"]} mode 600 level admin
              nbthread 2
              {more}
            defaults
              timeout connect 2s
              timeout client 10m
              timeout server 10m
              timeout http-request 10m
              timeout http-keep-alive 10m
            frontend web
              mode http
              bind *:21001
              http-request return status 200 content-type text/plain string hello
            listen tunnel
              mode tcp
              bind :::21002
              server echo 127.0.0.1:8001
            frontend web6
              mode http
              bind :::21003 v6only
              http-request return status 200 content-type text/plain string hello
            frontend downloads
              mode tcp
              bind *:21004
              default_backend endless
            frontend proxied
              mode tcp
              bind *:21005 accept-proxy
              default_backend tunnel
            backend endless
              mode tcp
              server zeros 127.0.0.1:8002

            """);
        _process = netns.Start("haproxy", "-db", "-q", "-f", _files["h.cfg"]);
        Pid = _process.Pid;
    }

    internal int Pid { get; }
    internal bool HasExited => _process.HasExited;
    internal AdminSocket Admin => new(_files["admin"]);
    internal AdminChannel Channel => new(Admin);

    internal static async Task<ClientsHaproxy> StartAsync(Netns netns, string more = "")
    {
        var haproxy = new ClientsHaproxy(netns, more);
        var waited = Stopwatch.StartNew();
        while (true)
        {
            try
            {
                Assert.Equal(haproxy.Pid, (await haproxy.Admin.ShowInfoAsync()).Pid);
                return haproxy;
            }
            catch (FlipException) when (!haproxy.HasExited && waited.Elapsed < TimeSpan.FromSeconds(20))
            {
                await Task.Delay(10);
            }
        }
    }

    internal ClientsOf Of(int number = 1, bool portsShared = false) => new(number, "retired", Pid, Ports, portsShared);

    internal void SoftStop() => Assert.True(_process.Signal(10)); // SIGUSR1

    internal void Kill() => _process.Dispose();

    internal Task<int> ExitAsync() => _process.Exit(TimeSpan.FromSeconds(20));

    public void Dispose()
    {
        _process.Dispose();
        _files.Dispose();
    }
}

/// <summary>A namespace with the backends, and clients on 127.0.0.0/8 and ::1.</summary>
internal sealed class ClientsPlace : IDisposable
{
    private readonly List<IDisposable> _owned = [];
    private readonly CancellationTokenSource _stop = new();

    internal ClientsPlace()
    {
        Require.Netns();
        Require.Program("haproxy");
        Netns = Netns.Create();
        Diag = Netns.Run(() => new SockDiag());
        Clients = new GenerationClients(Diag);
        Serve(8001, async (socket, stop) =>
        {
            byte[] buffer = new byte[4096];
            while (await socket.ReceiveAsync(buffer, stop) is > 0 and int read) await socket.SendAsync(buffer.AsMemory(0, read), stop);
        });
        Serve(8002, async (socket, stop) =>
        {
            byte[] zeros = new byte[65536];
            while (true) await socket.SendAsync(zeros, stop);
        });
    }

    internal Netns Netns { get; }
    internal SockDiag Diag { get; }
    internal GenerationClients Clients { get; }

    internal Socket Connect(int port, string to = "127.0.0.1", string? from = null, int receiveBuffer = 0)
    {
        Socket socket = Netns.Run(() =>
        {
            var address = IPAddress.Parse(to);
            var client = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { ReceiveTimeout = 10_000, SendTimeout = 10_000 };
            if (receiveBuffer > 0) client.ReceiveBufferSize = receiveBuffer;
            if (from is not null) client.Bind(new IPEndPoint(IPAddress.Parse(from), 0));
            client.Connect(address, port);
            return client;
        });
        _owned.Add(socket);
        return socket;
    }

    /// <summary>A client between two requests.</summary>
    internal Socket Idle(int port = 21001, string to = "127.0.0.1", string? from = null)
    {
        Socket socket = Connect(port, to, from);
        socket.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n"u8);
        string answer = "";
        byte[] buffer = new byte[4096];
        while (!answer.EndsWith("hello", StringComparison.Ordinal)) answer += Encoding.ASCII.GetString(buffer, 0, socket.Receive(buffer));
        return socket;
    }

    /// <summary>Open both ways through to the backend.</summary>
    internal Socket Tunnel(string to = "127.0.0.1", string? from = null)
    {
        Socket socket = Connect(21002, to, from);
        Echo(socket);
        return socket;
    }

    internal static void Echo(Socket socket)
    {
        socket.Send("ping"u8);
        byte[] buffer = new byte[4];
        int got = 0;
        while (got < 4)
        {
            int read = socket.Receive(buffer.AsSpan(got));
            Assert.True(read > 0);
            got += read;
        }
        Assert.Equal("ping", Encoding.ASCII.GetString(buffer));
    }

    internal Task<ClientsFound> FindAsync(ClientsHaproxy haproxy, ClientQuery? query = null, bool shared = false, FirstSeen? seen = null) =>
        Clients.FindAsync(haproxy.Of(portsShared: shared), query ?? new ClientQuery(), haproxy.Channel, seen, DateTimeOffset.UtcNow,
            TestContext.Current.CancellationToken);

    internal Task<ClientSockets> CountAsync(ClientsHaproxy haproxy, bool shared = false) =>
        Clients.CountAsync(haproxy.Of(portsShared: shared), null, TestContext.Current.CancellationToken);

    internal async Task Until(ClientsHaproxy haproxy, Func<ClientSockets, bool> so, string what, bool shared = false)
    {
        ClientSockets? last = null;
        await FlipController.Tests.Shared.Eventually.True(async () => so(last = await CountAsync(haproxy, shared)), TimeSpan.FromSeconds(15), () => $"{what}: {last}");
    }

    internal static string NameOf(Socket socket)
    {
        var local = (IPEndPoint)socket.LocalEndPoint!;
        return new IPEndPoint(local.Address.IsIPv4MappedToIPv6 ? local.Address.MapToIPv4() : local.Address, local.Port).ToString();
    }

    /// <summary>Nothing comes, and the connection is there: nobody has touched it.</summary>
    internal static bool IsOpen(Socket socket) => !socket.Poll(0, SelectMode.SelectRead);

    private void Serve(int port, Func<Socket, CancellationToken, Task> talk)
    {
        Socket listener = Netns.Run(() =>
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            socket.Bind(new IPEndPoint(IPAddress.Loopback, port));
            socket.Listen(1024);
            return socket;
        });
        _owned.Add(listener);
        _ = AcceptAsync();

        async Task AcceptAsync()
        {
            while (true)
            {
                Socket socket;
                try { socket = await listener.AcceptAsync(_stop.Token); }
                catch (Exception e) when (e is SocketException or ObjectDisposedException or OperationCanceledException) { return; }
                _ = TalkAsync(socket);
            }
        }

        async Task TalkAsync(Socket socket)
        {
            using (socket)
            {
                try { await talk(socket, _stop.Token); }
                catch (Exception e) when (e is SocketException or OperationCanceledException)
                {
                    // The test is over, or HAProxy has closed it.
                }
            }
        }
    }

    public void Dispose()
    {
        _stop.Cancel();
        foreach (IDisposable owned in _owned) owned.Dispose();
        Diag.Dispose();
        Netns.Dispose();
        _stop.Dispose();
    }
}
