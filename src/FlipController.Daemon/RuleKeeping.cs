using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;

namespace FlipController.Daemon;

/// <summary>
/// Others may remove our rules (`nft flush ruleset`, a firewall's reload): then NEW connections meet the front addresses themselves,
/// where nobody listens. Called by the pair's loop, so that nothing of the pair's own is being changed meanwhile.
/// </summary>
/// <param name="repaired">The rules lead to this generation again.</param>
/// <param name="again">Another look, a little later.</param>
internal sealed class RuleKeeping(PairEdge edge, Func<PairState> state, LoopKeeping loops, Action<Generation> repaired, Action again)
{
    private string? _fault;
    private bool _alone;

    /// <summary>What is wrong with the rules now, in a sentence; null: nothing.</summary>
    public string? Fault => Volatile.Read(ref _fault);

    public void Keep(Generation active)
    {
        try
        {
            string? wrong = Wrong(active);
            if (wrong is null)
            {
                if (Fault is not null) edge.Log.LogInformation(new EventId(161, "RulesThere"), "pair {Pair}: NEW connections are led to {Active} again", edge.Name, active);
                Volatile.Write(ref _fault, null);
                LeaveElsewhere();
                return;
            }
            string what = $"somebody removed or changed our rules in {edge.Redirect.Place} ({wrong}): NEW connections were not led to {active}";
            if (edge.Options.Redirect.Lost == LostRules.Report)
            {
                Tell($"{what}, and are not (redirect.lost is report); `systemctl restart flipcontrollerd` sets the rules again");
                return;
            }
            long began = edge.Time.GetTimestamp();
            Repair(active);
            if (Wrong(active) is { } still) throw new FlipException($"and now {still}");
            Volatile.Write(ref _fault, null);
            string text = $"{what}; they are again, {edge.Time.GetElapsedTime(began).TotalMilliseconds:0.0} ms after it was noticed";
            edge.Log.LogWarning(new EventId(160, "RulesRepaired"), "pair {Pair}: {What}", edge.Name, text);
            edge.Notices.Post(new PairNotice(edge.Now, edge.Name, "fault", state().Phase.Name, text));
        }
        catch (FlipException e)
        {
            Tell($"the rules that lead NEW connections to {active} cannot be kept: {e.Message}; it is tried again");
            again();
        }
    }

    /// <summary>Once it is led by its own method: what the pair has by another one, from before its configuration changed, goes.</summary>
    /// <exception cref="FlipException">It is still there, and would be met before a flip's rule.</exception>
    public void LeaveElsewhere()
    {
        if (_alone) return;
        lock (edge.HoldTurn)
            foreach (string place in edge.Redirects.LeaveElsewhere(edge.Name, edge.Redirect))
                edge.Log.LogWarning(new EventId(169, "RedirectMoved"), "pair {Pair}: NEW connections are led by {Method}; what was in {Place} is removed",
                    edge.Name, edge.Redirect.Method, place);
        _alone = true;
    }

    private void Tell(string fault)
    {
        if (Interlocked.Exchange(ref _fault, fault) == fault) return;
        edge.Log.LogError(new EventId(162, "RulesLost"), "pair {Pair}: {Fault}", edge.Name, fault);
        edge.Notices.Post(new PairNotice(edge.Now, edge.Name, "fault", state().Phase.Name, fault));
    }

    private string? Wrong(Generation active)
    {
        RedirectState all = edge.Redirect.ReadAll();
        if (!all.BaseComplete) return all.Pairs.IsEmpty ? "they are gone" : "a hook does not lead to the pairs";
        if (!all.Pairs.TryGetValue(edge.Name, out PairRules? there) || !there.Reached) return "nothing leads to the pair's chain";
        if (there.Active != active.Number) return there.Active is { } other ? $"the pair's rule names generation {other}" : "the pair's rule is gone";
        if (state().Warm.FirstOrDefault(g => !IsRight(there, g)) is { } changed) return $"the chain of generation {changed.Number} is not what it was";
        return there.Blue != edge.Blue || there.Green != edge.Green ? "the guard of the private ports is not what it was"
            : all.ProbesPass ? null : "the hook for this host's own connections is not what it was";
    }

    /// <summary>What is right stays as it is: whoever it leads is led on.</summary>
    private void Repair(Generation active)
    {
        // Not while another pair holds connections: a hook that comes or goes takes those along that wait in a queue.
        lock (edge.HoldTurn) edge.Redirect.EnsureBase([edge.Ports]);
        if (!edge.Redirect.ReadAll().Pairs.TryGetValue(edge.Name, out PairRules? there)) throw new FlipException("somebody removed them again");
        foreach (Generation generation in state().Warm.Where(g => !IsRight(there, g)))
            edge.Redirect.RestoreGeneration(edge.Name, generation.Number, edge.Mark.ValueOf(generation.Tag), edge.Mark.Mask, generation.Ports);
        if (edge.Redirect.ReadActive(edge.Name) != active.Number)
        {
            using PreparedSwitch change = edge.Redirect.PrepareSwitch(edge.Name, active.Number);
            change.MakeReady();
            if (change.Commit() != 0) throw change.Failure();
        }
        loops.Forget();
        repaired(active);
    }

    private static bool IsRight(PairRules there, Generation generation) =>
        there.Generations.TryGetValue(generation.Number, out ImmutableArray<ServicePort> ports) && ports.ToHashSet().SetEquals(generation.Ports);
}
