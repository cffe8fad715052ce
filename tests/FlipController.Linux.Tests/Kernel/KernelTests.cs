using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using FlipController.Core;
using FlipController.Linux.Kernel;
using Xunit;

namespace FlipController.Linux.Tests.Kernel;

public sealed partial class NetlinkTests
{
    [Fact]
    public void An_attribute_is_padded_nested_and_read_back()
    {
        byte[] buffer = new byte[128];
        NetlinkMessage message = new(buffer, 0x24, NetlinkFlags.Request);
        message.Header(0x01020304u);
        message.PutText(1, "lo");
        int nest = message.BeginNest(2);
        message.PutBigEndian(3, 0xa0b0c0d0);
        message.EndNest(nest);
        string little = "28000000" + "2400" + "0100" + "00000000" + "00000000" // nlmsghdr
            + "04030201"
            + "0700" + "0100" + "6c6f0000"
            + "0c00" + "0280" + "0800" + "0300" + "a0b0c0d0";
        Assert.Equal(little, Convert.ToHexStringLower(message.Bytes));
        NetlinkAttributes attributes = new(message.Bytes[20..]);
        Assert.True(attributes.Next());
        Assert.Equal((1, 3), (attributes.Type, attributes.Value.Length));
        Assert.True(attributes.Next());
        Assert.Equal((2, 8), (attributes.Type, attributes.Value.Length));
        Assert.False(attributes.Next());
    }

    [Fact(Timeout = 30000)]
    public async Task An_error_has_the_kernels_own_words() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("e");
        using NetlinkSocket route = network.Run(() => new NetlinkSocket(NetlinkProtocol.Route));
        byte[] buffer = new byte[128];
        NetlinkMessage message = new(buffer, 36, NetlinkFlags.Create | NetlinkFlags.Exclusive); // RTM_NEWQDISC
        message.Header(new TcMessage(0, 0, 0, 1, 0, 0xffffffff, 0)); // lo, TC_H_ROOT
        message.PutText(1, "nonesuch"); // TCA_KIND
        KernelException error = Throws(route, message);
        Assert.Equal("cannot add nonesuch to lo: ENOENT (Specified qdisc kind is unknown)", error.Message);
        Assert.Equal((Errno.NoEntry, "Specified qdisc kind is unknown"), (error.Errno, error.KernelMessage));

