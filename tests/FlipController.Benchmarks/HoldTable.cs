using System.Globalization;
using System.Text;
using FlipController.Load;

namespace FlipController.Benchmarks;

/// <summary>The hold benchmark in the README's words.</summary>
internal static class HoldTable
{
    public static string Name(RestartWay way, string method) => way switch
    {
        RestartWay.None => "no restart",
        RestartWay.Reload => "`haproxy -sf PID`",
        RestartWay.Drop => "SYNs dropped for 1 s, stop, start; every 5 s",
        RestartWay.Bare => "stop, start",
        RestartWay.Protect => $"`flipctl protect --method {method}`: stop, start",
    };

    public static string Of(HoldRun run)
    {
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"{run.Where}; {run.Clients} clients.\n\n");
        text.Append("| | requests | failed | restarts | p50 | p90 | p99 | p99.9 | max, ms |\n|---|---|---|---|---|---|---|---|---|\n");
        foreach (HoldRow row in run.Rows)
        {
            Percentiles l = row.Latency;
            text.Append(CultureInfo.InvariantCulture,
                $"| {Name(row.Way, run.Method)} | {row.Requests:#,0} | {Failed(row)} | {row.Restarts:#,0} | {Ms(l.P50)} | {Ms(l.P90)} | {Ms(l.P99)} | {Ms(l.P999)} | {Ms(l.Max)} |\n");
        }
        foreach (HoldRow row in run.Rows)
        {
            if (row.Holds is not { } h) continue;
            text.Append(CultureInfo.InvariantCulture, $"\nIts holds, the command's time in them: p50 {Ms(h.Window.P50)} ms, p99 {Ms(h.Window.P99)} ms, at most {Ms(h.Window.Max)} ms; {h.Held:#,0} connections waited, {Ms(h.LongestWaitMs)} ms at the longest");
            if (h.Dropped > 0) text.Append(CultureInfo.InvariantCulture, $"; {h.Dropped} SYNs were lost");
            if (h.NotAccepted > 0) text.Append(CultureInfo.InvariantCulture, $"; {h.NotAccepted} from before were not accepted when it began");
            if (h.OpenedOtherwise > 0) text.Append(CultureInfo.InvariantCulture, $"; {h.OpenedOtherwise} were opened before the command's end");
            text.Append(".\n");
        }
        return text.ToString();
    }

    public static string Of(WindowRun run)
    {
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"| {run.Method}, Linux {run.Kernel}{(run.IsEmulated ? ", emulated" : "")} | windows | p50, us | p99, us | max, us |\n|---|---|---|---|---|\n");
        Row("close, switch, open, while clients connect", run.WindowUs);
        Row("the same at rest", run.AtRestUs);
        if (run.ProgramsUs.Length > 0)
        {
            Row("the same by `tc`, `nft` and `tc`, at rest", run.ProgramsUs);
            text.Append(CultureInfo.InvariantCulture, $"| ratio at rest | | {At(run.AtRestUs, 0.5) / At(run.ProgramsUs, 0.5):0.000} | {At(run.AtRestUs, 0.99) / At(run.ProgramsUs, 0.99):0.000} | |\n");
        }
        text.Append(CultureInfo.InvariantCulture, $"\n{run.Failed:#,0} of the clients' {run.Requests:#,0} requests failed.\n");
        return text.ToString();

        void Row(string name, double[] sorted) => text.Append(CultureInfo.InvariantCulture,
            $"| {name} | {sorted.Length:#,0} | {At(sorted, 0.5):#,0} | {At(sorted, 0.99):#,0} | {sorted[^1]:#,0} |\n");
    }

    private static double At(double[] sorted, double part) => sorted[Math.Min(sorted.Length - 1, (int)(part * sorted.Length))];

    /// <summary>The number, and of what kind.</summary>
    public static string Failed(HoldRow row) => row.Failed == 0 ? "**0**"
        : string.Create(CultureInfo.InvariantCulture, $"{row.Failed:#,0} ({string.Join(", ", row.Failures.Select(f => $"{f.Value:#,0} {f.Key}"))})");

    /// <summary>Three digits say enough.</summary>
    public static string Ms(double milliseconds) =>
        milliseconds.ToString(milliseconds switch { < 1 => "0.00", < 100 => "0.0", _ => "#,0" }, CultureInfo.InvariantCulture);
}
