using System.CommandLine;
using FlipController.Core;

namespace FlipController.Cli;

internal static class FlipVerb
{
    public static Verb Create()
    {
        Argument<string> pair = Arguments.Pair();
        Option<string?> reason = Arguments.Reason();
        Option<bool> noWait = Arguments.NoWait();
        var allowDrop = new Option<bool>("--allow-drop") { Description = "Consent to front addresses the new configuration no longer has" };
        Option<string?> binary = Arguments.Binary(
            "Run this HAProxy from now on, until a rollback or until haproxy.binary names another; an absolute path, or a name in PATH");
        return new Verb("flip",
            "Sends NEW connections to a generation with the configuration on disk now; open ones stay where they are. "
            + "It is done when it returns 0; interrupting flipctl does not stop it.",
            ["flipctl flip edge", "flipctl flip edge --reason \"certificate renewed\"", "flipctl flip edge --no-wait && flipctl watch edge",
                "flipctl plan edge --binary /opt/haproxy-3.0/sbin/haproxy && flipctl flip edge --binary /opt/haproxy-3.0/sbin/haproxy",
                "flipctl flip edge --allow-drop   # the file has lost a bind line, and that is meant"],
            (call, cancel) =>
            {
                var request = new FlipRequest(call.Value(reason), !call.Value(noWait), call.Value(allowDrop), call.Value(binary));
                return FlipProgress.FollowAsync(call, "flip", call.Value(pair)!,
                    (name, token) => call.Daemon.FlipAsync(name, request, token), cancel);
            }) { pair, reason, noWait, allowDrop, binary };
    }
}
