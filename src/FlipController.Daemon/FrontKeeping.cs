using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux.Fronts;

namespace FlipController.Daemon;

/// <summary>
/// Others may remove the link at a front path (whatever tidies /run or /tmp), or put something else there (a HAProxy that is started by
/// hand with the same file, an adopted one that is reloaded): then NEW connections do not reach the pair. Called by the pair's loop, between its switches.
/// </summary>
internal sealed class FrontKeeping(PairEdge edge, Func<PairState> state, Fallback fallback)
{
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(500);
    private string? _fault;

    /// <summary>What is wrong now, in a sentence; null: nothing.</summary>
    public string? Fault => Volatile.Read(ref _fault);

    /// <summary>Asks for a look at once when a path does not lead where it should.</summary>
    public async Task WatchAsync(Action look, CancellationToken stop)
    {
        for (; ; await Task.Delay(s_look, edge.Time, stop))
        {
            PairState now = state();
            if (now.Active is { UnixFronts.IsEmpty: false } active && now.Phase is Steady or Watching or Preparing or Gating
                && (Fault is not null || Wrong(now.Active).Length > 0)) look();
        }
    }

    /// <summary>What should stand there does so again, if nobody would lose anything by that.</summary>
    public void Keep(Generation active)
    {
        if (active.UnixFronts.IsEmpty)
        {
            Volatile.Write(ref _fault, null);
            return;
        }
        UnixFront[] wrong = Wrong(active);
        if (wrong.Length == 0)
        {
            if (Interlocked.Exchange(ref _fault, null) is not null)
                edge.Log.LogInformation(new EventId(172, "FrontsThere"), "pair {Pair}: its front paths lead to {Active} again", edge.Name, active);
            return;
        }
        string what = $"the front path {string.Join(", ", wrong.Select(f => f.Path))} did not lead to {active}: somebody removed or replaced our link";
        if (edge.Options.Redirect.Lost == LostRules.Report)
        {
            Tell($"{what}, and it is not put back (redirect.lost is report); `flipctl flip {edge.Name}` does");
            return;
        }
        try
        {
            lock (edge.FrontTurn)
            {
                if (wrong.Select(f => FrontPath.Look(f.Path).Refusal(edge.Name, state().IsAdopted ? fallback.IsAdopted : null)).FirstOrDefault(r => r is not null) is { } refused)
                {
                    Tell($"{refused}; what connects there does not reach {active} meanwhile, and our link is put back once it may be");
                    return;
                }
                FrontLinks.Ensure([.. wrong]);
            }
        }
        catch (FlipException e)
        {
            Tell($"{what}, and it cannot be put back: {e.Message}; it is tried again");
            return;
        }
        Volatile.Write(ref _fault, null);
        edge.Log.LogWarning(new EventId(173, "FrontsRepaired"), "pair {Pair}: {What}; it does again", edge.Name, what);
        edge.Notices.Post(new PairNotice(edge.Now, edge.Name, "fault", state().Phase.Name, $"{what}; it does again"));
    }

    private static UnixFront[] Wrong(Generation active)
    {
        try
        {
            return [.. active.UnixFronts.Where(f => FrontPath.LinkOf(f.Path) != f.Socket)];
        }
        catch (FlipException)
        {
            return [.. active.UnixFronts];
        }
    }

    private void Tell(string fault)
    {
        if (Interlocked.Exchange(ref _fault, fault) == fault) return;
        edge.Log.LogError(new EventId(174, "FrontLost"), "pair {Pair}: {Fault}", edge.Name, fault);
        edge.Notices.Post(new PairNotice(edge.Now, edge.Name, "fault", state().Phase.Name, fault));
    }
}
