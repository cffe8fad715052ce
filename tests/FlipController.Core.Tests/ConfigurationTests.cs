using System.Collections.Immutable;
using System.Text.Json;
using FlipController.Core;
using Xunit;

namespace FlipController.Core.Tests;

public sealed partial class ConfigurationTests
{
    private const string File = "f.yaml";

    [Fact]
    public void Only_the_haproxy_files_have_no_default()
    {
        Configuration read = Good(Edge());

        Configuration expected = new()
        {
            Pairs = ImmutableSortedDictionary<string, PairOptions>.Empty.Add("edge", new PairOptions
            {
                Name = "edge",
                Haproxy = new HaproxyOptions { Config = ["/etc/haproxy/edge.cfg"] },
            }),
        };
        Assert.Equal(JsonSerializer.Serialize(expected), JsonSerializer.Serialize(read));
    }

    [Fact]
    public void Every_value_is_read()
    {
        Configuration read = Good(
            ("control", Map(("socket", "/run/x/c.sock"), ("group", "ops"))), ("metrics", Map(("listen", "[::1]:9200"))),
            ("state", "/srv/state/"), ("runtime", "/run/x"),
            ("pairs", Map(("edge", Map(
                ("haproxy", Map(("config", List("/a.cfg", "/b.cfg")), ("binary", "/opt/haproxy"), ("driver", "systemd"), ("watch", "false"),
                    ("also_watch", List("/certs")), ("settle", "1s"), ("environment", Map(("A", "b c"), ("_1", "x"))),
                    ("environment_files", List("-/etc/default/haproxy", "/e")), ("local_peer", "lb1.example.org"))),
                ("ports", Map(("blue", "30000"), ("green", "30100"))),
                ("redirect", Map(("method", "nftables"), ("mark_mask", "0x0ff00000"), ("lost", "report"), ("udp", Map((":514", "stick"), ("quic@[::1]:443", "move"))))),
                ("hold", Map(("method", "queue"), ("max", "900ms"), ("devices", List("eth0", "bond0.7")))),
                ("gate", Map(("timeout", "1m"), ("parity", "none"), ("dropped_services", "allow"), ("taken_addresses", "allow"), ("probes", List(
                    Map(("http", Map(("service", ":80"), ("path", "/healthz"), ("host", "example.org"), ("expect", "204"), ("tls", "true")))),
                    Map(("http", Map(("service", "[::1]:443")))))))),
                ("watch", Map(("undo", "1h"), ("max_5xx_ratio", "0.5"), ("min_requests", "7"), ("parity_grace", "0s"))),
                ("drain", Map(("deadline", "24h"), ("at_deadline", "keep"), ("max_retired", "8"))),
                ("continuity", Map(("stick_tables", "shared"), ("runtime_changes", "carry"))),
                ("hooks", Map(("switched", List("/bin/tell", "{pair}:{from}>{to}", "{\"json\": \"{slot} {reason} {flip}\"}")))))))));

        PairOptions edge = read.Pairs["edge"];
        Assert.Equal(("/run/x/c.sock", "ops", "[::1]:9200", "/srv/state", "/run/x"),
            (read.Control.Socket, read.Control.Group, read.Metrics?.Listen, read.State, read.Runtime));
        Assert.Equal(["/a.cfg", "/b.cfg"], edge.Haproxy!.Config);
        Assert.Equal(DriverChoice.Systemd, edge.Haproxy!.Driver);
        Assert.Equal(("/opt/haproxy", false, TimeSpan.FromSeconds(1)), (edge.Haproxy!.Binary, edge.Haproxy!.Watch, edge.Haproxy!.Settle));
        Assert.Equal(["/certs"], edge.Haproxy!.AlsoWatch);
        Assert.Equal([new("A", "b c"), new("_1", "x")], edge.Haproxy!.Environment);
        Assert.Equal(["-/etc/default/haproxy", "/e"], edge.Haproxy!.EnvironmentFiles);
        Assert.Equal("lb1.example.org", edge.Haproxy!.LocalPeer);
        Assert.Equal(new PortsOptions { Blue = 30000, Green = 30100 }, edge.Ports);
        Assert.Equal((0x0ff00000u, LostRules.Report), (edge.Redirect.MarkMask, edge.Redirect.Lost));
        Assert.Equal([new(":514", UdpRule.Stick), new("quic@[::1]:443", UdpRule.Move)], edge.Redirect.Udp);
        Assert.Equal((HoldMethod.Queue, TimeSpan.FromMilliseconds(900)), (edge.Hold.Method, edge.Hold.Max));
        Assert.Equal(["eth0", "bond0.7"], edge.Hold.Devices);
        Assert.Equal((TimeSpan.FromMinutes(1), ParityRule.None, DroppedServices.Allow, TakenAddresses.Allow),
            (edge.Gate.Timeout, edge.Gate.Parity, edge.Gate.DroppedServices, edge.Gate.TakenAddresses));
        Assert.Equal([new HttpProbe(":80", "/healthz", "example.org", 204, 204, true), new HttpProbe("[::1]:443", "/", null, 200, 399, false)],
            edge.Gate.Probes);
        Assert.Equal(new WatchOptions { Undo = TimeSpan.FromHours(1), Max5xxRatio = 0.5, MinRequests = 7, ParityGrace = TimeSpan.Zero }, edge.Watch);
        Assert.Equal(new DrainOptions { Deadline = TimeSpan.FromHours(24), AtDeadline = AtDeadline.Keep, MaxRetired = 8 }, edge.Drain);
        Assert.Equal(new ContinuityOptions { StickTables = StickTablesRule.Shared, RuntimeChanges = RuntimeChangesRule.Carry }, edge.Continuity);
        Assert.Equal(3, edge.Hooks.Switched.Length);
    }

