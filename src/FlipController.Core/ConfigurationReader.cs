using System.Collections.Immutable;
using System.Globalization;
using System.Numerics;
using System.Text;
using static FlipController.Core.ConfigurationRules;

namespace FlipController.Core;

/// <summary>A configuration, or every fault that stands in its way; never both.</summary>
public sealed record ConfigurationResult(Configuration? Configuration, ImmutableArray<ConfigurationFault> Faults);

/// <summary>
/// Reads a tree into a <see cref="Configuration"/>: first each value by its own rule (<see cref="ConfigurationRules"/>), then
/// what the values must be to each other. Defaults are the records' initial values and stand nowhere else.
/// </summary>
public static class ConfigurationReader
{
    /// <summary>The upper 4 bits of a mark name the pair, and 0 names none.</summary>
    public const int MostPairs = 15;

    /// <summary>unix(7): sun_path has 108 bytes, the last one a NUL.</summary>
    public const int SocketPathBytes = ConfigurationRules.SocketPathBytes;

    // HAProxy binds a stats socket under a temporary name and renames it: ".PID.tmp" and the like on top of the path.
    private const int TemporarySuffixBytes = 12;

    /// <param name="root">Null: there is no document in the file.</param>
    /// <param name="found">Faults the file's own syntax already had; they are reported together with the rest.</param>
    public static ConfigurationResult Read(ConfigurationNode? root, string file, IEnumerable<ConfigurationFault>? found = null)
    {
        var faults = new FaultList(file);
        foreach (ConfigurationFault fault in found ?? []) faults.AddSyntax(fault);
        // A file cut short by an editor or a full disk must not read as "manage nothing".
        if (root is null or ScalarNode { IsNothing: true })
        {
            if (faults.Count == 0) faults.AddAt(1, "", "the file is empty; at least pairs.NAME.haproxy.config must be in it");
            return new ConfigurationResult(null, faults.InOrder);
        }
        Configuration configuration = ReadRoot(new ConfigurationSection(faults, "", root), faults);
        CheckPaths(configuration, faults);
        CheckNames(configuration, faults);
        CheckFiles(configuration, faults);
        CheckPorts(configuration, faults);
        CheckMarks(configuration, faults);
        KeepalivedReader.Check(configuration, faults);
        return faults.Count == 0 ? new ConfigurationResult(configuration, []) : new ConfigurationResult(null, faults.InOrder);
    }

    private static Configuration ReadRoot(ConfigurationSection root, FaultList faults)
    {
        var initial = new Configuration();
        ConfigurationSection control = root.Section("control");
        var configuration = new Configuration
        {
            Control = new ControlOptions
            {
                Socket = control.Value("socket", initial.Control.Socket, SocketPath),
                Group = control.Value("group", initial.Control.Group, Group),
            },
            Metrics = ReadMetrics(root, faults),
            State = root.Value("state", initial.State, AbsolutePath),
            Runtime = root.Value("runtime", initial.Runtime, AbsolutePath),
            Keepalived = KeepalivedReader.ReadKeepalived(root, faults),
            Peer = KeepalivedReader.ReadPeer(root, faults),
            Handover = KeepalivedReader.ReadHandover(root, faults),
            Events = KeepalivedReader.ReadEvents(root, faults),
            Pairs = ReadPairs(root, faults),
        };
        control.End();
        root.End();
        return configuration;
    }

    private static MetricsOptions? ReadMetrics(ConfigurationSection root, FaultList faults)
    {
        ConfigurationSection metrics = root.Section("metrics");
        if (!root.Has("metrics")) return null;
        // A bare "metrics:" could mean on or off.
        if (root.Node("metrics") is ScalarNode { IsNothing: true })
            faults.Add("metrics", "has no value; it must be {} or { listen: ADDRESS:PORT }, or the key be left out for no metrics");
        var options = new MetricsOptions { Listen = metrics.Value("listen", new MetricsOptions().Listen, Listen) };
        metrics.End();
        return options;
    }

    private static ImmutableSortedDictionary<string, PairOptions> ReadPairs(ConfigurationSection root, FaultList faults)
    {
        ConfigurationSection section = root.Section("pairs");
        // Ordinal: the order of pairs is the order of their marks, whatever the locale.
        var pairs = ImmutableSortedDictionary.CreateBuilder<string, PairOptions>(StringComparer.Ordinal);
        foreach (string name in section.Keys.ToList())
        {
            if (!IsPairName(name))
                faults.Add(section.PathOf(name),
                    $"{FaultList.Quote(name)} must be 1 to 32 of a-z, 0-9, _ and -, and begin with a letter or digit");
            pairs[name] = ReadPair(name, section.Section(name), faults);
        }
        if (pairs.Count > MostPairs || (pairs.Count == 0 && !root.IsNoMap && !section.IsNoMap))
            faults.Add("pairs",
                $"{(pairs.Count == 0 ? "no" : pairs.Count.ToString(CultureInfo.InvariantCulture))} pairs "
                + $"must be between 1 and {MostPairs}");
        return pairs.ToImmutable();
    }

