using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Unmanaged;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Unmanaged;

/// <summary>A HAProxy of systemd's, as far as a stand-in for systemd can tell; the HAProxy is real.</summary>
public sealed class UnmanagedUnitTests
{
    private const string Unit = "haproxy.service";

    [Fact(Timeout = 60000)]
    public async Task A_unit_finishes_without_being_restarted_and_comes_back_with_its_open_connections()
    {
        using var host = new UnmanagedHost();
        (StandInSystemd systemd, UnmanagedStop stop, UnmanagedStart start) = Make(host);
        UnmanagedHaproxy haproxy = await StartedAsync(host, systemd);
        Assert.Equal(Unit, haproxy.Unit);
        Assert.True(haproxy.IsMasterWorker);
        Assert.DoesNotContain(haproxy.Environment, v => v.StartsWith("NOTIFY_SOCKET", StringComparison.Ordinal));
        Socket open = host.Connect();
        UnmanagedHost.Talks(open);

        StoppedHaproxy stopped = await host.StopAsync(haproxy, stop);
        Assert.True(stopped is { WasListening: true, Alive: true });
        Assert.Empty(stopped.Notes);
        Assert.True(File.Exists(systemd.DropIn));
        // Longer than the unit's TimeoutStopSec: it was not taken for one that stops.
        await Task.Delay(TimeSpan.FromSeconds(1.5), TestContext.Current.CancellationToken);
        UnmanagedHost.Talks(open);
        Assert.False((await host.StopAsync(haproxy, stop)).WasListening);

        UnmanagedHaproxy back = await host.StartAsync(haproxy, by: start);
        Assert.Equal((haproxy.Main, Unit), (back.Main, back.Unit));
        Assert.False(Directory.Exists(Path.GetDirectoryName(systemd.DropIn)));
        Assert.Equal("haproxy", host.Ask());
        UnmanagedHost.Talks(open);
        Assert.Contains($"reload {Unit}", systemd.Asked);
        Assert.Equal("always", (await ShowAsync(host, systemd)).Restart);

        // With nobody left it ends, stays down, and is started.
        open.Dispose();
        await host.StopAsync(back, stop);
        await Eventually.True(() => !back.Main.IsAlive, TimeSpan.FromSeconds(10), () => "it does not end");
        await Eventually.True(async () => (await ShowAsync(host, systemd)).ActiveState == "inactive", TimeSpan.FromSeconds(20), () => "not inactive");
        Assert.True(host.Refuses(80));
        back = await host.StartAsync(back, by: start);
        Assert.Equal(Unit, back.Unit);
        Assert.Equal("haproxy", host.Ask());
    }

    [Fact(Timeout = 60000)]
    public async Task Without_the_drop_in_the_unit_would_be_cut_and_restarted()
    {
        using var host = new UnmanagedHost();
        (StandInSystemd systemd, _, _) = Make(host);
        UnmanagedHaproxy haproxy = await StartedAsync(host, systemd);
        Socket open = host.Connect();
        UnmanagedHost.Talks(open);
        Assert.True(haproxy.Main.Signal(10)); // SIGUSR1
        await Eventually.True(() => !haproxy.Main.IsAlive, TimeSpan.FromSeconds(10), () => "it is not killed");
        Assert.ThrowsAny<Exception>(() => UnmanagedHost.Talks(open));
        await Eventually.True(() => host.Listens(80), TimeSpan.FromSeconds(10), () => "it is not restarted");
    }

    [Fact(Timeout = 60000)]
    public async Task Every_piece_can_be_done_again()
    {
        using var host = new UnmanagedHost();
        (StandInSystemd systemd, UnmanagedStop stop, UnmanagedStart start) = Make(host);
        UnmanagedHaproxy haproxy = await StartedAsync(host, systemd);
        Socket open = host.Connect();
        UnmanagedHost.Talks(open);
        // Killed when the drop-in stood and systemd had not read it; then when it had.
        Directory.CreateDirectory(Path.GetDirectoryName(systemd.DropIn)!);
        await File.WriteAllTextAsync(systemd.DropIn, "[Service]\nRestart=no\n", TestContext.Current.CancellationToken);
        await InsideAsync(host, () => systemd.Systemd.LetFinishAsync(Unit, default));
        await InsideAsync(host, () => systemd.Systemd.LetFinishAsync(Unit, default));
        Assert.True((await host.StopAsync(haproxy, stop)).WasListening);
        // Killed when the drop-in was gone and systemd had not noticed; then when it serves and nobody had looked.
        File.Delete(systemd.DropIn);
        UnmanagedHaproxy back = await host.StartAsync(haproxy, by: start);
        Assert.Equal("always", (await ShowAsync(host, systemd)).Restart);
        Assert.Equal(back.Main, (await host.StartAsync(haproxy, by: start)).Main);
        UnmanagedHost.Talks(open);
        // Killed between the end of a stop and a return that found it served: the drop-in goes nevertheless.
        await InsideAsync(host, () => systemd.Systemd.LetFinishAsync(Unit, default));
        await host.StartAsync(haproxy, by: start);
        Assert.Equal("always", (await ShowAsync(host, systemd)).Restart);
    }

