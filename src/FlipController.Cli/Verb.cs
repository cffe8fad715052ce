using System.CommandLine;
using System.CommandLine.Completions;
using System.CommandLine.Parsing;
using System.Globalization;
using FlipController.Core;

namespace FlipController.Cli;

/// <summary>One verb of the command line. What it cannot do it throws as a <see cref="VerbFailure"/>, told in one place, here.</summary>
internal sealed class Verb : Command
{
    public Verb(string name, string description, string[] examples, Func<Call, CancellationToken, Task<ExitCode>> run)
        : base(name, description)
    {
        Examples = examples;
        SetAction(async (parsed, cancel) =>
        {
            Terminal terminal = Terminal.For(parsed);
            try
            {
                using var daemon = new ControlClient(parsed.GetRequiredValue(GlobalOptions.Socket), name);
                return (int)await run(new Call(parsed, terminal, daemon), cancel);
            }
            catch (VerbFailure failure)
            {
                return terminal.Fail(failure);
            }
            catch (FlipException failure)
            {
                return terminal.Fail(new VerbFailure(ExitCode.Failed, failure.Message));
            }
            catch (OperationCanceledException) when (cancel.IsCancellationRequested)
            {
                return terminal.Fail(new VerbFailure(ExitCode.Interrupted, $"{name} was interrupted; nothing was changed by it"));
            }
        });
    }

    public IReadOnlyList<string> Examples { get; }

    /// <summary>A command of the user's, whose terminal and signals are left to it.</summary>
    public bool RunsACommand { get; init; }
}

/// <summary>What a running verb has at hand.</summary>
internal sealed record Call(ParseResult Parsed, Terminal Terminal, ControlClient Daemon)
{
    public bool Json => Terminal.Json;

    public T? Value<T>(Option<T> option) => Parsed.GetValue(option);

    public T? Value<T>(Argument<T> argument) => Parsed.GetValue(argument);
}

internal enum ExitCode
{
    Done = 0,
    Failed = 1,
    Usage = 2,
    Refused = 3,
    Unreachable = 4,
    /// <summary>As shells say it: of a command to run.</summary>
    NotExecutable = 126,
    NotFound = 127,
    /// <summary>128 + SIGINT, as shells say it.</summary>
    Interrupted = 130,
}

/// <summary>Why a verb did not do what it was asked for: one sentence, and the exit code that goes with it.</summary>
internal sealed class VerbFailure(ExitCode code, string sentence) : Exception(sentence)
{
    public ExitCode Code { get; } = code;

    public ErrorAnswer Answer => new(Code switch
    {
        ExitCode.Usage => "usage",
        ExitCode.Refused => "refused",
        ExitCode.Unreachable => "unreachable",
        ExitCode.Interrupted => "interrupted",
        ExitCode.Done or ExitCode.Failed or ExitCode.NotExecutable or ExitCode.NotFound => "failed",
    }, Message);
}

internal static class Arguments
{
    public static Argument<string> Pair() => Checked(new Argument<string>("PAIR") { Description = "The pair's name" });

    public static Argument<string?> OptionalPair() =>
        Checked(new Argument<string?>("PAIR")
        {
            Description = "The pair's name; every pair when left out", Arity = ArgumentArity.ZeroOrOne,
        });

    public static Option<string?> Reason() => new("--reason") { Description = "Why, for the history and the hooks", HelpName = "TEXT" };

    public static Option<bool> NoWait() => new("--no-wait") { Description = "Return when it is accepted, not when it has ended" };

    public static Option<string?> ConfigFile(string description) => new("--config") { Description = description, HelpName = "FILE" };

    public static Option<string?> Binary(string description) => new("--binary") { Description = description, HelpName = "PATH" };

    /// <summary>A duration as the configuration has it.</summary>
    public static Option<string?> Duration(string name, string description)
    {
        var option = new Option<string?>(name) { Description = description, HelpName = "D" };
        option.Validators.Add(result =>
        {
            if (result.Tokens is [var token, ..] && !Durations.TryParse(token.Value, out _))
                result.AddError($"{name}: \"{token.Value}\" is no duration, which is one number and one unit: 250ms, 30s, 10m, 1h");
        });
        return option;
    }

    public static Option<int?> Generation(string description, Argument<string> pair)
    {
        var option = new Option<int?>("--generation") { Description = description, HelpName = "N" };
        option.Validators.Add(AtLeastOne);
        option.CompletionSources.Add(context => Generations(context, pair));
        return option;
    }

    public static void AtLeastOne(OptionResult result)
    {
        // The library leaves words that are no number to itself, and says so.
        if (result.Tokens is [var token] && int.TryParse(token.Value, out int number) && number < 1)
            result.AddError($"{result.Option.Name} must be at least 1");
    }

    /// <summary>The generations a pair has now.</summary>
    public static IEnumerable<string> Generations(CompletionContext context, Argument<string> pair) =>
        context.ParseResult.GetResult(pair) is not { Tokens: [var name] } ? []
            : Asked(context, (daemon, cancel) => daemon.PairAsync(name.Value, cancel)) is not { } status ? []
            : status.Retired.Append(status.Previous).Append(status.Active).OfType<GenerationStatus>()
                .Select(g => g.Number.ToString(CultureInfo.InvariantCulture));

    private static Argument<T> Checked<T>(Argument<T> pair)
    {
        pair.Validators.Add(result =>
        {
            if (result.Tokens is [var token, ..] && !PairOptions.IsName(token.Value))
                result.AddError($"\"{token.Value}\" is no pair name, which is 1 to 32 of a-z, 0-9, _ and -");
        });
        // The library asks for every argument: one that is written already needs no more offers.
        pair.CompletionSources.Add(context => context.ParseResult.GetResult(pair) is { Tokens: [var token] } && token.Value != context.WordToComplete
            ? [] : Asked(context, (daemon, cancel) => daemon.StatusAsync(cancel))?.Pairs.Select(p => p.Name) ?? []);
        return pair;
    }

    /// <summary>A shell asks at every Tab: no daemon, or a slow one, simply has nothing to offer.</summary>
    private static T? Asked<T>(CompletionContext context, Func<ControlClient, CancellationToken, Task<T>> ask) where T : class
    {
        try
        {
            using var cancel = new CancellationTokenSource(TimeSpan.FromMilliseconds(500));
            using var daemon = new ControlClient(context.ParseResult.GetValue(GlobalOptions.Socket) ?? "", "completion");
            return Task.Run(() => ask(daemon, cancel.Token)).GetAwaiter().GetResult();
        }
        catch (Exception e) when (e is VerbFailure or OperationCanceledException)
        {
            return null;
        }
    }
}