    [Theory]
    [InlineData("drain", "deadline", "0s", "\"0s\" must be between 1s and 24h")]
    [InlineData("drain", "deadline", "25h", "\"25h\" must be between 1s and 24h")]
    [InlineData("drain", "deadline", "10", "\"10\" must be a duration such as 250ms, 30s, 10m or 1h, between 1s and 24h")]
    [InlineData("drain", "at_deadline", "kill", "\"kill\" must be close or keep")]
    [InlineData("continuity", "stick_tables", "true", "\"true\" must be separate or shared")]
    [InlineData("drain", "max_retired", "0", "\"0\" must be a whole number between 1 and 64")]
    [InlineData("continuity", "runtime_changes", "keep", "\"keep\" must be name or carry")]
    [InlineData("hold", "max", "0ms", "\"0ms\" must be between 10ms and 900ms")]
    [InlineData("hold", "max", "901ms", "\"901ms\" must be between 10ms and 900ms")]
    [InlineData("hold", "method", "tc", "\"tc\" must be auto, plug, queue, drop or none")]
    [InlineData("redirect", "method", "tproxy", "\"tproxy\" must be nftables, iptables or listener")]
    [InlineData("redirect", "iptables", "xtables", "\"xtables\" must be auto, nft or legacy")]
    [InlineData("redirect", "mark_mask", "0x00ff0f00", "\"0x00ff0f00\" must be one run of at least 8 bits, such as 0x00ffff00")]
    [InlineData("redirect", "lost", "ignore", "\"ignore\" must be repair or report")]
    [InlineData("redirect", "mark_mask", "127", "\"127\" must be one run of at least 8 bits, such as 0x00ffff00")]
    [InlineData("redirect", "mark_mask", "0x1ffffffff", "\"0x1ffffffff\" must be one run of at least 8 bits, such as 0x00ffff00")]
    [InlineData("gate", "parity", "most", "\"most\" must be all or none")]
    [InlineData("gate", "dropped_services", "yes", "\"yes\" must be refuse or allow")]
    [InlineData("gate", "taken_addresses", "yes", "\"yes\" must be refuse or allow")]
    [InlineData("watch", "undo", "-1s", "\"-1s\" must be a duration such as 250ms, 30s, 10m or 1h, between 1s and 24h")]
    [InlineData("watch", "max_5xx_ratio", "5%", "\"5%\" must be a number between 0 and 1")]
    [InlineData("watch", "min_requests", "many", "\"many\" must be a whole number between 1 and 1000000000")]
    [InlineData("ports", "blue", "80", "\"80\" must be a whole number between 1024 and 65535")]
    public void A_value_against_its_rule_is_refused_with_the_rule(string section, string key, string value, string message)
    {
        ConfigurationFault fault = Assert.Single(Faults(Edge((section, Map((key, value))))));
        Assert.Equal($"pairs.edge.{section}.{key}", fault.Path);
        Assert.Equal(message, fault.Message);
    }

