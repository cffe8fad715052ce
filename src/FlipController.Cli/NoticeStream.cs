using FlipController.Core;

namespace FlipController.Cli;

/// <summary>
/// The daemon's notices beside something else that is waited for. The next one is asked for before the present one is looked at, so that
/// nothing is missed; the stream is given back only when it is not asked any more.
/// </summary>
internal sealed class NoticeStream : IAsyncDisposable
{
    // They are a comfort: a request goes out without them rather than wait for them.
    private static readonly TimeSpan s_longestOpening = TimeSpan.FromMilliseconds(300);

    private readonly CancellationTokenSource _over;
    private readonly IAsyncEnumerator<PairNotice> _notices;

    private NoticeStream(Call call, string? pair, CancellationToken cancel)
    {
        _over = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        _notices = call.Daemon.EventsAsync(pair, _over.Token).GetAsyncEnumerator(_over.Token);
        Next = _notices.MoveNextAsync().AsTask();
    }

    public static NoticeStream Of(Call call, string? pair, CancellationToken cancel) => new(call, pair, cancel);

    /// <summary>Open when it returns, or late.</summary>
    public static async Task<NoticeStream> OpenAsync(Call call, string pair, CancellationToken cancel)
    {
        var stream = new NoticeStream(call, pair, cancel);
        await Task.WhenAny(stream.Next, Task.Delay(s_longestOpening, cancel));
        return stream;
    }

    /// <summary>Completes with the next notice, with false at the end of the stream, or with why it broke off.</summary>
    public Task<bool> Next { get; private set; }

    public bool HasNotice => Next.IsCompletedSuccessfully && Next.Result;

    /// <summary>
    /// Waits for a notice or for <paramref name="answer"/>. A failed stream (also: an older daemon without one) ends the show, not what is
    /// shown. What arrived together with the answer is still there to be shown.
    /// </summary>
    public async Task<bool> BeforeAsync(Task answer)
    {
        await Task.WhenAny(Next, answer);
        return HasNotice;
    }

    /// <summary>The notice that has come; the next one is waited for from now on.</summary>
    public PairNotice Take()
    {
        PairNotice notice = _notices.Current;
        Next = _notices.MoveNextAsync().AsTask();
        return notice;
    }

    public async ValueTask DisposeAsync()
    {
        await _over.CancelAsync();
        try
        {
            await Next;
        }
        catch (Exception e) when (e is OperationCanceledException or VerbFailure)
        {
            // It was only the show; who wants to know awaits Next before.
        }
        await _notices.DisposeAsync();
        _over.Dispose();
    }
}
