using System.Collections.Immutable;
using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Hold;

namespace FlipController.Cli;

internal static class ProtectVerb
{
    private static readonly TimeSpan ShortestMax = TimeSpan.FromMilliseconds(10), LongestMax = TimeSpan.FromSeconds(60);

    private sealed record Options(Option<string[]> Port, Option<string> Method, Option<string[]> Device, Option<string> Max, Option<string> OnCap,
        Option<bool> NoLocal, Option<bool> NoIncoming, Option<bool> Lanes, Option<string?> Reason, Option<string?> Report, Argument<string[]> Command);

    public static Verb Create()
    {
        var options = new Options(
            new("--port") { Description = "A port that HAProxy listens on; again for every other one", HelpName = "P" },
            new("--method")
            {
                Description = "How connections wait: auto takes the first of plug and queue that works here; drop loses them for a second",
                HelpName = string.Join('|', HoldChoice.Methods), DefaultValueFactory = _ => HoldChoice.Auto,
            },
            new("--dev") { Description = "Where connections come in, for plug; again for every other one. By default every device but lo", HelpName = "DEVICE" },
            new("--max") { Description = "After so long new connections go on, whatever the command does: 10ms to 60s", HelpName = "D", DefaultValueFactory = _ => "3s" },
            new("--on-cap")
            {
                Description = "When --max is over: open lets the command run on without a hold, kill ends it (SIGTERM, and SIGKILL 5 s later)", HelpName = "open|kill",
                DefaultValueFactory = _ => "open",
            },
            new("--no-local") { Description = "This host's own connections do not wait" },
            new("--no-incoming") { Description = "Connections from outside do not wait" },
            new("--lanes")
            {
                Description = "With plug: this host's own connections wait in a lane on lo's sending side, and not where lo receives. "
                    + "Putting it up and taking it down loses what lo sends for some milliseconds",
            },
            new("--reason") { Description = "Why, for the report", HelpName = "TEXT" },
            new("--report") { Description = "Write the report to this file as JSON", HelpName = "FILE" },
            new("CMD")
            {
                Description = "The command and its arguments, after --. It has flipctl's input, output, terminal and signals, and its exit code is flipctl's",
                Arity = ArgumentArity.ZeroOrMore,
            });
        options.Method.CompletionSources.Add(_ => HoldChoice.Methods.Select(m => new System.CommandLine.Completions.CompletionItem(m)));
        options.OnCap.CompletionSources.Add("open", "kill");
        options.Device.CompletionSources.Add(_ => PlugVerb.Devices().Where(d => d != "lo").Select(d => new System.CommandLine.Completions.CompletionItem(d)));
        var verb = new Verb("protect",
            "Runs a command while NEW connections to the ports wait, in order and unharmed, for it to end. Nothing else is needed: no daemon, "
            + "no configuration. The hold itself touches no open connection: what the command does to them is its own matter. It ends when the "
            + "command returns, so that one which only asks for something (kill -USR2) must wait for it. With --json the report is the last "
            + "line on stderr, as stdout is the command's.",
            [
                "sudo flipctl protect --port 80 --port 443 -- systemctl restart haproxy",
                "sudo flipctl protect --port 80 --max 500ms --on-cap kill -- ./change-two-tables",
                "sudo flipctl protect --port 80 --report /run/protect.json --reason \"new build\" -- ./stop-softly-and-start",
            ],
            (call, _) => Task.FromResult(Run(call, options)))
        {
            RunsACommand = true,
        };
        foreach (Option option in (Option[])[
            options.Port, options.Method, options.Device, options.Max, options.OnCap, options.NoLocal, options.NoIncoming, options.Lanes,
            options.Reason, options.Report,
        ]) verb.Options.Add(option);
        verb.Arguments.Add(options.Command);
        verb.Validators.Add(result =>
        {
            if (result.Children.Any(c => c.Errors.Any())) return;
            List<string> faults = [.. Faults(result, options)];
            if (faults.Count > 0) result.AddError(string.Join("; ", faults));
        });
        return verb;
    }

