using System.Net;
using System.Net.Sockets;

namespace FlipController.Load;

public sealed record BackendOptions
{
    /// <summary>Port 0: any that is free, see <see cref="Backend.Endpoints"/>.</summary>
    public IReadOnlyList<IPEndPoint> Listen { get; init; } = [new(IPAddress.Loopback, 0)];

    /// <summary>What `/` answers and X-Backend says.</summary>
    public string Name { get; init; } = "backend";

    /// <summary>The network namespace to listen in; null: the caller's.</summary>
    public string? Namespace { get; init; }
}

/// <summary>
/// A small real HTTP/1.1 server: `/` and any path it does not know answer the name (the latter with 404); `/bytes/N?seed=S&amp;rate=R`
/// N bytes that a client can verify, R a second; `/status/CODE`; `/slow/MS`; `/health`, switched by POST to `/health/down` and
/// `/health/up`; an Upgrade is answered with 101 and then with an echo.
/// </summary>
public sealed class Backend : IDisposable
{
    private readonly List<Socket> _listeners;
    private readonly CancellationTokenSource _ending = new();
    private readonly HashSet<Socket> _connections = [];
    private volatile TaskCompletionSource? _stall;
    private long _accepted, _requests;

    private Backend(string name, List<Socket> listeners)
    {
        Name = name;
        _listeners = listeners;
        Endpoints = [.. listeners.Select(l => (IPEndPoint)l.LocalEndPoint!)];
    }

    public string Name { get; }

    public IReadOnlyList<IPEndPoint> Endpoints { get; }

    public IPEndPoint Endpoint => Endpoints[0];

    /// <summary>What /health says.</summary>
    public bool Healthy { get; set; } = true;

    public long Accepted => Interlocked.Read(ref _accepted);

    public long Requests => Interlocked.Read(ref _requests);

    public int Connections
    {
        get
        {
            lock (_connections) return _connections.Count;
        }
    }

    internal CancellationToken Ending => _ending.Token;

    /// <summary>Listening when it returns.</summary>
    public static Backend Start(BackendOptions options)
    {
        var listeners = options.Namespace is { } name
            ? Tests.Shared.NamespaceThread.Run(name, () => Listen(options.Listen))
            : Listen(options.Listen);
        var backend = new Backend(options.Name, listeners);
        foreach (var listener in listeners) _ = backend.Accept(listener);
        return backend;
    }

    /// <summary>From now on nothing is answered, though everything is accepted and read.</summary>
    public void Stall() => _stall ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>What waited is answered.</summary>
    public void Resume() => Interlocked.Exchange(ref _stall, null)?.SetResult();

    public void Dispose()
    {
        if (_ending.IsCancellationRequested) return;
        _ending.Cancel();
        foreach (var listener in _listeners) listener.Dispose();
        lock (_connections)
        {
            foreach (var connection in _connections) connection.Dispose();
        }
        Resume();
    }

    internal Task WaitWhileStalled() => _stall?.Task ?? Task.CompletedTask;

    internal void CountRequest() => Interlocked.Increment(ref _requests);

    private static List<Socket> Listen(IReadOnlyList<IPEndPoint> endpoints)
    {
        List<Socket> listeners = [];
        try
        {
            foreach (var endpoint in endpoints)
            {
                var listener = new Socket(endpoint.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
                listeners.Add(listener);
                // A restarted backend must not wait for its own TIME_WAITs; .NET sets SO_REUSEADDR by itself on Linux.
                if (endpoint.AddressFamily == AddressFamily.InterNetworkV6) listener.DualMode = false;
                listener.Bind(endpoint);
                listener.Listen(int.MaxValue); // the kernel cuts it to somaxconn
            }
            return listeners;
        }
        catch
        {
            foreach (var listener in listeners) listener.Dispose();
            throw;
        }
    }

    private async Task Accept(Socket listener)
    {
        await Task.Yield();
        while (!_ending.IsCancellationRequested)
        {
            try
            {
                var socket = await listener.AcceptAsync(_ending.Token);
                Interlocked.Increment(ref _accepted);
                _ = Serve(socket);
            }
            catch (OperationCanceledException) when (_ending.IsCancellationRequested)
            {
            }
            catch (SocketException) when (!_ending.IsCancellationRequested)
            {
                // Out of descriptors, or a connection that died in the queue: the listener itself is well.
                await Task.Delay(10);
            }
            catch (Exception e) when (e is ObjectDisposedException or SocketException)
            {
            }
        }
    }

    private async Task Serve(Socket socket)
    {
        lock (_connections) _connections.Add(socket);
        try
        {
            socket.NoDelay = true;
            await new BackendConnection(this, socket).Serve();
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException or OperationCanceledException)
        {
            // The client went away, or this backend did.
        }
        finally
        {
            lock (_connections) _connections.Remove(socket);
            socket.Dispose();
        }
    }
}
