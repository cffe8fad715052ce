using System.Collections.Concurrent;
using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux;
using FlipController.Linux.Clients;
using FlipController.Linux.Fronts;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Linux.State;

namespace FlipController.Daemon;

/// <summary>How generations leave: discarded before they had traffic, retired after, closed when they stay too long.</summary>
internal sealed class Departure(PairEdge edge, Func<PairState> state, PairLedger ledger, DatagramFlows flows)
{
    private const int Terminate = 15, Kill = 9; // SIGTERM, SIGKILL: signal(7)
    private static readonly TimeSpan s_politeEnd = TimeSpan.FromSeconds(3);
    // A SYN-ACK is sent five times, the last time after 31 s, and given up after 63 (tcp(7), tcp_synack_retries).
    private static readonly TimeSpan s_longestOpening = TimeSpan.FromSeconds(64);

    // Timers take no more than 49 days; a clock that is set meanwhile is looked at again.
    private static readonly TimeSpan s_longestDelay = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan s_nextLook = TimeSpan.FromMilliseconds(500);
    private static readonly TimeSpan s_lastArrivals = TimeSpan.FromMilliseconds(100);

    private readonly long _unkeptAtStart = UnkeptSyns.Count();
    private readonly ConcurrentDictionary<ProcessIdentity, bool> _finishing = new();
    private readonly ConcurrentDictionary<int, Opened> _opened = new();

    /// <summary>
    /// Soft stop, then the drain deadlines: at each one what is left of its services is closed gently; the last one posts DrainDue.
    /// </summary>
    public async Task RetireAsync(Retire effect, Leaving leaving, LoopKeeping loops, Action<PairEvent> post, CancellationToken stop)
    {
        Generation generation = effect.Generation;
        await StopListeningAsync(generation, leaving, loops, stop);
        if (edge.DriverOf(generation.Number).StopsSoftly)
        {
            await DrainAsync(effect, leaving, post, stop);
            return;
        }
        using var over = CancellationTokenSource.CreateLinkedTokenSource(stop);
        Task ended = EndWhenLeftAsync(generation, over.Token), drained = DrainAsync(effect, leaving, post, over.Token);
        // One that is kept past its deadline is waited for as well; whatever fails ends both, and is done again.
        if (!(await Task.WhenAny(ended, drained)).IsCompletedSuccessfully || ended.IsCompleted || edge.Options.Drain.AtDeadline == AtDeadline.Close)
            await over.CancelAsync();
        try
        {
            await Task.WhenAll(ended, drained);
        }
        catch (OperationCanceledException) when (!stop.IsCancellationRequested)
        {
            // The other one has done it.
        }
    }

    /// <summary>What is not told to stop has no end of its own: it is ended when nobody is connected any more, twice looked.</summary>
    private async Task EndWhenLeftAsync(Generation generation, CancellationToken stop)
    {
        for (bool wasLeft = false; ;)
        {
            bool isLeft = (await PairLedger.SocketsAsync(state(), generation, stop)).Total == 0 && Standing(generation) is null;
            if (isLeft && wasLeft) break;
            wasLeft = isLeft;
            await Task.Delay(isLeft ? s_lastArrivals : s_nextLook, edge.Time, stop);
        }
        await EndAsync(edge, ProcessIdentity.Of(generation), CancellationToken.None);
    }

    private async Task DrainAsync(Retire effect, Leaving leaving, Action<PairEvent> post, CancellationToken stop)
    {
        Generation generation = effect.Generation;
        ImmutableArray<DrainDeadline> deadlines = DrainDeadline.Of(edge.Options.Drain, generation.Ports, effect.Since, effect.ClosesAt);
        if (deadlines.IsEmpty)
        {
            DateTimeOffset kept = effect.Since + edge.Options.Drain.Deadline;
            leaving.Enter("draining", kept, "kept (drain.at_deadline)");
            await UntilAsync(kept, stop);
            leaving.Enter("kept", null, null);
            leaving.Mark("deadline", "its deadline came; it is kept (drain.at_deadline)");
            return;
        }
        for (int i = 0; i < deadlines.Length; i++)
        {
            DrainDeadline deadline = deadlines[i];
            ImmutableSortedDictionary<string, DateTimeOffset>? differing = i == deadlines.Length - 1 ? null : deadlines[i..]
                .SelectMany(d => d.Services.Select(s => KeyValuePair.Create(s.Service.ToString(), d.At))).ToImmutableSortedDictionary();
            string what = deadline.Services.IsEmpty ? "what is left" : string.Join(", ", deadline.Services.Select(s => s.Service));
            leaving.Enter("draining", deadline.At, $"{what} is closed over {Durations.Format(edge.Options.Drain.Spread)}", differing);
            await UntilAsync(deadline.At, stop);
            if (deadline.Services.IsEmpty) break;
            leaving.Mark("deadline", $"the deadline of {what} came");
            await CloseGentlyAsync(leaving, deadline.Services, stop);
        }
        leaving.Mark("deadline", "its deadline came");
        post(new DrainDue(edge.Now, generation.Number));
    }

