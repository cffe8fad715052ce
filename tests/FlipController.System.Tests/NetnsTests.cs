using System.Net;
using System.Net.Sockets;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>The ground the system tests stand on.</summary>
public sealed class NetnsTests
{
    private const int Deadline = 30_000;

    [Theory(Timeout = Deadline)]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Load_crosses_from_one_namespace_to_another(bool v6)
    {
        Require.Netns();
        using var pair = Netns.Pair();
        using var backend = Backend.Start(new BackendOptions { Namespace = pair.Server.Name, Listen = [new(v6 ? pair.ServerV6 : pair.ServerV4, 80)] });
        var options = new LoadOptions { Targets = backend.Endpoints, Rate = 200, Duration = TimeSpan.FromSeconds(0.5), Namespace = pair.Client.Name };
        var result = await LoadRun.RunAsync(options);
        Assert.True(result.Passed, result.ToJson());
    }

    [Fact(Timeout = Deadline)]
    public async Task One_namespace_s_loopback_is_not_another_s()
    {
        Require.Netns();
        using var here = Netns.Create();
        using var there = Netns.Create();
        using var backend = Backend.Start(new BackendOptions { Namespace = here.Name, Listen = [new(IPAddress.Loopback, 80)] });
        var options = new LoadOptions { Targets = backend.Endpoints, Rate = 100, Duration = TimeSpan.FromSeconds(0.2) };

        Assert.Equal(20, (await LoadRun.RunAsync(options with { Namespace = here.Name })).Ok);
        Assert.Equal(20, (await LoadRun.RunAsync(options with { Namespace = there.Name })).Refused);
    }

    [Fact(Timeout = Deadline)]
    public async Task A_socket_stays_in_the_namespace_it_was_opened_in()
    {
        Require.Netns();
        using var netns = Netns.Create();
        using var listener = netns.Run(() =>
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            socket.Bind(new IPEndPoint(IPAddress.Loopback, 7777));
            socket.Listen();
            return socket;
        });
        Assert.Contains("127.0.0.1:7777", netns.Exec("ss", "-Hltn"), StringComparison.Ordinal);

        using var client = netns.Run(() => new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp));
        var accepted = listener.AcceptAsync();
        await client.ConnectAsync(IPAddress.Loopback, 7777);
        (await accepted).Dispose();
    }

    [Fact(Timeout = Deadline)]
    public async Task Disposing_ends_what_runs_inside_even_what_daemonised_itself()
    {
        Require.Netns();
        var netns = Netns.Create();
        var direct = netns.Start("sleep", "600");
        netns.Exec("setsid", "--fork", "sleep", "601");
        await Eventually.True(() => netns.Exec("ip", "netns", "pids", netns.Name).Split('\n', StringSplitOptions.RemoveEmptyEntries).Length >= 2,
            TimeSpan.FromSeconds(10), "both sleepers should run");
        var pid = direct.Pid;
        netns.Dispose();

        await Eventually.True(() => !Directory.Exists($"/proc/{pid}"), TimeSpan.FromSeconds(10), "the sleeper lives");
        Assert.False(File.Exists($"/var/run/netns/{netns.Name}"));
    }

    [Fact]
    public void An_exception_inside_comes_out()
    {
        Require.Netns();
        using var netns = Netns.Create();
        Assert.Throws<InvalidOperationException>(() => netns.Run(() => throw new InvalidOperationException("inside")));
        var failed = Assert.Throws<InvalidOperationException>(() => netns.Ip("link", "set", "nosuch", "up"));
        Assert.Contains("nosuch", failed.Message, StringComparison.Ordinal);
    }
}
