using System.CommandLine;
using FlipController.Core;

namespace FlipController.Cli;

internal static class CloseVerb
{
    public static Verb Create()
    {
        Argument<string> pair = Arguments.Pair();
        Option<string?> peer = ConnectionsVerb.Peer();
        Option<string?> older = Arguments.Duration("--older", "Those that are open for longer than this");
        Option<string?> service = ConnectionsVerb.Service();
        Option<int?> generation = Arguments.Generation("Only on this generation; by default on every retired one", pair);
        var force = new Option<bool>("--force") { Description = "Also on generations that are not retired: the active one's, too" };
        Option<string?> reason = Arguments.Reason();
        var verb = new Verb("close",
            "Closes single connections, of retired generations only unless forced. What is named by several options must be all of it.",
            [
                "flipctl close edge --peer 192.0.2.7", "flipctl close edge --peer 192.0.2.7:51234 --generation 6",
                "flipctl close edge --older 2h --service :443", "flipctl connections edge --peer 192.0.2.0/24 && flipctl close edge --peer 192.0.2.0/24",
            ],
            (call, cancel) => RunAsync(call, call.Value(pair)!, new CloseRequest(call.Value(peer), call.Value(older), call.Value(service),
                call.Value(generation), call.Value(force), call.Value(reason)), cancel)) { pair, peer, older, service, generation, force, reason };
        verb.Validators.Add(result =>
        {
            Option[] filters = [peer, older, service, generation];
            if (!filters.Any(f => result.GetResult(f) is not null) && !result.Children.Any(c => c.Errors.Any()))
                result.AddError("which connections are to be closed must be said: --peer, --older, --service or --generation");
        });
        return verb;
    }

    private static async Task<ExitCode> RunAsync(Call call, string pair, CloseRequest request, CancellationToken cancel)
    {
        CloseAnswer answer;
        try
        {
            answer = await call.Daemon.CloseAsync(pair, request, cancel);
        }
        catch (OperationCanceledException) when (cancel.IsCancellationRequested)
        {
            throw new VerbFailure(ExitCode.Interrupted,
                $"close {pair}: flipctl was interrupted, but the daemon may have closed some; look with `flipctl connections {pair}`");
        }
        bool all = answer.Closed >= answer.Matched;
        if (call.Terminal.Printed(answer)) return all ? ExitCode.Done : ExitCode.Failed;
        string told = answer.Matched == 0 ? $"{answer.Pair}: no connection matches; nothing was closed"
            : $"{answer.Pair}: {answer.Matched} {(answer.Matched == 1 ? "connection matches" : "connections match")}, "
                + $"{answer.Closed} {(answer.Closed == 1 ? "was" : "were")} closed";
        string remark = answer.Remark is null ? "" : $"; {answer.Remark}";
        if (!all) throw new VerbFailure(ExitCode.Failed, told + remark);
        call.Terminal.Line(told + remark);
        return ExitCode.Done;
    }
}
