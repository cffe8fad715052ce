using System.Collections.Immutable;
using System.Text.Json;
using System.Text.Json.Serialization;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.State;

/// <summary>
/// What a generation was started with, beside its process under the runtime directory (RUNTIME/PAIR/gNNNNN/generation.json): it is there
/// as long as the process is, and after a reboot neither is. With it a pair's state can be made again.
/// </summary>
/// <param name="PairIndex">What names the pair in its connections' mark.</param>
public sealed record GenerationNote(int PairIndex, Generation Generation)
{
    private static string PathIn(GenerationPlace place) => Path.Combine(place.Directory, "generation.json");

    /// <summary>It is there, whole, and says this.</summary>
    public bool IsIn(GenerationPlace place) => Read(place) is { } there && there.PairIndex == PairIndex && there.Generation == Generation;

    /// <exception cref="IOException">It could not be written.</exception>
    public void Write(GenerationPlace place) =>
        AtomicFile.Write(PathIn(place), JsonSerializer.SerializeToUtf8Bytes(this, GenerationNoteJson.Default.GenerationNote));

    /// <summary>Those of the generations whose processes live, by number. What cannot be read is none.</summary>
    public static ImmutableArray<GenerationNote> Living(string runtime, string pair) =>
    [
        .. GenerationPlace.Numbers(runtime, pair).Order().Select(n => new GenerationPlace(runtime, pair, n))
            .Select(place => Read(place) is { } note && Instance.LeftBehind(place) == ProcessIdentity.Of(note.Generation) ? note : null)
            .OfType<GenerationNote>(),
    ];

    private static GenerationNote? Read(GenerationPlace place)
    {
        try
        {
            return OwnJson.Read(File.ReadAllBytes(PathIn(place)), GenerationNoteJson.Default.GenerationNote) is { } note
                && note.Generation.Number == place.Number ? note : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or JsonException)
        {
            return null;
        }
    }
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, UseStringEnumConverter = true, RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(GenerationNote))]
internal sealed partial class GenerationNoteJson : JsonSerializerContext;
