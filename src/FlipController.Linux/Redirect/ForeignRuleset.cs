using System.Collections.Immutable;
using System.Text.Json;
using FlipController.Core;

namespace FlipController.Linux.Redirect;

/// <summary>One rule of somebody else's.</summary>
/// <param name="Expressions">What it is made of: libnftables-json(5).</param>
internal sealed record ForeignRule(string Family, string Table, string Chain, long Handle, JsonElement Expressions)
{
    /// <summary>An extension of iptables in it, as far as this is named: a program without JSON for it has only null.</summary>
    internal IEnumerable<(string? Type, string? Name)> Extensions()
    {
        foreach (JsonElement expression in Expressions.EnumerateArray())
        {
            if (!expression.TryGetProperty("xt", out JsonElement xt)) continue;
            yield return xt.ValueKind == JsonValueKind.Object ? (xt.GetProperty("type").GetString(), xt.GetProperty("name").GetString()) : (null, null);
        }
    }
}

/// <param name="Hook">Where it is met from, at <paramref name="Priority"/>.</param>
/// <param name="Certain">All connections to the front address meet it; else some may.</param>
internal sealed record EarlierTranslation(ForeignRule Rule, Service Front, string Hook, int Priority, bool Certain);

/// <param name="Bits">Those it may change.</param>
/// <param name="Certain">False: what it sets is not known.</param>
internal sealed record MarkSetting(ForeignRule Rule, uint Bits, bool Certain);

/// <summary>
/// What others have in nftables, iptables-nft with it. Not the tables of iptables-legacy: their nat chains hook at -100
/// (NF_IP_PRI_NAT_DST, linux/netfilter_ipv4.h), after ours.
/// </summary>
internal sealed class ForeignRuleset
{
    private const int DeepestJump = 16; // NFT_JUMP_STACK_SIZE, net/netfilter/nf_tables.h

    private sealed record Chain(string Family, string Table, string Name, string? Type, string? Hook, int Priority)
    {
        internal List<ForeignRule> Rules { get; } = [];

        /// <summary>It leads to chains of ours.</summary>
        internal bool HasOurs { get; set; }
    }

    private readonly Dictionary<(string Family, string Table, string Name), Chain> _chains = [];
    private readonly Dictionary<(string Family, string Table, string Name), JsonElement> _maps = [];
    private readonly int _ours;

    /// <param name="root">What <c>nft -j -n list ruleset</c> prints; it must outlive this.</param>
    /// <param name="ours">The priority of the pair's nat hooks.</param>
    internal ForeignRuleset(JsonElement root, int ours = NftRuleset.Priority)
    {
        _ours = ours;
        foreach (JsonElement item in root.GetProperty("nftables").EnumerateArray())
        {
            JsonProperty only = item.EnumerateObject().First();
            JsonElement value = only.Value;
            if (only.Name is not ("chain" or "rule" or "map")) continue;
            string family = Text(value, "family"), table = Text(value, "table");
            if ($"{family} {table}" == NftRuleset.Table) continue;
            switch (only.Name)
            {
                case "chain":
                    string name = Text(value, "name");
                    if (IsOurs(name)) break;
                    _chains[(family, table, name)] = new Chain(family, table, name,
                        value.TryGetProperty("type", out JsonElement type) ? type.GetString() : null,
                        value.TryGetProperty("hook", out JsonElement hook) ? hook.GetString() : null,
                        value.TryGetProperty("prio", out JsonElement priority) && priority.TryGetInt32(out int number) ? number : 0);
                    break;
                case "map":
                    if (value.TryGetProperty("elem", out JsonElement elements)) _maps[(family, table, Text(value, "name"))] = elements;
                    break;
                default:
                    string of = Text(value, "chain");
                    if (_chains.TryGetValue((family, table, of), out Chain? chain) && value.TryGetProperty("expr", out JsonElement expressions))
                        chain.Rules.Add(new ForeignRule(family, table, of, value.GetProperty("handle").GetInt64(), expressions));
                    break;
            }
        }
    }

    /// <summary>Of the pairs that are redirected by iptables: what leads there is theirs from then on.</summary>
    private static bool IsOurs(string chain) => chain.StartsWith(IptablesRuleset.Ours, StringComparison.Ordinal);

    private static string Text(JsonElement item, string key) => item.GetProperty(key).GetString()!;

    /// <summary>
    /// The rules that translate NEW connections to a front address before ours could: NAT is decided once, by the first chain that does.
    /// Where the priority is ours, the order is that of registration, which nobody tells.
    /// </summary>
    internal IEnumerable<EarlierTranslation> Earlier(IReadOnlyCollection<Service> fronts)
    {
        foreach (Chain chain in _chains.Values.Where(c => c is { Type: "nat", Hook: "prerouting" or "output" } && c.Priority <= _ours))
        {
            foreach (Service front in fronts)
            {
                Dictionary<ForeignRule, Meeting> found = [];
                if (front.CoversIPv4 && chain.Family is "ip" or "inet") Walk(chain, new FrontPackets(front, v6: false), found);
                if (front.CoversIPv6 && chain.Family is "ip6" or "inet") Walk(chain, new FrontPackets(front, v6: true), found);
                foreach (var (rule, meets) in found)
                    yield return new EarlierTranslation(rule, front, chain.Hook!, chain.Priority, meets == Meeting.Always && (chain.Priority < _ours || chain.HasOurs));
            }
        }
    }

