using System.Collections.Immutable;
using System.Net;
using FlipController.Core;

namespace FlipController.Linux.Haproxy;

/// <summary>Everything that listens: each address moves to a private port, each socket of our own to a place of its own.</summary>
internal sealed class ListenerCopy(SlotCopy copy, InternalLoops loops)
{
    private readonly ImmutableArray<RenderedBind>.Builder _binds = ImmutableArray.CreateBuilder<RenderedBind>();
    private readonly ImmutableArray<UnixFront>.Builder _fronts = ImmutableArray.CreateBuilder<UnixFront>();
    private int _statsSockets;
    private const string DatagramBind = "dgram-bind";

    public ImmutableArray<RenderedBind> Binds => _binds.ToImmutable();

    /// <summary>Unix sockets that outsiders connect to.</summary>
    public ImmutableArray<UnixFront> Fronts => _fronts.ToImmutable();

    /// <summary>There is something whose connections can be moved.</summary>
    public bool HasFront { get; private set; }

    /// <summary>The first line that binds QUIC.</summary>
    public PlacedLine? Quic { get; private set; }

    public void Copy(ConfigurationSection section, ProxySettings? settings)
    {
        // A disabled proxy never listens (src/proxy.c), and nothing enables it later.
        if (settings is { Disabled: true }) return;
        switch (section.Kind)
        {
            case "frontend" or "listen": Front(section, settings!); break;
            // "'bind' ignored because backend has no frontend capability", says HAProxy, and listens all the same.
            case "backend": BindLines(section); break;
            case "peers": Peers(section); break;
            case "log-forward": LogForward(section); break;
            case "program":
                copy.Refuse(section.Header,
                    "a program section needs master-worker mode; FlipController starts and watches HAProxy itself");
                break;
            case "acme":
                copy.Refuse(section.Header,
                    "an acme section would order the same certificates from both processes; order them outside HAProxy");
                break;
        }
    }

    private bool BindLines(ConfigurationSection section, string keyword = "bind")
    {
        bool bound = false;
        foreach (PlacedLine placed in section.Lines)
            if (placed.Line[0] == keyword && placed.Line[1] != "") bound |= Bind(section, placed, placed.Line.Words[1], 2);
        return bound;
    }

    private void Front(ConfigurationSection section, ProxySettings settings)
    {
        bool bound = BindLines(section);
        // Before 2.3 an address could stand behind the name.
        ConfigurationLine header = section.Header.Line;
        if (header[2] is not ("" or "from")) bound |= Bind(section, section.Header, header.Words[2], 3);
        HasFront |= bound;

        // From 2.4 a soft stop closes idle client connections at once, against which a client's next request may run; with this
        // option, there since 2.6, a response tells each of them. In TCP mode HAProxy warns of it (src/cfgparse.c).
        if (bound && settings is { Http: true, IdleCloseSaid: false } && copy.Surroundings.Build?.Version.IsAtLeast(2, 6) != false)
            copy.ChangeOf(section.Header).Below.Add("    option idle-close-on-response");
    }

    private void Peers(ConfigurationSection section)
    {
        // Without this host in it HAProxy removes the section, and listens at none of its addresses (src/cfgparse.c).
        if (!section.Lines.Any(l => l.Line[0] is "peer" or "server" && (l.Line.Words.Length > 1 && l.Line.Words[1].IsUnknown || IsLocal(l.Line))))
            return;
        int others = 0;
        foreach (PlacedLine placed in section.Lines)
        {
            ConfigurationLine line = placed.Line;
            if (line[0] == "bind" && line[1] != "") Bind(section, placed, line.Words[1], 2);
            // "server" beside a bind line has no address; "peer" binds the local one (src/cfgparse.c, cfg_parse_peers).
            else if (line[0] is "peer" or "server" && line[1] != "")
            {
                if (line.Words[1].IsUnknown) RefuseUnknown(placed, line[0], line[1]);
                else if (!IsLocal(line)) others++;
                else if (line[0] == "peer" && line[2] != "") Bind(section, placed, line.Words[2], 3);
            }
        }
        if (others == 0)
            copy.Note(section.Header, $"{section.Name} knows no node but this one; its stick tables begin empty with each generation");
    }

    private bool IsLocal(ConfigurationLine line) => HaproxyEnvironment.Shown(line[1]) == copy.LocalPeer;

    private void LogForward(ConfigurationSection section)
    {
        HasFront |= BindLines(section);
        HasFront |= BindLines(section, DatagramBind);
    }

    /// <summary>Our own way in does not depend on it; what others use it for goes to the copy's, or is a service.</summary>
    public void StatsSocket(ConfigurationSection section, PlacedLine placed)
    {
        if (placed.Line[2] == "") return;
        Bind(section, placed, placed.Line.Words[2], 3, "stats socket");
    }

    private void RefuseUnknown(PlacedLine placed, string keyword, string text) =>
        copy.Refuse(placed, $"{keyword} \"{text}\" holds a variable whose value is not known here; write the value itself");

