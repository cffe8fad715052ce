using System.Buffers.Binary;

namespace FlipController.Load;

/// <summary>Bytes that both ends can make from a seed and a position, so that a swapped, lost or repeated byte is noticed.</summary>
public static class Content
{
    public static void Fill(Span<byte> target, ulong seed, long position)
    {
        Span<byte> word = stackalloc byte[8];
        var done = 0;
        while (done < target.Length)
        {
            var within = (int)((position + done) & 7);
            BinaryPrimitives.WriteUInt64LittleEndian(word, Mix(seed, (position + done) >> 3));
            var part = word[within..];
            if (part.Length > target.Length - done) part = part[..(target.Length - done)];
            part.CopyTo(target[done..]);
            done += part.Length;
        }
    }

    public static bool Matches(ReadOnlySpan<byte> data, ulong seed, long position)
    {
        Span<byte> expected = stackalloc byte[1024];
        while (!data.IsEmpty)
        {
            var part = expected[..Math.Min(expected.Length, data.Length)];
            Fill(part, seed, position);
            if (!data[..part.Length].SequenceEqual(part)) return false;
            data = data[part.Length..];
            position += part.Length;
        }
        return true;
    }

    // The finaliser of splitmix64 (Steele, Lea, Flood 2014): any word of the stream without those before it.
    private static ulong Mix(ulong seed, long index)
    {
        var z = seed * 0x9E3779B97F4A7C15 + (ulong)index * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }
}
