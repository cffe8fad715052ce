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
        Option<string?> binary = Arguments.Binary("Plan for a flip with this HAProxy");
        return new Verb("plan", "Shows what a flip now would change; nothing is touched",
            ["flipctl plan edge", "flipctl plan edge --exit-code > /dev/null || flipctl flip edge",
                "flipctl plan edge --binary /opt/haproxy-3.0/sbin/haproxy"],
            (call, cancel) => RunAsync(call, call.Value(pair)!, call.Value(binary), call.Value(exitCode), cancel)) { pair, exitCode, binary };
    }

    private static async Task<ExitCode> RunAsync(
        Call call, string pair, string? binary, bool exitCode, CancellationToken cancel)
    {
        PlanReport plan = await call.Daemon.PlanAsync(pair, binary, cancel);
        if (!call.Terminal.Printed(plan)) Print(call.Terminal, plan);
        if (!exitCode) return ExitCode.Done;
        return !plan.Problems.IsEmpty ? ExitCode.Refused : plan.Changes || plan.RuntimeChanges.Any(c => !c.Carried)
            ? ExitCode.Failed : ExitCode.Done;
    }

    private static void Print(Terminal terminal, PlanReport plan)
    {
        foreach (string problem in plan.Problems) terminal.Console.MarkupLineInterpolated($"[red]{plan.Pair}: a flip now would be refused: {problem}[/]");
        if (plan.Problems.IsEmpty) terminal.Line(plan.Changes
            ? $"{plan.Pair}: a flip now would send new connections to a new generation{(plan.Slot is null ? "" : $" in {plan.Slot}")}"
            : $"{plan.Pair}: a flip now would change nothing");
        if (plan.BinaryThen is { } then && then != plan.BinaryNow)
            terminal.Console.MarkupLineInterpolated($"  binary: [red]{Told(plan.BinaryNow)}[/] -> [green]{Told(then)}[/]");
        else if (plan.BinaryNow is { } now)
            terminal.Line($"  binary: {Told(now)}");
        foreach (string service in plan.ServicesAdded) terminal.Console.MarkupLineInterpolated($"  [green]+ {service}[/]");
        foreach (string service in plan.ServicesRemoved) terminal.Console.MarkupLineInterpolated($"  [red]- {service}[/]");
        foreach (ServiceChange change in plan.ServicesChanged)
        {
            terminal.Console.MarkupLineInterpolated($"  [yellow]~ {change.Service}[/]");
            terminal.Console.MarkupLineInterpolated($"      [red]- {Shown(change.Before)}[/]");
            terminal.Console.MarkupLineInterpolated($"      [green]+ {Shown(change.After)}[/]");
        }
        foreach (string service in plan.ServicesKept.Except(plan.ServicesChanged.Select(c => c.Service))) terminal.Line($"    {service}");
        Diff(terminal, "configuration", plan.ConfigDiff);
        Diff(terminal, "ruleset", plan.RulesetDiff);
        if (!plan.RuntimeChanges.IsEmpty) terminal.Line("changed at run time:");
        foreach (RuntimeChangeReport change in plan.RuntimeChanges)
            terminal.Console.MarkupLineInterpolated(
                $"  [{(change.Carried ? "green" : "yellow")}]would be {(change.Carried ? "carried" : "lost")}: {change.Subject} {change.Text}{Why(change)}[/]");
        foreach (string note in plan.Notes) terminal.Console.MarkupLineInterpolated($"  [yellow]note: {note}[/]");
    }

    private static string Shown(string parameters) => parameters.Length == 0 ? "none" : parameters;

    private static string Told(BinaryReport? binary) =>
        binary is null ? "none" : $"{binary.Path} ({binary.Version ?? "no version"})";

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
