using System.Text.Json;
using System.Text.Json.Serialization;
using FlipController.Core;
using FlipController.Linux.State;

namespace FlipController.Daemon.Keepalived;

/// <summary>STATE/maintenance.json: it is there while an operator wants this node to be without the addresses, whoever restarts what.</summary>
internal sealed class Maintenance(string stateDirectory)
{
    private readonly string _path = Path.Combine(stateDirectory, "maintenance.json");
    private MaintenanceStatus? _status;

    public MaintenanceStatus? Status => Volatile.Read(ref _status);

    public void Load()
    {
        if (!File.Exists(_path)) return;
        MaintenanceStatus? saved = null;
        try
        {
            saved = JsonSerializer.Deserialize(File.ReadAllBytes(_path), NodeJson.Default.MaintenanceStatus);
        }
        catch (JsonException)
        {
            // That it is there says the one thing that matters.
        }
        Volatile.Write(ref _status, saved ?? new MaintenanceStatus(File.GetLastWriteTimeUtc(_path), null));
    }

    /// <exception cref="FlipException">It could not be written down; it is as it was.</exception>
    public void Set(MaintenanceStatus? status)
    {
        try
        {
            if (status is null) File.Delete(_path);
            else AtomicFile.Write(_path, JsonSerializer.SerializeToUtf8Bytes(status, NodeJson.Default.MaintenanceStatus));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new FlipException($"cannot {(status is null ? "end" : "begin")} the maintenance: {_path}: {e.Message.TrimEnd('.')}; nothing was changed", e);
        }
        Volatile.Write(ref _status, status);
    }
}

[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, UseStringEnumConverter = true)]
[JsonSerializable(typeof(MaintenanceStatus))]
[JsonSerializable(typeof(Core.Keepalived.VrrpStanding[]))]
internal sealed partial class NodeJson : JsonSerializerContext;
