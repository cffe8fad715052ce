using System.Globalization;
using System.Net;
using System.Security.Cryptography;

namespace FlipController.Tests.Shared;

/// <summary>What the two nodes are made of; what stands here is what the tests take unless they say so.</summary>
public sealed record TwoNodesOptions
{
    /// <summary>A daemon on each, with HAProxy as its pair; else HAProxy alone.</summary>
    public bool WithDaemons { get; init; } = true;
    /// <summary>keepalived on each; else nobody has the VIPs at first.</summary>
    public bool WithKeepalived { get; init; } = true;
    /// <summary>Between two advertisements: three of them and a little more are how long a death goes unnoticed.</summary>
    public TimeSpan Advertisement { get; init; } = TimeSpan.FromSeconds(0.2);
    /// <summary>More lines of each <c>vrrp_instance</c>.</summary>
    public string Instance { get; init; } = "";
    /// <summary>Neither takes the VIPs back by itself; a number in the tracked file is a FAULT, or they would not move at all.</summary>
    public bool NoPreempt { get; init; }
    /// <summary>The lines of <c>handover:</c> in flipcontroller.yaml beside vips; null: there is no handover.</summary>
    public string? Handover { get; init; } = "deadline: 1m, second_chance: 1m";
    /// <summary>The lines of <c>pairs.edge.keepalived:</c>.</summary>
    public string PairKeepalived { get; init; } = "instance: VI_1";
    /// <summary>More keys of the pair, each a line.</summary>
    public string Pair { get; init; } = "watch: { undo: 1s }";
    /// <summary>flipcontrollerd and flipctl are there; null: where the build put them.</summary>
    public string? Programs { get; init; }
}

