using System.Diagnostics;
using FlipController.Core;
using FlipController.Linux.Redirect;

namespace FlipController.Linux.Fronts;

/// <summary>
/// The rule and the front paths as one change. The rule comes first: it tells a start after a kill in between where all of them belong,
/// and the side they still lead to then listens on until nobody is led there any more.
/// </summary>
public sealed class FrontSwitch(PreparedSwitch rule, FrontLinks links) : PreparedSwitch(rule.Pair, rule.To)
{
    public override void Rehearse() => rule.Rehearse();

    public override void MakeReady() => rule.MakeReady();

    public override int Commit()
    {
        long began = Stopwatch.GetTimestamp();
        int errno = rule.Commit();
        // One that fails is told and tried again; nothing is taken back, as both sides serve until it leads to the right one.
        if (errno == 0) _ = links.Commit();
        ElapsedTicks = Stopwatch.GetTimestamp() - began;
        return errno;
    }

    public override FlipException Failure() => rule.Failure();

    /// <summary>Of the front paths; null: all lead to the generation.</summary>
    public string? LinkFailure => links.Failure;

    public override void Dispose()
    {
        links.Dispose();
        rule.Dispose();
    }
}
