using System.Collections.Immutable;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;
using FlipController.Core;

namespace FlipController.Linux.Haproxy.Runtime;

/// <summary>Reads a <see cref="RuntimeState"/>. What a version does not know of is left out.</summary>
public static partial class RuntimeReading
{
    /// <summary>Entries of maps and ACLs that are read of one process; beyond it they are not compared.</summary>
    public const int MostEntries = 500_000;

    private static readonly TimeSpan s_silence = TimeSpan.FromSeconds(10);
    private const int LongestAnswer = 128 * 1024 * 1024;

    public static async Task<RuntimeState> ReadAsync(AdminSocket admin, CancellationToken stop)
    {
        string[] said = await AdminBatch.RunAsync(admin.Path,
        [
            "show servers state", "show stat", "show info", "show map", "show acl", "show tls-keys *", "show ssl cert",
            "show ssl ca-file", "show ssl crl-file", "show ssl crt-list", "show ssl ocsp-response", "show resolvers",
            "show ssl ocsp-updates",
        ], s_silence, LongestAnswer, stop);
        var building = new Building();
        ImmutableArray<StatRow> stat = StatRow.Parse(said[1])
            ?? throw new FlipException($"cannot read the state of HAProxy on {admin.Path}: \"show stat\" answered \"{said[1].Trim()}\"");
        ReadServers(building, said[0], stat, resolversAsked: ResolverAsked().IsMatch(said[11]));
        ReadFrontends(building, stat);
        ReadLimits(building, said[2]);
        ReadTicketKeys(building, said[5]);
        await ReadContentsAsync(admin, building, said, stop);
        return building.Build(await ReadPatternsAsync(admin, said[3], said[4], stop));
    }

    private sealed class Building
    {
        private readonly Dictionary<string, ImmutableDictionary<string, string>.Builder> _settings = [], _configured = [];
        public ImmutableDictionary<string, ImmutableArray<string>>.Builder TicketKeys { get; } =
            ImmutableDictionary.CreateBuilder<string, ImmutableArray<string>>();
        public ImmutableDictionary<string, string>.Builder Addresses { get; } = ImmutableDictionary.CreateBuilder<string, string>();

        /// <param name="configured">The value in the files, where HAProxy remembers it.</param>
        public void Add(string subject, string name, string value, string? configured = null)
        {
            Of(_settings, subject)[name] = value;
            if (configured is not null) Of(_configured, subject)[name] = configured;
        }

        private static ImmutableDictionary<string, string>.Builder Of(
            Dictionary<string, ImmutableDictionary<string, string>.Builder> all, string subject) =>
            all.TryGetValue(subject, out var own) ? own : all[subject] = ImmutableDictionary.CreateBuilder<string, string>();

        private static ImmutableDictionary<string, ImmutableDictionary<string, string>> Built(
            Dictionary<string, ImmutableDictionary<string, string>.Builder> all) =>
            all.ToImmutableDictionary(p => p.Key, p => p.Value.ToImmutable());

        public RuntimeState Build(ImmutableArray<PatternSet> patterns) => new(Built(_settings), patterns)
        {
            Configured = Built(_configured), TicketKeys = TicketKeys.ToImmutable(), Addresses = Addresses.ToImmutable(),
        };
    }

    // Bits of srv_admin_state (include/haproxy/server-t.h) and of srv_check_state, srv_agent_state (include/haproxy/check-t.h).
    private const int ForcedMaintenance = 0x01, ConfiguredMaintenance = 0x04, ForcedDrain = 0x08;
    private const int CheckConfigured = 0x02, CheckEnabled = 0x04;