        static KernelException Throws(NetlinkSocket route, NetlinkMessage message)
        {
            try { route.Request("add nonesuch to lo", message); }
            catch (KernelException e) { return e; }
            throw new InvalidOperationException("the kernel took it");
        }
    });

    [Fact]
    public void An_inconsistent_dump_is_begun_again_and_leftovers_are_not_counted()
    {
        (NetlinkSocket netlink, int kernel) = Fake();
        using (netlink)
        {
            // One entry of an earlier request, and a dump that was interrupted; then the same dump whole.
            Say(kernel, "14000000 2000 0200 00000000 00000000 07000000");
            Say(kernel, "14000000 2000 0200 01000000 00000000 01000000", "14000000 2000 1200 01000000 00000000 02000000");
            Say(kernel, "14000000 0300 1200 01000000 00000000 00000000");
            Say(kernel, "14000000 2000 0200 02000000 00000000 03000000");
            Say(kernel, "14000000 0300 0200 02000000 00000000 00000000");
            List<int> got = netlink.Dump("list", new NetlinkMessage(new byte[64], 0x20, NetlinkFlags.None), () => new List<int>(),
                (list, _, payload) => list.Add(payload[0]));
            Assert.Equal([3], got);
        }
        CloseDescriptor(kernel);
    }

    [Theory]
    // EPERM after the request's header and, when it is not capped, its payload; then NLMSGERR_ATTR_MSG "no".
    [InlineData("2c000000 0200 0003 01000000 00000000 ffffffff 10000000 2000 0500 01000000 00000000 07000100 6e6f0000", "EPERM (no)")]
    [InlineData("30000000 0200 0002 01000000 00000000 ffffffff 14000000 2000 0500 01000000 00000000 aabbccdd 07000100 6e6f0000", "EPERM (no)")]
    [InlineData("24000000 0200 0001 01000000 00000000 ffffffff 10000000 2000 0500 01000000 00000000", "EPERM")]
    // It says that there are words, and there is nothing; or that the request was longer than the whole answer.
    [InlineData("14000000 0200 0002 01000000 00000000 ffffffff", "EPERM")]
    [InlineData("18000000 0200 0002 01000000 00000000 ffffffff ffffff7f", "EPERM")]
    [InlineData("18000000 0200 0002 01000000 00000000 ffffffff fffffffe", "EPERM")]
    public void The_kernels_words_are_found_wherever_they_stand(string answer, string error)
    {
        (NetlinkSocket netlink, int kernel) = Fake();
        using (netlink)
        {
            Say(kernel, answer);
            KernelException thrown = Assert.Throws<KernelException>(() => netlink.Request("do it", new NetlinkMessage(new byte[64], 0x20, NetlinkFlags.None)));
            Assert.Equal("cannot do it: " + error, thrown.Message);
        }
        CloseDescriptor(kernel);
    }

    [Fact]
    public void A_socket_that_is_cut_short_is_not_counted()
    {
        (NetlinkSocket netlink, int kernel) = Fake();
        using (SockDiag sockets = SockDiag.Over(netlink))
        {
            Say(kernel, "14000000 1400 0200 01000000 00000000 0a010000", "14000000 0300 0200 01000000 00000000 00000000");
            Say(kernel, "14000000 0300 0200 02000000 00000000 00000000");
            Assert.Empty(sockets.CountByPort(TcpStates.Live, new FlipController.Core.PortBlock(1, 10)));
        }
        CloseDescriptor(kernel);
    }

    private static unsafe (NetlinkSocket Netlink, int Kernel) Fake()
    {
        int* pair = stackalloc int[2];
        Assert.Equal(0, SocketPair(1, 2, 0, pair)); // AF_UNIX, SOCK_DGRAM
        return (NetlinkSocket.Over(pair[0]), pair[1]);
    }

    private static unsafe void Say(int kernel, params string[] messages)
    {
        byte[] bytes = Convert.FromHexString(string.Concat(messages).Replace(" ", ""));
        fixed (byte* data = bytes) Assert.Equal(bytes.Length, Send(kernel, data, (nuint)bytes.Length, 0));
    }

    [LibraryImport("libc", EntryPoint = "socketpair")]
    private static unsafe partial int SocketPair(int domain, int type, int protocol, int* pair);

    [LibraryImport("libc", EntryPoint = "send")]
    private static unsafe partial nint Send(int fd, void* data, nuint length, int flags);

    [LibraryImport("libc", EntryPoint = "close")]
    private static partial int CloseDescriptor(int fd);

    private readonly record struct TcMessage(byte Family, byte Pad1, ushort Pad2, int Interface, uint Handle, uint Parent, uint Info); // struct tcmsg
}

