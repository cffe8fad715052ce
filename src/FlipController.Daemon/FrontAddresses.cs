using FlipController.Core;

namespace FlipController.Daemon;

/// <summary>
/// One front address has one pair. A pair claims its addresses before its standby starts, since two that start at the same moment
/// would else both find them free.
/// </summary>
internal sealed class FrontAddresses(Func<IEnumerable<Pair>> pairs)
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, (int Number, Service[] Services, string[] Paths)> _claims = new(StringComparer.Ordinal);

    /// <summary>The other pair that has an address, or is about to; null when none has.</summary>
    public string? Owner(Service service, string but)
    {
        lock (_lock)
        {
            return pairs().FirstOrDefault(p => p.Name != but && p.Serves(service))?.Name
                ?? _claims.Where(c => c.Key != but && c.Value.Services.Any(s => s.Overlaps(service))).Select(c => c.Key).FirstOrDefault();
        }
    }

    /// <summary>The same of a unix socket's path.</summary>
    public string? Owner(string path, string but)
    {
        lock (_lock)
        {
            return pairs().FirstOrDefault(p => p.Name != but && p.Serves(path))?.Name
                ?? _claims.Where(c => c.Key != but && c.Value.Paths.Contains(path)).Select(c => c.Key).FirstOrDefault();
        }
    }

    /// <summary>Takes the place of the pair's earlier claim. Throws when another pair has one of the addresses.</summary>
    public void Claim(string pair, int number, Service[] services, string[] paths)
    {
        lock (_lock)
        {
            _claims.Remove(pair);
            foreach (Service service in services)
            {
                if (Owner(service, pair) is { } other) throw new FlipException(Taken(service, other));
            }
            foreach (string path in paths)
                if (Owner(path, pair) is { } other) throw new FlipException(Taken(path, other));
            _claims[pair] = (number, services, paths);
        }
    }

    /// <summary>A standby came to nothing: its claim ends, but not that of the one begun after it. What the pair serves it keeps.</summary>
    public void Release(string pair, int number)
    {
        lock (_lock)
        {
            if (_claims.TryGetValue(pair, out var claim) && claim.Number == number) _claims.Remove(pair);
        }
    }

    /// <summary>The pair is let go.</summary>
    public void Release(string pair)
    {
        lock (_lock) _claims.Remove(pair);
    }

    public static string Taken(object front, string pair) =>
        $"the front address {front} belongs to pair {pair} already; one address has one pair";
}
