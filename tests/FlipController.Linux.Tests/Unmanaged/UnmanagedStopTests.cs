using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Linux.Unmanaged;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Unmanaged;

/// <summary>There and back with HAProxys that nobody supervises, and with those that somebody does.</summary>
public sealed class UnmanagedStopTests
{
    [Theory(Timeout = 60000)]
    [InlineData("-db"), InlineData("-D"), InlineData("-W -D"), InlineData("-W -db")]
    public async Task Open_connections_outlive_the_stop_and_the_return(string how)
    {
        using var host = new UnmanagedHost();
        await host.HaproxyAsync(80, [.. how.Split(' '), "-f", host.Configure()]);
        UnmanagedHaproxy haproxy = (await host.FindAsync()).Haproxy!;
        Socket[] open = [.. Enumerable.Range(0, 20).Select(_ => host.Connect())];
        Assert.All(open, UnmanagedHost.Talks);

        StoppedHaproxy stopped = await host.StopAsync(haproxy);
        Assert.Equal((true, true), (stopped.WasListening, stopped.Alive));
        Assert.Equal([new HeldConnections(haproxy.Listening[0].Pid, 7, 20)], stopped.Connections.AsEnumerable());
        Assert.True(host.Refuses(7) && host.Refuses(80));
        Assert.All(open, UnmanagedHost.Talks);

        // Again: nothing happens, and that is said.
        stopped = await host.StopAsync(haproxy);
        Assert.Equal((false, true, 20), (stopped.WasListening, stopped.Alive, stopped.Connections.Single().Count));

        UnmanagedHaproxy back = await host.StartAsync(haproxy);
        Assert.Equal("haproxy", host.Ask());
        Socket fresh = host.Connect();
        UnmanagedHost.Talks(fresh);
        Assert.All(open, UnmanagedHost.Talks);
        Assert.Equal(haproxy.IsMasterWorker, back.IsMasterWorker);
        Assert.Equal(haproxy.IsMasterWorker, haproxy.Main == back.Main); // a master that finishes takes a new worker
        Assert.Equal(back.Main, (await host.StartAsync(haproxy)).Main); // and again: it is taken as it is

        // Once the last one has gone it is gone, and comes back from what is recorded alone.
        await host.StopAsync(back);
        Assert.All(open.Append(fresh), UnmanagedHost.Talks);
        foreach (Socket socket in open.Append(fresh)) socket.Dispose();
        await Eventually.True(() => !back.Main.IsAlive && !haproxy.Main.IsAlive, TimeSpan.FromSeconds(10), () => "still alive");
        stopped = await host.StopAsync(back);
        Assert.Equal((false, false), (stopped.WasListening, stopped.Alive));
        Assert.Empty(stopped.Connections);
        UnmanagedHaproxy third = await host.StartAsync(back);
        Assert.NotEqual(back.Main, third.Main);
        Assert.Equal(haproxy.IsMasterWorker, third.IsMasterWorker);
        Assert.Equal("haproxy", host.Ask());
    }

    [Fact(Timeout = 60000)]
    public async Task Workers_of_earlier_reloads_keep_their_connections_through_it()
    {
        using var host = new UnmanagedHost();
        await host.HaproxyAsync(80, "-W", "-D", "-f", host.Configure());
        UnmanagedHaproxy first = (await host.FindAsync()).Haproxy!;
        Socket old = host.Connect();
        UnmanagedHost.Talks(old);
        UnmanagedHaproxy haproxy = await host.ReloadAsync(first);
        Socket young = host.Connect();
        UnmanagedHost.Talks(young);

        // Also by what was found before the reload: the master is the same.
        StoppedHaproxy stopped = await host.StopAsync(first);
        Assert.True(stopped is { WasListening: true, Alive: true });
        Assert.Equal(2, stopped.Connections.Length);
        await host.StartAsync(haproxy);
        Socket youngest = host.Connect();
        Assert.All([old, young, youngest], UnmanagedHost.Talks);
        Assert.Equal(3, host.Netns.Run(() => UnmanagedSearch.Connections(UnmanagedHost.Fronts, UnmanagedHost.Nobody)).Length);
    }

    [Fact(Timeout = 60000)]
    public async Task Who_is_in_the_middle_of_opening_is_waited_for()
    {
        using var host = new UnmanagedHost();
        await host.HaproxyAsync(80, "-D", "-f", host.Configure());
        UnmanagedHaproxy haproxy = (await host.FindAsync()).Haproxy!;
        // The client's answers get lost on the way: the handshake stays half done.
        host.Netns.Exec("nft", "add table inet lossy; add chain inet lossy c { type filter hook output priority -200; }; "
            + "add rule inet lossy c tcp dport 7 tcp flags & (syn|ack) == ack drop");
        Socket opening = host.Connect();
        await Eventually.True(() => host.Netns.Run(() =>
        {
            using var sockets = new SockDiag();
            return sockets.HandshakesByPort(new PortBlock(7, 1)).GetValueOrDefault(7) == 1;
        }), TimeSpan.FromSeconds(20), () => "nobody is half-open");
        Task<StoppedHaproxy> stopping = host.StopAsync(haproxy);
        await Eventually.True(() => host.Progress.Count > 0 || stopping.IsCompleted, TimeSpan.FromSeconds(20), () => "it says nothing");
        Assert.Contains("not told to stop before 1 connections have been opened", host.Progress[0]);
        Assert.True(host.Listens(7));
        host.Netns.Exec("nft", "delete table inet lossy");
        Assert.True((await stopping).WasListening);
        UnmanagedHost.Talks(opening);
    }

