using System.Numerics;

namespace FlipController.Core;

/// <summary>
/// Our bits of the connection mark: the upper four name the pair (1 to 15), the rest one of its generations (from 1). Tags go round,
/// so that entries conntrack remembers of a generation long gone are not counted for a new one.
/// </summary>
public readonly record struct ConnectionMark(uint Mask, int PairIndex)
{
    private const int PairBits = 4;

    private int Shift => BitOperations.TrailingZeroCount(Mask);

    private int TagBits => BitOperations.PopCount(Mask) - PairBits;

    public uint ValueOf(int tag) => ((uint)PairIndex << TagBits | (uint)tag) << Shift;

    /// <summary>It is of a generation of this pair, or was.</summary>
    public bool IsOfPair(uint mark) => (mark & Mask) >> (Shift + TagBits) == PairIndex;

    /// <summary>
    /// The tag after the one generation <paramref name="number"/> - 1 had, skipping those of generations that still live.
    /// </summary>
    public int NextTag(int number, IReadOnlySet<int> living)
    {
        int tags = (1 << TagBits) - 1;
        for (int i = 0; i < tags; i++)
        {
            int tag = (number - 1 + i) % tags + 1;
            if (!living.Contains(tag)) return tag;
        }
        throw new FlipException($"no connection mark is left: mask 0x{Mask:x8} tells {tags} generations apart and all of them live");
    }
}
