using System.Collections.Immutable;

namespace FlipController.Core;

/// <summary>
/// Where a connection of a retired generation to itself goes: the port it means is closed since its soft stop, and the one of the
/// generation that is active now stands in for it, as it would with one HAProxy that was reloaded.
/// </summary>
/// <param name="Service">What it means to reach; of an address that both listen at.</param>
/// <param name="ClosedPort">The retired generation's private port for it.</param>
/// <param name="OpenPort">Where it is served now.</param>
public sealed record LoopRoute(int Generation, Service Service, int ClosedPort, int OpenPort)
{
    /// <summary>In the order in which they decide: a specific address before the wildcards. What nobody serves any more has none.</summary>
    /// <param name="active">Null: none lives, and whoever listens at the front addresses themselves stands in.</param>
    public static ImmutableArray<LoopRoute> Of(IEnumerable<Generation> retired, Generation? active)
    {
        var routes = ImmutableArray.CreateBuilder<LoopRoute>();
        foreach (Generation from in retired)
            foreach (ServicePort closed in from.Ports.Where(p => from.Loops?.Contains(p.Service) == true))
            {
                IEnumerable<ServicePort> open = active is null
                    ? [new(closed.Service, closed.Service.Port)]
                    : active.Ports.Where(p => p.Service.Overlaps(closed.Service));
                routes.AddRange(open
                    .OrderBy(p => p.Service.Breadth)
                    .Select(p => new LoopRoute(from.Number, Narrower(closed.Service, p.Service), closed.PrivatePort, p.PrivatePort)));
            }
        return routes.ToImmutable();
    }

    private static Service Narrower(Service one, Service other) => other.Breadth < one.Breadth ? other : one;
}
