using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux;
using FlipController.Linux.Files;
using FlipController.Linux.Fronts;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;
using FlipController.Linux.State;

namespace FlipController.Daemon;

/// <summary>From the user's files to a standby that is up: read, render, validate, start. Nothing that has traffic is touched.</summary>
internal sealed class StandbyStart(PairEdge edge, Func<PairState> state, Fallback fallback, ServerStateKeeping serverState, PrivatePorts ports)
{
    private readonly WatchedFiles _files = new(edge.Options.Server);

    /// <summary>Prepared or PrepareFailed; a failure leaves nothing behind.</summary>
    /// <param name="endUndo">Has the previous generation retired, for one that needs its place on the front addresses.</param>
    public async Task<PairEvent> RunAsync(Prepare effect, IReadOnlySet<int> livingTags, Action endUndo, CancellationToken stop)
    {
        FlipRun run = effect.Run;
        GenerationPlace place = edge.PlaceOf(run.Number);
        try
        {
            ports.Refuse();
            Snapshot snapshot = Content(run);
            if (run.Wish.Trigger == FlipTrigger.Files && effect.Active is { } serving && snapshot.ContentSha256 == edge.ContentOf(serving))
                return new PrepareFailed(edge.Now, run.Number, "nothing relevant changed", Unchanged: true);
            string binary = edge.Driver.BinaryOf(run.Binary);
            RenderedConfiguration rendered = await RenderAsync(binary, snapshot, place, run.Slot, stop);
            RefuseUnknown(rendered);
            if (await OtherSecretAsync(binary, rendered, effect.Active, stop) is { } other)
                edge.Log.LogWarning(new EventId(170, "OtherSecret"), "pair {Pair}: {Why}", edge.Name, other);
            RefuseDropped(rendered, effect.Active, run.Wish.AllowDrop);
            edge.Fronts.Claim(edge.Name, run.Number, [.. rendered.Services.Select(p => p.Service)], [.. rendered.Fronts.Select(f => f.Path)]);
            await RefuseTakenAsync(rendered, effect.Active, effect.MayTake, stop);
            Instance instance = edge.Driver.InstanceOf(binary, rendered, place, run.Slot, snapshot);
            instance.WriteFiles();
            await serverState.FillAsync([.. rendered.ServerStateFiles.Select(f => (f.Path, f.Backend))], effect.Active, stop);
            if (await instance.CheckAsync(stop) is { } rejected) throw new FlipException($"{instance.Called} rejects the configuration: {rejected}");
            edge.Store.SaveSnapshot(run.Number, snapshot);
            if (rendered.Services.Any(p => p.IsFront))
            {
                endUndo();
                await edge.Redirect.MakeRoomAsync(edge.Name, [.. rendered.Services.Select(p => p.Service)], stop);
            }
            ProcessIdentity process = await instance.StartAsync(stop);
            // It says so itself: one process less to start beside the traffic than asking the binary.
            var generation = new Generation(
                run.Number, run.Slot, process.Pid, process.StartTicks, process.BootId, snapshot.ConfigSha256, snapshot.ContentSha256,
                edge.Now, rendered.Services, edge.Mark.NextTag(run.Number, livingTags), null, binary, rendered.Loops,
                rendered.Fronts.IsEmpty ? null : rendered.Fronts);
            if (edge.AdminOf(generation) is { } admin) generation = generation with { Version = (await admin.ShowInfoAsync(stop)).Version };
            Recovery.Note(edge, generation);
            edge.Redirect.RemoveGeneration(edge.Name, run.Number);
            edge.AddChain(generation);
            return new Prepared(edge.Now, generation);
        }
        catch (Exception e) when (e is FlipException or IOException or UnauthorizedAccessException)
        {
            edge.Fronts.Release(edge.Name, run.Number);
            await Departure.EndAsync(edge, run.Number, CancellationToken.None);
            return new PrepareFailed(edge.Now, run.Number,
                $"generation {run.Number} could not be made: {e.Message}; {PairEdge.Holds(effect.Active)}.");
        }
    }

