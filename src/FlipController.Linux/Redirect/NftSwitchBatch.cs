using FlipController.Linux.Kernel;

namespace FlipController.Linux.Redirect;

/// <summary>A chain in which one rule says where the pair's NEW connections go.</summary>
/// <param name="Family">Of its table: <see cref="NetfilterHeader.Inet"/> or another.</param>
/// <param name="IsCounted">The rule counts packets, as every rule of iptables does.</param>
internal readonly record struct PairChain(byte Family, string Table, string Name, bool IsCounted);

/// <summary>The flip, <see cref="NftRuleset.Switch"/>, ready-made: in however many tables it is one transaction.</summary>
internal sealed class NftSwitchBatch
{
    private const ushort RuleTable = 1, RuleChain = 2, RuleExpressions = 4; // NFTA_RULE_TABLE, _CHAIN, _EXPRESSIONS
    private const ushort ListElement = 1; // NFTA_LIST_ELEM
    private const ushort ExpressionName = 1, ExpressionData = 2; // NFTA_EXPR_NAME, _DATA
    private const ushort ImmediateRegister = 1, ImmediateData = 2; // NFTA_IMMEDIATE_DREG, _DATA
    private const ushort DataVerdict = 2; // NFTA_DATA_VERDICT
    private const ushort VerdictCode = 1, VerdictChain = 2; // NFTA_VERDICT_CODE, _CHAIN
    private const int Goto = -4; // NFT_GOTO

    private readonly NftBatch _batch = new(2048);

    internal NftSwitchBatch(string pairChain, string generationChain)
        : this([new PairChain(NetfilterHeader.Inet, NftRuleset.Table["inet ".Length..], pairChain, IsCounted: false)], generationChain)
    {
    }

    internal NftSwitchBatch(PairChain[] chains, string generationChain)
    {
        for (int i = 0; i < chains.Length; i++) Add(chains[i], generationChain, last: i == chains.Length - 1);
    }

    private void Add(PairChain chain, string generationChain, bool last)
    {
        _batch.Add(NftBatch.DeleteRule, NetlinkFlags.None, (ref NetlinkMessage delete) =>
        {
            delete.PutText(RuleTable, chain.Table);
            delete.PutText(RuleChain, chain.Name); // and no handle: every rule of the chain
        }, family: chain.Family);
        _batch.Add(NftBatch.NewRule, NetlinkFlags.Create | NftBatch.Append, (ref NetlinkMessage add) =>
        {
            add.PutText(RuleTable, chain.Table);
            add.PutText(RuleChain, chain.Name);
            int expressions = add.BeginNest(RuleExpressions);
            if (chain.IsCounted)
            {
                int counter = add.BeginNest(ListElement);
                add.PutText(ExpressionName, "counter");
                add.EndNest(add.BeginNest(ExpressionData));
                add.EndNest(counter);
            }
            int element = add.BeginNest(ListElement);
            add.PutText(ExpressionName, "immediate");
            int expression = add.BeginNest(ExpressionData);
            add.PutBigEndian(ImmediateRegister, 0); // NFT_REG_VERDICT
            int data = add.BeginNest(ImmediateData);
            int verdict = add.BeginNest(DataVerdict);
            add.PutBigEndian(VerdictCode, unchecked((uint)Goto));
            add.PutText(VerdictChain, generationChain);
            foreach (int nest in (ReadOnlySpan<int>)[verdict, data, expression, element, expressions]) add.EndNest(nest);
        }, last, chain.Family);
    }

    internal ReadOnlySpan<byte> Bytes => _batch.Bytes;

    /// <summary>After a failure: it was a pair's chain that could not be emptied, and not the rule that could not be added.</summary>
    internal bool FailedAtDelete => _batch.FailedAt % 2 == 0;

    /// <summary>After a failure: in which of the chains; 0 also where the kernel did not say.</summary>
    internal int FailedIn => Math.Max(0, _batch.FailedAt / 2);

    /// <summary><see cref="NftBatch.Run"/></summary>
    internal int Run(int socket, bool rehearse) => _batch.Run(socket, rehearse);
}
