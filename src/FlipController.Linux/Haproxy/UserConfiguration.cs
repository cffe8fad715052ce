using System.Collections.Immutable;
using System.Text;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// The user's files as HAProxy reads them (src/cfgparse.c, readcfgfile): from the first line to the last, with the variables as
/// they are at each, and without the lines that no condition takes.
/// </summary>
/// <param name="Lines">Every line, for the copy.</param>
/// <param name="Sections">The lines that count.</param>
internal sealed record UserConfiguration(ImmutableArray<PlacedLine> Lines, ImmutableArray<ConfigurationSection> Sections)
{
    public static UserConfiguration Read(
        IReadOnlyList<SourceFile> files, string localPeer, HaproxySurroundings surroundings, Action<PlacedLine, string> refuse)
    {
        var reading = new ConfigurationReading(localPeer, surroundings, refuse);
        for (int i = 0; i < files.Count; i++) reading.Read(i, files[i]);
        return reading.Result();
    }
}

/// <summary>One reading under way.</summary>
internal sealed class ConfigurationReading(string localPeer, HaproxySurroundings surroundings, Action<PlacedLine, string> refuse)
{
    // src/*.c, REGISTER_CONFIG_SECTION, 2.6 to 3.4. Another first word is a keyword of the section it stands in.
    private static readonly HashSet<string> s_kinds = new(StringComparer.Ordinal)
    {
        "global", "defaults", "frontend", "listen", "backend", "peers", "mailers", "userlist", "resolvers", "cache", "program",
        "ring", "log-forward", "log-profile", "http-errors", "fcgi-app", "namespace_list", "crt-store", "acme", "traces",
        "healthcheck",
    };

    // Keywords of "global" that end what enabled() asks for (src/cfgcond.c, cfg_eval_cond_enabled).
    private static readonly Dictionary<string, string> s_switches = new(StringComparer.Ordinal)
    {
        ["nopoll"] = "POLL", ["noepoll"] = "EPOLL", ["nokqueue"] = "KQUEUE", ["noevports"] = "EVPORTS", ["nosplice"] = "SPLICE",
        ["nogetaddrinfo"] = "GETADDRINFO", ["noreuseport"] = "REUSEPORT", ["tune.disable-fast-forward"] = "FAST-FORWARD",
    };

    private readonly HaproxyEnvironment _environment = new(surroundings, localPeer);
    private readonly ImmutableArray<PlacedLine>.Builder _lines = ImmutableArray.CreateBuilder<PlacedLine>();
    private readonly ImmutableArray<ConfigurationSection>.Builder _sections = ImmutableArray.CreateBuilder<ConfigurationSection>();
    private readonly ImmutableArray<PlacedLine>.Builder _body = ImmutableArray.CreateBuilder<PlacedLine>();
    private readonly Stack<Branch> _branches = [];
    private readonly HashSet<string> _switchedOff = new(StringComparer.Ordinal);
    private string _kind = "", _unixPrefix = "";

    /// <summary>One <c>.if</c> block: whether its lines count here, whether any branch of it was taken, whether none ever can be.</summary>
    private readonly record struct Branch(bool Taken, bool Over);

    public UserConfiguration Result() => new(_lines.ToImmutable(), _sections.ToImmutable());

    public void Read(int number, SourceFile file)
    {
        string text = Encoding.Latin1.GetString(file.Content);
        _environment.File = HaproxyEnvironment.Bytes(file.Path);
        _environment.Section = "";
        int line = 0;
        for (int at = 0; at < text.Length;)
        {
            int end = text.IndexOf('\n', at) is >= 0 and int newline ? newline + 1 : text.Length;
            _environment.Line = ++line;
            var placed = new PlacedLine(number, line, ConfigurationLine.Read(text[at..end], _environment));
            _lines.Add(placed);
            if (placed.Line[0] != "" && !IsDirective(placed) && Counts) Add(placed);
            at = end;
        }
        // Sections and conditions end with their file (src/cfgparse.c, readcfgfile: both are the file's own).
        Close();
        _kind = "";
        _branches.Clear();
    }

    private bool Counts => !_branches.TryPeek(out Branch branch) || branch.Taken;

    private void Close()
    {
        if (_body.Count > 0) _sections.Add(new(_kind, _body.DrainToImmutable(), _unixPrefix));
    }

    private void Add(PlacedLine placed)
    {
        string first = placed.Line[0];
        if (placed.Line.Words[0].IsUnknown)
            refuse(placed, $"{first} is a keyword from a variable whose value is not known here; write the keyword itself");
        if (s_kinds.Contains(first))
        {
            Close();
            _kind = first;
            _environment.Section = placed.Line[1] is { Length: > 0 } name ? name : first;
        }
        if (_kind == "global") Global(placed.Line);
        _body.Add(placed);
    }

    private bool IsDirective(PlacedLine placed)
    {
        string first = placed.Line[0];
        if (first[0] != '.') return false;
        switch (first)
        {
            case ".if":
                bool above = Counts;
                _branches.Push(above ? new(IsTrue(placed), false) : new(false, true));
                return true;
            case ".elif" when _branches.TryPop(out Branch branch):
                bool over = branch.Over || branch.Taken;
                _branches.Push(new(!over && IsTrue(placed), over));
                return true;
            case ".else" when _branches.TryPop(out Branch branch):
                _branches.Push(new(!branch.Over && !branch.Taken, true));
                return true;
            case ".endif":
                _branches.TryPop(out _);
                return true;
        }
        // .notice and the like say something; what else begins with a dot HAProxy refuses.
        return true;
    }

    private bool IsTrue(PlacedLine placed)
    {
        ImmutableArray<Word> words = placed.Line.Words;
        string condition = string.Join(' ', words.Skip(1).Select(w => w.Text));
        bool? holds = words.Any(w => w.IsUnknown) ? null
            : ConfigurationCondition.Holds(condition, _environment, surroundings, _switchedOff);
        if (holds is null)
            refuse(placed, $"{placed.Line[0]} \"{condition}\" has no answer here; "
                + "HAProxy does not understand it, or it asks for what only a running HAProxy knows");
        return holds == true;
    }

    private void Global(ConfigurationLine line)
    {
        switch (line[0])
        {
            case "setenv" or "presetenv" when line[2] != "":
                if (line.Words[1].IsUnknown) break;
                _environment.Set(line[1], line.Words[2].IsUnknown ? null : line[2], line[0] == "setenv");
                break;
            case "unsetenv":
                for (int i = 1; i < line.Count; i++) _environment.Unset(line[i]);
                break;
            case "resetenv": _environment.Keep([.. line.Words.Skip(1).Take(line.Count - 1).Select(w => w.Text)]); break;
            case "localpeer" when line[1] != "": _environment.Set("HAPROXY_LOCALPEER", line[1]); break;
            case "unix-bind":
                for (int i = 1; i + 1 < line.Count; i++)
                    if (line[i] == "prefix" && _unixPrefix == "") _unixPrefix = line[i + 1];
                break;
            case "tune.fast-forward" when line[1] == "off": _switchedOff.Add("FAST-FORWARD"); break;
            case var keyword when s_switches.TryGetValue(keyword, out string? option): _switchedOff.Add(option); break;
        }
    }
}
