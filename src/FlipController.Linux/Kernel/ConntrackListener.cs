namespace FlipController.Linux.Kernel;

/// <summary>
/// Somebody who listens to conntrack's events and hears none. By default (net.netfilter.nf_conntrack_events = 2, since Linux 5.19) a
/// connection that begins while nobody listens never has an event: nf_ct_ecache_ext_add() in net/netfilter/nf_conntrack_ecache.c. With
/// this, connections that begin now can be followed later. It costs one message a connection, made when it is forgotten and thrown away
/// by a filter at once: of the three groups only that of the ends is joined.
/// </summary>
internal sealed class ConntrackListener : IDisposable
{
    private const uint Destroyed = 3; // NFNLGRP_CONNTRACK_DESTROY: include/uapi/linux/netfilter/nfnetlink.h
    private readonly NetlinkSocket _netlink = new(NetlinkProtocol.Netfilter);

    public ConntrackListener()
    {
        try
        {
            MarkFilter.Attach(_netlink.Fd, []);
            _netlink.Listen(Destroyed, "conntrack's");
        }
        catch
        {
            _netlink.Dispose();
            throw;
        }
    }

    public void Dispose() => _netlink.Dispose();
}
