using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>flipctl plug, in a network namespace of its own.</summary>
public sealed class PlugVerbTests
{
    private const int Limit = 240_000;

    [Fact(Timeout = Limit)]
    public async Task What_cannot_be_is_refused_and_nothing_changes()
    {
        Require.Netns();
        using Netns netns = Netns.Create();
        Assert.Equal(new Ran(1, "", "flipctl: there is no device eth9; nothing was changed; `ip link` lists those there are\n"), await PlugAsync(netns, "attach", "--dev", "eth9"));
        Assert.Equal(new Ran(3, "", "flipctl: plug buffer: there is no plug at the root of lo; nothing was changed; `flipctl plug attach --dev lo` puts one there\n"),
            await PlugAsync(netns, "buffer", "--dev", "lo"));
        netns.Exec("tc", "qdisc", "add", "dev", "lo", "root", "handle", "7:", "htb");
        string before = netns.Exec("tc", "qdisc", "show", "dev", "lo");
        Assert.Equal(new Ran(3, "", "flipctl: plug attach: htb 7: stands at the root of lo; nothing was changed; --replace removes it, and all below it\n"),
            await PlugAsync(netns, "attach", "--dev", "lo"));
        Assert.Equal(before, netns.Exec("tc", "qdisc", "show", "dev", "lo"));
        Assert.Equal(new Ran(0, "lo has no plug\n", ""), await PlugAsync(netns, "show", "--dev", "lo"));
    }

    [Fact(Timeout = Limit)]
    [Trait("needs", "plug")]
    public async Task A_plug_is_attached_closed_looked_at_and_detached()
    {
        Require.Plug();
        using Netns netns = Netns.Create();
        Assert.Equal(new Ran(0, "plug 4600: is attached at the root of lo, open\n", ""), await PlugAsync(netns, "attach", "--dev", "lo", "--limit", "100000"));
        Assert.Equal(0, (await PlugAsync(netns, "buffer", "--dev", "lo")).ExitCode);
        netns.Exec("bash", "-c", "echo waits >/dev/udp/127.0.0.1/9");
        Assert.Equal(new Ran(0, """[{"device":"lo","place":"root","handle":"4600:","packets":1,"bytes":48,"dropped":0}]""" + "\n", ""),
            await PlugAsync(netns, "show", "--dev", "lo", "--json"));
        Assert.Equal(new Ran(0, "no plug at the root of lo any more; 1 packet had waited and went on\n", ""), await PlugAsync(netns, "detach", "--dev", "lo"));
        Assert.Contains("noqueue", netns.Exec("tc", "qdisc", "show", "dev", "lo"));
    }

    /// <summary>With more patience than flipctl needs: an emulated machine reads it from another's disk.</summary>
    private static async Task<Ran> PlugAsync(Netns netns, params string[] arguments)
    {
        using NetnsProcess flipctl = netns.Start(FlipctlProcess.Flipctl, ["plug", .. arguments]);
        int code = await flipctl.Exit(TimeSpan.FromSeconds(90));
        return new Ran(code, flipctl.Output, flipctl.Errors);
    }
}
