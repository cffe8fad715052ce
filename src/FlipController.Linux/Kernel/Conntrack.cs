using System.Globalization;
using System.Net;

namespace FlipController.Linux.Kernel;

/// <param name="Live">In SYN_SENT, SYN_RECV or ESTABLISHED: somebody may still be served.</param>
/// <param name="Opening">Of those, in SYN_SENT or SYN_RECV: a retransmitted SYN still goes where the first one went.</param>
/// <param name="All">With those that only wait to be forgotten.</param>
public readonly record struct ConntrackCounts(int Live, int Opening, int All);

/// <summary>How full the kernel's table is. At the limit new connections are dropped, and those it forgot are not tracked again.</summary>
public readonly record struct ConntrackFill(long Entries, long Limit)
{
    /// <summary>A share from which on whoever runs the host should know.</summary>
    public const double High = 0.8;

    /// <summary>From the limit on to 1.</summary>
    public double Share => Limit == 0 ? 0 : (double)Entries / Limit;

    /// <summary>Null when the kernel tracks nothing (yet). Of the namespace of the calling thread.</summary>
    public static ConntrackFill? Read() =>
        Number("nf_conntrack_count") is { } entries && Number("nf_conntrack_max") is { } limit ? new ConntrackFill(entries, limit) : null;

    /// <summary>A file of /proc/sys/net/netfilter that holds a number; null: it is not there.</summary>
    internal static long? Number(string name)
    {
        try
        {
            return long.Parse(File.ReadAllText("/proc/sys/net/netfilter/" + name).AsSpan().Trim(), CultureInfo.InvariantCulture);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}

/// <summary>
/// Counts TCP connections that conntrack remembers with a mark. Equivalent to <c>conntrack -L -p tcp -m MARK/MASK</c>, IPv4 and
/// IPv6 in one dump; only the matching entries leave the kernel. It answers for the namespace of the thread that made it, for one
/// thread at a time.
/// </summary>
public sealed partial class Conntrack : IDisposable
{
    internal const ushort Subsystem = 1 << 8; // NFNL_SUBSYS_CTNETLINK << 8
    private const ushort Get = Subsystem | 1; // IPCTNL_MSG_CT_GET
    private const ushort GetStatistics = Subsystem | 5; // IPCTNL_MSG_CT_GET_STATS
    private const ushort MarkMask = 21; // CTA_MARK_MASK

    private readonly NetlinkSocket _netlink;

    private Conntrack(NetlinkSocket netlink) => _netlink = netlink;

    /// <summary>Null when this kernel has no netfilter netlink.</summary>
    public static Conntrack? Open()
    {
        try
        {
            return new Conntrack(new NetlinkSocket(NetlinkProtocol.Netfilter));
        }
        catch (KernelException e) when (e.Errno == Errno.ProtocolNotSupported)
        {
            return null;
        }
    }

    /// <summary>For tests: <see cref="NetlinkSocket.Over"/>.</summary>
    internal static Conntrack Over(NetlinkSocket netlink) => new(netlink);

    public void Dispose() => _netlink.Dispose();

    /// <summary>Null when ctnetlink is not there to be asked.</summary>
    public ConntrackCounts? Count(uint mark, uint mask) => CountAll([mark], mask)?[0];

    /// <summary>Several marks of one mask in one walk over the table, in their order. Null when ctnetlink is not there to be asked.</summary>
    public ConntrackCounts[]? CountAll(IReadOnlyList<uint> marks, uint mask)
    {
        try
        {
            return Dump(marks, mask, () => new ConntrackCounts[marks.Count], (counts, _, payload) =>
            {
                ConntrackEntry entry = ConntrackEntry.ReadState(payload);
                if (entry.State is null) return;
                for (int i = 0; i < marks.Count; i++)
                {
                    if ((entry.Mark & mask) != marks[i]) continue;
                    ConntrackCounts count = counts[i];
                    counts[i] = new ConntrackCounts(
                        count.Live + (entry.IsLive ? 1 : 0), count.Opening + (entry.IsOpening ? 1 : 0), count.All + 1);
                }
            });
        }
        catch (KernelException e) when (IsAbsent(e))
        {
            return null;
        }
    }

    /// <summary>
    /// Connections in the middle of being opened to these ports of this host that nothing redirects: a SYN that is sent again goes
    /// there. A walk over every entry of the host. Null when ctnetlink is not there to be asked.
    /// </summary>
    public int? OpeningTo(IReadOnlySet<int> ports)
    {
        HashSet<IPAddress> local = LocalAddresses();
        try
        {
            return Dump([], 0, () => new int[1], (count, _, payload) =>
            {
                if (!ConntrackEntry.ReadState(payload).IsOpening) return;
                if (ConntrackEntry.End(payload, ConntrackEntry.TupleOriginal, destination: true) is not { } to) return;
                if (!ports.Contains(to.Port)) return;
                // The reply comes from where it was sent to: no NAT.
                if (!to.Equals(ConntrackEntry.End(payload, ConntrackEntry.TupleReply, destination: false))) return;
                if (IPAddress.IsLoopback(to.Address) || local.Contains(to.Address)) count[0]++;
            })[0];
        }
        catch (KernelException e) when (IsAbsent(e))
        {
            return null;
        }
    }

    /// <summary>False when ctnetlink is not there to be asked.</summary>
    internal bool IsPresent()
    {
        Span<byte> buffer = stackalloc byte[32];
        NetlinkMessage message = new(buffer, GetStatistics, NetlinkFlags.None);
        message.Header(0u);
        try
        {
            _netlink.Request("ask conntrack how full it is", message);
            return true;
        }
        catch (KernelException e) when (IsAbsent(e))
        {
            return false;
        }
    }

    /// <summary>
    /// Every entry with one of the marks, and some with others: the kernel compares with one value under one mask, so it is asked for
    /// the bits that all the marks have in common. No marks: every entry.
    /// </summary>
    internal T Dump<T>(IReadOnlyList<uint> marks, uint mask, Func<T> begin, DumpReader<T> read)
    {
        uint mark = marks.Count == 0 ? 0 : marks[0];
        foreach (uint other in marks) mask &= ~(other ^ mark);
        Span<byte> buffer = stackalloc byte[64];
        NetlinkMessage message = new(buffer, Get, NetlinkFlags.None);
        message.Header(0u); // struct nfgenmsg: family AF_UNSPEC, version NFNETLINK_V0, res_id 0
        if (marks.Count > 0)
        {
            message.PutBigEndian(ConntrackEntry.MarkAttribute, mark & mask);
            message.PutBigEndian(MarkMask, mask);
        }
        return _netlink.Dump(marks.Count == 0 ? "list conntrack entries" : $"list conntrack entries with mark 0x{mark & mask:x}/0x{mask:x}",
            message, begin, read);
    }

    // A subsystem that is not registered is EINVAL: nfnetlink_rcv_msg() in net/netfilter/nfnetlink.c.
    internal static bool IsAbsent(KernelException e) => e.Errno is Errno.Invalid or Errno.NotSupported;
}
