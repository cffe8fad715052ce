using System.Collections.Immutable;

namespace FlipController.Linux.Haproxy.Runtime;

/// <summary>
/// What was changed at run time, and what makes the standby the same. Four states decide, setting by setting and entry by entry:
/// <code>
///                what its files gave     what it is now
///   active       before                  now               a change where they differ
///   standby      file                    there             file = now:     it is in the file by now, nothing to say
///                                                          file = before:  it is made there, unless it is so already
///                                                          file = neither: the file was edited and wins; that is said
/// </code>
/// </summary>
/// <param name="withLate">Changes that keep the gate from passing are to be made too.</param>
/// <param name="made">What was made on the standby before: what the active one has undone since is undone there.</param>
public sealed class RuntimeChanges(
    RuntimeState before, RuntimeState now, RuntimeState? file, RuntimeState? there, bool withLate, IReadOnlySet<string> made)
{
    private static readonly HashSet<string> s_nothing = [];
    private RuntimeState _before = before.CorrectedBy(now);
    private readonly List<RuntimeChange> _found = [];

    /// <summary>Without a standby: what was changed, and what could not be carried to any.</summary>
    public static ImmutableArray<RuntimeChange> Between(RuntimeState baseline, RuntimeState now) =>
        new RuntimeChanges(baseline, now, null, null, true, s_nothing).All();

    /// <summary>
    /// What was changed on the new side since it got the traffic, for the previous one that gets it back. The new side's files do not
    /// count: they are what is gone back from.
    /// </summary>
    /// <param name="atSwitch">The new side when it got the traffic.</param>
    public static ImmutableArray<RuntimeChange> Since(RuntimeState atSwitch, RuntimeState now, RuntimeState previous) =>
        new RuntimeChanges(atSwitch, now, previous, previous, true, s_nothing) { _before = atSwitch }.All();

    /// <summary>Commands for the standby that undo what was made there and is no more so on the active one.</summary>
    public List<string> Undone { get; } = [];

    /// <summary>Keys of <paramref name="made"/> for the next look.</summary>
    public HashSet<string> Made { get; } = [.. made];

    public ImmutableArray<RuntimeChange> All()
    {
        foreach (string subject in _before.Settings.Keys.Union(now.Settings.Keys).Order(StringComparer.Ordinal))
        {
            if (!_before.Settings.ContainsKey(subject)) Added(subject);
            else if (!now.Settings.ContainsKey(subject)) Deleted(subject);
            else
                foreach (string name in now.Settings[subject].Keys.Order(StringComparer.Ordinal)) Setting(subject, name);
        }
        new PatternChanges(_before, now, file, there, made, Made, Undone, _found).Find();
        return [.. _found];
    }

    private void Found(string subject, string text, IEnumerable<string> commands, string? why = null, bool isLate = false) =>
        _found.Add(new RuntimeChange(subject, text, why is null ? [.. commands] : [], why, isLate));

    private void Added(string subject)
    {
        if (file is not null && file.Find(subject, "content") is { } content && content == now.Find(subject, "content")) return;
        bool isServer = subject.StartsWith(RuntimeSubject.Server, StringComparison.Ordinal);
        if (isServer && file?.Settings.ContainsKey(subject) == true) return;
        Found(subject, "was added", [], isServer
            ? "HAProxy does not tell with which parameters; write it into the configuration"
            : RuntimeSetting.WhyNot(subject));
    }

    private void Deleted(string subject)
    {
        if (file is not null && !file.Settings.ContainsKey(subject)) return;
        bool isServer = subject.StartsWith(RuntimeSubject.Server, StringComparison.Ordinal);
        string server = subject[(subject.IndexOf(' ') + 1)..];
        if (!isServer) Found(subject, "was deleted", [], "it is in the configuration still; take it out there");
        else
            Found(subject, "was deleted", there?.Settings.ContainsKey(subject) == true
                ? [$"set server {server} state maint", $"del server {server}"] : []);
    }

    private void Setting(string subject, string name)
    {
        string value = now.Find(subject, name)!;
        // What one side does not tell is decided by an agent or a resolver there.
        if (_before.Find(subject, name) is not { } old) return;
        string key = $"{subject}\n{name}";
        bool isLate = subject.StartsWith(RuntimeSubject.Frontend, StringComparison.Ordinal) && name == "state";
        string? filed = file?.Find(subject, name), standing = there?.Find(subject, name);
        if (value == old)
        {
            if ((made.Contains(key) || (isLate && !withLate)) && filed is not null && standing is not null && filed != standing)
            {
                if (Command(subject, name, filed) is { } undo) Undone.Add(undo);
                Made.Remove(key);
            }
            return;
        }
        string text = RuntimeSetting.Text(subject, name, old, value);
        if (file is not null && !file.Settings.ContainsKey(subject))
        {
            Found(subject, text, [], "the new configuration does not have it");
            return;
        }
        if (filed is not null && filed == value) return;
        if (filed is not null && filed != old)
        {
            Found(subject, text, [], name is "content" or "keys" ? "the new file has another one" : $"the new file says {filed}");
            return;
        }
        IEnumerable<string>? commands = name == "keys" ? TicketKeys(subject) : Command(subject, name, value) is { } one ? [one] : null;
        if (commands is null) Found(subject, text, [], RuntimeSetting.WhyNot(subject));
        else
        {
            Made.Add(key);
            Found(subject, text, standing == value || (isLate && !withLate) ? [] : commands, null, isLate);
        }
    }

    private string? Command(string subject, string name, string value) =>
        RuntimeSetting.Command(subject, name, value, now.Find(subject, "address") ?? (there ?? now).Addresses.GetValueOrDefault(subject));

    /// <summary>Each new key pushes the oldest out, as it did on the active one. Null: its secrets are not told.</summary>
    private IEnumerable<string>? TicketKeys(string subject)
    {
        if (!now.TicketKeys.TryGetValue(subject, out ImmutableArray<string> secrets)) return null;
        ImmutableArray<string> own = there?.TicketKeys.GetValueOrDefault(subject) is { IsDefault: false } keys ? keys : [];
        string target = RuntimeReading.Escaped(subject[RuntimeSubject.TicketKeys.Length..]);
        return [.. secrets.Where(s => !own.Contains(s)).Select(s => $"set ssl tls-key {target} {s}")];
    }
}