    private async Task UntilAsync(DateTimeOffset at, CancellationToken stop)
    {
        while (at - edge.Now is { Ticks: > 0 } left) await Task.Delay(left < s_longestDelay ? left : s_longestDelay, edge.Time, stop);
    }

    /// <summary>
    /// Soft stop, once what it connects to itself for is served by the active generation and nobody is in the middle of opening a
    /// connection: what is in SYN_RECV or not accepted yet when a listener closes is reset (facts of tcp_migrate_req, ip-sysctl).
    /// </summary>
    private async Task StopListeningAsync(Generation generation, Leaving leaving, LoopKeeping loops, CancellationToken stop)
    {
        // An order that replaces another waits for what that one has begun.
        await leaving.Turn.WaitAsync(stop);
        try
        {
            if (!leaving.IsStopped) await StopAsync(generation, leaving, loops, stop);
        }
        finally
        {
            leaving.Turn.Release();
        }
        leaving.Follow();
    }

    private async Task StopAsync(Generation generation, Leaving leaving, LoopKeeping loops, CancellationToken stop)
    {
        leaving.Enter("opening", edge.Now + s_longestOpening, "soft stop");
        long began = edge.Time.GetTimestamp();
        TimeSpan pause = TimeSpan.FromMilliseconds(20);
        // Who has found a socket of its own an instant before it led elsewhere queues there an instant after.
        if (loops.Keep() is null && LeaveFronts(generation) is null && HasOwnSockets(generation)) await Task.Delay(s_lastArrivals, edge.Time, stop);
        // The same of a front path, which has led to the active generation since the switch.
        while ((loops.Keep() ?? LeaveFronts(generation) ?? Standing(generation)) is { } standing)
        {
            if (edge.Time.GetElapsedTime(began) > s_longestOpening)
            {
                edge.Log.LogWarning("pair {Pair}: {Generation} stops listening although {Standing}; whoever opens one now is reset",
                    edge.Name, generation, standing);
                break;
            }
            await Task.Delay(pause, edge.Time, stop);
            if (pause < TimeSpan.FromMilliseconds(200)) pause *= 2;
        }
        await OpenSessionAsync(leaving, stop);
        await edge.DriverOf(generation.Number).TellToStopAsync(ProcessIdentity.Of(generation), generation, stop);
        leaving.IsStopped = true;
        _opened.TryRemove(generation.Number, out _);
        if (generation.IsOnFronts) await LeftFrontsAsync(generation, stop);
        Forget(edge, generation.Number);
        leaving.Mark("retired", edge.DriverOf(generation.Number).StopsSoftly ? "told to stop: no new connections, the open ones finish"
            : "no new connections reach it; it is ended when the open ones have");
    }

    /// <summary>
    /// The soft stop closes the admin socket; only a session from before goes on. Without one HAProxy ends by itself when it has
    /// drained, but nobody can ask it any more.
    /// </summary>
    private async Task OpenSessionAsync(Leaving leaving, CancellationToken stop)
    {
        if (leaving.Session is not null || edge.AdminOf(leaving.Generation) is not { } admin) return;
        try
        {
            await edge.Sessions.KeepAsync(leaving.Generation.Number, await admin.OpenSessionAsync(stop));
        }
        catch (FlipException e)
        {
            edge.Log.LogDebug("pair {Pair}: {Generation} cannot be asked while it drains: {Why}", edge.Name, leaving.Generation, e.Message);
        }
    }

    /// <summary>
    /// What a soft stop should wait for; null: nothing. A count that fails is waited for too, or it would end the retirement.
    /// </summary>
    private string? Standing(Generation generation)
    {
        try
        {
            return Opening(generation) is { } opening and > 0 ? $"{opening} connections are still being opened" : flows.Standing(generation);
        }
        catch (KernelException e)
        {
            return $"its connections cannot be counted: {e.Message}";
        }
    }

