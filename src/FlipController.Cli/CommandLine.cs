using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Invocation;
using FlipController.Core;
using FlipController.Linux;

namespace FlipController.Cli;

/// <summary>All verbs together, and what holds for every one of them: the global options, help, and what an error looks like.</summary>
internal static class CommandLine
{
    // The library reads FILE for @FILE: a reason such as "@alice asked" is no file.
    private static readonly ParserConfiguration Parsing = new() { ResponseFileTokenReplacer = null };

    public static async Task<int> RunAsync(string[] args)
    {
        ParseResult parsed = Root().Parse(args, Parsing);
        // The library would print help to stdout and exit with 1, which here means "failed".
        if (parsed.Action is ParseErrorAction) return Misused(parsed);
        try
        {
            bool shares = parsed.CommandResult.Command is Verb { RunsACommand: true };
            return await parsed.InvokeAsync(new InvocationConfiguration
            {
                Output = shares ? Terminal.Shared(InheritedOutput.Standard) : Terminal.StandardOutput(),
                Error = shares ? Terminal.Shared(InheritedOutput.Error) : Console.Error,
                EnableDefaultExceptionHandler = false,
                // Time for a verb to say what goes on without it; it never has to wait for anybody then.
                ProcessTerminationTimeout = shares ? null : TimeSpan.FromSeconds(2),
            });
        }
        catch (IOException e) when (e.HResult == BrokenPipe)
        {
            // `flipctl watch | head -1`: whoever read has enough.
            return (int)ExitCode.Done;
        }
        catch (Exception e)
        {
            // A mistake of ours. Unhandled, it would end in an abort and perhaps a core file, and exit with a code nobody knows.
            await Console.Error.WriteLineAsync($"flipctl: this is a fault in flipctl, please report it: {e}");
            return (int)ExitCode.Failed;
        }
    }

    public static RootCommand Root()
    {
        var root = new RootCommand(
            "Moves NEW TCP connections between the two sides of a pair, and tells how things stand.\n\n"
            + "Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 refused in this state, 4 daemon not reachable.")
        {
            GlobalOptions.Socket, GlobalOptions.Json,
            StatusVerb.Create(), FlipVerb.Create(), RollbackVerb.Create(), AdoptVerb.Create(), ReleaseVerb.Create(),
            DrainVerb.Create(), UndrainVerb.Create(), ConnectionsVerb.Create(), CloseVerb.Create(),
            HandoverVerb.Create(), HistoryVerb.Create(), WatchVerb.Create(), ProtectVerb.Create(), PlugVerb.Create(),
            CheckConfigVerb.Create(), RenderVerb.Create(), PlanVerb.Create(), DoctorVerb.Create(), ResetVerb.Create(),
            NotifyVerb.Create(), CheckVerb.Create(), MaintenanceVerb.Create(),
            CompletionVerb.Create(),
        };
        // The library's own has -?, /? and /h, too, which no shell here would offer.
        foreach (HelpOption help in root.Options.OfType<HelpOption>().ToList()) root.Options.Remove(help);
        root.Options.Add(new HelpOption("--help", "-h") { Description = "Show this", Action = new HelpWithExamples(new HelpAction()) });
        return root;
    }

    private const int BrokenPipe = 32; // EPIPE, errno(3)

    private static int Misused(ParseResult parsed)
    {
        string verb = parsed.CommandResult.Command is Verb { Name: var name } ? $"flipctl {name}" : "flipctl";
        return Terminal.For(parsed).Fail(new VerbFailure(ExitCode.Usage, $"{Complaint(parsed)}; nothing was done; see `{verb} --help`"));
    }

    /// <summary>One sentence, though the library may have several complaints about one slip.</summary>
    private static string Complaint(ParseResult parsed)
    {
        if (parsed.CommandResult.Command is not Verb verb)
        {
            return parsed.UnmatchedTokens.FirstOrDefault() is not { } word ? "a verb is missing"
                : NearestName.To(word, parsed.CommandResult.Command.Subcommands.Select(c => c.Name)) is { } nearest
                ? $"\"{word}\" is no verb; did you mean {nearest}" : $"\"{word}\" is no verb";
        }
        string message = parsed.Errors.Select(e => e.Message.Trim().TrimEnd('.')).First();
        return $"{verb.Name}: {string.Join(' ', message.Split(['\n', '\t', '\r'], StringSplitOptions.RemoveEmptyEntries))}";
    }

    private sealed class HelpWithExamples(HelpAction inner) : SynchronousCommandLineAction
    {
        public override bool ClearsParseErrors => true;

        public override int Invoke(ParseResult parseResult)
        {
            int code = inner.Invoke(parseResult);
            TextWriter output = parseResult.InvocationConfiguration.Output;
            if (parseResult.CommandResult.Command is not Verb verb)
            {
                output.WriteLine("Examples:\n  flipctl status\n"
                    + "  flipctl flip edge --reason \"new certificate\"\n  flipctl rollback edge\n");
                return code;
            }
            output.WriteLine("Examples:");
            foreach (string example in verb.Examples) output.WriteLine($"  {example}");
            output.WriteLine();
            return code;
        }
    }
}

internal static class GlobalOptions
{
    public const string SocketVariable = "FLIPCONTROLLER_SOCKET";

    public static Option<string> Socket { get; } = new("--socket")
    {
        Description = $"The daemon's control socket; {SocketVariable} in the environment says it too",
        HelpName = "PATH",
        Recursive = true,
        DefaultValueFactory = _ => Environment.GetEnvironmentVariable(SocketVariable) is { Length: > 0 } path
            ? path : new ControlOptions().Socket,
    };

    public static Option<bool> Json { get; } = new("--json")
    {
        Description = "Print one JSON document, errors too (on stderr)",
        Recursive = true,
    };
}
