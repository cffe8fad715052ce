using System.Collections.Immutable;
using System.Diagnostics;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Hold;

/// <summary>
/// Waits until nobody is between a port and the program that listens there: who has sent an opening SYN before the hold and is not
/// accepted yet is reset when the listener closes. Belongs to the network namespace of the thread that made it.
/// </summary>
internal sealed class AcceptQueues : IDisposable
{
    /// <summary>A handshake waits for a client who may be far away, or gone.</summary>
    private static readonly TimeSpan Handshakes = TimeSpan.FromMilliseconds(5);

    /// <summary>An accept queue waits for the program alone, which needs a few microseconds, or, on a host that is too busy, its next turn.</summary>
    private static readonly TimeSpan Longest = TimeSpan.FromMilliseconds(100);

    private readonly SockDiag _sockets = new();
    private readonly ImmutableArray<int> _ports;
    private readonly TimeSpan _longest;
    private readonly bool _handshakes;

    /// <param name="max">The hold's: a tenth of it is the most that this takes.</param>
    internal AcceptQueues(ImmutableArray<int> ports, TimeSpan max)
    {
        _ports = ports;
        _longest = max / 10 < Longest ? max / 10 : Longest;
        HashSet<int> heard = [.. _sockets.Listeners().Select(l => l.Local.Port)];
        Unheard = [.. ports.Where(p => !heard.Contains(p))];
        _ = _sockets.Unaccepted(ports); // first use
        long start = Stopwatch.GetTimestamp();
        _ = _sockets.Unaccepted(ports);
        // Where there are so many connections that to look for handshakes among them takes all the time, they are given it unseen.
        _handshakes = Stopwatch.GetElapsedTime(start) < Handshakes / 2;
    }

    /// <summary>Ports where nobody listened when this was made.</summary>
    internal ImmutableArray<int> Unheard { get; }

    /// <returns>Who was still there at the last look.</returns>
    internal UnacceptedConnections WaitUntilEmpty()
    {
        long start = Stopwatch.GetTimestamp();
        while (true)
        {
            UnacceptedConnections unaccepted = _sockets.Unaccepted(_ports, _handshakes);
            TimeSpan waited = Stopwatch.GetElapsedTime(start);
            bool patient = waited < Handshakes && (unaccepted.Handshakes > 0 || !_handshakes);
            if (waited >= _longest || unaccepted.Waiting == 0 && !patient) return unaccepted;
            Thread.Sleep(1); // the program needs the processor more than this does
        }
    }

    public void Dispose() => _sockets.Dispose();
}
