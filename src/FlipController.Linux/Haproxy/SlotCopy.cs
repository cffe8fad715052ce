using System.Collections.Immutable;
using System.Net;
using System.Text;
using FlipController.Core;

namespace FlipController.Linux.Haproxy;

/// <summary>One rendering under way.</summary>
internal sealed class SlotCopy(IReadOnlyList<SourceFile> files, SlotPlace place)
{
    private readonly List<ConfigurationFault> faults = [];
    private readonly Dictionary<PlacedLine, LineChange> changes = new(ReferenceEqualityComparer.Instance);
    private readonly Dictionary<int, string> heads = [];
    private readonly PrivatePorts ports = new(place.Ports, place.TakenPorts);
    private string localPeer = place.LocalPeer;
    private int statsSockets, rings;
    private bool hasFront;

    public ProjectionResult Render()
    {
        ImmutableArray<PlacedLine> lines = [.. files.SelectMany((file, i) => LinesOf(file).Select((text, n) =>
            new PlacedLine(i, n + 1, ConfigurationLine.Read(text))))];
        ImmutableArray<ConfigurationSection> sections = ConfigurationSection.Cut(lines);
        IReadOnlyDictionary<ConfigurationSection, ProxySettings> settings = ProxySettings.Of(sections);

        foreach (PlacedLine placed in lines) RefuseUnreadable(placed);
        foreach (ConfigurationSection section in sections)
        {
            switch (section.Kind)
            {
                case "global": foreach (PlacedLine placed in section.Lines) Global(placed); break;
                case "frontend" or "listen": Front(section, settings[section]); break;
                case "backend": Backend(section, settings[section]); break;
                case "peers": Peers(section, settings[section]); break;
                case "ring": foreach (PlacedLine placed in section.Lines) Ring(placed); break;
                case "log-forward": foreach (PlacedLine placed in section.Lines) LogForward(placed); break;
                case "program":
                    Refuse(section.Lines[0],
                        "a program section needs master-worker mode; FlipController starts and watches HAProxy itself");
                    break;
                case "acme":
                    Refuse(section.Lines[0],
                        "an acme section would order the same certificates from both processes; order them outside HAProxy");
                    break;
            }
        }
        DefaultPath(sections);
        SharedTables? tables = place.Tables is { } self ? SharedTables.Of(sections, settings, localPeer, self) : null;
        foreach (var (placed, edit) in tables?.Edits ?? []) ChangeOf(placed).Edits.Add(edit);
        if (faults.Count == 0 && !hasFront)
            faults.Add(new(files.Count > 0 ? files[0].Path : "", 1, "haproxy",
                "no frontend or listen section binds a TCP address; there is nothing to move connections to"));
        if (faults.Count > 0)
            return new(null, [.. faults.OrderBy(f => FileNumber(f.File)).ThenBy(f => f.Line).Distinct()]);

        var rendered = ImmutableArray.CreateBuilder<RenderedFile>();
        rendered.Add(OwnFile(tables?.Section ?? ""));
        ILookup<int, PlacedLine> linesOf = lines.ToLookup(l => l.File);
        for (int i = 0; i < files.Count; i++) rendered.Add(Copy(i, linesOf[i]));
        return new(new(rendered.ToImmutable(), ports.Services, tables is { Section: not "" } ? null : localPeer)
        {
            Notes = [.. (tables?.Notes ?? []).Select(n => $"{files[n.Line.File].Path}:{n.Line.Number}: {Shown(n.Text)}")],
        }, []);
    }

    private int FileNumber(string path)
    {
        for (int i = 0; i < files.Count; i++) if (files[i].Path == path) return i;
        return 0;
    }

    private static IEnumerable<string> LinesOf(SourceFile file)
    {
        string text = Encoding.Latin1.GetString(file.Content);
        for (int at = 0; at < text.Length;)
        {
            int end = text.IndexOf('\n', at) is >= 0 and int newline ? newline + 1 : text.Length;
            yield return text[at..end];
            at = end;
        }
    }

