using System.Collections.Immutable;
using System.Net;
using FlipController.Core;
using FlipController.Linux.State;

namespace FlipController.Linux.Handover;

/// <summary>What a handover leaves in the kernel, for when nobody is to take care of it any more.</summary>
public static class HandoverTraces
{
    /// <summary>VIPs off lo, then the settings as they were.</summary>
    /// <returns>What somebody else has changed since, and was left alone.</returns>
    public static ImmutableArray<string> PutBack(HandoverRecord record, VipPlaces places)
    {
        foreach (string vip in record.OnLoopback) places.DeleteFromLoopback(IPAddress.Parse(vip));
        using var settings = new FrontSettings();
        return [.. record.Settings.Reverse().Select(settings.Restore).OfType<string>()];
    }

    /// <summary>All of it, tolerating its absence. Connections that were led to the peer, or back to it, are cut.</summary>
    /// <param name="stateDirectory">Where the daemon keeps what is to be put back; null: only what says itself that it is ours is found.</param>
    /// <returns>Each line is one thing that was removed, or left alone.</returns>
    /// <exception cref="FlipException">Something is still there.</exception>
    public static IReadOnlyList<string> Remove(string? stateDirectory)
    {
        List<string> lines = [];
        using (HandoverTable table = HandoverTable.Open())
            if (table.Remove()) lines.Add($"table netdev {HandoverRules.Table}");
        using var places = new VipPlaces();
        if (stateDirectory is not null && File.Exists(Path.Combine(stateDirectory, "handover.json")))
        {
            var store = new HandoverStore(stateDirectory);
            HandoverRecord record = store.Read(out _);
            lines.AddRange(record.OnLoopback.Select(v => $"{v} on lo"));
            lines.AddRange(record.Settings.Select(s => $"{s} again"));
            lines.AddRange(PutBack(record, places));
            if (record.IsInKernel) store.Save(HandoverRecord.Nothing);
        }
        foreach (IPAddress vip in places.Ours())
            if (places.DeleteFromLoopback(vip)) lines.Add($"{vip} on lo");
        return lines;
    }
}
