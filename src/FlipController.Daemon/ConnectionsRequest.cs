using System.Globalization;
using FlipController.Core;
using Microsoft.AspNetCore.Http;

namespace FlipController.Daemon;

/// <summary>What may be asked about connections, read from a request; every fault of it is told at once.</summary>
/// <param name="Generation">Null: every one.</param>
internal sealed record ConnectionsRequest(ClientQuery Query, int? Generation)
{
    private const int DefaultLimit = 20, MostRows = 100_000;
    private static readonly string[] s_keys = ["generation", "peer", "service", "older", "sort", "limit", "networks"];

    /// <exception cref="UsageException">What is wrong with it.</exception>
    public static ConnectionsRequest Of(IQueryCollection query)
    {
        List<string> faults = [.. query.Keys.Except(s_keys).Select(k => $"there is no filter \"{k}\"; there are {string.Join(", ", s_keys)}")];
        int? generation = Number("generation", 1, int.MaxValue);
        var parsed = new ClientQuery(
            PeerOf(Text("peer"), faults), ServiceOf(Text("service"), faults), OlderOf(Text("older"), faults), OrderOf(Text("sort"), faults),
            Number("limit", 0, MostRows) ?? DefaultLimit, PrefixesOf(Text("networks"), faults));
        return faults.Count == 0 ? new ConnectionsRequest(parsed, generation) : throw Faulty(faults);

        // A filter that is there and empty is a slip (a variable without a value), and must not mean everybody.
        string? Text(string key) => query.ContainsKey(key) ? query[key].ToString() : null;

        int? Number(string key, int least, int most)
        {
            if (Text(key) is not { } text) return null;
            if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int n) && n >= least && n <= most) return n;
            faults.Add($"{key} \"{text}\" must be a number from {least} to {most}");
            return null;
        }
    }

    /// <exception cref="UsageException">What is wrong with it.</exception>
    public static ClientQuery Of(CloseRequest request)
    {
        List<string> faults = [];
        if (request.Peer is null && request.Older is null && request.Service is null && request.Generation is null)
            faults.Add("which connections must be said: peer, older, service or generation");
        var query = new ClientQuery(
            PeerOf(request.Peer, faults), ServiceOf(request.Service, faults), OlderOf(request.Older, faults), ClientOrder.Idle, int.MaxValue);
        return faults.Count == 0 ? query : throw Faulty(faults);
    }

    private static PeerFilter? PeerOf(string? text, List<string> faults)
    {
        if (text is null) return null;
        if (PeerFilter.TryParse(text, out PeerFilter? peer)) return peer;
        faults.Add($"peer \"{text}\" must be ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT or ADDRESS/PREFIX");
        return null;
    }

    private static string? ServiceOf(string? text, List<string> faults)
    {
        if (text is not null && !ushort.TryParse(text.TrimStart(':'), NumberStyles.None, CultureInfo.InvariantCulture, out _) && !Service.TryParse(text, out _))
            faults.Add($"service \"{text}\" must be a front address, such as :80 or 10.0.0.1:443");
        return text;
    }

    private static TimeSpan? OlderOf(string? text, List<string> faults)
    {
        if (text is null) return null;
        if (Durations.TryParse(text, out TimeSpan older)) return older;
        faults.Add($"older \"{text}\" must be a duration such as 30s, 10m or 1h");
        return null;
    }

    private static ClientOrder OrderOf(string? text, List<string> faults)
    {
        if (text is null) return ClientOrder.Idle;
        if (Enum.GetNames<ClientOrder>().FirstOrDefault(n => n.Equals(text, StringComparison.OrdinalIgnoreCase)) is { } name)
            return Enum.Parse<ClientOrder>(name);
        faults.Add($"sort \"{text}\" must be idle, age, bytes or peer");
        return ClientOrder.Idle;
    }

    private static NetworkPrefixes? PrefixesOf(string? text, List<string> faults)
    {
        if (text is null) return null;
        if (text.Length == 0) return new NetworkPrefixes();
        string[] parts = text.Split(',');
        if (parts.Length <= 2 && Prefix(parts[0], 32) is { } v4 && (parts.Length == 1 ? 64 : Prefix(parts[1], 128)) is { } v6)
            return new NetworkPrefixes(v4, v6);
        faults.Add($"networks \"{text}\" must be the prefixes for IPv4 (0 to 32) and IPv6 (0 to 128), such as 24,64");
        return null;

        static int? Prefix(string text, int most) =>
            int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int prefix) && prefix <= most ? prefix : null;
    }

    private static UsageException Faulty(List<string> faults) => new($"{string.Join("; ", faults)}; nothing was done");
}
