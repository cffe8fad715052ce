using System.Collections.Immutable;
using System.Diagnostics;
using System.Text.Json;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Redirect;

/// <summary>
/// The redirect by nftables. Everything it reads, it reads from the kernel; it remembers nothing. It acts in the network namespace
/// of the thread that opened it. Calls from several threads take turns; pairs that want no turns have one each.
/// </summary>
public sealed class NftRedirect : IDisposable
{
    private readonly Lock _turn = new();
    private readonly Lock _switchTurn = new(); // a flip does not wait while another thread reads a long listing
    private readonly NftLibrary _nft;
    private readonly NetlinkSocket _netlink;

    private NftRedirect(NftLibrary nft, NetlinkSocket netlink)
    {
        _nft = nft;
        _netlink = netlink;
    }

    /// <exception cref="FlipException">No libnftables, or no netfilter in this kernel.</exception>
    public static NftRedirect Open()
    {
        NftLibrary nft = NftLibrary.Open();
        try
        {
            return new NftRedirect(nft, new NetlinkSocket(NetlinkProtocol.Netfilter));
        }
        catch
        {
            nft.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        lock (_turn) _nft.Dispose();
        lock (_switchTurn) _netlink.Dispose();
    }

    /// <summary>
    /// The table, its hooks, a chain for each pair and the guard of its ports are there afterwards, in one transaction. What each pair's
    /// rule says and the generations stay as they are, and so does every pair not named, unless <paramref name="removeOthers"/>.
    /// Hooks are registered and, in a namespace, connections tracked from now on: not to be called while a queue holds packets, which
    /// loses them when a hook goes away.
    /// </summary>
    public void EnsureBase(IReadOnlyCollection<NftPair> pairs, bool removeOthers = false)
    {
        lock (_turn)
        {
            NftState state = Read();
            List<NftPair> wanted = [.. pairs];
            List<string> removed = [];
            foreach (NftPairState other in state.Pairs.Values.Where(p => pairs.All(pair => pair.Name != p.Pair)))
            {
                if (removeOthers)
                {
                    removed.Add(NftRuleset.PairChain(other.Pair));
                    removed.Add(NftRuleset.LoopsChain(other.Pair));
                    removed.AddRange(other.Generations.Keys.Select(number => NftRuleset.GenerationChain(other.Pair, number)));
                }
                else
                {
                    wanted.Add(new NftPair(other.Pair, other.Blue ?? default, other.Green ?? default));
                }
            }
            _nft.Run("make the redirect's table", NftRuleset.Base(wanted, removed));
        }
    }

    /// <summary>The commands that make a generation's chain, for a person to read.</summary>
    public static string Describe(string pair, int number, uint mark, uint mask, ImmutableArray<ServicePort> ports) =>
        NftRuleset.AddGeneration(pair, number, mark, mask, ports);

    /// <summary>The commands of a flip to it.</summary>
    public static string DescribeSwitch(string pair, int number) => NftRuleset.Switch(pair, number);

    /// <summary>Makes a generation's chain, to which nothing leads yet. Fails when it exists (EEXIST).</summary>
    public void AddGeneration(string pair, int number, uint mark, uint mask, ImmutableArray<ServicePort> ports)
    {
        lock (_turn)
            _nft.Run($"add the chain of generation {number} of pair {pair}", NftRuleset.AddGeneration(pair, number, mark, mask, ports));
    }

    /// <summary>Tolerates absence. Fails (EBUSY) while it is the active one.</summary>
    public void RemoveGeneration(string pair, int number) =>
        Tolerant($"remove the chain of generation {number} of pair {pair}", NftRuleset.RemoveGeneration(pair, number));

    /// <summary>
    /// Connections of this host to ports that retired generations have closed go where these say, from one instant to the next, and no
    /// others do.
    /// </summary>
    /// <param name="mark">The active generation's, or 0.</param>
    public void SetLoops(string pair, uint mark, uint mask, ImmutableArray<LoopRoute> routes)
    {
        lock (_turn) _nft.Run($"lead on the loops of pair {pair}", NftRuleset.Loops(pair, mark, mask, routes));
    }

    /// <summary>Everything about a flip that can be done before it.</summary>
    public PreparedSwitch PrepareSwitch(string pair, int toNumber) => new(this, pair, toNumber);

    /// <summary>Takes the pair's one rule away: NEW connections go to whoever listens on the front addresses. Tolerates absence.</summary>
    public void Clear(string pair) => Tolerant($"clear the redirect of pair {pair}", NftRuleset.Clear(pair));

    /// <summary>Nothing of ours is left in nftables. Tolerates absence.</summary>
    public void Remove()
    {
        lock (_turn) _nft.Run("remove the redirect's table", NftRuleset.Remove());
    }

    /// <summary>The generation NEW connections really go to; null when any step of the way to it is missing.</summary>
    public int? ReadActive(string pair) => ReadAll().Active(pair);

    /// <summary>The numbers of the generations that have a chain.</summary>
    public ImmutableSortedSet<int> Generations(string pair) =>
        ReadAll().Pairs.TryGetValue(pair, out NftPairState? state) ? [.. state.Generations.Keys] : [];

    public NftState ReadAll()
    {
        lock (_turn) return Read();
    }

    private NftState Read()
    {
        using JsonDocument? listing = _nft.Query("list the redirect's table", $"list table {NftRuleset.Table}");
        return listing is null ? NftState.Nothing : NftState.Parse(listing.RootElement);
    }

    private void Tolerant(string operation, string commands)
    {
        lock (_turn)
        {
            try
            {
                _nft.Run(operation, commands);
            }
            catch (KernelException e) when (e.Errno == Errno.NoEntry)
            {
                // No such table or chain: as asked for.
            }
        }
    }

    /// <summary>
    /// One flip, ready to run: the message lies there, and <see cref="Rehearse"/> has the kernel check it and every method on the way
    /// compiled. Good for any number of commits; belongs to the redirect that made it.
    /// </summary>
    public sealed class PreparedSwitch
    {
        private readonly NftRedirect _redirect;
        private readonly NftSwitchBatch _batch;
        private int _code;
        private bool _rehearsing;

        internal PreparedSwitch(NftRedirect redirect, string pair, int to)
        {
            _redirect = redirect;
            _batch = new NftSwitchBatch(NftRuleset.PairChain(pair), NftRuleset.GenerationChain(pair, to));
            Pair = pair;
            To = to;
        }

        public string Pair { get; }
        public int To { get; }

        /// <summary>How long the last run took, of <see cref="Stopwatch.Frequency"/>.</summary>
        public long ElapsedTicks { get; private set; }

        public TimeSpan Elapsed => Stopwatch.GetElapsedTime(0, ElapsedTicks);

        /// <summary>
        /// Has the kernel check the very transaction, and forget it: tens of milliseconds, for a time when nothing is held. Throws what a
        /// commit would run into.
        /// </summary>
        /// <exception cref="KernelException">The kernel would not take it.</exception>
        public void Rehearse()
        {
            _rehearsing = true;
            try
            {
                if (Commit() != 0) throw Failure();
            }
            finally
            {
                _rehearsing = false;
            }
        }

        /// <summary>The flip. 0, or an errno, and then NEW connections go where they went before. Allocates and logs nothing.</summary>
        public int Commit()
        {
            lock (_redirect._switchTurn)
            {
                long start = Stopwatch.GetTimestamp();
                _code = _batch.Run(_redirect._netlink.Fd, _rehearsing);
                ElapsedTicks = Stopwatch.GetTimestamp() - start;
                return _code;
            }
        }

        /// <summary>The last run's failure in words.</summary>
        public KernelException Failure()
        {
            string[] commands = NftRuleset.Switch(Pair, To).Split('\n');
            return new KernelException(
                $"switch pair {Pair} to generation {To}", _code, $"at \"{commands[_batch.FailedAtDelete ? 0 : 1]}\"");
        }
    }
}
