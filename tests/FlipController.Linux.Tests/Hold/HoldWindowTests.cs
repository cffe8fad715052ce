using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Hold;
using FlipController.Linux.Kernel;
using FlipController.Linux.Redirect;
using FlipController.Linux.Tests.Kernel;
using FlipController.Tests.Shared;
using Xunit;
using Eventually = FlipController.Linux.Tests.Kernel.Eventually;

namespace FlipController.Linux.Tests.Hold;

/// <summary>A flip as the daemon makes it: hold, one rule, release, between two servers that stay.</summary>
public sealed class HoldWindowTests
{
    private const string Pair = "edge";

    [Fact(Timeout = 120000)]
    public Task Flips_under_load_with_a_queue_lose_nothing() => FlipsAsync("queue", flips: 60);

    [Fact(Timeout = 300000), Trait("needs", "plug")]
    public Task Flips_under_load_with_a_plug_lose_nothing()
    {
        Require.Plug();
        return FlipsAsync("plug", flips: 15);
    }

    private static async Task FlipsAsync(string method, int flips) => await Task.Run(() =>
    {
        using HeldNetwork network = new(80);
        NftRedirect redirect = Redirect(network);
        using var stop = new CancellationTokenSource();
        var answers = new ConcurrentDictionary<string, int>();
        Task[] clients = [.. Clients(network, answers, stop.Token)];
        try
        {
            long held = 0;
            List<double> windows = [];
            for (int i = 0; i < flips; i++)
            {
                int had = answers.Values.Sum();
                string side = i % 2 == 0 ? "two" : "one";
                HoldWindow window = network.Server.Run(() =>
                {
                    using FlipController.Linux.Hold.Hold hold = HoldChoice.Prepare(method, HeldNetwork.Scope(Pair, 80) with { MeetsNewRules = true }).Hold;
                    PreparedSwitch change = redirect.PrepareSwitch(Pair, i % 2 == 0 ? 2 : 1);
                    hold.Rehearse();
                    change.Rehearse();
                    using DeadMan guard = DeadMan.Arm(hold.ForcedOpenings, hold.Scope.Max);
                    var window = new HoldWindow(hold, change.Commit, mayGoWithout: false, guard);
                    window.Run();
                    guard.Disarm();
                    HoldReport report = window.Report(guard.HasFired);
                    Assert.Equal((method, null), (report.Method, report.Remark));
                    held += report.Held;
                    windows.Add(window.Elapsed.TotalMicroseconds);
                    return window;
                });
                Assert.True(window.IsDone);
                Assert.Equal(side, network.Client.Ask("10.9.0.1", 80));
                if (i % 10 == 0) Eventually.True(() => answers.Values.Sum() > had + 5, "the clients go on");
            }
            windows.Sort();
            TestContext.Current.TestOutputHelper?.WriteLine(
                $"FIGURE {method}: {flips} windows, p50 {windows[flips / 2]:0} us, p99 {windows[flips * 99 / 100]:0} us; {held} of {answers.Values.Sum()} connections waited");
        }
        finally
        {
            stop.Cancel();
            Task.WaitAll(clients); // and what failed in one of them fails here
        }
        Assert.Equal(["one", "two"], answers.Keys.Order());
        Assert.False(network.HasTable);
    });

    /// <summary>Remote and local ones of both families, each with one new connection after the other. Any failure ends it.</summary>
    private static IEnumerable<Task> Clients(HeldNetwork network, ConcurrentDictionary<string, int> answers, CancellationToken stop)
    {
        foreach ((TestNetwork from, string address) in ((TestNetwork, string)[])
            [(network.Client, "10.9.0.1"), (network.Client, "fd09::1"), (network.Server, "127.0.0.1"), (network.Server, "::1")])
        {
            yield return Task.Factory.StartNew(() =>
            {
                while (!stop.IsCancellationRequested) answers.AddOrUpdate(from.Ask(address, 80), 1, (_, n) => n + 1);
            }, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        }
    }

    private static NftRedirect Redirect(HeldNetwork network)
    {
        NftRedirect redirect = network.Server.Own(NftRedirect.Open);
        network.Server.Serve("::", 21000, "one", dual: true);
        network.Server.Serve("::", 22000, "two", dual: true);
        redirect.EnsureBase([new PairPorts(Pair, new PortBlock(21000, 1), new PortBlock(22000, 1))]);
        foreach ((int number, int port) in ((int, int)[])[(1, 21000), (2, 22000)])
            redirect.AddGeneration(Pair, number, (uint)number << 8, 0x00ffff00, [new ServicePort(new Service(IPAddress.IPv6Any, 80), port)]);
        Assert.Equal(0, redirect.PrepareSwitch(Pair, 1).Commit());
        return redirect;
    }

    [Fact(Timeout = 60000)]
    public async Task Nothing_is_allocated_between_its_close_and_its_open() => await Task.Run(() =>
    {
        using HeldNetwork network = new(80);
        NftRedirect redirect = Redirect(network);
        network.Server.Run(() =>
        {
            using QueueHold hold = QueueHold.Prepare(HeldNetwork.Scope(Pair, 80));
            PreparedSwitch there = redirect.PrepareSwitch(Pair, 2);
            hold.Rehearse();
            there.Rehearse();
            using DeadMan guard = DeadMan.Arm(hold.ForcedOpenings, hold.Scope.Max);
            var window = new HoldWindow(hold, there.Commit, mayGoWithout: false, guard);
            window.Run(); // the first one of the process compiles it, as the daemon's rehearsal does
            long before = GC.GetAllocatedBytesForCurrentThread();
            window.Run();
            Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
            Assert.True(window.IsDone);
        });
    });

    [Fact(Timeout = 60000)]
    public async Task A_window_that_comes_after_its_guards_time_keeps_nobody_waiting() => await Task.Run(() =>
    {
        using HeldNetwork network = new(80);
        NftRedirect redirect = Redirect(network);
        HoldReport report = network.Server.Run(() =>
        {
            using QueueHold hold = QueueHold.Prepare(HeldNetwork.Scope(Pair, 80) with { Max = TimeSpan.FromMilliseconds(10) });
            using DeadMan guard = DeadMan.Arm(hold.ForcedOpenings, hold.Scope.Max);
            Eventually.True(() => guard.HasFired, "the guard's time is over");
            bool waits = true;
            var window = new HoldWindow(hold, () =>
            {
                // In the very window somebody connects, and does not wait.
                waits = network.Client.Ask("10.9.0.1", 80) != "one";
                return redirect.PrepareSwitch(Pair, 2).Commit();
            }, mayGoWithout: false, guard);
            window.Run();
            Assert.True(window.IsDone);
            Assert.False(waits);
            return window.Report(guard.HasFired);
        });
        Assert.Contains("it was opened from outside", report.Remark, StringComparison.Ordinal);
        Assert.Equal("two", network.Client.Ask("10.9.0.1", 80));
    });
}