    /// <summary>The state file's own format (management manual, "show servers state"): columns by name, as versions add some.</summary>
    private static void ReadServers(Building building, string state, ImmutableArray<StatRow> stat, bool resolversAsked)
    {
        Dictionary<string, string> limits = [];
        foreach (StatRow row in stat.Where(r => r.Kind == StatKind.Server)) limits[$"{row.Proxy}/{row.Name}"] = row["slim"];
        Dictionary<string, int> columns = [];
        foreach (string line in state.Split('\n'))
        {
            if (line.StartsWith("# ", StringComparison.Ordinal))
            {
                string[] names = line[2..].Split(' ');
                for (int i = 0; i < names.Length; i++) columns[names[i]] = i;
                continue;
            }
            string[] cells = line.Split(' ');
            if (cells.Length < 14 || columns.Count == 0) continue;
            string? Cell(string name) => columns.TryGetValue(name, out int i) && i < cells.Length ? cells[i] : null;
            int Number(string name) => int.TryParse(Cell(name), NumberStyles.None, CultureInfo.InvariantCulture, out int n) ? n : 0;

            string server = $"{Cell("be_name")}/{Cell("srv_name")}", subject = RuntimeSubject.Server + server;
            int admin = Number("srv_admin_state"), check = Number("srv_check_state"), agent = Number("srv_agent_state");
            string weight = Cell("srv_uweight") ?? "", weightInFile = Cell("srv_iweight") ?? "";
            bool agentDecides = (agent & (CheckConfigured | CheckEnabled)) == (CheckConfigured | CheckEnabled);
            bool hasRecord = Cell("srvrecord") is { } record && record != "-";
            bool hasName = Cell("srv_fqdn") is { } name && name != "-";

            // A weight of 0 in the file is a drain to newer versions (src/server_state.c).
            bool drains = (admin & ForcedDrain) != 0 && !agentDecides && weightInFile != "0";
            building.Add(subject, "state", (admin & ForcedMaintenance) != 0 ? "maint" : drains ? "drain" : "ready",
                (admin & ConfiguredMaintenance) != 0 ? "maint" : "ready");
            if (!agentDecides && !hasRecord) building.Add(subject, "weight", weight, weightInFile);
            if (!agentDecides) building.Add(subject, "maxconn", limits.GetValueOrDefault(server) is { Length: > 0 } limit ? limit : "0");
            if ((check & CheckConfigured) != 0) building.Add(subject, "health", (check & CheckEnabled) != 0 ? "up" : "off", "up");
            if ((agent & CheckConfigured) != 0) building.Add(subject, "agent", (agent & CheckEnabled) != 0 ? "up" : "off", "up");
            building.Addresses[subject] = Cell("srv_addr") ?? "-";
            if (!hasRecord && !(hasName && resolversAsked)) building.Add(subject, "address", Cell("srv_addr") ?? "-");
            if (!hasRecord) building.Add(subject, "port", Cell("srv_port") ?? "0");
            if (!hasRecord) building.Add(subject, "name", Cell("srv_fqdn") ?? "-");
            foreach (var (setting, column) in s_plain)
                if (Cell(column) is { } value) building.Add(subject, setting, value);
        }
    }

    private static readonly (string Setting, string Column)[] s_plain =
    [
        ("ssl", "srv_use_ssl"), ("check address", "srv_check_addr"), ("check port", "srv_check_port"),
        ("agent address", "srv_agent_addr"), ("agent port", "srv_agent_port"),
    ];

    private static void ReadFrontends(Building building, ImmutableArray<StatRow> stat)
    {
        foreach (StatRow row in stat.Where(r => r.Kind == StatKind.Frontend))
        {
            string subject = RuntimeSubject.Frontend + row.Proxy;
            building.Add(subject, "state", row.Status switch { "PAUSED" => "disabled", "STOP" => "shut", _ => "enabled" });
            building.Add(subject, "maxconn", row["slim"]);
        }
    }

    private static void ReadLimits(Building building, string info)
    {
        ImmutableDictionary<string, string>? fields = HaproxyInfo.Parse(info)?.Fields;
        foreach (string name in new[] { "Maxconn", "ConnRateLimit", "SessRateLimit", "SslRateLimit" })
            if (fields?.GetValueOrDefault(name) is { } value) building.Add(RuntimeSubject.Process, name, value);
        // Told in bytes, set in kilobytes (management manual, "set rate-limit http-compression global").
        if (long.TryParse(fields?.GetValueOrDefault("CompressBpsRateLim"), NumberStyles.None, CultureInfo.InvariantCulture, out long bytes))
            building.Add(RuntimeSubject.Process, "CompressBpsRateLim", (bytes / 1024).ToString(CultureInfo.InvariantCulture));
    }

