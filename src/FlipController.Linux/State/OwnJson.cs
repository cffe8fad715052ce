using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace FlipController.Linux.State;

/// <summary>
/// What we have written, read back. It may have been cut, or somebody else been at it: what has the form of JSON may still lack what
/// everybody relies on. The records' own nulls and gaps are the serializer's to refuse (RespectNullableAnnotations,
/// RespectRequiredConstructorParameters), those in lists are not.
/// </summary>
internal static class OwnJson
{
    /// <exception cref="JsonException">It is not what was written.</exception>
    public static T? Read<T>(ReadOnlyMemory<byte> json, JsonTypeInfo<T> type)
    {
        using JsonDocument document = JsonDocument.Parse(json);
        return Read(document.RootElement, type);
    }

    /// <inheritdoc cref="Read{T}(ReadOnlyMemory{byte}, JsonTypeInfo{T})"/>
    public static T? Read<T>(JsonElement root, JsonTypeInfo<T> type)
    {
        try
        {
            if (HasGap(root)) throw new JsonException("a list has null in it");
            return root.Deserialize(type);
        }
        catch (Exception e) when (e is InvalidOperationException or FormatException or NotSupportedException or ArgumentException)
        {
            throw new JsonException(e.Message, e);
        }
    }

    private static bool HasGap(JsonElement element) => element.ValueKind switch
    {
        JsonValueKind.Array => element.EnumerateArray().Any(e => e.ValueKind == JsonValueKind.Null || HasGap(e)),
        JsonValueKind.Object => element.EnumerateObject().Any(p => HasGap(p.Value)),
        _ => false,
    };
}
