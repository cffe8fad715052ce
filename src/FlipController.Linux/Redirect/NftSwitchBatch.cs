using FlipController.Linux.Kernel;

namespace FlipController.Linux.Redirect;

/// <summary>The flip, <see cref="NftRuleset.Switch"/>, ready-made.</summary>
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
    {
        _batch.Add(NftBatch.DeleteRule, NetlinkFlags.None, (ref NetlinkMessage delete) =>
        {
            delete.PutText(RuleTable, "flipcontroller");
            delete.PutText(RuleChain, pairChain); // and no handle: every rule of the chain
        });
        _batch.Add(NftBatch.NewRule, NetlinkFlags.Create | NftBatch.Append, (ref NetlinkMessage add) =>
        {
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
        }, last: true);
    }

    internal ReadOnlySpan<byte> Bytes => _batch.Bytes;

    /// <summary>After a failure: it was the pair's chain that could not be emptied, and not the rule that could not be added.</summary>
    internal bool FailedAtDelete => _batch.FailedAt == 0;

    /// <summary><see cref="NftBatch.Run"/></summary>
    internal int Run(int socket, bool rehearse) => _batch.Run(socket, rehearse);
}
