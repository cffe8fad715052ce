using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Clients;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Tests.Shared;

namespace FlipController.Benchmarks;

/// <summary>
/// What it costs to tell who is connected: 100,000 live connections, each with a stream in a real HAProxy, in a namespace; where no process
/// may have so many descriptors they are those of several generations. The clients and the one that asks are processes of their own, so
/// that the memory is the question's alone.
/// </summary>
internal static class ConnectionsBenchmark
{
    private const int FirstPort = 21000, Ports = 4, SpareDescriptors = 1000;

    public static async Task<int> RunAsync(bool writeReadme, bool isShort)
    {
        int connections = isShort ? 10_000 : 100_000;
        int generations = (connections - 1) / (MostDescriptors() - SpareDescriptors) + 1, each = connections / generations;
        connections = each * generations;
        using Netns netns = Netns.Create();
        netns.Sysctl("net.core.somaxconn", "65535");
        using var files = new TempDir();
        string self = Environment.ProcessPath!, all = connections.ToString(CultureInfo.InvariantCulture);
        var haproxys = new List<NetnsProcess>();
        for (int i = 0; i < generations; i++)
        {
            int port = FirstPort + i * Ports;
            files.Write($"{i}.cfg", $"""
                global
                  maxconn {each + 100}
                  no strict-limits
                  stats socket {files[$"{i}.sock"]} mode 600 level admin
                defaults
                  mode tcp
                  timeout client 1h
                  timeout connect 1h
                  timeout server 1h
                frontend waits
                  bind :::{port}-{port + Ports - 1} backlog 65535
                  tcp-request inspect-delay 1h
                  tcp-request content accept if WAIT_END
                  default_backend none
                backend none

                """);
            NetnsProcess haproxy = netns.Start("haproxy", "-db", "-q", "-f", files[$"{i}.cfg"]);
            haproxys.Add(haproxy);
            var admin = new AdminSocket(files[$"{i}.sock"]);
            await Eventually.True(() => Answers(admin), TimeSpan.FromSeconds(20), () => $"HAProxy should run: {haproxy.Errors}");
            NetnsProcess clients = netns.Start(self, "connections-hold", each.ToString(CultureInfo.InvariantCulture), i.ToString(CultureInfo.InvariantCulture));
            await Eventually.True(() => clients.HasExited || clients.Output.Contains("ready", StringComparison.Ordinal), TimeSpan.FromMinutes(3), () => "the clients should be connected");
            int seen = 0;
            await Eventually.True(async () => (seen = (await admin.ShowInfoAsync()).CurrConns) == each, TimeSpan.FromMinutes(1), () => $"HAProxy has {seen} of {each}: {haproxy.Errors}{clients.Errors}");
        }

        var table = new StringBuilder();
        table.Append(CultureInfo.InvariantCulture, $"{connections:#,0} live connections, each with a stream, in {generations} HAProxy{(generations == 1 ? "" : "s, one a generation (as many as the descriptors of a process allow)")}; the first 20 are shown. Median of five runs in one process; {Environment.ProcessorCount} cores shared by HAProxy and the one that asks.\n\n");
        table.Append("| | time, ms | processor time of the one that asks, ms | memory, MiB more at its peak |\n|---|---|---|---|\n");
        bool passed = true;
        foreach (string what in (string[])["descriptors", "sockets", "streams", "kernel", "shared", "idle", "age", "networks"])
        {
            using NetnsProcess asks = netns.Start(self, "connections-ask", what, files.Path, all, string.Join(',', haproxys.Select(h => h.Pid)));
            if (await asks.Exit(TimeSpan.FromMinutes(2)) != 0) throw new InvalidOperationException($"{what}: {asks.Output}{asks.Errors}");
            double[] said = [.. asks.Output.Split(' ').Select(t => double.Parse(t, CultureInfo.InvariantCulture))];
            bool query = Questions.ContainsKey(what);
            passed &= !query || (said[0] < 1000 && said[1] < 64);
            table.Append(CultureInfo.InvariantCulture, $"| {(query ? Questions[what].Text : Parts[what])} | {said[0]:0} | {said[2]:0} | {said[1]:0.0} |\n");
        }
        var watch = Stopwatch.StartNew();
        int lines = netns.Exec("ss", "-HtinemO", "sport", "ge", FirstPort.ToString(CultureInfo.InvariantCulture), "and", "sport", "lt", (FirstPort + generations * Ports).ToString(CultureInfo.InvariantCulture)).Count(c => c == '\n');
        table.Append(CultureInfo.InvariantCulture, $"| `ss -tinem` ({lines:#,0} lines), for comparison | {watch.Elapsed.TotalMilliseconds:0} | | |\n");
        Console.WriteLine(table);
        if (writeReadme) Readme.Write("connections", table.ToString());
        return passed ? 0 : 1;
    }

    private static int MostDescriptors() => File.ReadLines("/proc/self/limits").Where(l => l.StartsWith("Max open files", StringComparison.Ordinal))
        .Select(l => int.Parse(l.Split(' ', StringSplitOptions.RemoveEmptyEntries)[4], CultureInfo.InvariantCulture)).Single();

    private static async Task<bool> Answers(AdminSocket admin)
    {
        try
        {
            return (await admin.ShowInfoAsync()).Pid > 0;
        }
        catch (FlipException)
        {
            return false;
        }
    }

