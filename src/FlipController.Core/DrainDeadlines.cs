using System.Collections.Immutable;
using System.Net;

namespace FlipController.Core;

/// <summary>When connections that are still open on a retired generation are closed.</summary>
/// <param name="Services">Those of the deadline; empty: whatever is left.</param>
public sealed record DrainDeadline(DateTimeOffset At, ImmutableArray<ServicePort> Services)
{
    /// <summary>
    /// In order; the last one is for whatever is left. Empty: nothing is closed by itself (drain.at_deadline: keep).
    /// </summary>
    /// <param name="since">When it was told to stop.</param>
    /// <param name="closesAt">An operator's word, which is for every service; null: as configured.</param>
    public static ImmutableArray<DrainDeadline> Of(
        DrainOptions options, ImmutableArray<ServicePort> ports, DateTimeOffset since, DateTimeOffset? closesAt)
    {
        if (closesAt is { } word) return [new DrainDeadline(word, [])];
        if (options.AtDeadline == AtDeadline.Keep) return [];
        if (ports.IsEmpty) return [new DrainDeadline(since + options.Deadline, [])];
        var groups = ports.GroupBy(p => since + Of(options, p.Service)).OrderBy(g => g.Key).ToList();
        return [.. groups.Take(groups.Count - 1).Select(g => new DrainDeadline(g.Key, [.. g])), new DrainDeadline(groups[^1].Key, [])];
    }

    /// <summary>
    /// How long connections to a front address may stay: what the configuration says of it, else of its port on every address
    /// (<c>:443</c>), else of all.
    /// </summary>
    public static TimeSpan Of(DrainOptions options, Service service)
    {
        TimeSpan? ofPort = null;
        foreach ((string key, TimeSpan deadline) in options.Services)
        {
            if (!Service.TryParse(key, out Service? named)) continue;
            if (named == service) return deadline;
            if (named.Port == service.Port && named.Address.Equals(IPAddress.Any)) ofPort ??= deadline;
        }
        return ofPort ?? options.Deadline;
    }
}
