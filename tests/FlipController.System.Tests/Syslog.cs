using System.Buffers.Text;
using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using FlipController.Tests.Shared;

namespace FlipController.SystemTests;

/// <summary>What came in of a stream: each message says who sent it and which one it is.</summary>
internal sealed class SyslogReceiver : IDisposable
{
    private const int ReceiveBufferForce = 33; // SO_RCVBUFFORCE, include/uapi/asm-generic/socket.h
    private readonly Socket _socket;
    private readonly Thread _thread;
    private readonly ConcurrentDictionary<long, int> _times = new();
    private long _count;

    private SyslogReceiver(Socket socket)
    {
        _socket = socket;
        _thread = new Thread(Run) { IsBackground = true, Name = "syslog receiver" };
        _thread.Start();
    }

    /// <summary>On 127.0.0.1, with room for all that comes while nobody reads.</summary>
    public static SyslogReceiver Start(Netns netns, int port) => new(netns.Run(() =>
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        socket.SetRawSocketOption(1, ReceiveBufferForce, BitConverter.GetBytes(256 << 20));
        socket.Bind(new IPEndPoint(IPAddress.Loopback, port));
        return socket;
    }));

    /// <summary>With those that came more than once.</summary>
    public long Count => Interlocked.Read(ref _count);

    public int Distinct => _times.Count;

    public bool Has(int sender, int number) => _times.ContainsKey(SyslogSenders.Mark(sender, number));

    /// <summary>How often each message came.</summary>
    public IReadOnlyDictionary<long, int> Times => _times;

    private void Run()
    {
        byte[] buffer = new byte[2048];
        try
        {
            while (true)
            {
                int length = _socket.Receive(buffer);
                ReadOnlySpan<byte> text = buffer.AsSpan(0, length).TrimEnd((byte)'\n');
                if (Utf8Parser.TryParse(text[(text.LastIndexOf((byte)' ') + 1)..], out long mark, out _))
                    _times.AddOrUpdate(mark, 1, static (_, times) => times + 1);
                Interlocked.Increment(ref _count);
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The test is over.
        }
    }

    public void Dispose()
    {
        // Closing alone does not wake a blocked receive; a shutdown does, though the socket is not connected.
        try
        {
            _socket.Shutdown(SocketShutdown.Both);
        }
        catch (SocketException)
        {
        }
        _socket.Dispose();
        _thread.Join();
    }
}

/// <summary>Senders with a fixed source port each, as syslog daemons have.</summary>
internal sealed class SyslogSenders : IDisposable
{
    private const int Numbers = 1_000_000_000, FirstPort = 40000;
    private readonly Socket[] _sockets;
    private readonly int[] _sent;
    private readonly byte[][] _messages;
    private Thread? _stream;
    private volatile bool _enough;

    /// <param name="targets">In turn.</param>
    public SyslogSenders(Netns netns, int count, IReadOnlyList<IPEndPoint> targets)
    {
        _sent = new int[count];
        _messages = [.. Enumerable.Range(0, count).Select(i => Encoding.ASCII.GetBytes($"<134>Nov 22 10:00:00 host{i} app: {0:000000000000}"))];
        _sockets = netns.Run(() => Enumerable.Range(0, count).Select(i =>
        {
            IPEndPoint target = targets[i % targets.Count];
            var socket = new Socket(target.AddressFamily, SocketType.Dgram, ProtocolType.Udp);
            socket.Bind(new IPEndPoint(target.AddressFamily == AddressFamily.InterNetwork ? IPAddress.Any : IPAddress.IPv6Any, FirstPort + i));
            socket.Connect(target);
            return socket;
        }).ToArray());
    }

    public int Count => _sockets.Length;

    public static long Mark(int sender, int number) => (long)sender * Numbers + number;

    public long Sent => _sent.Sum(s => (long)Volatile.Read(ref s));

    /// <summary>Datagrams that an answer said nobody takes.</summary>
    public int Refused { get; private set; }

    public int SentBy(int sender) => Volatile.Read(ref _sent[sender]);

    /// <returns>Its number, from 0.</returns>
    public int Send(int sender)
    {
        int number = _sent[sender];
        Span<byte> message = _messages[sender];
        Utf8Formatter.TryFormat(Mark(sender, number), message[^12..], out _, new('D', 12));
        for (; ; )
        {
            try
            {
                _sockets[sender].Send(message);
                break;
            }
            catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionRefused)
            {
                Refused++; // of one before; this one was not sent
            }
        }
        Volatile.Write(ref _sent[sender], number + 1);
        return number;
    }

    /// <summary>
    /// All of them in turn until it is stopped. When the processors had other things to do it is late, and catches up with at most twice the
    /// rate, or leaves out what is more than a tenth of a second's: a burst would measure buffers.
    /// </summary>
    public void Start(int perSecond)
    {
        _stream = new Thread(() =>
        {
            int perTick = perSecond / 1000 * 2, sender = 0;
            long began = Stopwatch.GetTimestamp();
            double done = 0;
            while (!_enough)
            {
                double due = Stopwatch.GetElapsedTime(began).TotalSeconds * perSecond;
                done = Math.Max(done, due - perSecond / 10.0);
                for (int i = 0; i < perTick && done < due; i++, done++) Send(sender++ % _sockets.Length);
                Thread.Sleep(1);
            }
        }) { IsBackground = true, Name = "syslog senders" };
        _stream.Start();
    }

    public void Stop()
    {
        _enough = true;
        _stream?.Join();
    }

    public void Dispose()
    {
        Stop();
        foreach (Socket socket in _sockets) socket.Dispose();
    }
}
