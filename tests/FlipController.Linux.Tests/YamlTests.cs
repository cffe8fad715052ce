using System.Collections.Immutable;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Linux;
using Xunit;

namespace FlipController.Linux.Tests;

public sealed partial class YamlTests
{
    private const string Small = "pairs:\n  edge:\n    haproxy: { config: [/a.cfg] }\n";

    [Fact(Timeout = 10_000)]
    public Task The_annotated_file_is_the_defaults()
    {
        ConfigurationResult result = YamlFile.ReadConfiguration(Annotated);

        Assert.Empty(result.Faults);
        Configuration defaults = new()
        {
            Pairs = ImmutableSortedDictionary<string, PairOptions>.Empty.Add("edge", new PairOptions
            {
                Name = "edge",
                Haproxy = new HaproxyOptions { Config = ["/etc/haproxy/haproxy.cfg"] },
            }),
        };
        Assert.Equal(JsonSerializer.Serialize(defaults), JsonSerializer.Serialize(result.Configuration));
        return Task.CompletedTask;
    }

    [Fact(Timeout = 10_000)]
    public Task The_annotated_file_has_every_option()
    {
        YamlResult yaml = YamlFile.Parse(Uncommented(), "flipcontroller.yaml");
        Assert.Empty(yaml.Faults);
        IEnumerable<string> expected = Options(typeof(Configuration), "").Select(o => o.Replace("pairs.*.name", "")).Where(o => o.Length > 0);
        Assert.Equal(expected.Order(StringComparer.Ordinal), Leaves(yaml.Root!, "").Distinct().Order(StringComparer.Ordinal));
        return Task.CompletedTask;
    }

    [Fact(Timeout = 10_000)]
    public Task The_examples_in_its_comments_are_valid()
    {
        ConfigurationResult result = YamlFile.ParseConfiguration(Uncommented(), "flipcontroller.yaml");
        Assert.Empty(result.Faults);
        Assert.Equal("127.0.0.1:9107", result.Configuration!.Metrics!.Listen);
        Assert.Equal<Probe>([new HttpProbe(":80", "/healthz", "example.org", 200, 399, false), new CommandProbe(["/usr/local/bin/ask", "{port::80}"], TimeSpan.FromSeconds(5))],
            result.Configuration.Pairs["edge"].Gate.Probes);
        Assert.Equal(new CommandOptions().Output, result.Configuration.Pairs["web"].Command!.Output);
        Assert.Equal(["/usr/local/bin/tell", "{pair}", "{to}"], result.Configuration.Pairs["edge"].Hooks.Switched);
        return Task.CompletedTask;
    }

    [Theory]
    [InlineData("state: /a\nstate: /b\n" + Small, "f:2: state: stands twice; the first is on line 1")]
    [InlineData("state: &s /a\n" + Small, "f:1: state: anchors (&name) are not supported; write the value where it is used")]
    [InlineData("state: *s\n" + Small, "f:1: state: aliases (*s) are not supported; write the value here")]
    [InlineData("state: !!str /a\n" + Small, "f:1: state: tags (tag:yaml.org,2002:str) are not supported; write the value alone")]
    [InlineData(Small + "---\nstate: /b\n", "f:4: a second document begins here; the file must be one document")]
    [InlineData("? [a, b]\n: c\n" + Small, "f:1: a key must be one word, not a list or a map")]
    [InlineData("state: null\n" + Small, "f:1: state: has no value; it must have one, or be left out")]
    [InlineData("state: \"null\"\n" + Small, "f:1: state: \"null\" must be an absolute path, without . or ..")]
    [InlineData(Small + "    drain:\n      deadline:\n        0s\n", "f:5: pairs.edge.drain.deadline: \"0s\" must be between 1s and 24h")]
    [InlineData("", "f:1: the file is empty; at least pairs.NAME.haproxy.config must be in it")]
    [InlineData("# only this\n", "f:1: the file is empty; at least pairs.NAME.haproxy.config must be in it")]
    [InlineData("just words\n", "f:1: \"just words\" must be a map of keys")]
    public void What_YAML_allows_and_we_do_not_is_refused_with_its_line(string text, string fault) =>
        Assert.Equal(fault, Assert.Single(YamlFile.ParseConfiguration(text, "f").Faults).ToString());

