using System.Collections.Immutable;
using System.Text.Json;
using System.Text.Json.Serialization;
using FlipController.Core.Handover;
using FlipController.Linux.Handover;

namespace FlipController.Linux.State;

/// <summary>What of a handover must outlive the daemon: what was intended, and what is to be put back.</summary>
/// <param name="Receiving">The peer hands over to this node; null: it does not.</param>
/// <param name="Settings">Kernel settings that were changed, written here before they were.</param>
/// <param name="OnLoopback">VIPs that were put on lo, written here before they were.</param>
public sealed record HandoverRecord(
    HandoverState Giving, ReceivingRecord? Receiving, ImmutableArray<ChangedSetting> Settings, ImmutableArray<string> OnLoopback)
{
    public static HandoverRecord Nothing { get; } = new(HandoverState.Initial, null, [], []);

    /// <summary>Something of it is in the kernel, or was to be.</summary>
    [JsonIgnore]
    public bool IsInKernel => Giving.HasRules || Receiving is not null || !Settings.IsEmpty || !OnLoopback.IsEmpty;
}

/// <param name="Phase">Of the giver, as it said last.</param>
public sealed record ReceivingRecord(string Id, HandoverPhase Phase, DateTimeOffset Since);

/// <summary>STATE/handover.json.</summary>
public sealed class HandoverStore(string stateDirectory)
{
    /// <summary>Why a node that was handed over should not have the VIPs.</summary>
    public const string Reason = "handed over to the peer";

    private readonly string _path = Path.Combine(stateDirectory, "handover.json");

    /// <param name="broken">What was wrong with what is there; null: nothing.</param>
    public HandoverRecord Read(out string? broken)
    {
        broken = null;
        if (!File.Exists(_path)) return HandoverRecord.Nothing;
        try
        {
            return OwnJson.Read(File.ReadAllBytes(_path), HandoverStoreJson.Default.HandoverRecord) ?? HandoverRecord.Nothing;
        }
        catch (JsonException e)
        {
            broken = BrokenFile.SetAside(_path, e.Message);
            return HandoverRecord.Nothing;
        }
    }

    /// <summary>Whether keepalived is to be told that this node should not have the VIPs. Nothing is set aside: who asks is not the daemon.</summary>
    public bool IsLowered()
    {
        try
        {
            return File.Exists(_path) && OwnJson.Read(File.ReadAllBytes(_path), HandoverStoreJson.Default.HandoverRecord) is { Giving.IsLowered: true };
        }
        catch (Exception e) when (e is JsonException or IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    public void Save(HandoverRecord record) => AtomicFile.Write(_path, JsonSerializer.SerializeToUtf8Bytes(record, HandoverStoreJson.Default.HandoverRecord));
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true,
    UseStringEnumConverter = true)]
[JsonSerializable(typeof(HandoverRecord))]
internal sealed partial class HandoverStoreJson : JsonSerializerContext;
