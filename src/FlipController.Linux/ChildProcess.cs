using System.Collections.Immutable;
using System.ComponentModel;
using FlipController.Core;
using Medallion.Shell;

namespace FlipController.Linux;

/// <summary>What a program finds in its environment beside what it is given by name.</summary>
public enum ChildEnvironment
{
    /// <summary>PATH, HOME and LANG, always the same: ours may hold secrets, and what the service manager meant for us alone.</summary>
    Plain,
    /// <summary>Ours: for HAProxy, whose files may name any variable of it.</summary>
    Inherited,
    /// <summary>Nothing.</summary>
    Empty,
}

/// <summary>
/// A program of this host, run to its end: an argument list, never a shell. Its standard input is at its end from the beginning.
/// </summary>
public sealed record ChildProcess(string Executable, ImmutableArray<string> Arguments)
{
    internal static readonly (string Name, string Value)[] Plain =
    [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/"), ("LANG", "C.UTF-8"),
    ];

    public string? WorkingDirectory { get; init; }

    /// <summary>After this it is killed.</summary>
    public TimeSpan Timeout { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>Variables it is given by name; they stand in the place of others of the same name.</summary>
    public IReadOnlyDictionary<string, string> Environment { get; init; } = ImmutableDictionary<string, string>.Empty;

    /// <summary>What is there beside <see cref="Environment"/>.</summary>
    public ChildEnvironment Beside { get; init; } = ChildEnvironment.Plain;

    /// <summary>At the lowest priority, so that it takes no time from what carries traffic.</summary>
    public bool Polite { get; init; }

    public string CommandLine => string.Join(' ', Arguments.Prepend(Executable).Select(Shown));

    /// <summary>Runs it and returns what came out, whatever its exit code.</summary>
    public async Task<ChildOutcome> RunAsync(CancellationToken cancellation = default)
    {
        cancellation.ThrowIfCancellationRequested();
        Command command;
        try
        {
            // nice(1) becomes the program itself, so the process that is killed in the end is the right one.
            command = Polite
                ? Command.Run("nice", ["-n", "19", Executable, .. Arguments], Configure)
                : Command.Run(Executable, [.. Arguments], Configure);
        }
        catch (Exception e) when (e is Win32Exception or DirectoryNotFoundException)
        {
            throw new CommandFailedException(CommandLine, null, e.Message, e);
        }
        using IDisposable disposal = command;
        // The streams are read to their end first: a program that left a child behind with them open is not done.
        Task<string> output = command.StandardOutput.ReadToEndAsync(), errors = command.StandardError.ReadToEndAsync();
        try
        {
            command.StandardInput.Close();
        }
        catch (IOException)
        {
            // It ended before it could have read anything.
        }
        using var overrun = new CancellationTokenSource(Timeout);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(overrun.Token, cancellation);
        try
        {
            await Task.WhenAll(command.Task, output, errors).WaitAsync(either.Token);
        }
        catch (OperationCanceledException) when (either.IsCancellationRequested)
        {
            command.Kill();
            cancellation.ThrowIfCancellationRequested();
            throw new CommandFailedException(CommandLine, null, $"no end after {Timeout.TotalSeconds:0.###} s, it was killed");
        }
        int exitCode = command.Result.ExitCode;
        // nice(1) says so itself when there is no such program.
        return Polite && exitCode is 126 or 127
            ? throw new CommandFailedException(CommandLine, null, await errors)
            : new ChildOutcome(exitCode, await output, await errors);
    }

    /// <summary>Runs it; every exit code but 0 is an error.</summary>
    public async Task<ChildOutcome> SucceedAsync(CancellationToken cancellation = default)
    {
        ChildOutcome outcome = await RunAsync(cancellation);
        return outcome.ExitCode == 0 ? outcome : throw new CommandFailedException(CommandLine, outcome.ExitCode, outcome.StandardError);
    }

    private void Configure(Shell.Options options)
    {
        options.ThrowOnError(false).DisposeOnExit(false);
        if (WorkingDirectory is { } directory) options.WorkingDirectory(directory);
        options.StartInfo(start =>
        {
            if (Beside != ChildEnvironment.Inherited) start.Environment.Clear();
            if (Beside == ChildEnvironment.Plain)
                foreach (var (name, value) in Plain) start.Environment[name] = value;
            foreach (var (name, value) in Environment) start.Environment[name] = value;
        });
    }

    /// <summary>So that a person can paste it.</summary>
    private static string Shown(string word) => word.Length > 0 && !word.AsSpan().ContainsAny(" \t\n\"'\\$&;|<>()*?#`")
        ? word
        : $"'{word.Replace("'", "'\\''", StringComparison.Ordinal)}'";
}

public sealed record ChildOutcome(int ExitCode, string StandardOutput, string StandardError)
{
    /// <summary>Everything it said, errors first.</summary>
    public string Output => StandardError + StandardOutput;
}

/// <param name="exitCode">Null when it could not be started or had to be killed.</param>
public sealed class CommandFailedException(string commandLine, int? exitCode, string stderr, Exception? inner = null)
    : FlipException(Sentence(commandLine, exitCode, stderr), inner)
{
    public string CommandLine { get; } = commandLine;
    public int? ExitCode { get; } = exitCode;
    public string Stderr { get; } = stderr;

    private static string Sentence(string commandLine, int? exitCode, string stderr)
    {
        string said = string.Join("; ", stderr.Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries));
        string ended = exitCode is { } code ? $"exit code {code}" : "no exit code";
        return $"cannot run \"{commandLine}\": {ended} ({(said == "" ? "it said nothing" : said)})";
    }
}
