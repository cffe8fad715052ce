using System.Collections.Immutable;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux.Unmanaged;

namespace FlipController.Linux.State;

/// <summary>
/// What one pair keeps on disk, STATE/pairs/NAME: state.json (the machine's state), history.jsonl (a flip a line; a later line
/// with the same id replaces the earlier), generations/N.json (the files generation N was made from), adoption.json (the unmanaged
/// HAProxy that NEW connections were taken over from), peers.key.
/// </summary>
public sealed class PairStore
{
    private const int LongestHistory = 1000, PeersKeyLength = 16;
    private readonly string _directory;

    public PairStore(string stateDirectory, string pair)
    {
        _directory = Path.Combine(stateDirectory, "pairs", pair);
        AtomicFile.EnsurePrivateDirectory(Path.Combine(stateDirectory, "pairs"));
        AtomicFile.EnsurePrivateDirectory(_directory);
        AtomicFile.EnsurePrivateDirectory(Path.Combine(_directory, "generations"));
    }

    private string StatePath => Path.Combine(_directory, "state.json");

    private string HistoryPath => Path.Combine(_directory, "history.jsonl");

    private string PeersKeyPath => Path.Combine(_directory, "peers.key");

    private string AdoptionPath => Path.Combine(_directory, "adoption.json");

    private string SnapshotPath(int number) => Path.Combine(_directory, "generations", $"{number}.json");

    /// <summary>Null: nothing was ever saved.</summary>
    public PairState? Read()
    {
        if (!File.Exists(StatePath)) return null;
        try
        {
            return JsonSerializer.Deserialize(File.ReadAllBytes(StatePath), PairStateJson.Default.PairState);
        }
        catch (JsonException e)
        {
            throw new FlipException(
                $"cannot read the saved state {StatePath}: {e.Message}; nothing was changed. Put the file back from a copy, or move it "
                + "away and run `flipctl reset`, after which the pair starts afresh.", e);
        }
    }

    public void Save(PairState state) =>
        AtomicFile.Write(StatePath, JsonSerializer.SerializeToUtf8Bytes(state, PairStateJson.Default.PairState));

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
        byte[] line = [.. JsonSerializer.SerializeToUtf8Bytes(flip, PairStoreJson.Default.FlipRecord), (byte)'\n'];
        using var file = new FileStream(HistoryPath, FileMode.Append, FileAccess.Write);
        file.Write(line);
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
            return JsonSerializer.Deserialize(line, PairStoreJson.Default.FlipRecord);
        }
        catch (JsonException)
        {
            return null;
        }
    }

    public void SaveAdoption(Adoption adoption) =>
        AtomicFile.Write(AdoptionPath, JsonSerializer.SerializeToUtf8Bytes(adoption, PairStoreJson.Default.Adoption));

    /// <summary>Null: nothing was ever adopted.</summary>
    public Adoption? ReadAdoption() => File.Exists(AdoptionPath)
        ? JsonSerializer.Deserialize(File.ReadAllBytes(AdoptionPath), PairStoreJson.Default.Adoption)
        : null;

    public void SaveSnapshot(int number, Snapshot snapshot) =>
        AtomicFile.Write(SnapshotPath(number), JsonSerializer.SerializeToUtf8Bytes(snapshot, PairStoreJson.Default.Snapshot));

    public Snapshot? ReadSnapshot(int number) => File.Exists(SnapshotPath(number))
        ? JsonSerializer.Deserialize(File.ReadAllBytes(SnapshotPath(number)), PairStoreJson.Default.Snapshot)
        : null;

    /// <summary>Removes the snapshots nobody may ask for any more.</summary>
    public void PruneSnapshots(Func<int, bool> needed)
    {
        foreach (string path in Directory.EnumerateFiles(Path.Combine(_directory, "generations"), "*.json"))
            if (int.TryParse(Path.GetFileNameWithoutExtension(path), out int number) && !needed(number)) File.Delete(path);
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
public sealed record Adoption(UnmanagedHaproxy? Haproxy, bool ToldToStop, string? Unit, ImmutableArray<Service> Services);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(FlipRecord))]
[JsonSerializable(typeof(Adoption))]
[JsonSerializable(typeof(Snapshot))]
internal sealed partial class PairStoreJson : JsonSerializerContext;
