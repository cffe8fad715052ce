using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using FlipController.Linux.Kernel;
using Xunit;

namespace FlipController.Linux.Tests.Kernel;

/// <summary>
/// Real connections from one namespace through the marking rule of another:
/// <code>
///   port 80 -> mark One -> private port 21000     81 -> Two -> 22000     82 -> Other's, of another pair -> 23000     83 -> no mark
/// </code>
/// </summary>
[Collection(ManyDescriptors.Alone)]
public sealed partial class ConntrackLedgerTests
{
    private const uint Mask = 0x0fff0000, One = 0x01010000, Two = 0x01020000, Others = 0x02010000;
    private static readonly (int Front, uint Mark, int Private)[] s_services = [(80, One, 21000), (81, Two, 22000), (82, Others, 23000)];

    private sealed class Place : IDisposable
    {
        internal readonly TestNetwork Server, Client;
        internal readonly Conntrack Truth;
        private readonly List<Socket> _sockets = [];

        internal Place(int events = 2)
        {
            (Server, Client) = TestNetwork.CreateTwo();
            try
            {
                Server.Run(() => File.WriteAllText("/proc/sys/net/netfilter/nf_conntrack_events", events.ToString(CultureInfo.InvariantCulture)));
                string rules = "";
                foreach ((int front, uint mark, int port) in s_services)
                {
                    rules += $"tcp dport {front} tcp flags syn / syn,ack ct mark set ct mark & 0x{~Mask:x} | 0x{mark:x} redirect to :{port}; ";
                    Server.Serve("::", port, "hello", dual: true);
                }
                Server.Serve("::", 83, "hello", dual: true);
                Server.Exec("nft", $"table inet front {{ chain in {{ type nat hook prerouting priority -110; {rules}}}; }}");
                Truth = Server.Own(() => Conntrack.Open()!);
            }
            catch
            {
                Dispose();
                throw;
            }
        }

        internal ConntrackLedger Open(int receiveBufferBytes = ConntrackLedger.DefaultReceiveBufferBytes) =>
            Server.Own(() => ConntrackLedger.Open(TimeProvider.System, receiveBufferBytes, new LedgerPace
            {
                LookAgain = TimeSpan.FromMilliseconds(300),
                LookAgainPerDump = 1,
                Repair = TimeSpan.FromMilliseconds(50),
                AfterFailure = TimeSpan.FromMilliseconds(100),
            })!);

        internal Socket Connect(string address, int port)
        {
            Socket socket = Client.Connect(address, port);
            _sockets.Add(socket);
            TestNetwork.Line(socket);
            return socket;
        }

        internal Socket[] ConnectMany(int count, int port = 80)
        {
            string[] addresses = ["10.9.0.1", "fd09::1"];
            return [.. Enumerable.Range(0, count).Select(i => Connect(addresses[i % 2], port))];
        }