    /// <summary>All of them: who corrects a line wants to do it once.</summary>
    private static IEnumerable<string> Faults(CommandResult result, Options options)
    {
        string[] ports = Words(options.Port);
        if (ports.Length == 0) yield return "--port is missing: which port's new connections are to wait";
        foreach (string port in ports)
        {
            if (!TryPort(port, out _)) yield return $"--port: \"{port}\" is no port, which is 1 to 65535";
        }
        if (Words(options.Method) is [var method] && !HoldChoice.Methods.Contains(method))
            yield return $"--method: \"{method}\" is none of {string.Join(", ", HoldChoice.Methods)}";
        if (Words(options.Max) is [var max])
        {
            if (!Durations.TryParse(max, out TimeSpan time)) yield return $"--max: \"{max}\" is no duration, which is one number and one unit: 500ms, 3s";
            else if (time < ShortestMax || time > LongestMax) yield return $"--max: \"{max}\" must be between 10ms and 60s";
        }
        if (Words(options.OnCap) is [var onCap] && onCap is not ("open" or "kill")) yield return $"--on-cap: \"{onCap}\" is neither open nor kill";
        foreach (string device in Words(options.Device))
        {
            if (device is "lo") yield return "--dev: connections from outside do not come in on lo; this host's own are --no-local's matter";
            else if (device.Length is 0 or > 15 || device.Any(c => c == '/' || char.IsWhiteSpace(c))) yield return $"--dev: \"{device}\" is no device's name";
        }
        bool noIncoming = result.GetResult(options.NoIncoming) is { Implicit: false };
        if (noIncoming && result.GetResult(options.NoLocal) is { Implicit: false })
            yield return "--no-local and --no-incoming together leave nobody to wait";
        if (result.GetResult(options.Lanes) is { Implicit: false })
        {
            if (result.GetResult(options.NoLocal) is { Implicit: false }) yield return "--lanes says how this host's own connections wait, and --no-local that they do not";
            if (Words(options.Method) is not ["plug"]) yield return "--lanes is plug's matter; say --method plug, too";
        }
        if (noIncoming && Words(options.Device).Length > 0) yield return "--dev says where connections come in, and --no-incoming that they do not wait";
        if (Words(options.Report) is [""]) yield return "--report: the file's name is missing";
        IReadOnlyList<Token> command = result.GetResult(options.Command)?.Tokens ?? [];
        if (command.Count == 0) yield return "the command is missing: -- CMD ARGUMENTS";
        // .NET has put that in place of what it could not read.
        if (command.FirstOrDefault(t => t.Value.Contains('\uFFFD'))?.Value is { } unreadable)
            yield return $"\"{unreadable}\": the command's words are passed on as UTF-8, and this one is not; put it into a script";

        string[] Words(Option option) => result.GetResult(option) is { Implicit: false } given ? [.. given.Tokens.Select(t => t.Value)] : [];
    }

    /// <summary>With the pid namespace's number unless it is the first one: containers may share a network namespace, and each has a pid 1.</summary>
    private static string Owner()
    {
        const string first = "4026531836"; // PROC_PID_INIT_INO: include/linux/proc_ns.h
        string? pids = new FileInfo("/proc/self/ns/pid").LinkTarget is ['p', 'i', 'd', ':', '[', .. var inode, ']'] && inode != first ? inode : null;
        return $"protect-{Environment.ProcessId}{(pids is null ? "" : $"-{pids}")}";
    }