    [Theory]
    [InlineData("watch", "yes", "\"yes\" must be true or false")]
    [InlineData("driver", "docker", "\"docker\" must be process or systemd")]
    [InlineData("binary", "bin/haproxy", "\"bin/haproxy\" must be the name of a program, or its absolute path")]
    [InlineData("settle", "2m", "\"2m\" must be between 10ms and 1m")]
    public void A_haproxy_value_against_its_rule_is_refused(string key, string value, string message)
    {
        var faults = Faults(("pairs", Map(("edge", Map(("haproxy", Map(("config", List("/a.cfg")), (key, value))))))));
        Assert.Equal($"f.yaml:5: pairs.edge.haproxy.{key}: {message}", Assert.Single(faults).ToString());
    }

    [Fact]
    public void A_word_about_UDP_against_its_rule_is_refused() => Assert.Equal(
        [
            "pairs.edge.redirect.udp.syslog: \"syslog\" must be a front address, such as :80 or 10.0.0.1:443",
            "pairs.edge.redirect.udp.:514: \"follow\" must be move or stick",
        ],
        Faults(Edge(("redirect", Map(("udp", Map(("syslog", "move"), (":514", "follow"))))))).Select(f => $"{f.Path}: {f.Message}"));

    [Fact]
    public void All_faults_are_told_at_once_in_the_order_of_the_file()
    {
        var faults = Faults(
            ("state", "var/lib"), ("colour", "red"),
            ("pairs", Map(("Edge", Map(("haproxy", Map(("config", List("haproxy.cfg")))), ("drain", Map(("deadlin", "1s"), ("max_retired", "x"))))))));
        Assert.Equal(
        [
            "f.yaml:1: state: \"var/lib\" must be an absolute path, without . or ..",
            "f.yaml:2: colour: \"colour\" is no key here; there are control, metrics, state, runtime, keepalived, peer, handover, events, pairs",
            "f.yaml:4: pairs.Edge: \"Edge\" must be 1 to 32 of a-z, 0-9, _ and -, and begin with a letter or digit",
            "f.yaml:6: pairs.Edge.haproxy.config[0]: \"haproxy.cfg\" must be an absolute path, without . or ..",
            "f.yaml:8: pairs.Edge.drain.deadlin: \"deadlin\" is no key here; did you mean deadline?",
            "f.yaml:9: pairs.Edge.drain.max_retired: \"x\" must be a whole number between 1 and 64",
        ], faults.Select(f => f.ToString()));
    }

    [Fact]
    public void A_key_that_stands_twice_is_refused_with_both_lines()
    {
        var faults = Faults(("state", "/a"), ("state", "/b"), Pair("edge"));
        Assert.Equal("f.yaml:2: state: stands twice; the first is on line 1", Assert.Single(faults).ToString());
    }

    [Fact]
    public void A_file_without_anything_is_refused()
    {
        ConfigurationResult result = ConfigurationReader.Read(null, File);
        Assert.Equal("f.yaml:1: the file is empty; at least pairs.NAME.haproxy.config must be in it", Assert.Single(result.Faults).ToString());
        Assert.Null(result.Configuration);
        Assert.Equal("f.yaml:1: pairs: no pairs must be between 1 and 15", Assert.Single(Faults(("state", "/a"))).ToString());
    }

    [Fact]
    public void A_pair_without_haproxy_files_is_refused() =>
        Assert.Equal("pairs.edge.haproxy.config: is missing; it must be a list of at least 1 HAProxy configuration file",
            Told(("pairs", Map(("edge", Map(("hold", Map(("max", "10ms")))))))));

