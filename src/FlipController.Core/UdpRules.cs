using System.Collections.Immutable;
using System.Net;

namespace FlipController.Core;

/// <summary>What a flip does with the senders of UDP front addresses.</summary>
public static class UdpRules
{
    /// <summary>
    /// What the configuration says of the address, else of its port on every one (<c>:514</c>), else what is usual: QUIC sticks, the rest
    /// moves.
    /// </summary>
    public static UdpRule Of(RedirectOptions options, Service service)
    {
        UdpRule? ofPort = null;
        foreach ((string key, UdpRule rule) in options.Udp)
        {
            if (!Service.TryParse(key, out Service? named) || !Names(named, service)) continue;
            if (named.Address.Equals(service.Address)) return rule;
            ofPort ??= rule;
        }
        return ofPort ?? (service.Transport == Transport.Quic ? UdpRule.Stick : UdpRule.Move);
    }

    /// <summary>What the configuration names that is no UDP front address of these: a slip, that must not pass for a setting.</summary>
    public static ImmutableArray<string> Unknown(RedirectOptions options, IReadOnlyCollection<Service> services) =>
        [.. options.Udp.Keys.Where(k => !(Service.TryParse(k, out Service? named) && services.Any(s => Names(named, s))))];

    /// <summary>In this place nothing but UDP is meant: <c>:514</c> and <c>udp@:514</c> are the same.</summary>
    private static bool Names(Service named, Service service) => !service.IsTcp && named.Port == service.Port
        && (named.IsTcp || named.Transport == service.Transport)
        && (named.Address.Equals(service.Address) || named.Address.Equals(IPAddress.Any));
}
