using System.Net;
using System.Runtime.CompilerServices;
using FlipController.Core;
using FlipController.Linux.Redirect;
using FlipController.Linux.Tests.Kernel;
using Xunit;

namespace FlipController.Linux.Tests.Redirect;

public sealed class NftRulesetTests
{
    internal static readonly PairPorts[] Pairs =
    [
        new("mail front/é", new PortBlock(23000, 1), new PortBlock(24000, 1)),
        new("edge", new PortBlock(21000, 64), new PortBlock(22000, 64)),
    ];

    internal static readonly ServicePort[] Ports =
    [
        new(new Service(IPAddress.IPv6Any, 443), 21000),
        new(new Service(IPAddress.Any, 80), 21001),
        new(new Service(IPAddress.IPv6Any, 80, V6Only: true), 21002),
        new(new Service(IPAddress.Parse("10.9.0.1"), 80), 21003),
        new(new Service(IPAddress.Parse("fd09::1"), 443), 21004),
        new(new Service(IPAddress.Parse("::ffff:10.9.0.1"), 8080), 21005),
    ];

    internal static string Everything => NftRuleset.Base(Pairs, []) + NftRuleset.AddGeneration("edge", 7, 0x00100700, 0x00ffff00, Ports)
        + NftRuleset.Switch("edge", 7) + NftRuleset.AddGeneration("mail front/é", 1, 1, uint.MaxValue, Ports[..1])
        + NftRuleset.Loops("edge", 0x00100700, 0x00ffff00,
            [new(6, new Service(IPAddress.Loopback, 8443), 22001, 21000), new(6, new Service(IPAddress.IPv6Any, 8443), 22001, 21002)]);

    [Fact]
    public void The_text_is_the_golden_text() => Golden.Same("everything.nft", Everything);

    [Fact]
    public void Removal_and_flip_texts_are_the_golden_texts() => Golden.Same("changes.nft",
        "# removal of a pair\n" + NftRuleset.Base(Pairs[1..], ["pair-old", "generation-old-1", "generation-old-2"])
        + "# a flip\n" + NftRuleset.Switch("edge", 8) + "# clear\n" + NftRuleset.Clear("edge")
        + "# remove a generation\n" + NftRuleset.RemoveGeneration("edge", 7) + "# remove all\n" + NftRuleset.Remove());

    // strace -e write=3 nft "flush chain inet flipcontroller pair-edge; add rule inet flipcontroller pair-edge goto generation-edge-7"
    // (nft 1.0.6), but for one bit: NLM_F_ACK in the rule's flags, 01 0c there.
    [Fact]
    public void A_flip_is_the_bytes_nft_sends() => Assert.Equal("""
        14000000 10000100 00000000 00000000 0000000a
        38000000 080a0100 01000000 00000000 01000000
        13000100 666c6970 636f6e74 726f6c6c 65720000
        0e000200 70616972 2d656467 65000000
        84000000 060a050c 02000000 00000000 01000000
        13000100 666c6970 636f6e74 726f6c6c 65720000
        0e000200 70616972 2d656467 65000000
        4c000480 48000180
        0e000100 696d6d65 64696174 65000000
        34000280 08000100 00000000
        28000280 24000280
        08000100 fffffffc
        16000200 67656e65 72617469 6f6e2d65 6467652d 37000000
        14000000 11000100 03000000 00000000 0000000a
        """.Replace("\n", "").Replace(" ", ""), Convert.ToHexStringLower(new NftSwitchBatch("pair-edge", "generation-edge-7").Bytes));

    [Theory]
    [InlineData("edge"), InlineData("tcp"), InlineData("a b"), InlineData("é/x-7"), InlineData("edge-7"), InlineData("0"), InlineData("/2F")]
    public void A_name_survives_its_spelling(string name)
    {
        Assert.Matches("^[A-Za-z0-9._/-]+$", NftRuleset.Spell(name));
        Assert.Equal(name, NftRuleset.PairOf(NftRuleset.PairChain(name)));
        Assert.Equal((name, 12), NftRuleset.GenerationOf(NftRuleset.GenerationChain(name, 12)));
    }

    [Fact]
    public void A_mark_outside_the_mask_is_refused() =>
        Assert.Throws<ArgumentException>(() => NftRuleset.AddGeneration("edge", 1, 0x01000100, 0x00ffff00, Ports));

    [Fact(Timeout = 30000)]
    public async Task Nft_lists_what_the_text_means() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("g");
        Shell.RunWithInput(Everything, "ip", "netns", "exec", network.Name, "nft", "-f", "-");
        string listed = network.Exec("nft", "list", "ruleset");
        Golden.Same("listed.nft", listed);

        // What nft lists, nft reads, and it means the same.
        Shell.RunWithInput("flush ruleset\n" + listed, "ip", "netns", "exec", network.Name, "nft", "-f", "-");
        Assert.Equal(listed, network.Exec("nft", "list", "ruleset"));
    });
}

/// <summary>Files in testdata/, beside this one. FLIP_GOLDEN=write makes them what the code says: read the diff.</summary>
internal static class Golden
{
    internal static void Same(string name, string actual, [CallerFilePath] string here = "")
    {
        string path = Path.Combine(Path.GetDirectoryName(here)!, "testdata", name);
        if (Environment.GetEnvironmentVariable("FLIP_GOLDEN") == "write")
        {
            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            File.WriteAllText(path, actual);
        }
        Assert.Equal(File.ReadAllText(path), actual);
    }
}