    [Fact]
    public void A_lone_value_where_a_list_belongs_is_refused_with_the_list() =>
        Assert.Equal("pairs.edge.haproxy.config: \"/a.cfg\" must be a list: [/a.cfg]",
            Told(("pairs", Map(("edge", Map(("haproxy", Map(("config", "/a.cfg")))))))));

    [Fact]
    public void A_map_where_a_value_belongs_and_the_reverse_are_refused()
    {
        Assert.Equal("state: a map must be one value", Told(("state", Map(("a", "b"))), Pair("edge")));
        Assert.Equal("pairs.edge.drain: \"10m\" must be a map of keys", Told(Edge(("drain", "10m"))));
        Assert.Equal("pairs: a list of 1 must be a map of keys", Told(("pairs", List("edge"))));
    }

    [Fact]
    public void A_key_without_a_value_is_refused_but_an_empty_section_is_not()
    {
        Assert.Equal("state: has no value; it must have one, or be left out", Told(("state", ""), Pair("edge")));
        Assert.Equal("metrics: has no value; it must be {} or { listen: ADDRESS:PORT }, or the key be left out for no metrics",
            Told(("metrics", ""), Pair("edge")));
        Good(Edge(("drain", "")));
        Assert.Equal("127.0.0.1:9107", Good(("metrics", Map()), Pair("edge")).Metrics?.Listen);
    }

    [Theory]
    [InlineData("9107")]
    [InlineData("localhost:9107")]
    [InlineData("127.0.0.1:0")]
    [InlineData("::1:9107")]
    public void A_metrics_address_is_an_address_and_a_port(string listen) =>
        Assert.Equal($"metrics.listen: \"{listen}\" must be ADDRESS:PORT, such as 127.0.0.1:9107 or [::1]:9107",
            Told(("metrics", Map(("listen", listen))), Pair("edge")));

    [Fact]
    public void Sixteen_pairs_are_one_too_many()
    {
        (string, object)[] pairs = [.. Enumerable.Range(0, 16).Select(i => ($"p{i}", (object)Map(
            ("haproxy", Map(("config", List($"/{i}.cfg")))), ("ports", Map(("blue", $"{20000 + i * 200}"), ("green", $"{20100 + i * 200}"))))))];
        Assert.Equal("pairs: 16 pairs must be between 1 and 15", Told(("pairs", pairs)));
        Good(("pairs", pairs[..15]));
    }

    [Fact]
    public void Two_pairs_do_not_share_a_file_or_a_first_port()
    {
        var faults = Faults(("pairs", Map(Pair("a", "/x.cfg"), Pair("b", "/x.cfg"))));
        Assert.Equal(
        [
            "pairs.b.ports.blue: \"21000\" must be a port of its own; it is also the first of pair a, blue",
            "pairs.b.ports.green: \"22000\" must be a port of its own; it is also the first of pair a, green",
            "pairs.b.haproxy.config[0]: \"/x.cfg\" must not be the file of two pairs; pair a has it",
        ], faults.Select(f => $"{f.Path}: {f.Message}"));
    }

    [Theory]
    [InlineData("21000", "21015", "pairs.edge.ports.blue: \"21000\" must leave at least 16 ports before 21015 (pair edge, green); it leaves 15")]
    [InlineData("65521", "22000", "pairs.edge.ports.blue: \"65521\" must be at most 65520, as a slot needs at least 16 ports")]
    [InlineData("21000", "21000", "pairs.edge.ports.green: \"21000\" must be a port of its own; it is also the first of pair edge, blue")]
    public void A_block_has_room(string blue, string green, string told) =>
        Assert.Equal(told, Told(Edge(("ports", Map(("blue", blue), ("green", green))))));

    [Fact]
    public void A_block_runs_to_the_next_first_port_of_anybody_and_no_further_than_a_thousand()
    {
        PortBlocks blocks = PortBlocks.Of(Good(("pairs", Map(
            Pair("a", "/a.cfg", ("ports", Map(("blue", "21000"), ("green", "65520")))),
            Pair("b", "/b.cfg", ("ports", Map(("blue", "21500"), ("green", "30000"))))))));
        Assert.Equal(new PortBlock(21000, 500), blocks.BlockOf("a", Slot.Blue));
        Assert.Equal(new PortBlock(21500, 1000), blocks.BlockOf("b", Slot.Blue));
        Assert.Equal(new PortBlock(30000, 1000), blocks.BlockOf("b", Slot.Green));
        Assert.Equal(new PortBlock(65520, 16), blocks.BlockOf("a", Slot.Green));
    }

