using System.Collections.Immutable;
using System.Globalization;
using System.Net;
using System.Net.NetworkInformation;
using System.Text.Json.Serialization;
using FlipController.Core.Handover;
using FlipController.Linux.Handover;

namespace FlipController.Daemon.Handover;

// What the two daemons say to each other about a handover, by way of the peer channel.

/// <summary>Said several times a second by the node that gives: the peer prepares itself, and says whether NEW connections may go there.</summary>
/// <param name="Services">What it would have to serve, by pair.</param>
/// <param name="Old">Connections of the giver that it has not named yet to this run of the peer; all of them with <paramref name="IsFirst"/>.</param>
internal sealed record ReceiveAsk(
    string Id, HandoverPhase Phase, NodeWire Node, ImmutableArray<string> Vips, ImmutableArray<PairServices> Services, ImmutableArray<string> Old, bool IsFirst);

internal sealed record PairServices(string Pair, ImmutableArray<string> Services);

/// <param name="Why">Why it cannot take NEW connections; null: it can.</param>
/// <param name="IsNew">It did not know of this handover: every old connection must be named to it.</param>
internal sealed record ReceiveAnswer(string? Why, NodeWire Node, bool HoldsVips, int Connections, bool IsGiving, bool IsNew);

internal sealed record HandoverNamed(string Id);

internal sealed record Done(bool Was);

/// <summary><see cref="PeerNode"/> as text.</summary>
internal sealed record NodeWire(string Hardware, string? V4, string? V6)
{
    public static NodeWire Of(PeerNode node) => new(node.Hardware.ToString(), node.V4?.ToString(), node.V6 is { } v6 ? new IPAddress(v6.GetAddressBytes()).ToString() : null);

    /// <exception cref="FormatException">It is none.</exception>
    public PeerNode Node() => new(PhysicalAddress.Parse(Hardware), V4 is null ? null : IPAddress.Parse(V4), V6 is null ? null : IPAddress.Parse(V6));
}

/// <summary>A four-tuple in one word: <c>6 192.0.2.9:51400 192.0.2.100:80</c>.</summary>
internal static class FlowText
{
    public static string Of(FourTuple flow) => string.Create(CultureInfo.InvariantCulture, $"{flow.Protocol} {flow.Client} {flow.Vip}");

    /// <exception cref="FormatException">It is none.</exception>
    public static FourTuple Read(string text) => text.Split(' ') is [var protocol, var client, var vip]
        ? new FourTuple(byte.Parse(protocol, CultureInfo.InvariantCulture), IPEndPoint.Parse(client), IPEndPoint.Parse(vip))
        : throw new FormatException($"\"{text}\" is no connection");
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true,
    UseStringEnumConverter = true)]
[JsonSerializable(typeof(ReceiveAsk))]
[JsonSerializable(typeof(ReceiveAnswer))]
[JsonSerializable(typeof(HandoverNamed))]
[JsonSerializable(typeof(Done))]
internal sealed partial class HandoverJson : JsonSerializerContext;
