using System.Collections.Immutable;
using FlipController.Core;

namespace FlipController.Linux.Haproxy;

/// <summary>One rendering under way: what its parts share, and the order in which they work.</summary>
internal sealed class SlotCopy(IReadOnlyList<SourceFile> files, SlotPlace place, HaproxySurroundings surroundings)
{
    private readonly List<ConfigurationFault> _faults = [];
    private readonly List<ConfigurationNote> _notes = [];
    private readonly Dictionary<PlacedLine, LineChange> _changes = [];

    public IReadOnlyList<SourceFile> Files => files;

    public HaproxySurroundings Surroundings => surroundings;

    public PrivatePorts Ports { get; } = new(place.Ports, place.TakenPorts, place.OnFronts);

    public bool OnFronts => place.OnFronts;

    /// <summary>The name this host has in peers sections.</summary>
    public string LocalPeer { get; private set; } = place.LocalPeer;

    /// <summary>Set by <c>chroot</c>, from where on paths are other ones once HAProxy runs.</summary>
    public string Chroot { get; private set; } = "";

    /// <summary>What QUIC tokens are derived from; null: HAProxy makes one up at each start.</summary>
    private string? _clusterSecret;

    public ProjectionResult Render()
    {
        UserConfiguration user = UserConfiguration.Read(files, place.LocalPeer, surroundings, Refuse);
        IReadOnlyDictionary<ConfigurationSection, ProxySettings> settings = ProxySettings.Of(user.Sections);
        foreach (ConfigurationSection section in user.Sections)
            foreach (PlacedLine placed in section.Lines)
            {
                if (section.Kind != "global" || placed.Line[1] == "") continue;
                if (placed.Line[0] == "chroot") Chroot = placed.Line[1];
                else if (placed.Line[0] == "cluster-secret") _clusterSecret = placed.Line[1];
                // Passed by -L, it holds from the first line on.
                else if (placed.Line[0] == "localpeer") LocalPeer = HaproxyEnvironment.Shown(placed.Line[1]);
            }
        var loops = new InternalLoops(this, user.Sections);
        var listeners = new ListenerCopy(this, loops);
        var global = new GlobalCopy(this, listeners);
        var states = new ServerStates(this);
        foreach (ConfigurationSection section in user.Sections)
        {
            if (section.Kind == "global") global.Copy(section);
            else if (section.Kind == "ring") Ring(section);
            else listeners.Copy(section, settings.GetValueOrDefault(section));
            states.Copy(section, settings.GetValueOrDefault(section));
        }
        if (listeners.Quic is { } quic && _clusterSecret is null)
            Refuse(quic, "QUIC needs \"cluster-secret\" in the global section: without it each process makes up its own, and what one has told "
                + "a client to show again means nothing to the other");
        // Since 2.8 there is such a default, and since then it may mean several (configuration manual, tune.listener.default-shards).
        string single = OnFronts && Surroundings.Build?.Version.IsAtLeast(2, 8) == true ? "    tune.listener.default-shards by-process\n" : "";
        string shared = place.Tables is { } self ? SharedTables.Share(this, user.Sections, settings, self) : "";
        if (_faults.Count == 0 && !listeners.HasFront)
            _faults.Add(new(files.Count > 0 ? files[0].Path : "", 1, "haproxy",
                "no frontend or listen section binds an address that can be redirected; there is nothing to move connections to"));
        if (_faults.Count > 0)
            return new(null, [.. _faults.OrderBy(f => FileNumber(f.File)).ThenBy(f => f.Line).Distinct()]);

        loops.Follow(user.Sections);
        ProjectionNotes.Collect(this, user.Sections);
        foreach (PlacedLine placed in user.Lines) KeepItsPlace(placed);
        var text = new CopyText(place, files, _changes, DefaultPaths.Of(this, user.Sections), single + shared);
        return new(new RenderedConfiguration(text.Files(user.Lines), Ports.Services, shared == "" ? LocalPeer : null)
        {
            Binds = listeners.Binds,
            Notes = [.. _notes.OrderBy(n => FileNumber(n.File)).ThenBy(n => n.Line).Distinct()],
            ServerStateFiles = states.Files,
            OwnSockets = [.. loops.OwnSockets, .. listeners.Fronts.Select(f => f.Socket)],
            Fronts = listeners.Fronts,
            Loops = loops.Services,
            ClusterSecret = listeners.Quic is null ? null : _clusterSecret,
            PeerName = shared == "" ? null : (place.Tables!.Name, LocalPeer),
        }, []);
    }

    private int FileNumber(string path)
    {
        for (int i = 0; i < files.Count; i++) if (files[i].Path == path) return i;
        return 0;
    }

    public void Refuse(PlacedLine placed, string why) =>
        _faults.Add(new(files[placed.File].Path, placed.Number, "haproxy", HaproxyEnvironment.Shown(why)));

    public void Note(PlacedLine placed, string what) =>
        _notes.Add(new(files[placed.File].Path, placed.Number, HaproxyEnvironment.Shown(what)));

    public LineChange ChangeOf(PlacedLine placed) =>
        _changes.TryGetValue(placed, out LineChange? change) ? change : _changes[placed] = new LineChange();

    /// <summary>A path in the slot's own directory.</summary>
    public string Under(string name) => HaproxyEnvironment.Bytes($"{place.Directory}/{name}");

    public string StatsSocket(int number) => HaproxyEnvironment.Bytes(place.StatsSocket(number));

    /// <summary>A path or name beside the user's own that is this generation's: what can reach the one can reach the other.</summary>
    public string Beside(string path) => HaproxyEnvironment.Bytes($".{place.Directory[(place.Directory.LastIndexOf('/') + 1)..]}") is var suffix
        ? path + suffix : path;

    private void Ring(ConfigurationSection section)
    {
        int rings = _changes.Values.Count(c => c.IsRing);
        foreach (PlacedLine placed in section.Lines)
        {
            // -c alone already renames an existing backing file (configuration manual, 3.9 "Rings").
            if (placed.Line[0] != "backing-file" || placed.Line[1] == "") continue;
            ChangeOf(placed).Replace(placed.Line.Words[1], Under($"ring-{++rings}"));
            ChangeOf(placed).IsRing = true;
        }
    }

    /// <summary>"${.FILE}" and "${.LINE}" would name the copy: they are written as what they are in the user's file.</summary>
    private void KeepItsPlace(PlacedLine placed)
    {
        if (!placed.Line.NamesItself) return;
        foreach (Word word in placed.Line.Words)
            if (word.Sources?.Contains(-1) == true && !ChangeOf(placed).Has(word)) ChangeOf(placed).Replace(word, word.Text);
    }
}