    [Fact]
    public void State_and_runtime_are_two_directories() =>
        Assert.Equal("state: \"/run/flipcontroller\" must not be the same directory as runtime", Told(("state", "/run/flipcontroller/"), Pair("edge")));

    [Fact]
    public void A_socket_path_fits_the_kernel()
    {
        string path = "/" + new string('x', 107);
        Assert.Equal($"control.socket: \"{path}\" must be a path of at most 107 bytes (it has 108), as the kernel has no room for more",
            Told(("control", Map(("socket", path))), Pair("edge")));
        Good(("control", Map(("socket", path[..107]))), Pair("edge"));
    }

    [Fact]
    public void A_runtime_directory_leaves_room_for_the_admin_sockets()
    {
        string runtime = "/" + new string('r', 75);
        Assert.Equal($"runtime: \"{runtime}\" makes the sockets of pair edge 108 bytes long with HAProxy's temporary suffix; they "
            + "must be at most 107, so it must be at least 1 shorter", Told(("runtime", runtime), Pair("edge")));
        Good(("runtime", runtime[..75]), Pair("edge"));
    }

    [Fact]
    public void Names_that_a_slip_would_confuse_are_refused() =>
        Assert.Equal("pairs.a_b: \"a_b\" must differ from \"a-b\" in more than - and _", Told(Two("a-b", "a_b")));

    [Fact]
    public void Marks_of_two_pairs_are_the_same_bits_or_none_in_common()
    {
        (string, object)[] Masks(string first, string second) =>
        [
            Pair("a", "/a.cfg", ("redirect", Map(("mark_mask", first)))),
            Pair("b", "/b.cfg", ("redirect", Map(("mark_mask", second))), ("ports", Map(("blue", "23000"), ("green", "24000")))),
        ];
        Assert.Equal("pairs.b.redirect.mark_mask: \"0x0ffff000\" must be the mask of pair a (0x00ffff00) or share no bit with it",
            Told(("pairs", Masks("0x00ffff00", "0x0ffff000"))));
        Good(("pairs", Masks("0x00ffff00", "16776960")));
        Good(("pairs", Masks("0x0000ffff", "0xffff0000")));
    }

    [Fact]
    public void A_narrow_mask_bounds_how_many_may_be_retired()
    {
        Assert.Equal("pairs.edge.drain.max_retired: \"13\" must be at most 12 with mark_mask 0x000000ff, which tells 15 generations apart",
            Told(Edge(("redirect", Map(("mark_mask", "255"))), ("drain", Map(("max_retired", "13"))))));
        Good(Edge(("redirect", Map(("mark_mask", "255"))), ("drain", Map(("max_retired", "12")))));
    }

    [Theory]
    [InlineData("service", "80", "\"80\" must be a front address, such as :80 or 10.0.0.1:443")]
    [InlineData("path", "healthz", "\"healthz\" must be a path that begins with / and has no blanks")]
    [InlineData("host", "a b", "\"a b\" must be a host name")]
    [InlineData("host", "a\r\nX: y", "\"a\\u000d\\u000aX: y\" must be a host name")]
    [InlineData("expect", "2xx", "\"2xx\" must be a status between 100 and 599, or a range of them such as 200-399")]
    [InlineData("expect", "399-200", "\"399-200\" must be a status between 100 and 599, or a range of them such as 200-399")]
    [InlineData("tls", "on", "\"on\" must be true or false")]
    public void A_probe_is_read_by_its_rules(string key, string value, string message)
    {
        (string, object)[] http = key == "service" ? [(key, value)] : [("service", ":80"), (key, value)];
        Assert.Equal($"pairs.edge.gate.probes[0].http.{key}: {message}",
            Told(Edge(("gate", Map(("probes", List(Map(("http", (object)http)))))))));
    }

