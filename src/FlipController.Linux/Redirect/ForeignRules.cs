using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Redirect;

/// <summary>A rule of somebody else's that takes from a pair what is the pair's.</summary>
/// <param name="What">The rule, and what it does to the pair: a sentence without its end.</param>
public sealed record Interference(string What, string Remedy)
{
    public override string ToString() => $"{What}; {Remedy}";
}

/// <summary>
/// Looks at the rules of everybody else in nftables for what disturbs a pair: NEW connections translated before our rules are met, and
/// connection marks overwritten. It acts in the network namespace of the thread that opened it; calls take turns. It changes nothing.
/// </summary>
public sealed partial class ForeignRules : IDisposable
{
    private const int Named = 4; // of each kind; whoever has more of them has one reason for all
    private const int LongestText = 200;

    private readonly Lock _turn = new();
    private readonly NftLibrary _nft;
    private readonly Dictionary<(string Family, string Table), Dictionary<long, string>> _texts = []; // of the look under way
    private long _changes;

    private ForeignRules(NftLibrary nft) => _nft = nft;

    /// <exception cref="FlipException">No libnftables, or no netfilter in this kernel.</exception>
    public static ForeignRules Open() => new(NftLibrary.Open());

    public void Dispose()
    {
        lock (_turn) _nft.Dispose();
    }

    /// <summary>How often somebody else's rules have changed, as far as it was told.</summary>
    public long Changes => Interlocked.Read(ref _changes);

    /// <summary>Somebody else's rules have changed.</summary>
    public void Changed() => Interlocked.Increment(ref _changes);

