using BenchmarkDotNet.Running;
using FlipController.Benchmarks;

// flips: the ratios of the README, measured in one run; `flips --readme` writes them there. micro: BenchmarkDotNet on the pure parts.
switch (args.FirstOrDefault())
{
    case "flips":
        return await FlipBenchmark.RunAsync(writeReadme: args.Contains("--readme"));
    case "micro":
        BenchmarkRunner.Run<MicroBenchmarks>();
        return 0;
    default:
        Console.Error.WriteLine("usage: FlipController.Benchmarks flips [--readme] | micro     (Release build; flips needs root)");
        return 2;
}
