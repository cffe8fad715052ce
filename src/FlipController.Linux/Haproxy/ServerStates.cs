using System.Collections.Immutable;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// Files from which HAProxy loads the state of its servers at its start. The user's would be what some process of yesterday wrote;
/// the copy reads its own, which whoever starts it can fill with what the active one knows (configuration manual,
/// "load-server-state-from-file"). An absolute name is taken as it is, whatever <c>server-state-base</c> says.
/// </summary>
internal sealed class ServerStates(SlotCopy copy)
{
    private readonly Dictionary<string, ServerStateFile> _files = new(StringComparer.Ordinal);
    private readonly HashSet<PlacedLine> _changed = [];
    private string _base = "";
    private bool _hasGlobal;

    public ImmutableArray<ServerStateFile> Files => [.. _files.Values];

    public void Copy(ConfigurationSection section, ProxySettings? settings)
    {
        switch (section.Kind)
        {
            case "global": Global(section); break;
            case "listen" or "backend" when settings is { ServerState: "local", Disabled: false }: Local(section, settings); break;
        }
    }

    private void Global(ConfigurationSection section)
    {
        // The first of each counts (src/cfgparse-global.c).
        foreach (PlacedLine placed in section.Lines)
            if (placed.Line[0] == "server-state-base" && _base == "") _base = placed.Line[1].TrimEnd('/');
        foreach (PlacedLine placed in section.Lines)
        {
            if (placed.Line[0] != "server-state-file" || placed.Line[1] == "" || _hasGlobal) continue;
            _hasGlobal = true;
            copy.ChangeOf(placed).Replace(placed.Line.Words[1], OwnOf(placed.Line[1], null));
        }
    }

    private void Local(ConfigurationSection section, ProxySettings settings)
    {
        string backend = section.Header.Line[1];
        PlacedLine? said = settings.ServerStateFile;
        string name = said?.Line[1] is { Length: > 0 } file and not "use-backend-name" ? file : backend;
        string own = OwnOf(name, backend);
        if (said is null || !section.Lines.Contains(said))
        {
            // Inherited, or its own name: said here, where it holds for this one alone.
            copy.ChangeOf(section.Header).Below.Add($"    server-state-file-name {ConfigurationLine.Quote(own)}");
            return;
        }
        if (!_changed.Add(said)) return;
        if (said.Line.Words.Length > 1) copy.ChangeOf(said).Replace(said.Line.Words[1], own);
        else copy.ChangeOf(said).Below.Add($"    server-state-file-name {ConfigurationLine.Quote(own)}");
    }

    private string OwnOf(string name, string? backend)
    {
        string user = name.StartsWith('/') || _base == "" ? name : $"{_base}/{name}";
        if (!_files.TryGetValue(user, out ServerStateFile? known))
            _files[user] = known = new(
                HaproxyEnvironment.Shown(copy.Under($"server-state-{_files.Count + 1}")), HaproxyEnvironment.Shown(user),
                backend is null ? null : HaproxyEnvironment.Shown(backend));
        // Whom several load, it must have several in.
        else if (backend is null || known.Backend != HaproxyEnvironment.Shown(backend)) _files[user] = known = known with { Backend = null };
        return HaproxyEnvironment.Bytes(known.Path);
    }
}
