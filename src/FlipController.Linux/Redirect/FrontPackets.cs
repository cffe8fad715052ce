using System.Buffers.Binary;
using System.Net;
using System.Text.Json;
using FlipController.Core;

namespace FlipController.Linux.Redirect;

/// <summary>How many of some packets something is true of.</summary>
internal enum Meeting { Never, Maybe, Always }

/// <summary>
/// The opening SYNs to one front address over one family, against what rules of others match: nftables' JSON, libnftables-json(5), in
/// which numbers stand for names when it is asked for so. What is not understood may match.
/// </summary>
internal sealed class FrontPackets
{
    // linux/in.h, linux/netfilter.h, linux/rtnetlink.h
    private const int Tcp = 6; // IPPROTO_TCP
    private const int IPv4 = 2, IPv6 = 10; // NFPROTO_IPV4, NFPROTO_IPV6
    private const int LocalAddress = 2; // RTN_LOCAL

    private readonly int _port;
    private readonly bool _v6;
    private readonly UInt128? _address; // null: every one of this host

    /// <param name="front">Covers the family.</param>
    internal FrontPackets(Service front, bool v6)
    {
        _port = front.Port;
        _v6 = v6;
        if (!front.IsWildcard) _address = Number(v6 || !front.Address.IsIPv4MappedToIPv6 ? front.Address : front.Address.MapToIPv4());
    }

    internal static Meeting Least(Meeting one, Meeting other) => one < other ? one : other;

    /// <summary>A rule's <c>match</c>.</summary>
    internal Meeting Meet(JsonElement match)
    {
        JsonElement left = match.GetProperty("left"), right = match.GetProperty("right");
        if (!IsOfThese(left)) return Meeting.Never;
        return match.GetProperty("op").GetString() switch
        {
            "==" or "in" => Is(left, right),
            "!=" => Is(left, right) switch { Meeting.Never => Meeting.Always, Meeting.Always => Meeting.Never, _ => Meeting.Maybe },
            "<" => Compare(left, right, static (port, bound) => port < bound),
            ">" => Compare(left, right, static (port, bound) => port > bound),
            "<=" => Compare(left, right, static (port, bound) => port <= bound),
            ">=" => Compare(left, right, static (port, bound) => port >= bound),
            _ => Meeting.Maybe,
        };
    }

    /// <summary>A <c>map</c> or <c>vmap</c> finds one of these keys.</summary>
    internal Meeting MeetKey(JsonElement key, JsonElement element) => IsOfThese(key) ? Is(key, element) : Meeting.Never;

    /// <summary>A dnat or redirect: where its address or port comes from a map, only what that has is translated.</summary>
    internal Meeting MeetTranslation(JsonElement statement)
    {
        Meeting meets = Meeting.Always;
        if (statement.ValueKind != JsonValueKind.Object) return meets;
        foreach (JsonProperty part in statement.EnumerateObject())
        {
            if (part.Value.ValueKind != JsonValueKind.Object || !part.Value.TryGetProperty("map", out JsonElement map)) continue;
            meets = Least(meets, map.GetProperty("data") is { ValueKind: JsonValueKind.Object } data && data.TryGetProperty("set", out JsonElement pairs)
                ? pairs.EnumerateArray().Select(pair => MeetKey(map.GetProperty("key"), pair[0])).DefaultIfEmpty().Max()
                : Meeting.Maybe); // a map with a name may hold something else a moment later
        }
        return meets;
    }

    /// <summary>False: what it asks for is in packets of another protocol only, whatever it is compared with.</summary>
    private bool IsOfThese(JsonElement left)
    {
        if (left.ValueKind != JsonValueKind.Object) return true;
        if (left.TryGetProperty("concat", out JsonElement parts) || left.TryGetProperty("&", out parts)) return parts.EnumerateArray().All(IsOfThese);
        return Payload(left)?.Protocol switch
        {
            "ip" => !_v6,
            "ip6" => _v6,
            "udp" or "udplite" or "sctp" or "dccp" or "icmp" or "icmpv6" or "igmp" or "esp" or "ah" or "comp" or "arp" => false,
            _ => true,
        };
    }

