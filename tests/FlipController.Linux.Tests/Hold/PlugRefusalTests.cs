using System.Runtime.InteropServices;
using FlipController.Core;
using FlipController.Linux.Hold;
using FlipController.Linux.Tests.Kernel;
using Xunit;

namespace FlipController.Linux.Tests.Hold;

/// <summary>Where a plug hold cannot be: said in one sentence, and nothing of it is left. These need no sch_plug.</summary>
public sealed partial class PlugRefusalTests
{
    private const int Limit = 60_000;

    [Fact(Timeout = Limit)]
    public async Task A_device_of_its_name_that_is_not_ours_stays() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("t");
        network.Exec("ip", "link", "add", "flip-edge", "type", "ifb");
        Refused(network, Local, "cannot add device flip-edge: there is one of that name which is not ours, and it stays; nothing is held; rename it, or hold with a queue");
        Assert.Contains("flip-edge", network.Exec("ip", "link"));
    });

    [Fact(Timeout = Limit)]
    public async Task An_unknown_device_and_none_at_all_are_told() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("u");
        Refused(network, Incoming with { Devices = ["eth9"] },
            "cannot hold what comes in by eth9: there is no such device; nothing is held; `ip link` lists those there are");
        Refused(network, Incoming,
            "cannot hold what comes in: no device but lo is up; nothing is held; name one that is there, or hold local clients alone");
    });

    [Fact(Timeout = Limit)]
    public async Task Lanes_leave_a_root_qdisc_of_los_own_alone() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("r");
        network.Exec("tc", "qdisc", "add", "dev", "lo", "root", "handle", "7:", "htb");
        string before = network.Exec("tc", "qdisc", "show");
        Refused(network, Local, "cannot make lanes on lo: it has a root qdisc of its own (htb 7:), which stays; nothing is held; "
            + "hold local clients at lo's ingress instead, which is the default", lanes: true);
        Assert.Equal(before, network.Exec("tc", "qdisc", "show"));
    });

    [Fact(Timeout = Limit)]
    public async Task Without_rights_it_is_said_who_may() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("p");
        network.Run(DropCapabilities);
        FlipException refusal = Assert.ThrowsAny<FlipException>(() => network.Run(() => PlugHold.Prepare(Local)));
        Assert.Contains("EPERM", refusal.Message);
        Assert.EndsWith("; nothing is held; it needs CAP_NET_ADMIN: run it as root", refusal.Message);
        NothingOfOurs(network);
    });

    [Fact(Timeout = Limit)]
    public async Task Without_sch_plug_it_is_said_what_to_load() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("m");
        FlipException? refusal = network.Run(() =>
        {
            try
            {
                PlugHold.Prepare(Local).Dispose();
                return null;
            }
            catch (FlipException e)
            {
                return e;
            }
        });
        NothingOfOurs(network);
        if (refusal is null) Assert.Skip("this kernel has sch_plug");
        Assert.Equal("cannot add plug 1: at the root of flip-edge: ENOENT (Specified qdisc kind is unknown); nothing is held; "
            + "the kernel has no plug qdisc: load it (modprobe sch_plug), or hold with a queue", refusal.Message);
    });

    internal static HoldScope Local => new("edge", [80], Incoming: false, Local: true, TimeSpan.FromMilliseconds(900), []);

    internal static HoldScope Incoming => Local with { Incoming = true, Local = false };

    internal static void NothingOfOurs(TestNetwork network)
    {
        Assert.Empty(network.Exec("nft", "list", "ruleset"));
        Assert.DoesNotContain("flipcontroller", network.Exec("ip", "link"));
        Assert.DoesNotContain("plug", network.Exec("tc", "qdisc", "show"));
    }

    private static void Refused(TestNetwork network, HoldScope scope, string sentence, bool lanes = false)
    {
        FlipException refusal = Assert.ThrowsAny<FlipException>(() => network.Run(() => PlugHold.Prepare(scope, lanes)));
        Assert.Equal(sentence, refusal.Message);
        NothingOfOurs(network);
    }

    /// <summary>Of the calling thread alone: capset(2).</summary>
    private static unsafe void DropCapabilities()
    {
        uint* header = stackalloc uint[2] { 0x20080522, 0 }; // _LINUX_CAPABILITY_VERSION_3
        uint* none = stackalloc uint[6];
        new Span<uint>(none, 6).Clear();
        Assert.Equal(0, SetCapabilities(header, none));
    }

    [LibraryImport("libc", EntryPoint = "capset", SetLastError = true)]
    private static unsafe partial int SetCapabilities(uint* header, uint* data);
}
