using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using FlipController.Linux.Hold;
using FlipController.Linux.Tests.Kernel;
using Xunit;

namespace FlipController.Linux.Tests.Hold;

/// <summary>Two namespaces on one wire, and counters of opening SYNs to each port: as sent by the client, and as they come past a hold.</summary>
internal sealed class HeldNetwork : IDisposable
{
    private const string OpeningSyn = "tcp flags & (fin|syn|rst|ack) == syn";

    private readonly Stopwatch _sending = new();

    internal HeldNetwork(params int[] ports)
    {
        (Server, Client) = TestNetwork.CreateTwo();
        string Counters(string hook) => "table inet counting { " + string.Concat(ports.Select(port => $"counter p{port} {{ }}; "))
            + $"chain c {{ type filter hook {hook}; "
            + string.Concat(ports.Select(port => $"{OpeningSyn} tcp dport {port} counter name p{port}; ")) + "}; }";
        Client.Exec("nft", Counters("output priority -400"));
        Server.Exec("nft", Counters("prerouting priority -250"));
    }

    internal TestNetwork Server { get; }
    internal TestNetwork Client { get; }

    internal static HoldScope Scope(string owner, params int[] ports) =>
        new(owner, [.. ports], Incoming: true, Local: true, TimeSpan.FromSeconds(60), []);

    /// <summary>Disposed of before the namespace.</summary>
    internal QueueHold Prepare(HoldScope scope) => Server.Own(() => QueueHold.Prepare(scope));

    internal long Sent(int port) => Count(Client, port);

    internal void SendingBegins() => _sending.Restart();

    /// <summary>So many opening SYNs and no more: none was lost and sent again. Who waits for a second sends again in any case.</summary>
    internal void SentOnce(int port, int expected)
    {
        TimeSpan since = _sending.Elapsed;
        Assert.InRange(Sent(port), expected, since < TimeSpan.FromMilliseconds(900) ? expected : expected * 6);
    }

    /// <summary>From outside, and let go or never held.</summary>
    internal long Passed(int port) => Count(Server, port);

    private static long Count(TestNetwork network, int port)
    {
        using JsonDocument listing = JsonDocument.Parse(network.Exec("nft", "-j", "list", "counter", "inet", "counting", $"p{port}"));
        return listing.RootElement.GetProperty("nftables")[1].GetProperty("counter").GetProperty("packets").GetInt64();
    }

    /// <summary>The rules but for our own table and the counters.</summary>
    internal string Foreign() => string.Join('\n', Server.Exec("nft", "list", "ruleset").Split("table ")
        .Where(table => table.Length > 0 && !table.StartsWith("inet counting", StringComparison.Ordinal)
            && !table.StartsWith($"inet {HoldTable.Name}", StringComparison.Ordinal)));

    internal bool HasTable => Server.Exec("nft", "list", "tables").Contains(HoldTable.Name, StringComparison.Ordinal);

    public void Dispose()
    {
        // The server owns holds, and their lock files name its namespace.
        Client.Dispose();
        Server.Dispose();
    }
}

/// <summary>Opening SYNs as fast as they can be written, without a connection behind them: nobody sends them a second time.</summary>
internal sealed class SynStorm : IDisposable
{
    private readonly Socket _socket;
    private readonly byte[] _packet = new byte[40];
    private readonly EndPoint _to;
    private uint _next;

    internal SynStorm(TestNetwork from, string source, string destination, int port)
    {
        _socket = from.Own(() => new Socket(AddressFamily.InterNetwork, SocketType.Raw, ProtocolType.Raw)); // with a header of our own
        _to = new IPEndPoint(IPAddress.Parse(destination), 0);
        _packet[0] = 0x45; // IPv4, 20 bytes; the kernel fills in the length and the checksum, raw(7)
        _packet[8] = 64;
        _packet[9] = 6; // TCP
        IPAddress.Parse(source).TryWriteBytes(_packet.AsSpan(12), out _);
        IPAddress.Parse(destination).TryWriteBytes(_packet.AsSpan(16), out _);
        BinaryPrimitives.WriteUInt16BigEndian(_packet.AsSpan(22), (ushort)port);
        _packet[32] = 5 << 4;
        _packet[33] = 0x02; // SYN
        // And no checksum: past netfilter, nobody answers.
    }

    internal void Send(int count)
    {
        for (int i = 0; i < count; i++)
        {
            BinaryPrimitives.WriteUInt16BigEndian(_packet.AsSpan(20), (ushort)(1024 + _next % 60000));
            BinaryPrimitives.WriteUInt32BigEndian(_packet.AsSpan(24), _next++);
            _socket.SendTo(_packet, _to);
        }
    }

    public void Dispose() => _socket.Dispose();

    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{_next} SYNs");
}
