using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace FlipController.Core;

/// <summary>
/// The address of a client as one number: IPv6, or IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2), so that a client of an IPv4 listener
/// and of one that takes both families is the same. A scope is not kept.
/// </summary>
public readonly record struct PeerAddress(UInt128 Bits) : IComparable<PeerAddress>
{
    private static readonly UInt128 s_mapped = (UInt128)0xffff << 32;

    public bool IsIPv4 => Bits >> 32 == 0xffff;

    /// <param name="bytes">4 or 16 in network byte order.</param>
    public static PeerAddress Of(ReadOnlySpan<byte> bytes) => bytes.Length == 4
        ? new PeerAddress(s_mapped | BinaryPrimitives.ReadUInt32BigEndian(bytes))
        : new PeerAddress(BinaryPrimitives.ReadUInt128BigEndian(bytes));

    public static PeerAddress Of(IPAddress address)
    {
        Span<byte> bytes = stackalloc byte[16];
        address.TryWriteBytes(bytes, out int count);
        return Of(bytes[..count]);
    }

    /// <summary>IPv4 as such, not mapped.</summary>
    public IPAddress ToIPAddress()
    {
        Span<byte> bytes = stackalloc byte[16];
        BinaryPrimitives.WriteUInt128BigEndian(bytes, Bits);
        return new IPAddress(IsIPv4 ? bytes[12..] : bytes);
    }

    /// <param name="prefix">Bits of its own family that are kept: 0 to 32, or 0 to 128.</param>
    public PeerAddress NetworkOf(int prefix)
    {
        int host = (IsIPv4 ? 32 : 128) - prefix;
        return host switch { <= 0 => this, >= 128 => default, _ => new PeerAddress(Bits >> host << host) };
    }

    public int CompareTo(PeerAddress other) => Bits.CompareTo(other.Bits);

    public override string ToString() => ToIPAddress().ToString();
}

/// <summary>Which peers are meant: ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT or ADDRESS/PREFIX.</summary>
/// <param name="Prefix">Bits of the address's own family.</param>
/// <param name="Port">Null: any.</param>
public sealed record PeerFilter(PeerAddress Address, int Prefix, int? Port)
{
    public static bool TryParse(string? text, [NotNullWhen(true)] out PeerFilter? filter)
    {
        filter = null;
        if (string.IsNullOrWhiteSpace(text)) return false;
        if (text.IndexOf('/', StringComparison.Ordinal) is > 0 and int slash)
        {
            if (!Parse(text[..slash], out PeerAddress network)
                || !int.TryParse(text.AsSpan(slash + 1), NumberStyles.None, CultureInfo.InvariantCulture, out int prefix)
                || prefix > (network.IsIPv4 ? 32 : 128)) return false;
            filter = new PeerFilter(network.NetworkOf(prefix), prefix, null);
            return true;
        }
        // ::1:80 is an address and no port: a port after an IPv6 address needs brackets.
        if (Parse(text, out PeerAddress one))
        {
            filter = new PeerFilter(one, one.IsIPv4 ? 32 : 128, null);
            return true;
        }
        int colon = text.LastIndexOf(':');
        if (colon < 0 || !int.TryParse(text.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out int port)
            || port is < 1 or > 65535 || !Parse(text[..colon], out PeerAddress address)) return false;
        filter = new PeerFilter(address, address.IsIPv4 ? 32 : 128, port);
        return true;
    }

    public bool Matches(PeerAddress address, int port) =>
        (Port is null || Port == port) && address.IsIPv4 == Address.IsIPv4 && address.NetworkOf(Prefix) == Address;

    public override string ToString() => Port is { } port ? new IPEndPoint(Address.ToIPAddress(), port).ToString()
        : Prefix == (Address.IsIPv4 ? 32 : 128) ? Address.ToString() : string.Create(CultureInfo.InvariantCulture, $"{Address}/{Prefix}");

    /// <summary>IPAddress takes more than people mean: a lone number, [ADDRESS]:PORT, of which it forgets the port.</summary>
    private static bool Parse(string text, out PeerAddress address)
    {
        address = default;
        bool brackets = text.StartsWith('[') && text.EndsWith(']');
        string bare = brackets ? text[1..^1] : text;
        if (bare.Contains('[', StringComparison.Ordinal) || !IPAddress.TryParse(bare, out IPAddress? parsed)) return false;
        // 010.0.0.1 is 8.0.0.1 to some and 10.0.0.1 to others: refused.
        if (parsed.AddressFamily == AddressFamily.InterNetwork ? brackets || parsed.ToString() != bare : bare.Contains('%', StringComparison.Ordinal)) return false;
        address = PeerAddress.Of(parsed);
        return true;
    }
}
