using static FlipController.Linux.Kernel.SocketFilter;

namespace FlipController.Linux.Kernel;

/// <summary>
/// A classic BPF program that lets only events of connections with one of some marks through to a socket: whoever reads is not even
/// woken by the others.
/// </summary>
internal static class MarkFilter
{
    private const ushort LoadImmediate = 0x00; // BPF_LD | BPF_IMM
    private const ushort LoadIndexImmediate = 0x01; // BPF_LDX | BPF_IMM
    private const ushort LoadByte = 0x30; // BPF_LD | BPF_B | BPF_ABS
    private const ushort LoadWordAtIndex = 0x40; // BPF_LD | BPF_W | BPF_IND
    private const ushort And = 0x54; // BPF_ALU | BPF_AND | BPF_K
    private const ushort IndexFromAccumulator = 0x07; // BPF_MISC | BPF_TAX
    private const ushort AccumulatorFromIndex = 0x87; // BPF_MISC | BPF_TXA
    private const uint FindAttribute = Ancillary + 12; // SKF_AD_NLATTR: A = place of the attribute X, searched from A on; 0: none
    private const uint FirstAttribute = NetlinkMessage.HeaderLength + 4; // nlmsghdr, nfgenmsg
    private const uint Everything = uint.MaxValue; // how many bytes may pass
    private const int MostInstructions = 4096; // BPF_MAXINSNS

    internal static Instruction[] ProgramFor(IEnumerable<(uint Mark, uint Mask)> marks)
    {
        List<Instruction> program =
        [
            new(LoadImmediate, 0, 0, FirstAttribute),
            new(LoadIndexImmediate, 0, 0, ConntrackEntry.MarkAttribute),
            new(LoadByte, 0, 0, FindAttribute),
            new(JumpIfEqual, 0, 1, 0),
            new(Return, 0, 0, 0),
            new(IndexFromAccumulator, 0, 0, 0),
            new(LoadWordAtIndex, 0, 0, NetlinkMessage.AttributeHeaderLength), // big-endian, as the attribute is
            new(IndexFromAccumulator, 0, 0, 0),
        ];
        foreach (IGrouping<uint, uint> group in marks.GroupBy(m => m.Mask, m => m.Mark))
        {
            program.Add(new(AccumulatorFromIndex, 0, 0, 0));
            program.Add(new(And, 0, 0, group.Key));
            // A jump reaches 255 instructions far: each mark has its own way out.
            foreach (uint mark in group) program.AddRange([new(JumpIfEqual, 0, 1, mark), new(Return, 0, 0, Everything)]);
        }
        program.Add(new(Return, 0, 0, 0));
        return [.. program];
    }

    /// <summary>In one step: what was attached before holds until then. More marks than a program can hold: everything passes.</summary>
    internal static void Attach(int socket, IEnumerable<(uint Mark, uint Mask)> marks)
    {
        Instruction[] instructions = ProgramFor(marks);
        if (instructions.Length > MostInstructions) instructions = [new(Return, 0, 0, Everything)];
        if (SocketFilter.Attach(socket, Libc.SoAttachFilter, instructions) is > 0 and int errno)
            throw new KernelException("attach a filter to the socket of conntrack's events", errno);
    }
}