    private static PairOptions ReadPair(string name, ConfigurationSection section, FaultList faults)
    {
        ConfigurationSection haproxy = section.Section("haproxy"), command = section.Section("command"), ports = section.Section("ports"), redirect = section.Section("redirect"),
            hold = section.Section("hold"), gate = section.Section("gate"), watch = section.Section("watch"),
            drain = section.Section("drain"), continuity = section.Section("continuity"), hooks = section.Section("hooks");
        var initial = new PairOptions { Name = name };
        bool runsCommands = section.Has("command");
        if (runsCommands && section.Has("haproxy"))
            faults.Add(section.PathOf("command"), "must not stand beside haproxy: a pair runs one or the other");
        if (runsCommands && section.Has("continuity"))
            faults.Add(section.PathOf("continuity"), "must not stand beside command: it is about what HAProxy alone tells and can be told");
        CommandOptions? commands = runsCommands ? CommandReader.Read(command, faults) : null;
        var pair = new PairOptions
        {
            Name = name,
            Haproxy = runsCommands && !section.Has("haproxy") ? null : ReadHaproxy(haproxy, new HaproxyOptions(), faults),
            Command = commands,
            Ports = new PortsOptions
            {
                Blue = ports.Value("blue", initial.Ports.Blue, Whole(1024, 65535)),
                Green = ports.Value("green", initial.Ports.Green, Whole(1024, 65535)),
            },
            Redirect = new RedirectOptions
            {
                Method = redirect.Value("method", initial.Redirect.Method,
                    OneOf([("nftables", RedirectMethod.Nftables), ("iptables", RedirectMethod.Iptables), ("listener", RedirectMethod.Listener)])),
                Iptables = redirect.Value("iptables", initial.Redirect.Iptables,
                    OneOf([("auto", IptablesChoice.Auto), ("nft", IptablesChoice.Nft), ("legacy", IptablesChoice.Legacy)])),
                MarkMask = redirect.Value("mark_mask", initial.Redirect.MarkMask, MarkMask),
                Lost = redirect.Value("lost", initial.Redirect.Lost, OneOf([("repair", LostRules.Repair), ("report", LostRules.Report)])),
                Udp = ReadUdpRules(redirect, initial.Redirect.Udp, faults),
            },
            Hold = new HoldOptions
            {
                Method = hold.Value("method", initial.Hold.Method,
                    OneOf([("auto", HoldMethod.Auto), ("plug", HoldMethod.Plug), ("queue", HoldMethod.Queue), ("drop", HoldMethod.Drop),
                        ("none", HoldMethod.None)])),
                // TCP sends a SYN again after 1 s: a longer hold would be noticed as more than a delay (RFC 6298, 2.1). A shorter one
                // than 10 ms might end before its window begins: from when its guard was started it counts.
                Max = hold.Value("max", initial.Hold.Max, Duration(TimeSpan.FromMilliseconds(10), TimeSpan.FromMilliseconds(900))),
                Devices = hold.List("devices", initial.Hold.Devices, DeviceName),
            },
            Gate = new GateOptions
            {
                Timeout = gate.Value("timeout", initial.Gate.Timeout, Duration(TimeSpan.FromMilliseconds(100), TimeSpan.FromHours(1))),
                Parity = gate.Value("parity", initial.Gate.Parity, OneOf([("all", ParityRule.All), ("none", ParityRule.None)])),
                Probes = ReadProbes(gate, initial.Gate.Probes, commands, faults),
                DroppedServices = gate.Value("dropped_services", initial.Gate.DroppedServices,
                    OneOf([("refuse", DroppedServices.Refuse), ("allow", DroppedServices.Allow)])),
                TakenAddresses = gate.Value("taken_addresses", initial.Gate.TakenAddresses,
                    OneOf([("refuse", TakenAddresses.Refuse), ("allow", TakenAddresses.Allow)])),
            },
            Watch = new WatchOptions
            {
                // Less than 1 s would retire the old side while SYNs sent to it are still being answered.
                Undo = watch.Value("undo", initial.Watch.Undo, Duration(TimeSpan.FromSeconds(1), TimeSpan.FromHours(24))),
                Max5xxRatio = watch.Value("max_5xx_ratio", initial.Watch.Max5xxRatio, Ratio),
                MinRequests = watch.Value("min_requests", initial.Watch.MinRequests, Whole(1, 1_000_000_000)),
                ParityGrace = watch.Value("parity_grace", initial.Watch.ParityGrace, Duration(TimeSpan.Zero, TimeSpan.FromMinutes(10))),
            },
            Drain = new DrainOptions
            {
                Deadline = drain.Value("deadline", initial.Drain.Deadline, Duration(TimeSpan.FromSeconds(1), TimeSpan.FromHours(24))),
                Services = ReadServiceDeadlines(drain, initial.Drain.Services, faults),
                AtDeadline = drain.Value("at_deadline", initial.Drain.AtDeadline,
                    OneOf([("close", AtDeadline.Close), ("keep", AtDeadline.Keep)])),
                Spread = drain.Value("spread", initial.Drain.Spread, Duration(TimeSpan.Zero, TimeSpan.FromHours(24))),
                MaxRetired = drain.Value("max_retired", initial.Drain.MaxRetired, Whole(1, 64)),
            },
            Continuity = new ContinuityOptions
            {
                StickTables = continuity.Value("stick_tables", initial.Continuity.StickTables,
                    OneOf([("separate", StickTablesRule.Separate), ("shared", StickTablesRule.Shared)])),
                RuntimeChanges = continuity.Value("runtime_changes", initial.Continuity.RuntimeChanges,
                    OneOf([("name", RuntimeChangesRule.Name), ("carry", RuntimeChangesRule.Carry)])),
            },
            Hooks = new HooksOptions
            {
                Switched = ReadHook(hooks, "switched", initial.Hooks.Switched, faults),
                Drained = ReadHook(hooks, "drained", initial.Hooks.Drained, faults),
                Failed = ReadHook(hooks, "failed", initial.Hooks.Failed, faults),
                Notify = ReadHook(hooks, "notify", initial.Hooks.Notify, faults),
            },
            Keepalived = KeepalivedReader.ReadPair(section, faults),
        };
        if (pair.Redirect.Method == RedirectMethod.Listener)
        {
            if (runsCommands)
                faults.Add(redirect.PathOf("method"), "must not be listener beside command: whether a server that is not HAProxy lets another one listen beside it, "
                    + "and with how many sockets it does, is its own affair");
            if (!pair.Redirect.Udp.IsEmpty)
                faults.Add(redirect.PathOf("udp"), "must not stand beside method: listener, which moves TCP connections only");
        }
        foreach (ConfigurationSection part in new[] { haproxy, command, ports, redirect, hold, gate, watch, drain, continuity, hooks, section }) part.End();
        return pair;
    }

