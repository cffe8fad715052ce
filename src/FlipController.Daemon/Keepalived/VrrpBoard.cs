using System.Collections.Immutable;
using System.Net;
using System.Text.Json;
using FlipController.Core;
using FlipController.Core.Keepalived;
using FlipController.Linux.Handover;
using FlipController.Linux.State;

namespace FlipController.Daemon.Keepalived;

/// <summary>What is known of each instance and group of keepalived, whoever told it; kept in STATE/keepalived.json.</summary>
internal sealed class VrrpBoard(string stateDirectory, ILogger log)
{
    private const int Most = 256; // names that somebody makes up would else fill the memory

    private readonly string _path = Path.Combine(stateDirectory, "keepalived.json");
    private readonly Lock _turn = new();
    private ImmutableSortedDictionary<(VrrpKind Kind, string Name), VrrpStanding> _known =
        ImmutableSortedDictionary.Create<(VrrpKind, string), VrrpStanding>();
    private bool _unsaved;

    public ImmutableArray<VrrpStanding> All => [.. Volatile.Read(ref _known).Values];

    public VrrpState? StateOf(PairKeepalivedOptions follows) => Volatile.Read(ref _known)
        .GetValueOrDefault(follows.Group is { } group ? (VrrpKind.Group, group) : (VrrpKind.Instance, follows.Instance!))?.State;

    /// <summary>What was known when the daemon ended. keepalived does not say it again.</summary>
    public void Load()
    {
        try
        {
            if (!File.Exists(_path)) return;
            VrrpStanding[] saved = JsonSerializer.Deserialize(File.ReadAllBytes(_path), NodeJson.Default.VrrpStandingArray) ?? [];
            foreach (VrrpStanding standing in saved.Where(s => s?.Name is not null).Take(Most))
                _known = _known.SetItem((standing.Kind, standing.Name), standing with { Source = VrrpSource.Saved });
        }
        catch (Exception e) when (e is JsonException or IOException or UnauthorizedAccessException)
        {
            log.LogWarning(new EventId(202, "NotRead"), "what was known of keepalived cannot be read: {Path}: {Why}; it is learned anew", _path, e.Message);
        }
    }

    /// <summary>
    /// The addresses that it moves are on a device of this node, or are not: lo apart, where either node may have them. That tells a
    /// MASTER from everything else, and a node that is not MASTER is what it was last said to be, or BACKUP.
    /// </summary>
    /// <remarks>
    /// keepalived's own dump (SIGUSR1, /tmp/keepalived.data) is not asked: it needs keepalived's pid and its /tmp, which under systemd is
    /// often its own, and lies under a name that anybody can put there before. What it says through the FIFO while no daemon reads
    /// waits there.
    /// </remarks>
    /// <param name="follows">Who has these addresses.</param>
    public void LookAtAddresses(ImmutableArray<IPAddress> vips, PairKeepalivedOptions follows, DateTimeOffset at)
    {
        VrrpKind kind = follows.Group is null ? VrrpKind.Instance : VrrpKind.Group;
        string name = follows.Group ?? follows.Instance!;
        using var places = new VipPlaces();
        bool here = !places.Held(vips).IsEmpty;
        VrrpState? before = StateOf(follows);
        VrrpState now = here ? VrrpState.Master : before is null or VrrpState.Master ? VrrpState.Backup : before.Value;
        if (now != before) Hear(new VrrpEvent(kind, name, now, null), at, VrrpSource.Addresses);
    }

    /// <summary>One that was left for later: what was heard since is newer.</summary>
    public bool HearLeft(VrrpEvent e, DateTimeOffset at) =>
        (Volatile.Read(ref _known).GetValueOrDefault((e.Kind, e.Name)) is not { } known || known.Since <= at) && Hear(e, at, VrrpSource.Left);

    /// <returns>Something is otherwise than before.</returns>
    public bool Hear(VrrpEvent e, DateTimeOffset at, VrrpSource source)
    {
        lock (_turn)
        {
            VrrpStanding? before = _known.GetValueOrDefault((e.Kind, e.Name));
            if (before is null && _known.Count >= Most) return false;
            VrrpStanding after = before?.Heard(e, at, source) ?? new VrrpStanding(e.Kind, e.Name, e.State, e.Priority, at, source);
            if (after == before) return false;
            Volatile.Write(ref _known, _known.SetItem((e.Kind, e.Name), after));
            _unsaved = true;
            if (after.State == before?.State) return false;
        }
        log.LogInformation(new EventId(203, "Keepalived"), "keepalived: {Kind} {Name} is {State}{Priority} ({Source})", e.Kind.ToString().ToLowerInvariant(), e.Name,
            e.State.ToString().ToUpperInvariant(), e.Priority is { } priority ? $", priority {priority}" : "", source.ToString().ToLowerInvariant());
        return true;
    }

    /// <summary>After a burst once, not for each of it.</summary>
    public void Save()
    {
        VrrpStanding[] all;
        lock (_turn)
        {
            if (!_unsaved) return;
            _unsaved = false;
            all = [.. _known.Values];
        }
        try
        {
            AtomicFile.Write(_path, JsonSerializer.SerializeToUtf8Bytes(all, NodeJson.Default.VrrpStandingArray));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            log.LogError(new EventId(204, "NotSaved"), "what keepalived said cannot be saved: {Why}; a restart would not know it", e.Message);
        }
    }
}
