using System.Net;
using System.Net.Sockets;
using System.Text;
using FlipController.Core;
using FlipController.Linux;
using FlipController.Linux.Files;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Linux.Unmanaged;
using FlipController.Tests.Shared;
using static FlipController.Fuzz.FuzzTargets;

namespace FlipController.Fuzz;

/// <summary>What operators write: our configuration, HAProxy's, variables, words of a command line.</summary>
internal static class FileTargets
{
    private static readonly SlotPlace s_place = new("/run/a b", "/run/a b/admin", new PortBlock(21000, 64), new HashSet<int> { 21001 }, "lb1");

    private static readonly HaproxySurroundings s_surroundings = new()
    {
        Environment = new Dictionary<string, string> { ["A"] = "127.0.0.1", ["B"] = "a b,c:1 \"" },
        Resolve = (name, family) => name == "localhost" && family != AddressFamily.InterNetworkV6 ? IPAddress.Loopback : null,
    };

    public static IEnumerable<FuzzTarget> All()
    {
        string root = Repository.Root;
        byte[] whole = File.ReadAllBytes(Path.Combine(root, "config/flipcontroller.yaml"));
        byte[][] haproxy = [.. Directory.GetFiles(Path.Combine(root, "tests/FlipController.Linux.Tests/Haproxy/corpus"), "*.cfg").Order(StringComparer.Ordinal).Select(File.ReadAllBytes)];
        yield return new("configuration", 40, [whole, .. Bytes(
            "pairs:\n  edge:\n    haproxy: { config: [/etc/haproxy/haproxy.cfg], also_watch: [/etc/haproxy/certs] }\n    gate:\n"
            + "      probes: [ { http: { service: \":80\", path: /healthz, host: example.org, expect: 200-399 } } ]\n"
            + "    watch: { undo: 30s }\n    drain: { deadline: 10m, services: { \":80\": 1h } }\n",
            "metrics: { listen: 127.0.0.1:9100 }\npairs:\n  a: { haproxy: { config: [/a], environment: { X: \"1\" } }, hold: { devices: [eth0], max: 100ms } }\n"
            + "  b: { haproxy: { config: [/b] }, ports: { blue: 30000, green: 31000 }, redirect: { mark_mask: 0xfffff } }\n")], Configuration);
        yield return new("projection", 50, haproxy, Rendered);
        yield return new("environment-file", 90, Bytes(
            "# who answers\nLABEL=\"one\"\nMODE=a b \\\n c\n; no\nX='a\"b'\"c\"\nY=\"\\$\\\"\\\\\"\nbad name=1\n=2\n", "A=1\nB=\nC= d \n\\\n"), content =>
        {
            var variables = EnvironmentFile.Read(Text(content));
            Demand(variables.All(v => v.Key.Length > 0 && !v.Key.Contains('=', StringComparison.Ordinal)), "a variable has no name");
            return true;
        });
        yield return new("words", 120, Bytes("127.0.0.1:80", "[::1]:443 v6only", "*:80", "1d2h3m", "250ms", "10.0.0.0/8", "[2001:db8::1]:80", "::ffff:1.2.3.4"), Words);
        yield return new("start-arguments", 60, Bytes("-W\0-f\0/etc/haproxy.cfg\0-p\0/run/h.pid\0-sf\0" + "12\0" + "13\0-x\0/run/s\0--\0a", "-D\0-db\0-L\0-x\0-C"), content =>
        {
            var words = Encoding.Latin1.GetString(content).Split('\0').ToArray();
            _ = StartArguments.IsDaemon([.. words]) | StartArguments.HasMaster([.. words]);
            Demand(StartArguments.Daemonised([.. words], true).Length <= words.Length + 2, "words were added");
            return StartArguments.Check([.. words]).Length > 0;
        });
        yield return new("proc-stat", 100, Bytes("12 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21\n"),
            content => ProcessIdentity.Stat.Parse(Text(content)) is not null);
        yield return new("haproxy-vv", 50, Bytes(
            "HAProxy version 2.6.12-1+deb12u1 2023/12/16 - https://haproxy.org/\nFeature list : -51DEGREES +OPENSSL +LUA\nRunning on OpenSSL version : OpenSSL 3.0.11\n",
            "HA-Proxy version 2.2.9 2021/01/01\n"), content =>
        {
            HaproxyVersion? version = HaproxyBuild.Parse(Text(content))?.Version;
            _ = version?.ComparedWith(Text(content));
            _ = version?.ComparedWith("2.6-dev12-abcdef-33");
            return version is not null;
        });
    }

    private static bool Configuration(byte[] content)
    {
        ConfigurationResult result = YamlFile.ParseConfiguration(Text(content), "/etc/f.yaml");
        Demand(result.Configuration is not null == result.Faults.IsEmpty, "neither a configuration nor a fault, or both");
        Demand(result.Faults.All(f => f.Line >= 1 && f.Message.Length > 5), "a fault says nothing");
        if (result.Configuration is { } configuration) _ = PortBlocks.Of(configuration);
        return result.Configuration is not null;
    }

    private static bool Rendered(byte[] content)
    {
        ProjectionResult result = Projection.Render([new SourceFile("/etc/h.cfg", content)], s_place, s_surroundings);
        Demand(result.IsRendered == result.Faults.IsEmpty, "neither a copy nor a fault, or both");
        Demand(result.Faults.All(f => f.Line >= 1 && f.Message.Length > 10), "a fault says nothing");
        if (!result.IsRendered) return false;
        _ = result.Configuration.Explain($"[ALERT] (1) : config : parsing [{result.Configuration.Files[^1].Path}:3] : no\n");
        return true;
    }

    private static bool Words(byte[] content)
    {
        string text = Text(content);
        bool service = Service.TryParse(text, out Service? read), duration = Durations.TryParse(text, out TimeSpan time), peer = PeerFilter.TryParse(text, out PeerFilter? filter);
        if (service) Demand(Service.TryParse(read!.ToString(), out Service? again) && again.ToString() == read.ToString(), $"{read} is not read again");
        if (duration) Demand(time >= TimeSpan.Zero && Durations.Format(time).Length > 0, $"{time} is no duration");
        if (peer) Demand(filter!.ToString().Length > 0 && !filter.Matches(default, 0) | filter.Prefix <= 128, "a filter of nothing");
        return service | duration | peer;
    }
}
