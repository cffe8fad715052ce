using System.CommandLine;
using FlipController.Core;
using Spectre.Console;

namespace FlipController.Cli;

internal static class PlanVerb
{
    public static Verb Create()
    {
        Argument<string> pair = Arguments.Pair();
        var exitCode = new Option<bool>("--exit-code")
        {
            Description = "Say it by the exit code too: 0 nothing would change, 1 something would (also: runtime changes would be lost), 3 the flip would be refused",
        };
        return new Verb("plan", "Shows what a flip now would change; nothing is touched",
            ["flipctl plan edge", "flipctl plan edge --exit-code > /dev/null || flipctl flip edge"],
            (call, cancel) => RunAsync(call, call.Value(pair)!, call.Value(exitCode), cancel)) { pair, exitCode };
    }

    private static async Task<ExitCode> RunAsync(Call call, string pair, bool exitCode, CancellationToken cancel)
    {
        PlanReport plan = await call.Daemon.PlanAsync(pair, cancel);
        if (!call.Terminal.Printed(plan)) Print(call.Terminal, plan);
        if (!exitCode) return ExitCode.Done;
        return !plan.Problems.IsEmpty ? ExitCode.Refused : plan.Changes || plan.RuntimeChanges is { } lost && lost.Any(c => !c.Carried)
            ? ExitCode.Failed : ExitCode.Done;
    }

    private static void Print(Terminal terminal, PlanReport plan)
    {
        terminal.Line(plan.Changes
            ? $"{plan.Pair}: a flip now would send new connections to a new generation{(plan.Slot is null ? "" : $" in {plan.Slot}")}"
            : $"{plan.Pair}: a flip now would change nothing");
        foreach (string service in plan.ServicesAdded) terminal.Console.MarkupLineInterpolated($"  [green]+ {service}[/]");
        foreach (string service in plan.ServicesRemoved) terminal.Console.MarkupLineInterpolated($"  [red]- {service}[/]");
        foreach (string service in plan.ServicesKept) terminal.Line($"    {service}");
        Diff(terminal, "configuration", plan.ConfigDiff);
        Diff(terminal, "ruleset", plan.RulesetDiff);
        if (plan.RuntimeChanges is { } changes)
        {
            terminal.Line("changed at run time:");
            foreach (RuntimeChangeReport change in changes)
                terminal.Console.MarkupLineInterpolated(
                    $"  [{(change.Carried ? "green" : "yellow")}]would be {(change.Carried ? "carried" : "lost")}: {change.Subject} {change.Text}{Why(change)}[/]");
        }
        foreach (string problem in plan.Problems) terminal.Console.MarkupLineInterpolated($"  [red]refused: {problem}[/]");
    }

    private static string Why(RuntimeChangeReport change) => change.Why is null ? "" : $" ({change.Why})";

    private static void Diff(Terminal terminal, string what, string diff)
    {
        if (diff.Length == 0) return;
        terminal.Line($"{what}:");
        foreach (string line in diff.TrimEnd('\n').Split('\n'))
        {
            string colour = line.StartsWith('+') ? "green" : line.StartsWith('-') ? "red" : "default";
            terminal.Console.MarkupLineInterpolated($"  [{colour}]{line}[/]");
        }
    }
}
