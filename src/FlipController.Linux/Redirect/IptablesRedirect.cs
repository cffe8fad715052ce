using System.Collections.Immutable;
using System.Diagnostics;
using System.Net;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Redirect;

/// <summary>
/// The redirect by iptables, of one of its variants, and by ip6tables where the host has IPv6. A text is one commit for each table and
/// family. A flip is one transaction with nf_tables; with x_tables it is one commit for each family, which are not one: a hold covers
/// both. It acts in the network namespace of the calling thread, which must be the one that opened it.
/// </summary>
public sealed class IptablesRedirect : PairRedirect
{
    /// <summary>How long a program may wait for others that hold the lock of x_tables.</summary>
    private const string LockSeconds = "5";

    private readonly Lock _turn = new();
    private readonly IptablesPrograms _programs;
    private readonly Lock _switchTurn = new(); // a flip does not wait while another thread reads a long listing
    private readonly NetlinkSocket? _netlink; // of nf_tables alone, for flips
    private readonly NetlinkSocket? _looks; // and there a look costs nothing as long as nothing has changed
    private (uint Generation, RedirectState State)? _seen;

    private IptablesRedirect(IptablesPrograms programs)
    {
        _programs = programs;
        if (programs.Variant != IptablesVariant.Nft) return;
        _netlink = new NetlinkSocket(NetlinkProtocol.Netfilter);
        _looks = new NetlinkSocket(NetlinkProtocol.Netfilter);
    }

    /// <param name="variant">Null: the one that the program `iptables` of this host is.</param>
    /// <exception cref="FlipException">There is no iptables, or not this variant.</exception>
    public static IptablesRedirect Open(IptablesVariant? variant = null) => new(IptablesPrograms.Find(variant));

    public IptablesVariant Variant => _programs.Variant;

    public override string Method => $"iptables ({(Variant == IptablesVariant.Nft ? "nft" : "legacy")})";

    public override string Place => $"the chains FLIP-* of {Method}";

    public override int Priority => IptablesRuleset.Priority;

    public override void Dispose()
    {
        lock (_turn) _looks?.Dispose();
        lock (_switchTurn) _netlink?.Dispose();
    }

    /// <summary>Has its programs and the kernel judge the rules of a redirect; none of them stays.</summary>
    /// <exception cref="FlipException">What they said.</exception>
    internal void Try()
    {
        const string pair = "doctor";
        var ports = new PairPorts(pair, new PortBlock(21000, 1000), new PortBlock(22000, 1000));
        foreach (IptablesFamily family in _programs.Families)
        {
            using IptablesRun run = IptablesRun.Start([.. Restore(family), "--test"]);
            run.Write(Encoding.UTF8.GetBytes(IptablesRuleset.Base(List(family), [ports], [])));
            run.Write(Encoding.UTF8.GetBytes(IptablesRuleset.AddGeneration(
                pair, 1, 0x00000100, 0x00ffff00, [new ServicePort(new Service(IPAddress.IPv6Any, 65000), ports.Blue.First)], family.IsV6)));
            if (run.End() != 0) throw Refused($"have the redirect's rules checked ({family})", run);
        }
    }

    public override void EnsureBase(IReadOnlyCollection<PairPorts> pairs, bool removeOthers = false)
    {
        lock (_turn)
        {
            (IptablesFamily Family, IptablesListing There)[] all = ListAll();
            List<PairPorts> wanted = [.. pairs];
            List<string> removed = [];
            foreach (PairRules other in IptablesListing.State([.. all.Select(f => f.There)]).Pairs.Values.Where(p => pairs.All(pair => pair.Name != p.Pair)))
            {
                if (removeOthers) removed.AddRange(Chains(other.Pair, other.Generations.Keys));
                else wanted.Add(other.Ports);
            }
            if (wanted.Count == 0 && removed.Count == 0) return;
            foreach ((IptablesFamily family, IptablesListing there) in all)
                Apply("make the redirect's chains", family, IptablesRuleset.Base(there, wanted, removed));
            foreach (PairPorts pair in wanted) Align(pair.Name, all);
        }
    }