    private static readonly Dictionary<string, string> Parts = new()
    {
        ["descriptors"] = "part: whose descriptors", ["sockets"] = "part: the kernel's sockets, kept nowhere", ["streams"] = "part: HAProxy's streams (`show sess`)",
    };

    private static readonly Dictionary<string, (string Text, ClientQuery Query, bool Joined)> Questions = new()
    {
        ["kernel"] = ("longest idle, HAProxy not asked", new ClientQuery(), false),
        ["shared"] = ("the same, on ports that another generation uses too", new ClientQuery(), false),
        ["idle"] = ("longest idle, with HAProxy's names", new ClientQuery(), true),
        ["age"] = ("oldest", new ClientQuery(Order: ClientOrder.Age), true),
        ["networks"] = ("longest idle, and summed up by network", new ClientQuery(Networks: new NetworkPrefixes()), true),
    };

    /// <summary>Connects from many addresses and stays until it is killed.</summary>
    public static int Hold(int connections, int generation)
    {
        var sockets = new Socket[connections];
        Parallel.For(0, connections, new ParallelOptions { MaxDegreeOfParallelism = 4 }, i =>
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            socket.Bind(new IPEndPoint(new IPAddress([127, (byte)(1 + generation), (byte)(i / 2000), (byte)(1 + i % 8)]), 0));
            socket.Connect(IPAddress.Loopback, FirstPort + generation * Ports + i % Ports);
            sockets[i] = socket;
        });
        Console.WriteLine("ready");
        Thread.Sleep(Timeout.Infinite);
        GC.KeepAlive(sockets);
        return 0;
    }

    /// <summary>Asks once to have everything loaded, of a generation without clients; then five times. Writes milliseconds and MiB.</summary>
    public static async Task<int> AskAsync(string what, string directory, int connections, int[] pids)
    {
        using var diag = new SockDiag();
        var clients = new GenerationClients(diag);
        ClientsOf[] generations = [.. pids.Select((pid, g) => new ClientsOf(g, "retired", pid,
            [.. Enumerable.Range(0, Ports).Select(i => new ServicePort(new Service(IPAddress.Any, 80 + i), FirstPort + g * Ports + i))], false))];
        AdminChannel[] channels = [.. pids.Select((_, g) => new AdminChannel(new AdminSocket(Path.Combine(directory, $"{g}.sock"))))];
        await clients.FindAsync(new ClientsOf(1, "retired", Environment.ProcessId, [new ServicePort(new Service(IPAddress.Any, 80), 1)], false), new ClientQuery(), null, null, DateTimeOffset.UtcNow);
        Linux.Memory.GiveBack();
        long before = ProcessMemory.Resident(Environment.ProcessId)!.Value;
        File.WriteAllText("/proc/self/clear_refs", "5"); // the peak begins anew: proc(5)
        var times = new double[5];
        TimeSpan processor = Process.GetCurrentProcess().TotalProcessorTime;
        for (int i = 0; i < times.Length; i++)
        {
            var watch = Stopwatch.StartNew();
            int seen = 0;
            List<ConnectionStatus> rows = [];
            if (Questions.ContainsKey(what)) seen = (await Task.WhenAll(pids.Select((_, g) => OnceAsync(g, rows)))).Sum();
            else for (int g = 0; g < pids.Length; g++) seen += await OnceAsync(g, rows);
            rows.Sort(ClientQuery.Comparison(ClientOrder.Idle));
            times[i] = watch.Elapsed.TotalMilliseconds;
            if (seen < connections) throw new InvalidOperationException($"{seen} of {connections} were seen");
        }
        Array.Sort(times);
        long peak = File.ReadLines("/proc/self/status").Where(l => l.StartsWith("VmHWM:", StringComparison.Ordinal))
            .Select(l => long.Parse(l["VmHWM:".Length..^"kB".Length].Trim(), CultureInfo.InvariantCulture)).Single() * 1024;
        Console.Write(string.Create(CultureInfo.InvariantCulture, $"{times[2]} {(peak - before) / 1048576.0} {(Process.GetCurrentProcess().TotalProcessorTime - processor).TotalMilliseconds / times.Length}"));
        return 0;

        async Task<int> OnceAsync(int g, List<ConnectionStatus> rows)
        {
            switch (what)
            {
                case "descriptors":
                    return ProcessDescriptors.Read(pids[g]).Sockets;
                case "sockets":
                    int[] count = [0];
                    diag.Walk(TcpStates.Live, new PortBlock(FirstPort + g * Ports, Ports), count, static (count, scoped in socket) => count[0] += socket.Inode != 0 ? 1 : 0);
                    return count[0];
                case "streams":
                    return (await HaproxyStreams.ReadAsync(channels[g], CancellationToken.None)).Count;
                default:
                    var (_, query, joined) = Questions[what];
                    ClientsFound found = await clients.FindAsync(generations[g] with { PortsShared = what == "shared" }, query, joined ? channels[g] : null, null, DateTimeOffset.UtcNow);
                    lock (rows) rows.AddRange(found.Rows);
                    return found.Rows.Length == 20 && (!joined || found.Rows.All(r => r.Frontend == "waits")) ? found.Total : 0;
            }
        }
    }
}
