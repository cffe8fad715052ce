using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;
using FlipController.Linux.State;
using FlipController.Load;
using FlipController.Tests.Shared;

namespace FlipController.Benchmarks;

/// <summary>
/// Every way to redirect, one after the other in one run: what a flip costs whoever connects just then (close, switch, open, of both
/// address families), and what making a generation and looking at the rules cost before it, while clients connect.
/// </summary>
internal static class MethodsBenchmark
{
    private const int FirstPort = 31001, Clients = 4;
    private const string Pair = "benchmark";

    private sealed record Figures(string Method, double[] Windows, double AddMilliseconds, double ReadMilliseconds, long Requests, long Failed);

    public static async Task<int> RunAsync(bool writeReadme, int windows)
    {
        List<Figures> all = [];
        foreach (RedirectOptions options in (RedirectOptions[])
                 [
                     new(), new() { Method = RedirectMethod.Iptables, Iptables = IptablesChoice.Nft },
                     new() { Method = RedirectMethod.Iptables, Iptables = IptablesChoice.Legacy },
                     new() { Method = RedirectMethod.Listener },
                 ]) all.Add(await MeasureAsync(options, windows));
        string table = Table(all, windows);
        Console.WriteLine(table);
        if (writeReadme) Readme.Write("methods", table);
        return all.All(f => f.Failed == 0) ? 0 : 1;
    }

    private static async Task<Figures> MeasureAsync(RedirectOptions options, int windows)
    {
        using NetnsPair nets = Netns.Pair();
        using var directory = new TempDir();
        bool onFronts = options.Method == RedirectMethod.Listener;
        string[] listen = [.. Enumerable.Range(0, 2).SelectMany(i => (string[])["--listen", $"0.0.0.0:{FirstPort + i}", "--listen", $"[::]:{FirstPort + i}"])];
        using NetnsProcess backend = nets.Server.Start(Programs.Load, ["serve", .. listen, "--name", "app"]);
        await Eventually.True(() => backend.Output.Contains($"[::]:{FirstPort + 1}", StringComparison.Ordinal), TimeSpan.FromSeconds(60), () => backend.Errors);
        var service = new Service(IPAddress.IPv6Any, 80);
        if (onFronts)
            for (int i = 0; i < 2; i++) await ListenAsync(nets, directory, i + 1, service);
        using var redirects = nets.Server.Run(() => new Redirects(directory.Path));
        (PairRedirect redirect, double add, double read) = nets.Server.Run(() =>
        {
            PairRedirect redirect = redirects.Of(options);
            redirect.EnsureBase([new PairPorts(Pair, new PortBlock(31000, 100), new PortBlock(31100, 100))]);
            for (int i = 0; i < 2; i++) redirect.AddGeneration(Pair, i + 1, (uint)(i + 1) << 8, 0x00ffff00, [new ServicePort(service, onFronts ? service.Port : FirstPort + i)]);
            double add = Median(20, i => redirect.AddGeneration(Pair, i + 10, (uint)(i + 10) << 8, 0x00ffff00, [new ServicePort(service, FirstPort)]));
            double read = Median(20, _ => redirect.ReadAll());
            using PreparedSwitch first = redirect.PrepareSwitch(Pair, 1);
            return first.Commit() == 0 ? (redirect, add, read) : throw first.Failure();
        });
        var load = new LoadOptions
        {
            Targets = [new IPEndPoint(nets.ServerV4, 80), new IPEndPoint(nets.ServerV6, 80)], ClosedLoop = Clients, Duration = TimeSpan.FromHours(1), Expect = Expectation.Contains("app"),
        };
        using NetnsProcess clients = nets.Client.Start(Programs.Load, [.. load.ToArguments(), "--progress"]);
        await Eventually.True(() => clients.Errors.Contains("requests", StringComparison.Ordinal), TimeSpan.FromMinutes(1), () => clients.Errors);
        double[] held = nets.Server.Run(() =>
        {
            using PreparedSwitch one = redirect.PrepareSwitch(Pair, 1), two = redirect.PrepareSwitch(Pair, 2);
            return WindowBenchmark.Windows("queue", [one, two], windows);
        });
        clients.Terminate();
        await clients.Exit(TimeSpan.FromMinutes(1));
        LoadResult result = LoadResult.FromJson(clients.Output);
        return new Figures(redirect.Method, held, add, read, result.Requests, result.Failed);
    }

    /// <summary>A HAProxy that listens on the front address, as a generation does, before what answers for all methods.</summary>
    private static async Task ListenAsync(NetnsPair nets, TempDir directory, int number, Service service)
    {
        var place = new GenerationPlace(directory.Path, Pair, number);
        Directory.CreateDirectory(place.Directory);
        string file = Path.Combine(place.Directory, "haproxy.cfg");
        await File.WriteAllTextAsync(file, $"""
            defaults
              mode tcp
              timeout connect 5s
              timeout client 5s
              timeout server 5s
            listen front
              bind :::80 v4v6
              server s1 127.0.0.1:{FirstPort}

            """);
        using NetnsProcess started = nets.Server.Start("haproxy", "-D", "-p", place.PidFile, "-f", file);
        await started.Exit(TimeSpan.FromMinutes(1));
        ProcessIdentity process = ProcessIdentity.Read(int.Parse(await File.ReadAllTextAsync(place.PidFile), CultureInfo.InvariantCulture))!;
        new GenerationNote(1, new Generation(number, Slot.Blue, process.Pid, process.StartTicks, process.BootId, "", "", DateTimeOffset.UtcNow, [new ServicePort(service, service.Port)], number, null)).Write(place);
    }

    /// <summary>Milliseconds.</summary>
    private static double Median(int count, Action<int> measured)
    {
        double[] milliseconds = new double[count];
        for (int i = 0; i < count; i++)
        {
            long began = Stopwatch.GetTimestamp();
            measured(i);
            milliseconds[i] = Stopwatch.GetElapsedTime(began).TotalMilliseconds;
        }
        Array.Sort(milliseconds);
        return milliseconds[count / 2];
    }

    private static string Table(List<Figures> all, int windows)
    {
        StringBuilder text = new();
        text.Append(CultureInfo.InvariantCulture, $"""
            {windows} flips each, of IPv4 and IPv6 together, under a queue hold, while {Clients} clients connect in a closed loop; Linux {Machine.Kernel}, {Environment.ProcessorCount} processors.

            | | window p50, us | p99, us | max, us | p50, ratio | to make a generation, ms | to look at the rules, ms | requests | failed |
            |---|---|---|---|---|---|---|---|---|

            """);
        foreach (Figures f in all)
            text.Append(CultureInfo.InvariantCulture,
                $"| {f.Method} | {At(f, 0.5):#,0} | {At(f, 0.99):#,0} | {f.Windows[^1]:#,0} | {At(f, 0.5) / At(all[0], 0.5):0.0} | {f.AddMilliseconds:0.0} | {f.ReadMilliseconds:0.0} | {f.Requests:#,0} | {f.Failed} |\n");
        return text.ToString();

        static double At(Figures f, double share) => f.Windows[(int)(share * (f.Windows.Length - 1))];
    }
}
