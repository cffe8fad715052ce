using System.Collections.Immutable;
using System.Net;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Redirect;
using FlipController.Linux.Unmanaged;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Unmanaged;

public sealed class UnmanagedProofTests
{
    private static readonly PairPorts s_pair = new("edge", new PortBlock(21000, 10), new PortBlock(22000, 10));
    private static readonly Service s_web = new(IPAddress.IPv6Any, 80);

    [Fact(Timeout = 60000)]
    public async Task It_is_asked_past_the_redirect_while_everybody_else_meets_the_pair()
    {
        using var host = new UnmanagedHost();
        await host.HaproxyAsync(80, "-W", "-D", "-f", host.Configure("unmanaged", web: ":::80"));
        await host.HaproxyAsync(21000, "-D", "-f", host.Configure("pair", web: ":::21000", echo: null));
        Service[] fronts = [s_web, UnmanagedHost.Echo, new(IPAddress.Parse("10.9.0.1"), 80), new(IPAddress.Parse("10.9.0.77"), 80)];
        UnmanagedHaproxy haproxy = (await host.FindAsync(fronts)).Haproxy!;
        using NftRedirect redirect = Redirected(host, s_web);
        foreach (string address in (string[])["10.9.0.1", "127.0.0.1", "fd09::1", "::1"]) Assert.Equal("pair", host.Ask(address));
        Assert.Null(await ProveAsync(host, haproxy, fronts, Probe(200)));
        Assert.Equal("pair", host.Ask());

        // The pair would answer 200: what is asked is the unmanaged one.
        Assert.Contains("was answered 200, not 418-418", await DisproveAsync(host, haproxy, fronts, Probe(418)));

        // In soft stop with a connection: alive, and not listening.
        Socket open = host.Connect();
        UnmanagedHost.Talks(open);
        await host.StopAsync(haproxy);
        Assert.Equal($"{haproxy} did not prove within 500ms (gate.timeout) that it listens on the front addresses: "
            + $"{haproxy} does not listen on [::]:80, *:7, 10.9.0.1:80, 10.9.0.77:80", await DisproveAsync(host, haproxy, fronts));
        open.Dispose();
        await Eventually.True(() => !haproxy.Main.IsAlive, TimeSpan.FromSeconds(10), () => "still alive");
        Assert.Equal($"{haproxy} is not alive", await DisproveAsync(host, haproxy, fronts));
    }

    [Fact(Timeout = 60000)]
    public async Task A_table_of_an_earlier_version_is_completed_and_until_then_proves_nothing()
    {
        using var host = new UnmanagedHost();
        await host.HaproxyAsync(80, "-D", "-f", host.Configure("unmanaged", web: ":::80"));
        await host.HaproxyAsync(21000, "-D", "-f", host.Configure("pair", web: ":::21000", echo: null));
        UnmanagedHaproxy haproxy = (await host.FindAsync(s_web)).Haproxy!;
        using NftRedirect redirect = Redirected(host, s_web);
        host.Netns.Exec("nft", "flush chain inet flipcontroller output; "
            + "add rule inet flipcontroller output fib daddr type local jump services");
        Assert.Equal(1, redirect.ReadActive("edge"));
        Assert.False(redirect.ReadAll().ProbesPass);
        Assert.Contains("did not reach the front listener: it was redirected", await DisproveAsync(host, haproxy, [s_web]));
        redirect.EnsureBase([s_pair]);
        Assert.True(redirect.ReadAll().ProbesPass);
        Assert.Equal(1, redirect.ReadActive("edge"));
        Assert.Null(await ProveAsync(host, haproxy, [s_web]));
        Assert.Equal("pair", host.Ask());
    }

    private static ImmutableArray<Probe> Probe(int status) => [new HttpProbe("[::]:80", "/", null, status, status, false)];

    private static NftRedirect Redirected(UnmanagedHost host, Service service)
    {
        NftRedirect redirect = host.Netns.Run(NftRedirect.Open);
        redirect.EnsureBase([s_pair]);
        redirect.AddGeneration("edge", 1, 0x00100100, 0x00ffff00, [new ServicePort(service, 21000)]);
        Assert.Equal(0, redirect.PrepareSwitch("edge", 1).Commit());
        return redirect;
    }

    private static Task<string?> ProveAsync(
        UnmanagedHost host, UnmanagedHaproxy haproxy, Service[] services, ImmutableArray<Probe> probes = default) =>
        AskAsync(host, haproxy, services, probes, TimeSpan.FromSeconds(30), TimeProvider.System);

    private static Task<string?> DisproveAsync(
        UnmanagedHost host, UnmanagedHaproxy haproxy, Service[] services, ImmutableArray<Probe> probes = default) =>
        AskAsync(host, haproxy, services, probes, TimeSpan.FromMilliseconds(500), new PausesOnly());

    private static Task<string?> AskAsync(
        UnmanagedHost host, UnmanagedHaproxy haproxy, Service[] services, ImmutableArray<Probe> probes, TimeSpan timeout, TimeProvider time) =>
        host.InsideAsync(() => new UnmanagedProof(new GateOptions { Timeout = timeout, Probes = probes.IsDefault ? [] : probes }, time)
            .ProveAsync(haproxy, services, host.Progress.Add, TestContext.Current.CancellationToken));

    /// <summary>
    /// A clock for one who asks until a time is over, pausing in between: it goes on by the pauses alone, so that the time is never
    /// over before an answer has come, however slow the machine, and nobody waits for it.
    /// </summary>
    private sealed class PausesOnly : TimeProvider
    {
        private readonly Lock _lock = new();
        private readonly List<Wait> _waits = [];
        private TimeSpan _now;

        public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
        {
            lock (_lock)
            {
                var wait = new Wait(this, callback, state, _now + dueTime);
                _waits.Add(wait);
                if (_waits.Count == 1) return wait; // the end
                Wait first = _waits.MinBy(w => w.Due)!;
                _waits.Remove(first);
                _now = first.Due;
                ThreadPool.QueueUserWorkItem(_ => first.Callback(first.State));
                return wait;
            }
        }

        private sealed record Wait(PausesOnly Clock, TimerCallback Callback, object? State, TimeSpan Due) : ITimer
        {
            public bool Change(TimeSpan dueTime, TimeSpan period) => throw new NotSupportedException();

            public void Dispose()
            {
                lock (Clock._lock) Clock._waits.RemoveAll(w => ReferenceEquals(w, this));
            }

            public ValueTask DisposeAsync()
            {
                Dispose();
                return ValueTask.CompletedTask;
            }
        }
    }
}
