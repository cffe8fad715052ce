using System.Collections.Immutable;
using Xunit;

namespace FlipController.Core.Tests;

public sealed class WitnessComparisonTests
{
    private static ClientSockets Sockets(int established = 0, int half = 0, int finishing = 0, int waiting = 0, int orphans = 0, int unknown = 0) =>
        new(established, half, finishing, waiting, orphans, 0, unknown, ImmutableSortedDictionary<string, int>.Empty);

    public static TheoryData<string, Witnesses, string[]> Cases => new()
    {
        { "all agree", new(3, Sockets(3), 3, 3, true), [] },
        { "nothing is left", new(0, Sockets(), 0, 0, true), [] },
        { "a closed peer is remembered", new(5, Sockets(3), 3, 3, true, ConntrackExpires: TimeSpan.FromSeconds(120)),
            ["conntrack still remembers 2 connections whose socket is gone; the last expires after 2m"] },
        { "for days", new(4, Sockets(3), 3, 3, true, ConntrackExpires: TimeSpan.FromDays(5)),
            ["conntrack still remembers 1 connection whose socket is gone; the last expires after 120h"] },
        { "remembered, until when is not known", new(1, Sockets(), 0, 0, true), ["conntrack still remembers 1 connection whose socket is gone"] },
        { "half-closed", new(0, Sockets(half: 1), 1, 1, true, ConntrackMissing: 1),
            ["1 client has finished and HAProxy has not (close-wait): it still answers them, or waits for its server",
             "1 open connection is missing in conntrack: closed there already, expired while idle, deleted, or not tracked"] },
        { "finished by HAProxy alone", new(2, Sockets(finishing: 2), 2, 2, true), ["2 connections are finished by HAProxy and not by the client (fin-wait)"] },
        { "idle keep-alives alone", new(4, Sockets(4), 4, 0, false), ["HAProxy holds only idle connections (4): clients between two requests, or before the first"] },
        { "some idle", new(4, Sockets(4), 4, 1, false), ["3 of HAProxy's 4 connections are idle: between two requests, or before the first"] },
        { "several streams a connection", new(1, Sockets(1), 1, 9, false), [] },
        { "table full", new(2, Sockets(5), 5, 5, false, TableEntries: 99, TableLimit: 100),
            ["the conntrack table is full (99 of 100): it may lack connections that are open"] },
        { "entries missing", new(2, Sockets(5), 5, 5, false, TableEntries: 9, TableLimit: 100),
            ["3 open connections are missing in conntrack: closed there already, expired while idle, deleted, or not tracked"] },
        { "missing and remembered at once", new(5, Sockets(5), 5, 5, false, ConntrackMissing: 1),
            ["conntrack still remembers 1 connection whose socket is gone",
             "1 open connection is missing in conntrack: closed there already, expired while idle, deleted, or not tracked"] },
        { "orphans", new(1, Sockets(orphans: 1), 0, 0, true),
            ["1 connection is closed by HAProxy and still being delivered by the kernel; HAProxy's end does not cut it"] },
        { "orphans of two generations", new(0, Sockets(unknown: 2), 0, 0, true),
            ["2 more are still being delivered on ports that a later generation uses as well, and may be its own"] },
        { "not accepted", new(2, Sockets(waiting: 2), 0, 0, false), ["2 connections wait to be accepted by HAProxy"] },
        { "HAProxy has others", new(1, Sockets(1), 3, 3, false),
            ["HAProxy counts 2 connections more than it has sockets on the private ports: by a unix socket or an address of its own, or closed this moment"] },
        { "HAProxy is behind", new(2, Sockets(2), 1, 1, false), ["HAProxy counts 1 connection fewer than the kernel: opened or closed this moment"] },
        { "no session", new(1, Sockets(1), null, null, true),
            ["HAProxy cannot be asked: it stops, and the session opened before that was lost with an earlier run of the controller"] },
        { "nobody answers", new(null, null, null, null, false),
            ["conntrack cannot be asked", "the kernel's sockets cannot be asked", "HAProxy cannot be asked"] },
    };

    [Theory]
    [MemberData(nameof(Cases))]
    public void Each_disagreement_has_its_reason(string what, Witnesses seen, string[] why)
    {
        Assert.NotEmpty(what);
        Assert.Equal(why, WitnessComparison.Explain(seen));
    }
}

public sealed class GentleClosingTests
{
    [Theory]
    [InlineData(0, 60, 1, 0)]
    [InlineData(60, 60, 1, 1)]
    [InlineData(3, 60, 20, 1)]
    [InlineData(2, 40, 20, 1)]
    [InlineData(1, 20, 20, 1)]
    [InlineData(600, 60, 1, 10)]
    [InlineData(10, 60, 1, 0)] // asked more often than there is one to close
    [InlineData(10, 0, 1, 10)]
    [InlineData(10, -5, 1, 10)]
    [InlineData(10, 0.5, 1, 10)]
    public void So_many_are_due(int open, double left, double untilNext, int due) =>
        Assert.Equal(due, GentleClosing.DueNow(open, TimeSpan.FromSeconds(left), TimeSpan.FromSeconds(untilNext)));

    [Theory]
    [InlineData(1, 0)]
    [InlineData(7, 0)]
    [InlineData(1000, 0)]
    [InlineData(100_000, 0)]
    [InlineData(1000, 20)] // leave by themselves at each step
    public void They_are_spread_evenly_and_none_is_left(int open, int leaving)
    {
        TimeSpan spread = TimeSpan.FromSeconds(60), at = TimeSpan.Zero;
        int begin = open, most = 0, steps = 0;
        while (open > 0)
        {
            TimeSpan step = GentleClosing.NextStep(open, spread - at);
            int due = GentleClosing.DueNow(open, spread - at, step);
            open -= due;
            most = Math.Max(most, due);
            if (leaving == 0) Assert.InRange(open, begin * (1 - (at + step) / spread) - 1 - begin / 500.0, begin * (1 - at / spread) + 1 + begin / 500.0);
            open = Math.Max(0, open - leaving);
            at += step;
            Assert.True(++steps <= 601);
        }
        Assert.True(at <= spread + TimeSpan.FromSeconds(0.1));
        Assert.True(most <= Math.Ceiling(begin / (begin > 5000 ? 25.0 : 300.0)) + 1, $"{most} at once");
    }
}
