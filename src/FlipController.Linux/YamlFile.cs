using System.Collections.Immutable;
using System.Text;
using FlipController.Core;
using YamlDotNet.Core;
using YamlDotNet.Core.Events;

namespace FlipController.Linux;

/// <summary>What a YAML text says as a neutral tree, and what is wrong with it as YAML.</summary>
public sealed record YamlResult(ConfigurationNode? Root, ImmutableArray<ConfigurationFault> Faults);

/// <summary>
/// Reads the configuration file. Built on the parser's events and not on a deserializer, since only events know the line of
/// each part. Nothing in a file makes it throw: whatever is wrong is a fault with a line.
/// </summary>
public static class YamlFile
{
    // Far above any sensible configuration, far below what could hurt.
    private const int MostBytes = 1 << 20;
    private const int MostDepth = 32;

    /// <summary>The file's configuration, or everything that is wrong with it.</summary>
    public static ConfigurationResult ReadConfiguration(string path)
    {
        string text;
        try
        {
            using FileStream file = File.OpenRead(path);
            // Read before asking for the length: a FIFO or a file of /proc has none.
            byte[] bytes = new byte[MostBytes + 1];
            int length = file.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false);
            if (length > MostBytes) return Refused($"the file must have at most {MostBytes} bytes");
            text = new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(bytes, 0, length);
        }
        catch (DecoderFallbackException e)
        {
            return Refused($"the file must be UTF-8; the bytes at offset {e.Index} are not");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            return Refused($"cannot read the file: {(Directory.Exists(path) ? "it is a directory" : e.Message)}");
        }
        return ParseConfiguration(text, path);

        ConfigurationResult Refused(string message) => new(null, [new ConfigurationFault(path, 1, "", message)]);
    }

    /// <param name="file">The name that faults carry.</param>
    public static ConfigurationResult ParseConfiguration(string text, string file)
    {
        YamlResult yaml = Parse(text, file);
        return ConfigurationReader.Read(yaml.Root, file, yaml.Faults);
    }

    /// <summary>Faults and a tree together are possible: an alias is refused, and what surrounds it is still read.</summary>
    public static YamlResult Parse(string text, string file)
    {
        var faults = ImmutableArray.CreateBuilder<ConfigurationFault>();
        var reading = new Reading(file, faults);
        try
        {
            // The byte order mark that some editors write belongs to the encoding, not to the text.
            var parser = new Parser(new StringReader(text.TrimStart('\uFEFF')));
            return new YamlResult(reading.Stream(parser), faults.ToImmutable());
        }
        catch (YamlException e)
        {
            faults.Add(new ConfigurationFault(file, Line(e.Start), "", $"this is not YAML: {Sentence(e)}"));
        }
        catch (Exception e) when (e is ArgumentException or InvalidOperationException or OverflowException or FormatException
            or IndexOutOfRangeException or NullReferenceException)
        {
            // The scanner lets some of its own slips escape as these (an escape beyond Unicode, for one); a daemon that
            // reloads must take them for what they are: a bad file.
            faults.Add(new ConfigurationFault(file, reading.LastLine, "", $"this is not YAML: {e.Message.ReplaceLineEndings(" ")}"));
        }
        return new YamlResult(null, faults.ToImmutable());
    }

    private static int Line(in Mark mark) => (int)Math.Clamp(mark.Line, 1, int.MaxValue);

    private static string Sentence(YamlException e)
    {
        string said = e.Message.ReplaceLineEndings(" ").Trim();
        return said.Length == 0 ? "the parser cannot go on here" : said;
    }

    private sealed class Reading(string file, ImmutableArray<ConfigurationFault>.Builder faults)
    {
        public int LastLine { get; private set; } = 1;

        public ConfigurationNode? Stream(IParser parser)
        {
            ConfigurationNode? root = null;
            int documents = 0;
            while (parser.MoveNext())
            {
                if (parser.Current is not DocumentStart start) continue;
                if (++documents == 2) Fault(Line(start.Start), "", "a second document begins here; the file must be one document");
                parser.MoveNext();
                ConfigurationNode document = Node(parser, "", 0);
                root ??= document;
            }
            return root;
        }

        /// <summary>Reads the node whose first event is current, and leaves its last event current.</summary>
        private ConfigurationNode Node(IParser parser, string path, int depth)
        {
            ParsingEvent current = parser.Current!;
            int line = LastLine = Line(current.Start);
            if (depth > MostDepth) throw new SemanticErrorException(current.Start, current.End, $"more than {MostDepth} levels deep");
            if (current is NodeEvent { Anchor.IsEmpty: false })
                Fault(line, path, "anchors (&name) are not supported; write the value where it is used");
            if (current is NodeEvent { Tag.IsEmpty: false, Tag: var tag } && !(current is Scalar && tag.IsNonSpecific))
                Fault(line, path, $"tags ({tag}) are not supported; write the value alone");
            switch (current)
            {
                case AnchorAlias alias:
                    Fault(line, path, $"aliases (*{alias.Value}) are not supported; write the value here");
                    return new ScalarNode(file, line, "");
                case Scalar scalar:
                    return new ScalarNode(file, line, scalar.Value, scalar.Style is not (ScalarStyle.Plain or ScalarStyle.Any));
                case SequenceStart:
                    var items = ImmutableArray.CreateBuilder<ConfigurationNode>();
                    while (parser.MoveNext() && parser.Current is not SequenceEnd)
                        items.Add(Node(parser, $"{path}[{items.Count}]", depth + 1));
                    return new ListNode(file, line, items.ToImmutable());
                case MappingStart:
                    return new MapNode(file, line, Entries(parser, path, depth));
                default:
                    throw new SemanticErrorException(current.Start, current.End, "a value was expected");
            }
        }

        private ImmutableArray<MapEntry> Entries(IParser parser, string path, int depth)
        {
            var entries = ImmutableArray.CreateBuilder<MapEntry>();
            while (parser.MoveNext() && parser.Current is not MappingEnd)
            {
                ConfigurationNode key = Node(parser, path, depth + 1);
                string name = (key as ScalarNode)?.Text ?? "";
                if (key is not ScalarNode) Fault(key.Line, path, "a key must be one word, not a list or a map");
                parser.MoveNext();
                ConfigurationNode value = Node(parser, path.Length == 0 ? name : $"{path}.{name}", depth + 1);
                if (key is ScalarNode) entries.Add(new MapEntry(name, key.Line, value));
            }
            return entries.ToImmutable();
        }

        private void Fault(int line, string path, string message) => faults.Add(new ConfigurationFault(file, line, path, message));
    }
}