public sealed class SockDiagTests
{
    [Fact(Timeout = 30000)]
    public async Task Listeners_are_those_ss_lists() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("l");
        using SockDiag sockets = network.Run(() => new SockDiag());
        network.Serve("127.0.0.1", 8001, "a");
        network.Serve("0.0.0.0", 8002, "b");
        network.Serve("::", 8003, "c", dual: true);
        network.Serve("::", 8004, "d");
        network.Serve("::1", 8005, "e");
        string[] ss = [.. network.Exec("ss", "-Hltn").Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries))
            .Select(field => $"{field[1]} {field[2]} {field[3]}").Order(StringComparer.Ordinal)];
        Assert.Equal(5, ss.Length);
        // ss writes * for a listener that takes both families, from the same INET_DIAG_SKV6ONLY.
        Assert.Equal(ss, sockets.Listeners().Select(s => $"{s.ReceiveQueue} {s.SendQueue} "
            + (s is { V6Only: false } && s.Local.Address.Equals(IPAddress.IPv6Any) ? $"*:{s.Local.Port}" : $"{s.Local}")).Order(StringComparer.Ordinal));
        Assert.Equal((bool?[])[null, null, false, true, true], sockets.Listeners().OrderBy(s => s.Local.Port).Select(s => s.V6Only));
        Assert.Equal(["127.0.0.1:8001", "0.0.0.0:8002", "[::]:8003", "[::]:8004 v6only", "[::1]:8005 v6only"],
            ProcessSockets.ListeningPorts(sockets, Environment.ProcessId).OrderBy(e => e.Port).Select(e => e.ToString()));
        Assert.Empty(ProcessSockets.ListeningPorts(sockets, 1));
        Assert.Empty(ProcessSockets.ListeningPorts(sockets, int.MaxValue));
        Assert.Equal([8002, 8003, 8004], sockets.Sockets(TcpStates.Listen, new PortBlock(8002, 3)).Select(s => s.Local.Port).Order());
        Assert.Equal([8005], sockets.Sockets(TcpStates.Listen, new PortBlock(8005, 1)).Select(s => s.Local.Port));
    });

    [Fact(Timeout = 30000)]
    public async Task Connections_are_counted_on_the_servers_side_until_they_are_closed() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("n");
        using SockDiag sockets = network.Run(() => new SockDiag());
        network.Serve("::", 8001, "a", dual: true);
        PortBlock ports = new(8000, 10);
        Socket four = network.Connect("127.0.0.1", 8001), six = network.Connect("::1", 8001);
        TestNetwork.Line(four);
        TestNetwork.Line(six);
        Assert.Equal(2, sockets.Connections(ports).Count);
        Assert.All(sockets.Connections(ports), s => Assert.Equal(TcpStates.Established, s.State));
        Assert.Equal(2, sockets.CountByPort(TcpStates.Established, ports)[8001]);
        Assert.Contains(sockets.Connections(ports), s => s.Remote.Port == ((IPEndPoint)four.LocalEndPoint!).Port);
        four.Dispose();
        Eventually.True(() => sockets.Count(TcpStates.Live, ports) == 1, "one is closed");
        six.Dispose();
        Eventually.True(() => sockets.Count(TcpStates.Live, ports) == 0, "both are closed");
    });

    [Fact(Timeout = 30000)]
    public async Task A_listeners_queue_is_what_nobody_has_accepted() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("q");
        using SockDiag sockets = network.Run(() => new SockDiag());
        using Socket listener = network.Run(() =>
        {
            Socket socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            socket.Bind(new IPEndPoint(IPAddress.Loopback, 8001));
            socket.Listen(7);
            return socket;
        });
        using Socket a = network.Connect("127.0.0.1", 8001), b = network.Connect("127.0.0.1", 8001);
        Eventually.True(() => sockets.Listeners().Single() is { ReceiveQueue: 2, SendQueue: 7 }, "two of seven wait");
    });
}

public sealed class ProcessTests
{
    private static Process Sleep() => Process.Start(new ProcessStartInfo("sleep", ["1000"]))!;

    [Theory]
    [InlineData("7 (a b) c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 1", 'S', 987654)]
    [InlineData("7 () ) Z) Z 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12 1 1", 'Z', 12)]
    public void A_command_name_may_hold_anything(string stat, char state, long start) =>
        Assert.Equal(new ProcessIdentity.Stat(state, start, 1, 7, 0), ProcessIdentity.Stat.Parse(stat));

    [Fact(Timeout = 30000)]
    public async Task A_process_is_itself_until_it_dies() => await Task.Run(() =>
    {
        using Process process = Sleep();
        try
        {
            ProcessIdentity identity = ProcessIdentity.Read(process.Id)!;
            Assert.True(identity.IsAlive);
            Assert.False((identity with { StartTicks = identity.StartTicks - 1 }).IsAlive);
            Assert.False((identity with { BootId = "another" }).IsAlive);
            Assert.False((identity with { StartTicks = identity.StartTicks - 1 }).Signal(9));
            Assert.True(identity.Signal(0));
            Assert.True(identity.Signal(9));
            Eventually.True(() => !identity.IsAlive, "it is dead");
            process.WaitForExit();
            Assert.False(identity.Signal(9));
            Assert.Null(ProcessIdentity.Read(process.Id));
        }
        finally
        {
            process.Kill();
        }
    });

