using System.Globalization;
using System.Net;
using System.Runtime.InteropServices;

namespace FlipController.Tests.Shared;

/// <summary>A network namespace of a test's own, deleted with everything in it when the test ends, however it ends.</summary>
public sealed class Netns : IDisposable
{
    // The creator's pid is in the name, so that a later run can tell what nobody will delete any more.
    private const string Prefix = "flipt-";

    private static int s_count;
    private static readonly Lazy<bool> s_swept = new(Sweep);

    private readonly List<NetnsProcess> _processes = [];

    private Netns(string name) => Name = name;

    public string Name { get; }

    /// <summary>Equivalent to: `ip netns add NAME; ip -n NAME link set lo up`.</summary>
    public static Netns Create()
    {
        _ = s_swept.Value;
        var netns = new Netns(string.Create(CultureInfo.InvariantCulture, $"{Prefix}{Environment.ProcessId}-{Interlocked.Increment(ref s_count)}"));
        Command.Run("ip", "netns", "add", netns.Name);
        try
        {
            netns.Ip("link", "set", "lo", "up");
            return netns;
        }
        catch
        {
            netns.Dispose();
            throw;
        }
    }

    /// <summary>Two namespaces joined by a veth pair.</summary>
    public static NetnsPair Pair() => NetnsPair.Create();

    /// <summary>Equivalent to: `ip -n NAME ARGUMENTS`.</summary>
    public string Ip(params string[] arguments) => Command.Run("ip", ["-n", Name, .. arguments]);

    /// <summary>Runs a program inside, to its end; its output. Throws with its errors when it fails.</summary>
    public string Exec(string program, params string[] arguments) => Command.Run("ip", ["netns", "exec", Name, program, .. arguments]);

    /// <summary>Of everything inside that has this name (its comm), in order. What ends meanwhile is left out.</summary>
    public int[] Pids(string comm) =>
        [.. Command.Run("ip", "netns", "pids", Name).Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(p => int.Parse(p, CultureInfo.InvariantCulture)).Where(p => Comm(p) == comm).Order()];

    private static string Comm(int pid)
    {
        try
        {
            return File.ReadAllText($"/proc/{pid}/comm").Trim();
        }
        catch (IOException)
        {
            return ""; // It has ended: ENOENT at the open, ESRCH at the read.
        }
    }

    /// <summary>Starts a program inside. It is killed with the namespace.</summary>
    public NetnsProcess Start(string program, params string[] arguments)
    {
        // `ip netns exec` becomes the program, so the pid is the program's.
        var process = new NetnsProcess("ip", ["netns", "exec", Name, program, .. arguments]);
        lock (_processes) _processes.Add(process);
        return process;
    }

    /// <summary>
    /// Runs code on a thread that is inside. It should open sockets and return them; what it hands to the thread pool or starts
    /// as a Task does not run inside.
    /// </summary>
    public T Run<T>(Func<T> code) => NamespaceThread.Run(Name, code);

    public void Run(Action code) => NamespaceThread.Run(Name, () =>
    {
        code();
        return true;
    });

    /// <summary>For instance net.ipv4.ip_forward.</summary>
    public void Sysctl(string key, string value) => Run(() => File.WriteAllText($"/proc/sys/{key.Replace('.', '/')}", value));

    public void Dispose()
    {
        NetnsProcess[] processes;
        lock (_processes) processes = [.. _processes];
        foreach (var process in processes) process.Dispose();
        Delete(Name);
    }

    // What was started may have daemonised children (HAProxy does): whatever lives in a namespace that only we made is ours.
    private static void Delete(string name)
    {
        for (var round = 0; round < 50; round++)
        {
            var pids = Command.TryRun("ip", "netns", "pids", name).Split('\n', StringSplitOptions.RemoveEmptyEntries)
                .Select(p => int.Parse(p, CultureInfo.InvariantCulture)).Where(p => p != Environment.ProcessId).ToList();
            if (pids.Count == 0) break;
            foreach (var pid in pids) _ = Signals.Send(pid, Signals.Kill);
            Thread.Sleep(10);
        }
        _ = Command.TryRun("ip", "netns", "delete", name);
    }

    private static bool Sweep()
    {
        if (!Directory.Exists("/var/run/netns")) return true;
        foreach (var name in Directory.EnumerateFiles("/var/run/netns").Select(p => Path.GetFileName(p)))
        {
            if (name.StartsWith(Prefix, StringComparison.Ordinal)
                && name[Prefix.Length..].Split('-') is [var creator, _]
                && int.TryParse(creator, NumberStyles.None, CultureInfo.InvariantCulture, out var pid)
                && !Directory.Exists($"/proc/{pid}"))
                Delete(name);
        }
        return true;
    }
}

/// <summary>
/// <code>
///   Client                                   Server
///   veth0  10.77.0.1/24  -------------  10.77.0.2/24  veth0
///          fd00:77::1/64                fd00:77::2/64
/// </code>
/// </summary>
public sealed class NetnsPair : IDisposable
{
    private NetnsPair(Netns client, Netns server) => (Client, Server) = (client, server);

    public Netns Client { get; }

    public Netns Server { get; }

    /// <summary>The device's name, the same in both.</summary>
    public string Device => "veth0";

    public IPAddress ClientV4 { get; } = IPAddress.Parse("10.77.0.1");

    public IPAddress ServerV4 { get; } = IPAddress.Parse("10.77.0.2");

    public IPAddress ClientV6 { get; } = IPAddress.Parse("fd00:77::1");

    public IPAddress ServerV6 { get; } = IPAddress.Parse("fd00:77::2");

    internal static NetnsPair Create()
    {
        var client = Netns.Create();
        try
        {
            var server = Netns.Create();
            var pair = new NetnsPair(client, server);
            try
            {
                client.Ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", server.Name);
                foreach (var (netns, v4, v6) in new[] { (client, pair.ClientV4, pair.ClientV6), (server, pair.ServerV4, pair.ServerV6) })
                {
                    netns.Ip("address", "add", $"{v4}/24", "dev", "veth0");
                    netns.Ip("address", "add", $"{v6}/64", "dev", "veth0", "nodad"); // usable at once
                    netns.Ip("link", "set", "veth0", "up");
                }
                return pair;
            }
            catch
            {
                server.Dispose();
                throw;
            }
        }
        catch
        {
            client.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        Client.Dispose();
        Server.Dispose();
    }
}

internal static partial class Signals
{
    public const int Reload = 1, Interrupt = 2, Kill = 9, Terminate = 15, Continue = 18, Stop = 19; // signal(7)

    public static bool Send(int pid, int signal) => pid > 1 && kill(pid, signal) == 0;

    [DllImport("libc", SetLastError = true)]
    private static extern int kill(int pid, int signal);
}