        internal int GroupsInUse() => Server.Run(() => File.ReadLines("/proc/thread-self/net/netlink").Skip(1)
            .Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries))
            .Count(field => field[1] == "12" && field[3] != "00000000")); // Eth, Groups

        public void Dispose()
        {
            foreach (Socket socket in _sockets) socket.Dispose();
            Client.Dispose();
            Server.Dispose();
        }
    }

    private static void Counts(ConntrackLedger ledger, uint mark, int live, int opening = 0) =>
        Eventually.True(() => ledger.CountOf(mark) is { IsCurrent: true } count && count.Live == live && count.Opening == opening,
            () => $"mark 0x{mark:x} has {live} live and {opening} opening connections, not {ledger.CountOf(mark)}; {ledger.Failure} {ledger.Activity}");

    [Fact(Timeout = 60000)]
    public async Task Counts_follow_connections_as_they_open_half_close_and_close() => await Task.Run(() =>
    {
        using Place place = new();
        ConntrackLedger ledger = place.Open();
        ledger.Follow(One, Mask);
        Counts(ledger, One, 0);
        Socket four = place.Connect("10.9.0.1", 80), six = place.Connect("fd09::1", 80), five = place.Connect("10.9.0.1", 80);
        Counts(ledger, One, 3);
        Assert.Equal(place.Truth.Count(One, Mask)!.Value.Live, ledger.CountOf(One)!.Value.Live);
        // conntrack forgets about a half-closed one: the sockets tell.
        four.Shutdown(SocketShutdown.Send);
        Counts(ledger, One, 2);
        six.Dispose();
        Counts(ledger, One, 1);
        five.LingerState = new LingerOption(true, 0); // RST
        five.Dispose();
        Counts(ledger, One, 0);
        DateTimeOffset asked = DateTimeOffset.UtcNow;
        Assert.InRange(ledger.CountOf(One)!.Value.AsOf, asked.AddMilliseconds(-500), DateTimeOffset.UtcNow);
        Assert.Equal((1, 0), (ledger.Activity.Dumps, ledger.Activity.Overflows));
    });

    [Fact(Timeout = 60000)]
    public async Task A_connection_is_found_by_its_peer_and_private_port() => await Task.Run(() =>
    {
        using Place place = new();
        ConntrackLedger ledger = place.Open();
        Socket before = place.Connect("10.9.0.1", 80);
        DateTimeOffset began = DateTimeOffset.UtcNow;
        ledger.Follow(One, Mask);
        Counts(ledger, One, 1);
        FirstSeen? Seen(Socket socket, int port = 21000, uint mark = One) => ledger.FirstSeen(mark, (IPEndPoint)socket.LocalEndPoint!, port);

        Assert.False(Seen(before)!.Value.IsExact);
        Socket four = place.Connect("10.9.0.1", 80), six = place.Connect("fd09::1", 80);
        Counts(ledger, One, 3);
        foreach (Socket socket in (Socket[])[four, six])
        {
            FirstSeen seen = Seen(socket)!.Value;
            Assert.True(seen.IsExact);
            Assert.InRange(seen.Instant, began.AddMilliseconds(-1), DateTimeOffset.UtcNow);
        }
        var mapped = (IPEndPoint)four.LocalEndPoint!;
        Assert.Equal(Seen(four), ledger.FirstSeen(One, new IPEndPoint(mapped.Address.MapToIPv6(), mapped.Port), 21000));
        Assert.Null(Seen(four, port: 21001));
        Assert.Null(Seen(four, mark: Two));
        four.Dispose();
        Counts(ledger, One, 2);
        Assert.Null(ledger.FirstSeen(One, mapped, 21000));
    });

    [Fact(Timeout = 60000)]
    public async Task When_the_kernel_keeps_times_those_before_are_exact_too() => await Task.Run(() =>
    {
        using Place place = new();
        place.Server.Run(() => File.WriteAllText("/proc/sys/net/netfilter/nf_conntrack_timestamp", "1"));
        DateTimeOffset began = DateTimeOffset.UtcNow;
        Socket socket = place.Connect("fd09::1", 80);
        DateTimeOffset established = DateTimeOffset.UtcNow;
        ConntrackLedger ledger = place.Open();
        ledger.Follow(One, Mask);
        Counts(ledger, One, 1);
        FirstSeen seen = ledger.FirstSeen(One, (IPEndPoint)socket.LocalEndPoint!, 21000)!.Value;
        Assert.True(seen.IsExact);
        Assert.InRange(seen.Instant, began.AddMilliseconds(-10), established.AddMilliseconds(10));
    });

    [Fact(Timeout = 60000)]
    public async Task One_client_port_towards_two_front_addresses_is_two_connections() => await Task.Run(() =>
    {
        using Place place = new();
        place.Server.Exec("ip", "address", "add", "10.9.0.3/24", "dev", "wire");
        ConntrackLedger ledger = place.Open();
        ledger.Follow(One, Mask);
        Socket[] both = [.. ((string[])["10.9.0.1", "10.9.0.3"]).Select(address => place.Client.Run(() =>
        {
            Socket socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.ReuseAddress, true);
            socket.Bind(new IPEndPoint(IPAddress.Parse("10.9.0.2"), 5555));
            socket.Connect(IPAddress.Parse(address), 80);
            return socket;
        }))];
        var peer = IPEndPoint.Parse("10.9.0.2:5555");
        Counts(ledger, One, 2);
        FirstSeen? first = ledger.FirstSeen(One, peer, 21000);
        both[0].Dispose();
        Counts(ledger, One, 1);
        Assert.True(ledger.FirstSeen(One, peer, 21000)!.Value.Instant >= first!.Value.Instant);
        both[1].Dispose();
        Counts(ledger, One, 0);
        Assert.Null(ledger.FirstSeen(One, peer, 21000));
    });

    [Fact(Timeout = 60000)]
    public async Task Clients_that_vanish_stay_until_conntrack_forgets_them() => await Task.Run(() =>
    {
        using Place place = new();
        ConntrackLedger ledger = place.Open();
        ledger.Follow(One, Mask);
        Socket[] sockets = place.ConnectMany(6);
        Counts(ledger, One, 6);
        place.Client.Exec("nft", "table inet gone { chain out { type filter hook output priority 0; tcp dport 80 drop; }; }");
        foreach (Socket socket in sockets) socket.Dispose();
        Assert.Equal(6, place.Truth.Count(One, Mask)!.Value.Live);
        Counts(ledger, One, 6);
        place.Server.Exec("conntrack", "-D", "-f", "ipv4", "-p", "tcp");
        Counts(ledger, One, 3);
        place.Server.Exec("conntrack", "-D", "-f", "ipv6", "-p", "tcp");
        Counts(ledger, One, 0);
    });

    [Fact(Timeout = 60000)]
    public async Task Handshakes_under_way_are_opening() => await Task.Run(() =>
    {
        using Place place = new();
        ConntrackLedger ledger = place.Open();
        ledger.Follow(One, Mask);
        place.Client.Exec("nft", "table inet lossy { chain c { type filter hook input priority -200; tcp sport 80 drop; }; }");
        List<Socket> opening = [];
        try
        {
            foreach (string address in (string[])["10.9.0.1", "fd09::1"])
            {
                opening.Add(place.Client.Run(() =>
                {
                    IPAddress to = IPAddress.Parse(address);
                    Socket socket = new(to.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { Blocking = false };
                    Assert.Throws<SocketException>(() => socket.Connect(to, 80));
                    return socket;
                }));
            }
            Counts(ledger, One, 2, opening: 2);
            place.Client.Exec("nft", "delete table inet lossy");
            Counts(ledger, One, 2, opening: 0);
        }
        finally
        {
            foreach (Socket socket in opening) socket.Dispose();
        }
    });

    [Fact(Timeout = 60000)]
    public async Task A_flood_that_ends_in_time_wait_is_not_counted() => await Task.Run(() =>
    {
        using Place place = new();
        ConntrackLedger ledger = place.Open();
        ledger.Follow(One, Mask);
        Counts(ledger, One, 0); // it listens: one that began before that has no events, and the dump is repeated for it
        Socket stays = place.Connect("fd09::1", 80);
        for (int i = 0; i < 500; i++) place.Connect(i % 2 == 0 ? "10.9.0.1" : "fd09::1", 80).Dispose();
        Eventually.True(() => place.Truth.Count(One, Mask) is { Live: 1, All: 501 }, "conntrack remembers them all");
        Counts(ledger, One, 1);
        Assert.NotNull(ledger.FirstSeen(One, (IPEndPoint)stays.LocalEndPoint!, 21000));
        Assert.Equal((1, 0), (ledger.Activity.Dumps, ledger.Activity.Overflows));
    });

    [Theory(Timeout = 90000)]
    [InlineData(1)] // events tell of those from before too
    [InlineData(2)] // and here they do not: the dump is repeated
    [InlineData(0)] // events tell nothing at all
    public async Task Thousands_from_before_are_counted_and_leave(int events) => await Task.Run(() =>
    {
        using Place place = new(events);
        Socket[] sockets = place.ConnectMany(2000);
        ConntrackLedger ledger = place.Open();
        ledger.Follow(One, Mask);
        Counts(ledger, One, 2000);
        foreach (Socket socket in sockets.AsSpan(0, 1500)) socket.Dispose();
        Counts(ledger, One, 500);
        Socket[] later = place.ConnectMany(10);
        Counts(ledger, One, 510);
        foreach (Socket socket in sockets) socket.Dispose();
        Counts(ledger, One, 10);
        if (events == 1) Assert.Equal(1, ledger.Activity.Dumps);
        else Assert.True(ledger.Activity.Dumps > 1, $"{ledger.Activity}");
        foreach (Socket socket in later) socket.Dispose();
        Counts(ledger, One, 0);
        if (events != 0) return;
        Assert.Equal(0, ledger.Activity.Messages);
    });

    [Fact(Timeout = 60000)]
    public async Task Lost_events_are_noticed_and_made_good() => await Task.Run(() =>
    {
        using Place place = new();
        ConntrackLedger ledger = place.Open(receiveBufferBytes: 4096);
        ledger.Follow(One, Mask);
        Counts(ledger, One, 0);
        Socket first = place.Connect("10.9.0.1", 80);
        Counts(ledger, One, 1);
        FirstSeen? seen = ledger.FirstSeen(One, (IPEndPoint)first.LocalEndPoint!, 21000);
        for (int round = 1; round <= 3; round++)
        {
            Socket[] sockets = place.ConnectMany(200);
            foreach (Socket socket in sockets.AsSpan(0, 190)) socket.Dispose();
            Counts(ledger, One, 1 + 10 * round);
            Assert.Equal(place.Truth.Count(One, Mask)!.Value.Live, ledger.CountOf(One)!.Value.Live);
        }
        Assert.True(ledger.Activity is { Overflows: > 0, Dumps: > 1 }, $"{ledger.Activity}");
        Assert.Equal(seen, ledger.FirstSeen(One, (IPEndPoint)first.LocalEndPoint!, 21000));
    });

    [Fact(Timeout = 60000)]
    public async Task Others_are_neither_counted_nor_read() => await Task.Run(() =>
    {
        using Place place = new();
        ConntrackLedger ledger = place.Open();
        ledger.Follow(One, Mask);
        ledger.Follow(0x40000000, 0xc0000000); // another pair, with other bits
        Counts(ledger, One, 0);
        foreach (int port in (int[])[81, 82, 83])
        {
            Socket[] sockets = place.ConnectMany(50, port);
            foreach (Socket socket in sockets.AsSpan(0, 25)) socket.Dispose();
        }
        Eventually.True(() => place.Truth.Count(Others, Mask) is { Live: 25, All: 50 }, "the others are there");
        Counts(ledger, One, 0);
        Assert.Equal(new LedgerActivity(0, 0, 2), ledger.Activity);
        place.Connect("10.9.0.1", 80);
        Counts(ledger, One, 1);
        Assert.Equal(3, ledger.Activity.Messages); // SYN_SENT, SYN_RECV, ESTABLISHED
        Assert.Null(ledger.CountOf(Two));
    });

    [Fact(Timeout = 60000)]
    public async Task What_begins_while_it_listens_has_events_though_it_is_followed_later() => await Task.Run(() =>
    {
        using Place place = new();
        ConntrackLedger ledger = place.Open();
        place.Server.Run(ledger.Listen);
        DateTimeOffset since = DateTimeOffset.UtcNow;
        Socket[] sockets = place.ConnectMany(50);
        ledger.Follow(One, Mask, since);
        Counts(ledger, One, 50);
        foreach (Socket socket in sockets) socket.Dispose();
        Counts(ledger, One, 0);
        Assert.Equal(1, ledger.Activity.Dumps);
        ledger.Unfollow(One);
        Eventually.True(() => place.GroupsInUse() == 1, "it is in one group, that of the ends");
    });

    [Fact(Timeout = 60000)]
    public async Task Marks_come_and_go_and_nobody_listens_when_none_is_left() => await Task.Run(() =>
    {
        using Place place = new();
        ConntrackLedger ledger = place.Open();
        Assert.Equal(0, place.GroupsInUse());
        ledger.Follow(One, Mask);
        ledger.Follow(One, Mask);
        Socket[] one = place.ConnectMany(4), two = place.ConnectMany(3, 81);
        Counts(ledger, One, 4);
        Assert.Equal(1, place.GroupsInUse());
        ledger.Follow(Two, Mask);
        Counts(ledger, Two, 3);
        foreach (Socket socket in (Socket[])[one[0], two[0]]) socket.Dispose();
        Counts(ledger, One, 3);
        Counts(ledger, Two, 2);
        ledger.Unfollow(One);
        Assert.Null(ledger.CountOf(One));
        Assert.Null(ledger.FirstSeen(One, (IPEndPoint)one[1].LocalEndPoint!, 21000));
        two[1].Dispose();
        Counts(ledger, Two, 1);
        ledger.Unfollow(Two);
        ledger.Unfollow(Two);
        Eventually.True(() => place.GroupsInUse() == 0, "it has left the groups");
        long messages = ledger.Activity.Messages;
        place.ConnectMany(5);
        ledger.Follow(One, Mask);
        Counts(ledger, One, 8);
        Assert.Equal(messages, ledger.Activity.Messages);
    });

    [Theory(Timeout = 60000)]
    [InlineData(600)] // more than one jump of the filter can reach over
    [InlineData(3000)] // more than a filter can hold
    public async Task Hundreds_of_marks_may_be_followed(int marks) => await Task.Run(() =>
    {
        using Place place = new();
        place.ConnectMany(2);
        ConntrackLedger ledger = place.Open();
        for (uint i = 1; i < marks; i++) ledger.Follow(0x40000000 + i, 0x4000ffff);
        ledger.Follow(One, Mask);
        ledger.Follow(Others, Mask);
        Counts(ledger, One, 2);
        place.ConnectMany(3);
        place.ConnectMany(4, 82);
        Counts(ledger, One, 5);
        Counts(ledger, Others, 4);
        Counts(ledger, 0x40000005, 0);
    });

    /// <summary>A walk for another mark puts off the one for a connection that events do not tell of.</summary>
    [Fact(Timeout = 60000)]
    public async Task The_silent_are_looked_at_again_however_often_another_is_followed() => await Task.Run(() =>
    {
        using Place place = new();
        Socket silent = place.Connect("10.9.0.1", 80);
        ConntrackLedger ledger = place.Open();
        ledger.Follow(One, Mask);
        Counts(ledger, One, 1);
        silent.Dispose();
        Eventually.True(() =>
        {
            long dumps = ledger.Activity.Dumps;
            ledger.Follow(Two, Mask);
            Eventually.True(() => ledger.Activity.Dumps > dumps, "a followed mark is walked for");
            ledger.Unfollow(Two);
            return ledger.CountOf(One)!.Value.Live == 0;
        }, () => $"{ledger.CountOf(One)} {ledger.Activity}");
    });

    [Fact(Timeout = 60000)]
    public async Task Many_may_ask_at_once() => await Task.Run(() =>
    {
        using Place place = new();
        ConntrackLedger ledger = place.Open();
        ledger.Follow(One, Mask);
        using var stop = new CancellationTokenSource();
        Task[] askers = [.. Enumerable.Range(0, 4).Select(i => Task.Factory.StartNew(() =>
        {
            while (!stop.IsCancellationRequested)
            {
                Assert.InRange(ledger.CountOf(One)!.Value.Live, 0, 300);
                ledger.FirstSeen(One, new IPEndPoint(IPAddress.Parse("10.9.0.2"), 1024 + i), 21000);
                if (i == 0) ledger.Follow(Two, Mask);
                if (i == 1) ledger.Unfollow(Two);
                Thread.Yield();
            }
        }, TaskCreationOptions.LongRunning))];
        try
        {
            Socket[] sockets = place.ConnectMany(300);
            Counts(ledger, One, 300);
            foreach (Socket socket in sockets.AsSpan(0, 200)) socket.Dispose();
            Counts(ledger, One, 100);
        }
        finally
        {
            stop.Cancel();
            Task.WaitAll(askers);
        }
    });

    [Fact(Timeout = 60000)]
    public async Task Several_marks_are_tallied_in_one_dump() => await Task.Run(() =>
    {
        using Place place = new();
        place.ConnectMany(3);
        place.ConnectMany(2, 81)[0].Dispose();
        place.ConnectMany(4, 82);
        place.ConnectMany(2, 83);
        Eventually.True(() => place.Truth.Count(Two, Mask)!.Value.Live == 1, "one of two is closed");
        Assert.Equal([new(1, 0, 2), new(3, 0, 3), new(4, 0, 4), new(0, 0, 0)], place.Truth.CountAll([Two, One, Others, 0x0f0f0000], Mask)!);
        ConntrackFill fill = place.Server.Run(ConntrackFill.Read)!.Value;
        Assert.InRange(fill.Entries, 11, 11 + 5); // and what little else there is
        Assert.True(fill.Limit > 1000);
        Assert.InRange(fill.Share, 0, 0.1);
    });

    [Fact(Timeout = 60000)]
    public async Task What_cannot_be_told_is_not_told_and_why_is_said() => await Task.Run(() =>
    {
        using Place place = new();
        ConntrackLedger ledger = place.Open();
        ledger.Follow(One, Mask);
        Socket[] sockets = place.ConnectMany(3);
        Counts(ledger, One, 3);
        // In place of the socket something that is none; and back.
        using var nothing = File.OpenHandle("/dev/null");
        int kept = Duplicate(ledger.EventsDescriptor);
        try
        {
            DuplicateTo((int)nothing.DangerousGetHandle(), ledger.EventsDescriptor);
            ledger.Follow(Two, Mask);
            Eventually.True(() => ledger.CountOf(One) is null, "it cannot tell");
            Assert.Equal("cannot attach a filter to the socket of conntrack's events: ENOTSOCK. Connections are not counted until it works; it is tried again every 0.1 s.", ledger.Failure);
            sockets[0].Dispose();
        }
        finally
        {
            DuplicateTo(kept, ledger.EventsDescriptor);
            CloseDescriptor(kept);
        }
        Counts(ledger, One, 2);
        Counts(ledger, Two, 0);
        Assert.Null(ledger.Failure);
        place.Connect("10.9.0.1", 81);
        Counts(ledger, Two, 1);
    });

    [LibraryImport("libc", EntryPoint = "dup")]
    private static partial int Duplicate(int fd);

    [LibraryImport("libc", EntryPoint = "dup2")]
    private static partial int DuplicateTo(int from, int to);

    [LibraryImport("libc", EntryPoint = "close")]
    private static partial int CloseDescriptor(int fd);

    [Fact(Timeout = 60000)]
    public async Task A_ledger_that_waits_sleeps_and_ends_when_disposed() => await Task.Run(() =>
    {
        using Place place = new();
        ConntrackLedger ledger = place.Open();
        ledger.Follow(One, Mask);
        Counts(ledger, One, 0);
        Eventually.True(() => Threads().Single(Ours) is { } task && File.ReadAllText(task + "/wchan").Contains("poll"), "it sleeps in poll");
        ledger.Dispose();
        ledger.Dispose();
        ledger.Unfollow(One);
        ledger.Follow(Two, Mask); // whoever comes too late is told nothing, and does not fail
        Assert.Null(ledger.CountOf(Two));
        Eventually.True(() => !Threads().Any(Ours), "the thread has ended");
        Assert.Equal(0, place.GroupsInUse());

        static IEnumerable<string> Threads() => Directory.GetDirectories("/proc/self/task");
        static bool Ours(string task)
        {
            try { return File.ReadAllText(task + "/comm").StartsWith("conntrack ledge", StringComparison.Ordinal); }
            catch (Exception e) when (e is IOException or DirectoryNotFoundException) { return false; }
        }
    });
}
