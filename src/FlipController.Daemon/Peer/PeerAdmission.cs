using System.Globalization;

namespace FlipController.Daemon.Peer;

internal enum Admitted { Yes, OtherBoot, Again }

/// <summary>
/// Which asks have been seen. Asks of one client may overtake each other on their connections, so a counter that is not above the
/// highest is still taken once if it is among the last 64 (the sliding window of RFC 4303, 3.4.3).
/// </summary>
internal sealed class PeerAdmission(string id)
{
    public const int Window = 64, MostClients = 64;

    private readonly Lock _lock = new();
    private readonly Dictionary<string, (ulong Highest, ulong Seen)> _clients = [];
    private int _round;

    /// <summary>
    /// The word of this run that asks must carry. Every process of the peer is a client of its own, and a client that is forgotten could be
    /// replayed: so when there are too many to remember, all are forgotten and the word is another one.
    /// </summary>
    public string Boot
    {
        get { lock (_lock) return Word(); }
    }

    /// <summary>The id within such a word, which stays the same for a run of the daemon.</summary>
    public static string IdOf(string boot) => boot.Split('.')[0];

    public static bool IsWord(string boot) =>
        boot.Split('.') is [var id, var round] && PeerSeal.IsId(id) && uint.TryParse(round, NumberStyles.None, CultureInfo.InvariantCulture, out _);

    /// <summary>Of an ask whose seal is right: no stranger makes this remember anything.</summary>
    public Admitted Admit(string boot, string client, ulong counter)
    {
        lock (_lock)
        {
            if (boot != Word()) return Admitted.OtherBoot;
            if (!_clients.TryGetValue(client, out (ulong Highest, ulong Seen) known))
            {
                if (_clients.Count == MostClients)
                {
                    _clients.Clear();
                    _round++;
                    return Admitted.OtherBoot;
                }
                _clients[client] = (counter, 1);
                return Admitted.Yes;
            }
            if (counter > known.Highest)
            {
                ulong ahead = counter - known.Highest;
                _clients[client] = (counter, ahead >= Window ? 1 : known.Seen << (int)ahead | 1);
                return Admitted.Yes;
            }
            ulong behind = known.Highest - counter;
            if (behind >= Window || (known.Seen >> (int)behind & 1) != 0) return Admitted.Again;
            _clients[client] = known with { Seen = known.Seen | 1UL << (int)behind };
            return Admitted.Yes;
        }
    }

    private string Word() => string.Create(CultureInfo.InvariantCulture, $"{id}.{_round}");
}
