using System.Collections.Immutable;

namespace FlipController.Linux.Haproxy;

/// <summary>A line of a user's file, and where it stands.</summary>
/// <param name="File">The number of the file, from 0.</param>
/// <param name="Number">The line's number, from 1.</param>
internal sealed record PlacedLine(int File, int Number, ConfigurationLine Line)
{
    // Two lines are one only when they are the same line: they are keys of what becomes of them.
    public bool Equals(PlacedLine? other) => ReferenceEquals(this, other);

    public override int GetHashCode() => HashCode.Combine(File, Number);
}

/// <summary>
/// A section and the lines of it that count, its header first; <see cref="Kind"/> is empty for what stands before a file's first.
/// </summary>
/// <param name="UnixPrefix">What <c>unix-bind prefix</c> puts before the paths it binds.</param>
internal sealed record ConfigurationSection(string Kind, ImmutableArray<PlacedLine> Lines, string UnixPrefix)
{
    public PlacedLine Header => Lines[0];

    /// <summary><c>frontend www</c>.</summary>
    public string Name => Header.Line[1] is { Length: > 0 } name ? $"{Kind} {HaproxyEnvironment.Shown(name)}" : Kind;

    public bool Equals(ConfigurationSection? other) => ReferenceEquals(this, other);

    public override int GetHashCode() => Header.GetHashCode();
}

/// <summary>What a proxy has said or inherited from its <c>defaults</c> that matters to a projection.</summary>
/// <param name="Http">It is in HTTP mode; the default is TCP.</param>
/// <param name="IdleCloseSaid">The user has decided about <c>idle-close-on-response</c>.</param>
/// <param name="Disabled">It never listens.</param>
/// <param name="ServerState"><c>global</c>, <c>local</c> or <c>none</c>: from where it loads the state of its servers.</param>
/// <param name="ServerStateFile">The line with <c>server-state-file-name</c> that holds for it.</param>
internal sealed record ProxySettings(
    bool Http, bool IdleCloseSaid, bool Disabled, string ServerState, PlacedLine? ServerStateFile)
{
    private static readonly ProxySettings s_presets = new(false, false, false, "none", null);

    /// <summary>
    /// Follows the inheritance (configuration manual, 4 "Proxies"): a proxy takes the defaults it names with <c>from</c>, or the
    /// last ones above it; defaults take the ones they name, or none.
    /// </summary>
    public static IReadOnlyDictionary<ConfigurationSection, ProxySettings> Of(IEnumerable<ConfigurationSection> sections)
    {
        var settings = new Dictionary<ConfigurationSection, ProxySettings>();
        var named = new Dictionary<string, ProxySettings>();
        ProxySettings last = s_presets;
        foreach (ConfigurationSection section in sections)
        {
            if (section.Kind is not ("defaults" or "frontend" or "listen" or "backend" or "peers")) continue;
            ConfigurationLine header = section.Header.Line;
            bool defaults = section.Kind == "defaults";
            bool nameless = defaults && header[1] == "from" && header[2] != "" && header[3] == "";
            string from = nameless ? header[2] : header[2] == "from" ? header[3] : "";
            ProxySettings inherited = section.Kind == "peers" ? s_presets
                : from != "" ? named.GetValueOrDefault(from, s_presets)
                : defaults ? s_presets : last;
            ProxySettings own = inherited;
            for (int i = 1; i < section.Lines.Length; i++) own = own.After(section.Lines[i]);
            settings[section] = own;
            if (!defaults) continue;
            last = own;
            if (!nameless && header[1] != "") named[header[1]] = own;
        }
        return settings;
    }

    private ProxySettings After(PlacedLine placed)
    {
        ConfigurationLine line = placed.Line;
        int keyword = line[0] is "no" or "default" ? 1 : 0;
        return line[keyword] switch
        {
            "mode" => this with { Http = line[keyword + 1] == "http" },
            "option" when line[keyword + 1] == "idle-close-on-response" => this with { IdleCloseSaid = true },
            "disabled" => this with { Disabled = true },
            "enabled" => this with { Disabled = false },
            "load-server-state-from-file" => this with { ServerState = line[1] },
            "server-state-file-name" => this with { ServerStateFile = placed },
            _ => this,
        };
    }
}
