using System.CommandLine;
using System.Globalization;
using FlipController.Core;

namespace FlipController.Cli;

internal static class HandoverVerb
{
    private static readonly string[] Actions = ["start", "status", "cancel", "finish"];
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(300);
    private static readonly TimeSpan s_saying = TimeSpan.FromSeconds(10);

    public static Verb Create()
    {
        Argument<string> action = new Argument<string>("ACTION")
        {
            Description = "start: NEW connections go to the peer, then, when nobody is left here, the VIPs; status: how far it is; cancel: everything comes back, also when the "
                + "VIPs have moved; finish: go on to the next step whoever is left",
        }.AcceptOnlyFromAmong(Actions);
        Option<string?> deadline = Arguments.Duration("--deadline", "start: the VIPs move after so long, however many connections are left");
        Option<string?> chance = Arguments.Duration("--second-chance", "start: for so long after the move old connections are led back here");
        var threshold = new Option<int?>("--threshold") { Description = "start: the VIPs move as soon as no more than so many connections are left", HelpName = "N" };
        threshold.Validators.Add(result =>
        {
            if (result.Tokens is [var token] && int.TryParse(token.Value, out int number) && number < 0) result.AddError("--threshold must be at least 0");
        });
        Option<string?> reason = Arguments.Reason();
        Option<bool> noWait = Arguments.NoWait();
        var verb = new Verb("handover",
            "Empties this node before keepalived moves its VIPs: NEW connections go to the peer, open ones stay, and none is cut by the move. The daemon must have peer and handover in "
            + "its configuration. A start returns when the peer has the VIPs and nobody is left here; a cancel, when everything is as before.",
            ["flipctl handover start --deadline 5m", "flipctl handover status", "flipctl handover finish", "flipctl handover cancel", "flipctl handover status --json | jq .left"],
            (call, cancel) => RunAsync(call, call.Value(action)!, new HandoverStartRequest(call.Value(deadline), call.Value(threshold), call.Value(chance), call.Value(reason)),
                !call.Value(noWait), cancel))
            { action, deadline, threshold, chance, reason, noWait };
        verb.Validators.Add(result =>
        {
            if (result.Children.Any(c => c.Errors.Any()) || result.GetValue(action) is not { } word) return;
            foreach (Option option in (Option[])[deadline, chance, threshold, reason])
                if (word != "start" && result.GetResult(option) is not null) result.AddError($"{option.Name} means nothing to {word}");
            if (word == "status" && result.GetValue(noWait)) result.AddError("--no-wait means nothing to status");
        });
        return verb;
    }

    private static async Task<ExitCode> RunAsync(Call call, string action, HandoverStartRequest request, bool wait, CancellationToken cancel)
    {
        if (action == "status") return Show(call, await call.Daemon.HandoverAsync(cancel));
        HandoverReport report = action switch
        {
            "start" => await call.Daemon.StartHandoverAsync(request, cancel),
            "cancel" => await call.Daemon.CancelHandoverAsync(cancel),
            _ => await call.Daemon.FinishHandoverAsync(cancel),
        };
        // A step is all that finish hastens.
        if (!wait || action == "finish") return Show(call, report);
        report = await FollowAsync(call, report, action, cancel);
        bool isDone = action == "start" ? report is { Phase: "away" } or { Phase: "none", Failed: false } : report.Phase == "none";
        if (isDone) return Show(call, report);
        throw new VerbFailure(ExitCode.Failed, $"handover: {report.Outcome ?? report.Note ?? "it ended"}; {Now(report)}");
    }

    /// <summary>Until it has ended one way or the other, with a line on stderr for each phase, each new note, and now and then.</summary>
    private static async Task<HandoverReport> FollowAsync(Call call, HandoverReport report, string action, CancellationToken cancel)
    {
        string? said = null;
        DateTimeOffset next = default;
        string? id = report.Id;
        while (true)
        {
            string step = $"{report.Phase} {report.Note}";
            if (step != said || DateTimeOffset.UtcNow >= next)
            {
                call.Terminal.Note($"handover: {Now(report)}{(report.Note is null ? "" : $"; {report.Note}")}");
                (said, next) = (step, DateTimeOffset.UtcNow + s_saying);
            }
            if (report.Phase is "none" || report.Id != id) return report;
            // What is given up is not waited for: its last connections may take hours.
            if (action == "start" && report.Phase is "away" or "returning") return report;
            if (action == "cancel" && report is { Phase: "away", Note: not null }) return report;
            await Task.Delay(s_look, cancel);
            report = await call.Daemon.HandoverAsync(cancel);
        }
    }

    private static string Now(HandoverReport report) => report.Phase switch
    {
        "none" => report.VipsHere.IsEmpty ? "none is under way; the VIPs are not here" : "none is under way; the VIPs are here",
        "proving" => "the peer is asked whether it can take over",
        "emptying" => $"{(report.Diverts ? "NEW connections go to the peer" : "NEW connections are served here, as the peer is not proven")}; {Count(report.Left)} left here, {Count(report.AtPeer ?? 0)} there",
        "moving" => $"keepalived is told to move the VIPs; {Count(report.Left)} left here, {Count(report.AtPeer ?? 0)} at the peer",
        "leaving" => $"the peer has the VIPs; {Count(report.Left)} left here, led back by it",
        "away" => "the peer has the VIPs, and this node is lowered until `flipctl handover cancel` brings it back",
        "recalling" => $"the peer is asked to hand back; {Count(report.AtPeer ?? 0)} there",
        _ => $"NEW connections are served here; {Count(report.AtPeer ?? 0)} at the peer, led there until they end",
    };

    private static string Count(int connections) => string.Create(CultureInfo.InvariantCulture, $"{connections} connection{(connections == 1 ? "" : "s")}");

    private static ExitCode Show(Call call, HandoverReport report)
    {
        if (call.Terminal.Printed(report)) return ExitCode.Done;
        call.Terminal.Line($"handover   {report.Phase}{(report.Id is null || report.Phase == "none" ? "" : $"  {report.Id}, since {report.Since:HH:mm:ss}")}");
        call.Terminal.Line($"  {Now(report)}");
        call.Terminal.Line($"  VIPs here: {(report.VipsHere.IsEmpty ? "none" : string.Join(", ", report.VipsHere))}");
        if (report.OfThisHost > 0) call.Terminal.Line($"  {Count(report.OfThisHost)} of clients on this host, which stay here");
        if (report.MovesBy is { } by) call.Terminal.Line($"  the VIPs move by {by:HH:mm:ss}, whoever is left");
        if (report.Note is not null) call.Terminal.Line($"  {report.Note}");
        if (report.Outcome is not null) call.Terminal.Line($"  {(report.Phase is "none" or "away" ? "last: " : "")}{report.Outcome}");
        if (report.Receiving is { } receiving)
            call.Terminal.Line($"  the peer hands over to this node ({receiving.Phase}, {receiving.Id}); {Count(receiving.Old)} of its own are led back to it");
        return ExitCode.Done;
    }
}
