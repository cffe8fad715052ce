using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace FlipController.Core;

/// <summary>What a front address takes. QUIC is UDP in which the client's packets belong together: see <see cref="UdpRule"/>.</summary>
public enum Transport { Tcp, Udp, Quic }

/// <summary>
/// One front address of a pair: what clients connect to. <see cref="IPAddress.Any"/> covers every IPv4 address of the host;
/// <see cref="IPAddress.IPv6Any"/> covers every IPv6 address and, unless <paramref name="V6Only"/>, every IPv4 address too
/// (ipv6(7), IPV6_V6ONLY; HAProxy's <c>bind :::80</c> against <c>bind :::80 v6only</c>).
/// </summary>
[JsonConverter(typeof(ServiceJsonConverter))]
public sealed record Service(IPAddress Address, int Port, bool V6Only = false, Transport Transport = Transport.Tcp)
{
    /// <summary>In the order of <see cref="Core.Transport"/>.</summary>
    private static readonly string[] s_prefixes = ["", "udp@", "quic@"];

    public bool IsTcp => Transport == Transport.Tcp;

    public bool IsWildcard => Address.Equals(IPAddress.Any) || Address.Equals(IPAddress.IPv6Any);

    public bool CoversIPv4 => Address.AddressFamily == AddressFamily.InterNetwork
        || (Address.Equals(IPAddress.IPv6Any) && !V6Only) || Address.IsIPv4MappedToIPv6;

    public bool CoversIPv6 => Address.AddressFamily == AddressFamily.InterNetworkV6 && !Address.IsIPv4MappedToIPv6;

    /// <summary>0: one address; 1: every one of a family; 2: every one.</summary>
    public int Breadth => !IsWildcard ? 0 : CoversIPv4 && CoversIPv6 ? 2 : 1;

    /// <summary>Some connection would be for both.</summary>
    public bool Overlaps(Service other) => Port == other.Port && IsTcp == other.IsTcp
        && (Address.Equals(other.Address)
            || ((IsWildcard || other.IsWildcard) && ((CoversIPv4 && other.CoversIPv4) || (CoversIPv6 && other.CoversIPv6))));

    /// <summary><c>*:80</c>, <c>10.0.0.1:80</c>, <c>[::]:80</c>, <c>[::]:80 v6only</c>, <c>[2001:db8::1]:443</c>, <c>udp@*:514</c>, <c>quic@*:443</c>.</summary>
    public override string ToString()
    {
        string host = Address.Equals(IPAddress.Any) ? "*"
            : Address.AddressFamily == AddressFamily.InterNetworkV6 ? $"[{Address}]" : Address.ToString();
        return $"{s_prefixes[(int)Transport]}{host}:{Port}{(V6Only ? " v6only" : "")}";
    }

    /// <summary>Reads what <see cref="ToString"/> writes.</summary>
    public static bool TryParse(string? text, [NotNullWhen(true)] out Service? service)
    {
        service = null;
        if (string.IsNullOrEmpty(text)) return false;
        int transport = Array.FindLastIndex(s_prefixes, p => text.StartsWith(p, StringComparison.Ordinal));
        text = text[s_prefixes[transport].Length..];
        bool v6Only = text.EndsWith(" v6only", StringComparison.Ordinal);
        if (v6Only) text = text[..^" v6only".Length];
        int colon = text.LastIndexOf(':');
        if (colon < 0 || !int.TryParse(text.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out int port)
            || port is < 1 or > 65535) return false;
        string host = text[..colon];
        IPAddress? address;
        if (host is "*" or "") address = IPAddress.Any;
        else if (!IPAddress.TryParse(host.TrimStart('[').TrimEnd(']'), out address)) return false;
        service = new Service(address, port, v6Only, (Transport)transport);
        return true;
    }
}

/// <summary>
/// A service and the private port on which one generation really listens for it, on the same address; the service's own port when it listens
/// on the front address (<see cref="RedirectMethod.Listener"/>).
/// </summary>
public sealed record ServicePort(Service Service, int PrivatePort)
{
    /// <summary>Whoever else listens for the service uses the same port: what is on it may be of each of them.</summary>
    [JsonIgnore]
    public bool IsFront => PrivatePort == Service.Port;
}

/// <summary>The private ports a slot may use: <paramref name="First"/> and the ports after it, <paramref name="Count"/> in all.</summary>
public readonly record struct PortBlock(int First, int Count)
{
    public int Last => First + Count - 1;

    public bool Contains(int port) => port >= First && port <= Last;

    public override string ToString() => $"{First}-{Last}";
}

/// <summary>A service as one word.</summary>
public sealed class ServiceJsonConverter : JsonConverter<Service>
{
    public override Service Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
        Service.TryParse(reader.GetString(), out Service? service)
            ? service
            : throw new JsonException($"\"{reader.GetString()}\" is not a service: ADDRESS:PORT was expected");

    public override void Write(Utf8JsonWriter writer, Service value, JsonSerializerOptions options) =>
        writer.WriteStringValue(value.ToString());
}
