using System.Globalization;

namespace FlipController.Core;

/// <summary>What one side has done so far, summed over its frontends and backends.</summary>
/// <param name="Requests">HTTP requests, or sessions of proxies in TCP mode.</param>
/// <param name="Answers5xx">Answers 5xx that clients got.</param>
/// <param name="ConnectionErrors">Requests that could not reach a server.</param>
public sealed record SideCounters(long Requests, long Answers5xx, long ConnectionErrors);

/// <summary>Whether the new side does clearly worse than the old one did. Pure.</summary>
public static class SideComparison
{
    /// <summary>
    /// The old side's own ratio must be exceeded by this factor too: a service that was failing before is not the flip's fault.
    /// </summary>
    private const double ClearlyWorse = 2;

    /// <summary>Null, or why traffic should go back, in words.</summary>
    /// <param name="old">The old side over its whole life.</param>
    /// <param name="atSwitch">The new side when it got the traffic: the gate's probes are not counted.</param>
    public static string? Judge(WatchOptions options, SideCounters old, SideCounters atSwitch, SideCounters now)
    {
        long requests = now.Requests - atSwitch.Requests;
        if (requests < options.MinRequests) return null;
        return Worse("of its answers are 5xx", now.Answers5xx - atSwitch.Answers5xx, old.Answers5xx)
            ?? Worse("of its requests could not reach a server", now.ConnectionErrors - atSwitch.ConnectionErrors, old.ConnectionErrors);

        string? Worse(string what, long errors, long oldErrors)
        {
            double ratio = (double)errors / requests;
            double oldRatio = old.Requests > 0 ? (double)oldErrors / old.Requests : 0;
            return ratio > options.Max5xxRatio && ratio > ClearlyWorse * oldRatio
                ? string.Create(CultureInfo.InvariantCulture, $"{ratio:P1} {what} ({errors} of {requests}), "
                    + $"{oldRatio:P1} on the generation before (watch.max_5xx_ratio {options.Max5xxRatio})")
                : null;
        }
    }
}
