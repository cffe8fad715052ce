using FlipController.Core;
using Spectre.Console;

namespace FlipController.Cli;

internal static class Checks
{
    public static void Print(Terminal terminal, CheckReport report)
    {
        foreach (CheckLine line in report.Lines)
        {
            (string mark, string colour) = line switch
            {
                { Ok: true } => ("ok  ", "green"),
                { Warning: true } => ("warn", "yellow"),
                _ => ("FAIL", "red"),
            };
            terminal.Console.MarkupLineInterpolated($"[{colour}]{mark}[/]  {line.Subject}: {line.Found}");
            if (line.Remedy is not null && !line.Ok) terminal.Console.MarkupLineInterpolated($"      -> {line.Remedy}");
        }
    }
}
