using System.Collections.Immutable;
using System.Globalization;
using System.Text;

namespace FlipController.Linux.Haproxy;

// The numbers are those of the manual's column "type" (management manual, 9.1 "CSV format").
public enum StatKind
{
    Frontend = 0,
    Backend = 1,
    Server = 2,
    Listener = 3,
}

/// <summary>One row of <c>show stat</c>. Columns are found by name: versions add some. A number that is left out is 0.</summary>
public sealed class StatRow(IReadOnlyDictionary<string, int> columns, ImmutableArray<string> cells)
{
    public string Proxy => this["pxname"];
    public string Name => this["svname"];
    public StatKind Kind => (StatKind)Number("type");
    public string Status => this["status"];
    public string CheckStatus => this["check_status"];
    public string AgentStatus => this["agent_status"];
    public string LastCheck => this["last_chk"];
    public string LastAgent => this["last_agt"];
    /// <summary>BACKEND/SERVER whose checks count for this server as well.</summary>
    public string Tracked => this["tracked"];
    public long TotalSessions => Number("stot");
    public long Requests => Number("req_tot");
    public long Responses5xx => Number("hrsp_5xx");
    public long ConnectionErrors => Number("econ");

    /// <summary>The cell of a column, empty where HAProxy gives none.</summary>
    public string this[string column] => columns.TryGetValue(column, out int i) && i < cells.Length ? cells[i] : "";

    public long Number(string column) =>
        long.TryParse(this[column], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long n) ? n : 0;

    public static ImmutableArray<StatRow>? Parse(string answer)
    {
        if (!answer.StartsWith("# pxname,", StringComparison.Ordinal)) return null;
        var rows = Cells(answer[2..]).ToList();
        var columns = new Dictionary<string, int>();
        for (int i = 0; i < rows[0].Length; i++) columns[rows[0][i]] = i;
        return [.. rows.Skip(1).Where(r => r.Length > 1).Select(r => new StatRow(columns, r))];
    }

    /// <summary>RFC 4180: a quoted cell may hold commas and line ends, and quotes written twice.</summary>
    private static IEnumerable<ImmutableArray<string>> Cells(string csv)
    {
        var row = ImmutableArray.CreateBuilder<string>();
        var cell = new StringBuilder();
        bool quoted = false;
        for (int i = 0; i < csv.Length; i++)
        {
            char c = csv[i];
            if (quoted && c == '"' && i + 1 < csv.Length && csv[i + 1] == '"') { cell.Append('"'); i++; }
            else if (c == '"') quoted = !quoted;
            else if (!quoted && c is ',' or '\n')
            {
                row.Add(cell.ToString());
                cell.Clear();
                if (c == '\n') { yield return row.ToImmutable(); row.Clear(); }
            }
            else cell.Append(c);
        }
        if (cell.Length > 0) row.Add(cell.ToString());
        if (row.Count > 0) yield return row.ToImmutable();
    }
}

/// <summary>
/// A server and how far its checks have come. HAProxy counts a checked server as UP from the start and lets its first failed
/// check bring it down (src/server.c: health begins at rise): before that check UP says nothing. Until the first check has
/// ended, its status is INI, or "* INI" while it runs (src/stats.c, stats_fill_sv_stats; the star says only that some check runs).
/// The first checks do not start together: they are spread over the shortest interval of a second or more of all servers, or
/// the server's own if that is longer (src/check.c, start_checks), unless the user bounds that by <c>max-spread-checks</c>.
/// </summary>
/// <param name="Status">HAProxy's words: <c>UP</c>, <c>DOWN 1/2</c>, <c>no check</c>, <c>MAINT (via …)</c>.</param>
/// <param name="IsUp">Gets new connections: UP in any form, or not checked; NOLB, DRAIN and MAINT do not.</param>
/// <param name="HasCheck">A health or agent check speaks for it, its own or that of the server it tracks.</param>
/// <param name="FirstCheckDone">Every such check has ended at least once; true also where none does or a person took it out.</param>
/// <param name="Maintenance">Taken out on purpose (or, "(resolution)", without an address): no check runs.</param>
public sealed record ServerState(
    string Backend, string Name, string Status, bool IsUp, bool HasCheck, bool FirstCheckDone, bool Maintenance, string LastCheck)
{
    /// <summary>Healthy, but a person, an agent or a weight of 0 keeps new connections away (src/stats.c, stats_fill_sv_stats).</summary>
    public bool IsDrained => Status.StartsWith("DRAIN", StringComparison.Ordinal);

    public static ImmutableArray<ServerState> Of(IEnumerable<StatRow> rows)
    {
        var servers = rows.Where(r => r.Kind == StatKind.Server).ToList();
        var byName = new Dictionary<string, StatRow>();
        foreach (StatRow server in servers) byName.TryAdd($"{server.Proxy}/{server.Name}", server);

        // The end of a chain of tracking servers; HAProxy refuses circles, but an answer is not trusted to have none.
        StatRow Checked(StatRow server)
        {
            for (int hops = 0; hops < byName.Count && server.Tracked != "" && byName.TryGetValue(server.Tracked, out StatRow? next); hops++)
                server = next;
            return server;
        }
        return [.. servers.Select(server => Of(server, Checked(server)))];
    }

    private static ServerState Of(StatRow server, StatRow reference)
    {
        // check_status is empty while maintenance pauses the checks; chkfail is there whenever checks are configured.
        bool health = reference["chkfail"] != "" || reference.CheckStatus != "", agent = reference.AgentStatus != "";
        bool maintenance = server.Status.StartsWith("MAINT", StringComparison.Ordinal);
        bool done = maintenance || ((!health || HasEnded(reference.CheckStatus)) && (!agent || HasEnded(reference.AgentStatus)));
        bool up = server.Status.StartsWith("UP", StringComparison.Ordinal) || server.Status == "no check";
        string last = (reference.CheckStatus, reference.AgentStatus) switch
        {
            ({ Length: > 0 } status, _) => Described(status, reference.LastCheck),
            (_, { Length: > 0 } status) => Described(status, reference.LastAgent),
            _ => "",
        };
        return new(server.Proxy, server.Name, server.Status, up, health || agent, done, maintenance, last);
    }

    private static bool HasEnded(string status) => WithoutStar(status) is not ("" or "INI" or "UNK");

    private static string WithoutStar(string status) => status.StartsWith("* ", StringComparison.Ordinal) ? status[2..] : status;

    private static string Described(string status, string said) => said == "" ? WithoutStar(status) : $"{WithoutStar(status)}: {said}";
}
