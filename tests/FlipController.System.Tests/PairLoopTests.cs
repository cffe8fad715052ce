using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Daemon;
using Microsoft.Extensions.Logging.Abstractions;
using Xunit;

namespace FlipController.SystemTests;

public class PairLoopTests
{
    private static readonly DateTimeOffset s_now = DateTimeOffset.UnixEpoch;

    private static FlipAsked Flip(long request) => new(s_now, new FlipWish(FlipTrigger.Operator, null, false, null, null, [request]));

    [Fact(Timeout = 10_000)]
    public async Task A_decision_is_saved_before_any_of_its_effects_runs()
    {
        List<string> order = [];
        using var stop = new CancellationTokenSource();
        var done = new TaskCompletionSource();
        var loop = new PairLoop(PairState.Initial("edge"), s => order.Add($"saved {s.Phase.Name}"), effect =>
        {
            order.Add(effect.GetType().Name);
            done.TrySetResult();
            return ValueTask.CompletedTask;
        }, new NoticeBoard(), NullLogger.Instance, _ => { });
        Task run = loop.RunAsync(stop.Token);
        _ = loop.AskAsync<FlipRecord>(Flip);
        await done.Task;
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
        Assert.Equal(["saved preparing", nameof(Prepare)], order);
    }

    [Fact(Timeout = 10_000)]
    public async Task A_wish_that_cannot_be_saved_is_refused_and_nothing_begins()
    {
        using var stop = new CancellationTokenSource();
        bool ran = false;
        var loop = new PairLoop(PairState.Initial("edge"), _ => throw new IOException("No space left on device"), _ =>
        {
            ran = true;
            return ValueTask.CompletedTask;
        }, new NoticeBoard(), NullLogger.Instance, _ => { });
        Task run = loop.RunAsync(stop.Token);
        FlipException refused = await Assert.ThrowsAsync<FlipException>(() => loop.AskAsync<FlipRecord>(Flip));
        Assert.Equal("pair edge: the state cannot be saved: No space left on device; nothing was begun. Make room or repair the state directory.", refused.Message);
        Assert.False(ran);
        Assert.IsType<Cold>(loop.State.Phase);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
    }

    [Fact(Timeout = 10_000)]
    public async Task A_change_of_the_files_that_cannot_be_saved_is_asked_again_and_begins_when_it_can()
    {
        using var stop = new CancellationTokenSource();
        bool full = true;
        var began = new TaskCompletionSource();
        var again = new TaskCompletionSource<PairEvent>();
        var loop = new PairLoop(PairState.Initial("edge"), _ => { if (full) throw new IOException("No space left on device"); }, _ =>
        {
            began.TrySetResult();
            return ValueTask.CompletedTask;
        }, new NoticeBoard(), NullLogger.Instance, again.SetResult);
        Task run = loop.RunAsync(stop.Token);
        loop.Post(new FlipAsked(s_now, new FlipWish(FlipTrigger.Files, null, false, "sha", null, [])));
        PairEvent asked = await again.Task;
        Assert.Equal("the state cannot be saved: No space left on device; no change begins. Make room or repair the state directory", loop.Unsaved);
        full = false;
        loop.Post(asked);
        await began.Task;
        Assert.Null(loop.Unsaved);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
    }

    [Fact(Timeout = 10_000)]
    public async Task What_has_happened_is_acted_on_even_when_it_cannot_be_saved()
    {
        using var stop = new CancellationTokenSource();
        var generation = new Generation(1, Slot.Blue, 1, 1, "boot", "a", "a", s_now, [], 1, "2.6");
        PairState watching = PairState.Initial("edge") with
        {
            LastNumber = 2, Active = generation with { Number = 2, Slot = Slot.Green },
            Phase = new Watching(new UndoWindow(new FlipRun(1, new FlipWish(FlipTrigger.Operator, null, false, null, null, []), 2, Slot.Green, 1, s_now), generation, s_now)),
        };
        var switched = new TaskCompletionSource<Switch>();
        var loop = new PairLoop(watching, _ => throw new IOException("No space left on device"), effect =>
        {
            if (effect is Switch order) switched.TrySetResult(order);
            return ValueTask.CompletedTask;
        }, new NoticeBoard(), NullLogger.Instance, _ => { });
        Task run = loop.RunAsync(stop.Token);
        loop.Post(new GenerationDied(s_now, 2, "was killed"));
        Assert.Equal(1, (await switched.Task).To.Number);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
    }

    [Fact(Timeout = 10_000)]
    public async Task A_denied_rollback_says_why_at_once()
    {
        using var stop = new CancellationTokenSource();
        var loop = new PairLoop(PairState.Initial("edge"), _ => { }, _ => ValueTask.CompletedTask, new NoticeBoard(), NullLogger.Instance, _ => { });
        Task run = loop.RunAsync(stop.Token);
        RefusedException refused = await Assert.ThrowsAsync<RefusedException>(() => loop.AskAsync<FlipRecord>(id => new RollbackAsked(s_now, null, id)));
        Assert.Equal("pair edge: there is no previous generation to return to", refused.Message);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
    }
}
