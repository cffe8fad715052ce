using FlipController.Linux.Redirect;
using FlipController.Linux.Tests.Kernel;
using FlipController.Tests.Shared;
using Xunit;
using Eventually = FlipController.Linux.Tests.Kernel.Eventually;

namespace FlipController.Linux.Tests.Redirect;

public sealed class NftWatchTests
{
    [Fact(Timeout = 60_000)]
    public async Task It_tells_of_our_table_and_of_no_other() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("w");
        int told = 0;
        using NftWatch watch = network.Run(() => NftWatch.Open(() => Interlocked.Increment(ref told)));
        Does("add table inet flipcontroller { chain c { }; }");
        Does("insert rule inet flipcontroller c counter");
        Does("flush chain inet flipcontroller c");
        // Of what is another's nothing is told: the next telling is of our own.
        int before = told;
        for (int i = 0; i < 20; i++) network.Exec("nft", "add table inet flipcontroller2; add chain inet flipcontroller2 c; add table ip flipcontroller; flush table ip flipcontroller");
        Assert.Equal(before, Volatile.Read(ref told));
        Does("flush ruleset");
        Does("add table inet flipcontroller");
        Does("delete table inet flipcontroller");

        void Does(string command)
        {
            int seen = Volatile.Read(ref told);
            network.Exec("nft", command);
            Eventually.True(() => Volatile.Read(ref told) > seen, command);
        }
    });

    [Fact(Timeout = 60_000)]
    public async Task Changes_of_others_are_told_apart_from_ours_and_those_of_a_hold_are_nobody_s() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("w");
        int ours = 0, others = 0;
        using NftWatch watch = network.Run(() => NftWatch.Open(() => Interlocked.Increment(ref ours), () => Interlocked.Increment(ref others)));
        network.Exec("nft", "table inet flipcontroller-hold { chain c { accept; }; }");
        network.Exec("nft", "add table inet flipcontroller");
        Eventually.True(() => Volatile.Read(ref ours) > 0, "ours is told");
        Assert.Equal(0, Volatile.Read(ref others));
        foreach (string command in (string[])["add table inet flipcontroller2", "add chain inet flipcontroller2 c", "add rule inet flipcontroller2 c accept", "table ip other { }", "delete table ip other"])
        {
            int seen = Volatile.Read(ref others);
            network.Exec("nft", command);
            Eventually.True(() => Volatile.Read(ref others) > seen, command);
        }
    });

    [Fact(Timeout = 60_000)]
    public async Task More_than_the_socket_holds_is_told_as_well() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("w");
        using TempDir files = new();
        string rules = files.Write("rules.nft", string.Concat(Enumerable.Range(0, 5000).Select(i => $"add rule inet other c ip saddr 10.{i >> 8}.{i & 255}.1 counter\n")));
        int told = 0;
        using NftWatch watch = network.Run(() => NftWatch.Open(() => Interlocked.Increment(ref told)));
        network.Exec("nft", "add table inet other; add chain inet other c");
        Assert.Equal(0, told);
        Eventually.True(() =>
        {
            network.Exec("nft", "-f", rules);
            return Volatile.Read(ref told) > 0;
        }, "what was lost may have been about ours");
    });

    [Theory]
    // NFT_MSG_DELTABLE of inet flipcontroller, and the same cut off; NFT_MSG_NEWGEN; inet flipcontroller-hold; ip flipcontroller.
    [InlineData("2800000002 0a 0000 00000000 00000000 01 00 0000 1300 0100 666c6970636f6e74726f6c6c657200 00", true)]
    [InlineData("2800000002 0a 0000 00000000 00000000 01 00 0000 1300 0100 666c6970636f6e", false)]
    [InlineData("2800000002 0a", false)]
    [InlineData("", false)]
    [InlineData("280000000f 0a 0000 00000000 00000000 01 00 0000 1300 0100 666c6970636f6e74726f6c6c657200 00", false)]
    [InlineData("2c00000002 0a 0000 00000000 00000000 01 00 0000 1800 0100 666c6970636f6e74726f6c6c65722d686f6c6400", false)]
    [InlineData("2800000002 0a 0000 00000000 00000000 02 00 0000 1300 0100 666c6970636f6e74726f6c6c657200 00", false)]
    [InlineData("ffffffff02 0a 0000 00000000 00000000 01 00 0000 ffff 0100 666c6970636f6e74726f6c6c657200 00", false)]
    public void A_message_is_ours_by_its_family_and_its_table(string hex, bool ours) =>
        Assert.Equal(ours, NftWatch.IsOurs(Convert.FromHexString(hex.Replace(" ", "", StringComparison.Ordinal))));
}
