using System.Globalization;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using FlipController.Core;
using FlipController.Load;
using FlipController.Linux.Redirect;
using FlipController.Tests.Shared;

namespace FlipController.Benchmarks;

/// <summary>
/// What flips cost the clients: the same load without and with a flip every half second, in turns, in one run. A daemon, its HAProxys
/// and a backend in one namespace, the load in another.
/// </summary>
internal static class FlipBenchmark
{
    private const int RatePerSecond = 2000;
    private static readonly TimeSpan s_round = TimeSpan.FromSeconds(12), s_between = TimeSpan.FromMilliseconds(500), s_idle = TimeSpan.FromSeconds(20);

    public static async Task<int> RunAsync(bool writeReadme, int rounds)
    {
        using NetnsPair nets = Netns.Pair();
        using var files = new TempDir();
        using var backend = nets.Server.Start(Programs.Load, "serve", "--listen", "127.0.0.1:8080", "--name", "app");
        files.Write("haproxy.cfg", """
            global
              maxconn 4000
            defaults
              mode http
              timeout connect 5s
              timeout client 30s
              timeout server 30s
            frontend web
              bind *:80
              bind :::80 v6only
              default_backend app
            backend app
              option httpchk GET /health
              server s1 127.0.0.1:8080 check

            """);
        files.Write("flipcontroller.yaml", $$"""
            control: { socket: {{files["control.sock"]}} }
            state: {{files["state"]}}
            runtime: {{files["run"]}}
            pairs: { edge: { haproxy: { config: [{{files["haproxy.cfg"]}}] }, watch: { undo: 1s } } }

            """);
        string published = Publish(files["published"]);
        using var daemon = nets.Server.Start(Path.Combine(published, "flipcontrollerd"), "--config", files["flipcontroller.yaml"]);
        using HttpClient http = Client(files["control.sock"]);
        await Eventually.True(() => Ready(http), TimeSpan.FromSeconds(20), () => $"the pair should serve; the daemon says {daemon.Output}{daemon.Errors}");

        List<LoadResult> steady = [], flipped = [];
        await Eventually.True(() => Steady(http), TimeSpan.FromSeconds(20), () => "the pair should rest");
        double idlePercent = await IdleAsync(daemon.Pid);
        await WarmUpAsync(nets, http);
        for (int round = 0; round < rounds; round++)
        {
            Console.Error.WriteLine($"round {round + 1} of {rounds}");
            steady.Add(await LoadAsync(nets, s_round));
            using var stop = new CancellationTokenSource();
            Task flips = FlipAsync(http, stop.Token);
            flipped.Add(await LoadAsync(nets, s_round));
            await stop.CancelAsync();
            await flips;
            await Eventually.True(() => Steady(http), TimeSpan.FromSeconds(30), () => "the pair should rest");
        }
        await Task.Delay(TimeSpan.FromSeconds(3)); // at rest it gives memory back
        long restKiB = ResidentKiB(daemon.Pid);
        HistoryReport history = (await http.GetFromJsonAsync("/v1/pairs/edge/history", WireJson.Default.HistoryReport))!;
        double[] windows = [.. history.Flips.Where(f => f is { Outcome: "done", Hold: not null }).Select(f => (double)f.Hold!.WindowUs).Order()];
        double[] commits = nets.Server.Run(Commits);

        var table = new StringBuilder();
        table.Append(CultureInfo.InvariantCulture, $"{RatePerSecond} new connections/s (open loop, latency from the scheduled instant), {rounds} rounds of {s_round.TotalSeconds} s each way, median of the rounds; {Environment.ProcessorCount} cores shared by load, backend, HAProxy and daemon.\n\n");
        table.Append("| | no swap | a flip every 0.5 s | ratio |\n|---|---|---|---|\n");
        Row("requests", r => r.Requests, "0");
        Row("failed", r => r.Failed, "0");
        Row("p50, ms", r => r.Latency.P50, "0.00");
        Row("p99, ms", r => r.Latency.P99, "0.0");
        Row("p99.9, ms", r => r.Latency.P999, "0.0");
        Row("max, ms", r => r.Latency.Max, "0.0");
        table.Append(CultureInfo.InvariantCulture, $"\n| flips under that load | {windows.Length} |\n|---|---|\n");
        table.Append(CultureInfo.InvariantCulture, $"| switch transaction in a flip, p50 / p99, us | {At(windows, 0.5):0} / {At(windows, 0.99):0} |\n");
        table.Append(CultureInfo.InvariantCulture, $"| the same, 5,000 in a row, p50 / p99, us | {At(commits, 0.5):0} / {At(commits, 0.99):0} |\n");
        table.Append(CultureInfo.InvariantCulture, $"| daemon at rest: processor, % of one core | {idlePercent:0.00} |\n");
        table.Append(CultureInfo.InvariantCulture, $"| daemon at rest after the flips: resident, MiB | {restKiB / 1024.0:0} |\n");
        Console.WriteLine(table);
        if (writeReadme) Readme.Write(null, table.ToString());
        return flipped.Concat(steady).All(r => r.Passed) ? 0 : 1;

        void Row(string name, Func<LoadResult, double> value, string format)
        {
            bool sum = name is "requests" or "failed";
            double one = sum ? steady.Sum(value) : Median(steady.Select(value)), other = sum ? flipped.Sum(value) : Median(flipped.Select(value));
            string ratio = sum ? "" : (other / one).ToString("0.00", CultureInfo.InvariantCulture);
            table.Append(CultureInfo.InvariantCulture, $"| {name} | {one.ToString(format, CultureInfo.InvariantCulture)} | {other.ToString(format, CultureInfo.InvariantCulture)} | {ratio} |\n");
        }
    }

