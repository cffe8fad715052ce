using System.Globalization;
using BenchmarkDotNet.Running;
using FlipController.Benchmarks;

// flips: the ratios of the README, measured in one run; `flips --readme` writes them there, --short takes one round. ledger: the same for
// the first count of a million connections and for what events cost. connections: what it costs to tell who is connected, of 100,000;
// --short of 10,000. micro: BenchmarkDotNet on the pure parts, with its options.
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
    case "micro":
        BenchmarkRunner.Run<MicroBenchmarks>(args: args[1..]);
        return 0;
    default:
        Console.Error.WriteLine("usage: FlipController.Benchmarks flips [--readme | --short] | ledger [--readme] [--short] | connections [--readme] [--short] | micro [--filter F --job J]     (Release build; all but micro need root)");
        return 2;
}
