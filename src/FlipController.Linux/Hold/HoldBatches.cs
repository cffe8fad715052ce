using System.Buffers.Binary;
using System.Collections.Immutable;
using System.Globalization;
using System.Text;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Hold;

/// <summary>
/// The two transactions of a hold, ready-made:
/// <code>
///   close   flush set inet flipcontroller-hold ports-edge; add element inet flipcontroller-hold ports-edge { 80 timeout 100ms, ... }
///   open    flush set inet flipcontroller-hold ports-edge
/// </code>
/// and the one rule that nft has no words for. Constants: include/uapi/linux/netfilter/nf_tables.h, nf_tables_compat.h, xt_NFQUEUE.h.
/// </summary>
internal sealed class HoldBatches
{
    private const ushort ListTable = 1, ListSet = 2, ListElements = 3; // NFTA_SET_ELEM_LIST_TABLE, _SET, _ELEMENTS
    private const ushort ListElement = 1; // NFTA_LIST_ELEM
    private const ushort ElementKey = 1, ElementTimeout = 4; // NFTA_SET_ELEM_KEY, _TIMEOUT
    private const ushort DataValue = 1; // NFTA_DATA_VALUE
    private const ushort RuleTable = 1, RuleChain = 2, RuleExpressions = 4; // NFTA_RULE_TABLE, _CHAIN, _EXPRESSIONS
    private const ushort ExpressionName = 1, ExpressionData = 2; // NFTA_EXPR_NAME, _DATA
    private const ushort TargetName = 1, TargetRevision = 2, TargetInfo = 3; // NFTA_TARGET_NAME, _REV, _INFO
    private const ushort Bypass = 1; // NFQ_FLAG_BYPASS

    /// <summary>A message's elements share one attribute, whose length is a u16.</summary>
    private const int PortsPerMessage = 1000;
    private const int BytesPerPort = 32;

    private readonly NftBatch _close, _open;
    private readonly string _table, _set;
    private readonly ImmutableArray<int> _ports;
    private readonly TimeSpan _max;
    private NftBatch? _failed;
    private int _errno;

    internal HoldBatches(string table, string set, ImmutableArray<int> ports, TimeSpan max)
    {
        (_table, _set, _ports, _max) = (table, set, [.. ports.Distinct()], max);
        int fixedBytes = 1024 + 512 * (_ports.Length / PortsPerMessage + 1);
        _open = new NftBatch(fixedBytes);
        _open.Add(NftBatch.DeleteElement, NetlinkFlags.None, Set, last: true); // and no elements: all of them
        _close = new NftBatch(fixedBytes + BytesPerPort * _ports.Length);
        _close.Add(NftBatch.DeleteElement, NetlinkFlags.None, Set);
        int[][] chunks = [.. _ports.Chunk(PortsPerMessage)];
        for (int i = 0; i < chunks.Length; i++)
            _close.Add(NftBatch.NewElement, NetlinkFlags.Create, (ref NetlinkMessage message) => Elements(ref message, chunks[i]), last: i == chunks.Length - 1);
    }

    internal int Close(int socket, bool rehearse)
    {
        _failed = null;
        return Run(_close, socket, rehearse);
    }

    internal int Open(int socket, bool rehearse) => Run(_open, socket, rehearse);

    /// <summary>What was run into first since the last close began; null: nothing.</summary>
    internal KernelException? Failure(string owner)
    {
        if (_failed is null) return null;
        bool opening = ReferenceEquals(_failed, _open);
        string command = opening || _failed.FailedAt == 0
            ? $"flush set inet {_table} {_set}"
            : string.Create(CultureInfo.InvariantCulture,
                $"add element inet {_table} {_set} {{ {_ports[0]} timeout {_max.TotalMilliseconds:0}ms{(_ports.Length > 1 ? ", ..." : "")} }}");
        string gone = _errno == Errno.NoEntry ? ": somebody else removed the table" : "";
        return new KernelException($"{(opening ? "open" : "close")} the hold of {owner}", _errno, $"at \"{command}\"{gone}");
    }

    /// <summary>
    /// The rule of <c>iptables -j NFQUEUE --queue-num N --queue-bypass</c> alone in an nft chain, as iptables-nft would send it.
    /// 0, or an errno.
    /// </summary>
    internal static int AddXtQueue(int socket, string table, string chain, ushort queue)
    {
        NftBatch batch = new(1024);
        batch.Add(NftBatch.NewRule, NetlinkFlags.Create | NftBatch.Append, (ref NetlinkMessage add) =>
        {
            add.PutText(RuleTable, table);
            add.PutText(RuleChain, chain);
            int expressions = add.BeginNest(RuleExpressions);
            int element = add.BeginNest(ListElement);
            add.PutText(ExpressionName, "target");
            int expression = add.BeginNest(ExpressionData);
            add.PutText(TargetName, "NFQUEUE");
            add.PutBigEndian(TargetRevision, 3);
            add.Put(TargetInfo, new XtQueueInfo(queue, 1, Bypass, 0));
            foreach (int nest in (ReadOnlySpan<int>)[expression, element, expressions]) add.EndNest(nest);
        }, last: true);
        return batch.Run(socket, rehearse: false);
    }

    private int Run(NftBatch batch, int socket, bool rehearse)
    {
        int errno = batch.Run(socket, rehearse);
        if (errno == 0 || _failed is not null) return errno;
        _failed = batch;
        return _errno = errno;
    }

    private void Set(ref NetlinkMessage message)
    {
        message.PutText(ListTable, _table);
        message.PutText(ListSet, _set);
    }

    private void Elements(ref NetlinkMessage message, int[] ports)
    {
        Set(ref message);
        int elements = message.BeginNest(ListElements);
        foreach (int port in ports)
        {
            int element = message.BeginNest(ListElement);
            int key = message.BeginNest(ElementKey);
            message.Put(DataValue, BinaryPrimitives.ReverseEndianness((ushort)port));
            message.EndNest(key);
            message.Put(ElementTimeout, BinaryPrimitives.ReverseEndianness((ulong)Math.Ceiling(_max.TotalMilliseconds)));
            message.EndNest(element);
        }
        message.EndNest(elements);
    }

    /// <summary>struct xt_NFQ_info_v3, padded to XT_ALIGN (8 bytes); host byte order.</summary>
    private readonly record struct XtQueueInfo(ushort Number, ushort Count, ushort Flags, ushort Padding);
}
