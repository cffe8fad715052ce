using System.Collections.Immutable;
using System.Globalization;
using System.Text;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// The variables HAProxy sees while it reads its files: the ones it is started with, its own, and what <c>setenv</c> and the like
/// have made of them up to this line. Values are bytes as characters (Latin-1), as in the files.
/// </summary>
internal sealed class HaproxyEnvironment
{
    private readonly Dictionary<string, string> _values = new(StringComparer.Ordinal);
    // Not known, or known to be set, but to what is not known.
    private readonly HashSet<string> _unknown = new(StringComparer.Ordinal), _hidden = new(StringComparer.Ordinal);
    private readonly HashSet<string> _unset = new(StringComparer.Ordinal);
    private bool _isKnown;

    public HaproxyEnvironment(HaproxySurroundings surroundings, string localPeer)
    {
        _isKnown = surroundings.Environment is not null;
        foreach (var (name, value) in surroundings.Environment ?? ImmutableDictionary<string, string>.Empty) _values[name] = Bytes(value);
        // src/haproxy.c, init: always; src/haproxy.c, read_cfg and before 3.1 init: while the files are read.
        _values["HAPROXY_LOCALPEER"] = Bytes(localPeer);
        HaproxyVersion? version = surroundings.Build?.Version;
        if (version is null)
        {
            if (!_values.ContainsKey("HAPROXY_STARTUP_VERSION")) _unknown.Add("HAPROXY_STARTUP_VERSION");
            _unknown.Add("HAPROXY_BRANCH");
        }
        else if (version.IsAtLeast(2, 8))
        {
            _values.TryAdd("HAPROXY_STARTUP_VERSION", version.Text);
            _values["HAPROXY_BRANCH"] = $"{version.Major}.{version.Minor}";
        }
        string[] formats = ["HAPROXY_HTTP_LOG_FMT", "HAPROXY_HTTPS_LOG_FMT", "HAPROXY_TCP_LOG_FMT"];
        string[] newer = ["HAPROXY_HTTP_CLF_LOG_FMT", "HAPROXY_TCP_CLF_LOG_FMT", "HAPROXY_KEYLOG_FC_LOG_FMT", "HAPROXY_KEYLOG_BC_LOG_FMT"];
        if (version is null || version.IsAtLeast(3, 0)) _unknown.UnionWith(newer);
        if (version is null) _unknown.UnionWith(formats);
        else if (version.IsAtLeast(2, 8)) _hidden.UnionWith(formats);
        DropsEmptyLists = version is null || version.IsAtLeast(3, 2);
    }

    /// <summary>From 3.2 on a list without a word becomes no argument; before that, an empty one.</summary>
    public bool DropsEmptyLists { get; }

    public string File { get; set; } = "";

    public int Line { get; set; }

    public string Section { get; set; } = "";

    /// <summary>False: its value is not known. Null: it is known not to be set.</summary>
    public bool TryGet(string name, out string? value)
    {
        value = name switch
        {
            ".FILE" => File,
            ".LINE" => Line.ToString(CultureInfo.InvariantCulture),
            ".SECTION" => Section,
            _ => _values.GetValueOrDefault(name),
        };
        return value is not null || IsKnown(name);
    }

    private bool IsKnown(string name) => !_unknown.Contains(name) && !_hidden.Contains(name) && (_isKnown || _unset.Contains(name));

    /// <summary>Whether it is set, to whatever.</summary>
    public bool? IsDefined(string name) => _values.ContainsKey(name) || _hidden.Contains(name) ? true : IsKnown(name) ? false : null;

    /// <param name="value">Null: to what is not known.</param>
    public void Set(string name, string? value, bool overwrite = true)
    {
        if (!overwrite && (_values.ContainsKey(name) || !IsKnown(name))) return;
        Unset(name);
        if (value is null) _hidden.Add(name);
        else _values[name] = value;
    }

    public void Unset(string name)
    {
        _unknown.Remove(name);
        _hidden.Remove(name);
        _unset.Add(name);
        _values.Remove(name);
    }

    /// <summary>What <c>resetenv</c> does: all are gone but these.</summary>
    public void Keep(IReadOnlyCollection<string> names)
    {
        foreach (string name in _values.Keys.Where(n => !names.Contains(n)).ToList()) _values.Remove(name);
        if (!_isKnown) _unknown.UnionWith(names.Where(n => !_values.ContainsKey(n) && !_unset.Contains(n)));
        _unknown.IntersectWith(names);
        _hidden.IntersectWith(names);
        _isKnown = true;
    }

    /// <summary>
    /// Expands what an address holds outside of quotes (src/tools.c, env_expand): $NAME and ${NAME}, an unset one to nothing.
    /// </summary>
    /// <returns>Null: it holds one whose value is not known.</returns>
    public string? Expand(string address)
    {
        if (!address.Contains('$', StringComparison.Ordinal)) return address;
        var expanded = new StringBuilder();
        for (int at = 0; at < address.Length;)
        {
            if (address[at] != '$') { expanded.Append(address[at++]); continue; }
            int begin = at + 1 < address.Length && address[at + 1] == '{' ? at + 2 : at + 1, end = begin;
            while (end < address.Length && (char.IsAsciiLetterOrDigit(address[end]) || address[end] == '_')) end++;
            if (!TryGet(address[begin..end], out string? value)) return null;
            expanded.Append(value);
            at = end < address.Length && address[end] == '}' && begin == at + 2 ? end + 1 : end;
        }
        return expanded.ToString();
    }

    /// <summary>Text of ours as the characters of the files: one for each UTF-8 byte.</summary>
    public static string Bytes(string text) => Encoding.Latin1.GetString(Encoding.UTF8.GetBytes(text));

    /// <summary>Characters of the files as text for a person.</summary>
    public static string Shown(string bytes) => Encoding.UTF8.GetString(Encoding.Latin1.GetBytes(bytes));
}
