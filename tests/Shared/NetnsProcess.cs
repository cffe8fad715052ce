using System.Diagnostics;
using System.Text;

namespace FlipController.Tests.Shared;

/// <summary>A program that a test started, with what it said. Killed, by its pid alone, when disposed of.</summary>
public sealed class NetnsProcess : IDisposable
{
    private const int MaxOutput = 4 * 1024 * 1024;

    private int _disposed;
    private readonly Process _process;
    private readonly StringBuilder _output = new(), _errors = new();

    internal NetnsProcess(string program, IEnumerable<string> arguments)
    {
        var start = new ProcessStartInfo(program) { RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true };
        foreach (var argument in arguments) start.ArgumentList.Add(argument);
        CommandLine = string.Join(' ', start.ArgumentList.Prepend(program));
        _process = new Process { StartInfo = start };
        _process.OutputDataReceived += (_, line) => Keep(_output, line.Data);
        _process.ErrorDataReceived += (_, line) => Keep(_errors, line.Data);
        _process.Start();
        _process.StandardInput.Close();
        _process.BeginOutputReadLine();
        _process.BeginErrorReadLine();
    }

    public string CommandLine { get; }

    public int Pid => _process.Id;

    public bool HasExited => _process.HasExited;

    public int ExitCode => _process.ExitCode;

    public string Output => Read(_output);

    public string Errors => Read(_errors);

    public bool Signal(int signal) => !_process.HasExited && Signals.Send(_process.Id, signal);

    /// <summary>SIGTERM.</summary>
    public bool Terminate() => Signal(Signals.Terminate);

    /// <summary>Until it has ended and everything it said has been read.</summary>
    public async Task<int> Exit(TimeSpan deadline)
    {
        using var late = new CancellationTokenSource(deadline);
        try
        {
            await _process.WaitForExitAsync(late.Token);
            return _process.ExitCode;
        }
        catch (OperationCanceledException) when (late.IsCancellationRequested)
        {
            throw new TimeoutException($"still running after {deadline.TotalSeconds} s: {CommandLine}\n{Output}{Errors}");
        }
    }

    /// <summary>Twice is fine: a test may end its process before the namespace does.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) == 1) return;
        if (!_process.HasExited)
        {
            _process.Kill();
            _process.WaitForExit(5000);
        }
        _process.Dispose();
    }

    private static void Keep(StringBuilder text, string? line)
    {
        if (line is null) return;
        lock (text)
        {
            if (text.Length < MaxOutput) text.Append(line).Append('\n');
        }
    }

    private static string Read(StringBuilder text)
    {
        lock (text) return text.ToString();
    }
}

/// <summary>A program run to its end.</summary>
internal static class Command
{
    public static string Run(string program, params string[] arguments)
    {
        var (code, output, errors) = Finish(program, arguments);
        return code == 0 ? output : throw new InvalidOperationException($"`{program} {string.Join(' ', arguments)}` exited {code}: {errors.Trim()}");
    }

    /// <summary>What it said, whether or not it failed.</summary>
    public static string TryRun(string program, params string[] arguments) => Finish(program, arguments).Output;

    private static (int Code, string Output, string Errors) Finish(string program, string[] arguments)
    {
        var start = new ProcessStartInfo(program) { RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true };
        foreach (var argument in arguments) start.ArgumentList.Add(argument);
        using var process = Process.Start(start)!;
        process.StandardInput.Close();
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEndAsync();
        if (!process.WaitForExit(30_000))
        {
            process.Kill();
            throw new TimeoutException($"`{program} {string.Join(' ', arguments)}` did not end in 30 s");
        }
        // A daemonised child may hold the pipes open for as long as it lives: what matters has been said by now.
        Task.WaitAll([output, errors], 5000); // a busy machine may be slow to hand over what was said
        return (process.ExitCode, output.IsCompletedSuccessfully ? output.Result : "", errors.IsCompletedSuccessfully ? errors.Result : "");
    }
}
