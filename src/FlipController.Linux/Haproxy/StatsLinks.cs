using System.Globalization;
using FlipController.Linux.State;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// The user's own stats sockets under names that stay, for exporters and the like:
/// <code>
///   RUNTIME/PAIR/stats-1.sock -> g00007.1.sock      the first `stats socket` of the active generation's configuration
///   RUNTIME/PAIR/stats-2.sock -> g00007.2.sock      the second
/// </code>
/// Mode, owner and level of the sockets are as the user wrote them.
/// </summary>
public static class StatsLinks
{
    /// <summary>From now on the names lead to this generation's sockets, each at one instant; names it has no socket for go.</summary>
    /// <param name="number">Null: to none.</param>
    public static void Point(string runtime, string pair, int? number)
    {
        string directory = Path.Combine(runtime, pair);
        if (!Directory.Exists(directory)) return;
        var wanted = new HashSet<string>(StringComparer.Ordinal);
        if (number is { } n)
        {
            var place = new GenerationPlace(runtime, pair, n);
            for (int i = 1; File.Exists(place.StatsSocket(i)); i++)
            {
                string link = Path.Combine(directory, string.Create(CultureInfo.InvariantCulture, $"stats-{i}.sock"));
                AtomicFile.Link(link, Path.GetFileName(place.StatsSocket(i)));
                wanted.Add(link);
            }
        }
        foreach (string link in Directory.EnumerateFiles(directory, "stats-*.sock"))
            if (!wanted.Contains(link)) File.Delete(link);
    }

    /// <summary>Removes the names that lead to a generation that is gone.</summary>
    internal static void Forget(GenerationPlace place)
    {
        foreach (string link in Directory.EnumerateFiles(Path.Combine(place.Runtime, place.Pair), "stats-*.sock"))
            if (new FileInfo(link).LinkTarget?.StartsWith($"{place.Name}.", StringComparison.Ordinal) == true) File.Delete(link);
    }
}
