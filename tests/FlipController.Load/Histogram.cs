using System.Numerics;

namespace FlipController.Load;

/// <summary>
/// A log-linear histogram of microseconds, after HdrHistogram: 128 buckets for every power of two, so a value read back is at
/// most 0.8 % above the one recorded, from 1 us to days, in 35 kB whatever is recorded.
/// </summary>
public sealed class Histogram
{
    private const int Bits = 7, Sub = 1 << Bits, Magnitudes = 34;
    private readonly long[] _counts = new long[Sub * (Magnitudes + 1)];

    public long Count { get; private set; }

    public long MaxMicroseconds { get; private set; }

    public void Record(long microseconds)
    {
        microseconds = Math.Max(0, microseconds);
        _counts[Index(microseconds)]++;
        Count++;
        MaxMicroseconds = Math.Max(MaxMicroseconds, microseconds);
    }

    /// <summary>The smallest recorded value (as its bucket's upper edge) that at least this part of all values does not exceed.</summary>
    public long Percentile(double percent)
    {
        var wanted = Math.Max(1, (long)Math.Ceiling(Count * percent / 100));
        long seen = 0;
        for (var i = 0; i < _counts.Length; i++)
        {
            seen += _counts[i];
            if (seen >= wanted) return Math.Min(UpperEdge(i), MaxMicroseconds);
        }
        return MaxMicroseconds;
    }

    public Percentiles Read() => new(
        Count, Percentile(50) / 1000.0, Percentile(90) / 1000.0, Percentile(99) / 1000.0, Percentile(99.9) / 1000.0, MaxMicroseconds / 1000.0);

    // Below 128 a bucket a value; above, the seven bits after the leading one choose the bucket within its power of two.
    private static int Index(long value)
    {
        if (value < Sub) return (int)value;
        var shift = Math.Min(BitOperations.Log2((ulong)value) - Bits, Magnitudes - 1);
        return (shift + 1) * Sub + (int)Math.Min((value >> shift) - Sub, Sub - 1);
    }

    private static long UpperEdge(int index)
    {
        if (index < Sub) return index;
        var shift = index / Sub - 1;
        return ((long)(index % Sub + Sub + 1) << shift) - 1;
    }
}
