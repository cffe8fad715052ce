using System.CommandLine;
using FlipController.Core;
using FlipController.Linux;

namespace FlipController.Cli;

internal static class CheckConfigVerb
{
    public static Verb Create()
    {
        var file = new Argument<string>("FILE") { Description = "The configuration file" };
        return new Verb("check-config", "Checks a configuration file and names everything that is wrong with it; needs no daemon",
            ["flipctl check-config /etc/flipcontroller/flipcontroller.yaml",
                "flipctl check-config new.yaml && sudo cp new.yaml "
                + "/etc/flipcontroller/flipcontroller.yaml && sudo systemctl reload flipcontrollerd"],
            (call, _) => Task.FromResult(Run(call, call.Value(file)!))) { file };
    }

    private static ExitCode Run(Call call, string file)
    {
        ConfigurationResult result = YamlFile.ReadConfiguration(file);
        if (result.Configuration is not { } configuration) throw Told(call, file, result);
        string pairs = string.Join(", ", configuration.Pairs.Keys);
        string found = $"valid, {configuration.Pairs.Count} {(configuration.Pairs.Count == 1 ? "pair" : "pairs")}: {pairs}";
        if (!call.Terminal.Printed(new CheckReport(true, [new CheckLine(file, true, found)]))) call.Terminal.Line($"{file}: {found}");
        return ExitCode.Done;
    }

    /// <summary>Tells every fault; what is returned sums them up.</summary>
    public static VerbFailure Told(Call call, string file, ConfigurationResult result)
    {
        var lines = result.Faults.Select(f =>
            new CheckLine($"{f.File}:{f.Line}{(f.Path.Length == 0 ? "" : $": {f.Path}")}", false, f.Message));
        if (!call.Terminal.Printed(new CheckReport(false, [.. lines])))
        {
            foreach (ConfigurationFault fault in result.Faults) call.Terminal.Note(fault.ToString());
        }
        return new VerbFailure(ExitCode.Usage,
            $"{file} has {result.Faults.Length} {(result.Faults.Length == 1 ? "fault" : "faults")}; "
            + "a daemon told to load it keeps what it runs with");
    }
}
