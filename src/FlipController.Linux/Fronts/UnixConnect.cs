using System.Net.Sockets;

namespace FlipController.Linux.Fronts;

/// <summary>One connection to a path, and an orderly end to it.</summary>
internal static class UnixConnect
{
    /// <summary>Null: it was taken; else the kernel's word.</summary>
    public static SocketError? Try(string path)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { Blocking = false };
        try
        {
            // A full queue says EAGAIN and not "in progress": unix(7).
            socket.Connect(new UnixDomainSocketEndPoint(path));
            socket.Shutdown(SocketShutdown.Both);
            return null;
        }
        catch (SocketException e)
        {
            return e.SocketErrorCode;
        }
    }

    /// <summary>Nobody listens there.</summary>
    public static bool Refused(string path) => Try(path) is SocketError.ConnectionRefused;
}
