using System.Globalization;
using System.Net;

namespace FlipController.Core;

/// <summary>Which connections come first.</summary>
public enum ClientOrder
{
    /// <summary>Longest without a byte of data.</summary>
    Idle,
    /// <summary>Open for longest; those whose age is not known come last.</summary>
    Age,
    /// <summary>Most bytes, both ways together.</summary>
    Bytes,
    /// <summary>By address and port.</summary>
    Peer,
}

/// <summary>How peers are summed up: a network's prefix for each family.</summary>
public sealed record NetworkPrefixes(int IPv4 = 24, int IPv6 = 64);

/// <summary>Which of a generation's connections are asked for.</summary>
/// <param name="Service">As <see cref="MatchesService"/> has it; null: every one.</param>
/// <param name="Older">Open for longer than this; one whose age is not known is not.</param>
/// <param name="Limit">How many are shown; all that match are counted.</param>
/// <param name="Networks">Null: not summed up.</param>
public sealed record ClientQuery(
    PeerFilter? Peer = null, string? Service = null, TimeSpan? Older = null, ClientOrder Order = ClientOrder.Idle, int Limit = 20,
    NetworkPrefixes? Networks = null)
{
    /// <summary>The age of every connection is needed, not only of those that are shown.</summary>
    public bool NeedsEveryAge => Older is not null || Order == ClientOrder.Age || Networks is not null;

    /// <summary><c>10.0.0.1:80</c> or <c>[::]:80 v6only</c> is that service, <c>:80</c> or <c>80</c> every one on that port.</summary>
    public static bool MatchesService(string text, Service service) =>
        int.TryParse(text.StartsWith(':') ? text.AsSpan(1) : text, NumberStyles.None, CultureInfo.InvariantCulture, out int port)
            ? service.Port == port
            : text == service.ToString() || (Core.Service.TryParse(text, out Service? same) && same == service);

    /// <summary>For rows of several generations that are to be one list. An age or idle time that is not known comes last.</summary>
    public static Comparison<ConnectionStatus> Comparison(ClientOrder order) => (a, b) =>
    {
        int first = order switch
        {
            ClientOrder.Age => Descending(a.AgeS, b.AgeS),
            ClientOrder.Bytes => (b.BytesIn + b.BytesOut).CompareTo(a.BytesIn + a.BytesOut),
            ClientOrder.Peer => 0,
            _ => Descending(a.IdleS, b.IdleS),
        };
        return first != 0 ? first : ComparePeers(a.Peer, b.Peer);

        static int Descending(double? x, double? y) => (y ?? double.MinValue).CompareTo(x ?? double.MinValue);
    };

    private static int ComparePeers(string a, string b)
    {
        if (!IPEndPoint.TryParse(a, out IPEndPoint? x) || !IPEndPoint.TryParse(b, out IPEndPoint? y)) return string.CompareOrdinal(a, b);
        int address = PeerAddress.Of(x.Address).CompareTo(PeerAddress.Of(y.Address));
        return address != 0 ? address : x.Port.CompareTo(y.Port);
    }
}
