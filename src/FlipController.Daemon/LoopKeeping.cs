using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux.Kernel;

namespace FlipController.Daemon;

/// <summary>
/// A generation whose configuration connects to itself (a TLS frontend with another frontend as its server) closes those listeners at
/// its soft stop, while connections of clients that are still open need new ones. They are led to the generation that is active:
/// <code>
///   generation 6, retired:  server web 127.0.0.1:21003             ──►  loops-edge: DNAT to :21503, generation 7's
///                           server web /run/web.sock.g00006        ──►  a link to web.sock.g00007
/// </code>
/// </summary>
internal sealed class LoopKeeping(PairEdge edge, Func<PairState> state)
{
    private static readonly TimeSpan s_retry = TimeSpan.FromSeconds(1);
    private readonly Lock _turn = new();
    private Wanted? _asked, _done;

    /// <summary>What is to be known; two of one state are equal.</summary>
    private sealed record Wanted(Generation? Active, ImmutableArray<RetiredGeneration> Retired)
    {
        public static Wanted Of(PairState s) => new(s.Active, s.Retired);
    }

    /// <summary>Something about it has changed since this was asked last. Called by the pair's loop alone.</summary>
    public bool IsOutdated()
    {
        var now = Wanted.Of(state());
        if (now == _asked) return false;
        _asked = now;
        return true;
    }

    /// <summary>What was done is undone: somebody else removed the rules.</summary>
    public void Forget()
    {
        lock (_turn) (_asked, _done) = (null, null);
    }

    public async Task KeepAsync(CancellationToken stop)
    {
        for (bool told = false; Keep() is { } why; told = true)
        {
            if (!told) edge.Log.LogWarning("pair {Pair}: {Why}; it is tried again", edge.Name, why);
            await Task.Delay(s_retry, edge.Time, stop);
        }
    }

    /// <summary>At once, for the state as it is now.</summary>
    /// <returns>Null: done; else why not.</returns>
    public string? Keep()
    {
        lock (_turn)
        {
            var wanted = Wanted.Of(state());
            if (wanted == _done) return null;
            try
            {
                Generation[] retired = [.. wanted.Retired.Select(r => r.Generation)];
                uint mark = wanted.Active is { } active ? edge.Mark.ValueOf(active.Tag) : 0;
                edge.Redirect.SetLoops(edge.Name, mark, edge.Mark.Mask, LoopRoute.Of(retired, wanted.Active));
                foreach (Generation generation in retired)
                    edge.PlaceOf(generation.Number).LeadOwnSockets(wanted.Active is { } to ? edge.PlaceOf(to.Number) : null);
                _done = wanted;
                return null;
            }
            catch (Exception e) when (e is FlipException or IOException or UnauthorizedAccessException)
            {
                return $"what its retired generations connect to themselves for cannot be led to {wanted.Active?.ToString() ?? "the front addresses"}: {e.Message}";
            }
        }
    }
}
