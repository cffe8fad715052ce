using System.Diagnostics;
using System.Text;
using FlipController.Tests.Shared;

namespace FlipController.SystemTests;

internal sealed record Ran(int ExitCode, string Output, string Error);

/// <summary>flipctl, and what is needed around it, run to its end.</summary>
internal static class FlipctlProcess
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    public static string Flipctl { get; } = Path.Combine(AppContext.BaseDirectory, "flipctl");

    public static Task<Ran> FlipctlAsync(params string[] arguments) => EndAsync(Begin(Flipctl, arguments, out _));

    public static Task<Ran> RunAsync(string program, string[] arguments, params (string Name, string Value)[] environment) =>
        EndAsync(Begin(program, arguments, out _, environment));

    /// <summary>As a person has it: 90 columns, 30 rows, UTF-8.</summary>
    /// <param name="until">flipctl is interrupted once this was shown.</param>
    public static Task<Ran> AtTerminalAsync(string arguments, string? until = null, params (string Name, string Value)[] environment)
    {
        Require.Program("script");
        // exec: the pid that is told is flipctl's own.
        return EndAsync(Begin("script", ["-qec", $"stty cols 90 rows 30; echo pid=$$; exec {Flipctl} {arguments}", "/dev/null"], out _,
            [("TERM", "xterm-256color"), ("LC_ALL", "C.UTF-8"), ("SHELL", "/bin/sh"), .. environment]), until);
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
    public static async Task<Ran> EndAsync(Process process, string? until = null)
    {
        using (process)
        {
            using var limit = new CancellationTokenSource(Patience);
            try
            {
                Task<string> error = process.StandardError.ReadToEndAsync(limit.Token);
                var output = new StringBuilder();
                char[] buffer = new char[4096];
                while (await process.StandardOutput.ReadAsync(buffer, limit.Token) is > 0 and int read)
                {
                    output.Append(buffer, 0, read);
                    if (until is null || !output.ToString().Contains(until, StringComparison.Ordinal)) continue;
                    until = null;
                    await RunAsync("kill", ["-INT", $"{Told(output.ToString()) ?? process.Id}"]);
                }
                await process.WaitForExitAsync(limit.Token);
                return new Ran(process.ExitCode, output.ToString().ReplaceLineEndings("\n"), await error);
            }
            finally
            {
                if (!process.HasExited) process.Kill();
            }
        }
    }

    private static int? Told(string output) =>
        output.StartsWith("pid=", StringComparison.Ordinal) ? int.Parse(output["pid=".Length..output.IndexOfAny(['\r', '\n'])]) : null;
}
