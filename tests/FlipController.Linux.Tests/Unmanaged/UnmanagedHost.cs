using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Linux.Unmanaged;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Unmanaged;

/// <summary>
/// A namespace with 10.9.0.1 and fd09::1, a server that echoes, and HAProxys as an administrator starts them: an echo through them
/// on port 7, their name by HTTP on port 80. Everything in it ends with it.
/// </summary>
internal sealed class UnmanagedHost : IDisposable
{
    internal static readonly IReadOnlySet<int> Nobody = new HashSet<int>();

    internal static readonly Service Web = new(IPAddress.Any, 80), Echo = new(IPAddress.Any, 7);
    internal static readonly Service[] Fronts = [Web, Echo];

    private readonly Netns _netns;
    private readonly TcpListener _echo;
    private readonly List<Socket> _open = [];

    internal UnmanagedHost()
    {
        Require.Netns();
        Require.Program("haproxy");
        _netns = Netns.Create();
        _netns.Ip("address", "add", "10.9.0.1/24", "dev", "lo");
        _netns.Ip("address", "add", "fd09::1/64", "dev", "lo", "nodad");
        _echo = _netns.Run(() =>
        {
            var listener = new TcpListener(IPAddress.Loopback, 9007);
            listener.Start(512);
            return listener;
        });
        _ = EchoAsync();
    }

    internal TempDir Directory { get; } = new();
    internal Netns Netns => _netns;
    internal UnmanagedSearch Search { get; } = new(new Systemd("/bin/false", "/nowhere"));
    internal List<string> Progress { get; } = [];

    internal UnmanagedStop Stop { get; } = new(new Systemd("/bin/false", "/nowhere"), TimeProvider.System)
    {
        ReturnWatch = TimeSpan.FromMilliseconds(300),
    };

    internal UnmanagedStart Start { get; } = new(new Systemd("/bin/false", "/nowhere"), TimeProvider.System)
    {
        ListenBound = TimeSpan.FromSeconds(10),
    };

    /// <summary>Writes a configuration; the binds by front.</summary>
    internal string Configure(string name = "haproxy", string web = "*:80", string? echo = "*:7", string global = "") =>
        Directory.Write($"{name}.cfg", $"""
            global
              {global}
            defaults
              mode http
              timeout connect 1s
              timeout client 1m
              timeout server 1m
            frontend web
              bind {web}
              http-request return status 200 content-type text/plain string {name}
            {(echo is null ? "" : $"frontend echo\n  bind {echo}\n  mode tcp\n  default_backend echo")}
            backend echo
              mode tcp
              server s 127.0.0.1:9007

            """);

    /// <summary>Runs a HAProxy; returns when it listens on the port.</summary>
    internal async Task<NetnsProcess> HaproxyAsync(int port, params string[] arguments)
    {
        NetnsProcess process = _netns.Start("haproxy", arguments);
        await Eventually.True(() => Listens(port), TimeSpan.FromSeconds(10), () => $"nobody on {port}: {process.Output}{process.Errors}");
        if (arguments.Contains("-D")) await process.Exit(TimeSpan.FromSeconds(10));
        return process;
    }

    /// <summary>SIGUSR2 to a master, once it is up: until then it may be lost. Returns when one new worker listens alone.</summary>
    internal async Task<UnmanagedHaproxy> ReloadAsync(UnmanagedHaproxy before)
    {
        await Eventually.True(() => HaproxyProcess.Handles(before.Main.Pid, 12), TimeSpan.FromSeconds(10), () => "the master is not up");
        Assert.True(before.Main.Signal(12));
        UnmanagedHaproxy? after = null;
        await Eventually.True(async () => (after = (await FindAsync()).Haproxy) is { Listening: [var worker] } && worker != before.Listening[0],
            TimeSpan.FromSeconds(10), () => "no new worker alone");
        return after!;
    }

    internal bool Listens(int port) => _netns.Run(() =>
    {
        using var sockets = new SockDiag();
        return sockets.Listeners().Any(l => l.Local.Port == port);
    });

