using System.Collections.Immutable;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using FlipController.Core;

namespace FlipController.Linux.Haproxy;

internal enum AddressKind
{
    Tcp,
    /// <summary>Datagrams. Where only these are meant, <see cref="Tcp"/> may stand for them: HAProxy calls both by the address alone.</summary>
    Udp,
    Quic,
    /// <summary>A path; of a stream, not of datagrams.</summary>
    Unix,
    /// <summary>A name in the network namespace, without a file.</summary>
    Abstract,
    /// <summary>Nothing that can be redirected or renamed: <see cref="SocketAddress.What"/> says what.</summary>
    Other,
}

/// <summary>
/// An address in a configuration, cut the way HAProxy does it (configuration manual, 11 "Address formats"; src/tools.c,
/// str2sa_range).
/// </summary>
/// <param name="Text">The whole, variables expanded.</param>
/// <param name="Start">Where host, path or name begin, behind what names the kind.</param>
/// <param name="What">What it is, for a person; empty for TCP.</param>
internal readonly record struct SocketAddress(string Text, AddressKind Kind, AddressFamily Family, int Start, string What)
{
    /// <summary>What may stand before an address, and what such an address is.</summary>
    private static readonly ImmutableArray<(string Prefix, AddressKind Kind, AddressFamily Family, string What)> s_prefixes =
    [
        ("ip@", AddressKind.Tcp, AddressFamily.Unspecified, ""), ("tcp@", AddressKind.Tcp, AddressFamily.Unspecified, ""),
        ("ipv4@", AddressKind.Tcp, AddressFamily.InterNetwork, ""), ("tcp4@", AddressKind.Tcp, AddressFamily.InterNetwork, ""),
        ("ipv6@", AddressKind.Tcp, AddressFamily.InterNetworkV6, ""), ("tcp6@", AddressKind.Tcp, AddressFamily.InterNetworkV6, ""),
        ("/", AddressKind.Unix, default, "a unix socket"), ("unix@", AddressKind.Unix, default, "a unix socket"),
        ("uxst@", AddressKind.Unix, default, "a unix socket"), ("uxdg@", AddressKind.Other, default, UnixDatagrams),
        ("abns@", AddressKind.Abstract, default, "an abstract socket"), ("abnsz@", AddressKind.Abstract, default, "an abstract socket"),
        ("fd@", AddressKind.Other, default, Descriptor),
        ("sockpair@", AddressKind.Other, default, Descriptor),
        ("udp@", AddressKind.Udp, AddressFamily.Unspecified, Datagrams), ("udp4@", AddressKind.Udp, AddressFamily.InterNetwork, Datagrams),
        ("udp6@", AddressKind.Udp, AddressFamily.InterNetworkV6, Datagrams),
        ("quic4@", AddressKind.Quic, AddressFamily.InterNetwork, Quic),
        ("quic6@", AddressKind.Quic, AddressFamily.InterNetworkV6, Quic),
        // The further subflows of a multipath connection are opened by SYNs of their own, which a flip would send elsewhere.
        ("mptcp@", AddressKind.Other, default, "a multipath TCP address"),
        ("mptcp4@", AddressKind.Other, default, "a multipath TCP address"),
        ("mptcp6@", AddressKind.Other, default, "a multipath TCP address"),
        ("mptcp+", AddressKind.Other, default, "a multipath TCP address"),
        ("rhttp@", AddressKind.Other, default, "a reverse HTTP address"),
    ];

    /// <summary>What may stand before that: the socket's type, and what a family alone means then.</summary>
    private static readonly ImmutableArray<(string Prefix, AddressKind Kind, string What)> s_types =
        [("stream+", AddressKind.Tcp, ""), ("dgram+", AddressKind.Udp, Datagrams), ("quic+", AddressKind.Quic, Quic)];

    internal const string Datagrams = "a UDP address", Quic = "a QUIC address", UnixDatagrams = "a unix socket of datagrams",
        Descriptor = "an inherited file descriptor";

    public static SocketAddress Read(string text)
    {
        int skip = 0;
        (AddressKind Kind, string What) type = (AddressKind.Tcp, "");
        // Digits begin most of them, and no prefix.
        if (text.Length > 0 && char.IsAsciiLetterLower(text[0]))
            foreach (var (prefix, kind, what) in s_types)
                if (text.StartsWith(prefix, StringComparison.Ordinal)) (skip, type) = (prefix.Length, (kind, what));
        if (skip < text.Length && !char.IsAsciiDigit(text[skip]))
            foreach (var (prefix, kind, family, what) in s_prefixes)
                if (text.AsSpan(skip).StartsWith(prefix, StringComparison.Ordinal))
                    return kind == AddressKind.Tcp
                        ? new(text, type.Kind, family, skip + prefix.Length, type.What)
                        : new(text, type.Kind == AddressKind.Tcp ? kind : AddressKind.Other, family, prefix == "/" ? skip : skip + prefix.Length, what);
        return new(text, type.Kind, AddressFamily.Unspecified, skip, type.What);
    }

    /// <summary>Of a unix socket or an abstract one.</summary>
    public string Path => Text[Start..];

    /// <summary>Where the port's digits begin; -1: it has none. The last colon before a closing bracket, if any, precedes it.</summary>
    public int PortStart => Text.LastIndexOfAny([':', ']']) is var split && split >= Start && Text[split] == ':' ? split + 1 : -1;

    public string Host => PortStart is >= 0 and var port ? Text[Start..(port - 1)] : Text[Start..];

    /// <summary>The host as an address, without a look-up: nothing or * is every one of the family, IPv4 when none is named.</summary>
    public IPAddress? Literal
    {
        get
        {
            string host = Host;
            if (host is "" or "*") return Family == AddressFamily.InterNetworkV6 ? IPAddress.IPv6Any : IPAddress.Any;
            if (host.StartsWith('['))
            {
                if (!host.EndsWith(']') || host.Length < 4) return null;
                host = host[1..^1];
            }
            bool six = host.Contains(':', StringComparison.Ordinal);
            if (six ? Family == AddressFamily.InterNetwork : Family == AddressFamily.InterNetworkV6) return null;
            // inet_pton(3) knows no zone and no abbreviated IPv4 address; what it refuses would be looked up as a host name.
            if (host.AsSpan().ContainsAnyExcept("0123456789abcdefABCDEF:.") || !IPAddress.TryParse(host, out IPAddress? address))
                return null;
            return six || address.ToString() == host ? address : null;
        }
    }

    /// <summary>What HAProxy would look up at all (src/resolvers.c, resolv_hostname_validation).</summary>
    public bool HasName => Host.Length is > 0 and < 256 && Host.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.');
}

