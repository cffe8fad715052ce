using System.Collections.Immutable;
using System.Text;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// What sharing stick tables between generations changes: every <c>stick-table</c> line without <c>peers</c> gets our section, and
/// our own file gets that section with the process's name in it. What has <c>peers</c> stays as it is.
/// </summary>
/// <param name="Section">More lines for our own file; empty: nothing is shared.</param>
internal sealed record SharedTables(
    ImmutableArray<(PlacedLine Line, Edit Edit)> Edits, string Section, ImmutableArray<(PlacedLine Line, string Text)> Notes)
{
    private const string Separate = "so stick tables without peers begin empty with each generation (continuity.stick_tables)";

    // src/stick_table.c, parse_stick_table (2.4 to 3.4): all others take one argument.
    private static readonly ImmutableHashSet<string> s_alone = ["nopurge", "recv-only"];

    public static SharedTables Of(
        ImmutableArray<ConfigurationSection> sections, IReadOnlyDictionary<ConfigurationSection, ProxySettings> settings,
        string localPeer, TablePeer self)
    {
        var edits = ImmutableArray.CreateBuilder<(PlacedLine, Edit)>();
        var notes = ImmutableArray.CreateBuilder<(PlacedLine, string)>();
        foreach (ConfigurationSection section in sections)
        {
            if (section.Kind is not ("frontend" or "listen" or "backend") || settings[section].Disabled) continue;
            foreach (PlacedLine placed in section.Lines)
            {
                if (placed.Line[0] != "stick-table" || placed.Line.Words.Length < 2) continue;
                switch (HasPeers(placed.Line))
                {
                    case null:
                        notes.Add((placed, "this stick-table line is whole only with the value of an environment variable, "
                            + "so the table begins empty with each generation (continuity.stick_tables)"));
                        break;
                    case false:
                        int end = placed.Line.Words[^1].End;
                        edits.Add((placed, new Edit(end, end, $" peers {TablePeer.Section}")));
                        break;
                }
            }
        }
        if (edits.Count == 0) return new([], "", notes.ToImmutable());
        if (Obstacle(sections, settings, localPeer) is { } obstacle) return new([], "", [obstacle]);
        return new(edits.ToImmutable(), SectionOf(self), notes.ToImmutable());
    }

    /// <summary>Null: only the value of a variable decides.</summary>
    private static bool? HasPeers(ConfigurationLine line)
    {
        // "${NAME[*]}" is any number of words (configuration manual, 2.3).
        if (line.Words.Any(w => w.HasVariable && w.Text.Contains("[*]", StringComparison.Ordinal))) return null;
        for (int i = 1; i < line.Words.Length; i += s_alone.Contains(line[i]) ? 1 : 2)
        {
            if (line.Words[i].HasVariable) return null;
            // What only receives has nothing to teach the next generation.
            if (line[i] is "peers" or "recv-only") return true;
        }
        return false;
    }

    /// <summary>
    /// A process has one peer name, in all sections (src/peers.c sends and compares <c>localpeer</c>), and ours must differ between
    /// generations. Where the user needs the name, theirs it stays.
    /// </summary>
    private static (PlacedLine, string)? Obstacle(
        ImmutableArray<ConfigurationSection> sections, IReadOnlyDictionary<ConfigurationSection, ProxySettings> settings, string localPeer)
    {
        string local = Encoding.Latin1.GetString(Encoding.UTF8.GetBytes(localPeer));
        foreach (ConfigurationSection section in sections)
        {
            if (section.Kind == "peers" && section.Lines[0].Line[1] == TablePeer.Section)
                return (section.Lines[0], $"a peers section of the name {TablePeer.Section} is in the way of our own, {Separate}");
            foreach (PlacedLine placed in section.Lines)
            {
                ConfigurationLine line = placed.Line;
                if (section.Kind == "peers" && !settings[section].Disabled && line[0] is "peer" or "server" && line.Words.Length > 1
                    && (line[1] == local || line.Words[1].HasVariable))
                    return (placed, $"this entry needs the local peer name \"{local}\" and a process has one only, {Separate}");
                if (line.Words is [.., var last]
                    && line.Text.AsSpan(0, last.End).Contains("HAPROXY_LOCALPEER", StringComparison.Ordinal))
                    return (placed, $"HAPROXY_LOCALPEER is to be \"{local}\" here, which takes the local peer name, {Separate}");
            }
        }
        return null;
    }

    private static string SectionOf(TablePeer self)
    {
        // Not with -L, which everybody on the host could read.
        var text = new StringBuilder($"    localpeer {self.Name}\n");
        text.Append($"# Every generation of the pair, this one too; those that are not there refuse at once.\npeers {TablePeer.Section}\n");
        for (int seat = 0; seat < TablePeer.Seats; seat++) text.Append($"    peer {self.NameOf(seat)} {self.AddressOf(seat)}\n");
        return text.ToString();
    }
}