    [Fact]
    public void A_probe_says_what_it_probes()
    {
        Assert.Equal("pairs.edge.gate.probes[0].http.service: is missing; it must be a front address, such as :80 or 10.0.0.1:443",
            Told(Edge(("gate", Map(("probes", List(Map(("http", Map())))))))));
        Assert.Equal("pairs.edge.gate.probes[0].tcp: \"tcp\" is no key here; there is http",
            Faults(Edge(("gate", Map(("probes", List(Map(("tcp", Map()))))))))[^1] is var f ? $"{f.Path}: {f.Message}" : "");
    }

    [Fact]
    public void A_hook_names_its_program_and_only_known_placeholders()
    {
        Assert.Equal("pairs.edge.hooks.failed[0]: \"tell\" must be an absolute path, without . or .., as it names the program to run",
            Told(Edge(("hooks", Map(("failed", List("tell")))))));
        Assert.Equal("pairs.edge.hooks.drained[1]: \"{host}\" must be without {host}, which is none of {pair}, {from}, {to}, {slot}, {reason}, {flip}",
            Told(Edge(("hooks", Map(("drained", List("/bin/tell", "{host}")))))));
    }

    [Theory]
    [InlineData("250ms", 250)]
    [InlineData("30s", 30_000)]
    [InlineData("10m", 600_000)]
    [InlineData("1h", 3_600_000)]
    [InlineData("0s", 0)]
    [InlineData("1500ms", 1500)]
    public void A_duration_reads_back_as_written(string text, int milliseconds)
    {
        Assert.True(Durations.TryParse(text, out TimeSpan duration));
        Assert.Equal(milliseconds, duration.TotalMilliseconds);
        Assert.Equal(text, Durations.Format(duration));
    }

    [Theory]
    [InlineData("")]
    [InlineData("s")]
    [InlineData("1")]
    [InlineData("1.5s")]
    [InlineData("1 s")]
    [InlineData("1S")]
    [InlineData("1d")]
    [InlineData("+1s")]
    [InlineData("١s")]
    [InlineData("999999999999h")]
    [InlineData("9999999999999999999999s")]
    public void What_is_no_duration_is_refused(string text) => Assert.False(Durations.TryParse(text, out _));

    private static (string, object) Edge(params (string, object)[] options) => ("pairs", Map(Pair("edge", "/etc/haproxy/edge.cfg", options)));

    private static (string, object) Pair(string name) => ("pairs", Map(Pair(name, $"/{name}.cfg")));

    private static (string, object) Pair(string name, string config, params (string, object)[] options) =>
        (name, (object)Map([("haproxy", Map(("config", List(config)))), .. options]));

    private static (string, object) Two(string first, string second) =>
        ("pairs", Map(Pair(first, "/1.cfg"), Pair(second, "/2.cfg", ("ports", Map(("blue", "23000"), ("green", "24000"))))));

    private static (string, object)[] Map(params (string, object)[] entries) => entries;

    private static object[] List(params object[] items) => items;

    private static Configuration Good(params (string, object)[] root)
    {
        ConfigurationResult result = ConfigurationReader.Read(Build(root), File);
        Assert.Empty(result.Faults);
        return Assert.IsType<Configuration>(result.Configuration);
    }

    private static ImmutableArray<ConfigurationFault> Faults(params (string, object)[] root)
    {
        ConfigurationResult result = ConfigurationReader.Read(Build(root), File);
        Assert.Null(result.Configuration);
        Assert.NotEmpty(result.Faults);
        return result.Faults;
    }

    private static string Told(params (string, object)[] root) =>
        Assert.Single(Faults(root)) is var fault ? $"{fault.Path}: {fault.Message}" : "";

    /// <summary>A tree as block YAML would give it: every key begins a line.</summary>
    private static ConfigurationNode Build((string, object)[] root)
    {
        int line = 0;
        return Node(root);

        ConfigurationNode Node(object value) => value switch
        {
            (string, object)[] map => new MapNode(File, Math.Max(1, line), [.. map.Select(e => new MapEntry(e.Item1, ++line, Node(e.Item2)))]),
            object[] list => new ListNode(File, line, [.. list.Select(Node)]),
            _ => new ScalarNode(File, line, (string)value),
        };
    }
}
