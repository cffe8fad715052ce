using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Linux.Kernel;
using Xunit;

namespace FlipController.Linux.Tests.Kernel;

[Collection(ManyDescriptors.Alone)]
public sealed class SockDiagWalkTests
{
    [Fact(Timeout = 30000)]
    public async Task What_a_walk_sees_ss_says() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("w");
        using SockDiag sockets = network.Run(() => new SockDiag());
        network.Serve("0.0.0.0", 8001, "four");
        network.Serve("::", 8002, "dual", dual: true);
        using Socket a = network.Connect("127.0.0.1", 8001), b = network.Connect("127.0.0.1", 8002), c = network.Connect("::1", 8002);
        foreach (Socket socket in (Socket[])[a, b, c]) TestNetwork.Line(socket);
        Assert.Equal("hello", TestNetwork.Echo(b, "hello"));
        Eventually.True(() => Walk(sockets).Values.All(s => s.Out >= 5), "all is acknowledged");
        Thread.Sleep(200); // so that a time in milliseconds is not zero
        var ours = Walk(sockets);
        string[] lines = network.Exec("ss", "-HtinemO", "state", "established", "sport", "ge", "8001", "and", "sport", "le", "8002").Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(3, lines.Length);
        foreach (string line in lines)
        {
            string peer = line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[3];
            var seen = ours[new IPEndPoint(Plain(IPEndPoint.Parse(peer).Address), IPEndPoint.Parse(peer).Port).ToString()];
            Assert.Equal(Number(line, "ino:"), seen.Inode);
            Assert.Equal(Number(line, "bytes_received:"), seen.In);
            Assert.Equal(Number(line, "bytes_acked:"), seen.Out);
            Assert.Equal(line.Split("sk:")[1].Split(' ')[0], seen.Cookie.ToString("x", CultureInfo.InvariantCulture));
            Assert.InRange((double)seen.Idle, 150, Math.Min(Number(line, "lastsnd:"), Number(line, "lastrcv:")));
        }

