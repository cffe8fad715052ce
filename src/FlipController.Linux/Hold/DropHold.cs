using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Hold;

/// <summary>
/// Opening SYNs are dropped while it is closed, and their clients try again after a second. For comparison, and where nothing else works.
/// The kernel itself opens it when its time is over.
/// </summary>
public sealed class DropHold : Hold
{
    private readonly HoldTable _table;
    private long _before;
    private bool _rehearsing, _disposed;

    private DropHold(HoldScope scope, HoldTable table) : base(scope) => _table = table;

    /// <summary>In the calling thread's network namespace.</summary>
    /// <exception cref="FlipException">Nothing is left of it then.</exception>
    public static DropHold Prepare(HoldScope scope) =>
        Explained(scope, "drop", () => new DropHold(scope, HoldTable.Prepare(scope, queue: null)));

    public override string Method => "drop";

    public override ImmutableArray<ForcedOpening> ForcedOpenings => [];

    public override KernelException Failure => _table.Failure ?? throw new InvalidOperationException("nothing has failed");

    public override void Rehearse()
    {
        _rehearsing = true;
        try
        {
            if (Close() != 0 || Open() != 0) throw Failure;
        }
        finally
        {
            _rehearsing = false;
        }
    }

    public override int Close() => _table.Close(_rehearsing);

    public override int Open() => _table.Open(_rehearsing);

    /// <summary>None waited; those that were dropped, a client's second try counted again.</summary>
    public override HoldTally Tally()
    {
        long count = _table.Count(), dropped = count - _before;
        _before = count;
        return new HoldTally(0, TimeSpan.Zero, dropped);
    }

    public override void Dispose()
    {
        if (_disposed) return;
        _disposed = true;
        _ = Open();
        try
        {
            _table.RemoveRules();
        }
        finally
        {
            _table.Dispose();
        }
    }
}
