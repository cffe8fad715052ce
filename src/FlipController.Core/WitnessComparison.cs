using System.Collections.Immutable;
using System.Globalization;

namespace FlipController.Core;

/// <summary>What the three witnesses say of one generation at one look; null: that one cannot be asked.</summary>
/// <param name="ConntrackLive">Entries of the generation's mark in a state that means a live connection.</param>
/// <param name="ConntrackExpires">When the last of its entries expires if nothing more happens; null: not known.</param>
/// <param name="ConntrackMissing">Its sockets without an entry, where they were compared one by one; null: they were not.</param>
/// <param name="TableEntries">Entries of the whole host's table, against <paramref name="TableLimit"/> (nf_conntrack_max).</param>
/// <param name="HaproxyConnections">CurrConns.</param>
/// <param name="HaproxyStreams">Streams, several on one HTTP/2 connection; null: not asked.</param>
/// <param name="IsHaproxy">False: it is another program, and there are two witnesses.</param>
/// <param name="HaproxyStopping">It was told to finish, and cannot be asked but through a session opened before.</param>
/// <param name="OnFronts">It listens on the front addresses: nothing is redirected, and no mark in conntrack names it.</param>
/// <param name="UnixClients">Connections to its front paths.</param>
/// <param name="HasQuic">Some of its clients may have no socket and no entry of their own.</param>
public sealed record Witnesses(
    int? ConntrackLive, ClientSockets? Sockets, int? HaproxyConnections, int? HaproxyStreams, bool HaproxyStopping,
    TimeSpan? ConntrackExpires = null, int? ConntrackMissing = null, int? TableEntries = null, int? TableLimit = null,
    bool IsHaproxy = true, bool HasQuic = false, bool OnFronts = false, int UnixClients = 0);

/// <summary>Why the witnesses disagree, in words for an operator. Pure.</summary>
public static class WitnessComparison
{
    /// <summary>From here on the kernel drops what needs a new entry, or soon will.</summary>
    private const double NearlyFull = 0.95;

    /// <returns>A sentence a reason, the telling ones first; empty: they agree and nothing is odd.</returns>
    public static ImmutableArray<string> Explain(Witnesses seen)
    {
        var why = ImmutableArray.CreateBuilder<string>();
        ClientSockets? sockets = seen.Sockets;
        int? total = sockets?.Total;
        string server = seen.IsHaproxy ? "HAProxy" : "the server";

        if (sockets is { HalfClosed: > 0 and var half })
            Say($"{Count(half, "client has", "clients have")} finished and {server} has not (close-wait): it still answers them, or waits for its server");
        if (sockets is { Finishing: > 0 and var finishing })
            Say($"{Count(finishing, "connection is", "connections are")} finished by {server} and not by the client (fin-wait)");
        if (sockets is { Orphans: > 0 and var orphans })
            Say($"{Count(orphans, "connection is", "connections are")} closed by {server} and still being delivered by the kernel; {server}'s end does not cut {(orphans == 1 ? "it" : "them")}");
        if (sockets is { OrphansOfUnknown: > 0 and var unknown })
            Say($"{Count(unknown, "more is", "more are")} still being delivered on ports that a later generation uses as well, and may be its own");
        if (sockets is { NotAccepted: > 0 and var waiting })
            Say($"{Count(waiting, "connection waits", "connections wait")} to be accepted by {server}");

        bool full = seen is { TableEntries: { } entries, TableLimit: > 0 and var limit } && entries >= NearlyFull * limit;
        if (full)
            Say($"the conntrack table is full ({seen.TableEntries} of {seen.TableLimit}): it may lack connections that are open");
        if (seen.ConntrackLive is { } live && total is { } open)
        {
            int missing = seen.ConntrackMissing ?? Math.Max(0, open - live), remembered = Math.Max(0, live - (open - missing));
            if (remembered > 0)
                Say($"conntrack still remembers {Count(remembered, "connection", "connections")} whose socket is gone"
                    + (seen.ConntrackExpires is { } expires ? $"; the last expires after {Rough(expires)}" : ""));
            if (missing > 0 && !full)
                Say($"{Count(missing, "open connection is", "open connections are")} missing in conntrack: closed there already, expired while idle, deleted, or not tracked");
        }

        // Its clients without a stream: between two requests, or before the first one.
        if (seen is { HaproxyConnections: { } connections, HaproxyStreams: { } streams } && connections > streams)
            Say(streams == 0
                ? $"HAProxy holds only idle connections ({connections}): clients between two requests, or before the first"
                : $"{connections - streams} of HAProxy's {connections} connections are idle: between two requests, or before the first");
        if (seen.HaproxyConnections is { } held && sockets is not null)
        {
            int kernel = sockets.Held + seen.UnixClients;
            if (held > kernel)
                Say($"HAProxy counts {Count(held - kernel, "connection", "connections")} more than it has sockets on {(seen.OnFronts ? "the front addresses" : "the private ports")}{(seen.UnixClients > 0 ? " and front paths" : "")}: {(seen.HasQuic ? "over QUIC, " : "")}by a unix socket or an address of its own, or closed this moment");
            else if (held < kernel)
                Say($"HAProxy counts {Count(kernel - held, "connection", "connections")} fewer than the kernel: opened or closed this moment");
        }

        if (seen.ConntrackLive is null) Say(seen.OnFronts ? "conntrack is not asked: where generations listen on the front addresses nothing in it tells whose a connection is" : "conntrack cannot be asked");
        if (sockets is null) Say("the kernel's sockets cannot be asked");
        if (seen.HaproxyConnections is null && seen.IsHaproxy)
            Say(seen.HaproxyStopping
                ? "HAProxy cannot be asked: it stops, and the session opened before that was lost with an earlier run of the controller"
                : "HAProxy cannot be asked");
        return why.ToImmutable();

        void Say(string sentence) => why.Add(sentence);
    }

    private static string Count(int number, string one, string many) => string.Create(CultureInfo.InvariantCulture, $"{number} {(number == 1 ? one : many)}");

    private static string Rough(TimeSpan time) => time >= TimeSpan.FromHours(2) ? Durations.Format(TimeSpan.FromHours(Math.Round(time.TotalHours)))
        : time >= TimeSpan.FromMinutes(2) ? Durations.Format(TimeSpan.FromMinutes(Math.Round(time.TotalMinutes)))
        : Durations.Format(TimeSpan.FromSeconds(Math.Ceiling(time.TotalSeconds)));
}
