using System.Collections.Immutable;
using System.Globalization;
using System.Net;
using FlipController.Core;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// Where a configuration connects to itself, such as a TLS frontend whose server is another frontend: each copy must reach its
/// own. A socket in the file system or an abstract one is renamed on both sides; a TCP address is followed to its private port.
/// <code>
///   server next abns@next   ──►  bind abns@next              server next abns@next.g00007  ──►  bind abns@next.g00007
///   server web 127.0.0.1:81 ──►  bind 127.0.0.1:81           server web 127.0.0.1:21003    ──►  bind 127.0.0.1:21003
/// </code>
/// </summary>
internal sealed class InternalLoops
{
    private readonly SlotCopy _copy;
    private readonly HashSet<string> _asked = new(StringComparer.Ordinal);
    private readonly HashSet<string> _moved = new(StringComparer.Ordinal);
    private readonly ImmutableArray<string>.Builder _ownSockets = ImmutableArray.CreateBuilder<string>();
    private readonly HashSet<Service> _services = [];
    private bool _choosesDestinations;

    public InternalLoops(SlotCopy copy, ImmutableArray<ConfigurationSection> sections)
    {
        _copy = copy;
        foreach (ConfigurationSection section in sections)
            foreach (PlacedLine placed in section.Lines)
            {
                _choosesDestinations |= placed.Line[1].StartsWith("set-dst", StringComparison.Ordinal);
                foreach (Target target in Targets(section, placed.Line))
                    if (target.Socket.Kind is AddressKind.Unix or AddressKind.Abstract) _asked.Add(KeyOf(target.Socket, ""));
            }
    }

    /// <summary>Paths outside the slot's directory at which the copy listens.</summary>
    public ImmutableArray<string> OwnSockets => _ownSockets.ToImmutable();

    /// <summary>What this configuration itself connects to over TCP.</summary>
    public ImmutableArray<Service> Services => [.. _copy.Ports.Services.Select(p => p.Service).Where(_services.Contains)];

    /// <param name="Port">The word with the port alone, when it is not part of the address.</param>
    private readonly record struct Target(Word? Address, SocketAddress Socket, Word? Port);

    /// <summary>The new name of a socket that this configuration itself connects to; null: it is none, or nobody's here.</summary>
    public string? Moved(SocketAddress socket, string prefix)
    {
        if (socket.Kind is not (AddressKind.Unix or AddressKind.Abstract)) return null;
        string key = KeyOf(socket, prefix);
        if (!_asked.Contains(key) && !(WithoutChroot(key) is { } inside && _asked.Contains(inside))) return null;
        _moved.Add(key);
        if (socket.Kind == AddressKind.Unix && (prefix + socket.Path).StartsWith('/'))
            _ownSockets.Add(HaproxyEnvironment.Shown(_copy.Beside(prefix + socket.Path)));
        return _copy.Beside(socket.Text);
    }

    /// <summary>After every listener has its place: whatever connects to one of them goes there.</summary>
    public void Follow(ImmutableArray<ConfigurationSection> sections)
    {
        HashSet<string> inside = [.. _moved.Select(WithoutChroot).OfType<string>()];
        foreach (ConfigurationSection section in sections)
            foreach (PlacedLine placed in section.Lines)
                foreach (Target target in Targets(section, placed.Line))
                {
                    if (target.Socket.Kind == AddressKind.Tcp) FollowPort(placed, target);
                    else if (KeyOf(target.Socket, "") is var key && (_moved.Contains(key) || inside.Contains(key)))
                    {
                        _copy.ChangeOf(placed).Replace(target.Address!, _copy.Beside(target.Socket.Text));
                        // What listened there is closed by a soft stop; unlike a path or a port, nobody else can be put behind the name.
                        if (target.Socket.Kind == AddressKind.Abstract)
                            _copy.Note(placed, $"\"{target.Socket.Text}\" is an abstract name: a client that stays connected to a "
                                + "generation after its soft stop gets an error once it needs a new connection to it; the path of a "
                                + "unix socket, or 127.0.0.1 with a port, has no such limit");
                    }
                }
    }

    private static string KeyOf(SocketAddress socket, string prefix)
    {
        if (socket.Kind == AddressKind.Abstract) return $"\0{socket.Path}";
        string path = prefix + socket.Path;
        // path_resolution(7): several slashes are one.
        while (path.Contains("//", StringComparison.Ordinal)) path = path.Replace("//", "/", StringComparison.Ordinal);
        return path;
    }

    /// <summary>A path as HAProxy sees it once it runs: it binds before it changes its root, and connects after that.</summary>
    private string? WithoutChroot(string path) => _copy.Chroot.TrimEnd('/') is { Length: > 0 } root
        && path.StartsWith(root + "/", StringComparison.Ordinal) ? path[root.Length..] : null;