        static IPAddress Plain(IPAddress address) => address.IsIPv4MappedToIPv6 ? address.MapToIPv4() : address;
        static long Number(string line, string name) => Regex.Match(line, @"\b" + name + @"(\d+)") is { Success: true } m ? long.Parse(m.Groups[1].Value, CultureInfo.InvariantCulture) : 0;
    });

    private sealed record Seen(uint Inode, long In, long Out, uint Idle, ulong Cookie);

    private static Dictionary<string, Seen> Walk(SockDiag sockets)
    {
        Dictionary<string, Seen> seen = [];
        sockets.Walk(TcpStates.Established, new PortBlock(8001, 2), seen, static (all, scoped in socket) =>
            all[new IPEndPoint(socket.Peer.ToIPAddress(), socket.PeerPort).ToString()] = new Seen(socket.Inode, (long)socket.Info.BytesReceived!, (long)socket.Info.BytesAcknowledged!, socket.Info.IdleMs!.Value, socket.Id.Cookie));
        return seen;
    }

    /// <summary>struct inet_diag_msg and INET_DIAG_INFO as the kernel gave them for a connection 127.0.0.1:8001 to 127.0.0.1:41000.</summary>
    [Theory]
    [InlineData(136, 1500L, 700L, 40u)]
    [InlineData(128, null, 700L, 40u)] // before bytes_received
    [InlineData(104, null, null, 40u)] // Linux 3.x
    [InlineData(56, null, null, 40u)]
    [InlineData(52, null, null, null)]
    [InlineData(0, null, null, null)]
    public void A_shorter_struct_of_an_older_kernel_is_read_as_far_as_it_goes(int length, long? received, long? acknowledged, uint? idle)
    {
        byte[] payload = Convert.FromHexString(
            "02010000" + "1f41" + "a028" + "7f000001" + "000000000000000000000000" + "7f000001" + "000000000000000000000000" + "00000000" + "0700000000000000"
            + "00000000" + "03000000" + "05000000" + "e8030000" + "39300000").Concat(new byte[4 + 136]).ToArray();
        BitConverter.TryWriteBytes(payload.AsSpan(72), (ushort)(4 + length));
        payload[74] = 2; // INET_DIAG_INFO
        Span<byte> info = payload.AsSpan(76);
        BitConverter.TryWriteBytes(info[44..], 90u);
        BitConverter.TryWriteBytes(info[52..], 40u);
        BitConverter.TryWriteBytes(info[120..], 700L);
        BitConverter.TryWriteBytes(info[128..], 1500L);
        TcpSocketView socket = new(payload.AsSpan(0, 76 + length));
        Assert.Equal((TcpStates.Established, 8001, 41000, 3u, 5u, 12345u), (socket.State, socket.LocalPort, socket.PeerPort, socket.ReceiveQueue, socket.SendQueue, socket.Inode));
        Assert.Equal(("127.0.0.1", "127.0.0.1", 7ul, "127.0.0.1:41000"), (socket.Local.ToString(), socket.Peer.ToString(), socket.Id.Cookie, socket.Id.Peer.ToString()));
        Assert.Equal((received, acknowledged, idle), ((long?)socket.Info.BytesReceived, (long?)socket.Info.BytesAcknowledged, socket.Info.IdleMs));
    }

    [Fact(Timeout = 30000)]
    public async Task A_walk_allocates_nothing_for_a_socket() => await Task.Run(() =>
    {
        using TestNetwork network = TestNetwork.Create("a");
        using SockDiag sockets = network.Run(() => new SockDiag());
        using Socket listener = network.Run(() =>
        {
            Socket socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            socket.Bind(new IPEndPoint(IPAddress.Loopback, 8001));
            socket.Listen(4096);
            return socket;
        });
        List<Socket> clients = [];
        try
        {
            for (int i = 0; i < 1000; i++) clients.Add(network.Connect("127.0.0.1", 8001));
            int[] count = [0];
            Look();
            long before = GC.GetAllocatedBytesForCurrentThread();
            count[0] = 0;
            Look();
            Assert.Equal(1000, count[0]);
            Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 4096);

            void Look() => sockets.Walk(TcpStates.Established, new PortBlock(8001, 1), count, static (count, scoped in socket) =>
            {
                if (socket.Peer.IsIPv4 && socket.Info.IdleMs is not null && socket.Id.Cookie != 0) count[0]++;
            });
        }
        finally
        {
            foreach (Socket client in clients) client.Dispose();
        }
    });

    [Fact]
    public void Descriptors_are_found_both_ways()
    {
        using Socket socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        using FileStream file = File.OpenRead("/dev/null");
        ProcessDescriptors held = ProcessDescriptors.Read(Environment.ProcessId);
        int descriptor = (int)socket.Handle;
        uint inode = held.InodeOf(descriptor);
        Assert.Equal($"socket:[{inode}]", new FileInfo($"/proc/self/fd/{descriptor}").LinkTarget);
        Assert.True(held.Holds(inode) && held.DescriptorOf(inode) == descriptor && ProcessSockets.Inodes(Environment.ProcessId).Contains(inode));
        Assert.Equal(inode, ProcessDescriptors.Inode(Environment.ProcessId, descriptor));
        Assert.Equal((0u, 0u, 0u), (held.InodeOf((int)file.SafeFileHandle.DangerousGetHandle()), held.InodeOf(-1), held.InodeOf(int.MaxValue)));
        Assert.Equal((0u, 0), (ProcessDescriptors.Inode(int.MaxValue, 0), ProcessDescriptors.Read(int.MaxValue).Sockets));
    }

    [Fact]
    public void Memory_is_what_status_says()
    {
        long kib = long.Parse(File.ReadLines("/proc/1/status").Single(l => l.StartsWith("VmRSS:"))["VmRSS:".Length..^2].Trim(), CultureInfo.InvariantCulture);
        Assert.InRange(ProcessMemory.Resident(1)!.Value, kib * 1024 * 0.8, kib * 1024 * 1.2);
        Assert.Null(ProcessMemory.Resident(int.MaxValue));
    }
}
