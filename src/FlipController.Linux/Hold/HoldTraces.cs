using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Hold;

/// <summary>What holds leave in the kernel when their process is killed.</summary>
public static class HoldTraces
{
    /// <summary>
    /// Opens and removes every hold of the calling thread's network namespace whose process is gone, of whatever kind; those of living
    /// processes are left alone. Each line is one thing removed.
    /// </summary>
    /// <exception cref="FlipException">Something is still there.</exception>
    public static IReadOnlyList<string> Remove()
    {
        CheckRights();
        // The plugs first: no timer of the kernel's own ends those.
        IReadOnlyList<string> plugs = [];
        HoldLeftovers left;
        try
        {
            plugs = PlugLeftovers.Remove();
        }
        finally
        {
            left = HoldTable.RemoveAll();
        }
        List<string> told = [.. plugs, .. left.Owners.Select(o => $"hold of {o}: its process is gone, and new connections wait for nobody any more")];
        if (left is { WasThere: true, Kept: null, Owners.IsEmpty: true }) told.Add($"table inet {HoldTable.Name}: removed; it held nobody");
        return told;
    }

    /// <summary>Who has a hold in the calling thread's network namespace, of whatever kind, and whether its process lives.</summary>
    /// <exception cref="FlipException">No rights.</exception>
    public static IReadOnlyList<(string Owner, bool Lives)> Find()
    {
        CheckRights();
        using var route = new RouteNetlink();
        return [.. HoldTable.Owners().Concat(route.Links().Select(PlugHold.OwnerOf).OfType<string>()).Distinct().Select(owner =>
        {
            using HoldLock? free = HoldLock.TryTake(HoldLock.PathOf(owner), exclusive: true);
            return (owner, free is null);
        })];
    }

    /// <summary>libnftables would tell the standard error, too.</summary>
    private static void CheckRights()
    {
        using var netlink = new NetlinkSocket(NetlinkProtocol.Netfilter);
        try
        {
            NftBatch.CheckRights(netlink);
        }
        catch (KernelException e) when (e.Errno == Errno.Perm)
        {
            throw new FlipException($"{e.Message}; it takes CAP_NET_ADMIN: run it as root", e);
        }
    }
}
