using System.Collections.Immutable;

namespace FlipController.Core;

/// <summary>The kernel's sockets of one generation's clients, counted by what they wait for.</summary>
/// <param name="Established">Both may send.</param>
/// <param name="HalfClosed">close-wait: the client has finished, HAProxy has not.</param>
/// <param name="Finishing">fin-wait-1, fin-wait-2 and what follows, held by HAProxy: it has finished, the client has not.</param>
/// <param name="NotAccepted">Open for the client, and still in the queue of the generation's listener.</param>
/// <param name="Orphans">HAProxy has closed them; the kernel still has data to deliver.</param>
/// <param name="Ending">Of nobody any more, and without data: only a FIN is waited for. Not counted in <see cref="Total"/>.</param>
/// <param name="OrphansOfUnknown">
/// With data, on ports that the slot's next generation uses as well, and not in this one's ledger: they may be of either. Not counted
/// in <see cref="Total"/>.
/// </param>
/// <param name="ByService">What <see cref="Total"/> counts, by front address.</param>
public sealed record ClientSockets(
    int Established, int HalfClosed, int Finishing, int NotAccepted, int Orphans, int Ending, int OrphansOfUnknown,
    ImmutableSortedDictionary<string, int> ByService)
{
    public int Total => Established + HalfClosed + Finishing + NotAccepted + Orphans;

    /// <summary>Those that the process holds.</summary>
    public int Held => Established + HalfClosed + Finishing;
}
