using System.Diagnostics;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Redirect;

/// <summary>The message lies there, and <see cref="Rehearse"/> has the kernel check it and every method on the way compiled.</summary>
/// <param name="turn">Of those who use the socket.</param>
/// <param name="failedAt">What the kernel refused, for the failure's words.</param>
internal sealed class BatchSwitch(
    string pair, int to, NftSwitchBatch batch, NetlinkSocket netlink, Lock turn, Func<NftSwitchBatch, string> failedAt) : PreparedSwitch(pair, to)
{
    private int _code;

    public override void Rehearse()
    {
        if (Run(rehearse: true) != 0) throw Failure();
    }

    public override int Commit() => Run(rehearse: false);

    private int Run(bool rehearse)
    {
        lock (turn)
        {
            long start = Stopwatch.GetTimestamp();
            _code = batch.Run(netlink.Fd, rehearse);
            ElapsedTicks = Stopwatch.GetTimestamp() - start;
            return _code;
        }
    }

    public override FlipException Failure() => new KernelException($"switch pair {Pair} to generation {To}", _code, failedAt(batch));
}
