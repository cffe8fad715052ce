using System.CommandLine;
using FlipController.Core;

namespace FlipController.Cli;

internal static class UndrainVerb
{
    public static Verb Create()
    {
        Argument<string> pair = Arguments.Pair();
        Option<string?> reason = Arguments.Reason();
        return new Verb("undrain", "Gives back the slot that `drain --hold-slot` holds: generations may start in it again, flips are accepted",
            ["flipctl undrain edge", "flipctl drain edge blue --hold-slot && ./maintenance.sh && flipctl undrain edge"],
            async (call, cancel) =>
            {
                DrainAnswer answer = await call.Daemon.UndrainAsync(call.Value(pair)!, new UndrainRequest(call.Value(reason)), cancel);
                if (call.Terminal.Printed(answer)) return ExitCode.Done;
                call.Terminal.Line(answer.Drain?.Outcome == "unchanged" ? $"{answer.Pair}: no slot is held"
                    : $"{answer.Pair}: no slot is held any more");
                if (answer.Remark is not null) call.Terminal.Line($"  {answer.Remark}");
                return ExitCode.Done;
            }) { pair, reason };
    }
}
