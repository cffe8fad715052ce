using System.CommandLine;
using FlipController.Core;
using FlipController.Linux;

namespace FlipController.Cli;

internal static class DoctorVerb
{
    public static Verb Create()
    {
        Option<string?> config = Arguments.ConfigFile("Look at what this configuration needs, too");
        return new Verb("doctor",
            "Checks that this host has what flips need, and says what to do where it has not; changes nothing, needs no daemon",
            [
                "flipctl doctor", "sudo flipctl doctor --config /etc/flipcontroller/flipcontroller.yaml",
                "flipctl doctor --json | jq '.lines[] | select(.ok | not)'",
            ],
            (call, cancel) => RunAsync(call, call.Value(config), cancel)) { config };
    }

    private static async Task<ExitCode> RunAsync(Call call, string? file, CancellationToken cancel)
    {
        Configuration? configuration = null;
        if (file is not null)
        {
            ConfigurationResult result = YamlFile.ReadConfiguration(file);
            configuration = result.Configuration;
            if (configuration is null) throw CheckConfigVerb.Told(call, file, result);
        }
        CheckReport report = await Doctor.LookAsync(configuration, cancel);
        if (!call.Terminal.Printed(report)) Checks.Print(call.Terminal, report);
        return report.Ok ? ExitCode.Done : ExitCode.Failed;
    }
}
