using System.Collections.Immutable;
using System.Text;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// What sharing stick tables between generations changes: every <c>stick-table</c> line without <c>peers</c> gets our section, and
/// our own file gets that section with the process's name in it. What has <c>peers</c> stays as it is.
/// </summary>
internal static class SharedTables
{
    private const string Separate = "so stick tables without peers begin empty with each generation (continuity.stick_tables)";

    // src/stick_table.c, parse_stick_table (2.4 to 3.4): all others take one argument.
    private static readonly ImmutableHashSet<string> s_alone = ["nopurge", "recv-only"];

    /// <returns>More lines for our own file, which go on in its <c>global</c>; empty: nothing is shared.</returns>
    public static string Share(
        SlotCopy copy, ImmutableArray<ConfigurationSection> sections, IReadOnlyDictionary<ConfigurationSection, ProxySettings> settings,
        TablePeer self)
    {
        PlacedLine[] tables =
        [
            .. sections.Where(s => s.Kind is "frontend" or "listen" or "backend" && !settings[s].Disabled).SelectMany(s => s.Lines)
                .Where(l => l.Line[0] == "stick-table" && l.Line.Count > 1),
        ];
        ILookup<bool?, PlacedLine> byPeers = tables.ToLookup(l => HasPeers(l.Line));
        foreach (PlacedLine placed in byPeers[null])
            copy.Note(placed, "this stick-table line is whole only with the value of a variable that is not known, "
                + "so the table begins empty with each generation (continuity.stick_tables)");
        if (!byPeers[false].Any()) return "";
        if (Obstacle(copy, sections, settings) is var (where, why))
        {
            copy.Note(where, $"{why}, {Separate}");
            return "";
        }
        foreach (PlacedLine placed in byPeers[false]) copy.ChangeOf(placed).Append(placed.Line.Words[^1], $" peers {TablePeer.Section}");
        return SectionOf(self);
    }

    /// <summary>Null: only the value of a variable decides.</summary>
    private static bool? HasPeers(ConfigurationLine line)
    {
        // "${NAME[*]}" is any number of words (configuration manual, 2.3). Behind an empty word nothing counts.
        if (line.Count < line.Words.Length || line.Words.Any(w => w.IsUnknown && w.Text.Contains("[*]", StringComparison.Ordinal)))
            return null;
        for (int i = 1; i < line.Count; i += s_alone.Contains(line[i]) ? 1 : 2)
        {
            if (line.Words[i].IsUnknown) return null;
            // What only receives has nothing to teach the next generation.
            if (line[i] is "peers" or "recv-only") return true;
        }
        return false;
    }

    /// <summary>
    /// A process has one peer name, in all sections (src/peers.c sends and compares <c>localpeer</c>), and ours must differ between
    /// generations. Where the user needs the name, theirs it stays.
    /// </summary>
    private static (PlacedLine Where, string Why)? Obstacle(
        SlotCopy copy, ImmutableArray<ConfigurationSection> sections, IReadOnlyDictionary<ConfigurationSection, ProxySettings> settings)
    {
        string local = HaproxyEnvironment.Bytes(copy.LocalPeer);
        foreach (ConfigurationSection section in sections)
        {
            bool peers = section.Kind == "peers";
            if (peers && section.Header.Line[1] == TablePeer.Section)
                return (section.Header, $"a peers section of the name {TablePeer.Section} is in the way of our own");
            foreach (PlacedLine placed in section.Lines)
            {
                ConfigurationLine line = placed.Line;
                if (peers && !settings[section].Disabled && line[0] is "peer" or "server" && line[1] == local)
                    return (placed, $"this entry needs the local peer name \"{local}\" and a process has one only");
                if (line.Words is [.., var last]
                    && line.Text.AsSpan(0, last.End).Contains("HAPROXY_LOCALPEER", StringComparison.Ordinal))
                    return (placed, $"HAPROXY_LOCALPEER is to be \"{local}\" here, which takes the local peer name");
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
