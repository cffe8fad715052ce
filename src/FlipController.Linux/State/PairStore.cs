using System.Collections.Immutable;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux.Unmanaged;

namespace FlipController.Linux.State;

/// <summary>
/// What one pair keeps on disk, STATE/pairs/NAME: state.json (the machine's state), history.jsonl (a flip a line; a later line
/// with the same id replaces the earlier), generations/N.json (the files generation N was made from), adoption.json (the unmanaged
/// HAProxy that NEW connections were taken over from), peers.key (what the generations prove themselves to each other with), and
/// server-state (what the active one's servers were like last, where the configuration loads that).
/// </summary>
public sealed class PairStore
{
    private const int LongestHistory = 1000, PeersKeyLength = 16;

    /// <summary>Of state.json. What an earlier version saved bears none, and is read as well.</summary>
    private const int Format = 1;
    private const string FormatName = "format";

    private readonly string _directory;

    public PairStore(string stateDirectory, string pair)
    {
        _directory = Path.Combine(stateDirectory, "pairs", pair);
        AtomicFile.EnsurePrivateDirectory(Path.Combine(stateDirectory, "pairs"));
        AtomicFile.EnsurePrivateDirectory(_directory);
        AtomicFile.EnsurePrivateDirectory(Path.Combine(_directory, "generations"));
    }

    private string StatePath => Path.Combine(_directory, "state.json");

    /// <summary>What the servers were like last, in HAProxy's own format.</summary>
    public string ServerStatePath => Path.Combine(_directory, "server-state");

    private string HistoryPath => Path.Combine(_directory, "history.jsonl");

    private string PeersKeyPath => Path.Combine(_directory, "peers.key");

    private string AdoptionPath => Path.Combine(_directory, "adoption.json");

    private string SnapshotPath(int number) => Path.Combine(_directory, "generations", $"{number}.json");

