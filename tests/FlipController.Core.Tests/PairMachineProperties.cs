using FlipController.Core.Machine;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace FlipController.Core.Tests;

public class PairMachineProperties
{
    private static readonly HashSet<PhaseKind> s_visited = [];

    /// <summary>
    /// 10,000 random traces of changes, operators, failures, deaths and restarts. On the way: never two switches at once, never a
    /// switch to what cannot serve or was not proven, no failure before a switch touches the active generation, nothing that has
    /// the traffic is retired, closed or discarded. At the end: rest, the rule names a living generation, no change was lost,
    /// every caller has an answer.
    /// </summary>
    [Fact]
    public void Any_trace_keeps_traffic_on_a_living_generation_and_comes_to_rest()
    {
        Property property = Prop.ForAll(ArbMap.Default.ArbFor<byte[]>(), trace =>
        {
            var world = new World();
            for (int i = 0; i + 1 < trace.Length; i += 2) world.Step(trace[i], trace[i + 1]);
            world.Converge();
            s_visited.UnionWith(world.Visited);
        });
        int traces = int.Parse(Environment.GetEnvironmentVariable("FLIP_TRACES") ?? "10000");
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(traces).WithEndSize(120), property);
        Assert.Equal(Enum.GetValues<PhaseKind>().Where(k => k != PhaseKind.Cold).Order(), s_visited.Order());
    }
}
