using System.Runtime.InteropServices;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Redirect;

/// <summary>
/// Tells within a second when somebody may have changed rules of iptables: of nf_tables by the number of its last commit, of x_tables by
/// how many rules its tables have, as nothing tells more without reading them all. In the network namespace of the thread that opens it.
/// </summary>
public sealed unsafe class IptablesWatch : IDisposable
{
    private const int LookMilliseconds = 500;
    private const int Looks = 20; // after so many of x_tables they are read all the same: a rule may have been put in another's place

    private readonly NetlinkSocket? _netlink;
    private readonly int[] _sockets = []; // of x_tables: one of each family
    private readonly Wakeup _wakeup = new();
    private readonly Action _changed;
    private readonly Thread _thread;
    private volatile bool _stop;

    /// <param name="changed">Called on a thread of its own; throws nothing.</param>
    public IptablesWatch(IptablesVariant variant, Action changed)
    {
        _changed = changed;
        if (variant == IptablesVariant.Nft) _netlink = new NetlinkSocket(NetlinkProtocol.Netfilter);
        else _sockets = [Raw(Libc.AfInet), Raw(Libc.AfInet6)];
        _thread = new Thread(Run) { IsBackground = true, Name = "watch over iptables" };
        _thread.Start();
    }

    /// <summary>What the programs of iptables ask through; no packet comes: IPPROTO_RAW, raw(7). Below zero: there is no such family.</summary>
    private static int Raw(int family) => Libc.Socket(family, Libc.SockRaw | Libc.CloseOnExec, 255);

    public void Dispose()
    {
        _stop = true;
        _wakeup.Set();
        _thread.Join();
        _netlink?.Dispose();
        foreach (int socket in _sockets.Where(s => s >= 0)) _ = Libc.Close(socket);
        _wakeup.Dispose();
    }

    private void Run()
    {
        long? seen = null;
        int looks = 0;
        while (!_stop)
        {
            long now = Look();
            if ((seen is not null && now != seen) || (_netlink is null && ++looks % Looks == 0)) _changed();
            seen = now;
            _wakeup.Wait(-1, LookMilliseconds);
        }
    }

    private long Look()
    {
        try
        {
            return _netlink is not null ? NftBatch.GenerationOf(_netlink) : HashCode.Combine(Size(0, "nat\0"u8), Size(0, "filter\0"u8), Size(1, "nat\0"u8), Size(1, "filter\0"u8));
        }
        catch (KernelException)
        {
            return -1;
        }
    }

    /// <summary>Rules and bytes of a table: struct ipt_getinfo and ip6t_getinfo, include/uapi/linux/netfilter_ipv4/ip_tables.h.</summary>
    private int Size(int family, ReadOnlySpan<byte> table)
    {
        const int getInfo = 64; // IPT_SO_GET_INFO, IP6T_SO_GET_INFO
        const int size = 84, nameLength = 32, entriesAt = 76;
        byte* info = stackalloc byte[size];
        new Span<byte>(info, size).Clear();
        table.CopyTo(new Span<byte>(info, nameLength));
        uint length = size;
        return Libc.GetSocketOption(_sockets[family], family == 0 ? Libc.SolIp : Libc.SolIpv6, getInfo, info, &length) < 0
            ? -Marshal.GetLastPInvokeError()
            : HashCode.Combine(*(int*)(info + entriesAt), *(int*)(info + entriesAt + 4));
    }
}