    /// <summary>It listens there no more; who does is alone now.</summary>
    private async Task LeftFrontsAsync(Generation generation, CancellationToken stop)
    {
        try
        {
            long began = edge.Time.GetTimestamp();
            while (PairEdge.Listens(generation) && edge.Time.GetElapsedTime(began) < s_politeEnd) await Task.Delay(s_lastArrivals / 10, edge.Time, stop);
            edge.Redirect.Settle(edge.Name, [.. generation.Ports.Select(p => p.Service)]);
        }
        catch (FlipException e)
        {
            edge.Log.LogDebug("pair {Pair}: who is alone on the front addresses is named when the next one begins to listen: {Why}", edge.Name, e.Message);
        }
    }

    /// <summary>
    /// On the front addresses others listen too: of those that were being opened when NEW connections had begun to go elsewhere some are its
    /// own, of later ones none is. Its accept queues are its own.
    /// </summary>
    private int OpeningOnFronts(Generation generation, SockDiag sockets, PortBlock span)
    {
        Opened opened = _opened.GetOrAdd(generation.Number, _ => new Opened(generation.Ports.Select(p => p.PrivatePort).ToHashSet()));
        ProcessDescriptors held = ProcessDescriptors.ReadFamily(generation.Pid);
        return opened.Left(sockets) + (int)sockets.Sockets(TcpStates.Listen, span).Where(l => held.Holds(l.Inode)).Sum(l => l.ReceiveQueue);
    }

    /// <summary>Connections in the middle of being opened towards a generation; null: it is gone.</summary>
    private int? Opening(Generation generation)
    {
        if (!ProcessIdentity.Of(generation).IsAlive) return null;
        int byPath = HasOwnSockets(generation) ? (int)UnacceptedByPath(generation) : 0;
        if (generation.Ports.IsEmpty) return byPath;
        PortBlock span = PairEdge.SpanOf(generation);
        using var sockets = new SockDiag();
        if (generation.IsOnFronts) return OpeningOnFronts(generation, sockets, span) + byPath;
        int halfOpen = sockets.HandshakesByPort(span).Where(p => PairEdge.Owns(generation, p.Key)).Sum(p => p.Value);
        uint unaccepted = 0;
        foreach (TcpSocket listener in sockets.Sockets(TcpStates.Listen, span))
            if (PairEdge.Owns(generation, listener.Local.Port)) unaccepted += listener.ReceiveQueue;
        return halfOpen + (int)unaccepted + byPath + Remembered(generation);
    }

    /// <summary>No front path leads to it any more; null: so it is, else why not.</summary>
    private string? LeaveFronts(Generation generation)
    {
        if (generation.UnixFronts.IsEmpty) return null;
        try
        {
            lock (edge.FrontTurn) FrontLinks.Leave(generation.UnixFronts, state().Active?.UnixFronts ?? []);
            return null;
        }
        catch (Exception e) when (e is FlipException or IOException or UnauthorizedAccessException)
        {
            return $"a front path still leads to it: {e.Message}";
        }
    }

    private bool HasOwnSockets(Generation generation) => edge.PlaceOf(generation.Number).OwnSockets().Count > 0;

    private static uint UnacceptedByPath(Generation generation)
    {
        try
        {
            return UnixQueues.Unaccepted(generation.Pid);
        }
        catch (KernelException)
        {
            return 0; // A kernel that cannot tell: it had a moment to accept them in.
        }
    }

    /// <summary>
    /// With SYN cookies there is no socket for a half-open connection, nor for one whose SYN was dropped and comes again; conntrack
    /// still knows it. Asking it costs a walk over every entry of the host, which clients notice, so it is asked only when there were such.
    /// </summary>
    private int Remembered(Generation generation)
    {
        if (UnkeptSyns.Count() == _unkeptAtStart) return 0;
        using Conntrack? conntrack = Conntrack.Open();
        return conntrack?.Count(edge.Mark.ValueOf(generation.Tag), edge.Mark.Mask)?.Opening ?? 0;
    }

