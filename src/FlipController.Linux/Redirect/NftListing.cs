using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json;
using FlipController.Core;
using FlipController.Linux.Gate;

namespace FlipController.Linux.Redirect;

/// <summary>Reads what nftables lists of our table.</summary>
internal static class NftListing
{
    /// <summary>Reads <c>nft -j list table inet flipcontroller</c>, libnftables-json(5).</summary>
    /// <exception cref="FlipException">There is something in it that no version of ours has put there.</exception>
    internal static RedirectState Parse(JsonElement root)
    {
        try
        {
            return Read(root);
        }
        catch (Exception e) when (e is KeyNotFoundException or InvalidOperationException or FormatException or IndexOutOfRangeException or ArgumentException)
        {
            throw new FlipException($"cannot read table {NftRuleset.Table}: it is listed with something that is not ours ({e.Message.TrimEnd('.')}); "
                + $"nothing was changed, and it redirects as before; `nft list table {NftRuleset.Table}` shows it", e);
        }
    }

    private static RedirectState Read(JsonElement root)
    {
        HashSet<string> hooked = [];
        bool probesPass = false;
        List<string> jumped = []; // once for TCP, once for UDP
        Dictionary<string, int?> active = new(StringComparer.Ordinal);
        Dictionary<(string Pair, int Number), List<JsonElement>> generations = [];
        Dictionary<string, Dictionary<string, PortBlock>> guarded = new(StringComparer.Ordinal);
        Dictionary<string, ImmutableArray<LoopRoute>.Builder> loops = new(StringComparer.Ordinal);
        foreach (JsonElement item in root.GetProperty("nftables").EnumerateArray())
        {
            if (item.TryGetProperty("chain", out JsonElement chain)) Chain(chain.GetProperty("name").GetString()!);
            else if (item.TryGetProperty("rule", out JsonElement rule)) Rule(rule.GetProperty("chain").GetString()!, rule);
        }

        var pairs = ImmutableSortedDictionary.CreateBuilder<string, PairRules>(StringComparer.Ordinal);
        foreach (string name in active.Keys.Union(generations.Keys.Select(key => key.Pair)).Union(guarded.Keys).Union(loops.Keys))
        {
            Dictionary<string, PortBlock> ports = guarded.GetValueOrDefault(name) ?? [];
            pairs[name] = new PairRules(name, active.GetValueOrDefault(name), jumped.Count(j => j == name) >= 2,
                generations.Where(g => g.Key.Pair == name).ToImmutableSortedDictionary(g => g.Key.Number, g => Generation(g.Value)),
                ports.TryGetValue("blue", out PortBlock blue) ? blue : null,
                ports.TryGetValue("green", out PortBlock green) ? green : null,
                loops.TryGetValue(name, out var routes) ? routes.ToImmutable() : []);
        }
        return new RedirectState(hooked.IsSupersetOf(["prerouting", "output"]), probesPass, pairs.ToImmutable());

        void Chain(string name)
        {
            if (NftRuleset.PairOf(name) is { } pair) active.TryAdd(pair, null);
            else if (NftRuleset.GenerationOf(name) is { } generation) generations.TryAdd(generation, []);
            else if (NftRuleset.LoopsOf(name) is { } looping) loops.TryAdd(looping, ImmutableArray.CreateBuilder<LoopRoute>());
        }

        void Rule(string chain, JsonElement rule)
        {
            if (chain is "prerouting" or "output")
            {
                if (Target(rule, "jump") == NftRuleset.Services) hooked.Add(chain);
                // Before the jump, or it comes too late.
                else if (chain == "output" && !hooked.Contains(chain)) probesPass |= ReturnsMarked(rule);
            }
            else if (chain == NftRuleset.Services)
            {
                if (Target(rule, "jump") is { } target && NftRuleset.PairOf(target) is { } pair) jumped.Add(pair);
            }
            else if (chain == NftRuleset.Guard)
            {
                if (rule.TryGetProperty("comment", out JsonElement comment) && comment.GetString()!.Split(' ') is [var spelled, var slot]
                    && Ports(rule) is { } ports)
                {
                    string name = NftRuleset.Unspell(spelled);
                    if (!guarded.TryGetValue(name, out Dictionary<string, PortBlock>? slots)) guarded[name] = slots = [];
                    slots[slot] = ports;
                }
            }
            else if (NftRuleset.PairOf(chain) is { } name)
            {
                // The first rule decides, as it does for a packet.
                if (active.GetValueOrDefault(name) is null && Target(rule, "goto") is { } target)
                    active[name] = NftRuleset.GenerationOf(target)?.Number;
            }
            else if (NftRuleset.GenerationOf(chain) is { } generation && generations.TryGetValue(generation, out List<JsonElement>? rules))
            {
                rules.Add(rule);
            }
            else if (NftRuleset.LoopsOf(chain) is { } looping && loops.TryGetValue(looping, out var routes) && Route(rule) is { } route)
            {
                routes.Add(route);
            }
        }
    }

