using System.Collections.Immutable;
using System.Net;
using FlipController.Core;

namespace FlipController.Linux.Haproxy;

/// <summary>Hands out a slot's private ports, one for each service, in the order in which they come.</summary>
/// <param name="onFronts">Instead, each service keeps its own.</param>
internal sealed class PrivatePorts(PortBlock block, IReadOnlySet<int> taken, bool onFronts)
{
    private readonly Dictionary<Service, (int Port, string? Interface)> _given = [];
    private readonly ImmutableArray<ServicePort>.Builder _services = ImmutableArray.CreateBuilder<ServicePort>();
    private readonly HashSet<int> _ports = [];
    private long _next = block.First;

    public ImmutableArray<ServicePort> Services => _services.ToImmutable();

    public int? For(Service service, string? device, out string? fault)
    {
        fault = null;
        if (_given.TryGetValue(service, out var known))
        {
            if (known.Interface == device) return known.Port;
            fault = "differs from another bind only by its interface, and a redirection by interface is not made yet";
            return null;
        }
        if (onFronts)
        {
            if (!service.IsTcp)
            {
                fault = "takes datagrams, and redirect.method listener moves TCP connections only: use nftables or iptables";
                return null;
            }
            return Give(service, device, service.Port);
        }
        if (block.Contains(service.Port))
        {
            fault = $"is one of the private ports {block} of the slot; choose another block in \"ports\"";
            return null;
        }
        while (_next <= block.Last && taken.Contains((int)_next)) _next++;
        if (_next > block.Last || _next > 65535)
        {
            fault = $"finds no free port left in the slot's block {block}";
            return null;
        }
        return Give(service, device, (int)_next++);
    }

    private int Give(Service service, string? device, int port)
    {
        _given[service] = (port, device);
        _services.Add(new(service, port));
        if (service.IsTcp) _ports.Add(service.Port);
        return port;
    }

    /// <summary>Whether any service has this TCP port.</summary>
    public bool Has(int port) => _ports.Contains(port);

    /// <summary>Where a connection of this host to this address and port arrives in the end; null: at none of the services.</summary>
    public ServicePort? Reached(IPAddress address, int port)
    {
        ServicePort? through = null;
        foreach (var (service, given) in _given)
        {
            // What is bound to a device hears nothing that this host says to itself.
            if (!service.IsTcp || service.Port != port || given.Interface is not (null or "lo")) continue;
            // What listens on the very address comes before what listens on every one.
            if (service.Address.Equals(address)) return new(service, given.Port);
            if (service.IsWildcard && IPAddress.IsLoopback(address)
                && (address.AddressFamily == System.Net.Sockets.AddressFamily.InterNetwork ? service.CoversIPv4 : service.CoversIPv6))
                through = new(service, given.Port);
        }
        return through;
    }
}
