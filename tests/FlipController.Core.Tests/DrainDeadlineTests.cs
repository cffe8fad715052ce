using System.Collections.Immutable;
using System.Net;
using Xunit;

namespace FlipController.Core.Tests;

public class DrainDeadlineTests
{
    private static readonly DateTimeOffset s_since = DateTimeOffset.UnixEpoch;
    private static readonly ServicePort s_web = Port("*:80", 21000), s_tls = Port("*:443", 21001), s_tls6 = Port("[::]:443 v6only", 21002);

    private static ServicePort Port(string service, int port) =>
        Service.TryParse(service, out Service? parsed) ? new ServicePort(parsed, port) : throw new ArgumentException(service);

    private static DrainOptions Options(params (string Service, int Minutes)[] services) => new()
    {
        Services = services.ToImmutableSortedDictionary(s => s.Service, s => TimeSpan.FromMinutes(s.Minutes)),
    };

    private static string Told(DrainOptions options, DateTimeOffset? closesAt = null) => string.Join("; ",
        DrainDeadline.Of(options, [s_web, s_tls, s_tls6], s_since, closesAt)
            .Select(d => $"{(d.At - s_since).TotalMinutes}: {string.Join(" ", d.Services.Select(s => s.PrivatePort))}"));

    [Fact]
    public void One_deadline_is_for_whatever_is_left() => Assert.Equal("10: ", Told(new DrainOptions()));

    [Fact]
    public void A_service_that_may_not_stay_as_long_is_closed_before() => Assert.Equal("5: 21000; 10: ", Told(Options((":80", 5))));

    [Fact]
    public void The_last_deadline_is_the_latest_of_all() => Assert.Equal("10: 21000; 60: ", Told(Options((":443", 60))));

    [Fact]
    public void An_address_that_is_named_wins_over_its_port() =>
        Assert.Equal("2: 21002; 5: 21001; 10: ", Told(Options((":443", 5), ("[::]:443 v6only", 2))));

    [Fact]
    public void Every_IPv6_address_is_not_every_address() =>
        Assert.Equal("2: 21002; 10: ", Told(Options(("[::]:443 v6only", 2))));

    [Fact]
    public void The_operators_word_is_for_every_service() =>
        Assert.Equal("1: ", Told(Options((":443", 60)) with { AtDeadline = AtDeadline.Keep }, s_since + TimeSpan.FromMinutes(1)));

    [Fact]
    public void What_is_kept_has_none() => Assert.Equal("", Told(new DrainOptions { AtDeadline = AtDeadline.Keep }));

    [Fact]
    public void A_generation_without_ports_has_one() =>
        Assert.Single(DrainDeadline.Of(new DrainOptions(), [], s_since, null));

    [Fact]
    public void An_address_of_the_port_alone_is_no_other_port() =>
        Assert.Equal(TimeSpan.FromMinutes(10), DrainDeadline.Of(Options((":8443", 1)), new Service(IPAddress.Any, 443)));
}