    /// <summary>
    /// Ends a retired generation: its connections are closed over drain.spread, then SIGTERM, and SIGKILL when that does not help.
    /// </summary>
    public async Task CloseAsync(Close effect, Leaving leaving, LoopKeeping loops, CancellationToken stop)
    {
        await StopListeningAsync(effect.Generation, leaving, loops, stop);
        edge.Log.LogInformation("pair {Pair}: {Generation} is closed with {Connections} connections: {Why}",
            edge.Name, effect.Generation, await HeldAsync(effect.Generation, stop), effect.Why);
        leaving.Mark("closing", effect.Why);
        await CloseGentlyAsync(leaving, [], stop);
        leaving.Enter("ending", edge.Now + s_politeEnd, "SIGKILL");
        if (await UntoldAsync(effect.Generation, stop) is > 0 and int left)
        {
            leaving.CountClosed(left);
            leaving.Mark("ending", $"{left} {(left == 1 ? "connection ends" : "connections end")} with the process");
        }
        await leaving.LetGoAsync();
        await EndAsync(edge, ProcessIdentity.Of(effect.Generation), stop);
    }

    private async Task<int> HeldAsync(Generation generation, CancellationToken stop)
    {
        try
        {
            return (await PairLedger.SocketsAsync(state(), generation, stop)).Held;
        }
        catch (KernelException)
        {
            return 0; // Only for the record.
        }
    }

    /// <summary>Who is there still and was never told to leave.</summary>
    private async Task<int> UntoldAsync(Generation generation, CancellationToken stop)
    {
        try
        {
            // None is closed: it is looked who of those that were told has left.
            await ledger.CloseAsync(generation, [], new ClientQuery(Limit: 0), mayServe: false, stop);
            return await HeldAsync(generation, stop) - ledger.ToldToLeave(generation);
        }
        catch (FlipException)
        {
            return 0; // Only for the record.
        }
    }

    /// <summary>Over drain.spread, the longest idle first; what HAProxy cannot be told to close is left.</summary>
    /// <param name="services">Only theirs; empty: every one.</param>
    private async Task CloseGentlyAsync(Leaving leaving, ImmutableArray<ServicePort> services, CancellationToken stop)
    {
        DateTimeOffset until = edge.Now + edge.Options.Drain.Spread;
        leaving.Enter("closing", until, services.IsEmpty ? "SIGTERM" : "draining");
        long began = edge.Time.GetTimestamp();
        Generation generation = leaving.Generation;
        using var sockets = new SockDiag();
        var clients = new GenerationClients(sockets);
        string? told = null;
        while (true)
        {
            ClientsOf of = PairLedger.ClientsOf(state(), generation, "retired");
            if (!services.IsEmpty) of = of with { Ports = services };
            try
            {
                int held = (await clients.CountAsync(of, ledger.FirstSeenOf(generation), stop)).Held;
                if (held == 0) return;
                int open = Math.Max(0, held - ledger.ToldToLeave(generation));
                TimeSpan left = edge.Options.Drain.Spread - edge.Time.GetElapsedTime(began), next = GentleClosing.NextStep(open, left);
                // At the end everybody: some of those that were told have left since, and do not count twice.
                int due = left <= TimeSpan.Zero ? held : GentleClosing.DueNow(open, left, next);
                // With none due it only looks who of those that were told has left.
                if (due > 0 || open == 0)
                {
                    ClientsClosed closed = await ledger.CloseAsync(
                        generation, services, new ClientQuery(Order: ClientOrder.Idle, Limit: due), mayServe: false, stop);
                    leaving.CountClosed(closed.Closed);
                    if (closed.Left > 0)
                        edge.Log.LogWarning("pair {Pair}: {Count} connections of {Generation} cannot be closed one by one, and end with its process: {Why}",
                            edge.Name, closed.Left, generation, closed.Why);
                }
                if (left <= TimeSpan.Zero) return;
                await Task.Delay(next < left ? next : left, edge.Time, stop);
            }
            catch (FlipException e)
            {
                if (edge.Time.GetElapsedTime(began) >= edge.Options.Drain.Spread) return; // They end with the process.
                if (told != e.Message)
                    edge.Log.LogWarning("pair {Pair}: the connections of {Generation} cannot be closed one by one now: {Why}; it is tried again until {Until:HH:mm:ss}",
                        edge.Name, generation, e.Message, until.ToLocalTime());
                told = e.Message;
                await Task.Delay(s_nextLook, edge.Time, stop);
            }
        }
    }

    public Task DiscardAsync(int number, CancellationToken stop)
    {
        edge.Fronts.Release(edge.Name, number);
        return EndAsync(edge, number, stop);
    }

