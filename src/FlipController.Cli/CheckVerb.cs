using System.CommandLine;
using System.Text.Json;
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
            (call, cancel) => Task.Run(() => Run(call, call.Value(config)), cancel)) { config };
    }

    private static ExitCode Run(Call call, string? file)
    {
        HealthReport report;
        if (QuickAsk.Send(call.Daemon.Socket, "/v1/health", null, s_answerWithin, out string unreached) is { } answer)
        {
            report = JsonSerializer.Deserialize(answer, WireJson.Default.HealthReport)!;
        }
        else
        {
            _ = NotifyVerb.StateDirectory(file, out Configuration? configuration);
            if (configuration is null)
                throw new VerbFailure(ExitCode.Failed, $"check: {unreached}, and {file ?? NotifyVerb.DefaultFile} does not say what to look at; give --config");
            report = OwnLook.At(configuration) with { Remark = $"{unreached}; this is what flipctl found itself" };
        }
        if (call.Terminal.Printed(report)) return report.Healthy ? ExitCode.Done : ExitCode.Failed;
        if (report.Remark is not null && report.Healthy) call.Terminal.Note($"check: {report.Remark}");
        return report.Healthy ? ExitCode.Done
            : throw new VerbFailure(ExitCode.Failed, $"check: {string.Join("; ", report.Reasons)}{(report.Remark is null ? "" : $" ({report.Remark})")}");
    }
}
