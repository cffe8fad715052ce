using System.Collections.Immutable;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using FlipController.Core;

namespace FlipController.Linux.Hold;

/// <summary>Another process protects one of the ports.</summary>
/// <param name="pid">Null: it cannot be seen from here.</param>
public sealed class PortProtectedException(int port, int? pid) : FlipException(
    $"cannot protect port {port}: {(pid is null ? "a process that cannot be seen from here" : $"process {pid}")} protects it already; "
    + "nothing new was held and the command was not run; wait until that one has ended")
{
    public int Port { get; } = port;
    public int? Pid { get; } = pid;
}

/// <summary>
/// One abstract unix socket for each protected port. They belong to the network namespace, as ports do, and go with the process that has
/// them, however it ends; who connects learns its pid. A file in /run would be another one in every container.
/// </summary>
internal sealed class PortLocks : IDisposable
{
    private const int SocketLevel = 1, PeerCredentials = 17; // SOL_SOCKET, SO_PEERCRED: struct ucred: pid, uid, gid

    private readonly ImmutableArray<Socket> _sockets;

    private PortLocks(ImmutableArray<Socket> sockets) => _sockets = sockets;

    /// <summary>All of them, or none.</summary>
    /// <exception cref="PortProtectedException">Somebody has one.</exception>
    internal static PortLocks Take(ImmutableArray<int> ports)
    {
        var taken = ImmutableArray.CreateBuilder<Socket>(ports.Length);
        try
        {
            // Two that want the same ports take them in the same order: one of them gets all.
            foreach (int port in ports.Order())
            {
                var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                taken.Add(socket);
                try
                {
                    socket.Bind(Name(port));
                    socket.Listen(int.MaxValue);
                }
                catch (SocketException e) when (e.SocketErrorCode == SocketError.AddressAlreadyInUse)
                {
                    (int pid, uint uid)? owner = Owner(port);
                    // Anybody may take such a name. Root does not let others keep it from holding; two of root's are kept apart all the same.
                    if (Environment.IsPrivilegedProcess && owner is { uid: not 0 }) continue;
                    throw new PortProtectedException(port, owner?.pid);
                }
            }
            return new PortLocks(taken.DrainToImmutable());
        }
        catch (SocketException e)
        {
            foreach (Socket socket in taken) socket.Dispose();
            throw new FlipException($"cannot protect {ports.Length} ports: a lock is a socket, and one was refused ({e.Message}); nothing was held", e);
        }
        catch
        {
            foreach (Socket socket in taken) socket.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        foreach (Socket socket in _sockets) socket.Dispose();
    }

    private static (int Pid, uint Uid)? Owner(int port)
    {
        try
        {
            using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { Blocking = false };
            socket.Connect(Name(port));
            Span<byte> credentials = stackalloc byte[12];
            _ = socket.GetRawSocketOption(SocketLevel, PeerCredentials, credentials);
            int pid = MemoryMarshal.Read<int>(credentials);
            return pid > 0 ? (pid, MemoryMarshal.Read<uint>(credentials[4..])) : null; // 0: of another pid namespace
        }
        catch (SocketException)
        {
            return null; // it has ended just now
        }
    }

    private static UnixDomainSocketEndPoint Name(int port) => new($"\0flipcontroller-protect-{port}");
}
