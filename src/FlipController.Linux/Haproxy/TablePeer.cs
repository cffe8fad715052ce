using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using FlipController.Core;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// One generation's seat among those of its pair that share their stick tables. All have the same <c>peers</c> section and differ
/// in which of its names is their own, so each finds the others by itself:
/// <code>
///   peers flipcontroller            generation 7 (warm)      8 (active)      9 (standby)
///     peer edge-7-KEY abns@...-7        own name                X ◄──────────── learns at once, then all push to all
///     peer edge-0-KEY abns@...-0           X                own name                X
///     peer edge-1-KEY abns@...-1           X                    X               own name
///     peer edge-2-KEY abns@...-2        nobody: refused by the kernel at once, tried again after 5 s
/// </code>
/// Abstract unix sockets: no port, no packet, nothing a chroot hides, nobody beyond this host. Anyone on this host may connect to
/// one; HAProxy answers those who know both names (src/peers.c, peer_getline_host and peer_getline_last), so these hold a key.
/// </summary>
/// <param name="Key">Of the pair alone, for as long as its generations live.</param>
/// <param name="Seat">0 to 7.</param>
public sealed record TablePeer(string Pair, string Key, int Seat)
{
    /// <summary>
    /// The active, the previous and the standby listen at once, and some that are about to leave. A name is used again only when
    /// its last owner's tables are long those of the others.
    /// </summary>
    public const int Seats = 8;

    /// <summary>The name of our <c>peers</c> section.</summary>
    public const string Section = "flipcontroller";

    // unix(7): the name of an abstract socket is all the bytes that are given; HAProxy gives all 108, with zeros at the end.
    private const int AbstractNameBytes = 108;

    public string Name => NameOf(Seat);

    public string NameOf(int seat) => $"{Pair}-{seat}-{Key}";

    /// <summary>As HAProxy writes it.</summary>
    public string AddressOf(int seat) => $"abns@{SocketOf(seat)}";

    /// <summary>Everybody may see the names of abstract sockets: the key shows only by its hash, to tell two controllers apart.</summary>
    private string SocketOf(int seat) =>
        $"flipcontroller-{Pair}-{Convert.ToHexStringLower(SHA256.HashData(Encoding.ASCII.GetBytes(Key)))[..8]}-{seat}";

    /// <summary>The first seat from the generation's number on where nobody listens.</summary>
    public static TablePeer Free(string pair, string key, int generation)
    {
        for (int i = 0; i < Seats; i++)
        {
            var peer = new TablePeer(pair, key, (generation + i) % Seats);
            if (peer.IsFree()) return peer;
        }
        throw new FlipException(
            $"stick tables cannot be shared: on each of the {Seats} sockets @{new TablePeer(pair, key, 0).SocketOf(0)} and so on "
            + "a process listens already; look for old ones with `ss -xlp`");
    }

    private bool IsFree()
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            socket.Bind(new UnixDomainSocketEndPoint($"\0{SocketOf(Seat)}".PadRight(AbstractNameBytes, '\0')));
            return true;
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.AddressAlreadyInUse)
        {
            return false;
        }
    }
}
