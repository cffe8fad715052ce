using System.Collections.Immutable;
using System.Globalization;
using System.Text.RegularExpressions;

namespace FlipController.Linux.Haproxy;

/// <summary>One <c>peers</c> section as <c>show peers</c> tells it.</summary>
/// <param name="ResyncFinished">The tables were learned from the local and the remote side, or there is nobody left to learn from.</param>
public sealed partial record PeersState(string Section, bool Disabled, bool ResyncFinished, ImmutableArray<PeerState> Peers)
{
    // src/peers.c (2.6, 2.8) and include/haproxy/peers-t.h (3.0 on): PEERS_RESYNC_FINISHED is the two lowest bits, under
    // either name: PEERS_F_RESYNC_LOCAL|PEERS_F_RESYNC_REMOTE, then PEERS_F_RESYNC_{LOCAL,REMOTE}_FINISHED.
    private const uint ResyncFinishedFlags = 0x3;

    // PEERS_F_RESYNC_REMOTEPARTIAL (2.4 to 2.9), PEERS_F_DBG_RESYNC_REMOTEPARTIAL (3.0 on); neither's bit is used by the other.
    private const uint TaughtInPartFlags = 0x00000800 | 0x08000000;

    /// <summary>
    /// A peer has taught all it had, while it was itself waiting for somebody to learn from: so in a section's first 5 s
    /// (PEER_RESYNC_TIMEOUT).
    /// </summary>
    public bool TaughtInPart { get; init; }

    public static ImmutableArray<PeersState> Parse(string answer)
    {
        var sections = ImmutableArray.CreateBuilder<PeersState>();
        foreach (string line in answer.Split('\n'))
        {
            if (SectionLine().Match(line) is { Success: true } section)
            {
                uint flags = uint.Parse(section.Groups["flags"].ValueSpan, NumberStyles.HexNumber, CultureInfo.InvariantCulture);
                sections.Add(new(section.Groups["id"].Value, section.Groups["disabled"].Value != "0",
                    (flags & ResyncFinishedFlags) == ResyncFinishedFlags, [])
                {
                    TaughtInPart = (flags & TaughtInPartFlags) != 0,
                });
            }
            else if (sections.Count > 0 && PeerLine().Match(line) is { Success: true } peer)
            {
                PeersState last = sections[^1];
                sections[^1] = last with
                {
                    Peers = last.Peers.Add(new(peer.Groups["id"].Value, peer.Groups["side"].Value == "local",
                        peer.Groups["active"].Value == "active", peer.Groups["status"].Value)),
                };
            }
        }
        return sections.ToImmutable();
    }

    [GeneratedRegex(@"^0x[0-9a-f]+: \[[^]]*\] id=(?<id>\S+) disabled=(?<disabled>\d+) flags=0x(?<flags>[0-9a-f]{1,8})\b")]
    private static partial Regex SectionLine();

    [GeneratedRegex(@"^  0x[0-9a-f]+: id=(?<id>[^(]+)\((?<side>local|remote),(?<active>active|inactive)\).* last_status=(?<status>\S+)")]
    private static partial Regex PeerLine();
}

/// <param name="Connected">A session with it is open (never so for the local one, unless it teaches its successor).</param>
/// <param name="LastStatus">ESTA, RETR, CONN, NAME, …</param>
public sealed record PeerState(string Name, bool Local, bool Connected, string LastStatus);
