using System.Diagnostics;
using System.Text;
using System.Text.RegularExpressions;
using FlipController.Tests.Shared;

namespace FlipController.SystemTests;

internal sealed record Ran(int ExitCode, string Output, string Error);

/// <summary>flipctl, and what is needed around it, run to its end.</summary>
internal static class FlipctlProcess
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    public static string Flipctl { get; } = Programs.Cli;

    public static Task<Ran> FlipctlAsync(params string[] arguments) => EndAsync(Begin(Flipctl, arguments, out _));

    public static Task<Ran> RunAsync(string program, string[] arguments, params (string Name, string Value)[] environment) =>
        EndAsync(Begin(program, arguments, out _, environment));

    /// <summary>As a person has it: 90 columns, 30 rows, UTF-8.</summary>
    /// <param name="until">flipctl is interrupted once this was shown.</param>
    public static Task<Ran> AtTerminalAsync(string arguments, string? until = null, params (string Name, string Value)[] environment) =>
        EndAsync(BeginAtTerminal(arguments, environment), until);

    /// <param name="pattern">What is shown before <paramref name="answer"/> is called.</param>
    public static Task<Ran> AtTerminalAsync(string arguments, string pattern, Action answer) => EndAsync(BeginAtTerminal(arguments, []), pattern, answer);

    private static Process BeginAtTerminal(string arguments, (string Name, string Value)[] environment)
    {
        Require.Program("script");
        // exec: the pid that is told is flipctl's own.
        return Begin("script", ["-qec", $"stty cols 90 rows 30; echo pid=$$; exec {Flipctl} {arguments}", "/dev/null"], out _,
            [("TERM", "xterm-256color"), ("LC_ALL", "C.UTF-8"), ("SHELL", "/bin/sh"), .. environment]);
    }

    public static Process Begin(string program, string[] arguments, out int pid, params (string Name, string Value)[] environment)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
        // The test runner sets some for itself.
        foreach (string name in (string[])["FLIPCONTROLLER_SOCKET", "NO_COLOR", "LC_ALL", "LC_CTYPE", "LANG"]) start.Environment.Remove(name);
        foreach ((string name, string value) in environment) start.Environment[name] = value;
        Process process = Process.Start(start)!;
        process.StandardInput.Close();
        pid = process.Id;
        return process;
    }

    /// <param name="until">It is interrupted as soon as its output holds this.</param>
    public static Task<Ran> EndAsync(Process process, string? until = null) => EndAsync(
        process, until is null ? _ => false : text => text.Contains(until, StringComparison.Ordinal),
        text => RunAsync("kill", ["-INT", $"{Told(text) ?? process.Id}"]));

    /// <param name="pattern">What one of its streams shows before <paramref name="answer"/> is called: an answer that comes as early as it may would end the show.</param>
    public static Task<Ran> EndAsync(Process process, string pattern, Action answer) => EndAsync(
        process, text => Regex.IsMatch(text, pattern),
        _ =>
        {
            answer();
            return Task.CompletedTask;
        }, alsoErrors: true);

    private static async Task<Ran> EndAsync(Process process, Func<string, bool> isShown, Func<string, Task> then, bool alsoErrors = false)
    {
        using (process)
        {
            using var limit = new CancellationTokenSource(Patience);
            try
            {
                Task<string> error = ReadAsync(process.StandardError, alsoErrors);
                string output = await ReadAsync(process.StandardOutput, true);
                await process.WaitForExitAsync(limit.Token);
                return new Ran(process.ExitCode, output.ReplaceLineEndings("\n"), await error);
            }
            finally
            {
                if (!process.HasExited) process.Kill();
            }

            async Task<string> ReadAsync(StreamReader stream, bool looks)
            {
                var text = new StringBuilder();
                char[] buffer = new char[4096];
                while (await stream.ReadAsync(buffer, limit.Token) is > 0 and int read)
                {
                    text.Append(buffer, 0, read);
                    if (!looks || !isShown(text.ToString())) continue;
                    looks = false;
                    await then(text.ToString());
                }
                return text.ToString();
            }
        }
    }

    private static int? Told(string output) =>
        output.StartsWith("pid=", StringComparison.Ordinal) ? int.Parse(output["pid=".Length..output.IndexOfAny(['\r', '\n'])]) : null;
}
