using System.Collections.Immutable;

namespace FlipController.Core;

/// <summary>
/// The private ports of every slot. Only first ports are configured; a block runs up to the next first port of any slot of
/// any pair, so that blocks cannot overlap whatever is written:
/// <code>
///  edge.blue 21000 ............ 21499   edge.green 21500 ... 21999   api.blue 22000 ...... 22999 (never more than 1000)
/// </code>
/// </summary>
public sealed class PortBlocks
{
    public const int FewestPorts = 16;
    public const int MostPorts = 1000;
    private const int PortsEnd = 65536;

    private readonly ImmutableDictionary<(string Pair, Slot Slot), PortBlock> _blocks;

    private PortBlocks(ImmutableDictionary<(string, Slot), PortBlock> blocks) => _blocks = blocks;

    public static PortBlocks Of(Configuration configuration)
    {
        var firsts = Firsts(configuration).ToList();
        var blocks = ImmutableDictionary.CreateBuilder<(string, Slot), PortBlock>();
        foreach ((string pair, Slot slot, int first) in firsts)
            blocks[(pair, slot)] = new PortBlock(first, Math.Min(MostPorts, NextAfter(first) - first));
        return new PortBlocks(blocks.ToImmutable());

        int NextAfter(int first) => firsts.Select(f => f.First).Where(f => f > first).DefaultIfEmpty(PortsEnd).Min();
    }

    public PortBlock BlockOf(string pair, Slot slot) => _blocks[(pair, slot)];

    /// <summary>Every configured first port, in the order of pairs and slots.</summary>
    internal static IEnumerable<(string Pair, Slot Slot, int First)> Firsts(Configuration configuration) =>
        configuration.Pairs.Values.SelectMany(p => new[] { (p.Name, Slot.Blue, p.Ports.Blue), (p.Name, Slot.Green, p.Ports.Green) });
}
