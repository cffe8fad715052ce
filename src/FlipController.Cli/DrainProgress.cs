using FlipController.Core;

namespace FlipController.Cli;

/// <summary>A drain that is waited for: at a terminal its falling curve, else a line a step and one each ten seconds, on stderr.</summary>
internal static class DrainProgress
{
    // The daemon's notices are a comfort: the request goes out without them rather than wait for them.
    private static readonly TimeSpan NoticesTime = TimeSpan.FromMilliseconds(300);

    public static async Task<DrainAnswer> FollowAsync(Call call, string pair, DrainRequest request, CancellationToken cancel)
    {
        using var over = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        IAsyncEnumerator<PairNotice> notices = call.Daemon.EventsAsync(pair, over.Token).GetAsyncEnumerator(over.Token);
        Task<bool> next = notices.MoveNextAsync().AsTask();
        await Task.WhenAny(next, Task.Delay(NoticesTime, cancel));
        Task<DrainAnswer> answer = call.Daemon.DrainAsync(pair, request, cancel);
        string? state = null;
        if (call.Terminal.IsLive)
        {
            var show = new LeavingShow(call);
            try
            {
                await show.RunAsync(notices, next, answer, IsMeant, Told, over.Token);
            }
            catch (OperationCanceledException) when (cancel.IsCancellationRequested)
            {
                // The answer says so, below.
            }
            next = show.LastMove ?? next;
        }
        else
        {
            var filter = new LookFilter();
            // A failed stream of notices ends the show, not the drain; what arrived together with the answer is still told.
            while ((await Task.WhenAny(next, answer) == next || next.IsCompleted) && next.IsCompletedSuccessfully && next.Result)
            {
                PairNotice notice = notices.Current;
                next = notices.MoveNextAsync().AsTask();
                if (notice.Drain is { } look ? !IsMeant(look) || !filter.Passes(notice) : Told(notice) is null) continue;
                call.Terminal.Note($"{pair}: {(notice.Drain is { } it ? Phrases.Look(it, notice.At) : $"{notice.State}: {notice.Text}")}");
            }
        }
        await Task.WhenAny(answer);
        over.Cancel();
        try
        {
            await next;
        }
        catch (Exception e) when (e is OperationCanceledException or VerbFailure)
        {
            // It was only the show.
        }
        await notices.DisposeAsync();
        return await answer;

        bool IsMeant(DrainLook look) => request.Target is null || request.Target == look.Slot || request.Target == $"{look.Generation}";

        // The flip before it, when it is the active one that is drained: each state once.
        string? Told(PairNotice notice)
        {
            if (notice.Kind == "progress" || (notice.Kind == "state" && notice.State == state)) return null;
            state = notice.State;
            return $"{pair}: {notice.State}: {notice.Text}";
        }
    }
}
