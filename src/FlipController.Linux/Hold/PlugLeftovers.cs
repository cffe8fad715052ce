using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;

namespace FlipController.Linux.Hold;

/// <summary>What plug holds left in the kernel of the calling thread's namespace when their owners ended without a chance to clean up.</summary>
public static class PlugLeftovers
{
    /// <summary>
    /// Opens every plug of ours whose owner is gone, all of them first; then removes what led to them, and them. A line for each.
    /// Also for the daemon's start, ExecStopPost and reset.
    /// </summary>
    /// <param name="all">Whether or not their owners live.</param>
    /// <exception cref="Core.FlipException">No rights; what could be opened is open.</exception>
    public static IReadOnlyList<string> Remove(bool all = false)
    {
        using var route = new RouteNetlink();
        List<(Link Link, string Owner, HoldLock? Lock)> dead = [];
        List<string> told = [];
        try
        {
            foreach (Link link in route.Links())
            {
                if (PlugHold.OwnerOf(link) is not { } owner) continue;
                HoldLock? free = HoldLock.TryTake(HoldLock.PathOf(owner), exclusive: true);
                if (free is null && !all) continue;
                dead.Add((link, owner, free));
                Open(route, link);
            }
            using NftLibrary nft = NftLibrary.Open();
            if (LoopbackLanes.RemoveLeftover(route, nft, all)) told.Add("lanes on lo: opened and removed");
            foreach ((Link link, string owner, _) in dead)
            {
                Remove(route, nft, link, owner);
                told.Add($"device {link.Name}: the plug hold of {owner} was opened and removed");
            }
            // A device that somebody deleted by hand leaves the rules that lead to it, and what they lead there is lost.
            var ingress = new PlugIngress(nft);
            foreach ((string owner, _) in ingress.Owners())
            {
                using HoldLock? free = HoldLock.TryTake(HoldLock.PathOf(owner), exclusive: true);
                if (free is null && !all) continue;
                ingress.Remove(owner);
                told.Add($"table netdev {PlugIngress.Table}: the rules of {owner} were removed");
            }
            told.AddRange(RemoveTablesIfLast(nft));
        }
        finally
        {
            foreach ((_, _, HoldLock? held) in dead) held?.Dispose();
        }
        return told;
    }

    internal static void Remove(RouteNetlink route, NftLibrary nft, Link ifb, string owner)
    {
        Open(route, ifb);
        new PlugIngress(nft).Remove(owner); // before the device: what is led to a device that is gone is lost
        GracePeriod.Wait(); // who looked at the rule before is in the device now, and not on the way to it
        new PlugQdisc(route, ifb, TcHandle.Root, TcHandle.None).AwaitEmpty();
        try
        {
            route.DeleteLink(ifb);
        }
        catch (KernelException e) when (e.Errno == Errno.NoDevice)
        {
            // Somebody else did.
        }
    }

    /// <summary>
    /// Tables with base chains go when no hold of any kind and no queue is in the namespace: a hook that is removed drops what any queue holds.
    /// </summary>
    internal static IReadOnlyList<string> RemoveTablesIfLast(NftLibrary nft)
    {
        using HoldLock? alone = HoldLock.TryTake(HoldLock.PathOf(), exclusive: true);
        if (alone is null) return [];
        using NfQueueList queues = NfQueueList.Open();
        if (queues.Read().Count > 0) return []; // somebody else's, whose packets would be lost
        List<string> told = [];
        foreach ((string family, string table) in ((string, string)[])[("netdev", PlugIngress.Table), ("inet", LoopbackLanes.Table)])
            if (PlugIngress.RemoveTable(nft, family, table)) told.Add($"table {family} {table}: removed");
        return told;
    }

    /// <summary>Tolerates that it has no plug, or is gone.</summary>
    private static void Open(RouteNetlink route, Link ifb)
    {
        try
        {
            new PlugQdisc(route, ifb, TcHandle.Root, TcHandle.None).ReleaseIndefinite();
        }
        catch (KernelException e) when (e.Errno is Errno.NoEntry or Errno.NoDevice or Errno.Invalid)
        {
            // Not a plug: nobody waits in it.
        }
    }
}
