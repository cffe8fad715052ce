using System.Collections.Concurrent;
using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;
using FlipController.Linux.State;

namespace FlipController.Daemon;

/// <summary>All pairs of one configuration, and the reload of it. Pairs share the process, the kernel handles and nothing else.</summary>
internal sealed class Fleet(
    Configuration configuration, string file, Redirects redirects, ForeignRules others, DeathWatch deaths, ConntrackLedger? ledger, SteadyTime time,
    TimeSpan clockSetBy, ILogger log) : IAsyncDisposable
{
    private readonly ConcurrentDictionary<string, Pair> _pairs = new(StringComparer.Ordinal);
    private readonly TaskCompletionSource<string> _broken = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly ConcurrentDictionary<string, DrainSessions> _sessions = new(StringComparer.Ordinal);
    private readonly SemaphoreSlim _oneReload = new(1);
    private readonly Lock _holdTurn = new();
    private readonly Dictionary<IptablesVariant, IptablesWatch> _watches = [];
    private FrontAddresses? _fronts;
    private Configuration _configuration = configuration;

    public NoticeBoard Notices { get; } = new();

    /// <summary>Whoever adds or removes a base chain has it: a hold that is open would let go what waits in its queue.</summary>
    public Lock HoldTurn => _holdTurn;

    /// <summary>Whether a changed file may flip a pair by itself; null: it may.</summary>
    public Func<PairOptions, PairState, FlipRestraint?> Restraint { get; init; } = (_, _) => null;

    public Configuration Configuration => _configuration;

    public IEnumerable<Pair> Pairs => _pairs.Values.OrderBy(p => p.Name, StringComparer.Ordinal);

    /// <summary>Completes with the reason when a pair's loop has ended by an error: only a restart helps then.</summary>
    public Task<string> Broken => _broken.Task;

    public Pair? Find(string name) => _pairs.GetValueOrDefault(name);

    /// <summary>Something about the table of all of them changed.</summary>
    public void RulesChanged()
    {
        foreach (Pair pair in _pairs.Values) pair.RulesChanged();
    }

    /// <summary>Something about rules of iptables may have changed.</summary>
    private void IptablesChanged()
    {
        foreach (Pair pair in _pairs.Values.Where(p => p.Options.Redirect.Method == RedirectMethod.Iptables)) pair.RulesChanged();
    }

    /// <summary>All of a method at once. Nothing is made when one of the methods does not work here.</summary>
    /// <exception cref="FlipException">Which, and why.</exception>
    private void EnsureBase(Configuration configuration)
    {
        foreach (var group in configuration.Pairs.Values.GroupBy(p => redirects.Of(p.Redirect)).ToArray())
            lock (_holdTurn) group.Key.EnsureBase([.. group.Select(p => PortsOf(configuration, p.Name))]);
        foreach (IptablesVariant variant in redirects.Variants)
            if (!_watches.ContainsKey(variant)) _watches[variant] = new IptablesWatch(variant, IptablesChanged);
    }

    public async Task StartAsync()
    {
        AtomicFile.EnsurePrivateDirectory(_configuration.State, mayBeLink: true);
        // A SIGHUP may come already: two owners of one pair would undo each other's work.
        await _oneReload.WaitAsync();
        try
        {
            EnsureBase(_configuration);
            foreach (PairOptions options in _configuration.Pairs.Values) await AddAsync(_configuration, options, clockSetBy);
        }
        finally
        {
            _oneReload.Release();
        }
    }

    /// <summary>Others may pass through to the control socket; what is private has directories of its own.</summary>
    public static void EnsureRuntime(string path)
    {
        const UnixFileMode mode = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute
            | UnixFileMode.GroupRead | UnixFileMode.GroupExecute | UnixFileMode.OtherRead | UnixFileMode.OtherExecute;
        Directory.CreateDirectory(path, mode);
    }

    private async Task AddAsync(Configuration configuration, PairOptions options, TimeSpan clockSetBy)
    {
        IReadOnlyDictionary<string, int> indexes = PairIndexes.Assign(
            configuration.State, [.. configuration.Pairs.Keys], () => Recovery.IndexesInUse(configuration),
            broken => log.LogError(new EventId(133, "Broken"), "{Broken}; the pairs get the numbers that their living connections bear", broken));
        if (OtherFronts(configuration, options) is { } refusal) throw new FlipException(refusal);
        PairPorts ports = PortsOf(configuration, options.Name);
        // Of one whose generations listen on the front addresses conntrack knows nothing: nothing marks its connections.
        var edge = new PairEdge(
            options, configuration.Runtime, ports.Blue, ports.Green, new ConnectionMark(options.Redirect.MarkMask, indexes[options.Name]),
            new PairStore(configuration.State, options.Name), redirects.Of(options.Redirect), redirects, deaths, Notices,
            _fronts ??= new FrontAddresses(() => _pairs.Values), time, log,
            new DrainLog(configuration.State, options.Name),
            _sessions.GetOrAdd(options.Name, _ => new DrainSessions()),
            options.Redirect.Method == RedirectMethod.Listener ? null : ledger, _holdTurn, others);
        var pair = new Pair(edge, clockSetBy, s => Restraint(options, s));
        await pair.StartAsync();
        _pairs[options.Name] = pair;
        _ = WatchOverAsync(pair);
    }

    /// <summary>Why a pair cannot be redirected as it is configured now; null: it can.</summary>
    private static string? OtherFronts(Configuration configuration, PairOptions options)
    {
        bool onFronts = options.Redirect.Method == RedirectMethod.Listener;
        Generation? other = GenerationNote.Living(configuration.Runtime, options.Name).Select(n => n.Generation)
            .FirstOrDefault(g => !g.Ports.IsEmpty && g.IsOnFronts != onFronts && PairEdge.Listens(g));
        return other is null ? null
            : $"pairs.{options.Name}.redirect.method {(onFronts ? "listener" : "other than listener")} needs generations that listen {(onFronts ? "on the front addresses" : "on private ports")}, and "
                + $"{other} listens {(onFronts ? "on private ports" : "on the front addresses")}; `flipctl release {options.Name}`, change the method, and `flipctl adopt {options.Name}`: that moves no connection either";
    }

    private async Task WatchOverAsync(Pair pair)
    {
        try
        {
            await pair.Work;
        }
        catch (OperationCanceledException)
        {
            // The pair was told to let go.
        }
        catch (Exception e)
        {
            log.LogCritical(e, "pair {Pair}: its loop ended by an error; traffic stays where it is", pair.Name);
            _broken.TrySetResult($"pair {pair.Name}: {e.Message}");
        }
    }

    private static PairPorts PortsOf(Configuration configuration, string pair)
    {
        PortBlocks blocks = PortBlocks.Of(configuration);
        return new PairPorts(pair, blocks.BlockOf(pair, Slot.Blue), blocks.BlockOf(pair, Slot.Green));
    }

    /// <summary>
    /// Reads the configuration file again. Any fault in it, and everything stays as it is. A pair whose options changed is let go
    /// and taken up again as after a restart; one that is gone is no longer managed, and its HAProxy and rules are left alone.
    /// </summary>
    /// <returns>What is wrong with the file; empty when it was taken.</returns>
    public async Task<IReadOnlyList<string>> ReloadAsync()
    {
        await _oneReload.WaitAsync();
        try
        {
            ConfigurationResult read = YamlFile.ReadConfiguration(file);
            List<string> faults = [.. read.Faults.Select(f => f.ToString())];
            if (read.Configuration is { } c && (c.State != _configuration.State || c.Runtime != _configuration.Runtime
                || c.Control != _configuration.Control || c.Metrics != _configuration.Metrics || c.Keepalived != _configuration.Keepalived
                || c.Peer != _configuration.Peer || c.Events != _configuration.Events || Text(c.Handover) != Text(_configuration.Handover)))
                faults.Add($"{file}: control, metrics, state, runtime, keepalived, peer, handover and events change only with a restart of the daemon");
            if (read.Configuration is { } changed) faults.AddRange(changed.Pairs.Values.Select(o => OtherFronts(changed, o)).OfType<string>());
            if (faults.Count > 0 || read.Configuration is not { } wanted)
            {
                foreach (string fault in faults)
                    log.LogError(new EventId(131, "ReloadRefused"), "reload refused, the running configuration stays: {Fault}", fault);
                return faults;
            }
            EnsureBase(wanted);
            foreach (Pair pair in _pairs.Values)
            {
                if (wanted.Pairs.TryGetValue(pair.Name, out PairOptions? options) && Same(options, pair.Options)
                    && pair.Ports == PortsOf(wanted, pair.Name)) continue;
                _pairs.TryRemove(pair.Name, out _);
                await pair.DisposeAsync();
                _fronts?.Release(pair.Name);
                if (options is null && _sessions.TryRemove(pair.Name, out DrainSessions? sessions)) await sessions.LetAllGoAsync();
                if (options is null)
                    log.LogWarning(new EventId(132, "PairLeft"),
                        "pair {Pair} is no longer configured: its HAProxy and rules stay as they are, unmanaged", pair.Name);
            }
            _configuration = wanted;
            List<string> left = [];
            foreach (PairOptions options in wanted.Pairs.Values.Where(o => !_pairs.ContainsKey(o.Name)))
            {
                try
                {
                    await AddAsync(wanted, options, TimeSpan.Zero); // what was saved a moment ago is of this clock
                }
                catch (Exception e) when (e is FlipException or IOException or UnauthorizedAccessException)
                {
                    // The others are let go already: each must be taken up, whatever becomes of this one.
                    left.Add($"pair {options.Name}: {e.Message}");
                }
            }
            RulesChanged(); // of a pair that is redirected by another method now, the old rules go
            if (left.Count > 0)
                throw new FlipException($"{file} was taken, but not every pair could be taken up: {string.Join("; ", left)}. "
                    + "Their HAProxy and rules stay as they are, unmanaged; mend the reason and reload again");
            log.LogInformation(new EventId(130, "Reloaded"), "{File} was read again: {Count} pairs", file, wanted.Pairs.Count);
            return [];
        }
        finally
        {
            _oneReload.Release();
        }
    }

    /// <summary>Records with arrays in them compare by reference; their text tells whether anything differs.</summary>
    private static bool Same(PairOptions one, PairOptions other) => Text(one) == Text(other);

    private static string Text(PairOptions o) => string.Join('\n', o with
    {
        Haproxy = o.Haproxy is null ? null : new HaproxyOptions { Binary = o.Haproxy.Binary, Driver = o.Haproxy.Driver, LocalPeer = o.Haproxy.LocalPeer },
        Command = o.Command is null ? null : new CommandOptions { Pidfile = o.Command.Pidfile, StopSignal = o.Command.StopSignal, Output = o.Command.Output },
        Gate = o.Gate with { Probes = [] },
        Drain = o.Drain with { Services = ImmutableSortedDictionary<string, TimeSpan>.Empty }, Hooks = new HooksOptions(),
        Hold = o.Hold with { Devices = [] },
    }, Text(o.Server), o.Command is { } command ? Text(command) : "", string.Join('\0', o.Hold.Devices), string.Join('\0', o.Gate.Probes),
        string.Join('\0', o.Drain.Services), string.Join('\0', o.Redirect.Udp),
        string.Join('\0', o.Hooks.Switched), string.Join('\0', o.Hooks.Drained), string.Join('\0', o.Hooks.Failed), string.Join('\0', o.Hooks.Notify));

    private static string Text(HandoverOptions? o) => o is null ? "" : $"{o with { Vips = [] }}{string.Join('\0', o.Vips)}";

    private static string Text(ServerOptions o) => string.Join('\n', o.Watch, o.Settle, string.Join('\0', o.Config), string.Join('\0', o.AlsoWatch),
        string.Join('\0', o.EnvironmentFiles), string.Join('\0', o.Environment));

    private static string Text(CommandOptions o) => string.Join('\n', string.Join('\0', o.Services),
        string.Join('\0', o.Check), string.Join('\0', o.Start), string.Join('\0', o.Stop), string.Join('\0', o.Reload));

    public async ValueTask DisposeAsync()
    {
        // Never given back: a reload that still waits comes too late.
        await _oneReload.WaitAsync();
        foreach (IptablesWatch watch in _watches.Values) watch.Dispose();
        foreach (Pair pair in _pairs.Values) await pair.DisposeAsync();
        foreach (DrainSessions sessions in _sessions.Values) await sessions.LetAllGoAsync();
    }
}
