using System.Net;
using FlipController.Core;
using FlipController.Linux.Redirect;
using FlipController.Linux.Tests.Kernel;
using Xunit;

namespace FlipController.Linux.Tests.Redirect;

public sealed class IptablesRulesetTests
{
    private static readonly IptablesListing s_nothing = new("");

    private static string Everything(bool v6) => IptablesRuleset.Base(s_nothing, NftRulesetTests.Pairs, [])
        + IptablesRuleset.AddGeneration("edge", 7, 0x00100700, 0x00ffff00, NftRulesetTests.Ports, v6)
        + IptablesRuleset.SwitchUncommitted("edge", 7) + IptablesRuleset.Commit
        + IptablesRuleset.AddGeneration("mail front/é", 1, 1, uint.MaxValue, NftRulesetTests.Ports[..1], v6)
        + IptablesRuleset.Loops("edge", 0x00100700, 0x00ffff00,
            [new(6, new Service(IPAddress.Loopback, 8443), 22001, 21000), new(6, new Service(IPAddress.IPv6Any, 8443), 22001, 21002)], v6);

    [Fact]
    public void The_texts_are_the_golden_texts()
    {
        Golden.Same("everything.iptables", Everything(v6: false));
        Golden.Same("everything.ip6tables", Everything(v6: true));
    }

    [Fact]
    public void A_mark_outside_the_mask_is_refused() =>
        Assert.Throws<ArgumentException>(() => IptablesRuleset.AddGeneration("edge", 1, 0x01000100, 0x00ffff00, NftRulesetTests.Ports, v6: false));

    [Theory]
    [InlineData("")]
    [InlineData("*nat\n:FLIP-G- - [0:0]\n-A FLIP-P-edge -g\n-A FLIP-P-edge -g FLIP-G-edge-99999999999\nCOMMIT")]
    [InlineData("*nat\n:FLIP-P-edge - [0:0]\n-A \n-A FLIP-SERVICES -m comment --comment \"pair \" -j FLIP-P-edge\n-A FLIP-G-edge-7 --comment \"pair edge generation 7: nonsense\" -j DNAT --to-destination x")]
    [InlineData("*filter\n-A FLIP-GUARD --comment \"pair edge blue\" -j REJECT --dport 9:1\n-A INPUT -j FLIP-GUARD\n-A FLIP-GUARD --comment \"unended")]
    public void Nonsense_is_read_as_nothing_of_a_pair(string text) =>
        Assert.All(IptablesListing.State([new IptablesListing(text)]).Pairs.Values, p => Assert.Equal((null, null), (p.Active, p.Blue)));
}