/// <summary>
/// One address of a <c>bind</c> line: either of the internet, on one port or a range of them, that can be moved to other ports, or the
/// reason why it cannot.
/// </summary>
/// <param name="IsLiteral">It is written as an address, not as a name.</param>
internal sealed record ListenAddress(
    SocketAddress Socket, Transport Transport, IPAddress Address, int FirstPort, int LastPort, bool IsLiteral, string? Refusal)
{
    /// <param name="datagrams">Of a line that binds nothing else (<c>dgram-bind</c>).</param>
    public static ListenAddress Read(SocketAddress socket, bool datagrams, Func<string, AddressFamily, IPAddress?> resolve)
    {
        ListenAddress Refuse(string why) => new(socket, default, IPAddress.None, 0, 0, false, why);

        if (TransportOf(socket.Kind, datagrams) is not { } transport)
            return Refuse($"is {socket.What}{WhyNot(socket, datagrams)}");
        if (socket.PortStart < 0) return Refuse("has no port; ADDRESS:PORT was expected");
        string ports = socket.Text[socket.PortStart..];
        int dash = ports.IndexOf('-', StringComparison.Ordinal);
        if (!IsPort(dash < 0 ? ports : ports[..dash], out int first)) return Refuse("has no port between 1 and 65535");
        int last = first;
        if (dash >= 0 && (!IsPort(ports[(dash + 1)..], out last) || last < first))
            return Refuse("has no range of ports between 1 and 65535");
        if (socket.Literal is { } literal) return new(socket, transport, literal, first, last, true, null);
        return socket.HasName && resolve(socket.Host, socket.Family) is { } found
            ? new(socket, transport, found, first, last, false, null)
            : Refuse("is not an IP address, nor a name that has one here; write the address itself");
    }

    private static string WhyNot(SocketAddress socket, bool datagrams) => (socket.Kind, socket.What) switch
    {
        (AddressKind.Unix, _) when datagrams => " for datagrams: senders stay with the socket they have found, and what one that ends has not read is lost; "
            + "only UDP addresses can be redirected",
        (_, SocketAddress.UnixDatagrams) => ": senders stay with the socket they have found, and what one that ends has not read is lost; "
            + $"only {(datagrams ? "UDP" : "TCP and QUIC")} addresses can be redirected",
        (AddressKind.Unix, _) => " for peers: they stay connected to the side that stops, and how they find the other one by a path is not tried here; "
            + "use an address with a port",
        (AddressKind.Abstract, _) => ": two processes cannot have one name, and there is no file that could lead to another; "
            + "bind a path, or an address with a port",
        (_, SocketAddress.Descriptor) => ": FlipController starts the generations and has none to hand on, and two that had the same would take "
            + "each other's connections; bind a path, or an address with a port",
        _ => $"; only {(datagrams ? "UDP" : "TCP and QUIC")} addresses can be redirected",
    };

    private static Transport? TransportOf(AddressKind kind, bool datagrams) => kind switch
    {
        AddressKind.Tcp => datagrams ? Transport.Udp : Transport.Tcp,
        AddressKind.Udp when datagrams => Transport.Udp,
        AddressKind.Quic when !datagrams => Transport.Quic,
        _ => null,
    };

    private static bool IsPort(string text, out int port) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out port) && port is >= 1 and <= 65535;

    /// <summary>Its place on other ports: the same kind and host, a name as the address it has.</summary>
    public string On(IEnumerable<int> ports)
    {
        string host = IsLiteral ? Socket.Host : Address.AddressFamily == AddressFamily.InterNetworkV6 ? $"[{Address}]" : $"{Address}";
        return string.Join(',', ports.Select(p => $"{Socket.Text[..Socket.Start]}{host}:{p}"));
    }
}

