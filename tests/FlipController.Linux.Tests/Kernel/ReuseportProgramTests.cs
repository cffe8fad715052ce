using System.Net;
using System.Net.Sockets;
using FlipController.Core;
using FlipController.Linux.Gate;
using FlipController.Linux.Kernel;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Kernel;

/// <summary>What the kernel does with listeners of one address, and that a program of ours is asked for each connection.</summary>
public sealed class ReuseportProgramTests : IDisposable
{
    private readonly Netns _netns = Netns.Create();
    private readonly List<Socket> _open = [];

    public void Dispose()
    {
        foreach (Socket socket in _open) socket.Dispose();
        _netns.Dispose();
    }

    [Theory]
    [InlineData("127.0.0.1"), InlineData("::1"), InlineData("::")]
    public void The_one_that_is_named_gets_all_from_one_connection_to_the_next(string address)
    {
        Require.Netns();
        using Socket first = Listener(address), second = Listener(address);
        Name(first, 0);
        Assert.Equal((50, 0), Got(50, first, second));
        Name(first, 1);
        Assert.Equal((0, 50), Got(50, first, second));
        Name(second, 0); // whichever of them it is attached by
        Assert.Equal((50, 0), Got(50, first, second));
    }

    [Fact]
    public void A_mark_leads_to_the_other_one_and_to_each()
    {
        Require.Netns();
        using Socket first = Listener("::"), second = Listener("::");
        foreach (int named in (int[])[0, 1])
        {
            Name(first, named);
            Assert.Equal(named == 0 ? (0, 5) : (5, 0), Got(5, first, second, PassingSocket.Mark));
            Assert.Equal((5, 0), Got(5, first, second, PassingSocket.MarkOf(0)));
            Assert.Equal((0, 5), Got(5, first, second, PassingSocket.MarkOf(1)));
            Assert.Equal(named == 0 ? (5, 0) : (0, 5), Got(5, first, second, PassingSocket.Mark + 7)); // somebody else's
        }
    }

    [Fact]
    public void Who_is_left_gets_all_and_takes_the_first_place()
    {
        Require.Netns();
        Socket first = Listener("127.0.0.1");
        using Socket second = Listener("127.0.0.1");
        Name(first, 1);
        first.Dispose();
        Assert.Equal((0, 20), Got(20, null, second));
        // It is the first now: one that comes would be the second, which the program still names.
        using Socket third = Listener("127.0.0.1");
        Assert.Equal((0, 20), Got(20, second, third));
        Name(second, 0);
        Assert.Equal((20, 0), Got(20, second, third));
    }

    [Fact]
    public async Task A_connection_that_is_being_opened_belongs_to_who_was_named_for_its_SYN()
    {
        Require.Netns();
        using Socket first = Listener("127.0.0.1"), second = Listener("127.0.0.1");
        Name(first, 0);
        // Its answers get lost on the way: the handshake stays half done, and is done after the change.
        _netns.Exec("nft", "add table inet lossy; add chain inet lossy c { type filter hook output priority -200; }; "
            + "add rule inet lossy c tcp sport 80 tcp flags & (syn|ack) == syn|ack drop");
        Socket opening = _netns.Run(() => new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp));
        _open.Add(opening);
        Task connected = opening.ConnectAsync(IPAddress.Loopback, 80);
        var opened = new Opened(new HashSet<int> { 80 });
        using SockDiag sockets = _netns.Run(() => new SockDiag());
        Assert.True(SpinWait.SpinUntil(() => sockets.HandshakesByPort(new PortBlock(80, 1)).GetValueOrDefault(80) == 1, TimeSpan.FromSeconds(10)));
        Name(first, 1);
        Assert.Equal(1, opened.Left(sockets));
        _netns.Exec("nft", "delete table inet lossy");
        await connected.WaitAsync(TimeSpan.FromSeconds(20), TestContext.Current.CancellationToken);
        Assert.Equal(0, opened.Left(sockets));
        Assert.Equal((1, 0), (Accepted(first), Accepted(second)));
    }

    [Fact]
    public void A_listener_without_SO_REUSEPORT_takes_no_program()
    {
        Require.Netns();
        using Socket alone = Listener("127.0.0.1", reuse: false);
        Assert.Equal(Errno.Invalid, ReuseportProgram.Attach((int)alone.Handle, 0));
    }

    [Fact]
    public void Without_a_program_the_kernel_chooses()
    {
        Require.Netns();
        using Socket first = Listener("127.0.0.1"), second = Listener("127.0.0.1");
        Name(first, 0);
        Assert.Equal(0, ReuseportProgram.Detach((int)second.Handle));
        Assert.Equal(Errno.NoEntry, ReuseportProgram.Detach((int)first.Handle));
        (int one, int two) = Got(100, first, second);
        Assert.True(one > 10 && two > 10, $"{one} and {two}");
    }

    private static void Name(Socket listener, int index) => Assert.Equal(0, ReuseportProgram.Attach((int)listener.Handle, index));

    private Socket Listener(string address, bool reuse = true) => _netns.Run(() =>
    {
        IPAddress ip = IPAddress.Parse(address);
        var socket = new Socket(ip.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { Blocking = false };
        if (ip.Equals(IPAddress.IPv6Any)) socket.DualMode = true;
        if (reuse) socket.SetRawSocketOption(1, 15, BitConverter.GetBytes(1)); // SOL_SOCKET, SO_REUSEPORT
        socket.Bind(new IPEndPoint(ip, 80));
        socket.Listen(200);
        return socket;
    });

    /// <summary>So many connections, half of them of the other family where the listeners take both; who got how many.</summary>
    private (int, int) Got(int count, Socket? first, Socket second, uint mark = 0)
    {
        var local = (IPEndPoint)second.LocalEndPoint!;
        IPAddress[] targets = local.Address.Equals(IPAddress.IPv6Any) ? [IPAddress.IPv6Loopback, IPAddress.Loopback] : [local.Address];
        _netns.Run(() =>
        {
            for (int i = 0; i < count; i++)
            {
                IPAddress target = targets[i % targets.Length];
                using Socket socket = mark == 0 ? new Socket(target.AddressFamily, SocketType.Stream, ProtocolType.Tcp) : PassingSocket.Open(target.AddressFamily, mark);
                socket.Connect(target, 80);
            }
        });
        return (first is null ? 0 : Accepted(first), Accepted(second));
    }

    private static int Accepted(Socket listener)
    {
        int count = 0;
        while (listener.Poll(0, SelectMode.SelectRead))
        {
            listener.Accept().Dispose();
            count++;
        }
        return count;
    }
}