    private static bool TryPort(string text, out int port) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out port) && port is >= 1 and <= 65535;

    private static ExitCode Run(Call call, Options options)
    {
        _ = Durations.TryParse(call.Value(options.Max)!, out TimeSpan max);
        ImmutableArray<int> ports = [.. call.Value(options.Port)!.Select(p => TryPort(p, out int port) ? port : 0).Distinct().Order()];
        var request = new ProtectionRequest(
            call.Value(options.Method)!,
            new HoldScope(Owner(), ports, !call.Value(options.NoIncoming), !call.Value(options.NoLocal), max,
                [.. (call.Value(options.Device) ?? []).Distinct()], Lanes: call.Value(options.Lanes)),
            [.. call.Value(options.Command)!], call.Value(options.OnCap) == "kill");
        using FileStream? file = Opened(call.Value(options.Report));
        List<string> warnings = [];
        ProtectionOutcome outcome;
        try
        {
            outcome = Protection.Run(request, warning =>
            {
                warnings.Add(warning);
                // At once, as the command may run on for long; in the document with the rest.
                if (!call.Json) call.Terminal.Note($"flipctl: protect: {warning}");
            });
        }
        catch (PortProtectedException e)
        {
            throw new VerbFailure(ExitCode.Refused, $"protect: {e.Message}");
        }
        catch (FlipException e)
        {
            throw new VerbFailure(ExitCode.Failed, $"protect: {e.Message}; the command was not run");
        }
        HoldTally tally = outcome.Tally;
        var report = new ProtectReport(ports, request.Command, outcome.Method, outcome.Why, outcome.OpenedBy.ToString().ToLowerInvariant(),
            Microseconds(outcome.Window), tally.Held, Microseconds(tally.LongestWait), tally.Dropped,
            outcome.Unaccepted.Handshakes + outcome.Unaccepted.Waiting, outcome.ExitCode, call.Value(options.Reason), outcome.NotStarted, [.. warnings]);
        if (call.Json) call.Terminal.Note(Terminal.Serialized(report));
        else Tell(call.Terminal, report, outcome.IsTallied);
        if (file is not null) Write(call.Terminal, file, report);
        return (ExitCode)outcome.ExitCode;
    }

    private static void Tell(Terminal terminal, ProtectReport report, bool isTallied)
    {
        if (report.Error is { } error)
            terminal.Note($"flipctl: protect: cannot run \"{report.Command[0]}\": {error}; new connections were let go and nothing was changed");
        string waited = report.Held switch
        {
            _ when !isTallied => "how many waited is not known",
            0 => "nobody waited",
            1 => $"1 connection waited {Milliseconds(report.LongestWaitUs)}",
            _ => $"{report.Held} connections waited, {Milliseconds(report.LongestWaitUs)} at the longest",
        };
        // TCP's first retry, RFC 6298.
        if (report.LongestWaitUs >= 1_000_000) waited += " (a client that tries again counts again)";
        string lost = report.Dropped switch
        {
            0 => "",
            1 => "; 1 opening SYN was dropped, and its client tries again after a second",
            _ => $"; {report.Dropped} opening SYNs were dropped, and their clients try again after a second",
        };
        string early = report.NotAccepted == 0 ? ""
            : $"; {report.NotAccepted} from before were not accepted yet when the command was started";
        if (report.Method == "none")
        {
            terminal.Note($"flipctl: protect: none: nothing was held; the command took {Milliseconds(report.WindowUs)}");
            return;
        }
        terminal.Note($"flipctl: protect: {report.Method}: held {(report.Ports.Length == 1 ? "port" : "ports")} {Ports(report.Ports)} "
            + $"for {Milliseconds(report.WindowUs)}; {waited}{lost}{early}");
    }

    /// <summary>Before anything is held: a report that cannot be written is better known now. What an earlier one wrote stays until then.</summary>
    private static FileStream? Opened(string? file)
    {
        try
        {
            return file is null ? null : new FileStream(file, FileMode.OpenOrCreate, FileAccess.Write, FileShare.ReadWrite);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new VerbFailure(ExitCode.Failed, $"protect: cannot write a report to {file}: {e.Message.TrimEnd('.')}; nothing was held and the command was not run");
        }
    }

    private static void Write(Terminal terminal, FileStream file, ProtectReport report)
    {
        try
        {
            if (file.CanSeek) file.SetLength(0); // not so a pipe
            file.Write(Encoding.UTF8.GetBytes(Terminal.Serialized(report) + "\n"));
            file.Flush();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The exit code is the command's: what became of it matters more than this.
            terminal.Note($"flipctl: protect: cannot write the report to {file.Name}: {e.Message.TrimEnd('.')}; the command was run");
        }
    }

    private static string Ports(ImmutableArray<int> ports) =>
        ports.Length <= 8 ? string.Join(", ", ports) : $"{string.Join(", ", ports[..6])} and {ports.Length - 6} more";

    private static long Microseconds(TimeSpan time) => (long)time.TotalMicroseconds;

    private static string Milliseconds(long microseconds) => string.Create(CultureInfo.InvariantCulture, $"{microseconds / 1000.0:0.0##} ms");
}