/// <summary>The parameters of a <c>bind</c> line that decide what it binds (configuration manual, 5.1 "Bind options").</summary>
internal sealed record BindParameters(bool V6Only, string? Interface, string? Refusal)
{
    /// <param name="onFronts">It stays where it is: nothing is redirected.</param>
    public static BindParameters Read(ConfigurationLine line, int first, bool onFronts = false)
    {
        bool v6Only = false;
        string? device = null, refusal = null;
        int count = line.Count;
        for (int i = first; i < count; i++)
        {
            switch (line[i])
            {
                case "v6only": v6Only = true; break;
                case "interface": device = ++i < count ? line[i] : null; break;
                case "name" or "label" or "id" or "guid-prefix" or "user" or "group": i++; break;
                case "transparent" when !onFronts:
                    refusal ??= "is transparent: it takes connections for addresses of other hosts, "
                        + "which cannot be redirected to a private port";
                    break;
                case "shards" when onFronts && i + 1 < count && line[i + 1] != "1":
                    refusal ??= "has shards: of two generations with several listeners each on one address the kernel cannot be told apart which "
                        + "is whose; leave shards out, or use redirect.method nftables";
                    break;
                case "namespace":
                    refusal ??= "listens in another network namespace, in which nothing is redirected";
                    break;
                case "tcp-md5sig" when !onFronts:
                    // RFC 2385, 2.0: the signature covers the ports.
                    refusal ??= "has TCP MD5 signatures, which do not survive a redirection to another port";
                    break;
            }
        }
        return new(v6Only, device, refusal);
    }
}