    private static HaproxyOptions ReadHaproxy(ConfigurationSection section, HaproxyOptions initial, FaultList faults)
    {
        int before = faults.Count;
        ImmutableArray<string> config = section.List("config", initial.Config, AbsolutePath);
        // Only when nothing better was said about it.
        if (config.IsEmpty && faults.Count == before)
            faults.Add(section.PathOf("config"), "is missing; it must be a list of at least 1 HAProxy configuration file");
        return new HaproxyOptions
        {
            Config = config,
            Binary = section.Value("binary", initial.Binary, Program),
            Driver = section.Value("driver", initial.Driver, OneOf([("process", DriverChoice.Process), ("systemd", DriverChoice.Systemd)])),
            Watch = section.Value("watch", initial.Watch, YesNo),
            AlsoWatch = section.List("also_watch", initial.AlsoWatch, AbsolutePath),
            Settle = section.Value("settle", initial.Settle, SettleTime),
            Environment = ReadEnvironment(section, initial.Environment, faults),
            EnvironmentFiles = section.List("environment_files", initial.EnvironmentFiles, EnvironmentFile),
            LocalPeer = section.Value("local_peer", initial.LocalPeer, PeerName),
        };
    }

    internal static ImmutableSortedDictionary<string, string> ReadEnvironment(
        ConfigurationSection server, ImmutableSortedDictionary<string, string> initial, FaultList faults)
    {
        ConfigurationSection section = server.Section("environment");
        if (!server.Has("environment")) return initial;
        var environment = ImmutableSortedDictionary.CreateBuilder<string, string>(StringComparer.Ordinal);
        foreach (string name in section.Keys.ToList())
        {
            if (!IsVariableName(name))
                faults.Add(section.PathOf(name), $"{FaultList.Quote(name)} must be a variable's name: letters, digits and _, no digit first");
            environment[name] = section.Value(name, "", VariableValue);
        }
        return environment.ToImmutable();
    }

