using System.Text;
using FlipController.Linux.Haproxy;
using Xunit;
using static FlipController.Linux.Tests.Haproxy.Projected;

namespace FlipController.Linux.Tests.Haproxy;

/// <summary>The copy of a generation that listens on the front addresses themselves.</summary>
public sealed class FrontProjectionTests
{
    private static readonly SlotPlace s_place = Place with { OnFronts = true };

    [Theory]
    [InlineData("bind :80,10.0.0.1:443 ssl crt /x")]
    [InlineData("bind :::80 v4v6 shards 1")]
    [InlineData("bind :80 transparent")] // nothing is translated
    [InlineData("bind :80 interface eth0")]
    [InlineData("bind :80-81", "bind :80,:81")]
    public void Addresses_stay(string bind, string? copy = null)
    {
        ProjectionResult result = Render($"listen a\n {bind}\n server s 127.0.0.1:8080\n");
        Assert.Empty(result.Faults);
        Assert.Equal($"listen a\n {copy ?? bind}\n server s 127.0.0.1:8080\n", Encoding.UTF8.GetString(result.Configuration!.Files[1].Content));
        Assert.All(result.Configuration.Services, s => Assert.True(s.IsFront));
    }

    [Theory]
    [InlineData("bind :80 shards by-thread", "2: bind \":80\" has shards: ")]
    [InlineData("bind :80 namespace blue", "2: bind \":80\" listens in another network namespace")]
    [InlineData("bind :80 interface eth0\n bind :80 interface eth1", "3: bind \":80\" differs from another bind only by its interface")]
    public void What_two_generations_cannot_share_is_refused(string bind, string fault) =>
        Assert.Contains(Render($"listen a\n {bind}\n").Faults, f => $"{f.Line}: {f.Message}".StartsWith(fault, StringComparison.Ordinal));

    [Fact]
    public void Datagrams_and_noreuseport_are_refused()
    {
        Assert.Equal(
            ["2: noreuseport keeps two generations from listening on the same address; leave it out, or use redirect.method nftables",
             "6: dgram-bind \":514\" takes datagrams, and redirect.method listener moves TCP connections only: use nftables or iptables"],
            Render("global\n noreuseport\nlisten a\n bind :80\nlog-forward l\n dgram-bind :514\n log 127.0.0.1:5140 local0\n").Faults.Select(f => $"{f.Line}: {f.Message}"));
    }

    [Theory]
    [InlineData("2.6.12", false)]
    [InlineData("2.8.0", true)]
    [InlineData("3.2.1", true)]
    public void Where_an_address_may_get_several_listeners_by_default_it_gets_one(string version, bool said)
    {
        HaproxySurroundings of = Bare with { Build = Bare.Build! with { Version = HaproxyVersion.Parse($"HAProxy version {version}-1 2026/10/17")! } };
        ProjectionResult result = Projection.Render([File("global\n tune.listener.default-shards by-thread\nlisten a\n bind :80\n")], s_place, of);
        Assert.Equal(said, Encoding.UTF8.GetString(result.Configuration!.Files[0].Content).Contains("\n    tune.listener.default-shards by-process\n", StringComparison.Ordinal));
        Assert.Contains("\n#  tune.listener", Encoding.UTF8.GetString(result.Configuration.Files[1].Content), StringComparison.Ordinal);
    }

    private static ProjectionResult Render(string text) => Projection.Render([File(text)], s_place, Bare);
}