    private void Refuse(PlacedLine placed, string why) => faults.Add(new(files[placed.File].Path, placed.Number, "haproxy", Shown(why)));

    private LineChange ChangeOf(PlacedLine placed) =>
        changes.TryGetValue(placed, out LineChange? change) ? change : changes[placed] = new LineChange();

    private string Under(string name) => Bytes($"{place.Directory}/{name}");

    /// <summary>Text of ours as the characters of the files: one for each UTF-8 byte.</summary>
    private static string Bytes(string text) => Encoding.Latin1.GetString(Encoding.UTF8.GetBytes(text));

    /// <summary>Characters of the files as text for a person.</summary>
    private static string Shown(string bytes) => Encoding.UTF8.GetString(Encoding.Latin1.GetBytes(bytes));

    // Whatever decides only at run time which lines count, or what they are.
    private void RefuseUnreadable(PlacedLine placed)
    {
        if (placed.Line[0] == ".if")
            Refuse(placed, ".if decides only when HAProxy starts which lines count; write the lines that apply here");
        else if (placed.Line.Words.Length > 0 && placed.Line.Words[0].HasVariable)
            Refuse(placed, $"{placed.Line[0]} is a keyword from an environment variable; write the keyword itself");
    }

    private void Global(PlacedLine placed)
    {
        ConfigurationLine line = placed.Line;
        switch (line[0])
        {
            case "stats" when line[1] == "socket": StatsSocket(placed); break;
            case "pidfile":
                // -p is passed, beside which HAProxy alerts of a second one (src/cfgparse-global.c).
                ChangeOf(placed).Drop = true;
                break;
            case "localpeer" when line[1] != "":
                // -L is passed, which makes HAProxy warn of such a line (src/cfgparse-global.c).
                if (line.Words[1].HasVariable) RefuseVariable(placed, "localpeer", line[1]);
                else (localPeer, ChangeOf(placed).Drop) = (Shown(line[1]), true);
                break;
            case "master-worker":
                Refuse(placed, "master-worker puts a process of its own between FlipController and HAProxy; remove it, "
                    + "FlipController starts and watches HAProxy itself");
                break;
            case "nbproc" when line[1] != "1":
                Refuse(placed, "nbproc makes several processes of one configuration; use nbthread");
                break;
            case "grace":
                // The copy would go on listening on private ports that the next generation of its slot already uses.
                Refuse(placed, "grace keeps a stopped process listening; remove it, the undo window of FlipController takes its place");
                break;
            case "shm-stats-file":
                Refuse(placed, "shm-stats-file makes both processes count in the same memory; their error rates could not be told apart");
                break;
        }
    }

    private void StatsSocket(PlacedLine placed)
    {
        if (placed.Line.Words.Length < 3) return;
        Word word = placed.Line.Words[2];
        if (HasVariable(word)) RefuseVariable(placed, "stats socket", word.Text);
        else if (word.Text.Split(',').All(BindAddress.IsUnix))
            ChangeOf(placed).Replace(word, ConfigurationLine.Quote(string.Join(',', word.Text.Split(',').Select(_ =>
                Bytes(place.StatsSocket(++statsSockets))))));
        else Refuse(placed, $"stats socket \"{word.Text}\" is not the path of a unix socket, and both processes would bind it; use a path");
    }

    private void Ring(PlacedLine placed)
    {
        // -c alone already renames an existing backing file (configuration manual, 3.9 "Rings").
        if (placed.Line[0] == "backing-file" && placed.Line[1] != "")
            ChangeOf(placed).Replace(placed.Line.Words[1], ConfigurationLine.Quote(Under($"ring-{++rings}")));
    }

    private void LogForward(PlacedLine placed)
    {
        if (placed.Line[0] is "bind" or "dgram-bind")
            Refuse(placed, $"{placed.Line[0]} in a log-forward section takes logs, which are not redirected; "
                + "forward them in a process of their own");
    }