/// <summary>
/// Two nodes with a VIP of each family between them, and their clients, all on one switch; keepalived, HAProxy, daemons and backends are
/// the real ones. Everything ends with it.
/// <code>
///   Client 10.78.0.1, fd00:78::1 ── switch ──┬── A 10.78.0.11, fd00:78::11   priority 150
///                                            └── B 10.78.0.12, fd00:78::12   priority 100
///   VIPs 10.78.0.100, fd00:78::100, port 80
/// </code>
/// </summary>
public sealed class TwoNodes : IDisposable
{
    public const string Device = "eth0", Pair = "edge", Instance = "VI_1", Dummy = "dummy0";
    public const int ServicePort = 80, PeerPort = 9108;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30)
        * (int.TryParse(Environment.GetEnvironmentVariable("FLIP_SLOW"), CultureInfo.InvariantCulture, out int times) ? times : 1);

    private readonly Netns _switch;
    private readonly TempDir _files = new();

    private TwoNodes(TwoNodesOptions options)
    {
        Options = options;
        _switch = Netns.Create();
        _switch.Ip("link", "add", "br0", "type", "bridge");
        _switch.Ip("link", "set", "br0", "up");
        Client = Netns.Create();
        Plug(Client, "client", ClientV4, ClientV6);
        _files.Write("peer.key", Convert.ToHexString(RandomNumberGenerator.GetBytes(32)));
        File.SetUnixFileMode(_files["peer.key"], UnixFileMode.UserRead | UnixFileMode.UserWrite);
        A = new Node(this, "a", 11, 150);
        B = new Node(this, "b", 12, 100);
    }

    public TwoNodesOptions Options { get; }

    public Netns Client { get; }

    /// <summary>It has the VIPs when both are well.</summary>
    public Node A { get; }

    public Node B { get; }

    public Node[] Both => [A, B];

    public IPAddress ClientV4 { get; } = IPAddress.Parse("10.78.0.1");

    public IPAddress ClientV6 { get; } = IPAddress.Parse("fd00:78::1");

    public IPAddress VipV4 { get; } = IPAddress.Parse("10.78.0.100");

    public IPAddress VipV6 { get; } = IPAddress.Parse("fd00:78::100");

    /// <summary>Where clients connect.</summary>
    public IPEndPoint[] Services => [new(VipV4, ServicePort), new(VipV6, ServicePort)];

    /// <summary>Both serve, and A has the VIPs, when it returns.</summary>
    public static async Task<TwoNodes> StartAsync(TwoNodesOptions? options = null)
    {
        var nodes = new TwoNodes(options ?? new TwoNodesOptions());
        try
        {
            foreach (Node node in nodes.Both) node.StartServers();
            foreach (Node node in nodes.Both) await node.ServesAsync();
            if (!nodes.Options.WithKeepalived) return nodes;
            foreach (Node node in nodes.Both) node.StartKeepalived();
            await nodes.HasVipsAsync(nodes.A);
            // Neighbours that do not know each other yet lose SYNs for a second: not what is measured here.
            foreach (IPEndPoint service in nodes.Services)
                nodes.Client.Exec("curl", "--silent", "--max-time", "10", $"http://{service}/");
            return nodes;
        }
        catch
        {
            nodes.Dispose();
            throw;
        }
    }

    /// <summary>Until this node alone has the VIPs, of both families.</summary>
    public Task HasVipsAsync(Node node) => Eventually.True(
        () => node.VipCount() == 2 && Other(node).VipCount() == 0, s_patience,
        () => $"{node.Name} alone should have the VIPs; it has {node.VipCount()}, the other {Other(node).VipCount()}\n{A.Said()}\n{B.Said()}");

    public Node Other(Node node) => node == A ? B : A;

    /// <summary>The cable of a node is pulled, or put in again.</summary>
    public void Cable(Node node, bool isIn) => _switch.Ip("link", "set", $"to-{node.Name}", isIn ? "up" : "down");

    public void Dispose()
    {
        A.Net.Dispose();
        B.Net.Dispose();
        Client.Dispose();
        _switch.Dispose();
        _files.Dispose();
    }

    private void Plug(Netns net, string name, IPAddress v4, IPAddress v6)
    {
        net.Ip("link", "add", Device, "type", "veth", "peer", "name", $"to-{name}", "netns", _switch.Name);
        _switch.Ip("link", "set", $"to-{name}", "master", "br0");
        _switch.Ip("link", "set", $"to-{name}", "up");
        net.Ip("address", "add", $"{v4}/24", "dev", Device);
        net.Ip("address", "add", $"{v6}/64", "dev", Device, "nodad"); // usable at once
        net.Ip("link", "set", Device, "up");
    }

    /// <summary>One of the two.</summary>
    public sealed class Node
    {
        private readonly TwoNodes _nodes;
        private readonly int _number, _priority;

        internal Node(TwoNodes nodes, string name, int number, int priority)
        {
            (_nodes, Name, _number, _priority) = (nodes, name, number, priority);
            V4 = IPAddress.Parse($"10.78.0.{number}");
            V6 = IPAddress.Parse($"fd00:78::{number}");
            Net = Netns.Create();
            nodes.Plug(Net, name, V4, V6);
            // A device that keepalived tracks and that carries nothing; where the kernel has no dummy, ifb is as good.
            try
            {
                Net.Ip("link", "add", Dummy, "type", "dummy");
            }
            catch (InvalidOperationException)
            {
                Net.Ip("link", "add", Dummy, "type", "ifb");
            }
            Net.Ip("link", "set", Dummy, "up");
        }

        /// <summary>Also what its answers say in X-Served-By.</summary>
        public string Name { get; }

        public Netns Net { get; }

        public IPAddress V4 { get; }

        public IPAddress V6 { get; }

        public NetnsProcess? Keepalived { get; private set; }

        public NetnsProcess? Daemon { get; private set; }

        public NetnsProcess? Backend { get; private set; }

        public string Socket => this["control.sock"];

        /// <summary>keepalived's notify FIFO.</summary>
        public string Fifo => this["keepalived.fifo"];

        /// <summary>The file that keepalived tracks.</summary>
        public string TrackFile => this["track"];

        /// <summary>A path in the node's own directory.</summary>
        public string this[string file] => Path.Combine(_nodes._files.Path, Name, file);

        public string HaproxyConfig => $"""
            global
              maxconn 4000
            defaults
              mode http
              timeout connect 5s
              timeout client 60s
              timeout server 60s
              timeout tunnel 60s
            frontend web
              bind :80
              bind :::80 v6only
              http-after-response set-header X-Served-By {Name}
              default_backend app
            backend app
              server s1 127.0.0.1:8080 check inter 1s

            """;

        /// <summary>The backend, and HAProxy alone or as the pair of a daemon.</summary>
        internal void StartServers()
        {
            Write("haproxy.cfg", HaproxyConfig);
            Backend = Net.Start(Programs.Load, "serve", "--listen", "127.0.0.1:8080", "--name", Name);
            if (_nodes.Options.WithDaemons) StartDaemon();
            else Net.Start("haproxy", "-W", "-f", this["haproxy.cfg"]);
        }

        public void StartDaemon()
        {
            Write("flipcontroller.yaml", Yaml());
            Daemon = Net.Start(Program("flipcontrollerd"), this["flipcontroller.yaml"], "--verbose");
        }

        /// <summary>flipctl, run to its end.</summary>
        public async Task<(int ExitCode, string Output, string Errors)> FlipctlAsync(params string[] arguments)
        {
            NetnsProcess flipctl = Net.Start(Program("flipctl"), ["--socket", Socket, .. arguments]);
            int code = await flipctl.Exit(s_patience * 4);
            return (code, flipctl.Output, flipctl.Errors);
        }

        public void StartKeepalived()
        {
            Write("keepalived.conf", KeepalivedConfig());
            if (!File.Exists(TrackFile)) Write("track", "0\n");
            // A killed one that nobody has waited for yet counts as alive to the next one.
            foreach (string pid in (string[])["keepalived.pid", "vrrp.pid"]) File.Delete(this[pid]);
            // In the foreground, VRRP alone, with pid files of its own: two of them and the host's do not know of each other.
            Keepalived = Net.Start("keepalived", "--dont-fork", "--log-console", "--log-detail", "--vrrp",
                "--use-file", this["keepalived.conf"], "--pid", this["keepalived.pid"], "--vrrp_pid", this["vrrp.pid"]);
        }

        /// <summary>As <c>systemctl stop keepalived</c> does it.</summary>
        public async Task StopKeepalivedAsync()
        {
            Keepalived!.Terminate();
            await Keepalived.Exit(s_patience);
        }

        /// <summary>How many of the VIPs its device has.</summary>
        public int VipCount()
        {
            string[] addresses = Net.Ip("-oneline", "address", "show", "dev", Device).Split('\n');
            return _nodes.Services.Count(s => addresses.Any(a => a.Contains($" {s.Address}/", StringComparison.Ordinal)));
        }

        /// <summary>Until a connection of its own to its own address is answered.</summary>
        internal Task ServesAsync() => Eventually.True(() =>
        {
            if (Daemon is { HasExited: true } ended) throw new InvalidOperationException($"the daemon of {Name} ended with {ended.ExitCode}: {ended.Output}{ended.Errors}");
            // HAProxy answers for itself until it has found its backend.
            return Command.TryRun("ip", "netns", "exec", Net.Name, "curl", "-s", "-m", "2", "-o", "/dev/null", "-w", "%{http_code}", $"http://{V4}/") == "200";
        }, s_patience, () => $"{Name} should serve\n{Said()}");

        /// <summary>What its programs have said, for a failure's message.</summary>
        public string Said() => $"--- {Name} keepalived:\n{Tail(Keepalived)}\n--- {Name} flipcontrollerd:\n{Tail(Daemon)}";

        /// <summary>A counter of the kernel's, of /proc/net/netstat or /proc/net/snmp: <c>TcpExt: TCPDSACKOldSent</c> (nstat(8)).</summary>
        public long Counter(string group, string name) => TwoNodes.Counter(Net, group, name);

        private static string Tail(NetnsProcess? process) =>
            process is null ? "" : string.Join('\n', (process.Output + process.Errors).Split('\n').TakeLast(40));

        private string Program(string name) => _nodes.Options.Programs is { } place ? Path.Combine(place, name)
            : name == "flipctl" ? Programs.Cli : Programs.Daemon;

        private void Write(string file, string text) => _nodes._files.Write(Path.Combine(Name, file), text);

        private string KeepalivedConfig() => string.Create(CultureInfo.InvariantCulture, $$"""
            global_defs {
              router_id {{Name}}
              vrrp_version 3
              vrrp_priority -20
              vrrp_notify_fifo {{Fifo}}
            }
            track_file handover {
              file {{TrackFile}}
              weight {{(_nodes.Options.NoPreempt ? 0 : -1)}}
            }
            vrrp_instance {{Instance}} {
              state BACKUP
              interface {{Device}}
              virtual_router_id 51
              priority {{_priority}}
              advert_int {{_nodes.Options.Advertisement.TotalSeconds}}
              {{(_nodes.Options.NoPreempt ? "nopreempt" : "")}}
              virtual_ipaddress {
                {{_nodes.VipV4}}/24 dev {{Device}}
              }
              virtual_ipaddress_excluded {
                {{_nodes.VipV6}}/64 dev {{Device}}
              }
              track_file {
                handover
              }
              track_interface {
                {{Dummy}}
              }
              {{_nodes.Options.Instance}}
            }

            """);

        private string Yaml() => $$"""
            control: { socket: {{Socket}} }
            state: {{this["state"]}}
            runtime: {{this["run"]}}
            keepalived: { fifo: {{Fifo}}, track_file: { path: {{TrackFile}} } }
            peer: { listen: "{{V4}}:{{PeerPort}}", address: "10.78.0.{{23 - _number}}:{{PeerPort}}", key: {{_nodes._files["peer.key"]}} }
            {{(_nodes.Options.Handover is { } handover ? $$"""handover: { vips: [{{_nodes.VipV4}}, "{{_nodes.VipV6}}"], {{handover}} }""" : "")}}
            pairs:
              {{Pair}}:
                haproxy: { config: [{{this["haproxy.cfg"]}}], settle: 10ms }
                keepalived: { {{_nodes.Options.PairKeepalived}} }
                {{_nodes.Options.Pair}}

            """;
    }

    /// <summary>A counter of the kernel's in a namespace, of /proc/net/netstat or /proc/net/snmp: two lines a group, names and values.</summary>
    public static long Counter(Netns net, string group, string name)
    {
        string[] lines = net.Exec("cat", "/proc/net/netstat", "/proc/net/snmp").Split('\n');
        string[][] pair = [.. lines.Where(l => l.StartsWith(group + ":", StringComparison.Ordinal)).Take(2).Select(l => l.Split(' '))];
        return long.Parse(pair[1][Array.IndexOf(pair[0], name)], CultureInfo.InvariantCulture);
    }
}
