using System.Globalization;
using System.Net;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Tests.Haproxy.Grammar;

/// <summary>
/// Everything that listens in a namespace, as the kernel tells it: TCP by sock_diag, UDP and unix from /proc/net (a namespace of a
/// test's own has nobody else).
/// </summary>
/// <param name="Udp">Ports that were asked for: those the kernel chose, for sending logs and questions, are not among them.</param>
/// <param name="Unix">Paths, and with an @ abstract names.</param>
internal sealed partial record Listening(IReadOnlySet<Service> Tcp, IReadOnlySet<int> Udp, IReadOnlySet<string> Unix)
{
    private const int FirstChosenPort = 32768; // net.ipv4.ip_local_port_range

    /// <summary>Of the namespace of the calling thread.</summary>
    public static Listening Now()
    {
        using var sockets = new SockDiag();
        HashSet<Service> tcp = [.. sockets.Listeners().Select(s => new Service(s.Local.Address, s.Local.Port, s.V6Only == true && s.Local.Address.Equals(IPAddress.IPv6Any)))];
        HashSet<int> udp = [.. new[] { "udp", "udp6" }.SelectMany(f => Rows(f)).Select(r => int.Parse(r[1].Split(':')[1], NumberStyles.HexNumber, CultureInfo.InvariantCulture)).Where(p => p < FirstChosenPort)];
        HashSet<string> unix = [.. Rows("unix").Where(r => r.Length > 7).Select(r => Temporary().Replace(r[7], ""))];
        return new(tcp, udp, unix);
    }

    private static IEnumerable<string[]> Rows(string table) =>
        File.ReadLines($"/proc/thread-self/net/{table}").Skip(1).Select(l => l.Split(' ', StringSplitOptions.RemoveEmptyEntries));

    /// <summary>HAProxy binds a path under a name of its own and renames it (src/proto_uxst.c); the kernel keeps the first.</summary>
    [GeneratedRegex(@"\.\d+\.tmp$")]
    private static partial Regex Temporary();

    /// <summary>What is wrong with a copy that listens like this; nothing: it is as the projection said, and apart from the original.</summary>
    public IEnumerable<string> Faults(RenderedConfiguration copy, Listening original, string slot)
    {
        HashSet<Service> expected = [.. copy.Services.Where(s => s.Service.IsTcp).Select(s => s.Service with { Port = s.PrivatePort })];
        if (!expected.SetEquals(Tcp)) yield return $"the copy listens on {List(Tcp)} and not on {List(expected)}";
        HashSet<Service> services = [.. copy.Services.Select(s => s.Service).Where(s => s.IsTcp)];
        if (!services.SetEquals(original.Tcp)) yield return $"the original listens on {List(original.Tcp)}, its services are {List(services)}";
        HashSet<int> datagrams = [.. copy.Services.Where(s => !s.Service.IsTcp).Select(s => s.PrivatePort)];
        if (!datagrams.SetEquals(Udp)) yield return $"the copy takes UDP {List(Udp)} and not {List(datagrams)}";
        HashSet<int> fronts = [.. copy.Services.Select(s => s.Service).Where(s => !s.IsTcp).Select(s => s.Port)];
        if (!fronts.SetEquals(original.Udp)) yield return $"the original takes UDP {List(original.Udp)}, its services have {List(fronts)}";
        if (Udp.Overlaps(original.Udp)) yield return $"both take UDP {List(Udp.Intersect(original.Udp))}";
        if (Unix.Overlaps(original.Unix)) yield return $"both listen on {List(Unix.Intersect(original.Unix))}";
        if (Unix.FirstOrDefault(p => p[0] != '@' && !p.StartsWith(slot + "/", StringComparison.Ordinal) && !copy.OwnSockets.Contains(p)) is { } foreign)
            yield return $"the copy listens on {foreign}";
        // One path on two lines is one socket in the end; the copy may have two.
        if (Unix.Count < original.Unix.Count + 1) yield return $"the copy listens on {List(Unix)}, the original on {List(original.Unix)}";
    }

    private static string List<T>(IEnumerable<T> all) => "{" + string.Join(", ", all.Select(a => $"{a}").Order()) + "}";
}
