using System.Collections.Immutable;
using System.Net;
using System.Text.Json;
using FlipController.Core;
using Xunit;

namespace FlipController.Core.Tests;

public sealed class ServiceTests
{
    private static readonly Service Syslog = new(IPAddress.Any, 514, Transport: Transport.Udp);
    private static readonly Service Quic = new(IPAddress.IPv6Loopback, 443, Transport: Transport.Quic);

    [Theory]
    [InlineData("*:80", Transport.Tcp)]
    [InlineData("[::]:80 v6only", Transport.Tcp)]
    [InlineData("udp@*:514", Transport.Udp)]
    [InlineData("udp@[::]:514 v6only", Transport.Udp)]
    [InlineData("quic@[2001:db8::1]:443", Transport.Quic)]
    public void A_text_is_read_as_it_was_written_and_is_one_word_of_JSON(string text, Transport transport)
    {
        Assert.True(Service.TryParse(text, out Service? service));
        Assert.Equal(text, service.ToString());
        Assert.Equal(transport, service.Transport);
        Assert.Equal($"\"{text}\"", JsonSerializer.Serialize(service));
        Assert.Equal(service, JsonSerializer.Deserialize<Service>($"\"{text}\""));
    }

    [Theory]
    [InlineData("tcp@*:80"), InlineData("udp@"), InlineData("udp@quic@*:443"), InlineData("quic4@*:443")]
    public void Other_prefixes_are_no_service(string text) => Assert.False(Service.TryParse(text, out _));

    [Fact]
    public void UDP_and_QUIC_are_in_each_others_way_and_TCP_in_nobodys()
    {
        Service quic = Syslog with { Transport = Transport.Quic }, tcp = Syslog with { Transport = Transport.Tcp };
        Assert.True(Syslog.Overlaps(quic));
        Assert.False(Syslog.Overlaps(tcp));
        Assert.False(tcp.Overlaps(quic));
    }

    [Fact]
    public void Datagrams_move_and_QUIC_sticks_unless_the_address_or_its_port_is_named()
    {
        Assert.Equal((UdpRule.Move, UdpRule.Stick), (Of(Syslog), Of(Quic)));
        Assert.Equal((UdpRule.Stick, UdpRule.Stick), (Of(Syslog, (":514", UdpRule.Stick)), Of(Quic, (":514", UdpRule.Move))));
        Assert.Equal(UdpRule.Move, Of(Quic, (":443", UdpRule.Stick), ("[::1]:443", UdpRule.Move)));
        Assert.Equal(UdpRule.Stick, Of(Quic, ("udp@:443", UdpRule.Move)));
        Assert.Equal(UdpRule.Move, Of(Quic, ("quic@:443", UdpRule.Move)));
    }

    [Fact]
    public void What_is_named_and_is_no_UDP_front_address_is_unknown() => Assert.Equal(
        ["10.0.0.1:443", ":80", "quic@:514"],
        UdpRules.Unknown(Options((":80", UdpRule.Move), (":514", UdpRule.Stick), ("10.0.0.1:443", UdpRule.Move), ("quic@:514", UdpRule.Move)),
            [new(IPAddress.Any, 80), Syslog, Quic]));

    private static UdpRule Of(Service service, params (string, UdpRule)[] named) => UdpRules.Of(Options(named), service);

    private static RedirectOptions Options(params (string Service, UdpRule Rule)[] named) =>
        new() { Udp = named.ToImmutableSortedDictionary(n => n.Service, n => n.Rule, StringComparer.Ordinal) };
}
