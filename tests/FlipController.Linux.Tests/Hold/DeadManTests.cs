using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Hold;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Hold;

/// <summary>A datagram socket plays the kernel: one datagram is one write. Alone, as children and descriptors of this process are counted.</summary>
[Collection(Alone)]
[CollectionDefinition(Alone, DisableParallelization = true)]
public sealed class DeadManTests : IDisposable
{
    private const string Alone = "children of the test process";

    /// <summary>With what a shell or a line-wise program would stumble over.</summary>
    internal static readonly byte[] Bytes = [.. Enumerable.Range(0, 256).Select(i => (byte)i), 0x0a, 0, 0x0a, 0x0d, 0xff, 0];

    private const int Stop = 19, Continue = 18; // SIGSTOP, SIGCONT
    private static readonly TimeSpan s_never = TimeSpan.FromMinutes(10);

    private readonly TempDir _directory = new();
    private readonly Socket _receiver = new(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
    private readonly Socket _sender = new(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);

    public DeadManTests()
    {
        _receiver.Bind(new UnixDomainSocketEndPoint(_directory["receiver"]));
        _receiver.ReceiveTimeout = 10_000;
        _sender.Connect(new UnixDomainSocketEndPoint(_directory["receiver"]));
    }

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private ForcedOpening Opening => new((int)_sender.Handle, Bytes);

    public void Dispose()
    {
        _sender.Dispose();
        _receiver.Dispose();
        _directory.Dispose();
    }

    [Fact(Timeout = 30_000)]
    public async Task Sends_once_in_one_write_when_the_time_is_over()
    {
        var waited = Stopwatch.StartNew();
        using DeadMan deadMan = DeadMan.Arm([Opening], TimeSpan.FromMilliseconds(150));
        Assert.False(deadMan.HasFired);
        Assert.Equal(Bytes, Received());
        Assert.InRange(waited.ElapsedMilliseconds, 150, 1000);
        await Eventually.True(() => deadMan.HasFired, TimeSpan.FromSeconds(5), "it does not say that it has fired");
        deadMan.Disarm();
        Assert.True(deadMan.HasFired);
        Assert.Equal(0, _receiver.Available);
    }

    [Theory(Timeout = 30_000)]
    [InlineData(1)]
    [InlineData(4095)]
    [InlineData(DeadMan.LongestMessage)]
    public async Task Every_length_is_one_write(int length)
    {
        await Task.Yield();
        byte[] bytes = new byte[length];
        new Random(length).NextBytes(bytes);
        using DeadMan deadMan = DeadMan.Arm([Opening with { Message = bytes }], TimeSpan.FromMilliseconds(1));
        Assert.Equal(bytes, Received());
    }

    [Fact(Timeout = 30_000)]
    public async Task Every_opening_is_sent()
    {
        await Task.Yield();
        byte[] one = [7], two = [8];
        using DeadMan deadMan = DeadMan.Arm([Opening with { Message = one }, Opening with { Message = two }], TimeSpan.FromMilliseconds(20));
        byte[][] received = [Received(), Received()];
        Assert.Equal([one, two], received.OrderBy(r => r[0]));
    }

    [Fact(Timeout = 30_000)]
    public async Task Disarmed_in_time_it_sends_nothing()
    {
        using DeadMan deadMan = DeadMan.Arm([Opening], TimeSpan.FromMilliseconds(100));
        deadMan.Disarm();
        Assert.False(deadMan.HasFired);
        // One that is armed later for longer is the clock.
        using DeadMan clock = DeadMan.Arm([Opening with { Message = new byte[] { 1 } }], TimeSpan.FromMilliseconds(300));
        Assert.Equal([1], Received());
        await Task.Yield();
        deadMan.Disarm();
        Assert.False(deadMan.HasFired);
    }

    [Theory(Timeout = 60_000)]
    [InlineData(Signals.Kill)]
    [InlineData(Stop)]
    [InlineData(Signals.Terminate)]
    public async Task Sends_though_who_armed_it_is_dead_or_frozen(int signal)
    {
        using ArmingProcess arming = await ArmingProcess.StartAsync(_directory["receiver"], TimeSpan.FromMilliseconds(400), Cancellation);
        var waited = Stopwatch.StartNew();
        arming.Signal(signal);
        Assert.Equal(0, _receiver.Available);
        Assert.Equal(Bytes, Received());
        Assert.InRange(waited.ElapsedMilliseconds, 0, 1400);
        if (signal == Stop) arming.Signal(Continue);
    }

    [Fact(Timeout = 30_000)]
    public async Task Its_programs_live_apart_with_three_descriptors_and_every_signal_blocked()
    {
        await Task.Yield();
        var before = Children();
        using DeadMan deadMan = DeadMan.Arm([Opening], s_never);
        List<int> programs = [.. Children().Except(before)];
        Assert.Equal(2, programs.Count);
        foreach (int pid in programs)
        {
            Assert.Equal(["0", "1", "2"], Directory.EnumerateFileSystemEntries($"/proc/{pid}/fd").Select(p => Path.GetFileName(p)).Order());
            string[] status = File.ReadAllLines($"/proc/{pid}/status");
            ulong blocked = ulong.Parse(status.First(l => l.StartsWith("SigBlk:", StringComparison.Ordinal))[7..].Trim(), NumberStyles.HexNumber, CultureInfo.InvariantCulture);
            foreach (int signal in (int[])[Signals.Terminate, Signals.Interrupt, 1, 3, 13]) Assert.NotEqual(0UL, blocked & (1UL << (signal - 1)));
            Assert.Empty(File.ReadAllBytes($"/proc/{pid}/environ"));
            string stat = File.ReadAllText($"/proc/{pid}/stat");
            Assert.Equal(pid.ToString(CultureInfo.InvariantCulture), stat[(stat.LastIndexOf(')') + 2)..].Split(' ')[3]); // its session
            Assert.True(Signals.Send(pid, Signals.Terminate));
        }
        Assert.Equal(programs, Children().Except(before));
        deadMan.Disarm();
        Assert.Empty(Children().Except(before));
    }

    [Fact(Timeout = 120_000)]
    public async Task Two_hundred_rounds_leave_no_process_and_no_descriptor()
    {
        DeadMan.Arm([Opening], s_never).Dispose();
        var children = Children();
        int descriptors = Descriptors();
        for (int i = 0; i < 200; i++)
        {
            // A process that .NET reaps goes on at the same time.
            using Process? other = i % 20 == 0 ? Process.Start("true") : null;
            using (DeadMan deadMan = DeadMan.Arm([Opening, Opening], i % 4 == 0 ? TimeSpan.FromMilliseconds(1) : s_never))
            {
                if (i % 4 == 0) Assert.Equal(Bytes.Concat(Bytes), Received().Concat(Received()));
            }
            if (other is not null)
            {
                await other.WaitForExitAsync(Cancellation);
                Assert.Equal(0, other.ExitCode);
            }
        }
        Assert.Empty(Children().Except(children));
        // The runtime opens some of its own now and then, but not hundreds.
        Assert.InRange(Descriptors(), 0, descriptors + 10);
    }

    [Fact(Timeout = 30_000)]
    public async Task Without_its_programs_it_refuses_and_leaves_nothing()
    {
        await Task.Yield();
        var children = Children();
        var missing = Assert.Throws<FlipException>(() => DeadMan.Arm([Opening], s_never, () => DeadMan.Programs([_directory.Path, "/no/such"])));
        Assert.Equal($"cannot arm the switch that ends a hold when its owner dies: sleep is in none of {_directory.Path}, /no/such; nothing was held; "
            + "install coreutils or busybox", missing.Message);

        File.WriteAllText(_directory["sleep"], "#!/bin/sh\nexit 3\n");
        File.WriteAllText(_directory["dd"], "no program");
        File.SetUnixFileMode(_directory["sleep"], (UnixFileMode)0b111_101_101);
        var unfit = Assert.Throws<FlipException>(() => DeadMan.Arm([Opening], s_never, () => DeadMan.Programs([_directory.Path])));
        Assert.Contains($"`{_directory["sleep"]} 0.000001` ended with 3; nothing was held", unfit.Message);

        var broken = Assert.Throws<FlipException>(() => DeadMan.Arm([Opening], s_never, () => (_directory["dd"], "/usr/bin/dd")));
        Assert.Contains("could not be started (Permission denied); nothing was held", broken.Message);
        Assert.Throws<FlipException>(() => DeadMan.Arm([Opening with { Message = new byte[DeadMan.LongestMessage + 1] }], s_never));
        Assert.Empty(Children().Except(children));
        Assert.Equal(0, _receiver.Available);
    }

    [Fact(Timeout = 30_000)]
    public async Task Nothing_to_send_needs_no_program()
    {
        await Task.Yield();
        using DeadMan deadMan = DeadMan.Arm([], TimeSpan.Zero, () => throw new InvalidOperationException("looked for"));
        Assert.False(deadMan.HasFired);
    }

    private byte[] Received()
    {
        byte[] buffer = new byte[8192];
        return buffer[.._receiver.Receive(buffer)];
    }

    private static int Descriptors() => Directory.EnumerateFileSystemEntries("/proc/self/fd").Count();

    private static List<int> Children() => [.. Directory.EnumerateDirectories("/proc/self/task")
        .SelectMany(t => { try { return File.ReadAllText(Path.Combine(t, "children")).Split(' ', StringSplitOptions.RemoveEmptyEntries); } catch (IOException) { return []; } })
        .Select(p => int.Parse(p, CultureInfo.InvariantCulture))];
}
