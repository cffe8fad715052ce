using System.Text.Json;
using System.Text.Json.Serialization;
using FlipController.Core;

namespace FlipController.Linux.State;

/// <summary>
/// Which number names a pair in the connection mark: given once, kept in STATE/pairs.json, so that connections keep their meaning
/// when pairs are added or removed.
/// </summary>
public static class PairIndexes
{
    /// <param name="inUse">What living connections of a pair bear: asked when the file lacks a pair, as it does when it is lost.</param>
    /// <param name="tell">What was wrong with the file.</param>
    public static IReadOnlyDictionary<string, int> Assign(
        string stateDirectory, IReadOnlyCollection<string> pairs, Func<IReadOnlyDictionary<string, int>> inUse, Action<string> tell)
    {
        string path = Path.Combine(stateDirectory, "pairs.json");
        Dictionary<string, int> indexes = Read(path, tell);
        if (pairs.All(indexes.ContainsKey)) return indexes;
        IReadOnlyDictionary<string, int> bear = inUse();
        foreach (string pair in pairs.Where(p => !indexes.ContainsKey(p)).OrderByDescending(bear.ContainsKey).ToArray())
        {
            int free = bear.TryGetValue(pair, out int used) && !indexes.ContainsValue(used)
                ? used
                : Enumerable.Range(1, ConfigurationReader.MostPairs).FirstOrDefault(i => !indexes.ContainsValue(i) && !bear.Values.Contains(i));
            if (free == 0)
            {
                // All are taken: one of a pair that is configured no more is given again.
                string gone = indexes.Keys.First(k => !pairs.Contains(k));
                free = indexes[gone];
                indexes.Remove(gone);
            }
            indexes[pair] = free;
        }
        AtomicFile.Write(path, JsonSerializer.SerializeToUtf8Bytes(indexes, PairIndexesJson.Default.DictionaryStringInt32));
        return indexes;
    }

    private static Dictionary<string, int> Read(string path, Action<string> tell)
    {
        if (!File.Exists(path)) return [];
        try
        {
            if (JsonSerializer.Deserialize(File.ReadAllBytes(path), PairIndexesJson.Default.DictionaryStringInt32) is { } indexes
                && indexes.Values.All(i => i is > 0 and <= ConfigurationReader.MostPairs) && indexes.Values.Distinct().Count() == indexes.Count) return indexes;
            tell(BrokenFile.SetAside(path, "it does not give each pair a number of its own"));
        }
        catch (JsonException e)
        {
            tell(BrokenFile.SetAside(path, e.Message));
        }
        return [];
    }
}

[JsonSourceGenerationOptions(WriteIndented = true)]
[JsonSerializable(typeof(Dictionary<string, int>))]
internal sealed partial class PairIndexesJson : JsonSerializerContext;
