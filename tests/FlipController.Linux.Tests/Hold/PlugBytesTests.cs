using FlipController.Linux.Hold;
using FlipController.Linux.Kernel;
using Xunit;

namespace FlipController.Linux.Tests.Hold;

/// <summary>
/// What tc, ip (iproute2 6.1.0) and nl-qdisc-add (libnl 3.7.0) send, by <c>strace -e trace=sendmsg -e write=3</c>, their sequence
/// number as 0: device 2 is flip-edge, 1 is lo. Their commands stand beside each.
/// </summary>
public sealed class PlugBytesTests
{
    private const string Closed = "00000000 00000000", OneReleased = "01000000 00000000", Open = "02000000 00000000";

    private static readonly TcHandle One = new(1, 0);

    [Fact]
    public void A_plug_is_added_as_by_tc() => // tc qdisc add dev flip-edge root handle 1: plug limit 32768
        Same("3c000000 24000506 00000000 00000000 00000000 02000000 00000100 ffffffff 00000000"
            + "09000100 706c7567 00000000 0c000200 03000000 00800000",
            RouteNetlink.AddQdisc(2, TcHandle.Root, One, "plug", PlugQdisc.Option(PlugQdisc.Action.Limit, 32768)));

    [Theory]
    [InlineData((int)PlugQdisc.Action.Buffer, 0, Closed)] // tc qdisc change dev flip-edge root handle 1: plug block
    [InlineData((int)PlugQdisc.Action.ReleaseOne, 0, OneReleased)] // ... plug release
    [InlineData((int)PlugQdisc.Action.ReleaseIndefinite, 0, Open)] // ... plug release_indefinite
    [InlineData((int)PlugQdisc.Action.Limit, 65536, "03000000 00000100")] // ... plug limit 65536
    public void A_plug_is_changed_as_by_tc(int action, uint limit, string option) =>
        Same("3c000000 24000500 00000000 00000000 00000000 02000000 00000100 ffffffff 00000000 09000100 706c7567 00000000 0c000200" + option,
            RouteNetlink.ChangeQdisc(2, TcHandle.Root, One, "plug", PlugQdisc.Option((PlugQdisc.Action)action, limit)));

    [Theory]
    [InlineData((int)PlugQdisc.Action.Limit, 32768, "03000000 00800000")] // nl-qdisc-add --dev=flip-edge --parent=root --update-only plug --limit=32768
    [InlineData((int)PlugQdisc.Action.Buffer, 0, Closed)] // ... --buffer
    [InlineData((int)PlugQdisc.Action.ReleaseOne, 0, OneReleased)] // ... --release-one
    [InlineData((int)PlugQdisc.Action.ReleaseIndefinite, 0, Open)] // ... --release-indefinite
    public void A_plug_is_changed_as_by_libnl(int action, uint limit, string option)
    {
        byte[] ours = RouteNetlink.ChangeQdisc(2, TcHandle.Root, TcHandle.None, "plug", PlugQdisc.Option((PlugQdisc.Action)action, limit)).Bytes.ToArray();
        // libnl marks the options as nested attributes (0c000280), which they are not; the kernel does not look.
        Assert.Equal(0x02, ours[50]);
        ours[51] |= 0x80;
        Same("3c000000 24000500 00000000 00000000 00000000 02000000 00000000 ffffffff 00000000 09000100 706c7567 00000000 0c000280" + option, ours);
    }

    [Fact]
    public void The_messages_of_a_window_are_tcs()
    {
        using var route = new RouteNetlink();
        var plug = new PlugQdisc(route, new Link(2, "flip-edge", "ifb", null, null, true, false, true), TcHandle.Root, One);
        string change = "3c000000 24000500 00000000 00000000 00000000 02000000 00000100 ffffffff 00000000 09000100 706c7567 00000000 0c000200";
        Same(change + Closed, plug.CloseMessage); // tc qdisc change dev flip-edge root handle 1: plug block
        Same(change + Open, plug.OpenMessage); // tc qdisc change dev flip-edge root handle 1: plug release_indefinite
    }

