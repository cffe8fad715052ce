using System.Collections.Immutable;
using System.Globalization;

namespace FlipController.Core;

/// <summary>Returns null and the value, or what the text must be: the end of the sentence <c>"0s" must be …</c>.</summary>
internal delegate string? Rule<T>(string text, out T value);

/// <summary>Every fault found so far, each with the line of its path, or of the nearest part above it that stands in the file.</summary>
internal sealed class FaultList(string file)
{
    private readonly Dictionary<string, int> _lines = [];
    private readonly List<ConfigurationFault> _faults = [];
    private readonly HashSet<string> _spoiled = [];

    public ImmutableArray<ConfigurationFault> InOrder => [.. _faults.OrderBy(f => f.Line)];

    public int Count => _faults.Count;

    public void Locate(string path, int line) => _lines.TryAdd(path, line);

    public int LineOf(string path)
    {
        while (path.Length > 0)
        {
            if (_lines.TryGetValue(path, out int line)) return line;
            path = path[..Math.Max(0, path.LastIndexOfAny(['.', '[']))];
        }
        return _lines.GetValueOrDefault("", 1);
    }

    public void Add(string path, string message) => AddAt(LineOf(path), path, message);

    public void AddAt(int line, string path, string message)
    {
        // What syntax already spoiled has no meaning to judge.
        if (path.Length == 0 || !_spoiled.Contains(path)) _faults.Add(new ConfigurationFault(file, line, path, message));
    }

    public void AddSyntax(ConfigurationFault fault)
    {
        _faults.Add(fault);
        _spoiled.Add(fault.Path);
    }

    /// <summary>A value as it may stand in a message: on one line, and not a page of it.</summary>
    public static string Quote(string text)
    {
        string shown = text.Length > 120 ? text[..117] + "..." : text;
        return $"\"{OneLine(shown)}\"";
    }

    /// <summary>Whatever a file holds, a fault is one line.</summary>
    public static string OneLine(string text) => string.Concat(text.Select(c => char.IsControl(c) ? $"\\u{(int)c:x4}" : c.ToString()));
}

/// <summary>
/// One map being read: each key is asked for once, with its default and its rule; <see cref="End"/> refuses what nobody asked
/// for. A fault never stops the reading, so that an operator sees all of them at once.
/// </summary>
internal sealed class ConfigurationSection
{
    private readonly FaultList _faults;
    private readonly Dictionary<string, ConfigurationNode> _values = [];
    private readonly List<string> _known = [];

    public ConfigurationSection(FaultList faults, string path, ConfigurationNode? node)
    {
        _faults = faults;
        Path = path;
        if (node is null or ScalarNode { IsNothing: true }) return;
        faults.Locate(path, node.Line);
        if (node is not MapNode map)
        {
            faults.Add(path, $"{Shown(node)} must be a map of keys");
            IsNoMap = true;
            return;
        }
        var lines = new Dictionary<string, int>();
        foreach (MapEntry entry in map.Entries)
        {
            if (!lines.TryAdd(entry.Key, entry.Line))
            {
                faults.AddAt(entry.Line, PathOf(entry.Key), $"stands twice; the first is on line {lines[entry.Key]}");
                continue;
            }
            _values[entry.Key] = entry.Value;
            faults.Locate(PathOf(entry.Key), entry.Line);
        }
    }

    public string Path { get; }

    /// <summary>Something else stands where a map belongs; that has been said, and what is missing in it is no news.</summary>
    public bool IsNoMap { get; }

    public IEnumerable<string> Keys => _values.Keys;

    public string PathOf(string key) => Path.Length == 0 ? key : $"{Path}.{key}";

    public bool Has(string key) => _values.ContainsKey(key);

    public ConfigurationNode? Node(string key)
    {
        _known.Add(key);
        return _values.GetValueOrDefault(key);
    }

    public ConfigurationSection Section(string key) => new(_faults, PathOf(key), Node(key));

    public T Value<T>(string key, T initial, Rule<T> rule)
    {
        ConfigurationNode? node = Node(key);
        return node is not null && TryValue(PathOf(key), node, rule, out T value) ? value : initial;
    }

    public ImmutableArray<T> List<T>(string key, ImmutableArray<T> initial, Rule<T> rule) =>
        Items(key) is not { } items
            ? initial
            : [.. items.SelectMany(i => TryValue(i.Path, i.Node, rule, out T value) ? new[] { value } : [])];

    /// <summary>The items of a list with their paths; null when the key is absent or is no list.</summary>
    public IReadOnlyList<(string Path, ConfigurationNode Node)>? Items(string key)
    {
        ConfigurationNode? node = Node(key);
        if (node is null or ScalarNode { IsNothing: true }) return null;
        if (node is not ListNode list)
        {
            string remedy = node is ScalarNode scalar ? $": [{scalar.Text}]" : "";
            _faults.Add(PathOf(key), $"{Shown(node)} must be a list{remedy}");
            return null;
        }
        var items = list.Items.Select((item, index) => ($"{PathOf(key)}[{index}]", item)).ToList();
        foreach ((string path, ConfigurationNode item) in items) _faults.Locate(path, item.Line);
        return items;
    }

    /// <summary>Refuses every key that nobody has asked for.</summary>
    public void End()
    {
        foreach (string key in _values.Keys.Except(_known))
        {
            string? nearest = NearestName.To(key, _known);
            _faults.Add(PathOf(key), nearest is null
                ? $"{FaultList.Quote(key)} is no key here; there {(_known.Count == 1 ? "is" : "are")} {string.Join(", ", _known)}"
                : $"{FaultList.Quote(key)} is no key here; did you mean {nearest}?");
        }
    }

    private bool TryValue<T>(string path, ConfigurationNode node, Rule<T> rule, out T value)
    {
        value = default!;
        if (node is not ScalarNode scalar)
        {
            _faults.Add(path, $"{Shown(node)} must be one value");
            return false;
        }
        // A bare key asks for nothing; it is more often a slip than a wish for the default.
        if (scalar.IsNothing)
        {
            _faults.Add(path, "has no value; it must have one, or be left out");
            return false;
        }
        if (rule(scalar.Text, out value) is not { } must) return true;
        _faults.Add(path, $"{FaultList.Quote(scalar.Text)} must be {must}");
        return false;
    }

    private static string Shown(ConfigurationNode node) => node switch
    {
        ScalarNode scalar => FaultList.Quote(scalar.Text),
        ListNode list => $"a list of {list.Items.Length.ToString(CultureInfo.InvariantCulture)}",
        _ => "a map",
    };
}

/// <summary>What somebody may have meant.</summary>
public static class NearestName
{
    /// <summary>The known name at most a third of its length away, as a typing slip is; null when none is.</summary>
    public static string? To(string name, IEnumerable<string> known) =>
        name.Length > 64 ? null : known
            .Select(k => (Name: k, Distance: Distance(name.Replace('-', '_').ToLowerInvariant(), k)))
            .Where(k => k.Distance <= Math.Max(1, Math.Max(k.Name.Length, name.Length) / 3))
            .OrderBy(k => k.Distance).Select(k => k.Name).FirstOrDefault();

    private static int Distance(string a, string b)
    {
        int[] row = [.. Enumerable.Range(0, b.Length + 1)];
        for (int i = 1; i <= a.Length; i++)
        {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j <= b.Length; j++)
            {
                int above = row[j];
                row[j] = Math.Min(Math.Min(above, row[j - 1]) + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1));
                diagonal = above;
            }
        }
        return row[b.Length];
    }
}
