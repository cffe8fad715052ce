using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Win32.SafeHandles;
using Xunit;

namespace FlipController.Linux.Tests.Kernel;

/// <summary>A network namespace with one thread that lives in it: sockets opened there stay there.</summary>
internal sealed partial class TestNetwork : IDisposable
{
    private static int _count;
    private readonly BlockingCollection<Action> _work = [];
    private readonly Thread _thread;
    private readonly List<IDisposable> _owned = [];

    private TestNetwork(string name)
    {
        Name = name;
        Shell.Run("ip", "netns", "add", name);
        TaskCompletionSource entered = new();
        _thread = new Thread(() =>
        {
            try
            {
                using SafeFileHandle place = File.OpenHandle($"/run/netns/{name}");
                if (SetNamespace((int)place.DangerousGetHandle(), 0x40000000) < 0) // CLONE_NEWNET
                    throw new InvalidOperationException($"setns: errno {Marshal.GetLastPInvokeError()}");
                entered.SetResult();
            }
            catch (Exception e)
            {
                entered.SetException(e);
                return;
            }
            foreach (Action action in _work.GetConsumingEnumerable()) action();
        }) { IsBackground = true, Name = name };
        _thread.Start();
        try
        {
            entered.Task.GetAwaiter().GetResult();
            Shell.Run("ip", "-n", name, "link", "set", "lo", "up");
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    internal string Name { get; }

    internal static TestNetwork Create(string role)
    {
        if (Environment.UserName != "root")
        {
            Assert.False((Environment.GetEnvironmentVariable("FLIP_REQUIRE") ?? "").Contains("netns"), "FLIP_REQUIRE=netns, but not root");
            Assert.Skip("netns: needs root");
        }
        return new TestNetwork($"flipk-{Environment.ProcessId}-{Interlocked.Increment(ref _count)}{role}");
    }

    /// <summary>Two namespaces on one wire: 10.9.0.1 and fd09::1 here, .2 and ::2 there.</summary>
    internal static (TestNetwork Server, TestNetwork Client) CreateTwo()
    {
        TestNetwork server = Create("s"), client = Create("c");
        try
        {
            Shell.Run("ip", "-n", server.Name, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", client.Name);
            foreach ((TestNetwork end, int host) in ((TestNetwork, int)[])[(server, 1), (client, 2)])
            {
                Shell.Run("ip", "-n", end.Name, "address", "add", $"10.9.0.{host}/24", "dev", "wire");
                Shell.Run("ip", "-n", end.Name, "address", "add", $"fd09::{host}/64", "dev", "wire", "nodad");
                Shell.Run("ip", "-n", end.Name, "link", "set", "wire", "up");
            }
            return (server, client);
        }
        catch
        {
            server.Dispose();
            client.Dispose();
            throw;
        }
    }

    internal T Run<T>(Func<T> function)
    {
        TaskCompletionSource<T> done = new();
        _work.Add(() =>
        {
            try { done.SetResult(function()); }
            catch (Exception e) { done.SetException(e); }
        });
        return done.Task.GetAwaiter().GetResult();
    }

    internal void Run(Action action) => Run(() => { action(); return 0; });

    /// <summary>Something that lives as long as the namespace, such as what was opened in it.</summary>
    internal T Own<T>(Func<T> open) where T : IDisposable
    {
        T owned = Run(open);
        _owned.Add(owned);
        return owned;
    }

    internal string Exec(params string[] command) => Shell.Run("ip", ["netns", "exec", Name, .. command]);

    /// <summary>Listens and says its name to whoever connects, then sends back what it gets.</summary>
    internal NamedServer Serve(string address, int port, string name, bool dual = false) => Own(() => new NamedServer(IPAddress.Parse(address), port, name, dual));

    internal Socket Connect(string address, int port) => Run(() =>
    {
        IPAddress to = IPAddress.Parse(address);
        Socket socket = new(to.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { ReceiveTimeout = 5000, SendTimeout = 5000 };
        try
        {
            socket.Connect(to, port);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    });

    /// <summary>The name of the server that answers.</summary>
    internal string Ask(string address, int port)
    {
        using Socket socket = Connect(address, port);
        return Line(socket);
    }

    internal static string Line(Socket socket)
    {
        StringBuilder text = new();
        byte[] one = new byte[1];
        while (socket.Receive(one) == 1 && one[0] != '\n') text.Append((char)one[0]);
        return text.ToString();
    }

    internal static string Echo(Socket socket, string line)
    {
        socket.Send(Encoding.ASCII.GetBytes(line + "\n"));
        return Line(socket);
    }

    public void Dispose()
    {
        for (int i = _owned.Count - 1; i >= 0; i--) _owned[i].Dispose();
        _work.CompleteAdding();
        _thread.Join();
        Shell.Run("ip", "netns", "del", Name);
    }

    [LibraryImport("libc", EntryPoint = "setns", SetLastError = true)]
    private static partial int SetNamespace(int fd, int type);
}

internal sealed class NamedServer : IDisposable
{
    private readonly Socket _listener;

    internal NamedServer(IPAddress address, int port, string name, bool dual)
    {
        _listener = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        if (address.AddressFamily == AddressFamily.InterNetworkV6) _listener.DualMode = dual;
        _listener.Bind(new IPEndPoint(address, port));
        _listener.Listen(1024);
        _ = Accept(Encoding.ASCII.GetBytes(name + "\n"));
    }

    internal int Accepted;

    public void Dispose() => _listener.Dispose();

    private async Task Accept(byte[] name)
    {
        while (true)
        {
            Socket socket;
            try { socket = await _listener.AcceptAsync(); }
            catch (Exception e) when (e is SocketException or ObjectDisposedException) { return; }
            Interlocked.Increment(ref Accepted);
            _ = Talk(socket, name);
        }
    }

    private static async Task Talk(Socket socket, byte[] name)
    {
        using (socket)
        {
            try
            {
                await socket.SendAsync(name);
                byte[] buffer = new byte[1024];
                while (await socket.ReceiveAsync(buffer) is > 0 and int count) await socket.SendAsync(buffer.AsMemory(0, count));
            }
            catch (SocketException)
            {
                // The client is gone.
            }
        }
    }
}

internal static class Shell
{
    internal static string Run(string program, params string[] arguments) => RunWithInput(null, program, arguments);

    internal static string RunWithInput(string? input, string program, params string[] arguments)
    {
        ProcessStartInfo start = new(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true };
        using Process process = Process.Start(start)!;
        Task<string> error = process.StandardError.ReadToEndAsync();
        if (input is not null) process.StandardInput.Write(input);
        process.StandardInput.Close();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0 ? output : throw new InvalidOperationException($"{program} {string.Join(' ', arguments)}: {error.Result}");
    }
}

internal static class Eventually
{
    /// <summary>Looks until it is so, for at most twenty seconds: a SYN that got lost is sent again after 1, 3 and 7.</summary>
    internal static void True(Func<bool> condition, string what) => True(condition, () => what);

    /// <param name="what">Asked once it was not so in time.</param>
    internal static void True(Func<bool> condition, Func<string> what)
    {
        Stopwatch watch = Stopwatch.StartNew();
        while (!condition())
        {
            if (watch.Elapsed > TimeSpan.FromSeconds(20)) Assert.Fail($"not within 20 s: {what()}");
            Thread.Yield();
        }
    }
}