    [Fact]
    public void A_plug_below_a_class_is_added_as_by_tc() => // tc qdisc add dev lo parent 8001:4 handle 8002: plug limit 1000000
        Same("3c000000 24000506 00000000 00000000 00000000 01000000 00000280 04000180 00000000"
            + "09000100 706c7567 00000000 0c000200 03000000 40420f00",
            RouteNetlink.AddQdisc(1, new TcHandle(0x8001, 4), new TcHandle(0x8002, 0), "plug", PlugQdisc.Option(PlugQdisc.Action.Limit, 1000000)));

    [Fact]
    public void A_mark_is_filtered_as_by_tc() => // tc filter add dev lo parent 8001: protocol all prio 1 handle 0x40000000/0x40000000 fw classid 8001:4
        Same("40000000 2c000506 00000000 00000000 00000000 01000000 00000040 00000180 00030100"
            + "07000100 66770000 14000200 08000500 00000040 08000100 04000180",
            RouteNetlink.AddFwFilter(1, new TcHandle(0x8001, 0), 1, 0x40000000, 0x40000000, new TcHandle(0x8001, 4)));

    [Fact]
    public void Devices_are_made_as_by_ip()
    {
        // ip link add flip-x txqueuelen 1000 type ifb
        Same("40000000 10000506 00000000 00000000 00000000 00000000 00000000 00000000"
            + "08000d00 e8030000 0b000300 666c6970 2d780000 0c001200 07000100 69666200", RouteNetlink.AddLink("flip-x", "ifb", 1000));
        // ip link set flip-edge up
        Same("20000000 10000500 00000000 00000000 00000000 02000000 01000000 01000000", RouteNetlink.SetUp(2));
        // ip link del flip-edge
        Same("20000000 11000500 00000000 00000000 00000000 02000000 00000000 00000000", RouteNetlink.DeleteLink(2));
    }

    [Fact]
    public void Qdiscs_are_listed_and_deleted_as_by_tc()
    {
        // tc -s qdisc show dev d0 (its flags, NLM_F_REQUEST | NLM_F_DUMP, are the socket's to add)
        Same("24000000 26000000 00000000 00000000 00000000 04000000 00000000 00000000 00000000", RouteNetlink.ListQdiscs(4));
        // tc qdisc del dev flip-edge root
        Same("24000000 25000500 00000000 00000000 00000000 02000000 00000000 ffffffff 00000000", RouteNetlink.DeleteQdisc(2, TcHandle.Root, TcHandle.None));
    }

    [Theory]
    [InlineData("root", 0xffffffffu, "root"), InlineData("1:", 0x10000u, "1:"), InlineData("8001:4", 0x80010004u, "8001:4"), InlineData("ffff:", 0xffff0000u, "ffff:")]
    public void A_handle_is_written_as_tc_writes_it(string text, uint value, string written)
    {
        Assert.Equal(value, TcHandle.Parse(text)!.Value.Value);
        Assert.Equal(written, TcHandle.Parse(text).ToString());
    }

    [Theory]
    [InlineData(""), InlineData("1"), InlineData(":1"), InlineData("10000:"), InlineData("1:2:3"), InlineData("x:"), InlineData("ffff:ffff")]
    public void What_is_no_handle_is_none(string text) => Assert.Null(TcHandle.Parse(text));

    [Theory]
    [InlineData("edge", "flip-edge"), InlineData("abcdefghij", "flip-abcdefghij"), InlineData("protect-31415", "flip-prote-"), InlineData("protect-31416", "flip-prote-")]
    public void A_device_has_a_name_that_fits(string owner, string begin)
    {
        Assert.StartsWith(begin, PlugHold.DeviceName(owner));
        Assert.InRange(PlugHold.DeviceName(owner).Length, 1, 15);
        Assert.NotEqual(PlugHold.DeviceName("protect-31415"), PlugHold.DeviceName("protect-31416"));
    }

    private static void Same(string expected, NetlinkMessage message) => Same(expected, message.Bytes.ToArray());

    private static void Same(string expected, byte[] message) => Assert.Equal(expected.Replace(" ", ""), Convert.ToHexStringLower(message));
}
