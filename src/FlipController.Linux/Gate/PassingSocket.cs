using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace FlipController.Linux.Gate;

/// <summary>A TCP socket whose connections meet the front address itself: the rules let packets with its mark pass.</summary>
public static class PassingSocket
{
    /// <summary>"FLIP". Only who has CAP_NET_ADMIN (since Linux 5.17 also CAP_NET_RAW) can set a mark: socket(7), SO_MARK.</summary>
    public const uint Mark = 0x464c4950;

    private const int SolSocket = 1, SoMark = 36; // SOL_SOCKET, SO_MARK: include/uapi/asm-generic/socket.h

    /// <exception cref="SocketException">Not permitted.</exception>
    public static Socket Open(AddressFamily family)
    {
        var socket = new Socket(family, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            uint mark = Mark;
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
