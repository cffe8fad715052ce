using System.Collections.Concurrent;
using System.Text.RegularExpressions;
using FlipController.Core.Keepalived;
using FlipController.Linux.Keepalived;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Keepalived;

/// <summary>keepalived itself, as the distribution has it, in a namespace.</summary>
public sealed partial class RealKeepalivedTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(20);

    public static TheoryData<string> Shipped => [.. Directory.EnumerateFiles(Path.Combine(Repository.Root, "config/keepalived"), "*.conf").Select(f => Path.GetFileName(f)).Order(StringComparer.Ordinal)];

    [Theory(Timeout = 60_000)]
    [MemberData(nameof(Shipped))]
    public Task A_configuration_that_is_shipped_has_no_fault_to_keepalived(string name)
    {
        Require.Netns();
        Require.Program("keepalived");
        using var files = new TempDir();
        using Netns netns = Netns.Create();
        foreach (string device in new[] { "eth0", "dummy0" })
        {
            netns.Ip("link", "add", device, "type", "bridge");
            netns.Ip("link", "set", device, "up");
        }
        netns.Ip("address", "add", name.StartsWith("node-a", StringComparison.Ordinal) ? "10.0.0.1/24" : "10.0.0.2/24", "dev", "eth0");
        // What is installed stands in for what will be.
        string text = File.ReadAllText(Path.Combine(Repository.Root, "config/keepalived", name)).Replace("/usr/sbin/flipctl", "/bin/true", StringComparison.Ordinal);
        netns.Exec("keepalived", "--config-test", "-f", files.Write("k.conf", text));
        return Task.CompletedTask;
    }

    [Fact(Timeout = 120_000)]
    public async Task Every_transition_that_it_logs_comes_through_its_FIFO_in_order_and_it_may_be_restarted()
    {
        Require.Netns();
        Require.Program("keepalived");
        const int toggles = 30;
        using var files = new TempDir();
        using Netns netns = Netns.Create();
        netns.Ip("link", "add", "eth0", "type", "bridge");
        netns.Ip("link", "set", "eth0", "up");
        netns.Ip("address", "add", "10.0.0.1/24", "dev", "eth0");
        var heard = new ConcurrentQueue<VrrpEvent>();
        var warned = new ConcurrentQueue<string>();
        using var stop = new CancellationTokenSource();
        var fifo = new NotifyFifo(files["vrrp.fifo"], heard.Enqueue, warned.Enqueue);
        Task reading = fifo.RunAsync(stop.Token);
        TrackFile.Write(files["track"], 0);
        // As it is shipped: weight 0, so that anything but 0 is a FAULT, which is over when it is 0 again.
        string text = File.ReadAllText(Path.Combine(Repository.Root, "config/keepalived/node-a.unicast.nopreempt.conf"))
            .Replace("/run/flipcontroller/vrrp.fifo", files["vrrp.fifo"], StringComparison.Ordinal)
            .Replace("/run/flipcontroller/keepalived.track", files["track"], StringComparison.Ordinal)
            .Replace("advert_int 1", "advert_int 0.1", StringComparison.Ordinal);
        string log = "";
        for (int run = 1; run <= 2; run++)
        {
            NetnsProcess keepalived = netns.Start("keepalived", "-n", "-l", "-D", "-G", "-P", "-f", files.Write("k.conf", text), "-p", files["k.pid"], "-r", files["v.pid"]);
            await Last(VrrpState.Master, keepalived);
            for (int i = 0; i < toggles / 2; i++)
            {
                TrackFile.Write(files["track"], 100);
                await Last(VrrpState.Fault, keepalived);
                TrackFile.Write(files["track"], 0);
                await Last(VrrpState.Master, keepalived);
            }
            keepalived.Terminate();
            await keepalived.Exit(s_patience);
            await Last(VrrpState.Stop, keepalived);
            log += keepalived.Errors + keepalived.Output;
        }
        await stop.CancelAsync();
        await reading;
        string[] logged = [.. Entering().Matches(log).Select(m => m.Groups[1].Value)];
        string[] told = [.. heard.Where(e => e.State is VrrpState.Master or VrrpState.Backup or VrrpState.Fault).Select(e => e.State.ToString().ToUpperInvariant())];
        Assert.True(logged.Length >= toggles * 2, log);
        Assert.Equal(logged, told);
        Assert.Equal(2, heard.Count(e => e.State == VrrpState.Stop));

        Task Last(VrrpState state, NetnsProcess keepalived) => Eventually.True(() => heard.LastOrDefault()?.State == state, s_patience,
            () => $"{state} should be heard last, not {heard.LastOrDefault()}; {string.Join("; ", warned)}\n{keepalived.Errors}{keepalived.Output}");
    }

    [GeneratedRegex(@"\(VI_1\) Entering (MASTER|BACKUP|FAULT) STATE")]
    private static partial Regex Entering();
}
