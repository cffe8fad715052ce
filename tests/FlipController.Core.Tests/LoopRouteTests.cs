using System.Collections.Immutable;
using Xunit;

namespace FlipController.Core.Tests;

public class LoopRouteTests
{
    private static Generation Made(int number, params string[] services)
    {
        ImmutableArray<ServicePort> ports = [.. services.Select((s, i) => new ServicePort(Parsed(s), number * 100 + i))];
        return new(number, Slot.Blue, number, 1, "boot", "aa", "bb", DateTimeOffset.UnixEpoch, ports, number, "2.6.12", Loops: [Parsed(services[0])]);
    }

    private static Service Parsed(string text) => Service.TryParse(text, out Service? service) ? service : throw new ArgumentException(text);

    private static string Of(Generation? active, params Generation[] retired) =>
        string.Join(", ", LoopRoute.Of(retired, active).Select(r => $"{r.Generation} {r.Service} {r.ClosedPort}>{r.OpenPort}"));

    [Theory]
    [InlineData("127.0.0.1:81", new[] { "*:80", "127.0.0.1:81" }, "1 127.0.0.1:81 100>201")]
    [InlineData("127.0.0.1:81", new[] { "*:80", "*:81" }, "1 127.0.0.1:81 100>201")]
    [InlineData("127.0.0.1:81", new[] { "*:81", "127.0.0.1:81" }, "1 127.0.0.1:81 100>201, 1 127.0.0.1:81 100>200")]
    [InlineData("*:81", new[] { "[::]:81", "127.0.0.1:81" }, "1 127.0.0.1:81 100>201, 1 *:81 100>200")]
    [InlineData("[::]:81", new[] { "[::]:81 v6only", "*:81" }, "1 [::]:81 v6only 100>200, 1 *:81 100>201")]
    [InlineData("[::1]:81", new[] { "*:81", "[::1]:82" }, "")]
    public void What_the_active_one_serves_stands_in_the_specific_address_first(string loop, string[] active, string routes) =>
        Assert.Equal(routes, Of(Made(2, active), Made(1, loop, "*:80")));

    [Fact]
    public void Each_retired_generation_has_its_own_and_with_none_active_the_front_addresses_stand_in()
    {
        Generation one = Made(1, "127.0.0.1:81"), two = Made(2, "127.0.0.1:81", "*:80"), three = Made(3, "127.0.0.1:81");
        Assert.Equal("1 127.0.0.1:81 100>300, 2 127.0.0.1:81 200>300", Of(three, one, two));
        Assert.Equal("2 127.0.0.1:81 200>81", Of(null, two));
        Assert.Equal("", Of(two));
    }
}
