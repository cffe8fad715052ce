namespace FlipController.Benchmarks;

/// <summary>What a measurement was taken on.</summary>
internal static class Machine
{
    public static string Kernel { get; } = File.ReadAllText("/proc/sys/kernel/osrelease").Trim().Split('-')[0];

    /// <summary>QEMU's own processor: instructions are translated, about ten times as slow.</summary>
    public static bool IsEmulated { get; } = File.ReadLines("/proc/cpuinfo").Any(l => l.StartsWith("model name", StringComparison.Ordinal) && l.Contains("QEMU TCG", StringComparison.Ordinal));
}
