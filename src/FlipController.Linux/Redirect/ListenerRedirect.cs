using System.Collections.Immutable;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Gate;
using FlipController.Linux.Kernel;
using FlipController.Linux.State;

namespace FlipController.Linux.Redirect;

/// <summary>
/// No rule and no translation: both generations listen on the front addresses, with SO_REUSEPORT as HAProxy does, and
/// <see cref="ReuseportProgram"/> names which of the two gets NEW connections. What is in the middle of being opened belongs to the listener
/// that got its SYN and is accepted there, so a change cuts nobody and needs nobody held.
/// <para>There are never more than two in a group, so that a closing one cannot make the program name another: one more begins to
/// listen only when the last but one has stopped. Where only one is, it gets everything.</para>
/// </summary>
/// <param name="runtime">Where the generations' notes are: whose process a number is.</param>
public sealed class ListenerRedirect(string runtime) : PairRedirect
{
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(10);

    private readonly Lock _turn = new(), _attaching = new();
    private readonly Dictionary<string, PairPorts> _pairs = [];
    private readonly Dictionary<string, Dictionary<int, ImmutableArray<ServicePort>>> _generations = [];
    private readonly Dictionary<string, Leading> _leading = [];

    /// <summary>How long the last but one may take to stop listening: whoever opens a connection to it has a minute for that (tcp(7), tcp_synack_retries).</summary>
    internal TimeSpan RoomBound { get; init; } = TimeSpan.FromSeconds(70);

    /// <summary>Who was named last; not known after a restart, when a connection tells it.</summary>
    internal sealed class Leading
    {
        public bool IsKnown { get; set; }

        public int? Active { get; set; }
    }

    public override string Method => "listener";

    public override string Place => "the groups of listeners on the front addresses";

    /// <summary>Whoever has a rule for the addresses comes before a listener.</summary>
    public override int Priority => int.MaxValue;

    /// <summary>Everything that a switch needs of the kernel, on a listener of our own on loopback that nobody is told of.</summary>
    /// <exception cref="FlipException">It does not work here.</exception>
    public static void Try()
    {
        using var own = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        own.SetRawSocketOption(1, 15, BitConverter.GetBytes(1)); // SOL_SOCKET, SO_REUSEPORT: include/uapi/asm-generic/socket.h
        own.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        own.Listen(1);
        var service = new Service(IPAddress.Loopback, ((IPEndPoint)own.LocalEndPoint!).Port);
        using BorrowedSocket socket = BorrowedSocket.Take(Environment.ProcessId, ProcessDescriptors.Inode(Environment.ProcessId, (int)own.Handle), service);
        if (ReuseportProgram.Attach(socket.Fd, 0) is > 0 and int errno) throw new KernelException("name a listener for NEW connections", errno);
    }

    public override void EnsureBase(IReadOnlyCollection<PairPorts> pairs, bool removeOthers = false)
    {
        lock (_turn)
            foreach (PairPorts pair in pairs) _pairs[pair.Name] = pair;
    }

    public override string Describe(string pair, int number, uint mark, uint mask, ImmutableArray<ServicePort> ports) => string.Concat(ports.Select(p =>
        $"# generation {number} of pair {pair} listens on {p.Service} beside the active one, with SO_REUSEPORT, and gets nothing yet\n"));

    public override string DescribeSwitch(string pair, int number) => string.Create(CultureInfo.InvariantCulture, $$"""
        # SO_ATTACH_REUSEPORT_CBPF on each of them: INDEX is generation {{number}}, 0 or 1 in the order in which they began to listen
        ld mark
        jeq #0x{{PassingSocket.Mark:x}}, other
        jeq #0x{{PassingSocket.MarkOf(0):x}}, first
        jeq #0x{{PassingSocket.MarkOf(1):x}}, second
        ret #INDEX

        """).ReplaceLineEndings("\n");

    public override async Task MakeRoomAsync(string pair, IReadOnlyCollection<Service> services, CancellationToken stop)
    {
        long began = TimeProvider.System.GetTimestamp();
        while (Standing(pair, services, TimeProvider.System.GetElapsedTime(began) > RoomBound)) await Task.Delay(s_pause, stop);
    }

