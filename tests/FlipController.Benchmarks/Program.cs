using System.Globalization;
using BenchmarkDotNet.Running;
using FlipController.Benchmarks;
using FlipController.Fuzz;

// flips: the ratios of the README, measured in one run; `flips --readme` writes them there, --short takes one round. ledger: the same for
// the first count of a million connections and for what events cost. connections: what it costs to tell who is connected, of 100,000;
// --short of 10,000. hold: one HAProxy restarted under load, window: how long a flip holds, methods: the same of every way to redirect; both measure one method, on one machine, into a
// file of tests/results (which tests/vm/run.sh shares), and hold-report makes tables and a picture of what both methods gave. handover: a
// node emptied and brought back, in the ways there are. micro:
// BenchmarkDotNet on the pure parts, with its options. fuzz: everything that is read from others, spoiled.
switch (args.FirstOrDefault())
{
    case "flips":
        return await FlipBenchmark.RunAsync(writeReadme: args.Contains("--readme"), rounds: args.Contains("--short") ? 1 : 3);
    case "connections":
        return await ConnectionsBenchmark.RunAsync(writeReadme: args.Contains("--readme"), isShort: args.Contains("--short"));
    case "connections-hold":
        return ConnectionsBenchmark.Hold(int.Parse(args[1], CultureInfo.InvariantCulture), int.Parse(args[2], CultureInfo.InvariantCulture));
    case "connections-ask":
        return await ConnectionsBenchmark.AskAsync(args[1], args[2], int.Parse(args[3], CultureInfo.InvariantCulture),
            [.. args[4].Split(',').Select(p => int.Parse(p, CultureInfo.InvariantCulture))]);
    case "ledger":
        return LedgerBenchmark.Run(writeReadme: args.Contains("--readme"), shortRun: args.Contains("--short"));
    case "hold":
    {
        string method = Option("--method", "queue");
        // Where the plug is, the machine is an emulated one.
        (int requests, int restarts) = args.Contains("--short") ? (5_000, 20) : method == "plug" ? (50_000, 100) : (1_000_000, 1_500);
        return await HoldBenchmark.RunAsync(new HoldOptions(
            method, Number("--requests", requests), Number("--restarts", restarts), Number("--clients", 10), await Published.CliAsync(),
            HoldBenchmark.Output(method), [.. Option("--ways", "").Split(',', StringSplitOptions.RemoveEmptyEntries).Select(w => Enum.Parse<RestartWay>(w, true))]));
    }
    case "fuzz":
        // A million cases in some minutes. --only TARGET --seed N --case N: one again that failed.
        return FuzzVerb.Run(long.Parse(Option("--cases", "1000000"), CultureInfo.InvariantCulture), Number("--seed", Random.Shared.Next()),
            Option("--only", "") is { Length: > 0 } only ? only : null,
            Option("--case", "") is { Length: > 0 } single ? long.Parse(single, CultureInfo.InvariantCulture) : null);
    case "window":
        return await WindowBenchmark.RunAsync(Option("--method", "queue"), Number("--windows", Machine.IsEmulated ? 300 : 5000));
    case "methods":
        return await MethodsBenchmark.RunAsync(writeReadme: args.Contains("--readme"), Number("--windows", args.Contains("--short") ? 50 : 500));
    case "handover":
        return await HandoverBenchmark.RunAsync(writeReadme: args.Contains("--readme"), rounds: args.Contains("--short") ? 1 : 3, Option("--ways", "plain,tee,handover").Split(','),
            Option("--programs", "") is { Length: > 0 } programs ? programs : null);
    case "hold-report":
        return HoldReport.Write(writeReadme: args.Contains("--readme"));
    case "publish":
        await Published.CliAsync();
        return 0;
    case "micro":
        BenchmarkRunner.Run<MicroBenchmarks>(args: args[1..]);
        return 0;
    default:
        Console.Error.WriteLine("""
            usage: FlipController.Benchmarks flips [--readme | --short] | ledger [--readme] [--short] | connections [--readme] [--short] | micro [--filter F --job J]
                   FlipController.Benchmarks publish
                   FlipController.Benchmarks hold [--method queue|plug] [--short] [--requests N] [--restarts N] [--clients N] [--ways none,reload,drop,bare,protect]
                   FlipController.Benchmarks window [--method queue|plug] [--windows N]
                   FlipController.Benchmarks methods [--readme] [--short] [--windows N]
                   FlipController.Benchmarks hold-report [--readme]
                   FlipController.Benchmarks handover [--readme] [--short] [--ways plain,tee,handover] [--programs DIR]
               FlipController.Benchmarks fuzz [--cases N] [--seed N] [--only TARGET [--case N]]
            Release build; all but micro and fuzz need root. plug: in `tests/vm/run.sh --seconds 3600`, after publish.
            """);
        return 2;
}

string Option(string name, string otherwise) => Array.IndexOf(args, name) is var at and >= 0 && at + 1 < args.Length ? args[at + 1] : otherwise;

int Number(string name, int otherwise) => int.Parse(Option(name, otherwise.ToString(CultureInfo.InvariantCulture)), CultureInfo.InvariantCulture);
