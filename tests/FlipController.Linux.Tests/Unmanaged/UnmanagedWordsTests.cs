using FlipController.Core;
using FlipController.Linux.Unmanaged;
using Xunit;

namespace FlipController.Linux.Tests.Unmanaged;

public sealed class UnmanagedWordsTests
{
    [Theory]
    // Debian's unit on cgroup version 2, on 1, and on both at once.
    [InlineData("0::/system.slice/haproxy.service\n", "haproxy.service")]
    [InlineData("12:pids:/system.slice/haproxy.service\n4:memory:/system.slice/haproxy.service\n1:name=systemd:/system.slice/haproxy.service\n", "haproxy.service")]
    [InlineData("9:name=systemd:/system.slice/haproxy.service\n8:pids:/\n0::/\n", "haproxy.service")]
    // Seen with both mounted: nothing in systemd's own hierarchy.
    [InlineData("9:name=systemd:/\n8:pids:/system.slice/haproxy.service\n7:blkio:/\n0::/system.slice/haproxy.service\n", "haproxy.service")]
    // An instance, a slice of one's own, a delegated group below the unit.
    [InlineData("0::/system.slice/system-haproxy.slice/haproxy@edge.service\n", "haproxy@edge.service")]
    [InlineData("0::/front.slice/front-web.slice/haproxy.service/worker\n", "haproxy.service")]
    [InlineData("0::/haproxy.service\n", "haproxy.service")]
    // A shell, a user's manager, its service, su in a console.
    [InlineData("0::/user.slice/user-1000.slice/session-3.scope\n", null)]
    [InlineData("0::/user.slice/user-1000.slice/user@1000.service/app.slice/haproxy.service\n", null)]
    [InlineData("1:name=systemd:/user.slice/user-0.slice/session-c1.scope\n", null)]
    // Containers: Docker with cgroupfs and with systemd, podman, Kubernetes, LXC; and none at all.
    [InlineData("0::/docker/5f1c2a\n", null)]
    [InlineData("0::/system.slice/docker-5f1c2a.scope\n", null)]
    [InlineData("0::/machine.slice/libpod-5f1c2a.scope/container\n", null)]
    [InlineData("11:devices:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-5f1c2a.scope\n1:name=systemd:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-5f1c2a.scope\n", null)]
    [InlineData("0::/lxc.payload.web/system.slice/haproxy.service\n", null)]
    [InlineData("0::/../../init.scope\n", null)]
    [InlineData("9:name=systemd:/\n0::/\n", null)]
    [InlineData("", null)]
    public void The_unit_is_read_as_systemd_reads_it(string cgroup, string? unit) => Assert.Equal(unit, Systemd.UnitIn(cgroup));

    [Theory]
    [InlineData("-f a.cfg -db", false, "-D -f a.cfg")]
    [InlineData("-D -f a.cfg -p /run/h.pid -sf 12 13", false, "-D -f a.cfg -p /run/h.pid")]
    [InlineData("-Ws -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid -S /run/haproxy-master.sock -sf 99 -x sockpair@6", true,
        "-W -D -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid -S /run/haproxy-master.sock")]
    [InlineData("-sf 12 -f a.cfg -x /run/h.sock -st", false, "-D -f a.cfg")]
    [InlineData("-W -D -f -D -L -sf -n 100 -q -V", true, "-W -D -f -D -L -sf -n 100 -q -V")]
    [InlineData("-d -dM -dK -m 512 -- a.cfg -sf 3", false, "-D -dM -dK -m 512 -- a.cfg -sf 3")]
    [InlineData("", false, "-D")]
    public void It_is_started_again_as_a_daemon_without_its_past(string ran, bool master, string starts)
    {
        Assert.Equal(starts, string.Join(' ', StartArguments.Daemonised([.. Words(ran)], master)));
        Assert.Equal(starts[(master ? 5 : 2)..].Trim(), string.Join(' ', StartArguments.Check([.. Words(ran)])[1..]));
    }

    [Theory]
    [InlineData("-f a.cfg", false, false)]
    [InlineData("-W -f a.cfg -D", true, true)]
    [InlineData("-Ws -f a.cfg", false, true)]
    [InlineData("-D -f a.cfg -db", false, false)]
    [InlineData("-D -d -f a.cfg", false, false)]
    [InlineData("-f -D -x -W -L -Ws", false, false)]
    [InlineData("-- -D -W", false, false)]
    public void How_it_runs_is_read_from_its_options_and_not_from_their_values(string ran, bool daemon, bool master) =>
        Assert.Equal((daemon, master), (StartArguments.IsDaemon([.. Words(ran)]), StartArguments.HasMaster([.. Words(ran)])));

    [Theory]
    [InlineData("10.9.0.1:80", "10.9.0.1:80", true)]
    [InlineData("10.9.0.1:80", "*:80", true)]
    [InlineData("10.9.0.1:80", "[::]:80", true)]
    [InlineData("10.9.0.1:80", "[::]:80 v6only", false)]
    [InlineData("10.9.0.1:80", "10.9.0.2:80", false)]
    [InlineData("10.9.0.1:80", "*:81", false)]
    [InlineData("*:80", "10.9.0.1:80", false)]
    [InlineData("*:80", "*:80", true)]
    [InlineData("*:80", "[::]:80", true)]
    [InlineData("[fd09::1]:80", "*:80", false)]
    [InlineData("[fd09::1]:80", "[::]:80 v6only", true)]
    [InlineData("[::]:80", "[::]:80", true)]
    [InlineData("[::]:80", "[::]:80 v6only", false)]
    [InlineData("[::]:80", "[::]:80 v6only+*:80", true)]
    [InlineData("[::]:80 v6only", "[::]:80", true)]
    [InlineData("[::ffff:10.9.0.1]:80", "*:80", true)]
    public void A_front_address_is_served_by_itself_or_by_wildcards_that_have_it(string front, string listeners, bool covered) =>
        Assert.Equal(covered, UnmanagedSearch.Covered(Read(front), listeners.Split('+').Select(Read)));

    private static string[] Words(string line) => line.Split(' ', StringSplitOptions.RemoveEmptyEntries);

    private static Service Read(string text) => Service.TryParse(text, out Service? service) ? service : throw new FormatException(text);
}
