using System.Runtime.InteropServices;
using FlipController.Linux.Gate;
using static FlipController.Linux.Kernel.SocketFilter;

namespace FlipController.Linux.Kernel;

/// <summary>
/// Which of two sockets that listen on the same address gets a NEW connection: a program that the kernel asks for each SYN, attached to
/// their group (socket(7), SO_ATTACH_REUSEPORT_CBPF; net/core/sock_reuseport.c). It belongs to the group and not to who attached it, is
/// replaced from one packet to the next, and names sockets by the order in which they began to listen; when one closes, the last one takes
/// its place, and where it names nobody the kernel chooses among those that are there.
/// <code>
///   ld mark                ; of the packet: what this host sends may bear one
///   jeq #M,   other        ; our probes of who does not get NEW connections
///   jeq #M+1, first        ; and of each
///   jeq #M+2, second
///   ret #INDEX             ; everybody else
/// </code>
/// </summary>
public static unsafe class ReuseportProgram
{
    private const int AttachReuseport = 51, DetachReuseport = 68; // SO_ATTACH_REUSEPORT_CBPF, SO_DETACH_REUSEPORT_BPF: asm-generic/socket.h

    private const uint OfMark = Ancillary + 20; // SKF_AD_MARK

    private static readonly Instruction[][] s_programs = [Choosing(0), Choosing(1)];

    /// <summary>NEW connections go to this one of the group, 0 or 1, from the next on. 0, or an errno. Allocates nothing.</summary>
    internal static int Attach(int listener, int index) => SocketFilter.Attach(listener, AttachReuseport, s_programs[index]);

    /// <summary>The kernel chooses again, by a hash of the addresses. 0, or an errno; ENOENT: nothing was attached. Linux 5.3.</summary>
    internal static int Detach(int listener)
    {
        int ignored = 0;
        return Libc.SetSocketOption(listener, Libc.SolSocket, DetachReuseport, &ignored, sizeof(int)) < 0 ? Marshal.GetLastPInvokeError() : 0;
    }

    private static Instruction[] Choosing(uint index) =>
    [
        new(LoadWord, 0, 0, OfMark),
        new(JumpIfEqual, 3, 0, PassingSocket.Mark),
        new(JumpIfEqual, 3, 0, PassingSocket.MarkOf(0)),
        new(JumpIfEqual, 3, 0, PassingSocket.MarkOf(1)),
        new(Return, 0, 0, index),
        new(Return, 0, 0, 1 - index),
        new(Return, 0, 0, 0),
        new(Return, 0, 0, 1),
    ];
}