    private Meeting Is(JsonElement left, JsonElement right)
    {
        if (right.ValueKind == JsonValueKind.Object)
        {
            if (right.TryGetProperty("set", out JsonElement set)) return set.EnumerateArray().Select(e => Is(left, e)).DefaultIfEmpty().Max();
            if (right.TryGetProperty("elem", out JsonElement element) && element.TryGetProperty("val", out JsonElement value)) return Is(left, value);
            if (right.TryGetProperty("concat", out JsonElement values))
                return left.TryGetProperty("concat", out JsonElement parts) && parts.GetArrayLength() == values.GetArrayLength()
                    ? parts.EnumerateArray().Zip(values.EnumerateArray(), Is).DefaultIfEmpty().Min()
                    : Meeting.Maybe;
        }
        if (left.ValueKind != JsonValueKind.Object) return Meeting.Maybe;
        if (IsPort(left)) return PortIs(right);
        if (Payload(left) is { Protocol: "ip" or "ip6", Field: "daddr" }) return AddressIs(right);
        if (Payload(left) is { Protocol: "ip", Field: "protocol" } or { Protocol: "ip6", Field: "nexthdr" } || Meta(left) == "l4proto") return Among(right, Tcp, "tcp");
        if (Meta(left) == "nfproto") return _v6 ? Among(right, IPv6, "ipv6") : Among(right, IPv4, "ipv4");
        if (left.TryGetProperty("fib", out JsonElement fib) && fib.GetProperty("result").GetString() == "type"
            && fib.GetProperty("flags").EnumerateArray().Select(f => f.GetString()).SequenceEqual(["daddr"]))
            return Among(right, LocalAddress, "local");
        return Meeting.Maybe;
    }

    private static Meeting Among(JsonElement right, int number, string name) => right.ValueKind switch
    {
        JsonValueKind.Number => right.TryGetInt64(out long found) && found == number ? Meeting.Always : Meeting.Never,
        JsonValueKind.String when right.GetString()!.StartsWith('@') => Meeting.Maybe,
        JsonValueKind.String => right.GetString() == name ? Meeting.Always : Meeting.Never,
        _ => Meeting.Maybe,
    };

    private Meeting PortIs(JsonElement right)
    {
        if (right.ValueKind == JsonValueKind.Number) return right.GetInt64() == _port ? Meeting.Always : Meeting.Never;
        if (right.ValueKind != JsonValueKind.Object || !right.TryGetProperty("range", out JsonElement range)
            || !range[0].TryGetInt64(out long first) || !range[1].TryGetInt64(out long last)) return Meeting.Maybe;
        return first <= _port && _port <= last ? Meeting.Always : Meeting.Never;
    }

    private Meeting Compare(JsonElement left, JsonElement right, Func<int, long, bool> holds) =>
        left.ValueKind != JsonValueKind.Object || !IsPort(left) || right.ValueKind != JsonValueKind.Number ? Meeting.Maybe
            : holds(_port, right.GetInt64()) ? Meeting.Always : Meeting.Never;

    private Meeting AddressIs(JsonElement right)
    {
        if (Bounds(right) is not { } bounds || _address is not { } address) return Meeting.Maybe;
        return bounds.First <= address && address <= bounds.Last ? Meeting.Always : Meeting.Never;
    }

    private static (UInt128 First, UInt128 Last)? Bounds(JsonElement right)
    {
        if (right.ValueKind == JsonValueKind.String) return Address(right) is { } one ? (Number(one), Number(one)) : null;
        if (right.ValueKind != JsonValueKind.Object) return null;
        if (right.TryGetProperty("range", out JsonElement range))
            return Address(range[0]) is { } first && Address(range[1]) is { } last ? (Number(first), Number(last)) : null;
        if (!right.TryGetProperty("prefix", out JsonElement prefix) || Address(prefix.GetProperty("addr")) is not { } network) return null;
        int rest = network.GetAddressBytes().Length * 8 - prefix.GetProperty("len").GetInt32();
        UInt128 hosts = rest >= 128 ? UInt128.MaxValue : (UInt128.One << rest) - 1;
        return (Number(network) & ~hosts, Number(network) | hosts);
    }

    private static IPAddress? Address(JsonElement text) =>
        text.ValueKind == JsonValueKind.String && IPAddress.TryParse(text.GetString(), out IPAddress? address) ? address : null;

    private static UInt128 Number(IPAddress address)
    {
        byte[] bytes = address.GetAddressBytes();
        return bytes.Length == 4 ? BinaryPrimitives.ReadUInt32BigEndian(bytes) : BinaryPrimitives.ReadUInt128BigEndian(bytes);
    }

    private static bool IsPort(JsonElement left) => Payload(left) is { Protocol: "tcp" or "th", Field: "dport" };

    private static (string Protocol, string Field)? Payload(JsonElement left) =>
        left.TryGetProperty("payload", out JsonElement payload) && payload.TryGetProperty("protocol", out JsonElement protocol)
            ? (protocol.GetString()!, payload.GetProperty("field").GetString()!)
            : null; // {"base": "th", "offset": ...}, which has no name

    private static string? Meta(JsonElement left) => left.TryGetProperty("meta", out JsonElement meta) ? meta.GetProperty("key").GetString() : null;
}
