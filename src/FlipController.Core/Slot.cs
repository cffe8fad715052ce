using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace FlipController.Core;

/// <summary>One of the two places of a pair.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<Slot>))]
public enum Slot
{
    [JsonStringEnumMemberName("blue")] Blue,
    [JsonStringEnumMemberName("green")] Green,
}

public static class Slots
{
    public static Slot Other(this Slot slot) => slot switch { Slot.Blue => Slot.Green, Slot.Green => Slot.Blue };

    public static string Name(this Slot slot) => slot switch { Slot.Blue => "blue", Slot.Green => "green" };
}

/// <summary>
/// One run of the server with one configuration. <paramref name="Number"/> counts from 1 per pair and is never used again.
/// </summary>
/// <param name="Pid">The process id, meaningful only together with <paramref name="StartTicks"/> and <paramref name="BootId"/>.</param>
/// <param name="StartTicks">Start time in clock ticks after boot: field 22 of /proc/PID/stat, proc(5).</param>
/// <param name="BootId">/proc/sys/kernel/random/boot_id when it was started: a pid and a start time mean nothing after a reboot.</param>
/// <param name="ConfigSha256">SHA-256 of the configuration files' bytes one after the other: <c>cat FILE... | sha256sum</c>.</param>
/// <param name="ContentSha256">SHA-256 over every watched file, certificates included: what decides whether something changed.</param>
/// <param name="Tag">What the connection mark carries for this generation; unlike the number it has a bounded range.</param>
/// <param name="Version">What <c>haproxy -v</c> says of the binary that runs; null: it is not HAProxy, and nobody asks it.</param>
/// <param name="Binary">The program, as it was named; null: an earlier version of the controller did not write it down.</param>
/// <param name="Loops">Those of its services to which its own configuration connects; null in what an older version has saved.</param>
/// <param name="Fronts">Its unix sockets that outsiders connect to; null in what an older version has saved.</param>
public sealed record Generation(
    int Number, Slot Slot, int Pid, long StartTicks, string BootId, string ConfigSha256, string ContentSha256,
    DateTimeOffset Since, ImmutableArray<ServicePort> Ports, int Tag, string? Version, string? Binary = null,
    ImmutableArray<Service>? Loops = null, ImmutableArray<UnixFront>? Fronts = null)
{
    /// <summary>It listens on the front addresses themselves, where others may too (<see cref="RedirectMethod.Listener"/>).</summary>
    [JsonIgnore]
    public bool IsOnFronts => !Ports.IsEmpty && Ports.All(p => p.IsFront);

    /// <summary>Its unix sockets that outsiders connect to.</summary>
    [JsonIgnore]
    public ImmutableArray<UnixFront> UnixFronts => Fronts ?? [];

    /// <summary>Generations are the same when their numbers are: everything else follows from it.</summary>
    public bool Equals(Generation? other) =>
        other is not null && other.Number == Number && other.Pid == Pid && other.StartTicks == StartTicks;

    public override int GetHashCode() => HashCode.Combine(Number, Pid, StartTicks);

    /// <inheritdoc cref="Machine.PairState.Shifted"/>
    public Generation Shifted(TimeSpan by) => this with { Since = Since + by };

    public override string ToString() => $"generation {Number} ({Slot.Name()})";
}
