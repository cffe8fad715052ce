using System.Globalization;
using System.Net.Sockets;
using System.Text;
using FlipController.Core;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>One fault each, under load: what happened to traffic, for how long, and what was said. The README's table is made of these.</summary>
public sealed class FaultTests
{
    [Fact(Timeout = 60_000)]
    public async Task The_active_one_is_killed_at_rest()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        await using LoadRun load = await StartedAsync(pair.Load(500) with { Expect = Expectation.Any });
        Signals.Send((await pair.StatusAsync()).Active!.Pid, Kill);
        await pair.UntilAsync(s => s is { State: "steady", Active.Number: 2 }, "another should serve");
        await OnlyMeanwhileAsync(pair, load, "the active generation is killed");
        await pair.SaysAsync("generation 1, which had the traffic, died .process [0-9]+.; NEW connections wait for another to start");
    }

    [Fact(Timeout = 60_000)]
    public async Task The_active_one_is_stopped_at_rest()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        HeldConnection held = await pair.HoldAsync();
        await using LoadRun load = await StartedAsync(pair.Load(500) with { Expect = Expectation.Any });
        int stopped = (await pair.StatusAsync()).Active!.Pid;
        Signals.Send(stopped, Signals.Stop);
        PairStatus after = await pair.UntilAsync(s => s is { State: "steady", Active.Number: 2 }, "another should serve");
        Assert.Equal(stopped, Assert.Single(after.Retired).Pid);
        await pair.SaysAsync("generation 1, which has the traffic, was stopped by a signal .process [0-9]+.; another is started beside it");
        Assert.Equal("v1", await pair.ServedByAsync());
        // What is connected to it waits with it and goes on with it.
        Signals.Send(stopped, Signals.Continue);
        await held.StaysAsync();
        await OnlyMeanwhileAsync(pair, load, "the active generation is stopped (SIGSTOP)");
        held.Dispose();
        await pair.UntilAsync(s => s.Retired.IsEmpty, "it should drain");
    }

    [Fact(Timeout = 60_000)]
    public async Task The_active_ones_admin_socket_falls_silent()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        HeldConnection held = await pair.HoldAsync();
        await using LoadRun load = await StartedAsync(pair.Load(500) with { Expect = Expectation.Any });
        string admin = Directory.GetFiles(pair.Files["run/edge"], "g00001.sock", SearchOption.AllDirectories).Single();
        File.Move(admin, admin + ".away");
        // Somebody who takes every question and answers none.
        using var silent = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        silent.Bind(new UnixDomainSocketEndPoint(admin));
        silent.Listen(100);
        await pair.UntilAsync(s => s is { State: "steady", Active.Number: 2 }, "another should serve");
        await pair.SaysAsync("generation 1, which has the traffic, has not answered on its admin socket for [0-9]+ s .process [0-9]+.; another is started beside it");
        await held.StaysAsync();
        await PassedAsync(load);
    }

    [Fact(Timeout = 60_000)]
    public async Task The_active_one_takes_no_more_connections()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        const string full = "maxconn 10", room = "maxconn 4000";
        await pair.FlipByEditAsync(Config("v2").Replace(room, full, StringComparison.Ordinal));
        List<HeldConnection> held = [];
        for (int i = 0; i < 10; i++) held.Add(await pair.HoldAsync());
        // It is out of what a connection costs: whoever comes waits in the kernel, and is not answered.
        Task<HeldConnection> waits = pair.HoldAsync();
        await pair.FlipByEditAsync(Config("v3"));
        Assert.Equal("v3", await pair.ServedByAsync());
        Assert.False(waits.IsCompleted);
        // It is not told to stop before that one is in, too.
        held[0].Dispose();
        HeldConnection late = await waits;
        Assert.Equal("v2", late.ServedBy);
        foreach (HeldConnection connection in held.Skip(1).Append(late)) await connection.StaysAsync();
        foreach (HeldConnection connection in held.Append(late)) connection.Dispose();
        await pair.UntilAsync(s => s is { State: "steady", Retired: [] }, "all should drain");
    }

    [Fact(Timeout = 60_000)]
    public async Task The_new_one_is_stopped_in_the_undo_window()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { Watch = "{ undo: 60s }" });
        await using LoadRun load = await StartedAsync(pair.Load(500) with { Expect = Expectation.Any });
        PairStatus flipped = await pair.FlipByEditAsync(Config("v2"));
        Signals.Send(flipped.Active!.Pid, Signals.Stop);
        await pair.UntilAsync(s => s is { Active.Number: 1, LastFlip.Outcome: "returned" }, "traffic should go back");
        Signals.Send(flipped.Active.Pid, Signals.Continue);
        await OnlyMeanwhileAsync(pair, load, "the new generation is stopped in the undo window");
        await pair.SaysAsync("generation 2 was stopped by a signal");
    }

    [Fact(Timeout = 120_000)]
    public async Task One_that_dies_again_and_again_is_named_and_started_later_and_later()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        for (int death = 1; death <= 3; death++)
        {
            int number = death;
            PairStatus before = await pair.UntilAsync(s => s is { State: "steady", Active: { } a } && a.Number == number, "it should serve again");
            Signals.Send(before.Active!.Pid, Kill);
        }
        await pair.SaysAsync("crash loop: generation 3, which had the traffic, died .* as 2 in a row before it did; it is started again later and later");
        PairStatus after = await pair.UntilAsync(s => s is { State: "steady", Active.Number: 4 }, "it should serve again");
        Signals.Send(after.Active!.Pid, Kill);
        await pair.SaysAsync("as 3 in a row before it did");
        // A change does not wait for its turn, and counts anew.
        Assert.Equal("v2", await pair.FlippedAsync("v2"));
        GenerationStatus fifth = (await pair.UntilAsync(s => s.State == "steady", "it should rest")).Active!;
        Signals.Send(fifth.Pid, Kill);
        await pair.UntilAsync(s => s is { State: "steady", Fault: null, Active: { } a } && a.Number > fifth.Number, "it should serve again");
        Assert.Equal("v2", await pair.ServedByAsync());
    }

    [Theory(Timeout = 60_000)]
    [InlineData(true), InlineData(false)]
    public async Task The_state_cannot_be_saved(bool full)
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(before: p =>
        {
            if (!full) return;
            Directory.CreateDirectory(p.Files["state"]);
            Command.Run("mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "flip-state", p.Files["state"]);
        });
        string state = pair.Files["state"], fill = Path.Combine(state, "fill"), directory = Path.Combine(state, "pairs", PairUnderTest.Name);
        try
        {
            await using LoadRun load = await StartedAsync(pair.Load(500));
            HeldConnection held = await pair.HoldAsync();
            if (full) Fill(fill);
            else Command.Run("chattr", "+i", directory); // what even root cannot write to
            pair.Write(Config("v2"));
            PairStatus stays = await pair.UntilAsync(s => s.Fault is not null, "it should say so");
            Assert.Contains("the state cannot be saved", stays.Fault, StringComparison.Ordinal);
            Assert.Equal(1, stays.Active!.Number);
            Said asked = await pair.FlipctlAsync("flip", PairUnderTest.Name);
            Assert.Equal(1, asked.ExitCode);
            Assert.Contains("the state cannot be saved", asked.Error, StringComparison.Ordinal);
            if (full)
            {
                // Killed and started meanwhile it serves all the same.
                await pair.EndDaemonAsync(Kill);
                pair.StartDaemon();
                await pair.UntilAsync(s => s is { State: "steady", Active.Number: 1 }, "it should be back");
                File.Delete(fill);
            }
            else
            {
                Command.Run("chattr", "-i", directory);
            }
            // The change that could not begin does, once there is room.
            await Eventually.True(async () => await pair.ServedByAsync() == "v2", Patience, () => pair.DaemonLog);
            await pair.UntilAsync(s => s.Fault is null, "nothing should be wrong");
            await held.StaysAsync();
            LoadResult result = await PassedAsync(load);
            Show($"fault: the state directory is {(full ? "full" : "read-only")}: {result.Failed} of {result.Requests} failed");
        }
        finally
        {
            if (full) Command.TryRun("umount", "-l", state);
            else Command.TryRun("chattr", "-i", directory);
        }
    }

    [Fact(Timeout = 60_000)]
    public async Task So_much_happens_in_a_watched_directory_that_the_kernel_forgets_to_tell()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync();
        await using LoadRun load = await StartedAsync(pair.Load(500));
        // More than fs.inotify.max_queued_events while nobody takes them; two of the same one after the other would be one.
        int most = int.Parse(File.ReadAllText("/proc/sys/fs/inotify/max_queued_events"));
        pair.SignalDaemon(Signals.Stop);
        using (FileStream one = File.Create(pair.Files["one"]), two = File.Create(pair.Files["two"]))
        {
            for (int i = 0; i <= most; i++) RandomAccess.Write(i % 2 == 0 ? one.SafeFileHandle : two.SafeFileHandle, "x"u8, i);
        }
        pair.Write(Config("v2"));
        pair.SignalDaemon(Signals.Continue);
        await Eventually.True(async () => await pair.ServedByAsync() == "v2", Patience, () => pair.DaemonLog);
        LoadResult result = await PassedAsync(load);
        Show($"fault: {most} changes in a watched directory at once: {result.Failed} of {result.Requests} failed");
    }

    private static void Fill(string path)
    {
        try
        {
            using FileStream file = File.Create(path);
            byte[] page = new byte[4096];
            while (true) file.Write(page);
        }
        catch (IOException)
        {
            // It is full.
        }
    }

    /// <summary>Filled with entries of connections that last, up to the limit, which is the host's; each namespace has it for itself.</summary>
    [Fact(Timeout = 180_000)]
    public async Task The_kernels_table_of_connections_is_full()
    {
        Require.Program("conntrack");
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { Gate = "{ timeout: 2s }" });
        int limit = int.Parse(pair.Nets.Server.Exec("sysctl", "-n", "net.netfilter.nf_conntrack_max"), CultureInfo.InvariantCulture);
        if (limit > 1_000_000) Assert.Skip($"conntrack: {limit} entries take long to make");
        HeldConnection held = await pair.HoldAsync();
        await using (LoadRun load = await StartedAsync(pair.Load(200)))
        {
            await FillAsync(pair, 0, limit * 82 / 100);
            PairStatus warned = await pair.UntilAsync(s => s.Warnings.Any(w => w.Contains("conntrack", StringComparison.Ordinal)), "it should warn");
            Show($"fault: conntrack at 82 %: {string.Join(" | ", warned.Warnings)}");
            Assert.Equal("v2", await pair.FlippedAsync("v2"));
            await PassedAsync(load);
        }
        await FillAsync(pair, limit * 82 / 100, limit + 1000);
        // Others end meanwhile, and their room is taken, too.
        using var over = new CancellationTokenSource();
        Task kept = Task.Run(async () =>
        {
            for (int from = limit + 1000; !over.IsCancellationRequested; from += 1000) await FillAsync(pair, from, from + 1000);
        });
        await using LoadRun late = LoadRun.Start(pair.Load(100) with { Expect = Expectation.Any, Timeout = TimeSpan.FromSeconds(1) });
        try
        {
            await Eventually.True(() => late.Now.Requests - late.Now.Ok > 100, Patience, () => $"the kernel should drop what is new: {late.Now}");
            await held.StaysAsync();
            Said flip;
            int change = 0;
            // Where some end at the very moment of its question, a generation is proven all the same.
            do
            {
                pair.Write(Config($"full{++change}"));
                flip = await pair.FlipctlAsync("flip", Name);
                Show($"fault: a flip while conntrack is full: exit {flip.ExitCode}, {flip.Output}{flip.Error}");
            }
            while (flip.ExitCode == 0 && change < 10);
            Assert.Equal(1, flip.ExitCode);
            Assert.Contains("which was not touched", flip.Error, StringComparison.Ordinal);
            await held.StaysAsync();
        }
        finally
        {
            await over.CancelAsync();
            await kept;
        }
        pair.Nets.Server.Exec("conntrack", "-D", "-d", "10.99.200.1");
        await OnlyMeanwhileAsync(pair, late, "the kernel's table of connections is full");
        await held.StaysAsync();
        Assert.Equal("v3", await pair.FlippedAsync("v3"));
    }

    private static async Task FillAsync(PairUnderTest pair, int from, int to)
    {
        StringBuilder lines = new();
        for (int i = from; i < to; i++)
            lines.Append(CultureInfo.InvariantCulture, $"-I -p tcp -s 10.99.{i / 60000}.1 -d 10.99.200.1 --sport {1 + i % 60000} --dport 9 -t 600 --state ESTABLISHED -u ASSURED,SEEN_REPLY\n");
        using NetnsProcess made = pair.Nets.Server.Start("conntrack", "-R", pair.Files.Write("entries", lines.ToString()));
        await made.Exit(Patience * 3);
    }

    /// <summary>What failed has failed: from here on nothing does. Says how long nobody was served.</summary>
    private static async Task OnlyMeanwhileAsync(PairUnderTest pair, LoadRun load, string fault)
    {
        await using (LoadRun after = await StartedAsync(pair.Load(200)))
        {
            long begun = after.Now.Ok;
            await Eventually.True(() => after.Now.Ok > begun + 100, Patience, () => $"{after.Now}");
            await PassedAsync(after);
        }
        LoadResult result = await EndedAsync(load);
        Show($"fault: {fault}: {result.Failed} of {result.Requests} failed at {result.Rate:0}/s (refused {result.Refused}, reset {result.Reset}, truncated {result.Truncated}, timed out {result.TimedOut}), "
            + $"{1000.0 * result.Failed / result.Rate:0} ms of traffic; longest answer {result.Latency.Max:0} ms");
    }
}
