using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Linux.Keepalived;

namespace FlipController.Daemon.Keepalived;

/// <summary>
/// Whether this node should have the addresses that keepalived moves: it should as long as nobody names a reason against it. Any one
/// reason lowers it, and keepalived is told in the ways that are configured. The one writer of the track file and of the link; it is told
/// from any thread.
/// </summary>
internal sealed class NodePriority(KeepalivedOptions? options, ILogger log)
{
    private readonly Lock _turn = new();
    private ImmutableSortedSet<string> _reasons = ImmutableSortedSet.Create<string>(StringComparer.Ordinal);
    private string? _fault;

    /// <summary>Why it should not have them, a sentence each; empty: it should.</summary>
    public IReadOnlyCollection<string> Reasons => Volatile.Read(ref _reasons);

    public bool IsLowered => !Volatile.Read(ref _reasons).IsEmpty;

    /// <summary>keepalived can be told.</summary>
    public bool CanTell => options is { TrackFile: not null } or { Link: not null };

    /// <summary>What was told last, by whichever run of the daemon, is that it should not have the addresses.</summary>
    public bool IsToldLowered => (options?.TrackFile is { } file && TrackFile.Read(file.Path) is not (null or 0)) || (options?.Link is { } link && LinkUp(link) == false);

    /// <summary>Why it was not told last; null: it was.</summary>
    public string? Fault => Volatile.Read(ref _fault);

    /// <summary>When it was lowered or raised last, or a reason came or went.</summary>
    public event Action? Changed;

    /// <summary>The same reason twice is one.</summary>
    public void Lower(string reason) => Set(_ => _.Add(reason));

    /// <summary>That reason is gone; it need not have been there.</summary>
    public void Raise(string reason) => Set(_ => _.Remove(reason));

    /// <summary>Many at once, so that none of them is told for a moment.</summary>
    public void Replace(Func<string, bool> those, IEnumerable<string> by) => Set(reasons => [.. reasons.Where(r => !those(r)), .. by]);

    /// <summary>
    /// Tells keepalived what holds now, whether or not it was told before: somebody may have removed the file, which means that all is
    /// well to it, or set the device.
    /// </summary>
    public void Tell()
    {
        lock (_turn) TellNow();
    }

    public NodeStatus Status(MaintenanceStatus? maintenance, string? notHeard) => new(
        IsLowered, [.. Reasons], options?.TrackFile is { } file ? TrackFile.Read(file.Path) : null,
        options?.Link is { } link ? LinkUp(link) : null, maintenance, Fault ?? notHeard);

    private static bool? LinkUp(string link)
    {
        try
        {
            return TrackedLink.IsUp(link);
        }
        catch (FlipException)
        {
            return null;
        }
    }

    private void Set(Func<ImmutableSortedSet<string>, ImmutableSortedSet<string>> change)
    {
        lock (_turn)
        {
            ImmutableSortedSet<string> before = _reasons, after = change(before).WithComparer(StringComparer.Ordinal);
            if (after.SetEquals(before)) return;
            Volatile.Write(ref _reasons, after);
            TellNow();
            string said = after.IsEmpty ? "nothing speaks against this node any more" : string.Join("; ", after);
            if (CanTell) log.LogInformation(new EventId(200, "NodePriority"), "keepalived is told {What}: {Why}", after.IsEmpty ? "that all is well" : "that this node should not have the addresses", said);
        }
        Changed?.Invoke();
    }

    private void TellNow()
    {
        bool lowered = !_reasons.IsEmpty;
        string? fault = null;
        try
        {
            if (options?.TrackFile is { } file)
            {
                int wanted = lowered ? file.Weight : 0;
                if (TrackFile.Read(file.Path) != wanted) TrackFile.Write(file.Path, wanted);
            }
        }
        catch (FlipException e)
        {
            fault = e.Message;
        }
        try
        {
            if (options?.Link is { } link) TrackedLink.Set(link, !lowered);
        }
        catch (FlipException e)
        {
            fault ??= e.Message;
        }
        if (fault is not null && fault != _fault) log.LogError(new EventId(201, "NotTold"), "keepalived is not told what holds: {Why}", fault);
        Volatile.Write(ref _fault, fault);
    }
}
