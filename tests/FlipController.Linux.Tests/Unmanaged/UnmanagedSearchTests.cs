using System.Net;
using System.Text.Json;
using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Linux.Unmanaged;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Unmanaged;

public sealed class UnmanagedSearchTests
{
    [Fact(Timeout = 60000)]
    public async Task Nobody_listens()
    {
        using var host = new UnmanagedHost();
        UnmanagedFinding found = await host.FindAsync();
        Assert.Null(found.Haproxy);
        Assert.Equal(UnmanagedHost.Fronts, found.Unserved.AsEnumerable());
        Assert.Empty(found.Refusals);
        Assert.False(found.IsWhole);
    }

    [Theory(Timeout = 60000)]
    [InlineData(false, "-db"), InlineData(false, "-D"), InlineData(true, "-W -D"), InlineData(true, "-W -db")]
    public async Task A_haproxy_is_found_as_it_was_started(bool master, string how)
    {
        using var host = new UnmanagedHost();
        string[] arguments = [.. how.Split(' '), "-f", host.Configure(), "-p", host.Directory["pid"]];
        await host.HaproxyAsync(80, arguments);
        UnmanagedFinding found = await host.FindAsync();
        Assert.True(found.IsWhole);
        UnmanagedHaproxy haproxy = found.Haproxy!;
        Assert.Equal(master, haproxy.IsMasterWorker);
        Assert.Equal(arguments, haproxy.Arguments.AsEnumerable());
        Assert.Equal(Environment.CurrentDirectory, haproxy.WorkingDirectory);
        Assert.Equal((null, 0u, false), (haproxy.Unit, haproxy.Uid, haproxy.OwnRoot));
        Assert.EndsWith("/haproxy", haproxy.Executable);
        Assert.Contains(haproxy.Environment, v => v.StartsWith("PATH=", StringComparison.Ordinal));
        Assert.Single(haproxy.Listening);

        UnmanagedHaproxy again = JsonSerializer.Deserialize<UnmanagedHaproxy>(JsonSerializer.Serialize(haproxy))!;
        Assert.Equal((haproxy.Main, haproxy.Executable, haproxy.Listening[0]), (again.Main, again.Executable, again.Listening[0]));
        Assert.Equal(haproxy.Environment.AsEnumerable(), again.Environment);

        // One of ours is not unmanaged.
        HashSet<int> ours = [haproxy.Main.Pid, .. haproxy.Listening.Select(p => p.Pid)];
        UnmanagedFinding without = await host.InsideAsync(() => host.Search.FindAsync(UnmanagedHost.Fronts, ours));
        Assert.Null(without.Haproxy);
        Assert.Empty(without.Refusals);
    }

    [Fact(Timeout = 60000)]
    public async Task Wildcards_and_addresses_of_both_families_are_told_apart()
    {
        using var host = new UnmanagedHost();
        await host.HaproxyAsync(7, "-D", "-f", host.Configure(web: ":::80", echo: "10.9.0.1:7"));
        Service four = new(IPAddress.Parse("10.9.0.1"), 80), six = new(IPAddress.Parse("fd09::1"), 80), all = new(IPAddress.IPv6Any, 80);
        Service any = new(IPAddress.Any, 7), this7 = new(IPAddress.Parse("10.9.0.1"), 7), six7 = new(IPAddress.Parse("fd09::1"), 7);
        Assert.True((await host.FindAsync(four, six, all, UnmanagedHost.Web, this7)).IsWhole);
        UnmanagedFinding part = await host.FindAsync(four, any, six7);
        Assert.Equal([four], part.Served.AsEnumerable());
        Assert.Equal([any, six7], part.Unserved.AsEnumerable());
        Assert.Empty(part.Refusals);
    }

    [Fact(Timeout = 60000)]
    public async Task A_second_haproxy_is_refused_by_name()
    {
        using var host = new UnmanagedHost();
        await host.HaproxyAsync(80, "-W", "-D", "-f", host.Configure("one", echo: null));
        await host.HaproxyAsync(7, "-D", "-f", host.Configure("two", web: "*:8080"));
        UnmanagedFinding found = await host.FindAsync();
        Assert.Contains(host.Directory["one.cfg"], found.Haproxy!.Arguments);
        Assert.Equal([UnmanagedHost.Echo], found.Unserved.AsEnumerable());
        string refusal = Assert.Single(found.Refusals);
        Assert.StartsWith("the front address *:7: process ", refusal);
        Assert.Contains($"(haproxy -D -f {host.Directory["two.cfg"]}) listens on it and is another HAProxy than process {found.Haproxy.Main.Pid} "
            + $"(haproxy -W -D -f {host.Directory["one.cfg"]})", refusal);
    }

    [Fact(Timeout = 60000)]
    public async Task A_foreigner_is_refused_by_name()
    {
        using var host = new UnmanagedHost();
        Require.Program("socat");
        await host.HaproxyAsync(80, "-D", "-f", host.Configure(echo: null));
        NetnsProcess foreigner = host.Netns.Start("socat", "TCP-LISTEN:7,fork,bind=10.9.0.1", "PIPE");
        await Eventually.True(() => host.Listens(7), TimeSpan.FromSeconds(20), "socat listens");
        UnmanagedFinding found = await host.FindAsync();
        Assert.NotNull(found.Haproxy);
        string refusal = Assert.Single(found.Refusals);
        Assert.Equal($"the front address *:7: process {foreigner.Pid} (socat TCP-LISTEN:7,fork,bind=10.9.0.1 PIPE) listens on 10.9.0.1:7, "
            + "which is no HAProxy and would lose its NEW connections; stop it, or take the address out of the configuration", refusal);
        Assert.Equal([UnmanagedHost.Echo], found.Unserved.AsEnumerable());
    }

    [Fact(Timeout = 60000)]
    public async Task After_a_reload_the_new_worker_listens_and_the_old_ones_connections_are_told()
    {
        using var host = new UnmanagedHost();
        await host.HaproxyAsync(80, "-W", "-D", "-f", host.Configure());
        UnmanagedHaproxy before = (await host.FindAsync()).Haproxy!;
        UnmanagedHost.Talks(host.Connect());
        UnmanagedHost.Talks(host.Connect(address: "127.0.0.1"));
        UnmanagedHaproxy after = await host.ReloadAsync(before);
        Assert.Equal(before.Main, after.Main);
        Assert.DoesNotContain(after.Environment, v => v.StartsWith("HAPROXY_", StringComparison.Ordinal));
        UnmanagedHost.Talks(host.Connect());
        HeldConnections[] expected = [new(before.Listening[0].Pid, 7, 2), new(after.Listening[0].Pid, 7, 1)];
        Assert.Equal(expected.OrderBy(h => h.Pid), host.Netns.Run(() => UnmanagedSearch.Connections(UnmanagedHost.Fronts, UnmanagedHost.Nobody)));
    }
}
