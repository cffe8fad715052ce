using System.CommandLine;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Haproxy;

namespace FlipController.Cli;

internal static class RenderVerb
{
    public static Verb Create()
    {
        Argument<string?> pair = Arguments.OptionalPair();
        pair.Description = "The pair's name";
        Argument<string?> slot = new Argument<string?>("SLOT") { Description = "blue or green", Arity = ArgumentArity.ZeroOrOne }
            .AcceptOnlyFromAmong("blue", "green");
        var files = new Option<string[]>("--file", "-f")
        {
            Description = "Instead of a pair's: this HAProxy configuration file or directory, as HAProxy's -f; may be said again",
            HelpName = "PATH",
        };
        var binary = new Option<string>("--binary")
        {
            Description = "With --file: the HAProxy that would read it", HelpName = "PROGRAM", DefaultValueFactory = _ => "haproxy",
        };
        var check = new Option<bool>("--check") { Description = "With --file: have that HAProxy look at the copy, and say what it says" };
        var verb = new Verb("render",
            "Prints the HAProxy configuration that a generation in this slot would run with, from the files on disk now; "
            + "with --file of any configuration, without a daemon: what cannot be copied rightly is named by file and line",
            [
                "flipctl render edge green", "flipctl render edge green | diff /etc/haproxy/haproxy.cfg -",
                "flipctl render --file /etc/haproxy/haproxy.cfg --check > /dev/null",
                "flipctl render --file /etc/haproxy/haproxy.cfg --file /etc/haproxy/conf.d --binary /opt/haproxy/sbin/haproxy",
            ],
            (call, cancel) => call.Value(files) is { Length: > 0 } paths
                ? FilesAsync(call, paths, call.Value(binary)!, call.Value(check), cancel)
                : PairAsync(call, call.Value(pair)!, call.Value(slot)!, cancel)) { pair, slot, files, binary, check };
        verb.Validators.Add(result =>
        {
            bool hasFiles = result.GetResult(files) is not null;
            if (hasFiles && result.GetResult(pair)?.Tokens.Count > 0)
                result.AddError("--file shows files, PAIR SLOT what a pair has; both together mean nothing");
            else if (!hasFiles && !(result.GetResult(slot)?.Tokens.Count > 0) && !result.Children.Any(c => c.Errors.Any()))
                result.AddError("PAIR SLOT or --file PATH is missing");
        });
        return verb;
    }

    private static async Task<ExitCode> PairAsync(Call call, string pair, string slot, CancellationToken cancel)
    {
        Print(call.Terminal, await call.Daemon.RenderAsync(pair, slot, cancel));
        return ExitCode.Done;
    }

    private static async Task<ExitCode> FilesAsync(Call call, string[] paths, string binary, bool check, CancellationToken cancel)
    {
        TrialCopy trial;
        try
        {
            trial = await TrialCopy.OfAsync([.. paths.Select(Path.GetFullPath)], binary, check, cancel);
        }
        catch (FlipException e)
        {
            throw new VerbFailure(ExitCode.Usage, e.Message);
        }
        if (trial.Projection.Configuration is not { } copy)
        {
            var faults = trial.Projection.Faults;
            if (!call.Terminal.Printed(new CheckReport(false, [.. faults.Select(f => new CheckLine($"{f.File}:{f.Line}", false, f.Message))])))
                foreach (ConfigurationFault fault in faults) call.Terminal.Note($"{fault.File}:{fault.Line}: {fault.Message}");
            throw new VerbFailure(ExitCode.Usage,
                $"{string.Join(", ", paths)} cannot be copied: {faults.Length} {(faults.Length == 1 ? "line stands" : "lines stand")} in the way");
        }
        Print(call.Terminal, new RenderReport(
            "", Slot.Blue.Name(), [.. copy.Files.Select(f => new RenderedText(f.Path, f.Source, Encoding.UTF8.GetString(f.Content)))],
            [.. copy.Notes.Select(n => n.ToString())], trial.Check?.Output.TrimEnd('\n')));
        return trial.Check is { Verdict: not HaproxyVerdict.Valid }
            ? throw new VerbFailure(ExitCode.Usage, $"{binary} does not accept the copy of {string.Join(", ", paths)}")
            : ExitCode.Done;
    }

    /// <summary>The copy on stdout, what is said about it on stderr.</summary>
    private static void Print(Terminal terminal, RenderReport report)
    {
        if (terminal.Printed(report)) return;
        foreach (RenderedText file in report.Files)
        {
            // A comment for HAProxy too, so that the output can be fed back to it.
            terminal.Line($"# {file.Path}{(file.Source is null ? " (FlipController's own)" : $" (from {file.Source})")}");
            terminal.Line(file.Text.TrimEnd('\n'));
        }
        foreach (string note in report.Notes ?? []) terminal.Note($"note: {note}");
        if (report.Haproxy is { Length: > 0 } said) terminal.Note(said);
    }
}
