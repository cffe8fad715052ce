using System.Collections.Immutable;
using FlipController.Core;

namespace FlipController.Linux.Haproxy;

/// <summary>Hands out a slot's private ports, one for each service, in the order in which they come.</summary>
internal sealed class PrivatePorts(PortBlock block, IReadOnlySet<int> taken)
{
    private readonly Dictionary<Service, (int Port, string? Interface)> given = [];
    private readonly ImmutableArray<ServicePort>.Builder services = ImmutableArray.CreateBuilder<ServicePort>();
    private long next = block.First;

    public ImmutableArray<ServicePort> Services => services.ToImmutable();

    public int? For(Service service, string? device, out string? fault)
    {
        fault = null;
        if (given.TryGetValue(service, out var known))
        {
            if (known.Interface == device) return known.Port;
            fault = "differs from another bind only by its interface, and a redirection by interface is not made yet";
            return null;
        }
        if (block.Contains(service.Port))
        {
            fault = $"is one of the private ports {block} of the slot; choose another block in \"ports\"";
            return null;
        }
        while (next <= block.Last && taken.Contains((int)next)) next++;
        if (next > block.Last || next > 65535)
        {
            fault = $"finds no free port left in the slot's block {block}";
            return null;
        }
        int port = (int)next++;
        given[service] = (port, device);
        services.Add(new(service, port));
        return port;
    }
}
