using System.Collections.Concurrent;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;

namespace FlipController.Daemon;

/// <summary>
/// The pair's generations that leave: looked at about once a second, told to whoever watches, and let go of when nothing but the
/// session with them is left.
/// </summary>
internal sealed class Drains(PairEdge edge, Func<PairState> state) : IDisposable
{
    private static readonly TimeSpan s_look = TimeSpan.FromSeconds(1), s_lastLooks = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan s_quiet = TimeSpan.FromSeconds(10), s_saving = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan s_longestDelivery = TimeSpan.FromSeconds(60), s_longestDoubt = TimeSpan.FromSeconds(5);
    private const int Few = 5;
    private readonly ConcurrentDictionary<int, Leaving> _leaving = new();
    private readonly ConcurrentDictionary<int, int> _closed = new(); // of those that have left, until that is told
    private readonly SemaphoreSlim _begun = new(0);

    public Leaving? Find(int generation) => _leaving.GetValueOrDefault(generation);

    /// <summary>How many of its connections the controller has closed.</summary>
    public int ClosedOf(int generation) => Find(generation)?.Status.Closed
        ?? (_closed.TryGetValue(generation, out int closed) ? closed : edge.Drains.Read(generation)?.Closed ?? 0);

    /// <summary>From now on it is watched; the same again finds it watched already.</summary>
    public Leaving Begin(Generation generation)
    {
        int? flip = state().LastFlip is { } last && (last.From == generation.Number || last.To == generation.Number) ? last.Id : null;
        Leaving leaving = _leaving.GetOrAdd(generation.Number, _ => new Leaving(edge, generation, flip));
        _begun.Release();
        return leaving;
    }

    /// <summary>Its process is gone, or it is active again.</summary>
    public async Task EndAsync(int generation, bool gone)
    {
        if (!_leaving.TryGetValue(generation, out Leaving? leaving)) return;
        // Written down before it is forgotten: whoever asks finds it in one place or the other.
        if (gone) leaving.End();
        _closed[generation] = leaving.Status.Closed;
        foreach (int told in _closed.Keys.Where(n => n != generation && state().Drain?.Generations.Contains(n) != true)) _closed.TryRemove(told, out _);
        _leaving.TryRemove(generation, out _);
        leaving.Unfollow();
        await leaving.LetGoAsync();
    }

    /// <summary>For as long as the pair is looked after.</summary>
    public async Task RunAsync(CancellationToken stop)
    {
        var told = new Dictionary<int, (int Count, string Step, long At)>();
        long saved = edge.Time.GetTimestamp();
        while (true)
        {
            if (_leaving.IsEmpty)
            {
                told.Clear();
                await _begun.WaitAsync(stop);
                continue;
            }
            bool few = false;
            // In this order: one that begins in between is not judged by a state from before it.
            Leaving[] all = [.. _leaving.Values];
            PairState s = state();
            foreach (Leaving leaving in all)
            {
                Generation generation = leaving.Generation;
                // Active again, or dead before it was told to stop: it does not leave, or has left.
                if (s.Phase.Previous?.Number != generation.Number && !s.Retired.Any(r => r.Generation.Number == generation.Number))
                {
                    await EndAsync(generation.Number, gone: leaving.IsStopped && !ProcessIdentity.Of(generation).IsAlive);
                    continue;
                }
                if (await CountAsync(leaving, stop) is not { } count) continue; // the next look may do better
                leaving.Sample(count);
                few |= count <= Few && leaving.IsStopped;
                (int Count, string Step, long At) before = told.GetValueOrDefault(leaving.Generation.Number, (-1, "", 0));
                bool news = before.Count != count || before.Step != leaving.Status.Step;
                TimeSpan since = edge.Time.GetElapsedTime(before.At);
                if ((!news || since < s_look) && since < s_quiet) continue;
                told[leaving.Generation.Number] = (count, leaving.Status.Step, edge.Time.GetTimestamp());
                leaving.Tell();
            }
            if (edge.Time.GetElapsedTime(saved) >= s_saving)
            {
                saved = edge.Time.GetTimestamp();
                foreach (Leaving leaving in _leaving.Values.Where(l => l.IsStopped)) leaving.Save();
            }
            await Task.Delay(few ? s_lastLooks : s_look, edge.Time, stop);
        }
    }

    /// <summary>
    /// HAProxy's own count, which costs the same however many there are; where it cannot be asked the kernel's sockets. Null: neither.
    /// </summary>
    private async Task<int?> CountAsync(Leaving leaving, CancellationToken stop)
    {
        try
        {
            return await AskedAsync(leaving, stop) ?? await SocketsAsync(leaving.Generation, stop);
        }
        catch (Exception e) when (!stop.IsCancellationRequested)
        {
            // One look that fails, whatever the reason, must not be the last: only who looks lets a drained HAProxy go.
            edge.Log.Log(e is FlipException ? LogLevel.Debug : LogLevel.Error, e, "pair {Pair}: {Generation} cannot be looked at", edge.Name, leaving.Generation);
            return null;
        }
    }

    private async Task<int?> AskedAsync(Leaving leaving, CancellationToken stop)
    {
        try
        {
            if (leaving.Session is { } session)
            {
                HaproxyInfo info = await session.ShowInfoAsync(stop);
                if (!AdminSession.IsDrained(info)) return info.CurrConns;
                // HAProxy has nothing left to do; what the kernel still delivers for it must have arrived, too, before it ends.
                int undelivered = await SocketsAsync(leaving.Generation, stop);
                if (undelivered == 0) await leaving.LetGoAsync();
                return undelivered;
            }
            if (!leaving.IsStopped && edge.AdminOf(leaving.Generation) is { } admin) return (await admin.ShowInfoAsync(stop)).CurrConns;
        }
        catch (FlipException e) when (e is not KernelException)
        {
            edge.Log.LogDebug("pair {Pair}: {Generation} cannot be asked: {Why}", edge.Name, leaving.Generation, e.Message);
            // It would keep HAProxy from ending, and nobody would know when it may.
            if (leaving.Session is { IsBroken: true }) await leaving.LetGoAsync();
        }
        return null;
    }

    private async Task<int> SocketsAsync(Generation generation, CancellationToken stop) =>
        (await PairLedger.SocketsAsync(state(), generation, stop)).Total + UnixQueues.Clients(generation);

    /// <summary>
    /// Until the kernel has delivered what a process that is gone has left to it. The kernel goes on with it in any case; on ports that
    /// the slot's next generation uses too nobody can tell whose it is, so that is not waited for as long.
    /// </summary>
    public async Task DeliveredAsync(Generation generation, CancellationToken stop)
    {
        long began = edge.Time.GetTimestamp();
        // Past its deadline nobody waits for a client that does not read.
        TimeSpan longest = Find(generation.Number)?.Status.Step == "ending" ? s_longestDoubt : s_longestDelivery;
        while (edge.Time.GetElapsedTime(began) is var waited && waited < longest)
        {
            ClientSockets seen = await PairLedger.SocketsAsync(state(), generation, stop);
            if (seen.Orphans == 0 && (seen.OrphansOfUnknown == 0 || waited > s_longestDoubt)) return;
            Find(generation.Number)?.Sample(seen.Orphans);
            await Task.Delay(s_lastLooks, edge.Time, stop);
        }
    }

    /// <summary>The pair's next owner takes up what leaves.</summary>
    public void Dispose()
    {
        foreach (Leaving leaving in _leaving.Values)
        {
            if (leaving.IsStopped) leaving.Save();
            leaving.Unfollow();
        }
    }
}