    /// <summary>Who was killed between the commits of two families left them apart: both get what the first one that leads anywhere has.</summary>
    private static void Align(string pair, (IptablesFamily Family, IptablesListing There)[] all)
    {
        if (all.Select(f => f.There.Active(pair)).Distinct().Count() == 1) return;
        int active = all.Select(f => f.There.Active(pair)).OfType<int>().First();
        // A family that has lost the generation's chain, too, is led there once that has been restored.
        Lead(pair, active, all.Where(f => f.There.Active(pair) != active && f.There.Has(IptablesRuleset.Nat, IptablesRuleset.GenerationChain(pair, active)))
            .Select(f => f.Family));
    }

    /// <param name="number">Null: nowhere.</param>
    private static void Lead(string pair, int? number, IEnumerable<IptablesFamily> families)
    {
        string text = number is { } to ? IptablesRuleset.SwitchUncommitted(pair, to) + IptablesRuleset.Commit : IptablesRuleset.Clear(pair);
        foreach (IptablesFamily family in families) Apply($"lead both families of pair {pair} to one generation", family, text);
    }

    private (IptablesFamily Family, IptablesListing There)[] ListAll() => [.. _programs.Families.Select(f => (f, List(f)))];

    private static IEnumerable<string> Chains(string pair, IEnumerable<int> generations) =>
        [IptablesRuleset.PairChain(pair), IptablesRuleset.LoopsChain(pair), .. generations.Select(n => IptablesRuleset.GenerationChain(pair, n))];

    /// <summary>For both families, where they differ one after the other.</summary>
    private string ForPeople(Func<bool, string> text)
    {
        string four = text(false), six = text(true);
        if (_programs.V6 is null) return four;
        return four == six ? $"# IPv4 and IPv6\n{four}" : $"# IPv4\n{four}# IPv6\n{six}";
    }

    public override string Describe(string pair, int number, uint mark, uint mask, ImmutableArray<ServicePort> ports) =>
        ForPeople(v6 => IptablesRuleset.AddGeneration(pair, number, mark, mask, ports, v6));

    public override string DescribeSwitch(string pair, int number) =>
        ForPeople(_ => IptablesRuleset.SwitchUncommitted(pair, number) + IptablesRuleset.Commit);

    public override void AddGeneration(string pair, int number, uint mark, uint mask, ImmutableArray<ServicePort> ports)
    {
        string operation = $"add the chain of generation {number} of pair {pair}", chain = IptablesRuleset.GenerationChain(pair, number);
        lock (_turn)
        {
            foreach (IptablesFamily family in _programs.Families)
                if (List(family).Has(IptablesRuleset.Nat, chain)) throw new KernelException(operation, Errno.Exists, $"{chain}, {family}");
            foreach (IptablesFamily family in _programs.Families)
                Apply(operation, family, IptablesRuleset.AddGeneration(pair, number, mark, mask, ports, family.IsV6));
        }
    }

    /// <remarks>A chain is emptied and filled in one commit, whoever leads there.</remarks>
    public override void RestoreGeneration(string pair, int number, uint mark, uint mask, ImmutableArray<ServicePort> ports)
    {
        lock (_turn)
        {
            foreach (IptablesFamily family in _programs.Families)
                Apply($"restore the chain of generation {number} of pair {pair}", family, IptablesRuleset.AddGeneration(pair, number, mark, mask, ports, family.IsV6));
        }
    }

    public override void RemoveGeneration(string pair, int number)
    {
        string operation = $"remove the chain of generation {number} of pair {pair}", chain = IptablesRuleset.GenerationChain(pair, number);
        lock (_turn)
        {
            (IptablesFamily Family, IptablesListing There)[] all = ListAll();
            if (all.Any(f => f.There.Active(pair) == number)) throw new KernelException(operation, Errno.Busy, $"{chain} is the active one");
            foreach ((IptablesFamily family, IptablesListing there) in all)
                if (there.Has(IptablesRuleset.Nat, chain)) Apply(operation, family, IptablesRuleset.RemoveChains([chain]));
        }
    }

