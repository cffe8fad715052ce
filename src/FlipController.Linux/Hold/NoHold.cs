using System.Collections.Immutable;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Hold;

/// <summary>Nobody waits: one nftables transaction needs no hold to lose nothing.</summary>
public sealed class NoHold(HoldScope scope) : Hold(scope)
{
    public override string Method => "none";

    public override ImmutableArray<ForcedOpening> ForcedOpenings => [];

    public override KernelException Failure => throw new InvalidOperationException("it cannot fail");

    public override void Rehearse() { }

    public override int Close() => 0;

    public override int Open() => 0;

    public override HoldTally Tally() => default;

    public override void Dispose() { }
}