    /// <summary>What the active generation serves; without one, what was served when it is known, else what the files say.</summary>
    public async Task<(ImmutableArray<Service> Services, ImmutableArray<string> Paths)> ServicesAsync(
        Generation? active, ImmutableArray<Service>? before, ImmutableArray<string> pathsBefore, PairState s, CancellationToken stop)
    {
        if (active is not null) return ([.. active.Ports.Select(p => p.Service)], [.. active.UnixFronts.Select(f => f.Path)]);
        if (before is { IsDefaultOrEmpty: false } || !pathsBefore.IsEmpty) return (before ?? [], pathsBefore);
        RenderedConfiguration rendered = await RenderAsync(
            edge.Driver.BinaryOf(s.Binary), ReadFiles(), edge.PlaceOf(s.LastNumber + 1), Slot.Blue, stop);
        return ([.. rendered.Services.Select(p => p.Service)], [.. rendered.Fronts.Select(f => f.Path)]);
    }

    private Snapshot Content(FlipRun run) => run.Wish.FromGeneration is { } number
        ? edge.Store.ReadSnapshot(number) ?? throw new FlipException($"the configuration of generation {number} is no longer kept")
        : _files.Read();

    /// <summary>The copy for a slot: what a flip would start, and what `render` and `plan` show.</summary>
    public async Task<RenderedConfiguration> RenderAsync(
        string binary, Snapshot snapshot, GenerationPlace place, Slot slot, CancellationToken stop)
    {
        PortBlock block = edge.BlockOf(slot);
        using var sockets = new SockDiag();
        // A warm or retiring generation may still listen in the slot: its ports are left alone, so it never stands in the way.
        HashSet<int> taken = [.. sockets.Sockets(TcpStates.Listen, block).Concat(sockets.Datagrams(block)).Select(s => s.Local.Port)];
        // Nor where one connects to itself: that goes on after it has stopped listening, to the active generation.
        foreach (Generation living in state().Generations)
            taken.UnionWith(living.Ports.Where(p => living.Loops?.Contains(p.Service) == true).Select(p => p.PrivatePort));
        return await edge.Driver.RenderAsync(binary, snapshot, place, slot, taken, stop);
    }

    public PrivatePorts Ports => ports;

    public Snapshot ReadFiles() => _files.Read();

    /// <summary>A slip in redirect.udp would leave the senders it is about to the usual.</summary>
    public void RefuseUnknown(RenderedConfiguration rendered)
    {
        Service[] services = [.. rendered.Services.Select(p => p.Service).Where(s => !s.IsTcp)];
        if (UdpRules.Unknown(edge.Options.Redirect, services) is { IsEmpty: false } unknown)
            throw new FlipException($"redirect.udp names {string.Join(", ", unknown)}, which the HAProxy configuration does not bind on UDP; "
                + $"{(services.Length == 0 ? "it binds nothing there" : $"there are {string.Join(", ", services.AsEnumerable())}")}");
    }

    /// <summary>What a flip does to QUIC clients that come back with what the active generation told them; null: nothing.</summary>
    public async Task<string?> OtherSecretAsync(string binary, RenderedConfiguration rendered, Generation? active, CancellationToken stop)
    {
        if (active is null || active.Ports.All(p => p.Service.Transport != Transport.Quic)
            || edge.Store.ReadSnapshot(active.Number) is not { } snapshot) return null;
        try
        {
            RenderedConfiguration before = await RenderAsync(binary, snapshot, edge.PlaceOf(active.Number), active.Slot, stop);
            return rendered.HasOtherClusterSecret(before)
                ? $"cluster-secret is another one than generation {active.Number} has: QUIC clients that come back to the new side with a token of "
                    + "the old one are asked once more who they are, and those that change their address in the flip open a new connection late"
                : null;
        }
        catch (FlipException)
        {
            // It runs, but not by today's rules: nothing to compare with.
            return null;
        }
    }

    /// <summary>
    /// A front address that goes away refuses its clients from the next instant on: only somebody's word makes that right.
    /// </summary>
    private void RefuseDropped(RenderedConfiguration rendered, Generation? active, bool allowed)
    {
        if (allowed || edge.Options.Gate.DroppedServices == DroppedServices.Allow) return;
        ImmutableArray<string> dropped = Dropped(rendered, active);
        if (!dropped.IsEmpty)
            throw new FlipException(
                $"the configuration no longer serves {string.Join(", ", dropped)}, whose clients would be refused; "
                + $"say `flipctl flip {edge.Name} --allow-drop` if that is meant (gate.dropped_services)");
    }

