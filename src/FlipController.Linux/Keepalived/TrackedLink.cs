using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Keepalived;

/// <summary>The device that a track_interface of keepalived's configuration names. An administrator makes it; it is only set up and down.</summary>
public static class TrackedLink
{
    /// <summary>Null: there is no such device.</summary>
    public static bool? IsUp(string name)
    {
        using var netlink = new RouteNetlink();
        return Find(netlink, name)?.IsUp;
    }

    /// <summary>Equivalent to: <c>ip link set NAME up|down</c>; nothing is sent when it is so already.</summary>
    /// <exception cref="FlipException">It could not be done; it is as it was.</exception>
    public static void Set(string name, bool up)
    {
        using var netlink = new RouteNetlink();
        Link link = Find(netlink, name) ?? throw new FlipException(
            $"cannot set keepalived.link {name} {(up ? "up" : "down")}: there is no such device; make it (`ip link add {name} type dummy`), before keepalived starts");
        if (link.IsUp == up) return;
        if (up) netlink.SetUp(link);
        else netlink.SetDown(link);
    }

    private static Link? Find(RouteNetlink netlink, string name) => netlink.Links().FirstOrDefault(l => l.Name == name);
}