    /// <summary>Null: nothing was ever saved, or it is lost.</summary>
    /// <param name="broken">What was wrong with what is there, and what was done with it; null: nothing.</param>
    /// <exception cref="FlipException">A newer version of this program has saved it.</exception>
    public PairState? Read(out string? broken)
    {
        broken = null;
        if (!File.Exists(StatePath)) return null;
        try
        {
            using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(StatePath));
            int format = document.RootElement.TryGetProperty(FormatName, out JsonElement saved) ? saved.GetInt32() : 0;
            if (format > Format)
                throw new FlipException($"cannot read {StatePath}: a newer version has saved it (format {format}, this one knows {Format}); nothing was changed, "
                    + "and every HAProxy and every rule goes on. Start the newer version again, or move the file away: it is made again from what is there, "
                    + "without the undo window");
            if (Whole(document.RootElement) is { } state) return state;
            broken = BrokenFile.SetAside(StatePath, "it is not a pair's state");
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or FormatException or NotSupportedException)
        {
            broken = BrokenFile.SetAside(StatePath, e.Message);
        }
        return null;
    }

    private static PairState? Whole(JsonElement saved)
    {
        try
        {
            return OwnJson.Read(saved, PairStateJson.Default.PairState);
        }
        catch (JsonException)
        {
            // What it says is in words of .NET's, about names of ours.
            return null;
        }
    }

    public void Save(PairState state)
    {
        JsonObject saved = JsonSerializer.SerializeToNode(state, PairStateJson.Default.PairState)!.AsObject();
        saved.Insert(0, FormatName, Format);
        AtomicFile.Write(StatePath, Encoding.UTF8.GetBytes(saved.ToJsonString(PairStateJson.Default.Options)));
    }

    /// <summary>The highest number of a generation whose files are kept; 0: none are.</summary>
    public int HighestSnapshot() => Snapshots().Select(s => s.Number).DefaultIfEmpty().Max();

    private IEnumerable<(int Number, string Path)> Snapshots()
    {
        foreach (string path in Directory.EnumerateFiles(Path.Combine(_directory, "generations"), "*.json"))
            if (int.TryParse(Path.GetFileNameWithoutExtension(path), out int number)) yield return (number, path);
    }

    /// <summary>
    /// What the pair's generations know each other by when they share stick tables; made when it is first asked for. Whoever knows it
    /// and is on this host can read the tables and write into them.
    /// </summary>
    public string PeersKey()
    {
        if (File.Exists(PeersKeyPath) && File.ReadAllText(PeersKeyPath) is { Length: PeersKeyLength } known) return known;
        string key = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(PeersKeyLength / 2));
        AtomicFile.Write(PeersKeyPath, Encoding.ASCII.GetBytes(key));
        return key;
    }

    public void Append(FlipRecord flip)
    {
        AtomicFile.AppendLine(HistoryPath, JsonSerializer.SerializeToUtf8Bytes(flip, PairStoreJson.Default.FlipRecord));
    }

    /// <summary>Oldest first, the last word on each flip.</summary>
    public ImmutableArray<FlipRecord> History()
    {
        if (!File.Exists(HistoryPath)) return [];
        var flips = new SortedDictionary<int, FlipRecord>();
        string[] lines = File.ReadAllLines(HistoryPath, Encoding.UTF8);
        foreach (string line in lines)
        {
            // A line cut by a power failure is no reason to lose the others.
            if (TryRead(line) is { } flip) flips[flip.Id] = flip;
        }
        if (lines.Length > 2 * LongestHistory)
        {
            using var kept = new MemoryStream();
            foreach (FlipRecord flip in flips.Values.TakeLast(LongestHistory))
            {
                kept.Write(JsonSerializer.SerializeToUtf8Bytes(flip, PairStoreJson.Default.FlipRecord));
                kept.WriteByte((byte)'\n');
            }
            AtomicFile.Write(HistoryPath, kept.ToArray());
        }
        return [.. flips.Values.TakeLast(LongestHistory)];
    }

    private static FlipRecord? TryRead(string line)
    {
        try
        {
            return OwnJson.Read(Encoding.UTF8.GetBytes(line), PairStoreJson.Default.FlipRecord);
        }
        catch (JsonException)
        {
            return null;
        }
    }

    public void SaveAdoption(Adoption adoption) =>
        AtomicFile.Write(AdoptionPath, JsonSerializer.SerializeToUtf8Bytes(adoption, PairStoreJson.Default.Adoption));

    /// <summary>Null: nothing was ever adopted, or it cannot be read.</summary>
    public Adoption? ReadAdoption() => Kept(AdoptionPath, PairStoreJson.Default.Adoption);

    public void SaveSnapshot(int number, Snapshot snapshot) =>
        AtomicFile.Write(SnapshotPath(number), JsonSerializer.SerializeToUtf8Bytes(snapshot, PairStoreJson.Default.Snapshot));

    /// <summary>Null: it is not kept, or cannot be read.</summary>
    public Snapshot? ReadSnapshot(int number) => Kept(SnapshotPath(number), PairStoreJson.Default.Snapshot) is { Files.IsDefault: false } snapshot
        ? snapshot
        : null;

    private static T? Kept<T>(string path, JsonTypeInfo<T> type) where T : class
    {
        if (!File.Exists(path)) return null;
        try
        {
            return OwnJson.Read(File.ReadAllBytes(path), type);
        }
        catch (JsonException)
        {
            return null;
        }
    }

    /// <summary>Removes the snapshots nobody may ask for any more.</summary>
    public void PruneSnapshots(Func<int, bool> needed)
    {
        foreach (var (number, path) in Snapshots())
            if (!needed(number)) File.Delete(path);
    }
}

/// <summary>The user's files as they were read at one instant.</summary>
/// <param name="ConfigSha256">Over the configuration files alone: what <c>cat FILE... | sha256sum</c> prints.</param>
/// <param name="ContentSha256">Over every watched file with its name.</param>
/// <param name="EnvironmentFiles">Those that are there, in order; null in what an older version has saved.</param>
public sealed record Snapshot(
    ImmutableArray<SnapshotFile> Files, string ConfigSha256, string ContentSha256,
    ImmutableArray<SnapshotFile>? EnvironmentFiles = null);

public sealed record SnapshotFile(string Path, byte[] Content);

/// <param name="Haproxy">Null: none was found yet, only <paramref name="Unit"/> is known.</param>
/// <param name="ToldToStop">It is to stop listening once the pair has the NEW connections; written before it is told.</param>
/// <param name="Unit">The systemd unit an operator named for giving back.</param>
/// <param name="Services">The front addresses it is about.</param>
public sealed record Adoption(UnmanagedHaproxy? Haproxy, bool ToldToStop, string? Unit, ImmutableArray<Service> Services,
    ImmutableArray<string>? Paths = null);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(FlipRecord))]
[JsonSerializable(typeof(Adoption))]
[JsonSerializable(typeof(Snapshot))]
internal sealed partial class PairStoreJson : JsonSerializerContext;
