using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;

namespace FlipController.Linux.Haproxy;

/// <summary>Host names as HAProxy looks them up (src/tools.c, str2ip2): getaddrinfo(3) as it asks it, and the first address of it.</summary>
internal static unsafe partial class HostNames
{
    private const int Datagram = 2; // SOCK_DGRAM, include/linux/net.h; what HAProxy asks for
    private const int Inet = 2, Inet6 = 10; // AF_INET, AF_INET6, include/linux/socket.h

    /// <summary>Null: the name has no address of this family. It may take as long as a name server takes to answer.</summary>
    public static IPAddress? Resolve(string name, AddressFamily family)
    {
        var hints = new AddressInfo
        {
            Family = family switch { AddressFamily.InterNetwork => Inet, AddressFamily.InterNetworkV6 => Inet6, _ => 0 },
            SocketType = Datagram,
        };
        AddressInfo* found = null;
        if (GetAddressInfo(Encoding.Latin1.GetBytes($"{name}\0"), null, &hints, &found) != 0) return null;
        try
        {
            if (found is null) return null;
            // struct sockaddr_in: family, port, 4 bytes; struct sockaddr_in6: family, port, flow, 16 bytes.
            return found->Family switch
            {
                Inet => new IPAddress(new ReadOnlySpan<byte>(found->Address + 4, 4)),
                Inet6 => new IPAddress(new ReadOnlySpan<byte>(found->Address + 8, 16)),
                _ => null,
            };
        }
        finally
        {
            FreeAddressInfo(found);
        }
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct AddressInfo // struct addrinfo, netdb.h
    {
        internal int Flags;
        internal int Family;
        internal int SocketType;
        internal int Protocol;
        internal uint AddressLength;
        internal byte* Address;
        internal byte* CanonicalName;
        internal AddressInfo* Next;
    }

    [LibraryImport("libc", EntryPoint = "getaddrinfo")]
    private static partial int GetAddressInfo(byte[] name, byte* service, AddressInfo* hints, AddressInfo** found);

    [LibraryImport("libc", EntryPoint = "freeaddrinfo")]
    private static partial void FreeAddressInfo(AddressInfo* found);
}
