using System.Collections.Immutable;
using System.Net;
using static FlipController.Core.ConfigurationRules;

namespace FlipController.Core;

/// <summary>Reads what is about keepalived and the other node, and checks the parts against each other.</summary>
internal static class KeepalivedReader
{
    public static KeepalivedOptions? ReadKeepalived(ConfigurationSection root, FaultList faults)
    {
        ConfigurationSection section = root.Section("keepalived");
        if (!IsThere(root, "keepalived", "{} or { fifo: PATH }", faults)) return null;
        ConfigurationSection track = section.Section("track_file");
        var initial = new TrackFileOptions();
        var options = new KeepalivedOptions
        {
            Fifo = section.Value<string?>("fifo", null, AbsolutePath!),
            TrackFile = IsThere(section, "track_file", "{} or { path: PATH }", faults)
                ? new TrackFileOptions
                {
                    Path = track.Value("path", initial.Path, AbsolutePath),
                    Weight = track.Value("weight", initial.Weight, Whole(1, int.MaxValue)),
                }
                : null,
            Link = section.Value<string?>("link", null, DeviceName!),
        };
        if (options.Fifo is { } fifo && fifo == options.TrackFile?.Path)
            faults.Add(track.PathOf("path"), $"{FaultList.Quote(fifo)} must not be the fifo, which keepalived makes");
        track.End();
        section.End();
        return options;
    }

    public static PeerOptions? ReadPeer(ConfigurationSection root, FaultList faults)
    {
        ConfigurationSection section = root.Section("peer");
        if (!IsThere(root, "peer", "{ listen: ADDRESS:PORT, address: ADDRESS:PORT }", faults)) return null;
        var initial = new PeerOptions();
        var options = new PeerOptions
        {
            Listen = section.Value("listen", initial.Listen, NodeAddress),
            Address = section.Value("address", initial.Address, NodeAddress),
            Key = section.Value("key", initial.Key, AbsolutePath),
        };
        foreach (string key in new[] { "listen", "address" })
            if (!section.Has(key) && !section.IsNoMap)
                faults.Add(section.PathOf(key), $"is missing; it must be ADDRESS:PORT of {(key == "listen" ? "this" : "the other")} node");
        if (options.Listen.Length > 0 && options.Address.Length > 0)
        {
            IPEndPoint here = IPEndPoint.Parse(options.Listen), there = IPEndPoint.Parse(options.Address);
            if (here.Equals(there)) faults.Add(section.PathOf("address"), $"{FaultList.Quote(options.Address)} must not be peer.listen: it is the other node's");
            if (here.AddressFamily != there.AddressFamily)
                faults.Add(section.PathOf("address"), $"{FaultList.Quote(options.Address)} must be of the same family as peer.listen: it is asked from there");
        }
        section.End();
        return options;
    }

    public static HandoverOptions? ReadHandover(ConfigurationSection root, FaultList faults)
    {
        ConfigurationSection section = root.Section("handover");
        if (!IsThere(root, "handover", "{ vips: [ADDRESS] }", faults)) return null;
        var initial = new HandoverOptions();
        int before = faults.Count;
        var options = new HandoverOptions
        {
            Vips = section.List("vips", initial.Vips, Vip),
            Device = section.Value("device", initial.Device, OptionalDevice),
            Deadline = section.Value("deadline", initial.Deadline, Duration(TimeSpan.FromSeconds(1), TimeSpan.FromHours(24))),
            Threshold = section.Value("threshold", initial.Threshold, Whole(0, 1_000_000_000)),
            SecondChance = section.Value("second_chance", initial.SecondChance, Duration(TimeSpan.Zero, TimeSpan.FromHours(24))),
        };
        if (options.Vips.IsEmpty && faults.Count == before)
            faults.Add(section.PathOf("vips"), "is missing; it must be a list of at least 1 address that keepalived moves");
        for (int i = 0; i < options.Vips.Length; i++)
            if (options.Vips.IndexOf(options.Vips[i]) < i)
                faults.Add($"{section.PathOf("vips")}[{i}]", $"\"{options.Vips[i]}\" must stand in the list once");
        section.End();
        return options;
    }

    public static EventsOptions? ReadEvents(ConfigurationSection root, FaultList faults)
    {
        ConfigurationSection section = root.Section("events");
        if (!IsThere(root, "events", "{} or { fifo: PATH }", faults)) return null;
        var options = new EventsOptions { Fifo = section.Value("fifo", new EventsOptions().Fifo, AbsolutePath) };
        section.End();
        return options;
    }

    public static PairKeepalivedOptions? ReadPair(ConfigurationSection pair, FaultList faults)
    {
        ConfigurationSection section = pair.Section("keepalived");
        if (!IsThere(pair, "keepalived", "{ instance: NAME } or { group: NAME }", faults)) return null;
        var initial = new PairKeepalivedOptions();
        var trouble = OneOf([("freeze", TroubleRule.Freeze), ("ignore", TroubleRule.Ignore)]);
        var options = new PairKeepalivedOptions
        {
            Instance = section.Value<string?>("instance", null, VrrpName!),
            Group = section.Value<string?>("group", null, VrrpName!),
            Role = section.Value("role", initial.Role,
                OneOf([("always", KeepalivedRole.Always), ("master-only", KeepalivedRole.MasterOnly), ("backup-first", KeepalivedRole.BackupFirst)])),
            Fault = section.Value("fault", initial.Fault, trouble),
            Stop = section.Value("stop", initial.Stop, trouble),
        };
        if (section.Has("instance") && section.Has("group"))
            faults.Add(section.PathOf("group"), "must not stand beside instance: a pair follows one or the other");
        if (!section.Has("instance") && !section.Has("group") && !section.IsNoMap)
            faults.Add(section.PathOf("instance"), "is missing; it must be the name of a vrrp_instance (or group, of a vrrp_sync_group)");
        section.End();
        return options;
    }

    /// <summary>What needs another part of the file.</summary>
    public static void Check(Configuration configuration, FaultList faults)
    {
        if (configuration.Handover is not null)
        {
            if (configuration.Peer is null) faults.Add("handover", "needs peer: NEW connections go to the other node, whose daemon is asked first");
            if (configuration.Keepalived is not { } k || (k.TrackFile is null && k.Link is null))
                faults.Add("handover", "needs keepalived.track_file or keepalived.link: that is how keepalived is told to move the addresses");
        }
        foreach (PairOptions pair in configuration.Pairs.Values)
        {
            if (pair.Keepalived is not { } follows) continue;
            if (configuration.Keepalived is null)
                faults.Add($"pairs.{pair.Name}.keepalived", "needs keepalived: (on the level of pairs), {} at least");
            if (follows.Role == KeepalivedRole.BackupFirst && configuration.Peer is null)
                faults.Add($"pairs.{pair.Name}.keepalived.role", "\"backup-first\" needs peer: the other node is asked whether it has proven the files");
        }
    }

    /// <summary>A bare key could mean on or off.</summary>
    private static bool IsThere(ConfigurationSection section, string key, string example, FaultList faults)
    {
        if (!section.Has(key)) return false;
        if (section.Node(key) is ScalarNode { IsNothing: true })
            faults.Add(section.PathOf(key), $"has no value; it must be {example}, or the key be left out");
        return true;
    }
}
