using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Linux.Hold;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;

namespace FlipController.Daemon;

/// <summary>What makes NEW connections of one pair wait while its rule changes.</summary>
/// <remarks>
/// Pairs take turns from the rehearsal to the removal: what one has the kernel check keeps the transactions of all others waiting, and
/// these might be in the middle of their window.
/// </remarks>
internal sealed class PairHold(PairEdge edge)
{
    private const int TcpMux = 1; // a port for a rehearsal when nothing is served yet: RFC 1078, of which nobody heard

    private readonly HoldOptions _options = edge.Options.Hold;
    private HoldStatus? _status;
    private string? _insteadOfPlug; // why plug does not work here, once auto has found out: it is tried again after a restart or reload

    private string Configured => _options.Method.ToString().ToLowerInvariant();

    /// <summary>What the last one was, and why.</summary>
    public HoldStatus Status => Volatile.Read(ref _status) ?? new HoldStatus(Configured, "none", "none was made ready yet");

    /// <summary>
    /// Finds out what works here, and goes every step once, around no change at all: no first use falls into a window later.
    /// </summary>
    public void Rehearse(IEnumerable<Generation> generations)
    {
        try
        {
            using Lock.Scope turn = edge.HoldTurn.EnterScope();
            (Hold hold, DeadMan guard) = Arm(generations);
            try
            {
                using (UrgentThread.Enter()) new HoldWindow(hold, static () => 0, mayGoWithout: false, guard).Run();
            }
            finally
            {
                Remove(hold, guard);
            }
        }
        catch (FlipException e)
        {
            edge.Log.LogWarning(new EventId(163, "NoHold"), "pair {Pair}: {Why}", edge.Name, e.Message);
        }
    }

    /// <summary>Makes the change while NEW connections wait for it.</summary>
    /// <param name="generations">Whose front addresses they mean.</param>
    /// <param name="mayGoWithout">It is made also when they cannot be made to wait.</param>
    /// <exception cref="FlipException">It was not made. Whatever goes wrong with the hold after the change is told, and not thrown.</exception>
    public HoldReport Run(PreparedSwitch change, IEnumerable<Generation> generations, bool mayGoWithout)
    {
        using Lock.Scope turn = edge.HoldTurn.EnterScope();
        change.Rehearse();
        change.MakeReady(); // before the guard begins to count the time
        (Hold hold, DeadMan guard, string? remark) = ArmOrNone(generations, mayGoWithout);
        try
        {
            var window = new HoldWindow(hold, change.Commit, mayGoWithout, guard);
            using (UrgentThread.Enter()) window.Run();
            if (!window.IsDone) throw window.ChangeErrno != 0 ? change.Failure() : hold.Failure;
            HoldReport report = Report(window, hold, guard);
            return report with { Remark = report.Remark ?? remark };
        }
        finally
        {
            Remove(hold, guard);
        }
    }

    private HoldReport Report(HoldWindow window, Hold hold, DeadMan guard)
    {
        try
        {
            if (window.OpenErrno == 0) guard.Disarm(); // else it may have to open it yet
            return window.Report(guard.HasFired);
        }
        catch (Exception e) when (IsOfHold(e))
        {
            return new HoldReport(window.CloseErrno == 0 ? hold.Method : "none", (long)window.Elapsed.TotalMicroseconds, 0, 0, $"who waited is not known: {e.Message}");
        }
    }

    /// <summary>The hold first: until it is open the guard stands. The change has been made or refused by now, and this alters nothing about it.</summary>
    private void Remove(Hold hold, DeadMan guard)
    {
        try
        {
            try
            {
                hold.Dispose();
            }
            finally
            {
                guard.Dispose();
            }
        }
        catch (Exception e) when (IsOfHold(e))
        {
            edge.Log.LogWarning(new EventId(165, "HoldLeft"), "pair {Pair}: of the {Method} hold something is left: {Why}", edge.Name, hold.Method, e.Message);
        }
    }

    private static bool IsOfHold(Exception e) => e is FlipException or IOException or UnauthorizedAccessException;

    private (Hold Hold, DeadMan Guard, string? Remark) ArmOrNone(IEnumerable<Generation> generations, bool mayGoWithout)
    {
        try
        {
            (Hold hold, DeadMan guard) = Arm(generations);
            return (hold, guard, null);
        }
        catch (FlipException e) when (mayGoWithout)
        {
            edge.Log.LogWarning(new EventId(164, "NotHeld"), "pair {Pair}: NEW connections are moved without a hold: {Why}", edge.Name, e.Message);
            NoHold none = new(Scope([]));
            return (none, DeadMan.Arm(none.ForcedOpenings, _options.Max), e.Message);
        }
    }

    /// <summary>Ready to be closed, and its guard alive.</summary>
    private (Hold Hold, DeadMan Guard) Arm(IEnumerable<Generation> generations)
    {
        try
        {
            HoldChoice choice = Choose(generations);
            try
            {
                choice.Hold.Rehearse();
                DeadMan guard = DeadMan.Arm(choice.Hold.ForcedOpenings, _options.Max);
                Volatile.Write(ref _status, new HoldStatus(Configured, choice.Hold.Method, choice.Why));
                return (choice.Hold, guard);
            }
            catch
            {
                choice.Hold.Dispose();
                throw;
            }
        }
        catch (FlipException e)
        {
            string why = e.Message.EndsWith('.') ? e.Message : e.Message + ".";
            string now = _options.Method == HoldMethod.Auto ? "NEW connections are moved without a hold." : "Flips are refused until it works; going back is not.";
            Volatile.Write(ref _status, new HoldStatus(Configured, "none", $"{why} {now}"));
            throw new FlipException($"hold.method {Configured} does not work here: {e.Message}", e);
        }
    }

    private HoldChoice Choose(IEnumerable<Generation> generations)
    {
        if (_insteadOfPlug is { } why) return HoldChoice.Prepare("queue", Scope(generations)) with { Why = why };
        HoldChoice choice = HoldChoice.Prepare(Configured, Scope(generations));
        if (_options.Method == HoldMethod.Auto && choice.Hold is QueueHold) _insteadOfPlug = choice.Why;
        return choice;
    }

    private HoldScope Scope(IEnumerable<Generation> generations)
    {
        ImmutableArray<int> ports = [.. generations.SelectMany(g => g.Ports).Where(p => p.Service.IsTcp).Select(p => p.Service.Port).Distinct().Order()];
        return new HoldScope(edge.Name, ports.IsEmpty ? [TcpMux] : ports, Incoming: true, Local: true, _options.Max, _options.Devices,
            MeetsNewRules: true);
    }
}
