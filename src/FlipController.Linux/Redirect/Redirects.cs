using FlipController.Core;

namespace FlipController.Linux.Redirect;

/// <summary>The redirects of this host: each is opened when a pair wants it, and kept.</summary>
public sealed class Redirects : IDisposable
{
    private readonly Lock _turn = new();
    private readonly NftRedirect _nft;
    private readonly Dictionary<IptablesVariant, IptablesRedirect> _iptables = [];

    private readonly ListenerRedirect _listeners;

    /// <param name="runtime">Of the generations.</param>
    /// <exception cref="FlipException">No libnftables, or no netfilter in this kernel: holds and looks at others' rules need them, whatever redirects.</exception>
    public Redirects(string runtime)
    {
        _listeners = new ListenerRedirect(runtime);
        _nft = NftRedirect.Open();
    }

    public void Dispose()
    {
        foreach (IptablesRedirect iptables in _iptables.Values) iptables.Dispose();
        _nft.Dispose();
    }

    /// <exception cref="FlipException">It does not work here.</exception>
    public PairRedirect Of(RedirectOptions options)
    {
        if (options.Method == RedirectMethod.Nftables) return _nft;
        if (options.Method == RedirectMethod.Listener) return _listeners;
        lock (_turn)
        {
            IptablesVariant? wanted = options.Iptables switch
            {
                IptablesChoice.Nft => IptablesVariant.Nft,
                IptablesChoice.Legacy => IptablesVariant.Legacy,
                _ => null,
            };
            if (wanted is { } known && _iptables.TryGetValue(known, out IptablesRedirect? open)) return open;
            IptablesRedirect found = IptablesRedirect.Open(wanted);
            if (_iptables.TryGetValue(found.Variant, out open))
            {
                found.Dispose();
                return open;
            }
            return _iptables[found.Variant] = found;
        }
    }

    /// <summary>The variants of iptables that pairs have.</summary>
    public IReadOnlyCollection<IptablesVariant> Variants
    {
        get
        {
            lock (_turn) return [.. _iptables.Keys];
        }
    }

    /// <summary>Takes away what a pair has by other methods than its own: its rules there would be met first, or later mislead.</summary>
    /// <returns>Where something was.</returns>
    public IReadOnlyList<string> LeaveElsewhere(string pair, PairRedirect its)
    {
        List<string> left = [];
        foreach (PairRedirect other in Installed().Where(r => r.Method != its.Method))
        {
            try
            {
                if (!other.ReadAll().Pairs.ContainsKey(pair)) continue;
                other.RemovePair(pair);
                left.Add(other.Place);
            }
            catch (FlipException) when (other.Priority > its.Priority)
            {
                // Whatever its programs cannot list is met after the pair's own rules.
            }
            finally
            {
                Forget(other);
            }
        }
        return left;
    }

    /// <summary>Every method that works on this host and may have rules, for <see cref="Forget"/> afterwards.</summary>
    private IEnumerable<PairRedirect> Installed()
    {
        yield return _nft;
        foreach (IptablesVariant variant in Enum.GetValues<IptablesVariant>())
            if (OpenIfInstalled(variant) is { } iptables) yield return iptables;
    }

    private void Forget(PairRedirect other)
    {
        lock (_turn)
            if (other is IptablesRedirect iptables && !_iptables.ContainsValue(iptables)) iptables.Dispose();
    }

    private IptablesRedirect? OpenIfInstalled(IptablesVariant variant)
    {
        lock (_turn)
            if (_iptables.TryGetValue(variant, out IptablesRedirect? open)) return open;
        return OpenWhereRulesAre(variant);
    }

    /// <summary>Null: it is not installed, or has no rules; asking x_tables for its rules would load its modules.</summary>
    internal static IptablesRedirect? OpenWhereRulesAre(IptablesVariant variant)
    {
        try
        {
            return variant == IptablesVariant.Nft || HasLegacyNat() ? IptablesRedirect.Open(variant) : null;
        }
        catch (FlipException)
        {
            return null;
        }
    }

    /// <summary>Tables of x_tables are there for NAT, whoever has rules in them.</summary>
    internal static bool HasLegacyNat()
    {
        foreach (string names in (string[])["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"])
        {
            try
            {
                if (File.ReadLines(names).Contains("nat")) return true;
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                // No such module, hence no such table.
            }
        }
        return false;
    }
}