    [Fact(Timeout = 60000)]
    public async Task It_is_told_to_stop_all_the_same_when_opening_takes_too_long()
    {
        using var host = new UnmanagedHost();
        await host.HaproxyAsync(80, "-D", "-f", host.Configure());
        UnmanagedHaproxy haproxy = (await host.FindAsync()).Haproxy!;
        host.Netns.Exec("nft", "add table inet lossy; add chain inet lossy c { type filter hook output priority -200; }; "
            + "add rule inet lossy c tcp dport 7 tcp flags & (syn|ack) == ack drop");
        host.Connect();
        var impatient = new UnmanagedStop(new Systemd("/bin/false", "/nowhere"), TimeProvider.System)
        {
            OpeningBound = TimeSpan.FromMilliseconds(200), ReturnWatch = TimeSpan.Zero,
        };
        Assert.True((await host.StopAsync(haproxy, impatient)).WasListening);
        Assert.Contains("is told to stop although 1 connections are still being opened", host.Progress[^1]);
    }

    [Fact(Timeout = 60000)]
    public async Task A_syn_that_found_the_accept_queue_full_is_still_expected_where_it_went()
    {
        using var host = new UnmanagedHost();
        // Connections are tracked from now on, as they are beside a pair.
        host.Netns.Exec("nft", "add table inet track; add chain inet track c { type nat hook output priority -105; }; "
            + "add rule inet track c ct state new counter");
        using Socket full = host.Netns.Run(() =>
        {
            var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            listener.Bind(new System.Net.IPEndPoint(System.Net.IPAddress.Any, 7));
            listener.Listen(1); // takes two, as sk_acceptq_is_full has it
            return listener;
        });
        host.Connect();
        host.Connect();
        using Socket waiting = host.Netns.Run(() =>
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { Blocking = false };
            try { socket.Connect("10.9.0.1", 7); }
            catch (SocketException e) when (e.SocketErrorCode is SocketError.WouldBlock or SocketError.InProgress) { }
            return socket;
        });
        await Eventually.True(() => host.Netns.Run(() => UnkeptSyns.Count() > 0), TimeSpan.FromSeconds(20), () => "nothing was dropped");
        int? opening = host.Netns.Run(() =>
        {
            using Conntrack conntrack = Conntrack.Open()!;
            Assert.Equal(0, conntrack.OpeningTo(new HashSet<int> { 80 }));
            using var sockets = new SockDiag();
            Assert.Empty(sockets.HandshakesByPort(new PortBlock(7, 1)));
            return conntrack.OpeningTo(new HashSet<int> { 7, 80 });
        });
        Assert.Equal(1, opening);
    }

    [Fact(Timeout = 60000)]
    public async Task A_supervisor_that_brings_it_back_is_named()
    {
        using var host = new UnmanagedHost();
        string run = host.Directory.Write("run.sh", $"#!/bin/bash\nwhile :; do haproxy -db -f {host.Configure()}; done\n");
        NetnsProcess supervisor = host.Netns.Start("bash", run);
        await Eventually.True(() => host.Listens(80), TimeSpan.FromSeconds(10), () => "it does not start");
        UnmanagedHaproxy haproxy = (await host.FindAsync()).Haproxy!;

        // With a connection it stays, and brings it back later: what can be known now is its parent.
        Socket open = host.Connect();
        UnmanagedHost.Talks(open);
        StoppedHaproxy stopped = await host.StopAsync(haproxy);
        Assert.True(stopped.Alive);
        Assert.StartsWith($"process {supervisor.Pid} (bash {run}) is the parent of HAProxy (process {haproxy.Main.Pid})", Assert.Single(stopped.Notes));
        open.Dispose();
        await Eventually.True(() => host.Listens(80), TimeSpan.FromSeconds(10), () => "it does not come back");

        haproxy = (await host.FindAsync()).Haproxy!;
        FlipException back = await Assert.ThrowsAsync<FlipException>(() => host.StopAsync(
            haproxy, new UnmanagedStop(new Systemd("/bin/false", "/nowhere"), TimeProvider.System) { ReturnWatch = TimeSpan.FromSeconds(10) }));
        Assert.Contains($"process {supervisor.Pid} (bash {run}) brings it back", back.Message);
        Assert.Contains("Tell whatever starts it not to", back.Message);
    }

    [Fact(Timeout = 60000)]
    public async Task A_file_that_is_not_valid_any_more_is_refused_in_haproxys_words()
    {
        using var host = new UnmanagedHost();
        await host.HaproxyAsync(80, "-W", "-D", "-f", host.Configure());
        UnmanagedHaproxy haproxy = (await host.FindAsync()).Haproxy!;
        Socket open = host.Connect();
        UnmanagedHost.Talks(open);
        await host.StopAsync(haproxy);
        string file = host.Configure(global: "no-such-thing");
        FlipException refused = await Assert.ThrowsAsync<FlipException>(() => host.StartAsync(haproxy));
        Assert.Contains($"its configuration is not valid now: parsing [{file}:2]", refused.Message);
        Assert.Contains("'no-such-thing'", refused.Message);
        UnmanagedHost.Talks(open);
        host.Configure();
        await host.StartAsync(haproxy);
        Assert.Equal("haproxy", host.Ask());
        UnmanagedHost.Talks(open);
    }

    [Fact(Timeout = 60000)]
    public async Task Whatever_was_done_before_a_kill_is_found_and_gone_on_from()
    {
        using var host = new UnmanagedHost();
        string file = host.Configure();
        await host.HaproxyAsync(80, "-D", "-f", file);
        UnmanagedHaproxy haproxy = (await host.FindAsync()).Haproxy!;
        Socket open = host.Connect();
        UnmanagedHost.Talks(open);
        // Killed right after the signal.
        Assert.True(haproxy.Listening[0].Signal(10)); // SIGUSR1
        Assert.True((await host.StopAsync(haproxy)).Alive);
        // Killed right after the program was started, or while it starts.
        NetnsProcess started = host.Netns.Start("haproxy", "-D", "-f", file);
        // Nobody can see that what is still another program will be a HAProxy.
        await Eventually.True(() => started.HasExited || HaproxyProcess.Read(started.Pid)?.IsHaproxy == true, TimeSpan.FromSeconds(10), () => "no HAProxy");
        UnmanagedHaproxy back = await host.StartAsync(haproxy);
        Assert.Equal(0, await started.Exit(TimeSpan.FromSeconds(10)));
        UnmanagedFinding found = await host.FindAsync();
        Assert.True(found.IsWhole, string.Join(" | ", found.Refusals));
        Assert.Equal(back.Main, found.Haproxy!.Main);
        Assert.Single(found.Haproxy.Listening);
        UnmanagedHost.Talks(open);
    }

    [Theory(Timeout = 60000)]
    [InlineData("-D"), InlineData("-W -D")]
    public async Task Who_is_found_while_it_starts_is_who_serves_in_the_end(string how)
    {
        using var host = new UnmanagedHost();
        CancellationToken stop = TestContext.Current.CancellationToken;
        string[] arguments = [.. how.Split(' '), "-f", host.Configure()];
        for (int birth = 0; birth < 10; birth++)
        {
            using NetnsProcess started = host.Netns.Start("haproxy", arguments);
            List<UnmanagedFinding> seen = await host.InsideAsync(async () =>
            {
                List<UnmanagedFinding> seen = [];
                for (bool over = false; !over || seen[^1] is not { IsWhole: true, IsStarting: false };)
                {
                    stop.ThrowIfCancellationRequested();
                    over = started.HasExited;
                    seen.Add(await host.Search.FindAsync(UnmanagedHost.Fronts, UnmanagedHost.Nobody, stop));
                }
                return seen;
            });
            UnmanagedHaproxy serves = seen[^1].Haproxy!;
            Assert.Equal(how == "-W -D", serves.IsMasterWorker);
            foreach (UnmanagedFinding found in seen)
            {
                Assert.Empty(found.Refusals);
                if (found is { Haproxy: { } haproxy, IsStarting: false })
                    Assert.Equal((serves.Main, serves.IsMasterWorker), (haproxy.Main, haproxy.IsMasterWorker));
            }
            await host.StopAsync(serves);
            await Eventually.True(() => !serves.Main.IsAlive, TimeSpan.FromSeconds(10), () => "still alive");
        }
    }

    [Fact(Timeout = 60000)]
    public async Task One_that_listens_on_a_part_gets_no_second_one_beside_it()
    {
        using var host = new UnmanagedHost();
        await host.HaproxyAsync(80, "-D", "-f", host.Configure(echo: null));
        UnmanagedHaproxy haproxy = (await host.FindAsync()).Haproxy!;
        FlipException refused = await Assert.ThrowsAsync<FlipException>(() => host.StartAsync(haproxy));
        Assert.Contains($"listens on *:80 and not on *:7, and another one beside it", refused.Message);
        refused = await Assert.ThrowsAsync<FlipException>(() => host.InsideAsync(() =>
            host.Start.RunAsync(null, null, [new Service(System.Net.IPAddress.Any, 81)], UnmanagedHost.Nobody, host.Progress.Add, default)));
        Assert.Contains("nobody listens on *:81 and nothing is known that could be started", refused.Message);
    }
}
