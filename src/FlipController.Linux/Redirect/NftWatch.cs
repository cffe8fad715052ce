using System.Runtime.InteropServices;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Redirect;

/// <summary>
/// Tells when something about our table changed in the network namespace of the thread that opens it, whoever did it, and when something
/// about others' did: the kernel tells every commit of nftables (NFNLGRP_NFTABLES, include/uapi/linux/netfilter/nfnetlink.h). Many changes at once are told once.
/// </summary>
public sealed unsafe class NftWatch : IDisposable
{
    private const uint Group = 7; // NFNLGRP_NFTABLES
    private const byte Subsystem = 10; // NFNL_SUBSYS_NFTABLES
    private const byte Generation = 15; // NFT_MSG_NEWGEN: ends each commit, and names no table
    private const ushort TableName = 1; // NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE ...: the first of each kind
    private const byte Inet = 1; // NFPROTO_INET
    private const int CoalesceMilliseconds = 10;

    private static readonly byte[] s_name = [.. System.Text.Encoding.ASCII.GetBytes(NftRuleset.Table["inet ".Length..]), 0];

    private readonly NetlinkSocket _netlink;
    private readonly Wakeup _wakeup = new();
    private readonly byte[] _bytes = GC.AllocateUninitializedArray<byte>(64 * 1024, pinned: true);
    private readonly Action _changed;
    private readonly Action? _othersChanged;
    private readonly Thread _thread;
    private volatile bool _stop;

    private NftWatch(NetlinkSocket netlink, Action changed, Action? othersChanged)
    {
        _netlink = netlink;
        _changed = changed;
        _othersChanged = othersChanged;
        _thread = new Thread(Run) { IsBackground = true, Name = "watch over nftables" };
        _thread.Start();
    }

    /// <param name="changed">Called on a thread of its own; throws nothing.</param>
    /// <param name="othersChanged">The same for tables that are neither this one nor a hold's, at once and perhaps often.</param>
    public static NftWatch Open(Action changed, Action? othersChanged = null)
    {
        NetlinkSocket netlink = new(NetlinkProtocol.Netfilter);
        try
        {
            netlink.Listen(Group, "nftables'");
            return new NftWatch(netlink, changed, othersChanged);
        }
        catch
        {
            netlink.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        _stop = true;
        _wakeup.Set();
        _thread.Join();
        _netlink.Dispose();
        _wakeup.Dispose();
    }

    private void Run()
    {
        while (!_stop)
        {
            if (!_wakeup.Wait(_netlink.Fd, -1)) continue;
            bool ours = Drain();
            if (!ours) continue;
            // A commit has many messages, and a script many commits.
            _wakeup.Wait(-1, CoalesceMilliseconds);
            _ = Drain();
            if (!_stop) _changed();
        }
    }

    /// <summary>Reads all there is; whether any of it is about our table, or may be.</summary>
    private bool Drain()
    {
        bool ours = false, others = false;
        fixed (byte* bytes = _bytes)
        {
            while (true)
            {
                nint count = Libc.ReceiveFrom(_netlink.Fd, bytes, (nuint)_bytes.Length, Libc.MsgDontWait, null, null);
                if (count >= 0)
                {
                    ReadOnlySpan<byte> datagram = _bytes.AsSpan(0, (int)count);
                    ours = ours || IsOurs(datagram);
                    others = others || IsOthers(datagram);
                    continue;
                }
                switch (Marshal.GetLastPInvokeError())
                {
                    case Errno.Interrupted:
                        continue;
                    case Errno.NoBuffers: // what did not fit may have been about ours
                        ours = others = true;
                        continue;
                    default:
                        if (others) _othersChanged?.Invoke();
                        return ours;
                }
            }
        }
    }

    internal static bool IsOurs(ReadOnlySpan<byte> datagram) =>
        Has(datagram, static (family, table) => family == Inet && table.SequenceEqual(s_name));

    /// <summary>A table of a hold has our name and a dash, and changes with every flip.</summary>
    internal static bool IsOthers(ReadOnlySpan<byte> datagram) =>
        Has(datagram, static (_, table) => !table.StartsWith(s_name.AsSpan(..^1)) || (table.Length >= s_name.Length && table[s_name.Length - 1] is not (0 or (byte)'-')));

    private delegate bool Asked(byte family, ReadOnlySpan<byte> table);

    /// <summary>It has a whole message about a table that is asked for.</summary>
    private static bool Has(ReadOnlySpan<byte> datagram, Asked asked)
    {
        const int familyHeader = 4; // struct nfgenmsg
        while (datagram.Length >= NetlinkMessage.HeaderLength + familyHeader)
        {
            int length = (int)Math.Min(MemoryMarshal.Read<uint>(datagram), (uint)datagram.Length);
            if (length < NetlinkMessage.HeaderLength + familyHeader) return false;
            ReadOnlySpan<byte> message = datagram[..length];
            if (message[5] == Subsystem && message[4] != Generation)
            {
                NetlinkAttributes attributes = new(message[(NetlinkMessage.HeaderLength + familyHeader)..]);
                while (attributes.Next())
                    if (attributes.Type == TableName && asked(message[NetlinkMessage.HeaderLength], attributes.Value)) return true;
            }
            datagram = datagram[Math.Min(NetlinkMessage.Align(length), datagram.Length)..];
        }
        return false;
    }
}
