using System.Collections.Immutable;
using System.Globalization;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Gate;

namespace FlipController.Linux.Redirect;

/// <summary>What iptables-save(8) printed of the tables nat and filter of one address family. What it cannot make sense of is somebody else's.</summary>
internal sealed class IptablesListing
{
    private static readonly string[] s_none = [];

    private readonly Dictionary<(string Table, string Chain), List<string[]>> _chains = [];
    private readonly List<(string Table, string Text)> _hooksToOurs = [];

    internal IptablesListing(string text)
    {
        string table = "";
        foreach (string line in text.Split('\n'))
        {
            if (line.StartsWith('*')) table = line[1..].Trim();
            else if (line.StartsWith(':')) _chains.TryAdd((table, line[1..].Split(' ')[0]), []);
            else if (line.StartsWith("-A ", StringComparison.Ordinal)) Rule(table, line["-A ".Length..]);
        }
    }

    private void Rule(string table, string text)
    {
        string[] words = [.. Words(text)];
        if (words.Length == 0) return;
        if (!_chains.TryGetValue((table, words[0]), out List<string[]>? rules)) _chains[(table, words[0])] = rules = [];
        rules.Add(words);
        if (!IsOurs(words[0]) && After(words, "-j") is { } target && IsOurs(target)) _hooksToOurs.Add((table, text));
    }

    private static bool IsOurs(string chain) => chain.StartsWith(IptablesRuleset.Ours, StringComparison.Ordinal);

    /// <summary>As xtables_save_string of libxtables writes them: with spaces in quotes, quotes and backslashes after a backslash.</summary>
    private static IEnumerable<string> Words(string text)
    {
        StringBuilder word = new();
        bool quoted = false, any = false;
        for (int i = 0; i < text.Length; i++)
        {
            char c = text[i];
            if (c == '\\' && quoted && i + 1 < text.Length)
            {
                word.Append(text[++i]);
            }
            else if (c == '"')
            {
                (quoted, any) = (!quoted, true);
            }
            else if (c == ' ' && !quoted)
            {
                if (any || word.Length > 0) yield return word.ToString();
                word.Clear();
                any = false;
            }
            else
            {
                word.Append(c);
            }
        }
        if (any || word.Length > 0) yield return word.ToString();
    }

    internal bool Has(string table, string chain) => _chains.ContainsKey((table, chain));

    internal IEnumerable<string> Chains(string table) => _chains.Keys.Where(c => c.Table == table).Select(c => c.Chain);

    /// <summary>The rules of others' chains that lead to ours, as they were printed.</summary>
    internal IEnumerable<string> HooksToOurs(string table) => _hooksToOurs.Where(h => h.Table == table).Select(h => h.Text);

    internal bool Leads(string table, string from, string to) => Rules(table, from).Any(r => After(r, "-j") == to);

    /// <summary>Nothing of ours is there.</summary>
    internal bool IsEmpty => !_chains.Keys.Any(c => IsOurs(c.Chain));

    private List<string[]> Rules(string table, string chain) => _chains.GetValueOrDefault((table, chain)) ?? [];

    /// <summary>Which generation the pair's one rule names.</summary>
    internal int? Active(string pair) => ActiveOf(IptablesRuleset.PairChain(pair));

    private int? ActiveOf(string pairChain) =>
        Rules(IptablesRuleset.Nat, pairChain).Select(r => After(r, "-g")).FirstOrDefault() is { } target ? NumberOf(target) : null;