    /// <summary>Somebody must stop listening before another one may begin. When nobody must, NEW connections stay where they go now, whoever begins.</summary>
    /// <exception cref="FlipException">It is not to be expected that they stop.</exception>
    private bool Standing(string pair, IReadOnlyCollection<Service> services, bool tooLong)
    {
        lock (_turn)
        {
            using var listeners = new FrontListeners();
            ImmutableArray<GenerationNote> ours = GenerationNote.Living(runtime, pair);
            Dictionary<int, ProcessDescriptors> held = ours.ToDictionary(n => n.Generation.Number, n => ProcessDescriptors.ReadFamily(n.Generation.Pid));
            int? active = _leading.GetValueOrDefault(pair)?.Active;
            bool standing = false;
            foreach (Service service in services)
            {
                IReadOnlyList<uint> members = listeners.On(service);
                foreach ((Service front, uint inode) in listeners.Across(service))
                {
                    int? owner = Owner(held, inode);
                    if (Stays(owner, inode) || owner == active || tooLong)
                        throw new FlipException($"{service} and {front}, on which {Called(owner, inode)} listens, share connections, and of two such the kernel chooses; "
                            + "a pair whose generations listen on the front addresses cannot change the form of one in a flip: use redirect.method nftables, or first flip to a configuration without it");
                    standing = true;
                }
                if (members.Count < 2) continue;
                if (tooLong || members.Any(m => Stays(Owner(held, m), m)))
                    throw new FlipException($"{string.Join(" and ", members.OrderBy(m => Owner(held, m) is null).Select(m => Called(Owner(held, m), m)))} listen on {service}, and a third would have to "
                        + $"wait for one of them to stop{(members.Any(m => Owner(held, m) is null) ? $"; an adopted HAProxy is told to by `flipctl adopt {pair} --stop`" : "")}");
                standing = true;
            }
            if (standing) return true;
            Seat(services);
            return false;
        }
    }

    public override void Settle(string pair, IReadOnlyCollection<Service> services)
    {
        lock (_turn) Seat(services, [.. GenerationNote.Living(runtime, pair).Select(n => ProcessDescriptors.ReadFamily(n.Generation.Pid))]);
    }

    /// <summary>
    /// Who is alone on an address is the first of its group, and is named as such: until then it got everything only because there was
    /// nobody else. One that is not ours, and beside whom nobody is going to listen, is left as it was without us.
    /// </summary>
    /// <param name="ours">Null: somebody is about to listen beside whoever is there.</param>
    private void Seat(IReadOnlyCollection<Service> services, ProcessDescriptors[]? ours = null)
    {
        foreach (Service service in services)
        {
            uint inode;
            using (var before = new FrontListeners())
            {
                if (before.On(service) is not [var sole]) continue;
                inode = sole;
            }
            int pid = Holder(inode) ?? throw new FlipException($"who listens on {service} cannot be seen");
            using BorrowedSocket socket = BorrowedSocket.Take(pid, inode, service);
            // A switch to one that has come meanwhile is not undone.
            lock (_attaching)
            {
                using var now = new FrontListeners();
                if (now.On(service) is not [var still] || still != inode) continue;
                int errno = ours is null || ours.Any(o => o.Holds(inode)) ? ReuseportProgram.Attach(socket.Fd, 0) : ReuseportProgram.Detach(socket.Fd);
                if (errno != 0 && ours is null)
                    throw new KernelException($"name process {pid} for NEW connections on {service}", errno,
                        errno == Errno.Invalid ? "it does not listen with SO_REUSEPORT, so nobody can listen beside it" : null);
            }
        }
    }

    public override void AddGeneration(string pair, int number, uint mark, uint mask, ImmutableArray<ServicePort> ports)
    {
        lock (_turn) GenerationsOf(pair)[number] = ports;
    }

    public override void RestoreGeneration(string pair, int number, uint mark, uint mask, ImmutableArray<ServicePort> ports) =>
        AddGeneration(pair, number, mark, mask, ports);

    public override void RemoveGeneration(string pair, int number)
    {
        lock (_turn) GenerationsOf(pair).Remove(number);
    }

    /// <summary>A generation that has stopped listening connects to the front addresses as anybody does, and meets the active one.</summary>
    public override void SetLoops(string pair, uint mark, uint mask, ImmutableArray<LoopRoute> routes) { }

