using System.Net;
using FlipController.Core;
using Xunit;

namespace FlipController.Core.Tests;

public sealed partial class ConfigurationTests
{
    [Fact]
    public void Everything_about_keepalived_and_the_peer_is_read()
    {
        Configuration read = Good(
            ("keepalived", Map(("fifo", "/run/k.fifo"), ("track_file", Map(("path", "/run/t"), ("weight", "5"))), ("link", "dummy0"))),
            ("peer", Map(("listen", "[fd00::1]:9108"), ("address", "[fd00::2]:9108"), ("key", "/k"))),
            ("handover", Map(("vips", List("10.0.0.100", "fd00::100")), ("device", "eth0"), ("deadline", "1m"), ("threshold", "3"), ("second_chance", "0s"))),
            ("events", Map(("fifo", "/run/e"))),
            Edge(("keepalived", Map(("instance", "VI_1"), ("role", "backup-first"), ("fault", "ignore"), ("stop", "freeze"))),
                ("hooks", Map(("notify", List("/bin/notify", "x"))))));
        Assert.Equal(new KeepalivedOptions { Fifo = "/run/k.fifo", TrackFile = new TrackFileOptions { Path = "/run/t", Weight = 5 }, Link = "dummy0" }, read.Keepalived);
        Assert.Equal(new PeerOptions { Listen = "[fd00::1]:9108", Address = "[fd00::2]:9108", Key = "/k" }, read.Peer);
        Assert.Equal([IPAddress.Parse("10.0.0.100"), IPAddress.Parse("fd00::100")], read.Handover!.Vips);
        Assert.Equal(("eth0", TimeSpan.FromMinutes(1), 3, TimeSpan.Zero),
            (read.Handover.Device, read.Handover.Deadline, read.Handover.Threshold, read.Handover.SecondChance));
        Assert.Equal("/run/e", read.Events!.Fifo);
        Assert.Equal(new PairKeepalivedOptions { Instance = "VI_1", Role = KeepalivedRole.BackupFirst, Fault = TroubleRule.Ignore, Stop = TroubleRule.Freeze },
            read.Pairs["edge"].Keepalived);
        Assert.Equal(["/bin/notify", "x"], read.Pairs["edge"].Hooks.Notify);
    }

    [Fact]
    public void Of_keepalived_the_empty_section_is_enough_and_without_it_there_is_nothing()
    {
        Configuration none = Good(Edge()), read = Good(("keepalived", Map(("track_file", Map()))), Edge(("keepalived", Map(("group", "G1")))));
        Assert.True(none is { Keepalived: null, Peer: null, Handover: null, Events: null } && none.Pairs["edge"].Keepalived is null);
        Assert.Equal(new KeepalivedOptions { TrackFile = new TrackFileOptions() }, read.Keepalived);
        Assert.Equal((100, "/run/flipcontroller/keepalived.track"), (read.Keepalived!.TrackFile!.Weight, read.Keepalived.TrackFile.Path));
        Assert.Equal(new PairKeepalivedOptions { Group = "G1", Role = KeepalivedRole.Always, Fault = TroubleRule.Freeze, Stop = TroubleRule.Ignore },
            read.Pairs["edge"].Keepalived);
        Assert.Equal("keepalived: has no value; it must be {} or { fifo: PATH }, or the key be left out", Told(("keepalived", ""), Pair("edge")));
    }

    [Fact]
    public void What_needs_another_part_of_the_file_says_which()
    {
        Assert.Equal(
        [
            "handover: needs peer: NEW connections go to the other node, whose daemon is asked first",
            "handover: needs keepalived.track_file or keepalived.link: that is how keepalived is told to move the addresses",
            "pairs.edge.keepalived.role: \"backup-first\" needs peer: the other node is asked whether it has proven the files",
        ], All(("keepalived", Map()), ("handover", Map(("vips", List("10.0.0.100")))), Edge(("keepalived", Map(("instance", "VI_1"), ("role", "backup-first"))))));
        Assert.Equal(["pairs.edge.keepalived: needs keepalived: (on the level of pairs), {} at least"], All(Edge(("keepalived", Map(("instance", "VI_1"))))));
    }

    [Fact]
    public void A_pair_follows_one_instance_or_one_group()
    {
        Assert.Equal(["pairs.edge.keepalived.group: must not stand beside instance: a pair follows one or the other"],
            All(("keepalived", Map()), Edge(("keepalived", Map(("instance", "a"), ("group", "b"))))));
        Assert.Equal(["pairs.edge.keepalived.instance: is missing; it must be the name of a vrrp_instance (or group, of a vrrp_sync_group)"],
            All(("keepalived", Map()), Edge(("keepalived", Map(("role", "always"))))));
    }

    [Fact]
    public void Values_about_two_nodes_against_their_rules_are_refused_all_at_once() => Assert.Equal(
        [
            "keepalived.track_file.weight: \"0\" must be a whole number between 1 and 2147483647",
            "keepalived.link: \"a b\" must be the name of a network device: at most 15 characters, none of them a space, / or :",
            "peer.address: is missing; it must be ADDRESS:PORT of the other node",
            "peer.listen: \"0.0.0.0:9108\" must be ADDRESS:PORT of one node, not of every address",
            "handover.vips[0]: \"10.0.0.100/24\" must be an address such as 10.0.0.100 or fd00::100, without a prefix length",
            "handover.vips[1]: \"1.2\" must be an address such as 10.0.0.100 or fd00::100, without a prefix length",
            "handover.deadline: \"0s\" must be between 1s and 24h",
            "pairs.edge.hooks.notify[0]: \"notify\" must be an absolute path, without . or .., as it names the program to run",
            "pairs.edge.keepalived.instance: \"a\"b\" must be a name of keepalived's configuration: 1 to 255 characters, without quotes",
            "pairs.edge.keepalived.role: \"first\" must be always, master-only or backup-first",
        ],
        All(("keepalived", Map(("track_file", Map(("weight", "0"))), ("link", "a b"))), ("peer", Map(("listen", "0.0.0.0:9108"))),
            ("handover", Map(("vips", List("10.0.0.100/24", "1.2")), ("deadline", "0s"))),
            Edge(("hooks", Map(("notify", List("notify")))), ("keepalived", Map(("instance", "a\"b"), ("role", "first"))))));

    [Theory]
    [InlineData("10.0.0.1:9108", "10.0.0.1:9108", "must not be peer.listen: it is the other node's")]
    [InlineData("10.0.0.1:9108", "[fd00::2]:9108", "must be of the same family as peer.listen: it is asked from there")]
    public void The_other_node_is_another_one_of_the_same_family(string listen, string address, string told) =>
        Assert.Equal([$"peer.address: \"{address}\" {told}"], All(("peer", Map(("listen", listen), ("address", address))), Pair("edge")));

    private static string[] All(params (string, object)[] root) => [.. Faults(root).Select(f => $"{f.Path}: {f.Message}")];
}