    /// <summary>Lists everything: milliseconds, or more where there are thousands of rules.</summary>
    /// <param name="fronts">The pair's front addresses, of which those of UDP are not looked at; none: only the marks are looked at.</param>
    /// <param name="markMask">The bits of the connection mark that are ours.</param>
    /// <param name="ours">The priority of the pair's nat hooks, <see cref="PairRedirect.Priority"/>.</param>
    /// <exception cref="FlipException">They cannot be listed.</exception>
    public ImmutableArray<Interference> Look(IReadOnlyCollection<Service> fronts, uint markMask, int ours = NftRuleset.Priority)
    {
        lock (_turn)
        {
            _texts.Clear();
            try
            {
                using JsonDocument? listing = _nft.Query("list the rules of others", "list ruleset");
                if (listing is null) return [];
                ForeignRuleset rules = new(listing.RootElement, ours);
                return
                [
                    .. Shortened(rules.Earlier([.. fronts.Where(f => f.IsTcp)]).GroupBy(e => e.Rule).Select(met => Shadow(met, ours)).OfType<Interference>(), "rules of others before ours"),
                    .. Shortened(rules.Marking(markMask).Select(m => Mark(m, markMask)).OfType<Interference>(), "rules of others that set connection marks"),
                ];
            }
            // What a libnftables of another version may print: nobody's traffic depends on it.
            catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException or FormatException or IndexOutOfRangeException)
            {
                throw new FlipException($"cannot read what libnftables lists of the rules of others: {e.Message}", e);
            }
        }
    }

    private static IEnumerable<Interference> Shortened(IEnumerable<Interference> all, string kind)
    {
        int count = 0;
        string remedy = "";
        foreach (Interference one in all)
        {
            if (count++ < Named) yield return one;
            remedy = one.Remedy;
        }
        if (count > Named) yield return new Interference($"{count - Named} more {kind}", remedy);
    }

    private Interference? Shadow(IGrouping<ForeignRule, EarlierTranslation> met, int ours)
    {
        ForeignRule rule = met.Key;
        string text = TextOf(rule);
        // What is an extension without a name may be any, and a match as well.
        if (rule.Extensions().Any(x => x.Name is null) && !Translation().IsMatch(text)) return null;
        string hooks = string.Join(" and ", met.Select(e => string.Create(CultureInfo.InvariantCulture, $"{e.Hook} at priority {e.Priority}")).Distinct());
        string fronts = string.Join(", ", met.Select(e => e.Front.ToString()).Distinct());
        return new Interference(
            string.Create(CultureInfo.InvariantCulture, $"the rule {NameOf(rule)}, `{text}`, is met before ours (in {hooks}; ours are at {ours}) ")
            + $"and {(met.Any(e => e.Certain) ? "takes" : "may take")} NEW connections to {fronts}, which then do not reach the pair",
            string.Create(CultureInfo.InvariantCulture,
                $"except the front address in that rule, or give its base chain a priority above {ours}{(ours == NftRuleset.Priority ? " (dstnat is -100)" : ", or its rule a place after FLIP-SERVICES")}"));
    }

    private Interference? Mark(MarkSetting setting, uint mask)
    {
        string text = TextOf(setting.Rule);
        // What only reads it: `CONNMARK --restore-mark` sets the packet's mark.
        if (!setting.Certain && !ConnectionMark().IsMatch(text)) return null;
        return new Interference(
            $"the rule {NameOf(setting.Rule)}, `{text}`, {(setting.Certain ? $"sets the bits 0x{setting.Bits:x8}" : "may set any bit")} of connection marks, "
            + $"of which 0x{mask:x8} tell whose connections are on which side: they may be counted wrongly",
            "set redirect.mark_mask to bits that nobody else sets, or leave ours out in that rule");
    }

    private static string NameOf(ForeignRule rule) =>
        string.Create(CultureInfo.InvariantCulture, $"{rule.Family} {rule.Table} {rule.Chain} handle {rule.Handle}");

    /// <summary>As nft prints it. What libxtables has no extension for is not printed there, and is named here.</summary>
    private string TextOf(ForeignRule rule)
    {
        string text = TextsOf(rule.Family, rule.Table).GetValueOrDefault(rule.Handle, "");
        string extensions = string.Join(" ", rule.Extensions().Where(x => x.Type == "target").Select(x => $"xt target {x.Name}"));
        if (extensions.Length > 0 && !Translation().IsMatch(text) && !AnyMark().IsMatch(text)) text = $"{text} {extensions}".Trim();
        if (text.Length == 0) text = rule.Expressions.GetRawText();
        return text.Length > LongestText ? $"{text[..LongestText]}..." : text;
    }

    /// <summary>The rules of a table by handle, which is of one rule only.</summary>
    private Dictionary<long, string> TextsOf(string family, string table)
    {
        if (_texts.TryGetValue((family, table), out Dictionary<long, string>? texts)) return texts;
        _texts[(family, table)] = texts = [];
        if (!Identifier().IsMatch(table)) return texts; // it goes into a command
        try
        {
            foreach (string line in (_nft.List("list a table of others", $"list table {family} {table}") ?? "").Split('\n'))
                if (RuleLine().Match(line) is { Success: true } match) texts[long.Parse(match.Groups[2].ValueSpan, CultureInfo.InvariantCulture)] = match.Groups[1].Value;
        }
        catch (KernelException)
        {
            // Other programs may give a table a name that is a word of nft's language: then its JSON must do.
        }
        return texts;
    }

    /// <summary>Not of a chain or a set, where the brace opens what follows.</summary>
    [GeneratedRegex(@"^\s*(.*[^{\s])\s+# handle ([0-9]+)$")]
    private static partial Regex RuleLine();

    [GeneratedRegex("^[A-Za-z0-9_./-]+$")]
    private static partial Regex Identifier();

    [GeneratedRegex("dnat|redirect|DNAT|REDIRECT|NETMAP")]
    private static partial Regex Translation();

    [GeneratedRegex("ct mark set|CONNMARK")]
    private static partial Regex ConnectionMark();

    [GeneratedRegex("mark set|CONNMARK")]
    private static partial Regex AnyMark();
}
