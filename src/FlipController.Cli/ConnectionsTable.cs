using FlipController.Core;

namespace FlipController.Cli;

/// <summary>A report of connections as lines of text: who counts what, then the connections or their networks.</summary>
internal static class ConnectionsTable
{
    public static IReadOnlyList<string> Lines(ConnectionsReport report, int limit)
    {
        List<string> lines = [.. report.Generations.SelectMany(Heading)];
        if (report.Generations.IsEmpty) lines.Add($"{report.Pair}: no generation");
        lines.Add(report.Matched == report.Total ? $"{Connections(report.Total)}"
            : $"{report.Matched} of {Connections(report.Total)} {(report.Matched == 1 ? "matches" : "match")}");
        if (report.Networks is { } networks)
        {
            lines.AddRange(Aligned(["network", "connections", "oldest", "least idle", "in", "out"], 1, networks.Take(limit).Select(n => new[]
            {
                n.Network, Phrases.Count(n.Connections), Phrases.Seconds(n.OldestS), Phrases.Seconds(n.LeastIdleS),
                Phrases.Bytes(n.BytesIn), Phrases.Bytes(n.BytesOut),
            })));
            More(networks.Length - limit, " networks");
            return lines;
        }
        bool several = report.Connections.Select(c => c.Generation).Distinct().Count() > 1;
        lines.AddRange(Aligned([.. several ? ["gen"] : (string[])[], "peer", "service", "haproxy", "state", "age", "idle", "in", "out"], several ? 5 : 4,
            report.Connections.Select(c => new[]
            {
                c.Peer, c.Service, Way(c), c.Orphan ? $"{c.State} (orphan)" : c.State,
                c.AgeIsAtLeast && c.AgeS is not null ? $">={Phrases.Seconds(c.AgeS)}" : Phrases.Seconds(c.AgeS), Phrases.Seconds(c.IdleS),
                Phrases.Bytes(c.BytesIn), Phrases.Bytes(c.BytesOut),
            }.Prepend(several ? $"{c.Generation}" : null).OfType<string>().ToArray())));
        More(report.Matched - report.Connections.Length, "");
        return lines;

        void More(int rest, string what)
        {
            if (rest > 0) lines.Add($"  ... and {rest} more{what}");
        }
    }

    /// <summary>What HAProxy does with it: FRONTEND/BACKEND/SERVER.</summary>
    private static string Way(ConnectionStatus connection) => connection.Frontend is null ? "-"
        : string.Join('/', new[] { connection.Frontend, connection.Backend, connection.Server }.TakeWhile(n => n is not null));

    private static IEnumerable<string> Heading(GenerationConnections generation)
    {
        ConnectionCounts counts = generation.Counts;
        yield return $"generation {generation.Number} ({generation.Slot}, {generation.Role}): conntrack {Phrases.Count(counts.Conntrack)}, "
            + $"sockets {Phrases.Count(counts.Sockets)}, haproxy {Phrases.Count(counts.Haproxy)}";
        foreach (string why in counts.Why ?? []) yield return $"  why: {why}";
    }

    private static string Connections(int count) => count == 1 ? "1 connection" : $"{count} connections";

    /// <param name="left">So many columns hold words and begin on the left; the others hold amounts and end on the right.</param>
    private static IEnumerable<string> Aligned(string[] heading, int left, IEnumerable<string[]> rows)
    {
        string[][] all = [heading, .. rows];
        if (all.Length == 1) return [];
        int[] widths = [.. heading.Select((_, column) => all.Max(r => r[column].Length))];
        return all.Select(row => "  " + string.Join("  ", row.Select((cell, column) =>
            column < left ? cell.PadRight(widths[column]) : cell.PadLeft(widths[column]))).TrimEnd());
    }
}
