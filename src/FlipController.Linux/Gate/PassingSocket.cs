using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace FlipController.Linux.Gate;

/// <summary>
/// A TCP socket whose connections meet the front address itself: the rules let packets with its mark pass. Where two generations listen on
/// the front address, it meets the one that does not get NEW connections (<see cref="Kernel.ReuseportProgram"/>).
/// </summary>
public static class PassingSocket
{
    /// <summary>"FLIP". Only who has CAP_NET_ADMIN (since Linux 5.17 also CAP_NET_RAW) can set a mark: socket(7), SO_MARK.</summary>
    public const uint Mark = 0x464c4950;

    private const int SolSocket = 1, SoMark = 36; // SOL_SOCKET, SO_MARK: include/uapi/asm-generic/socket.h

    /// <summary>Meets the first or the second of two that listen on the same address.</summary>
    internal static uint MarkOf(int index) => Mark + 1 + (uint)index;

    /// <exception cref="SocketException">Not permitted.</exception>
    public static Socket Open(AddressFamily family) => Open(family, Mark);

    internal static Socket Open(AddressFamily family, uint mark)
    {
        var socket = new Socket(family, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            socket.SetRawSocketOption(SolSocket, SoMark, MemoryMarshal.AsBytes(new ReadOnlySpan<uint>(in mark)));
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
