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
    public static IReadOnlyDictionary<string, int> Assign(string stateDirectory, IReadOnlyCollection<string> pairs)
    {
        string path = Path.Combine(stateDirectory, "pairs.json");
        Dictionary<string, int> indexes = File.Exists(path)
            ? JsonSerializer.Deserialize(File.ReadAllBytes(path), PairIndexesJson.Default.DictionaryStringInt32) ?? []
            : [];
        bool changed = false;
        foreach (string pair in pairs.Where(p => !indexes.ContainsKey(p)).ToArray())
        {
            int free = Enumerable.Range(1, ConfigurationReader.MostPairs).FirstOrDefault(i => !indexes.ContainsValue(i));
            if (free == 0)
            {
                // All are taken: one of a pair that is configured no more is given again.
                string gone = indexes.Keys.First(k => !pairs.Contains(k));
                free = indexes[gone];
                indexes.Remove(gone);
            }
            indexes[pair] = free;
            changed = true;
        }
        if (changed) AtomicFile.Write(path, JsonSerializer.SerializeToUtf8Bytes(indexes, PairIndexesJson.Default.DictionaryStringInt32));
        return indexes;
    }
}

[JsonSourceGenerationOptions(WriteIndented = true)]
[JsonSerializable(typeof(Dictionary<string, int>))]
internal sealed partial class PairIndexesJson : JsonSerializerContext;
