using FlipController.Core;

namespace FlipController.Cli;

/// <summary>A drain that is waited for: at a terminal its falling curve, else a line a step and one each ten seconds, on stderr.</summary>
internal static class DrainProgress
{
    public static async Task<DrainAnswer> FollowAsync(Call call, string pair, DrainRequest request, CancellationToken cancel)
    {
        await using NoticeStream notices = await NoticeStream.OpenAsync(call, pair, cancel);
        Task<DrainAnswer> answer = call.Daemon.DrainAsync(pair, request, cancel);
        string? state = null;
        if (call.Terminal.IsLive)
        {
            try
            {
                await new LeavingShow(call).RunAsync(notices, answer, IsMeant, Told, cancel);
            }
            catch (OperationCanceledException) when (cancel.IsCancellationRequested)
            {
                // The answer says so, below.
            }
        }
        else
        {
            var filter = new LookFilter();
            while (await notices.BeforeAsync(answer))
            {
                PairNotice notice = notices.Take();
                if (notice.Drain is { } look ? !IsMeant(look) || !filter.Passes(notice) : Told(notice) is null) continue;
                call.Terminal.Note($"{pair}: {(notice.Drain is { } it ? Phrases.Look(it, notice.At) : $"{notice.State}: {notice.Text}")}");
            }
        }
        await Task.WhenAny(answer);
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