    /// <summary>
    /// <c>show tls-keys *</c>: "# ID (FILE)", then "ID.N SECRET", oldest first. A file named in several bind lines has several ids
    /// with the same keys.
    /// </summary>
    private static void ReadTicketKeys(Building building, string answer)
    {
        string? subject = null;
        foreach (string line in answer.Split('\n'))
        {
            if (TicketKeysHead().Match(line) is { Success: true } head)
            {
                subject = RuntimeSubject.TicketKeys + (head.Groups[2].Value is { Length: > 0 } file ? file : $"#{head.Groups[1].Value}");
                building.TicketKeys[subject] = [];
            }
            else if (subject is not null && TicketKey().Match(line) is { Success: true } key)
                building.TicketKeys[subject] = building.TicketKeys[subject].Add(key.Groups[1].Value);
        }
        foreach (var (keys, secrets) in building.TicketKeys)
            if (!secrets.IsEmpty) building.Add(keys, "keys", string.Join(' ', secrets.Select(Sha256)));
    }

    private static string Sha256(string text) => Convert.ToHexStringLower(SHA256.HashData(Encoding.Latin1.GetBytes(text)));

    /// <summary>What cannot be read back whole is known by a fingerprint: certificates, CA and CRL files, lists, OCSP responses.</summary>
    private static async Task ReadContentsAsync(AdminSocket admin, Building building, string[] said, CancellationToken stop)
    {
        List<(string Subject, string Command)> wanted =
        [
            // "*" in front: a transaction that nobody has committed.
            .. Names(said[6]).Select(n => (RuntimeSubject.Certificate + n, $"show ssl cert {Escaped(n)}")),
            .. Names(said[7]).Select(WithoutCount).Where(n => n != "@system-ca")
                .Select(n => (RuntimeSubject.CaFile + n, $"show ssl ca-file {Escaped(n)}")),
            .. Names(said[8]).Select(WithoutCount).Select(n => (RuntimeSubject.CrlFile + n, $"show ssl crl-file {Escaped(n)}")),
            .. Names(said[9]).Select(n => (RuntimeSubject.CertificateList + n, $"show ssl crt-list {Escaped(n)}")),
            .. OcspKey().Matches(said[10]).Select(m => m.Groups[1].Value)
                // What HAProxy renews itself (ocsp-update) is nobody's change.
                .Where(n => !said[12].Contains(n, StringComparison.Ordinal))
                .Select(n => (RuntimeSubject.OcspResponse + n, $"show ssl ocsp-response {n}")),
        ];
        string[] answers = await AdminBatch.RunAsync(admin.Path, [.. wanted.Select(w => w.Command)], s_silence, LongestAnswer, stop);
        for (int i = 0; i < answers.Length; i++)
        {
            string subject = wanted[i].Subject;
            // Whether it is in use, and its OCSP response, are no part of a certificate.
            string content = string.Join('\n', answers[i].Split('\n').Where(l => !Varying().IsMatch(l)));
            building.Add(subject, "content", Fingerprint().Match(answers[i]) is { Success: true } print
                && subject.StartsWith(RuntimeSubject.Certificate, StringComparison.Ordinal)
                ? $"{print.Groups[1].Value} {Sha256(content)}" : Sha256(content));
        }
        static IEnumerable<string> Names(string answer) => answer.Contains("nknown command", StringComparison.Ordinal)
            ? []
            : answer.Split('\n').Select(l => l.TrimEnd()).Where(l => l.Length > 0 && l[0] is not ('#' or '*' or ' '));
        static string WithoutCount(string name) => Count().Replace(name, "");
    }