    private void Front(ConfigurationSection section, ProxySettings settings)
    {
        // A disabled proxy never listens (src/proxy.c), and nothing enables it later.
        if (settings.Disabled) return;
        bool bound = false;
        foreach (PlacedLine placed in section.Lines)
            if (placed.Line[0] == "bind" && placed.Line.Words.Length > 1) bound |= Bind(placed, placed.Line.Words[1], 2);
        hasFront |= bound;

        // From 2.4 a soft stop closes idle client connections at once, against which a client's next request may run; with this
        // option a response tells each of them. In TCP mode HAProxy warns of it (src/cfgparse.c, check_config_validity).
        if (bound && settings is { Http: true, IdleCloseSaid: false })
            ChangeOf(section.Lines[0]).Below = "    option idle-close-on-response";
    }

    private void Backend(ConfigurationSection section, ProxySettings settings)
    {
        // "'bind' ignored because backend has no frontend capability", says HAProxy 2.6, and listens all the same.
        foreach (PlacedLine placed in section.Lines)
            if (placed.Line[0] == "bind" && placed.Line[1] != "" && !settings.Disabled)
                Refuse(placed, $"bind \"{placed.Line[1]}\" stands in a backend, where HAProxy ignores it and yet listens; remove the line");
    }

    private void Peers(ConfigurationSection section, ProxySettings settings)
    {
        if (settings.Disabled) return;
        foreach (PlacedLine placed in section.Lines)
        {
            ImmutableArray<Word> words = placed.Line.Words;
            if (placed.Line[0] == "bind" && words.Length > 1) Bind(placed, words[1], 2);
            // "server" beside a bind line has no address; "peer" binds the local one (src/cfgparse.c, cfg_parse_peers).
            else if (placed.Line[0] == "peer" && words.Length > 2)
            {
                if (words[1].HasVariable) RefuseVariable(placed, "peer", words[1].Text);
                else if (Shown(words[1].Text) == localPeer) Bind(placed, words[2], 3);
            }
        }
    }

    private static bool HasVariable(Word word) => word.HasVariable || word.Text.Contains('$', StringComparison.Ordinal);

    private void RefuseVariable(PlacedLine placed, string keyword, string text) =>
        Refuse(placed, $"{keyword} \"{text}\" holds an environment variable, whose value is not known here; write the value itself");

    private bool Bind(PlacedLine placed, Word word, int firstParameter)
    {
        string keyword = placed.Line[0];
        // src/tools.c, str2sa_range expands variables in an address even outside of quotes.
        if (HasVariable(word)) { RefuseVariable(placed, keyword, word.Text); return false; }
        BindParameters parameters = BindParameters.Read(placed.Line.Words, firstParameter);
        if (parameters.Refusal is { } why) Refuse(placed, $"{keyword} \"{word.Text}\" {why}");

        bool plain = true;
        int at = 0;
        var moves = new List<(int From, int To, int Port)>();
        // As src/cfgparse.c, str2listener: what follows a last comma is nothing.
        foreach (string part in word.Text.EndsWith(',') ? word.Text[..^1].Split(',') : word.Text.Split(','))
        {
            BindAddress address = BindAddress.Read(part);
            if (address.Refusal is { } reason) Refuse(placed, $"{keyword} \"{part}\" {reason}");
            else
            {
                var service = new Service(address.Address, address.Port, parameters.V6Only && address.Address.Equals(IPAddress.IPv6Any));
                if (ports.For(service, parameters.Interface, out string? fault) is { } port)
                {
                    int from = at + address.PortStart, to = at + part.Length;
                    plain &= word.IsPlain(placed.Line.Text, from, to);
                    moves.Add((from, to, port));
                }
                else Refuse(placed, $"{keyword} \"{part}\" {fault}");
            }
            at += part.Length + 1;
        }
        if (moves.Count == 0) return false;

        string moved = word.Text;
        foreach (var (from, to, port) in Enumerable.Reverse(moves)) moved = $"{moved[..from]}{port}{moved[to..]}";
        LineChange change = ChangeOf(placed);
        change.Say(moved, word.Text);
        if (plain)
            foreach (var (from, to, port) in moves) change.Edits.Add(new(word.Sources[from], word.Sources[to - 1] + 1, $"{port}"));
        else change.Edits.Add(new(word.Start, word.End, ConfigurationLine.Quote(moved)));
        return true;
    }

