using FlipController.Fuzz;
using Xunit;

namespace FlipController.Linux.Tests;

/// <summary>A short run of <c>FlipController.Benchmarks fuzz</c>: the same cases every time, and as many others.</summary>
public sealed class FuzzTests(ITestOutputHelper output)
{
    private const int Cases = 30_000, OfOne = 1_000;

    [Fact(Timeout = 120_000)]
    public async Task Whatever_is_read_is_taken_or_refused_as_documented() => await Task.Run(() =>
    {
        using var targets = new FuzzTargets();
        int shares = targets.All.Sum(t => t.Share), other = Random.Shared.Next();
        output.WriteLine($"seeds 1 and {other}");
        foreach (int seed in new[] { 1, other })
        {
            // Other tests have the processors too: what takes long here has found none.
            var run = new FuzzRun(seed, TimeSpan.FromSeconds(30));
            foreach (FuzzTarget target in targets.All)
            {
                FuzzTally tally = run.Run(target, Math.Min(OfOne, Math.Max(50, Cases * target.Share / shares)));
                Assert.True(tally.Failures.Count == 0, string.Join("\n", tally.Failures));
            }
        }
    });

    [Fact(Timeout = 60_000)]
    public async Task What_throws_hangs_or_gorges_itself_is_told_with_what_makes_it_again() => await Task.Run(() =>
    {
        var run = new FuzzRun(7, TimeSpan.FromMilliseconds(500));
        byte[][] samples = [[1, 2, 3]];
        byte[] kept = [];
        FuzzFailure thrown = Assert.Single(run.Run(new("thrower", 1, samples, input => input.Length == 3 && input[0] == 1 ? true : throw new FormatException("no")), 100).Failures);
        Assert.StartsWith("System.FormatException: no", thrown.What);
        Assert.Contains($"fuzz --only thrower --seed 7 --case {thrown.Case}\n  input: {Convert.ToHexString(thrown.Input)}", thrown.ToString());
        FuzzFailure again = Assert.Single(new FuzzRun(7, TimeSpan.FromSeconds(9)).Run(new("thrower", 1, samples, _ => throw new FormatException("no")), 1, thrown.Case).Failures);
        Assert.Equal(samples[0], again.Input); // the sample is the first to fail here
        new FuzzRun(7, TimeSpan.FromSeconds(9)).Run(new("thrower", 1, samples, input => (kept = input).Length >= 0), 1, thrown.Case);
        Assert.Equal(thrown.Input, kept);
        Assert.Equal("no end after 0.5 s", Assert.Single(run.Run(new("sleeper", 1, samples, _ => { Thread.Sleep(Timeout.Infinite); return true; }), 5).Failures).What);
        Assert.StartsWith("it allocates ", run.Run(new("glutton", 1, samples, _ => new byte[80 * 1024 * 1024].Length > 0), 1).Failures[0].What);
        Assert.Equal("every sample is refused", Assert.Single(run.Run(new("refuser", 1, samples, _ => false), 5).Failures).What);
    });
}
