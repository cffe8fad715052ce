using System.Collections.Immutable;

namespace FlipController.Linux.Haproxy;

/// <summary>A line of a user's file, where it stands, and what else belongs to it.</summary>
/// <param name="File">The number of the file, from 0.</param>
/// <param name="Number">The line's number, from 1.</param>
internal sealed record PlacedLine(int File, int Number, ConfigurationLine Line);

/// <summary>
/// A section and its lines. Sections end with their file (src/cfgparse.c, readcfgfile: the current section is the file's own);
/// <see cref="Kind"/> is empty for what stands before a file's first section.
/// </summary>
internal sealed record ConfigurationSection(string Kind, ImmutableArray<PlacedLine> Lines)
{
    // src/*.c, REGISTER_CONFIG_SECTION, 2.6 to 3.4. Another first word is a keyword of the section it stands in.
    private static readonly ImmutableHashSet<string> Kinds =
    [
        "global", "defaults", "frontend", "listen", "backend", "peers", "mailers", "userlist", "resolvers", "cache", "program",
        "ring", "log-forward", "log-profile", "http-errors", "fcgi-app", "namespace_list", "crt-store", "acme", "traces",
        "healthcheck",
    ];

    public static ImmutableArray<ConfigurationSection> Cut(IEnumerable<PlacedLine> lines)
    {
        var sections = ImmutableArray.CreateBuilder<ConfigurationSection>();
        var body = ImmutableArray.CreateBuilder<PlacedLine>();
        string kind = "";
        int file = 0;
        void Close()
        {
            if (body.Count > 0) sections.Add(new(kind, body.ToImmutable()));
            body.Clear();
        }
        foreach (PlacedLine placed in lines)
        {
            string first = placed.Line[0];
            if (placed.File != file) { Close(); (file, kind) = (placed.File, ""); }
            if (Kinds.Contains(first)) { Close(); kind = first; }
            body.Add(placed);
        }
        Close();
        return sections.ToImmutable();
    }
}

/// <summary>What a proxy has said or inherited from its <c>defaults</c> that matters to a projection.</summary>
/// <param name="Http">It is in HTTP mode; the default is TCP.</param>
/// <param name="IdleCloseSaid">The user has decided about <c>idle-close-on-response</c>.</param>
/// <param name="Disabled">It never listens.</param>
internal sealed record ProxySettings(bool Http, bool IdleCloseSaid, bool Disabled)
{
    private static readonly ProxySettings Presets = new(false, false, false);

    /// <summary>
    /// Follows the inheritance (configuration manual, 4 "Proxies"): a proxy takes the defaults it names with <c>from</c>, or the
    /// last ones above it; defaults take the ones they name, or none.
    /// </summary>
    public static IReadOnlyDictionary<ConfigurationSection, ProxySettings> Of(IEnumerable<ConfigurationSection> sections)
    {
        var settings = new Dictionary<ConfigurationSection, ProxySettings>(ReferenceEqualityComparer.Instance);
        var named = new Dictionary<string, ProxySettings>();
        ProxySettings last = Presets;
        foreach (ConfigurationSection section in sections)
        {
            if (section.Kind is not ("defaults" or "frontend" or "listen" or "backend" or "peers")) continue;
            ConfigurationLine header = section.Lines[0].Line;
            bool defaults = section.Kind == "defaults";
            bool nameless = defaults && header[1] == "from" && header[2] != "" && header[3] == "";
            string from = nameless ? header[2] : header[2] == "from" ? header[3] : "";
            ProxySettings inherited = section.Kind == "peers" ? Presets
                : from != "" ? named.GetValueOrDefault(from, Presets)
                : defaults ? Presets : last;
            ProxySettings own = section.Lines.Skip(1).Aggregate(inherited, (known, placed) => known.After(placed.Line));
            settings[section] = own;
            if (!defaults) continue;
            last = own;
            if (!nameless && header[1] != "") named[header[1]] = own;
        }
        return settings;
    }

    private ProxySettings After(ConfigurationLine line)
    {
        int keyword = line[0] is "no" or "default" ? 1 : 0;
        return line[keyword] switch
        {
            "mode" => this with { Http = line[keyword + 1] == "http" },
            "option" when line[keyword + 1] == "idle-close-on-response" => this with { IdleCloseSaid = true },
            "disabled" => this with { Disabled = true },
            "enabled" => this with { Disabled = false },
            _ => this,
        };
    }
}