    private void Walk(Chain from, FrontPackets packets, Dictionary<ForeignRule, Meeting> found)
    {
        HashSet<(string, Meeting)> been = []; // a chain that many lead to is walked once for each answer
        Meeting left = Meeting.Always; // of those no rule before has taken out
        _ = Follow(from, Meeting.Always, 0);

        // True: no packet goes on from there.
        bool Follow(Chain chain, Meeting reach, int depth)
        {
            if (reach == Meeting.Never || depth > DeepestJump || !been.Add((chain.Name, reach))) return false;
            foreach (ForeignRule rule in chain.Rules)
            {
                Meeting meets = FrontPackets.Least(reach, left);
                foreach (JsonElement expression in rule.Expressions.EnumerateArray())
                {
                    if (meets == Meeting.Never) break;
                    JsonProperty statement = expression.EnumerateObject().First();
                    switch (statement.Name)
                    {
                        case "match":
                            meets = FrontPackets.Least(meets, packets.Meet(statement.Value));
                            continue;
                        case "dnat" or "redirect":
                            meets = FrontPackets.Least(meets, packets.MeetTranslation(statement.Value));
                            if (Found(rule, meets)) return true;
                            continue;
                        case "xt":
                            bool translates = Translates(statement.Value);
                            if (translates && Found(rule, meets)) return true;
                            if (!translates) meets = FrontPackets.Least(meets, Meeting.Maybe);
                            continue;
                        case "vmap":
                            if (Choose(chain, statement.Value, meets, depth)) return true;
                            continue;
                        case "counter" or "log" or "mangle":
                            continue;
                    }
                    if (Verdict(chain, statement, meets, depth) is { } ends)
                    {
                        if (ends) return true;
                        if (meets == Meeting.Always && statement.Name is "return" or "goto") return false;
                    }
                    else
                    {
                        meets = FrontPackets.Least(meets, Meeting.Maybe); // a limit, a quota, or what nobody knew yet
                    }
                }
            }
            return false;
        }

        bool Found(ForeignRule rule, Meeting meets)
        {
            if (meets != Meeting.Never) found[rule] = found.TryGetValue(rule, out Meeting before) && before > meets ? before : meets;
            return Gone(meets);
        }

        // True: all of them.
        bool Gone(Meeting meets)
        {
            if (meets == Meeting.Maybe) left = Meeting.Maybe;
            return meets == Meeting.Always;
        }

        // Null: it is no verdict.
        bool? Verdict(Chain chain, JsonProperty verdict, Meeting meets, int depth) => verdict.Name switch
        {
            "jump" or "goto" when IsOurs(Text(verdict.Value, "target")) => chain.HasOurs = true,
            "jump" or "goto" => _chains.TryGetValue((chain.Family, chain.Table, Text(verdict.Value, "target")), out Chain? target) && Follow(target, meets, depth + 1),
            "accept" or "drop" => Gone(meets),
            "return" => Gone(meets) && false, // of this chain alone, but it is not followed where they come back
            "continue" => false,
            _ => null,
        };

        bool Choose(Chain chain, JsonElement vmap, Meeting meets, int depth)
        {
            JsonElement data = vmap.GetProperty("data");
            bool named = data.ValueKind == JsonValueKind.String;
            JsonElement pairs;
            if (named ? !_maps.TryGetValue((chain.Family, chain.Table, data.GetString()![1..]), out pairs) : !data.TryGetProperty("set", out pairs)) return false;
            foreach (JsonElement pair in pairs.EnumerateArray())
            {
                Meeting key = named ? Meeting.Maybe : packets.MeetKey(vmap.GetProperty("key"), pair[0]);
                if (key != Meeting.Never && Verdict(chain, pair[1].EnumerateObject().First(), FrontPackets.Least(meets, key), depth) == true) return true;
            }
            return false;
        }
    }

    /// <summary>Extensions of iptables; one without a name may be one, which its text has to tell.</summary>
    private static bool Translates(JsonElement xt) => xt.ValueKind != JsonValueKind.Object
        || (Text(xt, "type") == "target" && Text(xt, "name") is "DNAT" or "REDIRECT" or "NETMAP");

    /// <summary>The rules that may change bits of the connection mark, wherever they are.</summary>
    internal IEnumerable<MarkSetting> Marking(uint mask)
    {
        foreach (ForeignRule rule in _chains.Values.SelectMany(c => c.Rules))
        {
            uint bits = 0;
            bool known = true;
            foreach (JsonElement expression in rule.Expressions.EnumerateArray())
            {
                if (expression.TryGetProperty("mangle", out JsonElement mangle) && IsConnectionMark(mangle.GetProperty("key"))) bits |= Changed(mangle.GetProperty("value"));
                if (!expression.TryGetProperty("xt", out JsonElement xt)) continue;
                if (xt.ValueKind == JsonValueKind.Object && (Text(xt, "type") != "target" || Text(xt, "name") != "CONNMARK")) continue;
                known = false; // which of its bits, only its own program can tell
                bits = uint.MaxValue;
            }
            if ((bits & mask) != 0) yield return new MarkSetting(rule, bits, known);
        }
    }

    private static bool IsConnectionMark(JsonElement key) =>
        key.ValueKind == JsonValueKind.Object && key.TryGetProperty("ct", out JsonElement ct) && Text(ct, "key") == "mark";

    /// <summary>The bits in which a value may differ from the mark that was there.</summary>
    private static uint Changed(JsonElement value)
    {
        if (value.ValueKind != JsonValueKind.Object) return uint.MaxValue;
        if (IsConnectionMark(value)) return 0;
        bool keeps = value.TryGetProperty("&", out JsonElement operands);
        if (!keeps && !value.TryGetProperty("|", out operands) && !value.TryGetProperty("^", out operands)) return uint.MaxValue;
        uint changed = Changed(operands[0]);
        foreach (JsonElement operand in operands.EnumerateArray().Skip(1))
            changed |= operand.ValueKind == JsonValueKind.Number && operand.TryGetUInt32(out uint bits) ? keeps ? ~bits : bits : uint.MaxValue;
        return changed;
    }
}
