using System.CommandLine;
using FlipController.Core;

namespace FlipController.Cli;

internal static class RollbackVerb
{
    public static Verb Create()
    {
        Argument<string> pair = Arguments.Pair();
        Option<string?> reason = Arguments.Reason();
        Option<bool> noWait = Arguments.NoWait();
        return new Verb("rollback", "Sends NEW connections back to the previous generation: the warm one inside the undo window, a new one with its "
            + "configuration after it",
            ["flipctl rollback edge", "flipctl rollback edge --reason \"logins fail\""],
            (call, cancel) =>
            {
                var request = new RollbackRequest(call.Value(reason), !call.Value(noWait));
                return FlipProgress.FollowAsync(call, "rollback", call.Value(pair)!,
                    (name, token) => call.Daemon.RollbackAsync(name, request, token), cancel);
            }) { pair, reason, noWait };
    }
}
