using System.CommandLine;
using FlipController.Core;

namespace FlipController.Cli;

internal static class ReleaseVerb
{
    public static Verb Create()
    {
        Argument<string> pair = Arguments.Pair();
        Option<string?> reason = Arguments.Reason();
        Option<bool> noWait = Arguments.NoWait();
        var unit = new Option<string?>("--unit")
        {
            Description = "The systemd unit to start when nobody listens on the front addresses; by default what was adopted", HelpName = "UNIT",
        };
        return new Verb("release",
            "Gives the NEW connections back to an unmanaged HAProxy: the one that listens already, or the one that was adopted, "
            + "started and proven first. What is connected to the pair finishes there; nothing starts by itself until `adopt` or `flip`.",
            ["flipctl release edge", "flipctl release edge --unit haproxy.service"],
            (call, cancel) =>
            {
                var request = new ReleaseRequest(call.Value(reason), !call.Value(noWait), call.Value(unit));
                return FlipProgress.FollowAsync(call, "release", call.Value(pair)!,
                    (name, token) => call.Daemon.ReleaseAsync(name, request, token), cancel);
            }) { pair, reason, noWait, unit };
    }
}