    private static string? Target(JsonElement rule, string verb)
    {
        foreach (JsonElement expression in rule.GetProperty("expr").EnumerateArray())
        {
            if (expression.TryGetProperty(verb, out JsonElement target)) return target.GetProperty("target").GetString();
        }
        return null;
    }

    private static bool ReturnsMarked(JsonElement rule)
    {
        bool marked = false;
        foreach (JsonElement expression in rule.GetProperty("expr").EnumerateArray())
        {
            if (expression.TryGetProperty("match", out JsonElement match) && match.GetProperty("right") is { ValueKind: JsonValueKind.Number } right)
                marked |= match.GetProperty("left").TryGetProperty("meta", out _) && right.GetInt64() == PassingSocket.Mark;
            if (expression.TryGetProperty("return", out _)) return marked;
        }
        return false;
    }

    private static PortBlock? Ports(JsonElement rule)
    {
        foreach (JsonElement expression in rule.GetProperty("expr").EnumerateArray())
        {
            if (!expression.TryGetProperty("match", out JsonElement match)
                || !match.GetProperty("left").TryGetProperty("payload", out _)) continue;
            JsonElement right = match.GetProperty("right");
            if (right.ValueKind == JsonValueKind.Number) return new PortBlock(right.GetInt32(), 1);
            if (right.ValueKind == JsonValueKind.Object && right.TryGetProperty("range", out JsonElement range))
                return new PortBlock(range[0].GetInt32(), range[1].GetInt32() - range[0].GetInt32() + 1);
        }
        return null;
    }

    /// <summary>Where each service goes: the service from the rule's comment, the port from its dnat.</summary>
    private static ImmutableArray<ServicePort> Generation(List<JsonElement> rules)
    {
        ImmutableArray<ServicePort>.Builder ports = ImmutableArray.CreateBuilder<ServicePort>();
        foreach (JsonElement rule in rules)
        {
            if (!rule.TryGetProperty("comment", out JsonElement comment)
                || !Service.TryParse(comment.GetString(), out Service? service)) continue;
            if (DnatPort(rule) is { } port) ports.Add(new ServicePort(service, port));
        }
        return ports.ToImmutable();
    }

    private static LoopRoute? Route(JsonElement rule) =>
        rule.TryGetProperty("comment", out JsonElement comment) && comment.GetString()!.Split(' ', 2) is [var number, var text]
        && int.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out int generation)
        && Service.TryParse(text, out Service? service) && Ports(rule) is { } closed && DnatPort(rule) is { } open
            ? new LoopRoute(generation, service, closed.First, open)
            : null;

    private static int? DnatPort(JsonElement rule)
    {
        foreach (JsonElement expression in rule.GetProperty("expr").EnumerateArray())
            if (expression.TryGetProperty("dnat", out JsonElement dnat) && dnat.ValueKind == JsonValueKind.Object
                && dnat.TryGetProperty("port", out JsonElement given) && given.ValueKind == JsonValueKind.Number && given.TryGetInt32(out int port)) return port;
        return null;
    }
}
