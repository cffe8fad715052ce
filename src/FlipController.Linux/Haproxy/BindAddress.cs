using System.Collections.Immutable;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using FlipController.Core;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// One address of a <c>bind</c> line, read as HAProxy does (configuration manual, 11 "Address formats"; src/tools.c,
/// str2sa_range): either a TCP address that can be moved to another port, or the reason why it cannot.
/// </summary>
/// <param name="PortStart">Where the port's digits begin in the address.</param>
internal sealed record BindAddress(string Text, IPAddress Address, int Port, int PortStart, string? Refusal)
{
    private const string UnixSocket = "a unix socket";

    /// <summary>What may stand before an address, and, when such an address cannot be redirected, what it is.</summary>
    private static readonly ImmutableArray<(string Prefix, AddressFamily Family, string? Kind)> Prefixes =
    [
        ("ip@", AddressFamily.Unspecified, null), ("tcp@", AddressFamily.Unspecified, null),
        ("ipv4@", AddressFamily.InterNetwork, null), ("tcp4@", AddressFamily.InterNetwork, null),
        ("ipv6@", AddressFamily.InterNetworkV6, null), ("tcp6@", AddressFamily.InterNetworkV6, null),
        ("/", AddressFamily.Unspecified, UnixSocket), ("unix@", AddressFamily.Unspecified, UnixSocket),
        ("uxst@", AddressFamily.Unspecified, UnixSocket), ("uxdg@", AddressFamily.Unspecified, UnixSocket),
        ("abns@", AddressFamily.Unspecified, "an abstract socket"), ("abnsz@", AddressFamily.Unspecified, "an abstract socket"),
        ("fd@", AddressFamily.Unspecified, "an inherited file descriptor"),
        ("sockpair@", AddressFamily.Unspecified, "an inherited file descriptor"),
        ("udp@", AddressFamily.Unspecified, "a UDP address"), ("udp4@", AddressFamily.Unspecified, "a UDP address"),
        ("udp6@", AddressFamily.Unspecified, "a UDP address"), ("dgram+", AddressFamily.Unspecified, "a UDP address"),
        ("quic4@", AddressFamily.Unspecified, "a QUIC address"), ("quic6@", AddressFamily.Unspecified, "a QUIC address"),
        ("quic+", AddressFamily.Unspecified, "a QUIC address"),
        // The further subflows of a multipath connection are opened by SYNs of their own, which a flip would send elsewhere.
        ("mptcp@", AddressFamily.Unspecified, "a multipath TCP address"), ("mptcp4@", AddressFamily.Unspecified, "a multipath TCP address"),
        ("mptcp6@", AddressFamily.Unspecified, "a multipath TCP address"), ("mptcp+", AddressFamily.Unspecified, "a multipath TCP address"),
        ("rhttp@", AddressFamily.Unspecified, "a reverse HTTP address"),
    ];

    public static bool IsUnix(string text) => Strip(text).Kind == UnixSocket;

    public static BindAddress Read(string text)
    {
        BindAddress Refuse(string why) => new(text, IPAddress.None, 0, 0, why);

        (int skip, AddressFamily family, string? kind) = Strip(text);
        if (kind is not null) return Refuse($"is {kind}; only TCP addresses can be redirected");

        // The last colon before a closing bracket, if any, precedes the port.
        int split = text.LastIndexOfAny([':', ']']);
        if (split < skip || text[split] == ']') return Refuse("has no port; ADDRESS:PORT was expected");
        string host = text[skip..split], port = text[(split + 1)..];
        if (port.Contains('-', StringComparison.Ordinal))
            return Refuse("is a range of ports; write every port as an address of its own");
        if (!int.TryParse(port, NumberStyles.None, CultureInfo.InvariantCulture, out int number) || number is < 1 or > 65535)
            return Refuse("has no port between 1 and 65535");
        IPAddress? address = ReadHost(host, family);
        return address is null
            ? Refuse("is not an IP address; write the address itself, so that every process binds the same one")
            : new(text, address, number, split + 1, null);
    }

    private static (int Skip, AddressFamily Family, string? Kind) Strip(string text)
    {
        int skip = text.StartsWith("stream+", StringComparison.Ordinal) ? "stream+".Length : 0;
        foreach (var (prefix, family, kind) in Prefixes)
            if (text.AsSpan(skip).StartsWith(prefix, StringComparison.Ordinal)) return (skip + prefix.Length, family, kind);
        return (skip, AddressFamily.Unspecified, null);
    }

    /// <summary>src/tools.c, str2ip2: nothing or * is every address of the family, IPv4 when none is named.</summary>
    private static IPAddress? ReadHost(string host, AddressFamily family)
    {
        if (host is "" or "*") return family == AddressFamily.InterNetworkV6 ? IPAddress.IPv6Any : IPAddress.Any;
        if (host.StartsWith('[')) { if (!host.EndsWith(']') || host.Length < 4) return null; host = host[1..^1]; }
        bool six = host.Contains(':', StringComparison.Ordinal);
        if (six ? family == AddressFamily.InterNetwork : family == AddressFamily.InterNetworkV6) return null;
        // inet_pton(3) knows no zone and no abbreviated IPv4 address; what it refuses would be looked up as a host name.
        if (host.AsSpan().ContainsAnyExcept("0123456789abcdefABCDEF:.") || !IPAddress.TryParse(host, out IPAddress? address)) return null;
        return six || address.ToString() == host ? address : null;
    }
}

/// <summary>The parameters of a <c>bind</c> line that decide what it binds (configuration manual, 5.1 "Bind options").</summary>
internal sealed record BindParameters(bool V6Only, string? Interface, string? Refusal)
{
    public static BindParameters Read(ImmutableArray<Word> words, int first)
    {
        bool v6Only = false;
        string? device = null, refusal = null;
        for (int i = first; i < words.Length; i++)
        {
            switch (words[i].Text)
            {
                case "v6only": v6Only = true; break;
                case "interface": device = ++i < words.Length ? words[i].Text : null; break;
                case "name" or "label" or "id" or "guid-prefix" or "user" or "group": i++; break;
                case "transparent":
                    refusal ??= "is transparent: it takes connections for addresses of other hosts, "
                        + "which cannot be redirected to a private port";
                    break;
                case "namespace":
                    refusal ??= "listens in another network namespace, in which nothing is redirected";
                    break;
                case "tcp-md5sig":
                    // RFC 2385, 2.0: the signature covers the ports.
                    refusal ??= "has TCP MD5 signatures, which do not survive a redirection to another port";
                    break;
            }
        }
        return new(v6Only, device, refusal);
    }
}