    [Fact(Timeout = 60000)]
    public async Task A_unit_that_does_not_start_says_why()
    {
        using var host = new UnmanagedHost();
        (StandInSystemd systemd, UnmanagedStop stop, UnmanagedStart start) = Make(host);
        UnmanagedHaproxy haproxy = await StartedAsync(host, systemd);
        await host.StopAsync(haproxy, stop);
        await Eventually.True(() => !haproxy.Main.IsAlive, TimeSpan.FromSeconds(10), () => "it does not end");
        host.Configure(global: "no-such-thing");
        FlipException refused = await Assert.ThrowsAsync<FlipException>(() => host.StartAsync(haproxy, by: start));
        Assert.StartsWith($"{Unit} could not be started: cannot run ", refused.Message);
        Assert.Contains("'no-such-thing'", refused.Message);
        host.Configure();
        Assert.Equal(Unit, (await host.StartAsync(null, Unit, start)).Unit); // by its name alone
    }

    [Fact(Timeout = 60000)]
    public async Task One_started_by_hand_in_a_units_group_is_not_the_units()
    {
        using var host = new UnmanagedHost();
        var systemd = new StandInSystemd(host);
        await host.HaproxyAsync(80, "-D", "-f", host.Configure());
        UnmanagedFinding found = await host.InsideAsync(() =>
            new UnmanagedSearch(systemd.Systemd).FindAsync(UnmanagedHost.Fronts, UnmanagedHost.Nobody));
        Assert.Null(found.Haproxy!.Unit);
    }

    [Fact(Timeout = 60000)]
    public async Task A_drop_in_that_does_not_count_is_told_before_anything_stops()
    {
        using var host = new UnmanagedHost();
        (StandInSystemd systemd, UnmanagedStop stop, _) = Make(host);
        UnmanagedHaproxy haproxy = await StartedAsync(host, systemd);
        Directory.CreateDirectory(Path.GetDirectoryName(systemd.DropIn)!);
        await File.WriteAllTextAsync(Path.Combine(Path.GetDirectoryName(systemd.DropIn)!, "99-mine.conf"), "[Service]\nRestart=always\n",
            TestContext.Current.CancellationToken);
        FlipException refused = await Assert.ThrowsAsync<FlipException>(() => host.StopAsync(haproxy, stop));
        Assert.Contains($"{Unit} still has Restart=always", refused.Message);
        Assert.Equal("haproxy", host.Ask());
    }

    private static (StandInSystemd, UnmanagedStop, UnmanagedStart) Make(UnmanagedHost host)
    {
        var systemd = new StandInSystemd(host);
        return (systemd,
            new UnmanagedStop(systemd.Systemd, TimeProvider.System) { ReturnWatch = TimeSpan.FromMilliseconds(500) },
            new UnmanagedStart(systemd.Systemd, TimeProvider.System) { ListenBound = TimeSpan.FromSeconds(10) });
    }

    private static async Task<UnmanagedHaproxy> StartedAsync(UnmanagedHost host, StandInSystemd systemd)
    {
        host.Configure();
        await InsideAsync(host, () => systemd.Systemd.ServeAsync(Unit, default));
        UnmanagedFinding found = await host.InsideAsync(() =>
            new UnmanagedSearch(systemd.Systemd).FindAsync(UnmanagedHost.Fronts, UnmanagedHost.Nobody));
        Assert.True(found.IsWhole);
        return found.Haproxy!;
    }

    private static Task<UnitState> ShowAsync(UnmanagedHost host, StandInSystemd systemd) =>
        host.InsideAsync(() => systemd.Systemd.ShowAsync(Unit, default));

    private static Task InsideAsync(UnmanagedHost host, Func<Task> work) => host.InsideAsync(async () =>
    {
        await work();
        return true;
    });
}
