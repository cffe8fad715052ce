using System.Net;
using FlipController.Core;
using FlipController.Linux.Files;
using FlipController.Linux.Handover;

namespace FlipController.Linux;

public static partial class Doctor
{
    /// <summary>Whether the other node could be asked, and could ask, as far as that can be seen from here.</summary>
    private static IEnumerable<CheckLine> Peer(Configuration configuration)
    {
        if (configuration.Peer is not { } options) yield break;
        // What is in the key is nobody's but the daemon's: no line says anything of it but its length.
        yield return KeyFile.Look(options.Key, out byte[] key) is { } fault
            ? new CheckLine("peer.key", false, fault.Why, fault.Cause is UnauthorizedAccessException && geteuid() != 0 ? "run it as root" : fault.Remedy)
            : new CheckLine("peer.key", true, $"{options.Key} has {key.Length} bytes, which are root's alone to read; the other node needs the same");
        IPAddress own = IPEndPoint.Parse(options.Listen).Address, other = IPEndPoint.Parse(options.Address).Address;
        CheckLine listen, address;
        try
        {
            using var places = new VipPlaces();
            listen = own.Equals(IPAddress.Any) || own.Equals(IPAddress.IPv6Any) || places.Own().Contains(own)
                ? new CheckLine("peer.listen", true, $"{options.Listen} is this node's")
                : new CheckLine("peer.listen", false, $"{own} is on no device here", "name an address of this node that stays here, whoever has the VIPs");
            address = places.Own().Contains(other)
                ? new CheckLine("peer.address", false, $"{other} is this node's own", "name the other node's", Warning: true)
                : places.WayTo(other) is { } device ? new CheckLine("peer.address", true, $"{other} is reached by {device}")
                : new CheckLine("peer.address", false, $"there is no route to {other}", "mend the route, or peer.address");
        }
        catch (FlipException e)
        {
            listen = new CheckLine("peer.listen", false, e.Message, "run it as root", Warning: true);
            address = new CheckLine("peer.address", false, "not looked at", "run it as root", Warning: true);
        }
        yield return listen;
        yield return address;
    }
}
