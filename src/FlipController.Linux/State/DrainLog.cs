using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using FlipController.Core;

namespace FlipController.Linux.State;

/// <summary>How a pair's generations left, STATE/pairs/NAME/drains/N.json: the newest ones.</summary>
public sealed class DrainLog
{
    private const int MostKept = 200;
    private readonly string _directory;

    public DrainLog(string stateDirectory, string pair)
    {
        _directory = Path.Combine(stateDirectory, "pairs", pair, "drains");
        AtomicFile.EnsurePrivateDirectory(_directory);
    }

    /// <exception cref="IOException">It could not be written.</exception>
    public void Save(DrainCurve curve)
    {
        AtomicFile.Write(PathOf(curve.Generation), JsonSerializer.SerializeToUtf8Bytes(curve, DrainLogJson.Default.DrainCurve));
        int[] numbers = Numbers();
        foreach (int old in numbers.Take(Math.Max(0, numbers.Length - MostKept))) File.Delete(PathOf(old));
    }

    /// <summary>Null: it is not kept, or what is kept cannot be read.</summary>
    public DrainCurve? Read(int generation)
    {
        try
        {
            return OwnJson.Read(File.ReadAllBytes(PathOf(generation)), DrainLogJson.Default.DrainCurve);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or JsonException)
        {
            return null;
        }
    }

    /// <summary>Oldest first.</summary>
    /// <exception cref="IOException">The directory cannot be read.</exception>
    public ImmutableArray<DrainCurve> All() => [.. Numbers().Select(Read).OfType<DrainCurve>()];

    private int[] Numbers() =>
    [
        .. Directory.EnumerateFiles(_directory, "*.json")
            .Select(f => int.TryParse(Path.GetFileNameWithoutExtension(f), NumberStyles.None, CultureInfo.InvariantCulture, out int n) ? n : 0)
            .Where(n => n > 0).Order(),
    ];

    private string PathOf(int generation) => Path.Combine(_directory, string.Create(CultureInfo.InvariantCulture, $"{generation}.json"));
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(DrainCurve))]
internal sealed partial class DrainLogJson : JsonSerializerContext;