    public override void SetLoops(string pair, uint mark, uint mask, ImmutableArray<LoopRoute> routes)
    {
        lock (_turn)
        {
            foreach (IptablesFamily family in _programs.Families)
                Apply($"lead on the loops of pair {pair}", family, IptablesRuleset.Loops(pair, mark, mask, routes, family.IsV6));
        }
    }

    /// <remarks>
    /// With nf_tables the rules of both families are changed in one transaction, as the bytes a restore would send: a restore reads every
    /// rule again when others have committed since it began, as the hold does, and that took it 15 ms a family.
    /// </remarks>
    public override PreparedSwitch PrepareSwitch(string pair, int toNumber)
    {
        if (_netlink is null) return new Restores(this, pair, toNumber);
        string chain = IptablesRuleset.PairChain(pair), to = IptablesRuleset.GenerationChain(pair, toNumber);
        PairChain[] chains =
            [.. _programs.Families.Select(f => new PairChain(f.IsV6 ? NetfilterHeader.IPv6 : NetfilterHeader.IPv4, IptablesRuleset.Nat, chain, IsCounted: true))];
        return new BatchSwitch(pair, toNumber, new NftSwitchBatch(chains, to), _netlink, _switchTurn,
            batch => $"{(batch.FailedIn == 0 ? "IPv4" : "IPv6")}: {(batch.FailedAtDelete ? chain : to)}");
    }

    public override void Clear(string pair)
    {
        lock (_turn)
        {
            foreach (IptablesFamily family in _programs.Families)
                if (List(family).Has(IptablesRuleset.Nat, IptablesRuleset.PairChain(pair)))
                    Apply($"clear the redirect of pair {pair}", family, IptablesRuleset.Clear(pair));
        }
    }

    public override void RemovePair(string pair)
    {
        lock (_turn)
        {
            RedirectState state = Read();
            if (!state.Pairs.TryGetValue(pair, out PairRules? there)) return;
            PairPorts[] others = [.. state.Pairs.Values.Where(p => p.Pair != pair).Select(p => p.Ports)];
            foreach (IptablesFamily family in _programs.Families)
                Apply($"remove the rules of pair {pair}", family, others.Length == 0
                    ? IptablesRuleset.Remove(List(family))
                    : IptablesRuleset.Base(List(family), others, [.. Chains(pair, there.Generations.Keys)]));
        }
    }

    public override void Remove()
    {
        lock (_turn)
        {
            foreach (IptablesFamily family in _programs.Families)
                if (IptablesRuleset.Remove(List(family)) is { Length: > 0 } text) Apply("remove the redirect's chains", family, text);
        }
    }

    public override RedirectState ReadAll()
    {
        lock (_turn) return Read();
    }

    private RedirectState Read()
    {
        uint? generation = _looks is null ? null : NftBatch.GenerationOf(_looks);
        if (generation is not null && _seen is { } seen && seen.Generation == generation) return seen.State;
        RedirectState state = IptablesListing.State([.. ListAll().Select(f => f.There)]);
        _seen = generation is { } number ? (number, state) : null; // what came since is looked at next time
        return state;
    }

    private static IptablesListing List(IptablesFamily family) =>
        new(string.Concat(((string[])[IptablesRuleset.Nat, IptablesRuleset.Filter]).Select(table =>
        {
            using IptablesRun run = IptablesRun.Start([family.Save, "-t", table]);
            return run.End() == 0 ? run.Output : throw Refused($"list table {table} of {family}", run);
        })));

    private static void Apply(string operation, IptablesFamily family, string text)
    {
        using IptablesRun run = IptablesRun.Start(Restore(family));
        run.Write(Encoding.UTF8.GetBytes(text));
        if (run.End() != 0) throw Refused($"{operation} ({family})", run);
    }

    private static string[] Restore(IptablesFamily family) => [family.Restore, "--noflush", "-w", LockSeconds];

