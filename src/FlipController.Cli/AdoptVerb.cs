using System.CommandLine;
using FlipController.Core;

namespace FlipController.Cli;

internal static class AdoptVerb
{
    public static Verb Create()
    {
        Argument<string> pair = Arguments.Pair();
        Option<string?> reason = Arguments.Reason();
        Option<bool> noWait = Arguments.NoWait();
        var stop = new Option<bool>("--stop")
        {
            Description = "Then tell the unmanaged HAProxy to stop listening; without it, it stays as the fallback",
        };
        return new Verb("adopt",
            "Takes the NEW connections of a running, unmanaged HAProxy over to the pair, through the gate. Its open connections stay "
            + "on it, untouched. It may be said again at any time; what was done already is not done twice.",
            ["flipctl plan edge && flipctl adopt edge   # the unmanaged one stays as the fallback",
                "flipctl adopt edge --stop   # it is told to finish once the pair has the NEW connections"],
            (call, cancel) =>
            {
                var request = new AdoptRequest(call.Value(reason), !call.Value(noWait), call.Value(stop));
                return FlipProgress.FollowAsync(call, "adopt", call.Value(pair)!,
                    (name, token) => call.Daemon.AdoptAsync(name, request, token), cancel);
            }) { pair, reason, noWait, stop };
    }
}
