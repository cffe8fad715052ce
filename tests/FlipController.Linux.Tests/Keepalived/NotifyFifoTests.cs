using System.Collections.Concurrent;
using System.Text;
using FlipController.Core.Keepalived;
using FlipController.Linux.Keepalived;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Keepalived;

public sealed class NotifyFifoTests : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);
    private readonly TempDir _files = new();
    private readonly ConcurrentQueue<VrrpEvent> _heard = new();
    private readonly ConcurrentQueue<string> _warned = new();
    private readonly CancellationTokenSource _stop = new();
    private NotifyFifo? _fifo;
    private Task _reading = Task.CompletedTask;

    private string Path => _files["k.fifo"];

    public void Dispose()
    {
        _stop.Cancel();
        _reading.Wait(s_patience);
        _stop.Dispose();
        _files.Dispose();
    }

    [Fact(Timeout = 60_000)]
    public async Task A_thousand_transitions_come_in_order_and_none_is_lost()
    {
        MakeFifo();
        using FileStream writer = Open();
        Read();
        string[] states = ["MASTER", "BACKUP", "FAULT"];
        for (int i = 0; i < 1_000; i++)
        {
            Write(writer, $"INSTANCE \"VI_{i}\" {states[i % 3]} {i % 255}\n");
            if (i % 10 == 0) await Task.Yield();
        }
        await HeardAsync(1_000);
        Assert.Equal(Enumerable.Range(0, 1_000).Select(i => $"INSTANCE \"VI_{i}\" {states[i % 3]} {i % 255}"), _heard.Select(e => e.ToString()));
        Assert.Empty(_warned);
    }

    [Fact(Timeout = 60_000)]
    public async Task What_was_written_before_anybody_read_is_read()
    {
        MakeFifo();
        using FileStream writer = Open();
        Write(writer, "INSTANCE \"VI_1\" BACKUP 100\nINSTANCE \"VI_1\" MASTER 100\n");
        Read();
        await HeardAsync(2);
        Assert.Equal([VrrpState.Backup, VrrpState.Master], _heard.Select(e => e.State));
    }

    [Fact(Timeout = 60_000)]
    public async Task Lines_that_are_none_are_ignored_with_a_warning_and_those_of_real_servers_without()
    {
        MakeFifo();
        using FileStream writer = Open();
        Read();
        Write(writer, "VS [10.0.0.1]:tcp:80 UP\nRS [10.0.0.1]:tcp:80 [10.0.0.2]:tcp:80 DOWN\n");
        Write(writer, "INSTANCE \"VI_1\" BACKUP 100\n");
        await HeardAsync(1);
        Assert.Empty(_warned);
        Write(writer, "nonsense\n\n\u0001\u0002\n" + new string('x', 5_000) + "\nINSTANCE \"VI_1\" MASTER 100\nINSTANCE \"VI_1\" LORD 100\n" + "INSTANCE \"VI_1\" FAULT 100\n");
        await HeardAsync(3);
        Assert.Equal([VrrpState.Backup, VrrpState.Master, VrrpState.Fault], _heard.Select(e => e.State));
        Assert.Contains("a line is ignored, as there is no name in quotes: nonsense", Assert.Single(_warned)); // not one for each: somebody may write so all day
    }

    [Fact(Timeout = 60_000)]
    public async Task A_line_counts_once_it_is_whole()
    {
        MakeFifo();
        using FileStream writer = Open();
        Read();
        Write(writer, "INSTANCE \"VI_1\" BACKUP 1\nINSTANCE \"VI");
        await HeardAsync(1);
        Write(writer, "_2\" MASTER 100");
        Write(writer, "\n");
        await HeardAsync(2);
        Assert.Equal("VI_2", _heard.Last().Name);
    }

    [Fact(Timeout = 60_000)]
    public async Task A_FIFO_that_is_made_anew_is_read_and_so_is_one_that_comes_late()
    {
        Read();
        await Eventually.True(() => _fifo!.Trouble is not null, s_patience, "it should wait for the FIFO");
        for (int round = 1; round <= 3; round++)
        {
            MakeFifo();
            using (FileStream writer = Open())
            {
                Write(writer, $"INSTANCE \"VI_{round}\" MASTER 100\n");
                await HeardAsync(round);
                // As keepalived ends: removed first, then closed.
                Write(writer, "INSTANCE \"cut");
                File.Delete(Path);
            }
        }
        Assert.Equal(["VI_1", "VI_2", "VI_3"], _heard.Select(e => e.Name));
        Assert.Contains("keepalived has not made it", _warned.First());
    }

    [Fact(Timeout = 60_000)]
    public async Task A_FIFO_that_is_replaced_while_the_old_one_is_held_open_is_changed_over_to()
    {
        MakeFifo();
        using FileStream old = Open();
        Read();
        Write(old, "INSTANCE \"VI_1\" MASTER 100\n");
        await HeardAsync(1);
        File.Delete(Path);
        MakeFifo();
        using FileStream writer = Open();
        Write(writer, "INSTANCE \"VI_2\" MASTER 100\n");
        Write(old, "INSTANCE \"VI_1\" STOP 100\n");
        await HeardAsync(3);
        Assert.Equal([VrrpState.Master, VrrpState.Stop, VrrpState.Master], _heard.Select(e => e.State));
    }

    [Theory(Timeout = 60_000)]
    [InlineData(true)]
    [InlineData(false)]
    public async Task What_is_no_FIFO_is_neither_read_nor_touched(bool link)
    {
        if (link)
        {
            Command.Run("mkfifo", _files["elsewhere"]);
            File.CreateSymbolicLink(Path, _files["elsewhere"]);
        }
        else File.WriteAllText(Path, "INSTANCE \"VI_1\" MASTER 100\n");
        Read();
        await Eventually.True(() => !_warned.IsEmpty, s_patience, "it should be said");
        Assert.Contains(link ? "it is a link" : "it is no FIFO", Assert.Single(_warned));
        Assert.Empty(_heard);
        Assert.True(System.IO.Path.Exists(Path));
    }

    // ---- the other way

    [Fact]
    public void Our_own_FIFO_keeps_what_fits_and_counts_what_does_not()
    {
        using var fifo = new OwnFifo(_files["own"], "no-such-group");
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(_files["own"]) & ~UnixFileMode.GroupRead);
        int written = 0;
        while (fifo.Write(OwnEvent.Of("edge", OwnState.Switched).ToString())) written++;
        Assert.InRange(written, 1_000, 10_000); // 64 KiB
        Assert.Equal(1, fifo.Dropped);
        using var reader = new FileStream(_files["own"], FileMode.Open, FileAccess.Read, FileShare.ReadWrite, 0);
        byte[] line = new byte[23];
        reader.ReadExactly(line);
        Assert.Equal("PAIR \"edge\" SWITCHED 0\n", Encoding.UTF8.GetString(line));
        Assert.Throws<FlipController.Core.FlipException>(() => new OwnFifo(_files.Write("file", "x"), "root"));
    }

    [Fact]
    public void Events_that_were_left_are_taken_up_in_order_once()
    {
        DateTimeOffset now = DateTimeOffset.UtcNow;
        Directory.CreateDirectory(_files["state"]);
        EventSpool.Leave(_files["state"], new VrrpEvent(VrrpKind.Instance, "b", VrrpState.Master, 7), now + TimeSpan.FromSeconds(1));
        EventSpool.Leave(_files["state"], new VrrpEvent(VrrpKind.Group, "a", VrrpState.Stop, null), now);
        File.WriteAllText(System.IO.Path.Combine(_files["state"], "keepalived", "zzz.event"), "nonsense");
        List<(string, DateTimeOffset)> taken = [];
        List<string> warned = [];
        for (int i = 0; i < 2; i++) EventSpool.TakeUp(_files["state"], (e, at) => taken.Add((e.ToString(), at)), warned.Add);
        Assert.Equal([("GROUP \"a\" STOP 0", now), ("INSTANCE \"b\" MASTER 7", now + TimeSpan.FromSeconds(1))], taken);
        Assert.Single(warned);
        Assert.Empty(Directory.EnumerateFileSystemEntries(System.IO.Path.Combine(_files["state"], "keepalived")));
    }

    [Fact]
    public void The_track_file_is_replaced_as_a_whole_and_readable_by_all()
    {
        TrackFile.Write(_files["new/track"], 100);
        TrackFile.Write(_files["new/track"], 0);
        Assert.Equal("0\n", File.ReadAllText(_files["new/track"]));
        Assert.Equal(0, TrackFile.Read(_files["new/track"]));
        Assert.Null(TrackFile.Read(_files["none"]));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead, File.GetUnixFileMode(_files["new/track"]));
        Assert.Single(Directory.EnumerateFileSystemEntries(_files["new"]));
    }

    [Fact(Timeout = 60_000)]
    public Task A_link_is_set_down_and_up_and_one_that_is_not_there_is_an_error_with_a_remedy()
    {
        Require.Netns();
        using Netns netns = Netns.Create();
        netns.Ip("link", "add", "dummy0", "type", "bridge"); // a dummy is not to be had on every kernel, and is set the same way
        bool?[] seen = netns.Run(() =>
        {
            bool? before = TrackedLink.IsUp("dummy0");
            TrackedLink.Set("dummy0", up: true);
            bool? up = TrackedLink.IsUp("dummy0");
            TrackedLink.Set("dummy0", up: false);
            return new[] { before, up, TrackedLink.IsUp("dummy0"), TrackedLink.IsUp("dummy1") };
        });
        Assert.Equal([false, true, false, null], seen);
        string told = netns.Run(() => Assert.Throws<FlipController.Core.FlipException>(() => TrackedLink.Set("dummy1", true)).Message);
        Assert.Contains("there is no such device; make it (`ip link add dummy1 type dummy`)", told);
        return Task.CompletedTask;
    }

    private void MakeFifo() => Command.Run("mkfifo", Path);

    /// <summary>As keepalived holds it: open on both sides, so that it never waits for a reader.</summary>
    private FileStream Open() => new(Path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite, 0);

    private static void Write(FileStream writer, string text) => writer.Write(Encoding.UTF8.GetBytes(text));

    private void Read()
    {
        _fifo = new NotifyFifo(Path, _heard.Enqueue, _warned.Enqueue);
        _reading = _fifo.RunAsync(_stop.Token);
    }

    private Task HeardAsync(int count) => Eventually.True(() => _heard.Count >= count, s_patience, () => $"{_heard.Count} of {count} were heard; {string.Join("; ", _warned)}");
}