    private void FollowPort(PlacedLine placed, Target target)
    {
        SocketAddress socket = target.Socket;
        string text = target.Port is { } own ? own.Text : socket.PortStart >= 0 ? socket.Text[socket.PortStart..] : "";
        if (!int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int port))
        {
            if (target.Port is null && socket.Literal is { } here && IPAddress.IsLoopback(here))
                _copy.Note(placed, $"\"{socket.Text}\" takes its port from the client's; where this configuration listens there itself, "
                    + "the connection goes to the generation that has the NEW connections");
            return;
        }
        if (ReachedAt(socket, port) is not { } reached) return;
        _services.Add(reached.Service);
        int moved = reached.PrivatePort;
        LineChange change = _copy.ChangeOf(placed);
        if (target.Port is { } alone) { change.Replace(alone, $"{moved}"); return; }
        Word word = target.Address!;
        int from = socket.PortStart, to = socket.Text.Length;
        if (word.Address == word.Text && word.IsPlain(placed.Line.Text, from, to))
        {
            change.ReplacePart(word, from, to, $"{moved}");
            change.Say($"{socket.Text[..from]}{moved}", socket.Text);
        }
        else change.Replace(word, $"{socket.Text[..from]}{moved}");
    }

    private ServicePort? ReachedAt(SocketAddress socket, int port)
    {
        if (!_copy.Ports.Has(port)) return null;
        if (socket.Host == "localhost") return _copy.Ports.Reached(IPAddress.Loopback, port) ?? _copy.Ports.Reached(IPAddress.IPv6Loopback, port);
        if (socket.Literal is not { } address) return null;
        // No address is the one the client has connected to, which is this host's own unless a rule chooses another.
        if (address.Equals(IPAddress.Any) || address.Equals(IPAddress.IPv6Any))
            return _choosesDestinations ? null : _copy.Ports.Reached(address, port);
        return _copy.Ports.Reached(address, port);
    }

    private static IEnumerable<Target> Targets(ConfigurationSection section, ConfigurationLine line)
    {
        switch (line[0])
        {
            case "server" when section.Kind is "listen" or "backend" or "ring": return Server(line, 2);
            case "server-template" when section.Kind is "listen" or "backend": return Server(line, 3);
            case "dispatch": return Address(line, 1);
            case "mailer": return Address(line, 2);
            // A log goes over TCP only when it says so; otherwise such an address is of datagrams.
            case "log" when line[1].StartsWith("tcp", StringComparison.Ordinal) || line[1].StartsWith("stream+", StringComparison.Ordinal):
                return Address(line, 1);
            case "tcp-check" or "http-check" when line[1] == "connect": return Parameters(line, 2, null);
            default: return [];
        }
    }

    private static IEnumerable<Target> Address(ConfigurationLine line, int index) =>
        line.Words.Length > index && line.Words[index].Address is { Length: > 0 } text
            ? [new(line.Words[index], SocketAddress.Read(text), null)]
            : [];

    private static IEnumerable<Target> Server(ConfigurationLine line, int index)
    {
        // In another namespace, or from where a proxy stands, an address is another one.
        for (int i = index + 1; i < line.Words.Length; i++)
            if (line[i] is "namespace" or "socks4") return [];
        Target[] address = [.. Address(line, index)];
        return line.Words.Length > index + 1 && address.Length > 0
            ? address.Concat(Parameters(line, index + 1, address[0].Socket))
            : address;
    }

    /// <summary>Addresses among the parameters of a server or a check's connection (configuration manual, 5.2 "Server options").</summary>
    private static IEnumerable<Target> Parameters(ConfigurationLine line, int first, SocketAddress? server)
    {
        Word? port = null, agentPort = null;
        SocketAddress? check = server, agent = server;
        for (int i = first; i + 1 < line.Words.Length; i++)
        {
            switch (line[i])
            {
                case "addr" or "agent-addr":
                    foreach (Target target in Address(line, i + 1))
                    {
                        yield return target;
                        if (line[i] == "addr") check = target.Socket;
                        else if (line[i] == "agent-addr") agent = target.Socket;
                    }
                    i++;
                    break;
                case "port": port = line.Words[++i]; break;
                case "agent-port": agentPort = line.Words[++i]; break;
            }
        }
        if (port is not null && check is { Kind: AddressKind.Tcp } checkedAt) yield return new(null, checkedAt, port);
        if (agentPort is not null && agent is { Kind: AddressKind.Tcp } agentAt) yield return new(null, agentAt, agentPort);
    }
}