    private static ImmutableSortedDictionary<string, TimeSpan> ReadServiceDeadlines(
        ConfigurationSection drain, ImmutableSortedDictionary<string, TimeSpan> initial, FaultList faults)
    {
        ConfigurationSection section = drain.Section("services");
        if (!drain.Has("services")) return initial;
        var deadlines = ImmutableSortedDictionary.CreateBuilder<string, TimeSpan>(StringComparer.Ordinal);
        foreach (string service in section.Keys.ToList())
        {
            if (ServiceText(service, out _) is { } must) faults.Add(section.PathOf(service), $"{FaultList.Quote(service)} must be {must}");
            deadlines[service] = section.Value(service, TimeSpan.Zero, Duration(TimeSpan.FromSeconds(1), TimeSpan.FromHours(24)));
        }
        return deadlines.ToImmutable();
    }

    private static ImmutableSortedDictionary<string, UdpRule> ReadUdpRules(
        ConfigurationSection redirect, ImmutableSortedDictionary<string, UdpRule> initial, FaultList faults)
    {
        ConfigurationSection section = redirect.Section("udp");
        if (!redirect.Has("udp")) return initial;
        var rules = ImmutableSortedDictionary.CreateBuilder<string, UdpRule>(StringComparer.Ordinal);
        foreach (string service in section.Keys.ToList())
        {
            if (ServiceText(service, out _) is { } must) faults.Add(section.PathOf(service), $"{FaultList.Quote(service)} must be {must}");
            rules[service] = section.Value(service, UdpRule.Move, OneOf([("move", UdpRule.Move), ("stick", UdpRule.Stick)]));
        }
        return rules.ToImmutable();
    }

    private static ImmutableArray<Probe> ReadProbes(
        ConfigurationSection gate, ImmutableArray<Probe> initial, CommandOptions? commands, FaultList faults)
    {
        if (gate.Items("probes") is not { } items) return initial;
        var probes = ImmutableArray.CreateBuilder<Probe>();
        foreach ((string path, ConfigurationNode node) in items)
        {
            var probe = new ConfigurationSection(faults, path, node);
            if (probe.Has("command"))
            {
                if (probe.Has("http")) faults.Add(probe.PathOf("command"), "must not stand beside http: each probe is an item of its own");
                probes.Add(new CommandProbe(
                    CommandReader.Words(probe, "command", commands, faults),
                    probe.Value("timeout", TimeSpan.FromSeconds(5), Duration(TimeSpan.FromMilliseconds(100), TimeSpan.FromMinutes(10)))));
                if (!probe.Has("http")) probe.End();
                continue;
            }
            ConfigurationSection http = probe.Section("http");
            if (!http.Has("service"))
                faults.Add(http.PathOf("service"), "is missing; it must be a front address, such as :80 or 10.0.0.1:443");
            (int from, int to) = http.Value("expect", (200, 399), StatusRange);
            probes.Add(new HttpProbe(
                http.Value("service", "", ServiceText), http.Value("path", "/", HttpPath), http.Value<string?>("host", null, HostName),
                from, to, http.Value("tls", false, YesNo)));
            http.End();
            probe.End();
        }
        return probes.ToImmutable();
    }

    private static ImmutableArray<string> ReadHook(
        ConfigurationSection hooks, string key, ImmutableArray<string> initial, FaultList faults)
    {
        ImmutableArray<string> arguments = hooks.List(key, initial, HookArgument);
        // It runs without a shell and without a search path: what would run must be plain to see.
        if (!arguments.IsEmpty && AbsolutePath(arguments[0], out _) is { } must)
            faults.Add($"{hooks.PathOf(key)}[0]", $"{FaultList.Quote(arguments[0])} must be {must}, as it names the program to run");
        return arguments;
    }

