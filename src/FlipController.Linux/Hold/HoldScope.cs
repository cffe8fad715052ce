using System.Collections.Immutable;

namespace FlipController.Linux.Hold;

/// <summary>Which NEW connections wait, and how long at the most.</summary>
/// <param name="Owner">Names what is made in the kernel for it: a pair's name, or <c>protect-PID</c> (and the pid namespace behind it). Letters, digits, _ and -.</param>
/// <param name="Ports">TCP front ports, on whatever local address.</param>
/// <param name="Incoming">Connections from outside.</param>
/// <param name="Local">Connections of this host to itself.</param>
/// <param name="Max">After so long the hold is opened by others, whatever becomes of the one who closed it.</param>
/// <param name="Devices">
/// Where those from outside come in; empty: every device but lo that is up. Only the plug hold asks.
/// </param>
/// <param name="MarkBit">A bit of the packet mark for the lanes on lo. Only the plug hold asks, and only for local ones.</param>
/// <param name="MeetsNewRules">
/// NAT is what changes: whoever could only wait after it was decided for him does not wait. So for local ones in a plug.
/// </param>
/// <param name="Lanes">Local ones wait in a lane on lo's sending side, and not where lo receives. Only the plug hold asks.</param>
public sealed record HoldScope(
    string Owner, ImmutableArray<int> Ports, bool Incoming, bool Local, TimeSpan Max, ImmutableArray<string> Devices, uint MarkBit = 0x40000000,
    bool MeetsNewRules = false, bool Lanes = false);

/// <param name="Held">Opening SYNs that waited; a client that sent its SYN again counts again.</param>
/// <param name="LongestWait">At most so long did the first of them wait; zero when none did.</param>
/// <param name="Dropped">Of those that came, so many were lost, as the limit was reached: their clients try again after a second.</param>
public readonly record struct HoldTally(long Held, TimeSpan LongestWait, long Dropped);

/// <summary>Bytes that open a hold when they are written to a netlink socket, once or many times.</summary>
/// <param name="Socket">A descriptor; whoever inherits it may write.</param>
public sealed record ForcedOpening(int Socket, ReadOnlyMemory<byte> Message);
