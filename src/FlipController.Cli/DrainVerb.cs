using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using FlipController.Core;

namespace FlipController.Cli;

internal static class DrainVerb
{
    public static Verb Create()
    {
        Argument<string> pair = Arguments.Pair();
        Argument<string?> target = Target(pair);
        Option<string?> deadline = Arguments.Duration("--deadline",
            "How long open connections may stay, counted from the soft stop; by default as configured");
        Option<bool> noWait = Arguments.NoWait();
        var cancelIt = new Option<bool>("--cancel") { Description = "Give the drain under way up; what was told to stop goes on leaving as configured" };
        var dryRun = new Option<bool>("--dry-run") { Description = "Only tell the steps" };
        var holdSlot = new Option<bool>("--hold-slot")
        {
            Description = "Nothing starts in the slot until `flipctl undrain PAIR`, and flips are refused: for maintenance",
        };
        var noUndo = new Option<bool>("--no-undo") { Description = "Retire the side that is left at once, without its undo window" };
        Option<string?> reason = Arguments.Reason();
        var verb = new Verb("drain",
            "Empties a slot or a generation, whatever its role: the active one is left first, by a flip through the gate. It has no "
            + "connection and is stopped when this returns 0. Interrupting flipctl does not stop the drain; --cancel does.",
            [
                "flipctl drain edge   # the side that was left last", "flipctl drain edge blue --deadline 10m", "flipctl drain edge 6 --no-wait",
                "flipctl drain edge blue --dry-run", "flipctl drain edge green --hold-slot --reason \"new kernel modules\"",
                "flipctl drain edge --cancel",
            ],
            (call, cancel) => call.Value(cancelIt) ? CancelAsync(call, call.Value(pair)!, call.Value(reason), cancel)
                : RunAsync(call, call.Value(pair)!, new DrainRequest(call.Value(target), call.Value(deadline), call.Value(holdSlot),
                    call.Value(noUndo), call.Value(dryRun), call.Value(reason), !call.Value(noWait) && !call.Value(dryRun)), cancel))
        {
            pair, target, deadline, noWait, cancelIt, dryRun, holdSlot, noUndo, reason,
        };
        verb.Validators.Add(result =>
        {
            if (result.Children.Any(c => c.Errors.Any())) return;
            Option[] begins = [deadline, noWait, dryRun, holdSlot, noUndo];
            bool named = result.GetResult(target)?.Tokens.Count > 0;
            if (Said(cancelIt) && (named || begins.FirstOrDefault(Said) is not null))
                result.AddError("--cancel gives up the drain under way, whatever it empties: beside it only PAIR and --reason mean anything");
            else if (Said(dryRun) && Said(noWait))
                result.AddError("--dry-run begins nothing, so there is nothing --no-wait could leave going");
            else if (Said(holdSlot) && !named)
                result.AddError("--hold-slot holds what is named: SLOT or GENERATION is missing");

            bool Said(Option option) => result.GetResult(option) is { Implicit: false };
        });
        return verb;
    }

    private static Argument<string?> Target(Argument<string> pair)
    {
        var target = new Argument<string?>("SLOT|GENERATION")
        {
            Description = "blue, green or a generation's number; by default the previous generation, else every retired one",
            HelpName = "SLOT|GENERATION", Arity = ArgumentArity.ZeroOrOne,
        };
        target.Validators.Add(result =>
        {
            if (result.Tokens is [var token] && token.Value is not ("blue" or "green")
                && !(int.TryParse(token.Value, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number >= 1))
                result.AddError($"\"{token.Value}\" is neither blue nor green nor a generation's number");
        });
        target.CompletionSources.Add(context => ["blue", "green", .. Arguments.Generations(context, pair)]);
        return target;
    }

    private static async Task<ExitCode> CancelAsync(Call call, string pair, string? reason, CancellationToken cancel)
    {
        DrainAnswer answer = await call.Daemon.CancelDrainAsync(pair, new UndrainRequest(reason), cancel);
        if (call.Terminal.Printed(answer)) return ExitCode.Done;
        call.Terminal.Line(answer.Drain is null ? $"{answer.Pair}: the drain is cancelled" : Phrases.Ended(answer.Pair, answer.Drain));
        if (answer.Remark is not null) call.Terminal.Line($"  {answer.Remark}");
        return ExitCode.Done;
    }

    private static async Task<ExitCode> RunAsync(Call call, string pair, DrainRequest request, CancellationToken cancel)
    {
        DrainAnswer answer;
        try
        {
            answer = request.Wait && !call.Json ? await DrainProgress.FollowAsync(call, pair, request, cancel)
                : await call.Daemon.DrainAsync(pair, request, cancel);
        }
        catch (OperationCanceledException) when (cancel.IsCancellationRequested && !request.DryRun)
        {
            throw new VerbFailure(ExitCode.Interrupted,
                $"drain {pair}: flipctl was interrupted, but the drain goes on in the daemon; follow it with `flipctl watch {pair}`, "
                + $"give it up with `flipctl drain {pair} --cancel`");
        }
        bool good = answer.Drain is null or { Outcome: "drained" or "unchanged" };
        if (!good && !call.Json) throw new VerbFailure(ExitCode.Failed, Phrases.Ended(answer.Pair, answer.Drain!));
        if (call.Terminal.Printed(answer)) return good ? ExitCode.Done : ExitCode.Failed;
        if (request.DryRun)
        {
            call.Terminal.Line($"{answer.Pair}: a drain now would {(answer.Steps is null or [] ? "do nothing" : "do this:")}");
            foreach ((int index, string step) in (answer.Steps ?? []).Index()) call.Terminal.Line($"  {index + 1}. {step}");
        }
        else
        {
            call.Terminal.Line(answer.Drain is null ? $"{answer.Pair}: drain accepted; follow it with `flipctl watch {answer.Pair}`"
                : Phrases.Ended(answer.Pair, answer.Drain));
        }
        if (answer.Remark is not null) call.Terminal.Line($"  {answer.Remark}");
        return ExitCode.Done;
    }
}