    /// <summary>
    /// Relative names resolve as they did: <c>default-path config</c> and <c>parent</c> speak of the file's own directory, which
    /// for the copy is another one, and hold for the files that follow, each with its own (src/cfgparse.c, cfg_apply_default_path).
    /// </summary>
    private void DefaultPath(ImmutableArray<ConfigurationSection> sections)
    {
        string mode = "current";
        int file = -1;
        foreach (ConfigurationSection section in sections)
        {
            if (section.Lines[0].File != file)
            {
                file = section.Lines[0].File;
                if (mode is "config" or "parent") heads[file] = $"global\n    default-path {OriginOf(file, mode)}\n";
            }
            if (section.Kind != "global") continue;
            foreach (PlacedLine placed in section.Lines)
            {
                if (placed.Line[0] != "default-path") continue;
                mode = placed.Line[1];
                if (mode is "config" or "parent") ChangeOf(placed).Replace(placed.Line.Words[1], OriginOf(file, mode));
            }
        }
    }

    private string OriginOf(int file, string mode)
    {
        string path = Bytes(files[file].Path);
        int slash = path.LastIndexOf('/');
        string directory = slash > 0 ? path[..slash] : "";
        if (mode == "parent") directory = directory == "" ? ".." : $"{directory}/..";
        return directory == "" ? "current" : $"origin {ConfigurationLine.Quote(directory)}";
    }

    private RenderedFile OwnFile(string more)
    {
        string text = $"""
            # Written by FlipController. The files that follow are copies of the user's, in the order HAProxy reads them.
            global
                stats socket {ConfigurationLine.Quote(Bytes(place.AdminSocket))} mode 600 level admin
                # First health checks begin within this time, not spread over a whole interval: the gate waits for them.
                max-spread-checks 500ms

            """.ReplaceLineEndings("\n");
        return new($"{place.Directory}/{Projection.OwnFile}", null, Encoding.Latin1.GetBytes(text + more), []);
    }

    private RenderedFile Copy(int file, IEnumerable<PlacedLine> lines)
    {
        var text = new StringBuilder();
        var origins = ImmutableArray.CreateBuilder<RenderedLine>();
        if (heads.TryGetValue(file, out string? head))
        {
            text.Append(head);
            for (int i = head.Count(c => c == '\n'); i > 0; i--) origins.Add(new(1, []));
        }
        foreach (PlacedLine placed in lines)
        {
            if (!changes.TryGetValue(placed, out LineChange? change))
            {
                text.Append(placed.Line.Text);
                origins.Add(new(placed.Number, []));
                continue;
            }
            if (change.Drop) text.Append("# ");
            text.Append(placed.Line.With(change.Edits));
            origins.Add(new(placed.Number, [.. change.Said]));
            if (change.Below is not { } below) continue;
            string ending = placed.Line.Ending;
            text.Append(ending == "" ? $"\n{below}" : $"{below}{ending}");
            origins.Add(new(placed.Number, []));
        }
        string path = files[file].Path;
        string name = path[(path.LastIndexOf('/') + 1)..];
        return new($"{place.Directory}/{file + 1}-{name}", path, Encoding.Latin1.GetBytes(text.ToString()), origins.ToImmutable());
    }
}

/// <summary>What becomes of one line.</summary>
internal sealed class LineChange
{
    public List<Edit> Edits { get; } = [];
    public List<(string Now, string Before)> Said { get; } = [];
    /// <summary>It is kept as a comment.</summary>
    public bool Drop { get; set; }
    /// <summary>A line of ours below it.</summary>
    public string? Below { get; set; }

    public void Replace(Word word, string text)
    {
        Edits.Add(new(word.Start, word.End, text));
        Say(text, word.Text);
    }

    public void Say(string now, string before) => Said.Add((now, before));
}
