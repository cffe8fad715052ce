using System.Runtime.InteropServices;

namespace FlipController.Linux.Kernel;

/// <summary>
/// A classic BPF program for a socket: include/uapi/linux/filter.h and bpf_common.h, Documentation/networking/filter.rst.
/// </summary>
internal static unsafe class SocketFilter
{
    internal const ushort LoadWord = 0x20; // BPF_LD | BPF_W | BPF_ABS
    internal const ushort JumpIfEqual = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    internal const ushort Return = 0x06; // BPF_RET | BPF_K
    /// <summary>SKF_AD_OFF: places from here on are not in the packet but about it.</summary>
    internal const uint Ancillary = 0xfffff000;

    [StructLayout(LayoutKind.Sequential)]
    internal readonly record struct Instruction(ushort Code, byte IfTrue, byte IfFalse, uint Operand); // struct sock_filter

    [StructLayout(LayoutKind.Sequential)]
    private struct Program // struct sock_fprog
    {
        internal ushort Length;
        internal Instruction* Instructions;
    }

    /// <summary>In one step: what was attached before holds until then. 0, or an errno. Allocates nothing.</summary>
    /// <param name="option">Of SOL_SOCKET: what the program decides.</param>
    internal static int Attach(int socket, int option, Instruction[] instructions)
    {
        fixed (Instruction* first = instructions)
        {
            Program program = new() { Length = (ushort)instructions.Length, Instructions = first };
            return Libc.SetSocketOption(socket, Libc.SolSocket, option, &program, (uint)sizeof(Program)) < 0 ? Marshal.GetLastPInvokeError() : 0;
        }
    }
}
