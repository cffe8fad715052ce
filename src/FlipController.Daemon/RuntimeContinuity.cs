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
    private const int MostSentences = 200;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);
    private HashSet<string> _made = [];

    /// <summary>Before the gate.</summary>
    public async Task BeginAsync(CancellationToken stop)
    {
        string? failed = await BoundedAsync(async bound =>
        {
            GenerationPlace place = edge.PlaceOf(candidate.Number);
            if (RuntimeBaseline.Read(place) is null)
                RuntimeBaseline.Save(place, (await RuntimeReading.ReadAsync(edge.AdminOf(candidate), bound)).AsConfigured());
            if (edge.Options.Continuity.RuntimeChanges == RuntimeChangesRule.Carry && active is not null)
                await LookAsync(active, withLate: false, bound);
        }, stop);
        if (failed is not null)
            edge.Log.LogWarning(new EventId(150, "RuntimeUnread"), "pair {Pair}: runtime changes, before the gate: {Why}", edge.Name, failed);
    }

    /// <summary>After the gate, right before the switch. Null: there is nothing to tell.</summary>
    /// <param name="tell">Told what will be lost, while there is time to do something about it.</param>
    public async Task<RuntimeFate?> EndAsync(Action<string> tell, CancellationToken stop)
    {
        if (active is null) return null;
        ImmutableArray<RuntimeChange> changes = [];
        string? failed = await BoundedAsync(async bound => changes = await LookAsync(active, withLate: true, bound), stop);
        bool carries = edge.Options.Continuity.RuntimeChanges == RuntimeChangesRule.Carry;
        ImmutableArray<string> carried = Sentences(changes.Where(c => carries && c.Why is null));
        ImmutableArray<string> lost = Sentences(changes.Where(c => !carries || c.Why is not null));
        if (failed is not null) lost = lost.Add($"whatever was changed at run time on {active}: {failed}");
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
        RuntimeState now = await RuntimeReading.ReadAsync(edge.AdminOf(from), stop);
        RuntimeState before = RuntimeBaseline.Read(edge.PlaceOf(from.Number)) ?? now.AsConfigured();
        RuntimeState? file = RuntimeBaseline.Read(edge.PlaceOf(candidate.Number));
        if (edge.Options.Continuity.RuntimeChanges != RuntimeChangesRule.Carry)
            return new RuntimeChanges(before, now, file, file, true, _made).All();
        RuntimeState there = await RuntimeReading.ReadAsync(edge.AdminOf(candidate), stop);
        var changes = new RuntimeChanges(before, now, file ?? there.AsConfigured(), there, withLate, _made);
        ImmutableArray<RuntimeChange> found = changes.All();
        ImmutableArray<RuntimeChange> made = await RuntimeCarry.MakeAsync(edge.AdminOf(candidate), changes.Undone, found, stop);
        _made = changes.Made;
        return made;
    }

    /// <summary>What a flip now would carry or lose; nothing is touched.</summary>
    public static async Task<ImmutableArray<RuntimeChangeReport>> PlanAsync(PairEdge edge, Generation? active, CancellationToken stop)
    {
        if (active is null) return [];
        bool carries = edge.Options.Continuity.RuntimeChanges == RuntimeChangesRule.Carry;
        RuntimeState now = await RuntimeReading.ReadAsync(edge.AdminOf(active), stop);
        RuntimeState before = RuntimeBaseline.Read(edge.PlaceOf(active.Number)) ?? now.AsConfigured();
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
    private async Task<string?> BoundedAsync(Func<CancellationToken, Task> work, CancellationToken stop)
    {
        using var late = new CancellationTokenSource(s_patience, edge.Time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(late.Token, stop);
        try
        {
            await work(either.Token);
            return null;
        }
        catch (OperationCanceledException) when (!stop.IsCancellationRequested)
        {
            return $"it took more than {Durations.Format(s_patience)}";
        }
        catch (Exception e) when (e is FlipException or IOException or UnauthorizedAccessException)
        {
            return e.Message;
        }
    }
}
