using System.Collections.Immutable;

namespace FlipController.Linux.Haproxy.Runtime;

/// <summary>The part of <see cref="RuntimeChanges"/> about maps and ACLs, entry by entry; only what differs is ever sent.</summary>
internal sealed class PatternChanges(
    RuntimeState before, RuntimeState now, RuntimeState? file, RuntimeState? there, IReadOnlySet<string> made,
    HashSet<string> madeNow, List<string> undone, List<RuntimeChange> found)
{
    private const int MostNamed = 3;

    public void Find()
    {
        foreach (PatternSet set in now.Patterns)
        {
            // Ids are a process's own, and the same for as long as it lives.
            if (before.Patterns.FirstOrDefault(p => p.Id == set.Id && p.File == set.File) is not { } old) continue;
            if (set.Entries is not { } entries || old.Entries is not { } oldEntries)
                found.Add(new(set.Subject, "may have been changed", [],
                    $"more than {RuntimeReading.MostEntries} entries are not compared"));
            else if (!entries.AsSpan().SequenceEqual(oldEntries.AsSpan()) || made.Contains(set.Subject)) Compare(set, old);
        }
    }

    private void Compare(PatternSet set, PatternSet old)
    {
        Dictionary<string, ImmutableArray<string>> valuesBefore = Values(old), valuesNow = Values(set);
        string[] changed = [.. valuesBefore.Keys.Union(valuesNow.Keys).Where(k => !Same(valuesBefore, valuesNow, k))];
        if (file is null || there is null)
        {
            if (changed.Length > 0) found.Add(new(set.Subject, Told(changed, valuesBefore, valuesNow), []));
            return;
        }
        PatternSet? filed = Twin(old, file);
        if (filed?.Entries is null || there.Patterns.FirstOrDefault(p => p.Id == filed.Id) is not { Entries: not null } standing)
        {
            if (changed.Length > 0)
                found.Add(new(set.Subject, Told(changed, valuesBefore, valuesNow), [], filed is null
                    ? "the new configuration does not have it"
                    : $"more than {RuntimeReading.MostEntries} entries are not compared"));
            return;
        }
        Dictionary<string, ImmutableArray<string>> valuesFiled = Values(filed), valuesThere = Values(standing);
        var commands = new List<string>();
        var carried = new List<string>();
        var overruled = new List<string>();
        foreach (string key in changed)
        {
            // As with settings: see the table above RuntimeChanges.
            if (Same(valuesFiled, valuesNow, key)) continue;
            if (!Same(valuesFiled, valuesBefore, key)) overruled.Add(key);
            else
            {
                carried.Add(key);
                commands.AddRange(Commands(standing, key, Of(valuesThere, key), Of(valuesNow, key)));
            }
        }
        if (carried.Count > 0)
        {
            madeNow.Add(set.Subject);
            found.Add(new(set.Subject, Told(carried, valuesBefore, valuesNow),
                IsLong(commands, standing) ? [.. Anew(standing, valuesFiled, valuesNow, [.. carried])] : [.. commands]));
        }
        if (overruled.Count > 0)
            found.Add(new(set.Subject, Told(overruled, valuesBefore, valuesNow), [], "the new file says otherwise"));
        if (!made.Contains(set.Subject)) return;
        var asCarried = changed.ToHashSet();
        foreach (string key in valuesThere.Keys.Union(valuesFiled.Keys)
            .Where(k => !asCarried.Contains(k) && !Same(valuesThere, valuesFiled, k)))
            undone.AddRange(Commands(standing, key, Of(valuesThere, key), Of(valuesFiled, key)));
    }

    /// <summary>
    /// The same set in the other configuration: of the same file; without one, from the same line, or the only one with the same
    /// keyword and the same patterns.
    /// </summary>
    private static PatternSet? Twin(PatternSet set, RuntimeState other)
    {
        if (set.File is not null) return other.Patterns.FirstOrDefault(p => p.File == set.File);
        PatternSet[] alike =
        [
            .. other.Patterns.Where(p => p.File is null && p.Kind == set.Kind && Keyword(p) == Keyword(set)
                && p.Entries is { } own && set.Entries is { } entries && own.AsSpan().SequenceEqual(entries.AsSpan())),
        ];
        return alike.FirstOrDefault(p => p.Origin == set.Origin) ?? (alike.Length == 1 ? alike[0] : null);

        static string Keyword(PatternSet p) => p.Origin.Split(" file ")[0];
    }

    private static Dictionary<string, ImmutableArray<string>> Values(PatternSet set)
    {
        var values = new Dictionary<string, ImmutableArray<string>>(set.Entries!.Value.Length);
        foreach (string entry in set.Entries.Value)
        {
            int blank = set.Kind == PatternKind.Map ? entry.IndexOf(' ') : -1;
            (string key, string value) = blank < 0 ? (entry, "") : (entry[..blank], entry[(blank + 1)..]);
            values[key] = values.TryGetValue(key, out ImmutableArray<string> several) ? several.Add(value) : [value];
        }
        return values;
    }

    private static ImmutableArray<string> Of(Dictionary<string, ImmutableArray<string>> values, string key) =>
        values.TryGetValue(key, out ImmutableArray<string> own) ? own : [];

    private static bool Same(
        Dictionary<string, ImmutableArray<string>> one, Dictionary<string, ImmutableArray<string>> other, string key) =>
        Of(one, key).AsSpan().SequenceEqual(Of(other, key).AsSpan());

    /// <summary>By number: HAProxy finds it whatever its file is called.</summary>
    private static IEnumerable<string> Commands(PatternSet set, string key, ImmutableArray<string> from, ImmutableArray<string> to)
    {
        if (from.AsSpan().SequenceEqual(to.AsSpan())) yield break;
        string kind = set.Kind == PatternKind.Map ? "map" : "acl", pattern = RuntimeReading.Escaped(key);
        if (set.Kind == PatternKind.Map && from.Length == 1 && to.Length == 1)
        {
            yield return $"set map #{set.Id} {pattern} {RuntimeReading.Escaped(to[0])}";
            yield break;
        }
        if (from.Length > 0) yield return $"del {kind} #{set.Id} {pattern}";
        foreach (string value in to)
            yield return set.Kind == PatternKind.Map
                ? $"add map #{set.Id} {pattern} {RuntimeReading.Escaped(value)}"
                : $"add acl #{set.Id} {pattern}";
    }

    /// <summary>
    /// Before 2.8 HAProxy walks through every entry to find the one to set or delete (src/pattern.c, pat_ref_set, pat_ref_delete):
    /// past a few seconds of that, the set is written anew. Nobody uses the standby's yet.
    /// </summary>
    private static bool IsLong(List<string> commands, PatternSet set) =>
        (long)commands.Count(c => !c.StartsWith("add ", StringComparison.Ordinal)) * set.Entries!.Value.Length > 50_000_000;

    private static IEnumerable<string> Anew(
        PatternSet set, Dictionary<string, ImmutableArray<string>> filed, Dictionary<string, ImmutableArray<string>> now,
        HashSet<string> carried)
    {
        yield return $"clear {(set.Kind == PatternKind.Map ? "map" : "acl")} #{set.Id}";
        foreach (string key in filed.Keys.Concat(now.Keys.Where(k => !filed.ContainsKey(k) && carried.Contains(k))))
            foreach (string command in Commands(set, key, [], Of(carried.Contains(key) ? now : filed, key)))
                yield return command;
    }

    private static string Told(
        IReadOnlyCollection<string> keys, Dictionary<string, ImmutableArray<string>> before, Dictionary<string, ImmutableArray<string>> now)
    {
        string[] added = [.. keys.Where(k => !before.ContainsKey(k))], removed = [.. keys.Where(k => !now.ContainsKey(k))];
        string[] changed = [.. keys.Except(added).Except(removed)];
        return string.Join("; ", new[] { Part("has new", added), Part("lacks", removed), Part("has changed", changed) }.OfType<string>());

        static string? Part(string what, string[] some) => some.Length == 0 ? null
            : $"{what} {string.Join(", ", some.Order(StringComparer.Ordinal).Take(MostNamed))}"
                + (some.Length > MostNamed ? $" and {some.Length - MostNamed} more" : "");
    }
}
