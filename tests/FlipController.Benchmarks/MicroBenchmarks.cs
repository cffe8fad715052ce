using System.Collections.Immutable;
using System.Text;
using BenchmarkDotNet.Attributes;
using FlipController.Core;
using FlipController.Core.Machine;
using FlipController.Linux.Haproxy;

namespace FlipController.Benchmarks;

[MemoryDiagnoser]
public class MicroBenchmarks
{
    private readonly SourceFile _large = new("/etc/haproxy/haproxy.cfg", Encoding.UTF8.GetBytes(Large()));
    private readonly SlotPlace _place = new("/run/flipcontroller/edge/g00001", "/run/flipcontroller/edge/g00001.sock", new PortBlock(21000, 1000), ImmutableHashSet<int>.Empty, "node");
    private readonly HaproxySurroundings _surroundings = new() { Environment = ImmutableDictionary<string, string>.Empty.Add("SITE", "a") };
    private readonly PairState _steady = PairState.Initial("edge") with
    {
        Phase = new Steady(), Active = new Generation(1, Slot.Blue, 1, 1, "boot", "a", "a", DateTimeOffset.UnixEpoch, [], 1, "2.6"), LastNumber = 1,
    };
    private readonly PairEvent _flip = new FlipAsked(DateTimeOffset.UnixEpoch, new FlipWish(FlipTrigger.Operator, null, false, null, null, []));

    private static string Large()
    {
        var text = new StringBuilder("defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\nfrontend web\n  bind *:80,*:8000-8009\n.if streq(\"$SITE\",a)\n  bind [::]:80 v6only # and that\n.endif\n  default_backend b0\n");
        for (int i = 0; i < 1000; i++) text.Append($"backend b{i}\n  balance roundrobin\n  server s1 10.0.{i / 250}.{i % 250}:80 check\n  server s2 10.1.{i / 250}.{i % 250}:80 check\n\n");
        return text.ToString();
    }

    [Benchmark(Description = "project 5,000 lines, 1,000 backends")]
    public bool Project() => Projection.Render([_large], _place, _surroundings).IsRendered ? true : throw new InvalidOperationException("it is refused");

    [Benchmark(Description = "Decide")]
    public Decision Decide() => PairMachine.Decide(_steady, _flip);
}
