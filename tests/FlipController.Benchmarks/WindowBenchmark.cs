using System.Globalization;
using System.Net;
using FlipController.Core;
using FlipController.Linux.Hold;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;
using FlipController.Load;
using FlipController.Tests.Shared;

namespace FlipController.Benchmarks;

/// <summary>
/// How long new connections are held for a flip: close, switch, open, thousands of times, each way in turn, while clients of a closed loop
/// connect, and then at rest. With plug, the same three steps by the programs tc and nft, at rest, too.
/// </summary>
internal static class WindowBenchmark
{
    private const int Clients = 4, FirstPort = 31001, ProgramRounds = 200;
    private const string Pair = "benchmark", Owner = "window";

    private static readonly TimeSpan s_max = TimeSpan.FromMilliseconds(Machine.IsEmulated ? 900 : 100), s_between = TimeSpan.FromMilliseconds(5);

    public static string Output(string method) => Path.Combine(Readme.Root(), $"tests/results/window-{method}.json");

    public static async Task<int> RunAsync(string method, int windows)
    {
        using NetnsPair nets = Netns.Pair();
        using var files = new TempDir();
        string port1 = FirstPort.ToString(CultureInfo.InvariantCulture), port2 = (FirstPort + 1).ToString(CultureInfo.InvariantCulture);
        using NetnsProcess backend = nets.Server.Start(Programs.Load, "serve", "--listen", $"0.0.0.0:{port1}", "--listen", $"0.0.0.0:{port2}", "--name", "app");
        await Eventually.True(() => backend.Output.Contains($":{port2}", StringComparison.Ordinal), TimeSpan.FromSeconds(60), () => backend.Errors);
        using NftRedirect redirect = nets.Server.Run(NftRedirect.Open);
        redirect.EnsureBase([new PairPorts(Pair, new PortBlock(31000, 100), new PortBlock(31100, 100))]);
        for (int i = 0; i < 2; i++)
            redirect.AddGeneration(Pair, i + 1, (uint)(i + 1) << 8, 0x00ffff00, [new ServicePort(new Service(IPAddress.Any, 80), FirstPort + i)]);
        PreparedSwitch[] ways = [redirect.PrepareSwitch(Pair, 1), redirect.PrepareSwitch(Pair, 2)];
        if (ways[0].Commit() != 0) throw ways[0].Failure();

        var options = new LoadOptions
        {
            Targets = [new IPEndPoint(nets.ServerV4, 80)], ClosedLoop = Clients, Duration = TimeSpan.FromHours(1), Expect = Expectation.Contains("app"),
        };
        using NetnsProcess load = nets.Client.Start(Programs.Load, [.. options.ToArguments(), "--progress"]);
        await Eventually.True(() => load.Errors.Contains("requests", StringComparison.Ordinal), TimeSpan.FromMinutes(1), () => load.Errors);
        double[] ours = nets.Server.Run(() => Windows(method, ways, windows));
        load.Terminate();
        await load.Exit(TimeSpan.FromMinutes(1));
        LoadResult result = LoadResult.FromJson(load.Output);
        // Compared at rest: programs that must first be loaded suffer more from busy processors than bytes that lie ready.
        double[] atRest = nets.Server.Run(() => Windows(method, ways, windows));
        double[] programs = method == "plug" ? ByPrograms(nets.Server, files, method) : [];

        var run = new WindowRun(method, Machine.Kernel, Machine.IsEmulated, ours, atRest, programs, result.Requests, result.Failed);
        Directory.CreateDirectory(Path.GetDirectoryName(Output(method))!);
        File.WriteAllText(Output(method), run.ToJson());
        Console.WriteLine(HoldTable.Of(run));
        return result.Passed ? 0 : 1;
    }

    /// <summary>Microseconds, in their order of size.</summary>
    internal static double[] Windows(string method, PreparedSwitch[] ways, int count)
    {
        using Hold hold = HoldChoice.Prepare(method, Scope()).Hold;
        hold.Rehearse();
        double[] microseconds = new double[count];
        for (int i = -20; i < count; i++) // the first few warm up
        {
            ways[(i + 21) % 2].MakeReady();
            using DeadMan guard = DeadMan.Arm(hold.ForcedOpenings, s_max);
            var window = new HoldWindow(hold, ways[(i + 21) % 2].Commit, mayGoWithout: false, guard);
            using (UrgentThread.Enter()) window.Run();
            guard.Disarm();
            if (!window.IsDone || window.OpenErrno != 0)
                throw new InvalidOperationException($"close {window.CloseErrno}, switch {window.ChangeErrno}, open {window.OpenErrno}");
            if (i >= 0) microseconds[i] = window.Elapsed.TotalMicroseconds;
            _ = hold.Tally();
            Thread.Sleep(s_between);
        }
        Array.Sort(microseconds);
        return microseconds;
    }

    /// <summary>A shell starts the programs, and tells the time by itself: nothing starts them with less ado.</summary>
    private static double[] ByPrograms(Netns netns, TempDir files, string method)
    {
        for (int i = 0; i < 2; i++) files.Write($"switch{i}.nft", NftRuleset.Switch(Pair, i + 1));
        files.Write("three-steps", $"""
            device=$1
            for i in {string.Join(' ', Enumerable.Range(0, ProgramRounds).Select(i => i % 2))}; do
                began=$EPOCHREALTIME
                tc qdisc change dev "$device" root plug block &&
                    nft -f {files.Path}/switch$i.nft &&
                    tc qdisc change dev "$device" root plug release_indefinite || exit
                echo "$began $EPOCHREALTIME"
            done

            """);
        using Hold hold = netns.Run(() => HoldChoice.Prepare(method, Scope()).Hold);
        using NetnsProcess shell = netns.Start("bash", files["three-steps"], $"flip-{Owner}");
        if (shell.Exit(TimeSpan.FromMinutes(10)).GetAwaiter().GetResult() != 0) throw new InvalidOperationException($"the three steps by programs: {shell.Errors}");
        double[] microseconds = [.. shell.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(l => l.Split(' '))
            .Select(t => (double.Parse(t[1], CultureInfo.InvariantCulture) - double.Parse(t[0], CultureInfo.InvariantCulture)) * 1e6)];
        Array.Sort(microseconds);
        return microseconds;
    }

    private static HoldScope Scope() => new(Owner, [80], Incoming: true, Local: false, s_max, ["veth0"]);
}