    public override PreparedSwitch PrepareSwitch(string pair, int toNumber)
    {
        lock (_turn)
        {
            Generation to = GenerationNote.Living(runtime, pair).FirstOrDefault(n => n.Generation.Number == toNumber)?.Generation
                ?? throw new FlipException($"cannot switch pair {pair} to generation {toNumber}: it does not run");
            return new ListenerSwitch(pair, toNumber, ListenersOf(pair, to.Ports.Select(p => p.Service), to.Pid), LeadingOf(pair), _attaching);
        }
    }

    /// <summary>The listeners of one process, each with its place in its group.</summary>
    private static List<ListenerSwitch.Named> ListenersOf(string pair, IEnumerable<Service> services, int pid)
    {
        using var listeners = new FrontListeners();
        ProcessDescriptors held = ProcessDescriptors.ReadFamily(pid);
        List<ListenerSwitch.Named> named = [];
        try
        {
            foreach (Service service in services)
            {
                uint inode = listeners.Of(service, held)
                    ?? throw new FlipException($"cannot lead NEW connections of pair {pair} to process {pid}: it does not listen on {service}");
                IReadOnlyList<uint> members = listeners.On(service);
                named.Add(new ListenerSwitch.Named(service, BorrowedSocket.Take(pid, inode, service), members.Count switch
                {
                    1 => 0,
                    2 => Index(listeners, service, pid, inode, members),
                    _ => throw new FlipException($"cannot lead NEW connections of pair {pair} to process {pid}: {members.Count} listen on {service}, and only of two is it known which is which"),
                }, members.Count));
            }
            return named;
        }
        catch
        {
            foreach (ListenerSwitch.Named one in named) one.Dispose();
            throw;
        }
    }

    /// <summary>By a connection to each of the two; where that does not tell, by who is older.</summary>
    private static int Index(FrontListeners listeners, Service service, int pid, uint inode, IReadOnlyList<uint> members)
    {
        uint other = members.First(m => m != inode);
        int likely = Holder(other) is { } elder && ProcessIdentity.Read(elder) is { } its && ProcessIdentity.Read(pid) is { } own && its.StartTicks > own.StartTicks ? 0 : 1;
        foreach (int index in (int[])[likely, 1 - likely])
            if (listeners.Taker(service, PassingSocket.MarkOf(index)) is { } taker && ProcessDescriptors.ReadFamily(pid).Holds(taker)) return index;
        return likely;
    }

    /// <summary>To the one that listens beside the generations: a HAProxy that is given its service back.</summary>
    public override void Clear(string pair)
    {
        lock (_turn)
        {
            ImmutableArray<GenerationNote> ours = GenerationNote.Living(runtime, pair);
            ProcessDescriptors[] held = [.. ours.Select(n => ProcessDescriptors.ReadFamily(n.Generation.Pid))];
            using var listeners = new FrontListeners();
            List<(Service Service, int Pid)> theirs = [];
            foreach (Service service in ours.SelectMany(n => n.Generation.Ports).Select(p => p.Service).Distinct())
                foreach (uint inode in listeners.On(service).Where(i => !held.Any(h => h.Holds(i))))
                    if (Holder(inode) is { } pid) theirs.Add((service, pid));
            foreach (var process in theirs.GroupBy(t => t.Pid))
            {
                using var change = new ListenerSwitch(pair, 0, ListenersOf(pair, process.Select(t => t.Service).Distinct(), process.Key), new Leading(), _attaching);
                if (change.Commit() != 0) throw change.Failure();
            }
            Leading leading = LeadingOf(pair);
            (leading.Active, leading.IsKnown) = (null, true);
        }
    }

    /// <summary>What is attached ends with the last listener of its group.</summary>
    public override void RemovePair(string pair)
    {
        lock (_turn)
        {
            _pairs.Remove(pair);
            _generations.Remove(pair);
            _leading.Remove(pair);
        }
    }

    public override void Remove()
    {
        lock (_turn)
        {
            _pairs.Clear();
            _generations.Clear();
            _leading.Clear();
        }
    }

    public override RedirectState ReadAll()
    {
        lock (_turn)
            return new RedirectState(true, true, _pairs.Values.Select(p => KeyValuePair.Create(p.Name, new PairRules(
                p.Name, ActiveOf(p.Name), Reached: true, GenerationsOf(p.Name).ToImmutableSortedDictionary(), p.Blue, p.Green, []))).ToImmutableSortedDictionary());
    }