    internal Socket Connect(int port = 7, string address = "10.9.0.1") => _netns.Run(() =>
    {
        IPAddress to = IPAddress.Parse(address);
        var socket = new Socket(to.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { ReceiveTimeout = 5000, SendTimeout = 5000 };
        try
        {
            socket.Connect(to, port);
            lock (_open) _open.Add(socket);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    });

    internal bool Refuses(int port = 7)
    {
        try
        {
            Connect(port).Dispose();
            return false;
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionRefused)
        {
            return true;
        }
    }

    /// <summary>A line there and back.</summary>
    internal static void Talks(Socket socket)
    {
        byte[] there = Encoding.ASCII.GetBytes($"{Guid.NewGuid():N}\n"), back = new byte[there.Length];
        socket.Send(there);
        for (int got = 0; got < back.Length;)
        {
            int count = socket.Receive(back.AsSpan(got));
            Assert.NotEqual(0, count);
            got += count;
        }
        Assert.Equal(there, back);
    }

    /// <summary>The name of the HAProxy that answers.</summary>
    internal string Ask(string address = "10.9.0.1")
    {
        using Socket socket = Connect(80, address);
        socket.Send(Encoding.ASCII.GetBytes("GET / HTTP/1.0\r\n\r\n"));
        var text = new StringBuilder();
        byte[] buffer = new byte[4096];
        for (int count; (count = socket.Receive(buffer)) > 0;) text.Append(Encoding.ASCII.GetString(buffer, 0, count));
        return text.ToString().Split("\r\n\r\n")[^1];
    }

    internal Task<UnmanagedFinding> FindAsync(params Service[] services) =>
        InsideAsync(() => Search.FindAsync(services.Length == 0 ? Fronts : services, Nobody));

    internal Task<StoppedHaproxy> StopAsync(UnmanagedHaproxy haproxy, UnmanagedStop? by = null) =>
        InsideAsync(() => (by ?? Stop).RunAsync(haproxy, Fronts, Nobody, Progress.Add, TestContext.Current.CancellationToken));

    internal Task<UnmanagedHaproxy> StartAsync(UnmanagedHaproxy? haproxy, string? unit = null, UnmanagedStart? by = null) =>
        InsideAsync(() => (by ?? Start).RunAsync(haproxy, unit, Fronts, Nobody, Progress.Add, TestContext.Current.CancellationToken));

    /// <summary>
    /// Runs it and everything it awaits on one thread that is in the namespace: what it opens and starts belongs there.
    /// </summary>
    internal async Task<T> InsideAsync<T>(Func<Task<T>> work)
    {
        var done = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
        var thread = new Thread(() =>
        {
            try
            {
                done.SetResult(_netns.Run(() => Pump.Run(work)));
            }
            catch (Exception e)
            {
                done.SetException(e);
            }
        }) { IsBackground = true };
        thread.Start();
        return await done.Task;
    }

    public void Dispose()
    {
        lock (_open) foreach (Socket socket in _open) socket.Dispose();
        _echo.Dispose();
        _netns.Dispose();
        Directory.Dispose();
    }

    private async Task EchoAsync()
    {
        while (true)
        {
            Socket socket;
            try { socket = await _echo.AcceptSocketAsync(); }
            catch (Exception e) when (e is SocketException or ObjectDisposedException) { return; }
            _ = AnswerAsync(socket);
        }
    }

    private static async Task AnswerAsync(Socket socket)
    {
        using (socket)
        {
            byte[] buffer = new byte[4096];
            try
            {
                while (await socket.ReceiveAsync(buffer) is > 0 and int count) await socket.SendAsync(buffer.AsMemory(0, count));
            }
            catch (SocketException)
            {
                // The other end is gone.
            }
        }
    }

    /// <summary>One thread that carries on what it has begun.</summary>
    private sealed class Pump : SynchronizationContext
    {
        private readonly BlockingCollection<(SendOrPostCallback Work, object? State)> _work = [];

        public override void Post(SendOrPostCallback d, object? state) => _work.Add((d, state));

        internal static T Run<T>(Func<Task<T>> work)
        {
            var pump = new Pump();
            SetSynchronizationContext(pump);
            Task<T> task = work();
            task.ContinueWith(_ => pump._work.CompleteAdding(), TaskScheduler.Default);
            foreach ((SendOrPostCallback next, object? state) in pump._work.GetConsumingEnumerable()) next(state);
            return task.GetAwaiter().GetResult();
        }
    }
}