    [Theory]
    [InlineData("a: [1, 2\nb: 3\n")]
    [InlineData("a: \"unclosed\n")]
    [InlineData("a:\n\t- tab\n")]
    [InlineData("a: b: c\n")]
    [InlineData("a: \"\\UFFFFFFFF\"\n")]
    [InlineData("%YAML 9.9\n---\na: b\n")]
    [InlineData("}")]
    public void What_is_not_YAML_is_one_fault_with_a_line(string text)
    {
        ConfigurationFault fault = Assert.Single(YamlFile.ParseConfiguration(text, "f").Faults);
        Assert.StartsWith("this is not YAML: ", fault.Message);
        Assert.InRange(fault.Line, 1, 4);
    }

    [Fact]
    public void A_tower_of_brackets_is_a_fault_and_no_overflow()
    {
        string message = Assert.Single(YamlFile.ParseConfiguration("a: " + new string('[', 100_000), "f").Faults).Message;
        Assert.Contains("more than 32 levels deep", message);
    }

    [Fact]
    public void An_alias_does_not_hide_the_other_faults()
    {
        var faults = YamlFile.ParseConfiguration("state: *s\nruntime: run\n" + Small, "f").Faults;
        Assert.Equal([1, 2], faults.Select(f => f.Line));
    }

    [Fact(Timeout = 10_000)]
    public async Task A_file_that_cannot_be_read_is_a_fault()
    {
        string directory = Directory.CreateTempSubdirectory("flip-yaml").FullName;
        try
        {
            Assert.Contains("cannot read the file: Could not find file", One(Path.Combine(directory, "none.yaml")));
            Assert.Contains("cannot read the file: it is a directory", One(directory));
            string latin = Path.Combine(directory, "latin.yaml");
            await File.WriteAllBytesAsync(latin, [.. "state: /a"u8, 0xe4]);
            Assert.Contains("the file must be UTF-8; the bytes at offset", One(latin));
            string large = Path.Combine(directory, "large.yaml");
            await File.WriteAllBytesAsync(large, new byte[(1 << 20) + 1]);
            Assert.Contains("the file must have at most 1048576 bytes", One(large));
            string marked = Path.Combine(directory, "marked.yaml");
            await File.WriteAllTextAsync(marked, Small, new UTF8Encoding(true));
            Assert.NotNull(YamlFile.ReadConfiguration(marked).Configuration);
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }

        static string One(string path) => Assert.Single(YamlFile.ReadConfiguration(path).Faults).ToString();
    }

