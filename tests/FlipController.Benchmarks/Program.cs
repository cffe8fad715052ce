using BenchmarkDotNet.Running;
using FlipController.Benchmarks;

// flips: the ratios of the README, measured in one run; `flips --readme` writes them there, --short takes one round.
// ledger: the same for the first count of a million connections and for what events cost. micro: BenchmarkDotNet on the pure parts, with its options.
switch (args.FirstOrDefault())
{
    case "flips":
        return await FlipBenchmark.RunAsync(writeReadme: args.Contains("--readme"), rounds: args.Contains("--short") ? 1 : 3);
    case "ledger":
        return LedgerBenchmark.Run(writeReadme: args.Contains("--readme"), shortRun: args.Contains("--short"));
    case "micro":
        BenchmarkRunner.Run<MicroBenchmarks>(args: args[1..]);
        return 0;
    default:
        Console.Error.WriteLine("usage: FlipController.Benchmarks flips [--readme | --short] | ledger [--readme] [--short] | micro [--filter F --job J]     (Release build; flips and ledger need root)");
        return 2;
}