    private static FlipException Refused(string operation, IptablesRun run) =>
        new($"cannot {operation}: {run.CommandLine} said: {(run.Error is { Length: > 0 } said ? string.Join("; ", said.Split('\n', StringSplitOptions.RemoveEmptyEntries)) : "nothing")}");

    /// <summary>
    /// With x_tables a restore for each family, started and fed all but its last word. The first one has the lock by then, and nobody
    /// else may change anything; the second needs none of its own, and goes first.
    /// </summary>
    private sealed class Restores(IptablesRedirect redirect, string pair, int to) : PreparedSwitch(pair, to)
    {
        private static readonly byte[] s_commit = Encoding.ASCII.GetBytes(IptablesRuleset.Commit);
        private static readonly TimeSpan s_longestFeeding = TimeSpan.FromSeconds(6);

        private readonly IptablesFamily[] _families = [.. redirect._programs.Families];
        private readonly byte[] _text = Encoding.UTF8.GetBytes(IptablesRuleset.SwitchUncommitted(pair, to));
        private IptablesRun[] _ready = [];
        private FlipException? _failure;
        private IptablesFamily[] _switched = []; // when others could not be
        private bool _committed; // who is there has ended

        private string Operation => $"switch pair {Pair} to generation {To}";

        public override void Rehearse()
        {
            foreach (IptablesFamily family in _families)
            {
                // Of a chain that is not there only the kernel would know, at the commit.
                string chain = IptablesRuleset.GenerationChain(Pair, To);
                if (!List(family).Has(IptablesRuleset.Nat, chain)) throw new KernelException($"{Operation} ({family})", Errno.NoEntry, chain);
                using IptablesRun run = IptablesRun.Start([.. Restore(family), "--test"]);
                run.Write(_text);
                run.Write(s_commit);
                if (run.End() != 0) throw Refused($"{Operation} ({family})", run);
            }
        }

        public override void MakeReady()
        {
            Dispose();
            List<IptablesRun> ready = [];
            try
            {
                foreach (IptablesFamily family in _families)
                {
                    IptablesRun run = IptablesRun.Start(ready.Count > 0 ? ["env", "XTABLES_LOCKFILE=/dev/null", .. Restore(family)] : Restore(family));
                    ready.Add(run);
                    run.Write(_text);
                    if (run.UntilItWaits(s_longestFeeding)) continue;
                    run.End();
                    throw Refused($"{Operation} ({family})", run);
                }
                _ready = [.. ready];
                _committed = false;
            }
            catch
            {
                foreach (IptablesRun run in ready) run.Dispose();
                throw;
            }
        }

        public override int Commit()
        {
            try
            {
                if (_committed || _ready.Length == 0) MakeReady();
            }
            catch (FlipException e)
            {
                _failure = e;
                return Errno.Invalid;
            }
            long start = Stopwatch.GetTimestamp();
            _committed = true;
            int failed = -1;
            for (int i = _ready.Length - 1; i >= 0 && failed < 0; i--)
            {
                _ready[i].Write(s_commit);
                if (_ready[i].End() != 0) failed = i;
            }
            ElapsedTicks = Stopwatch.GetTimestamp() - start;
            if (failed < 0) return 0;
            _failure = Refused($"{Operation} ({_families[failed]})", _ready[failed]);
            _switched = _families[(failed + 1)..];
            Dispose(); // and with them the lock
            return Errno.Invalid;
        }

        /// <remarks>Where one family was not switched those that were go back now, after the window, so that both lead to the same generation.</remarks>
        public override FlipException Failure()
        {
            FlipException failure = _failure ?? new FlipException($"cannot {Operation}");
            IptablesFamily[] switched = _switched;
            _switched = [];
            try
            {
                if (switched.Length > 0) Lead(Pair, List(_families.First(f => !switched.Contains(f))).Active(Pair), switched);
                return failure;
            }
            catch (FlipException e)
            {
                return new FlipException($"{failure.Message}; and {e.Message}: the families lead to different generations until the rules are repaired", e);
            }
        }

        public override void Dispose()
        {
            foreach (IptablesRun run in _ready) run.Dispose();
            _ready = [];
        }
    }
}