    private static async Task<ImmutableArray<PatternSet>> ReadPatternsAsync(
        AdminSocket admin, string maps, string acls, CancellationToken stop)
    {
        var sets = ImmutableArray.CreateBuilder<PatternSet>();
        var seen = new HashSet<int>();
        int left = MostEntries;
        foreach (var (kind, answer) in new[] { (PatternKind.Map, maps), (PatternKind.Acl, acls) })
            foreach (string line in answer.Split('\n'))
            {
                if (PatternHead().Match(line) is not { Success: true } head) continue;
                int id = int.Parse(head.Groups[1].ValueSpan, CultureInfo.InvariantCulture);
                string file = head.Groups[2].Value, origin = head.Groups[3].Value;
                // HAProxy's own; and a file that is both a map's and an ACL's is one.
                if (origin.Contains("file 'httpclient'", StringComparison.Ordinal) || !seen.Add(id)) continue;
                int count = EntryCount().Match(line) is { Success: true } c
                    ? int.Parse(c.Groups[1].ValueSpan, CultureInfo.InvariantCulture) : 0;
                bool fits = count <= left;
                if (fits) left -= count;
                sets.Add(new PatternSet(kind, id, file.Length > 0 ? file : null, Plain(origin), fits ? [] : null));
            }
        PatternSet[] read = [.. sets.Where(s => s.Entries is not null)];
        string[] answers = await AdminBatch.RunAsync(admin.Path,
            [.. read.Select(s => $"show {(s.Kind == PatternKind.Map ? "map" : "acl")} #{s.Id}")], s_silence, LongestAnswer, stop);
        for (int i = 0; i < read.Length; i++)
            sets[sets.IndexOf(read[i])] = read[i] with { Entries = Entries(answers[i]) };
        return sets.ToImmutable();
    }

    /// <summary>"0xADDRESS PATTERN", for a map "0xADDRESS KEY VALUE".</summary>
    private static ImmutableArray<string> Entries(string answer)
    {
        var entries = ImmutableArray.CreateBuilder<string>();
        foreach (ReadOnlySpan<char> line in answer.AsSpan().EnumerateLines())
            if (line.StartsWith("0x") && line.IndexOf(' ') is > 0 and int blank) entries.Add(line[(blank + 1)..].ToString());
        return entries.ToImmutable();
    }

    /// <summary>Without the generation's own directory and the counters of newer versions.</summary>
    private static string Plain(string origin) => Counters().Replace(Directories().Replace(origin, "'"), "").TrimEnd('.', ' ');

    /// <summary>One word of a command: HAProxy splits at blanks and semicolons and takes a backslash away (src/cli.c).</summary>
    public static string Escaped(string word) => Special().Replace(word, @"\$0");

    [GeneratedRegex(@"[\\ ;\t<]")]
    private static partial Regex Special();

    [GeneratedRegex(@"^\s*sent:\s*[1-9]", RegexOptions.Multiline)]
    private static partial Regex ResolverAsked();

    [GeneratedRegex(@"^# ([0-9]+) \((.*)\)")]
    private static partial Regex TicketKeysHead();

    [GeneratedRegex(@"^\d+\.\d+ (\S+)")]
    private static partial Regex TicketKey();

    [GeneratedRegex(@"^([0-9]{1,9}) \((.*?)\) (.*)$")]
    private static partial Regex PatternHead();

    [GeneratedRegex(@"entry_cnt=([0-9]{1,9})")]
    private static partial Regex EntryCount();

    [GeneratedRegex(@"(\. )?(curr_ver|next_ver|entry_cnt)=\d+ ?")]
    private static partial Regex Counters();

    [GeneratedRegex(@"'/[^']*/")]
    private static partial Regex Directories();

    [GeneratedRegex(@" - \d+ (certificate|CRL)\(s\)$")]
    private static partial Regex Count();

    [GeneratedRegex(@"^(Status|OCSP Response Key|Filename):")]
    private static partial Regex Varying();

    [GeneratedRegex(@"^SHA1 FingerPrint: (\S+)", RegexOptions.Multiline)]
    private static partial Regex Fingerprint();

    [GeneratedRegex(@"^\s*Certificate ID key : (\S+)", RegexOptions.Multiline)]
    private static partial Regex OcspKey();
}