    private static double Median(IEnumerable<double> values) => At([.. values.Order()], 0.5);

    private static double At(double[] sorted, double part) => sorted.Length == 0 ? double.NaN : sorted[Math.Min(sorted.Length - 1, (int)(part * sorted.Length))];

    /// <summary>Both ways, counted nowhere: every program's pages are in memory afterwards.</summary>
    private static async Task WarmUpAsync(NetnsPair nets, HttpClient http)
    {
        using var stop = new CancellationTokenSource();
        Task flips = FlipAsync(http, stop.Token);
        await LoadAsync(nets, TimeSpan.FromSeconds(8));
        await stop.CancelAsync();
        await flips;
        await Eventually.True(() => Steady(http), TimeSpan.FromSeconds(30), () => "the pair should rest");
    }

    private static async Task<LoadResult> LoadAsync(NetnsPair nets, TimeSpan duration)
    {
        var options = new LoadOptions
        {
            Targets = [new IPEndPoint(nets.ServerV4, 80), new IPEndPoint(nets.ServerV6, 80)], Rate = RatePerSecond, Duration = duration,
            Expect = Expectation.Contains("app"),
        };
        using NetnsProcess run = nets.Client.Start(Programs.Load, [.. options.ToArguments()]);
        await run.Exit(duration + TimeSpan.FromSeconds(30));
        return LoadResult.FromJson(run.Output);
    }

    private static async Task FlipAsync(HttpClient http, CancellationToken stop)
    {
        using var every = new PeriodicTimer(s_between);
        try
        {
            while (await every.WaitForNextTickAsync(stop))
                (await http.PostAsJsonAsync("/v1/pairs/edge/flip", new FlipRequest("benchmark", Wait: false), WireJson.Default.FlipRequest, stop)).EnsureSuccessStatusCode();
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            // The round is over.
        }
    }

    private static HttpClient Client(string path) => new(new SocketsHttpHandler
    {
        ConnectCallback = async (_, stop) =>
        {
            var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), stop);
            return new NetworkStream(socket, ownsSocket: true);
        },
    }) { BaseAddress = new Uri("http://daemon") };

    private static bool Ready(HttpClient http)
    {
        try
        {
            return Steady(http);
        }
        catch (Exception e) when (e is HttpRequestException or AggregateException)
        {
            return false;
        }
    }

    private static bool Steady(HttpClient http)
    {
        StatusReport? status = http.GetFromJsonAsync("/v1/status", WireJson.Default.StatusReport).GetAwaiter().GetResult();
        return status?.Pairs is [{ State: "steady", Retired.Length: 0 }];
    }

    /// <summary>Processor time of the daemon while nothing happens.</summary>
    private static async Task<double> IdleAsync(int pid)
    {
        long before = Ticks(pid);
        await Task.Delay(s_idle);
        return (Ticks(pid) - before) / s_idle.TotalSeconds; // a tick is 10 ms: ticks per second are per cent of a core
    }

    private static long Ticks(int pid)
    {
        string[] fields = File.ReadAllText($"/proc/{pid}/stat").Split(") ")[^1].Split(' ');
        return long.Parse(fields[11], CultureInfo.InvariantCulture) + long.Parse(fields[12], CultureInfo.InvariantCulture); // utime, stime: proc(5)
    }

    private static long ResidentKiB(int pid) => File.ReadLines($"/proc/{pid}/status").Where(l => l.StartsWith("VmRSS:", StringComparison.Ordinal))
        .Select(l => long.Parse(l["VmRSS:".Length..^"kB".Length].Trim(), CultureInfo.InvariantCulture)).Single();

    /// <summary>5,000 switches between two generations of a pair of its own, microseconds each.</summary>
    private static double[] Commits()
    {
        using NftRedirect redirect = NftRedirect.Open();
        redirect.EnsureBase([new PairPorts("benchmark", new PortBlock(31000, 100), new PortBlock(31100, 100))]);
        for (int i = 1; i <= 2; i++)
            redirect.AddGeneration("benchmark", i, (uint)i << 8, 0x00ffff00, [new ServicePort(new Service(IPAddress.Any, 8081), 31000 + i)]);
        PreparedSwitch[] ways = [redirect.PrepareSwitch("benchmark", 1), redirect.PrepareSwitch("benchmark", 2)];
        double[] microseconds = new double[5000];
        for (int i = 0; i < microseconds.Length; i++)
        {
            if (ways[i % 2].Commit() != 0) throw ways[i % 2].Failure();
            microseconds[i] = ways[i % 2].Elapsed.TotalMicroseconds;
        }
        Array.Sort(microseconds);
        return microseconds;
    }

    private static string Publish(string directory)
    {
        Console.Error.WriteLine("publishing the daemon");
        Command.Run("dotnet", "publish", Path.Combine(Readme.Root(), "src/FlipController.Daemon"), "-c", "Release", "-o", directory);
        return directory;
    }
}