    private static void CheckPaths(Configuration configuration, FaultList faults)
    {
        // Runtime is emptied at boot, state must outlive it.
        if (configuration.State == configuration.Runtime)
            faults.Add("state", $"{FaultList.Quote(configuration.State)} must not be the same directory as runtime");
        if (configuration.Control.Socket == configuration.State || configuration.Control.Socket == configuration.Runtime)
            faults.Add("control.socket",
                $"{FaultList.Quote(configuration.Control.Socket)} must be a file in a directory, not state or runtime itself");
        foreach (string name in configuration.Pairs.Keys)
        {
            if (configuration.Control.Socket == $"{configuration.Runtime}/{name}")
                faults.Add("control.socket", $"{FaultList.Quote(configuration.Control.Socket)} must not be the directory of pair {name}");
            // A user with a hundred stats sockets is none we know.
            string socket = $"{configuration.Runtime}/{name}/g00000.99.sock";
            int bytes = Encoding.UTF8.GetByteCount(socket) + TemporarySuffixBytes;
            if (bytes > SocketPathBytes)
                faults.Add("runtime",
                    $"{FaultList.Quote(configuration.Runtime)} makes the sockets of pair {name} {bytes} bytes long with HAProxy's "
                    + $"temporary suffix; they must be at most {SocketPathBytes}, "
                    + $"so it must be at least {bytes - SocketPathBytes} shorter");
        }
    }

    /// <summary>edge-a and edge_a side by side: one slip of a finger would roll back the wrong one.</summary>
    private static void CheckNames(Configuration configuration, FaultList faults)
    {
        var plain = new Dictionary<string, string>();
        foreach (string name in configuration.Pairs.Keys)
        {
            if (!plain.TryAdd(name.Replace('-', '_'), name))
                faults.Add($"pairs.{name}",
                    $"{FaultList.Quote(name)} must differ from {FaultList.Quote(plain[name.Replace('-', '_')])} in more than - and _");
        }
    }

    private static void CheckFiles(Configuration configuration, FaultList faults)
    {
        var owners = new Dictionary<string, string>();
        foreach (PairOptions pair in configuration.Pairs.Values)
        {
            for (int i = 0; i < pair.Server.Config.Length; i++)
            {
                string file = pair.Server.Config[i];
                if (owners.TryAdd(file, pair.Name)) continue;
                string path = $"pairs.{pair.Name}.{(pair.Haproxy is null ? "command" : "haproxy")}.config[{i}]";
                faults.Add(path, owners[file] == pair.Name
                    ? $"{FaultList.Quote(file)} must stand in the list once"
                    : $"{FaultList.Quote(file)} must not be the file of two pairs; pair {owners[file]} has it");
            }
        }
    }

    private static void CheckPorts(Configuration configuration, FaultList faults)
    {
        var firsts = PortBlocks.Firsts(configuration).ToList();
        PortBlocks blocks = PortBlocks.Of(configuration);
        for (int i = 0; i < firsts.Count; i++)
        {
            (string pair, Slot slot, int first) = firsts[i];
            string path = $"pairs.{pair}.ports.{slot.Name()}";
            int twin = firsts.FindIndex(f => f.First == first);
            if (twin < i)
            {
                faults.Add(path,
                    $"\"{first}\" must be a port of its own; it is also the first of pair {firsts[twin].Pair}, {firsts[twin].Slot.Name()}");
                continue;
            }
            PortBlock block = blocks.BlockOf(pair, slot);
            if (block.Count < PortBlocks.FewestPorts)
                faults.Add(path, firsts.FirstOrDefault(f => f.First == block.Last + 1) is { Pair: not null } next
                    ? $"\"{first}\" must leave at least {PortBlocks.FewestPorts} ports before {next.First} "
                        + $"(pair {next.Pair}, {next.Slot.Name()}); it leaves {block.Count}"
                    : $"\"{first}\" must be at most {65536 - PortBlocks.FewestPorts}, "
                        + $"as a slot needs at least {PortBlocks.FewestPorts} ports");
        }
    }

    private static void CheckMarks(Configuration configuration, FaultList faults)
    {
        PairOptions[] pairs = [.. configuration.Pairs.Values];
        for (int i = 0; i < pairs.Length; i++)
        {
            uint mask = pairs[i].Redirect.MarkMask;
            if (pairs.Take(i).FirstOrDefault(p => p.Redirect.MarkMask != mask && (p.Redirect.MarkMask & mask) != 0) is { } other)
                faults.Add($"pairs.{pairs[i].Name}.redirect.mark_mask",
                    $"\"0x{mask:x8}\" must be the mask of pair {other.Name} (0x{other.Redirect.MarkMask:x8}) or share no bit with it");
            // 4 bits for the pair; 0 is nobody's tag; beside the retired there are active, previous and standby.
            int tags = (1 << Math.Min(16, BitOperations.PopCount(mask) - 4)) - 1;
            if (pairs[i].Drain.MaxRetired + 3 > tags)
                faults.Add($"pairs.{pairs[i].Name}.drain.max_retired",
                    $"\"{pairs[i].Drain.MaxRetired}\" must be at most {tags - 3} with mark_mask 0x{mask:x8}, "
                    + $"which tells {tags} generations apart");
        }
    }
}
