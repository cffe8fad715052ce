using System.Net.Sockets;
using System.Text;

namespace FlipController.Daemon;

/// <summary>Tells systemd how far the daemon is: one datagram to the socket it named, sd_notify(3).</summary>
internal sealed class ServiceNotify
{
    private readonly string? _socket = Environment.GetEnvironmentVariable("NOTIFY_SOCKET");

    /// <summary>Taken out of the environment, so that no HAProxy and no hook speaks in the daemon's name.</summary>
    public ServiceNotify() => Environment.SetEnvironmentVariable("NOTIFY_SOCKET", null);

    public void Send(string message)
    {
        if (_socket is not { Length: > 1 }) return;
        using var socket = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        // A leading @ means the abstract name space, which the kernel spells as a zero byte: unix(7).
        var address = new UnixDomainSocketEndPoint(_socket[0] == '@' ? "\0" + _socket[1..] : _socket);
        try
        {
            socket.SendTo(Encoding.UTF8.GetBytes(message), address);
        }
        catch (SocketException)
        {
            // Nobody listens: the daemon runs all the same.
        }
    }
}
