using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;

namespace FlipController.Linux.Hold;

/// <summary>
/// Leads opening SYNs from where they come in to an ifb device, which gives them back to the same place once its plug lets them go:
/// before anything of netfilter's inet hooks has seen them, so that the redirect is looked up after the release.
/// <code>
///   eth0, lo --&gt; tc ingress --&gt; netdev ingress chains of others --&gt; ours (the last priority there is)
///                                                                    | fwd: SYN and not ACK, to one of the ports
///                                                                    v
///                                                     ifb flip-OWNER, root: plug 1:
///                                                                    |
///   conntrack, prerouting, ... &lt;------------------------------------'   skips the two ingress stages it has behind it
/// </code>
/// Why nft's fwd and not a tc filter with mirred: adding or removing a clsact or ingress qdisc takes the device's sending side away for
/// an RCU grace period (dev_deactivate() in net/sched/sch_generic.c; 3 to 30 ms measured under load, every packet lost), and a filter
/// of ours in a clsact would keep opening SYNs from everybody's filters behind it. This loses nothing, and others' qdiscs, clsact
/// and filters come before it and stay as they are.
/// </summary>
internal sealed class PlugIngress(NftLibrary nft)
{
    internal const string Table = "flipcontroller-plug";

    /// <summary>INT_MAX: everybody else's chain of the device has seen the packet before, and none is skipped by it.</summary>
    internal const int Priority = int.MaxValue;

    internal static string HoldChain(string owner) => $"hold-{owner}";

    private static string PortSet(string owner) => $"ports-{owner}";

    private static string DeviceChain(Link device, string owner) => string.Create(CultureInfo.InvariantCulture, $"device-{device.Index}-{owner}");

    /// <summary>
    /// From now on opening SYNs go through the ifb. Nothing of that owner is there before. Base chains come by themselves: of a transaction
    /// that fails the kernel takes them away again, and with them what waits in any queue.
    /// </summary>
    internal void Add(string owner, Link ifb, IReadOnlyCollection<Link> devices, ImmutableArray<int> ports)
    {
        foreach (string part in Parts(owner, ifb, devices, ports)) nft.Run($"lead opening SYNs to {ifb.Name}", part);
    }

    internal static string Text(string owner, Link ifb, IReadOnlyCollection<Link> devices, ImmutableArray<int> ports) =>
        string.Concat(Parts(owner, ifb, devices, ports));

    /// <summary>A transaction each: where they are led to, the base chains, who is led there.</summary>
    private static string[] Parts(string owner, Link ifb, IReadOnlyCollection<Link> devices, ImmutableArray<int> ports)
    {
        string set = PortSet(owner), hold = HoldChain(owner);
        List<string> target =
        [
            $"add table netdev {Table}",
            $"add set netdev {Table} {set} {{ type inet_service; }}",
            $"add element netdev {Table} {set} {{ {string.Join(", ", ports)} }}",
            $"add chain netdev {Table} {hold}",
            $"add rule netdev {Table} {hold} fwd to \"{ifb.Name}\"",
        ];
        List<string> chains = [], rules = [];
        foreach (Link device in devices)
        {
            string chain = DeviceChain(device, owner);
            chains.Add($"add chain netdev {Table} {chain} {{ type filter hook ingress device \"{device.Name}\" priority {Priority}; }}");
            // The type in the Ethernet header leaves tagged frames alone: they come again as the VLAN device's own.
            string family = device.HasEthernet && !device.IsLoopback ? "ether type" : "meta protocol";
            foreach (string protocol in (string[])["ip", "ip6"])
                rules.Add($"add rule netdev {Table} {chain} {family} {protocol} {NftRuleset.OpeningSyn} tcp dport @{set} goto {hold}");
        }
        return [Joined(target), Joined(chains), Joined(rules)];

        static string Joined(List<string> lines) => string.Join('\n', lines) + "\n";
    }