    /// <summary>Whatever is done to the text, the answer is a configuration or faults, each with a line of the file; never an exception.</summary>
    [Fact(Timeout = 120_000)]
    public Task Mutations_are_read_or_refused()
    {
        string[] seeds = [File.ReadAllText(Annotated), Uncommented(), Small, "a: {b: [c, 'd', \"e\\n\"], ? f : g}\n"];
        string[] grains =
        [
            ":", "- ", "[", "]", "{", "}", "\"", "'", "&a ", "*a", "!t ", "|\n", ">\n", "\t", "\n", "\n---\n", "\n...\n", "%", "@", "`", "? ", "<<: ",
            "#", ",", "\0", "\uFEFF", "\u0085", "\\x", "\\U00110000", "\ud800", "  ", "0x", "99999999999999999999", "~", "null", "pairs:", "edge:",
        ];
        var random = new Random(20_260);
        for (int round = 0; round < 6_000; round++)
        {
            var text = new StringBuilder(seeds[random.Next(seeds.Length)]);
            for (int n = random.Next(1, 5); n > 0 && text.Length > 1; n--)
            {
                int at = random.Next(text.Length);
                switch (random.Next(4))
                {
                    case 0: text.Insert(at, grains[random.Next(grains.Length)]); break;
                    case 1: text.Remove(at, Math.Min(random.Next(1, 40), text.Length - at)); break;
                    case 2: text[at] = (char)random.Next(0, 0x180); break;
                    default:
                        int length = Math.Min(random.Next(1, 60), text.Length - at);
                        text.Insert(random.Next(text.Length), text.ToString(at, length));
                        break;
                }
            }
            ConfigurationResult result = YamlFile.ParseConfiguration(text.ToString(), "f");
            Assert.True(result.Configuration is null == !result.Faults.IsEmpty, $"round {round}: neither a configuration nor faults, or both");
            int lines = text.ToString().Split(['\n', '\r', '\u0085', '\u2028', '\u2029']).Length + 1;
            Assert.All(result.Faults, f => Assert.InRange(f.Line, 1, lines));
            Assert.All(result.Faults, f => Assert.DoesNotContain('\n', f.ToString()));
        }
        return Task.CompletedTask;
    }

    private static string Annotated { get; } = Path.Combine(Here(), "../../config/flipcontroller.yaml");

    private static string Here([CallerFilePath] string path = "") => Path.GetDirectoryName(path)!;

    /// <summary>The annotated file with its commented examples in the place of the defaults they follow.</summary>
    private static string Uncommented() =>
        Example().Replace(Replaced().Replace(OtherPair().Replace(File.ReadAllText(Annotated), "  "), "$1# $2: $3\n"), "$1$2: ");

    /// <summary>Dotted paths of every option a configuration record has, as YAML spells them.</summary>
    private static IEnumerable<string> Options(Type type, string path) => type.GetProperties().SelectMany(p =>
    {
        string here = path + Snake(p.Name);
        Type t = Nullable.GetUnderlyingType(p.PropertyType) ?? p.PropertyType;
        if (t == typeof(ImmutableSortedDictionary<string, PairOptions>)) return Options(typeof(PairOptions), here + ".*.");
        if (t == typeof(ImmutableArray<Probe>))
            return new[] { "http.service", "http.path", "http.host", "http.expect", "http.tls", "command", "timeout" }.Select(k => $"{here}.{k}");
        if (t == typeof(ServerOptions)) return []; // one of those that stand beside it
        return t.Namespace == typeof(Configuration).Namespace && t.IsClass ? Options(t, here + ".") : [here];
    });

    private static IEnumerable<string> Leaves(ConfigurationNode node, string path) => node switch
    {
        MapNode when path.EndsWith(".services.", StringComparison.Ordinal) => [path.TrimEnd('.')],
        MapNode { Entries.IsEmpty: false } map => map.Entries.SelectMany(e => Leaves(e.Value, path + (path == "pairs." ? "*" : e.Key) + ".")),
        ListNode list when list.Items.Any(i => i is MapNode) => list.Items.SelectMany(i => Leaves(i, path)),
        _ => [path.TrimEnd('.')],
    };

    private static string Snake(string name) => Upper().Replace(name, m => (m.Index == 0 ? "" : "_") + m.Value.ToLowerInvariant());

    [GeneratedRegex("[A-Z]|(?<=[a-z])[0-9]")]
    private static partial Regex Upper();

    [GeneratedRegex(@"^( *)# (probes|switched|notify): (.*)\n\1\2: \[\]\n", RegexOptions.Multiline)]
    private static partial Regex Replaced();

    /// <summary>The lines of the pair that is commented out as a whole: no blank after their #, or two.</summary>
    [GeneratedRegex(@"^  #(?=\S|  )", RegexOptions.Multiline)]
    private static partial Regex OtherPair();

    [GeneratedRegex(@"^( *)# (metrics|keepalived|peer|handover|events|probes|switched|notify|local_peer): ", RegexOptions.Multiline)]
    private static partial Regex Example();
}