    [Fact(Timeout = 30000)]
    public async Task A_zombie_is_dead_and_its_death_is_told() => await Task.Run(() =>
    {
        // A parent that does not wait for its child: the shell becomes "sleep", which never does.
        using Process parent = Process.Start(new ProcessStartInfo("sh", ["-c", "sleep 1000 & echo $!; exec sleep 1000"]) { RedirectStandardOutput = true })!;
        using DeathWatch watch = new();
        try
        {
            ProcessIdentity child = ProcessIdentity.Read(int.Parse(parent.StandardOutput.ReadLine()!, CultureInfo.InvariantCulture))!;
            using ManualResetEventSlim told = new();
            watch.Add(child, _ => told.Set());
            Assert.True(child.Signal(9));
            Assert.True(told.Wait(5000));
            Assert.False(child.IsAlive);
        }
        finally
        {
            parent.Kill();
        }
    });

    [Fact(Timeout = 30000)]
    public async Task Niceness_is_every_threads() => await Task.Run(() =>
    {
        using Process process = Process.Start(new ProcessStartInfo("setsid",
            ["python3", "-c", "import threading,sys\nfor i in range(5): threading.Thread(target=threading.Event().wait).start()\nprint('ready',flush=True)"])
            { RedirectStandardOutput = true })!;
        ProcessIdentity identity = ProcessIdentity.Read(process.Id)!;
        try
        {
            Assert.Equal("ready", process.StandardOutput.ReadLine());
            Assert.True(identity.SetNiceness(7));
            string[] tasks = Directory.GetDirectories($"/proc/{process.Id}/task");
            Assert.Equal(6, tasks.Length);
            Assert.All(tasks, task => Assert.Equal("7", Niceness(task)));
            string autogroup = $"/proc/{process.Id}/autogroup";
            if (File.Exists(autogroup)) Assert.EndsWith("nice 7", File.ReadAllText(autogroup).Trim());
        }
        finally
        {
            identity.Signal(9);
        }
        process.WaitForExit();
        Assert.False(identity.SetNiceness(0));

        static string Niceness(string task) => File.ReadAllText(task + "/stat").Split(") ")[^1].Split(' ')[16]; // field 19
    });

    [Fact(Timeout = 30000)]
    public async Task Deaths_are_told_once_each_and_at_once() => await Task.Run(() =>
    {
        using DeathWatch watch = new();
        Process[] processes = [Sleep(), Sleep(), Sleep()];
        try
        {
            ProcessIdentity[] identities = [.. processes.Select(p => ProcessIdentity.Read(p.Id)!)];
            using CountdownEvent deaths = new(2);
            List<int> died = [];
            foreach (ProcessIdentity identity in identities)
            {
                watch.Add(identity, dead =>
                {
                    lock (died) died.Add(dead.Pid);
                    deaths.Signal();
                });
            }
            watch.Remove(identities[1]);
            Stopwatch clock = Stopwatch.StartNew();
            foreach (ProcessIdentity identity in identities) identity.Signal(9);
            Assert.True(deaths.Wait(5000));
            Assert.True(clock.ElapsedMilliseconds < 2000, $"told after {clock.ElapsedMilliseconds} ms");
            Assert.Equal([processes[0].Id, processes[2].Id], died.Order());

            using ManualResetEventSlim late = new();
            watch.Add(identities[0], _ => late.Set());
            Assert.True(late.Wait(5000), "a process that is dead already");
            watch.Remove(identities[0]);
        }
        finally
        {
            foreach (Process process in processes)
            {
                process.Kill();
                process.Dispose();
            }
        }
    });

    [Fact(Timeout = 30000)]
    public async Task A_watch_that_waits_uses_no_processor_and_ends_when_disposed() => await Task.Run(() =>
    {
        using Process process = Sleep();
        try
        {
            DeathWatch watch = new();
            watch.Add(ProcessIdentity.Read(process.Id)!, _ => Assert.Fail("nobody died"));
            string task = Directory.GetDirectories("/proc/self/task").First(Ours);
            Eventually.True(() => File.ReadAllText(task + "/wchan").Contains("poll"), "it sleeps in poll");
            watch.Dispose();
            watch.Dispose();
            Assert.Throws<ObjectDisposedException>(() => watch.Add(ProcessIdentity.Read(process.Id)!, _ => { }));
        }
        finally
        {
            process.Kill();
        }

        // The runner's other threads come and go.
        static bool Ours(string task)
        {
            try { return File.ReadAllText(task + "/comm").StartsWith("death watch", StringComparison.Ordinal); }
            catch (IOException) { return false; }
        }
    });
}
