using System.Collections.Immutable;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Haproxy.Runtime;

namespace FlipController.Daemon;

/// <summary>
/// The changes made on the active one's admin socket, through one flip: what the standby's files give is kept before anything else
/// touches it; with <c>carry</c> the changes are made on it before the gate looks at it, and once more right before the switch, for
/// what was changed meanwhile. Nothing here keeps a flip from going on: what cannot be had or made is told.
/// </summary>
/// <param name="active">Null: there is none whose changes could be lost.</param>
internal sealed class RuntimeContinuity(PairEdge edge, Generation candidate, Generation? active)
{
    /// <summary>What is not HAProxy has no such changes.</summary>
    private readonly Generation? _active = active is not null && edge.AdminOf(active) is not null ? active : null;
    private const int MostSentences = 200;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30), s_patienceBack = TimeSpan.FromSeconds(1);
    // The gate's verdict must not grow old before the switch.
    private static readonly TimeSpan s_patienceLate = TimeSpan.FromSeconds(10);
    private HashSet<string> _made = [];

    /// <summary>Before the gate.</summary>
    public async Task BeginAsync(CancellationToken stop)
    {
        if (edge.AdminOf(candidate) is null) return;
        string? failed = await BoundedAsync(edge, async bound =>
        {
            GenerationPlace place = edge.PlaceOf(candidate.Number);
            if (RuntimeBaseline.Files.Read(place) is null) RuntimeBaseline.Files.Save(place, await TakeAsync(place, bound));
            if (edge.Options.Continuity.RuntimeChanges == RuntimeChangesRule.Carry && _active is not null)
                await LookAsync(_active, withLate: false, bound);
        }, s_patience, stop);
        if (failed is not null)
            edge.Log.LogWarning(new EventId(150, "RuntimeUnread"),
                "pair {Pair}: runtime changes, before the gate: {Why}", edge.Name, failed);
    }

    /// <summary>What the candidate's files give; nobody has changed anything on it yet.</summary>
    private async Task<RuntimeState> TakeAsync(GenerationPlace place, CancellationToken stop)
    {
        RuntimeState own = (await RuntimeReading.ReadAsync(Admin(candidate), stop)).AsConfigured();
        if (_active is null || !SavedServerState.IsLoadedBy(place)) return own;
        RuntimeState now = await RuntimeReading.ReadAsync(Admin(_active), stop);
        return own.WithoutLoaded(BaselineOf(_active, now), now);
    }

    /// <summary>Without one nothing here is begun.</summary>
    private AdminSocket Admin(Generation generation) => edge.AdminOf(generation)!;

    private RuntimeState BaselineOf(Generation generation, RuntimeState now) =>
        RuntimeBaseline.Files.Read(edge.PlaceOf(generation.Number)) ?? now.AsConfigured();

    /// <summary>After the gate, right before the switch. Null: there is nothing to tell.</summary>
    /// <param name="tell">Told what will be lost, while there is time to do something about it.</param>
    public async Task<RuntimeFate?> EndAsync(Action<string> tell, CancellationToken stop)
    {
        if (_active is null || edge.AdminOf(candidate) is null) return null;
        ImmutableArray<RuntimeChange> changes = [];
        string? failed = await BoundedAsync(
            edge, async bound => changes = await LookAsync(_active, withLate: true, bound), s_patienceLate, stop);
        ImmutableArray<string> carried = Sentences(changes.Where(c => c.Why is null));
        ImmutableArray<string> lost = Sentences(changes.Where(c => c.Why is not null));
        if (edge.Options.Continuity.RuntimeChanges == RuntimeChangesRule.Carry)
            failed ??= await BoundedAsync(edge, async bound => RuntimeBaseline.Switch.Save(
                edge.PlaceOf(candidate.Number), await RuntimeReading.ReadAsync(Admin(candidate), bound)), s_patienceLate, stop);
        if (failed is not null) lost = lost.Add($"whatever was changed at run time on {_active}: {failed}");
        foreach (string sentence in carried)
            edge.Log.LogInformation(new EventId(151, "RuntimeCarried"), "pair {Pair}: carried to {Candidate}: {Change}",
                edge.Name, candidate, sentence);
        foreach (string sentence in lost)
            edge.Log.LogWarning(new EventId(152, "RuntimeLost"), "pair {Pair}: {Candidate} does not have the runtime change: {Change}",
                edge.Name, candidate, sentence);
        if (!lost.IsEmpty) tell($"runtime changes that {candidate} does not have: {string.Join("; ", lost)}");
        return carried.IsEmpty && lost.IsEmpty ? null
            : new RuntimeFate(carried.IsEmpty ? null : carried, lost.IsEmpty ? null : lost);
    }

    private async Task<ImmutableArray<RuntimeChange>> LookAsync(Generation from, bool withLate, CancellationToken stop)
    {
        RuntimeState now = await RuntimeReading.ReadAsync(Admin(from), stop);
        RuntimeState there = await RuntimeReading.ReadAsync(Admin(candidate), stop);
        RuntimeState file = RuntimeBaseline.Files.Read(edge.PlaceOf(candidate.Number)) ?? there.AsConfigured();
        var changes = new RuntimeChanges(BaselineOf(from, now), now, file, there, withLate, _made);
        ImmutableArray<RuntimeChange> found = changes.All();
        // What the standby has already, a server state loaded at its start gave it.
        if (edge.Options.Continuity.RuntimeChanges != RuntimeChangesRule.Carry)
            return [.. found.Select(c => c.Commands.IsEmpty ? c : c with { Why = "" })];
        ImmutableArray<RuntimeChange> made = await RuntimeCarry.MakeAsync(Admin(candidate), changes.Undone, found, stop);
        _made = changes.Made;
        return made;
    }

    /// <summary>
    /// Before traffic goes back inside the undo window: what was changed since it came is made on the previous one, with
    /// <c>carry</c>. A way back must not wait for long: what takes longer is left, and told.
    /// </summary>
    public static async Task GoBackAsync(PairEdge edge, Generation current, Generation previous, CancellationToken stop)
    {
        if (edge.Options.Continuity.RuntimeChanges != RuntimeChangesRule.Carry
            || edge.AdminOf(current) is not { } from || edge.AdminOf(previous) is not { } to) return;
        ImmutableArray<RuntimeChange> changes = [];
        string? failed = await BoundedAsync(edge, async bound =>
        {
            if (RuntimeBaseline.Switch.Read(edge.PlaceOf(current.Number)) is not { } atSwitch) return;
            RuntimeState now = await RuntimeReading.ReadAsync(from, bound);
            RuntimeState there = await RuntimeReading.ReadAsync(to, bound);
            changes = await RuntimeCarry.MakeAsync(to, [], RuntimeChanges.Since(atSwitch, now, there), bound);
        }, s_patienceBack, stop);
        foreach (RuntimeChange change in changes)
            edge.Log.Log(change.Why is null ? LogLevel.Information : LogLevel.Warning, new EventId(154, "RuntimeBack"),
                "pair {Pair}: {Fate} to {Previous}: {Change}", edge.Name, change.Why is null ? "carried back" : "not carried back",
                previous, change.Sentence);
        if (failed is not null)
            edge.Log.LogWarning(new EventId(155, "RuntimeNotBack"),
                "pair {Pair}: what was changed at run time on {Current} may not be carried back to {Previous}: {Why}",
                edge.Name, current, previous, failed);
    }

    /// <summary>What a flip now would carry or lose; nothing is touched.</summary>
    public static async Task<ImmutableArray<RuntimeChangeReport>> PlanAsync(PairEdge edge, Generation? active, CancellationToken stop)
    {
        if (active is null || edge.AdminOf(active) is not { } admin) return [];
        bool carries = edge.Options.Continuity.RuntimeChanges == RuntimeChangesRule.Carry;
        RuntimeState now = await RuntimeReading.ReadAsync(admin, stop);
        RuntimeState before = RuntimeBaseline.Files.Read(edge.PlaceOf(active.Number)) ?? now.AsConfigured();
        return
        [
            .. RuntimeChanges.Between(before, now).Where(c => !IsOnDisk(c, now)).Select(c => new RuntimeChangeReport(
                RuntimeChange.Shown(c.Subject), RuntimeChange.Shown(c.Text), carries && c.Why is null,
                c.Why ?? (carries ? null : "continuity.runtime_changes: name"))),
        ];
    }

    /// <summary>A certificate that was written to its file as well, as most are, is not lost.</summary>
    private static bool IsOnDisk(RuntimeChange change, RuntimeState now)
    {
        if (!change.Subject.StartsWith(RuntimeSubject.Certificate, StringComparison.Ordinal)
            || now.Find(change.Subject, "content") is not { } content) return false;
        try
        {
            var file = new X509Certificate2Collection();
            file.ImportFromPemFile(RuntimeChange.Shown(change.Subject[RuntimeSubject.Certificate.Length..]));
            return file.Count > 0 && content.StartsWith(file[0].Thumbprint, StringComparison.OrdinalIgnoreCase);
        }
        catch (Exception e) when (e is CryptographicException or IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    private static ImmutableArray<string> Sentences(IEnumerable<RuntimeChange> changes)
    {
        string[] all = [.. changes.Select(c => c.Sentence)];
        return all.Length <= MostSentences ? [.. all]
            : [.. all.Take(MostSentences), $"and {all.Length - MostSentences} more runtime changes"];
    }

    /// <returns>Why it did not come to its end; null: it did.</returns>
    private static async Task<string?> BoundedAsync(
        PairEdge edge, Func<CancellationToken, Task> work, TimeSpan patience, CancellationToken stop)
    {
        using var late = new CancellationTokenSource(patience, edge.Time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(late.Token, stop);
        try
        {
            await work(either.Token);
            return null;
        }
        catch (OperationCanceledException) when (!stop.IsCancellationRequested)
        {
            return $"it took more than {Durations.Format(patience)}";
        }
        catch (Exception e) when (e is FlipException or IOException or UnauthorizedAccessException)
        {
            return e.Message;
        }
    }
}
