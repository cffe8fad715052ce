using System.Collections.Immutable;
using System.Diagnostics;
using System.Net;
using FlipController.Core;
using FlipController.Linux.Handover;
using FlipController.Linux.State;

namespace FlipController.Daemon.Handover;

/// <summary>
/// What a handover has in the kernel: VIPs on lo, what keeps them from being told to neighbours, and the table. It is put there in that
/// order and taken away in the other, and what it changes is saved before. One caller at a time.
/// </summary>
internal sealed class HandoverKernel(HandoverOptions options, IPAddress peer, Lock holdTurn) : IDisposable
{
    private readonly HandoverTable _table = HandoverTable.Open();
    private readonly VipPlaces _places = new();
    private readonly VipConnections _connections = new();
    private readonly FrontSettings _settings = new();
    private string? _device, _there;
    private bool _isPrepared;
    private VipCensus _census = new(0, 0, [], []);
    private long _countedAt; // Stopwatch's
    private TimeSpan _countTime;

    public void Dispose()
    {
        _settings.Dispose();
        _connections.Dispose();
        _places.Dispose();
        _table.Dispose();
    }

    public HandoverTable Table => _table;

    public ImmutableArray<IPAddress> Held() => _places.Held(options.Vips);

    /// <exception cref="FlipException">There is no way to the peer within one link.</exception>
    public string Device => _device ??= options.Device.Length > 0 ? options.Device : _places.DeviceTo(peer);

    public PeerNode Self() => _places.Self(Device, options.Vips);

    /// <summary>
    /// Counting takes the kernel, and us, a while where there are a hundred thousand sockets: it takes no more than a twentieth of the time
    /// unless it must be known now.
    /// </summary>
    /// <param name="ports"><see cref="VipConnections.Count"/></param>
    public VipCensus Count(IReadOnlyDictionary<int, int> ports, bool mustBeNow)
    {
        const int share = 20;
        if (!mustBeNow && Stopwatch.GetElapsedTime(_countedAt) < _countTime * share) return _census;
        long began = Stopwatch.GetTimestamp();
        _census = _connections.Count(options.Vips.ToHashSet(), ports, _places.Own());
        _countedAt = Stopwatch.GetTimestamp();
        _countTime = Stopwatch.GetElapsedTime(began);
        return _census;
    }

    /// <summary>Said again it changes nothing but what differs.</summary>
    /// <param name="save">Keeps what is about to be changed.</param>
    public HandoverRecord Put(HandoverRecord record, PeerNode node, ImmutableArray<VipService> services, OpeningRule opening, Action<HandoverRecord> save)
    {
        if (!_isPrepared)
        {
            ImmutableArray<ChangedSetting> settings = [.. FrontSettings.Needed(Device).Where(s => record.Settings.All(r => (r.Device, r.Setting) != (s.Device, s.Setting)))];
            ImmutableArray<IPAddress> missing = [.. options.Vips.Except(_places.OnLoopback(options.Vips))];
            record = record with
            {
                Settings = record.Settings.AddRange(settings),
                OnLoopback = [.. record.OnLoopback.Union(missing.Select(v => v.ToString()))],
            };
            if (settings.Length + missing.Length > 0) save(record);
            // Before the VIP is there, or neighbours would be told of it.
            foreach (ChangedSetting setting in settings) _settings.Write(setting);
            foreach (IPAddress vip in missing) _places.AddToLoopback(vip);
            _isPrepared = true;
        }
        string wanted = $"{node} {opening} {string.Join(' ', services)}";
        if (_there == wanted) return record;
        // A base chain that comes or goes lets go what waits in any queue: a hold of ours must not be open.
        lock (holdTurn) _table.Make(Device, node, options.Vips, services, opening);
        _there = wanted;
        return record;
    }

    /// <summary>Nothing of it is left. What somebody else has changed since is left alone, and said.</summary>
    /// <returns>The record without it, and what was left alone.</returns>
    public (HandoverRecord Record, ImmutableArray<string> Left) Remove(HandoverRecord record)
    {
        lock (holdTurn) _table.Remove();
        _there = null;
        _isPrepared = false;
        return (record with { Settings = [], OnLoopback = [] }, HandoverTraces.PutBack(record, _places));
    }
}