    private int? ActiveOf(string pair)
    {
        Leading leading = LeadingOf(pair);
        if (leading.IsKnown) return leading.Active;
        leading.Active = Observed(pair);
        leading.IsKnown = true;
        return leading.Active;
    }

    /// <summary>The generation that gets a connection on every front address that it has; null: there is none.</summary>
    private int? Observed(string pair)
    {
        ImmutableArray<GenerationNote> ours = GenerationNote.Living(runtime, pair);
        if (ours.IsEmpty) return null;
        using var listeners = new FrontListeners();
        HashSet<int?> takers = [];
        foreach (Service service in ours.SelectMany(n => n.Generation.Ports).Select(p => p.Service).Distinct())
        {
            IReadOnlyList<uint> members = listeners.On(service);
            if (members.Count == 0) continue;
            uint? taker = members.Count == 1 ? members[0] : listeners.Taker(service, 0);
            takers.Add(taker is { } inode
                ? ours.FirstOrDefault(n => ProcessDescriptors.ReadFamily(n.Generation.Pid).Holds(inode))?.Generation.Number
                : null);
        }
        return takers.Count == 1 ? takers.Single() : null;
    }

    public override void Dispose() { }

    private Dictionary<int, ImmutableArray<ServicePort>> GenerationsOf(string pair)
    {
        if (_generations.TryGetValue(pair, out var known)) return known;
        // Those of an earlier run of the daemon.
        return _generations[pair] = GenerationNote.Living(runtime, pair).ToDictionary(n => n.Generation.Number, n => n.Generation.Ports);
    }

    private Leading LeadingOf(string pair) => _leading.TryGetValue(pair, out Leading? leading) ? leading : _leading[pair] = new Leading();

    private static int? Owner(Dictionary<int, ProcessDescriptors> held, uint inode) => held.Where(h => h.Value.Holds(inode)).Select(h => (int?)h.Key).FirstOrDefault();

    /// <summary>Somebody who is not ours does not stop by himself; whom nobody sees any more has.</summary>
    private static bool Stays(int? owner, uint inode) => owner is null && Holder(inode) is not null;

    private static int? Holder(uint inode) => ProcessSockets.Holders(inode).Select(pid => (int?)pid).FirstOrDefault();

    private static string Called(int? generation, uint inode) => generation is { } number ? $"generation {number}"
        : Holder(inode) is { } pid ? $"process {pid}" : "a process that cannot be seen";
}

/// <summary>One program more on each of a process's listeners.</summary>
internal sealed class ListenerSwitch(string pair, int to, List<ListenerSwitch.Named> named, ListenerRedirect.Leading leading, Lock attaching) : PreparedSwitch(pair, to)
{
    /// <param name="Index">In its group, of <paramref name="Members"/>.</param>
    internal sealed record Named(Service Service, BorrowedSocket Socket, int Index, int Members) : IDisposable
    {
        public void Dispose() => Socket.Dispose();
    }

    private int _code, _failedAt;

    /// <summary>Nothing is tried: what could be refused was when the listeners were found.</summary>
    public override void Rehearse() { }

    public override int Commit()
    {
        lock (attaching) return Run();
    }

    private int Run()
    {
        long start = System.Diagnostics.Stopwatch.GetTimestamp();
        _code = 0;
        for (int i = 0; i < named.Count; i++)
        {
            _code = ReuseportProgram.Attach(named[i].Socket.Fd, named[i].Index);
            if (_code == 0) continue;
            _failedAt = i;
            // Back to the other one, which had them.
            while (--i >= 0)
                if (named[i].Members > 1) _ = ReuseportProgram.Attach(named[i].Socket.Fd, 1 - named[i].Index);
            break;
        }
        if (_code == 0) (leading.Active, leading.IsKnown) = (To, true);
        ElapsedTicks = System.Diagnostics.Stopwatch.GetTimestamp() - start;
        return _code;
    }

    public override FlipException Failure() => new KernelException(
        $"switch pair {Pair} to generation {To}", _code, $"at the listener on {named[_failedAt].Service}");

    public override void Dispose()
    {
        foreach (Named one in named) one.Dispose();
    }
}
