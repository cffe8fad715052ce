using System.CommandLine;
using FlipController.Core;
using FlipController.Linux.Keepalived;

namespace FlipController.Cli;

/// <summary>keepalived's vrrp_script. A controller that is dead is no dead service.</summary>
internal static class CheckVerb
{
    private static readonly TimeSpan s_answerWithin = TimeSpan.FromMilliseconds(400);

    public static Verb Create()
    {
        Option<string?> config = NotifyVerb.ConfigOption();
        return new Verb("check",
            "Exits 0 when this node should have the addresses that keepalived moves, else 1 and says why; for keepalived's vrrp_script. Looks itself when no daemon answers",
            ["flipctl check", "script \"/usr/sbin/flipctl check\"    # in a vrrp_script of keepalived.conf", "flipctl check --json | jq -r '.reasons[]'"],
            (call, cancel) => RunAsync(call, call.Value(config), cancel)) { config };
    }

    private static async Task<ExitCode> RunAsync(Call call, string? file, CancellationToken cancel)
    {
        HealthReport report;
        using var late = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        late.CancelAfter(s_answerWithin);
        try
        {
            report = await call.Daemon.HealthAsync(late.Token);
        }
        catch (Exception e) when (!cancel.IsCancellationRequested && e is OperationCanceledException or VerbFailure { Code: ExitCode.Unreachable })
        {
            _ = NotifyVerb.StateDirectory(file, out Configuration? configuration);
            if (configuration is null)
                throw new VerbFailure(ExitCode.Failed, $"check: the daemon at {call.Daemon.Socket} does not answer, and {file ?? NotifyVerb.DefaultFile} does not say what to look at; give --config");
            report = OwnLook.At(configuration) with { Remark = $"the daemon at {call.Daemon.Socket} does not answer; this is what flipctl found itself" };
        }
        if (call.Terminal.Printed(report)) return report.Healthy ? ExitCode.Done : ExitCode.Failed;
        if (report.Remark is not null && report.Healthy) call.Terminal.Note($"check: {report.Remark}");
        return report.Healthy ? ExitCode.Done
            : throw new VerbFailure(ExitCode.Failed, $"check: {string.Join("; ", report.Reasons)}{(report.Remark is null ? "" : $" ({report.Remark})")}");
    }
}
