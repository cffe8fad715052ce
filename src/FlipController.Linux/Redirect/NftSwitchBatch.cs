using System.Buffers.Binary;
using System.Runtime.InteropServices;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Redirect;

/// <summary>
/// The flip as the very bytes nft would send for <see cref="NftRuleset.Switch"/>, made beforehand. libnftables reads the names of
/// every chain of every table before it commits anything: nothing on a quiet host, 2 ms where 3,000 foreign chains are; sent
/// ready-made, a flip costs what the kernel needs and no more.
/// Constants: include/uapi/linux/netfilter/nf_tables.h, nfnetlink.h. How a batch ends: nfnetlink_rcv_batch() in
/// net/netfilter/nfnetlink.c.
/// </summary>
internal sealed unsafe class NftSwitchBatch
{
    private const ushort BatchBegin = 0x10; // NFNL_MSG_BATCH_BEGIN
    private const ushort BatchEnd = 0x11; // NFNL_MSG_BATCH_END
    private const byte SubsystemNftables = 10; // NFNL_SUBSYS_NFTABLES
    private const ushort NewRule = SubsystemNftables << 8 | 6; // NFT_MSG_NEWRULE
    private const ushort DeleteRule = SubsystemNftables << 8 | 8; // NFT_MSG_DELRULE
    private const byte FamilyInet = 1; // NFPROTO_INET
    private const NetlinkFlags Append = (NetlinkFlags)0x800; // NLM_F_APPEND
    private const ushort RuleTable = 1, RuleChain = 2, RuleExpressions = 4; // NFTA_RULE_TABLE, _CHAIN, _EXPRESSIONS
    private const ushort ListElement = 1; // NFTA_LIST_ELEM
    private const ushort ExpressionName = 1, ExpressionData = 2; // NFTA_EXPR_NAME, _DATA
    private const ushort ImmediateRegister = 1, ImmediateData = 2; // NFTA_IMMEDIATE_DREG, _DATA
    private const ushort DataVerdict = 2; // NFTA_DATA_VERDICT
    private const ushort VerdictCode = 1, VerdictChain = 2; // NFTA_VERDICT_CODE, _CHAIN
    private const int Goto = -4; // NFT_GOTO

    private const uint SequenceOfDelete = 1, SequenceOfAdd = 2;

    /// <summary>What the kernel may answer when another program commits at the same moment: once more is right.</summary>
    private const int Attempts = 5;

    private readonly byte[] _bytes = GC.AllocateArray<byte>(2048, pinned: true);
    private readonly byte[] _answer = GC.AllocateUninitializedArray<byte>(8192, pinned: true);
    private readonly int _withoutEnd;
    private readonly int _length;

    internal NftSwitchBatch(string pairChain, string generationChain)
    {
        int at = 0;
        Boundary(BatchBegin, 0);

        NetlinkMessage delete = new(_bytes.AsSpan(at), DeleteRule, NetlinkFlags.Request);
        delete.Header(new NetfilterHeader(FamilyInet, 0, 0));
        delete.PutText(RuleTable, "flipcontroller");
        delete.PutText(RuleChain, pairChain); // and no handle: every rule of the chain
        Close(ref delete, SequenceOfDelete);

        NetlinkMessage add = new(
            _bytes.AsSpan(at), NewRule, NetlinkFlags.Request | NetlinkFlags.Acknowledge | NetlinkFlags.Create | Append);
        add.Header(new NetfilterHeader(FamilyInet, 0, 0));
        add.PutText(RuleTable, "flipcontroller");
        add.PutText(RuleChain, pairChain);
        int expressions = add.BeginNest(RuleExpressions);
        int element = add.BeginNest(ListElement);
        add.PutText(ExpressionName, "immediate");
        int expression = add.BeginNest(ExpressionData);
        add.PutBigEndian(ImmediateRegister, 0); // NFT_REG_VERDICT
        int data = add.BeginNest(ImmediateData);
        int verdict = add.BeginNest(DataVerdict);
        add.PutBigEndian(VerdictCode, unchecked((uint)Goto));
        add.PutText(VerdictChain, generationChain);
        foreach (int nest in (ReadOnlySpan<int>)[verdict, data, expression, element, expressions]) add.EndNest(nest);
        Close(ref add, SequenceOfAdd);

        _withoutEnd = at;
        Boundary(BatchEnd, 3);
        _length = at;

        void Boundary(ushort type, uint sequence)
        {
            NetlinkMessage message = new(_bytes.AsSpan(at), type, NetlinkFlags.Request);
            message.Header(new NetfilterHeader(0, 0, BinaryPrimitives.ReverseEndianness((ushort)SubsystemNftables)));
            Close(ref message, sequence);
        }

        void Close(ref NetlinkMessage message, uint sequence)
        {
            Span<byte> bytes = message.Bytes;
            MemoryMarshal.Write(bytes[8..], sequence);
            at += bytes.Length;
        }
    }

    internal ReadOnlySpan<byte> Bytes => _bytes.AsSpan(0, _length);

    /// <summary>After a failure: it was the pair's chain that could not be emptied, and not the rule that could not be added.</summary>
    internal bool FailedAtDelete { get; private set; }

    /// <summary>
    /// The hot call: nothing managed is allocated, nothing logged, nothing thrown. 0, or an errno.
    /// </summary>
    /// <param name="rehearse">
    /// Without the batch's end the kernel checks everything and then forgets it, which takes it a grace period (some 10 ms) in which
    /// no one else can commit.
    /// </param>
    internal int Run(int socket, bool rehearse)
    {
        for (int attempt = 1; ; attempt++)
        {
            int errno = Once(socket, rehearse ? _withoutEnd : _length);
            bool transient = errno is Errno.Again or Errno.Interrupted or Errno.Busy or Errno.Restart;
            if (!transient || attempt == Attempts) return errno;
        }
    }

    private int Once(int socket, int length)
    {
        FailedAtDelete = false;
        fixed (byte* bytes = _bytes)
        {
            if (Libc.SendTo(socket, bytes, (nuint)length, 0, null, 0) < 0) return Marshal.GetLastPInvokeError();
        }

        // The kernel has done it and answered by the time the send returns: one acknowledgement of the rule, or errors.
        bool acknowledged = false;
        int failure = 0;
        fixed (byte* answer = _answer)
        {
            while (true)
            {
                nint count = Libc.ReceiveFrom(socket, answer, (nuint)_answer.Length, Libc.MsgDontWait, null, null);
                if (count < 0)
                {
                    int errno = Marshal.GetLastPInvokeError();
                    if (errno == Errno.Interrupted) continue;
                    if (errno != Errno.Again) return errno;
                    // Silence would mean that the batch was not even begun.
                    return failure != 0 ? failure : acknowledged ? 0 : Errno.Protocol;
                }
                if (count < NetlinkMessage.HeaderLength + sizeof(int) || *(ushort*)(answer + 4) != NetlinkType.Error) continue;
                int error = -*(int*)(answer + NetlinkMessage.HeaderLength);
                uint sequence = *(uint*)(answer + 8);
                if (error == 0)
                {
                    acknowledged |= sequence == SequenceOfAdd;
                }
                else if (failure == 0)
                {
                    failure = error;
                    FailedAtDelete = sequence == SequenceOfDelete;
                }
            }
        }
    }

    private readonly record struct NetfilterHeader(byte Family, byte Version, ushort ResourceId); // struct nfgenmsg
}