    /// <returns>Whether it listens on an address that is redirected.</returns>
    private bool Bind(ConfigurationSection section, PlacedLine placed, Word word, int firstParameter, string? said = null)
    {
        string keyword = said ?? placed.Line[0];
        if (word.Address is not { } text) { RefuseUnknown(placed, keyword, word.Text); return false; }
        BindParameters parameters = BindParameters.Read(placed.Line, firstParameter, copy.OnFronts);
        if (parameters.Refusal is { } why) copy.Refuse(placed, $"{keyword} \"{text}\" {why}");

        bool isStats = said is not null, redirected = false;
        // With a variable in it the whole word is written as what it means here.
        bool whole = text != word.Text || word.Sources?.Contains(-1) == true;
        int at = 0;
        var parts = new List<string>();
        var ports = new List<(int From, int To, int Port)>();
        // As src/cfgparse.c, str2listener: what follows a last comma is nothing.
        foreach (string part in text.EndsWith(',') ? text[..^1].Split(',') : text.Split(','))
        {
            SocketAddress socket = SocketAddress.Read(part);
            string prefix = isStats ? "" : section.UnixPrefix;
            if (loops.Moved(socket, prefix) is { } renamed)
            {
                if (SocketAddress.Read(renamed) is var own && prefix.Length + own.Path.Length > MostNameBytes(own.Kind))
                    copy.Refuse(placed, $"{keyword} \"{part}\" is what this configuration connects to itself, and the copy's own name for it "
                        + $"would be longer than the {MostNameBytes(own.Kind) - prefix.Length} bytes it may have; use a shorter one");
                parts.Add(renamed);
                whole = true;
            }
            else if (isStats && OwnPlaceOf(socket) is { } ownPlace) { parts.Add(ownPlace); whole = true; }
            else if (socket.Kind == AddressKind.Unix && keyword != DatagramBind && section.Kind != "peers")
            {
                if (Front(placed, socket, prefix, keyword) is not { } front) continue;
                redirected = whole = true;
                parts.Add(front);
            }
            else if (ListenAddress.Read(socket, keyword == DatagramBind, copy.Surroundings.Resolve) is var address && address.Refusal is { } reason)
                copy.Refuse(placed, $"{keyword} \"{part}\" {reason}");
            else if (Moved(section, placed, address, parameters, keyword, firstParameter) is { } moved)
            {
                redirected = true;
                if (address.Transport == Transport.Quic) Quic ??= placed;
                parts.Add(address.On(moved));
                int from = at + socket.PortStart, to = at + part.Length;
                whole = whole || moved.Count > 1 || !address.IsLiteral || !word.IsPlain(placed.Line.Text, from, to);
                ports.Add((from, to, moved[0]));
            }
            at += part.Length + 1;
        }
        if (parts.Count == 0) return false;

        LineChange change = copy.ChangeOf(placed);
        if (whole) { change.Replace(word, string.Join(',', parts)); return redirected; }
        if (copy.OnFronts && ports.Count == parts.Count) return redirected;
        foreach (var (from, to, port) in ports) change.ReplacePart(word, from, to, $"{port}");
        change.Say(text.EndsWith(',') ? $"{string.Join(',', parts)}," : string.Join(',', parts), text);
        return redirected;
    }

    /// <summary>
    /// The generation's socket is beside the user's path: there its directory shuts out nobody else, it is below the same unix-bind
    /// prefix, and a relative link to it means the same in every mount namespace that has the directory.
    /// </summary>
    /// <returns>What the copy binds; null: it was refused.</returns>
    private string? Front(PlacedLine placed, SocketAddress socket, string prefix, string keyword)
    {
        string path = prefix + socket.Path, text = copy.Beside(socket.Text);
        string? why = !path.StartsWith('/') || path.EndsWith('/')
            ? "is not the absolute path of a file: which one it is depends on the directory HAProxy is started in; write the whole path"
            : copy.Beside(path).Length > MostNameBytes(AddressKind.Unix)
            ? $"has {path.Length} bytes, and a generation's own name beside it, under which HAProxy binds it for a moment with its process id behind, "
                + $"may have no more than 107 (sun_path, unix(7)); use a path of at most {MostNameBytes(AddressKind.Unix) - (copy.Beside(path).Length - path.Length)} bytes"
            : _fronts.Any(f => Path.GetFullPath(f.Path) == Path.GetFullPath(HaproxyEnvironment.Shown(path)))
            ? "is bound already, and only the last of several would be reached there; take it out"
            : null;
        if (why is not null)
        {
            copy.Refuse(placed, $"{keyword} \"{socket.Text}\" {why}");
            return null;
        }
        _fronts.Add(new UnixFront(HaproxyEnvironment.Shown(path), HaproxyEnvironment.Shown(copy.Beside(path))));
        return text;
    }

    /// <summary>unix(7): 108, of which one is a NUL; a path is bound under a temporary name, ".PID.tmp" (src/sock_unix.c).</summary>
    private static int MostNameBytes(AddressKind kind) => kind == AddressKind.Unix ? 107 - ".4194304.tmp".Length : 107;

    private string? OwnPlaceOf(SocketAddress socket) => socket.Kind switch
    {
        AddressKind.Unix => copy.StatsSocket(++_statsSockets),
        AddressKind.Abstract => copy.Beside(socket.Text),
        _ => null,
    };

    /// <returns>A private port for each port of it; null: it was refused.</returns>
    private List<int>? Moved(
        ConfigurationSection section, PlacedLine placed, ListenAddress address, BindParameters parameters, string keyword,
        int firstParameter)
    {
        var moved = new List<int>();
        bool six = address.Address.Equals(IPAddress.IPv6Any);
        string rest = Parameters(placed.Line, firstParameter);
        for (int port = address.FirstPort; port <= address.LastPort; port++)
        {
            var service = new Service(address.Address, port, parameters.V6Only && six, address.Transport);
            if (copy.Ports.For(service, parameters.Interface, out string? fault) is not { } given)
            {
                copy.Refuse(placed, $"{keyword} \"{address.Socket.Text}\" {fault}");
                return null;
            }
            moved.Add(given);
            _binds.Add(new(service, given, section.Name, copy.Files[placed.File].Path, placed.Number, rest));
        }
        return moved;
    }

    private static string Parameters(ConfigurationLine line, int first) => line.Count > first
        ? HaproxyEnvironment.Shown(line.Text[line.Words[first].Start..line.Words[line.Count - 1].End])
        : "";
}