    /// <summary>Ends what a generation left behind, and removes its chain and files. Nothing there is fine.</summary>
    public static async Task EndAsync(PairEdge edge, int number, CancellationToken stop)
    {
        GenerationPlace place = edge.PlaceOf(number);
        if (Instance.LeftBehind(place) is { } process) await EndAsync(edge, process, stop);
        Forget(edge, number);
        try
        {
            await edge.DriverOf(number).ClearAsync(number, stop);
        }
        catch (FlipException e)
        {
            // Its directory says what is left to do, and the next sweep does it.
            edge.Log.LogWarning(new EventId(172, "NotCleared"), "pair {Pair}: what is left of generation {Number} stays for now: {Why}", edge.Name, number, e.Message);
            return;
        }
        place.Remove();
    }

    /// <summary>What nobody knows any more may have connections: then it is told to stop and ends with the last of them.</summary>
    private async Task FinishAsync(int number, CancellationToken stop)
    {
        using var sockets = new SockDiag();
        // Of its unix sockets' clients the kernel lists only those of this network namespace: whoever has such sockets may have some.
        bool byPath = edge.PlaceOf(number).OwnSockets().Count > 0;
        if (Instance.LeftBehind(edge.PlaceOf(number)) is not { } process || (ProcessSockets.Connected(sockets, process.Pid) is var open && open == 0 && !byPath))
        {
            await EndAsync(edge, number, stop);
            return;
        }
        if (!_finishing.TryAdd(process, true)) return;
        await edge.DriverOf(number).TellToStopAsync(
            process, GenerationNote.Living(edge.Runtime, edge.Name).FirstOrDefault(n => n.Generation.Number == number)?.Generation, stop);
        edge.Log.LogWarning(new EventId(156, "Unknown"),
            "pair {Pair}: generation {Number} (process {Pid}) is not in the saved state and has {Count} connections open, to clients and to servers; it was told to stop listening and ends with them, whenever that is",
            edge.Name, number, process.Pid, open);
    }

    private static async Task EndAsync(PairEdge edge, ProcessIdentity process, CancellationToken stop)
    {
        var died = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        using var ends = new DeathWatch();
        ends.Add(process, _ => died.TrySetResult());
        IReadOnlyList<ProcessIdentity> family = ProcessFamily.Of(process.Pid);
        if (!process.Signal(Terminate)) return;
        try
        {
            await died.Task.WaitAsync(s_politeEnd, edge.Time, stop);
        }
        catch (TimeoutException)
        {
            process.Signal(Kill);
        }
        // A master that was killed could not end its workers.
        foreach (ProcessIdentity member in family) member.Signal(Kill);
    }

    /// <summary>
    /// Removes the generation's chain; while the pair's rule still names it the kernel refuses, and a later sweep does it.
    /// </summary>
    private static void Forget(PairEdge edge, int number)
    {
        try
        {
            edge.Redirect.RemoveGeneration(edge.Name, number);
        }
        catch (FlipException e)
        {
            edge.Log.LogDebug("pair {Pair}: the chain of generation {Number} stays for now: {Why}", edge.Name, number, e.Message);
        }
    }

    /// <summary>A generation that is gone: its chain, its files. What cannot be removed now a later sweep does.</summary>
    public void Bury(Generation generation)
    {
        edge.Deaths.Remove(ProcessIdentity.Of(generation));
        Forget(edge, generation.Number);
        try
        {
            edge.PlaceOf(generation.Number).Remove();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            edge.Log.LogWarning("pair {Pair}: the files of {Generation} stay for now: {Why}", edge.Name, generation, e.Message);
        }
    }

    /// <summary>At rest: whatever in the kernel and under the runtime directory belongs to no living generation of the pair goes.</summary>
    public async Task SweepAsync(PairState state, Func<int, bool> isMade, CancellationToken stop)
    {
        HashSet<int> known = [.. state.Generations.Select(g => g.Number)];
        // A higher number is of a flip that began after this look at the state.
        bool Belongs(int number) => known.Contains(number) || number > state.LastNumber || isMade(number);
        foreach (int number in edge.Redirect.Generations(edge.Name).Where(n => !Belongs(n))) Forget(edge, number);
        foreach (int number in GenerationPlace.Numbers(edge.Runtime, edge.Name).Where(n => !Belongs(n))) await FinishAsync(number, stop);
        edge.Store.PruneSnapshots(n => Belongs(n) || n == state.LastGood || n == state.BeforeLast);
    }
}