    private static ImmutableArray<string> Dropped(RenderedConfiguration rendered, Generation? active) => active is null
        ? []
        :
        [
            .. active.Ports.Select(p => p.Service).Except(rendered.Services.Select(p => p.Service)).Select(s => s.ToString()),
            .. active.UnixFronts.Select(f => f.Path).Except(rendered.Fronts.Select(f => f.Path)),
        ];

    /// <summary>A front address that somebody else serves would be taken away from it by the redirect, silently: refused by name.</summary>
    /// <param name="mayTake">From an unmanaged HAProxy; from nobody else.</param>
    public async Task RefuseTakenAsync(RenderedConfiguration rendered, Generation? active, bool mayTake, CancellationToken stop)
    {
        foreach (UnixFront front in rendered.Fronts)
        {
            if (edge.Fronts.Owner(front.Path, edge.Name) is { } pair) throw new FlipException(FrontAddresses.Taken(front.Path, pair));
            if (FrontPath.Look(front.Path).Refusal(edge.Name, mayTake ? fallback.IsAdopted : null) is { } refused) throw new FlipException(refused);
        }
        Service[] added = [.. rendered.Services.Select(p => p.Service).Except(active?.Ports.Select(p => p.Service) ?? [])];
        if (added.Length == 0) return;
        if (mayTake && edge.Options.Gate.TakenAddresses == TakenAddresses.Refuse
            && await fallback.StrangersAsync(added, stop) is { IsEmpty: false } strangers)
            throw new FlipException(string.Join(" | ", strangers));
        using var sockets = new SockDiag();
        // Generations of a pair may listen on the front addresses themselves.
        HashSet<uint> own = [.. state().Generations.SelectMany(g => ProcessDescriptors.ReadFamily(g.Pid).Inodes())];
        IReadOnlyList<TcpSocket> listeners = [.. sockets.Listeners().Where(l => !own.Contains(l.Inode))], receivers = [.. sockets.Receivers().Where(l => !own.Contains(l.Inode))];
        PairRules[] others = [.. edge.Redirect.ReadAll().Pairs.Values.Where(p => p.Pair != edge.Name && p.Reached)];
        foreach (Service service in added)
        {
            if (edge.Fronts.Owner(service, edge.Name) is { } pair) throw new FlipException(FrontAddresses.Taken(service, pair));
            // Of a pair that is configured no more, or of another daemon: whose rule comes first would have them all.
            if (others.FirstOrDefault(p => p.Active is { } a && p.Generations.TryGetValue(a, out var ports)
                && ports.Any(s => s.Service.Overlaps(service))) is { } left)
                throw new FlipException(
                    $"the front address {service} is redirected to generation {left.Active} of pair {left.Pair}, "
                    + $"which this daemon does not manage; configure pair {left.Pair} again, or stop this daemon, "
                    + "say `flipctl reset` (no pair is redirected then), and start it");
            if (edge.Options.Gate.TakenAddresses == TakenAddresses.Refuse && !mayTake
                && (service.IsTcp ? listeners : receivers).FirstOrDefault(l => Overlap(l, service)) is { } other)
                throw new FlipException(
                    $"the front address {service} is in use: {Owner(other)} listens on {other.Local} and would lose its NEW connections; "
                    + (IsHaproxy(other) ? $"say `flipctl adopt {edge.Name}` to take them over, or stop it" : "stop it first, or allow that (gate.taken_addresses)"));
        }
    }

    private static bool Overlap(TcpSocket listener, Service service) =>
        new Service(listener.Local.Address, listener.Local.Port, listener.V6Only == true, service.Transport).Overlaps(service);

    private static bool IsHaproxy(TcpSocket socket) => Owner(socket).StartsWith("haproxy", StringComparison.Ordinal);

    private static string Owner(TcpSocket socket)
    {
        foreach (int pid in ProcessSockets.Holders(socket.Inode))
        {
            try
            {
                return $"{File.ReadAllText($"/proc/{pid}/comm").Trim()} (process {pid})";
            }
            catch (IOException)
            {
                return $"process {pid}";
            }
        }
        return "another process";
    }
}