    private static int? NumberOf(string chain) => chain.StartsWith(IptablesRuleset.GenerationPrefix, StringComparison.Ordinal)
        && int.TryParse(chain.AsSpan(chain.LastIndexOf('-') + 1), NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : null;

    /// <summary>What of ours is there, in every family: what only one has is not whole.</summary>
    internal static RedirectState State(IReadOnlyList<IptablesListing> families)
    {
        if (families.All(f => f.IsEmpty)) return RedirectState.Nothing;
        var pairs = ImmutableSortedDictionary.CreateBuilder<string, PairRules>(StringComparer.Ordinal);
        foreach (string name in families.SelectMany(f => f.Names()).Distinct())
        {
            int?[] active = [.. families.Select(f => f.Active(name)).Distinct()];
            string chain = IptablesRuleset.PairChain(name);
            pairs[name] = new PairRules(
                name, active is [{ } one] ? one : null,
                families.All(f => f.Rules(IptablesRuleset.Nat, IptablesRuleset.Services).Count(r => After(r, "-j") == chain) >= 2), // for TCP and UDP
                families.SelectMany(f => f.Numbers(name)).Distinct()
                    .ToImmutableSortedDictionary(n => n, n => Whole(families, (f => f.Ports(name, n)), (p => p.Service))),
                Same(families, f => f.Guarded(name, "blue")), Same(families, f => f.Guarded(name, "green")),
                Whole(families, f => f.Loops(name), r => r.Service));
        }
        return new RedirectState(families.All(f => f.IsHooked), families.All(f => f.ProbesPass), pairs.ToImmutable());
    }

    private static PortBlock? Same(IReadOnlyList<IptablesListing> families, Func<IptablesListing, PortBlock?> of) =>
        families.Select(of).Distinct().ToArray() is [var one] ? one : null;

    /// <summary>Those that stand in each family their service has connections of.</summary>
    private static ImmutableArray<T> Whole<T>(IReadOnlyList<IptablesListing> families, Func<IptablesListing, IEnumerable<T>> of, Func<T, Service> service) =>
    [
        .. families.SelectMany((f, i) => of(f).Select(item => (Item: item, V6: i == 1))).GroupBy(x => x.Item)
            .Where(g => g.Count() >= (families.Count == 1 ? 1 : (service(g.Key).CoversIPv4 ? 1 : 0) + (service(g.Key).CoversIPv6 ? 1 : 0)))
            .Select(g => g.Key),
    ];

    private bool IsHooked => Leads(IptablesRuleset.Nat, "PREROUTING", IptablesRuleset.Services)
        && Leads(IptablesRuleset.Nat, "OUTPUT", IptablesRuleset.Local) && Leads(IptablesRuleset.Nat, IptablesRuleset.Local, IptablesRuleset.Services);

    /// <summary>Before the services, or it comes too late.</summary>
    private bool ProbesPass => Rules(IptablesRuleset.Nat, IptablesRuleset.Local) is [var first, ..]
        && After(first, "--mark") == $"0x{PassingSocket.Mark:x}" && After(first, "-j") == "RETURN";

    private IEnumerable<string> Names() => _chains
        .Where(c => IsOurs(c.Key.Chain)).SelectMany(c => c.Value)
        .Select(r => After(r, "--comment")?.Split(' ', ',', ':')).Where(c => c is ["pair", var name, ..] && NftRuleset.IsSpelled(name))
        .Select(c => NftRuleset.Unspell(c![1])).Distinct();

    private IEnumerable<int> Numbers(string pair) => Chains(IptablesRuleset.Nat)
        .Select(c => NumberOf(c) is { } number && c == IptablesRuleset.GenerationChain(pair, number) ? number : (int?)null).OfType<int>();

    private IEnumerable<ServicePort> Ports(string pair, int number) =>
        from rule in Rules(IptablesRuleset.Nat, IptablesRuleset.GenerationChain(pair, number))
        where Destination(rule) is not null && ServiceOf(rule) is { } service && After(rule, "--comment") == IptablesRuleset.GenerationComment(pair, number, service)
        select new ServicePort(ServiceOf(rule)!, Destination(rule)!.Value);

    private IEnumerable<LoopRoute> Loops(string pair) =>
        from rule in Rules(IptablesRuleset.Nat, IptablesRuleset.LoopsChain(pair))
        let words = After(rule, "--comment")?.Split(' ') ?? s_none
        where words.Length > 5 && Destination(rule) is not null && ServiceOf(rule) is not null && Number(After(rule, "--dport")) is not null
        select new LoopRoute(Number(words[5].TrimEnd(':')) ?? 0, ServiceOf(rule)!, Number(After(rule, "--dport"))!.Value, Destination(rule)!.Value);

    private PortBlock? Guarded(string pair, string slot)
    {
        if (!Leads(IptablesRuleset.Filter, "INPUT", IptablesRuleset.Guard)) return null;
        string comment = $"pair {NftRuleset.Spell(pair)} {slot}";
        string?[] guarded = [.. Rules(IptablesRuleset.Filter, IptablesRuleset.Guard).Where(r => After(r, "--comment") == comment && After(r, "-j") == "REJECT").Select(r => After(r, "--dport"))];
        return guarded is [{ } tcp, { } udp] && tcp == udp && tcp.Split(':') is var ports
            && Number(ports[0]) is { } first && Number(ports[^1]) is { } last && last >= first ? new PortBlock(first, last - first + 1) : null;
    }

    /// <summary>Of a comment: what stands after the first colon.</summary>
    private static Service? ServiceOf(string[] rule) =>
        After(rule, "--comment") is { } comment && comment.IndexOf(": ", StringComparison.Ordinal) is > 0 and int colon
        && Service.TryParse(comment[(colon + 2)..], out Service? service) ? service : null;

    private static int? Destination(string[] rule) =>
        After(rule, "-j") == "DNAT" && After(rule, "--to-destination") is { } to ? Number(to.TrimStart(':')) : null;

    private static int? Number(string? text) => int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : null;

    private static string? After(string[] words, string option)
    {
        int at = Array.IndexOf(words, option);
        return at >= 0 && at + 1 < words.Length ? words[at + 1] : null;
    }
}