    /// <summary>
    /// Nobody of that owner's is led away any more. Its base chains stay, empty, until the last hold of the namespace goes: the kernel
    /// lets go of every packet in every queue when a hook is removed (nf_queue_nf_hook_drop in net/netfilter/nf_queue.c).
    /// Tolerates absence.
    /// </summary>
    internal void Remove(string owner)
    {
        for (int attempt = 1; ; attempt++)
        {
            List<string> lines = [];
            foreach ((string kind, string name, _) in Listed())
            {
                if (kind == "chain" && IsDeviceChainOf(name, owner)) lines.Add($"flush chain netdev {Table} {name}");
            }
            foreach ((string kind, string name, _) in Listed())
            {
                if ((kind, name) == ("chain", HoldChain(owner)) || (kind, name) == ("set", PortSet(owner))) lines.Add($"delete {kind} netdev {Table} {name}");
            }
            if (lines.Count == 0) return;
            try
            {
                nft.Run($"remove the hold of {owner} from nftables", string.Join('\n', lines) + "\n");
                return;
            }
            catch (KernelException e) when (e.Errno == Errno.NoEntry && attempt < 3)
            {
                // A device went away between the look and the change, and its chain with it.
            }
        }
    }

    /// <summary>Owners with a hold here, and their ports.</summary>
    internal IReadOnlyList<(string Owner, ImmutableArray<int> Ports)> Owners() =>
        [.. Listed().Where(o => o.Kind == "set" && o.Name.StartsWith("ports-", StringComparison.Ordinal)).Select(o => (o.Name["ports-".Length..], o.Ports))];

    /// <summary>Removes base chains: only when no queue of ours is in the namespace.</summary>
    internal static bool RemoveTable(NftLibrary nft, string family, string table)
    {
        using (JsonDocument? there = nft.Query($"list table {family} {table}", $"list table {family} {table}"))
            if (there is null) return false;
        nft.Run($"remove table {family} {table}", $"delete table {family} {table}\n");
        return true;
    }

    private static bool IsDeviceChainOf(string name, string owner) =>
        name.StartsWith("device-", StringComparison.Ordinal) && name.IndexOf('-', "device-".Length) is > 0 and int dash && name[(dash + 1)..] == owner;

    private List<(string Kind, string Name, ImmutableArray<int> Ports)> Listed()
    {
        using JsonDocument? listing = nft.Query($"list table netdev {Table}", $"list table netdev {Table}");
        if (listing is null) return [];
        List<(string, string, ImmutableArray<int>)> objects = [];
        foreach (JsonElement entry in listing.RootElement.GetProperty("nftables").EnumerateArray())
        {
            if (entry.TryGetProperty("chain", out JsonElement chain)) objects.Add(("chain", chain.GetProperty("name").GetString()!, []));
            if (entry.TryGetProperty("set", out JsonElement set))
                objects.Add(("set", set.GetProperty("name").GetString()!, set.TryGetProperty("elem", out JsonElement elements)
                    ? [.. elements.EnumerateArray().Where(e => e.ValueKind == JsonValueKind.Number).Select(e => e.GetInt32())] : []));
        }
        return objects;
    }

    /// <summary>
    /// The rule that leads away, taken out by bytes that lie ready: for when the ifb is gone, and what is sent to it is lost.
    /// What nft would send for <c>flush chain netdev flipcontroller-plug hold-OWNER</c>.
    /// </summary>
    internal static NftBatch Unhook(string owner)
    {
        NftBatch batch = new(512, NetfilterHeader.Netdev);
        batch.Add(NftBatch.DeleteRule, NetlinkFlags.None, (ref NetlinkMessage delete) =>
        {
            delete.PutText(1, Table); // NFTA_RULE_TABLE
            delete.PutText(2, HoldChain(owner)); // NFTA_RULE_CHAIN
        }, last: true);
        return batch;
    }
}
