using System.Net;
using Xunit;

namespace FlipController.Core.Tests;

public sealed class PeerFilterTests
{
    [Theory]
    [InlineData("192.0.2.7", "192.0.2.7", "192.0.2.7", 99, true)]
    [InlineData("192.0.2.7", "192.0.2.7", "192.0.2.8", 99, false)]
    [InlineData("192.0.2.7", "192.0.2.7", "::ffff:192.0.2.7", 99, true)] // a client of a listener for both families
    [InlineData("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.7", 99, true)]
    [InlineData("192.0.2.7:99", "192.0.2.7:99", "192.0.2.7", 99, true)]
    [InlineData("192.0.2.7:99", "192.0.2.7:99", "192.0.2.7", 98, false)]
    [InlineData("192.0.2.7/24", "192.0.2.0/24", "192.0.2.200", 99, true)]
    [InlineData("192.0.2.7/24", "192.0.2.0/24", "192.0.3.1", 99, false)]
    [InlineData("0.0.0.0/0", "0.0.0.0/0", "203.0.113.1", 99, true)]
    [InlineData("0.0.0.0/0", "0.0.0.0/0", "2001:db8::1", 99, false)]
    [InlineData("2001:db8::1", "2001:db8::1", "2001:db8::1", 99, true)]
    [InlineData("[2001:db8::1]", "2001:db8::1", "2001:db8::1", 99, true)]
    [InlineData("[2001:db8::1]:99", "[2001:db8::1]:99", "2001:db8::1", 99, true)]
    [InlineData("[2001:db8::1]:99", "[2001:db8::1]:99", "2001:db8::1", 1, false)]
    [InlineData("2001:db8:1:2:3::/64", "2001:db8:1:2::/64", "2001:db8:1:2:ffff::1", 99, true)]
    [InlineData("::/0", "::/0", "2001:db8::1", 99, true)]
    [InlineData("::/0", "::/0", "192.0.2.7", 99, false)]
    public void A_peer_is_meant_or_not(string text, string same, string address, int port, bool meant)
    {
        Assert.True(PeerFilter.TryParse(text, out PeerFilter? filter));
        Assert.Equal(same, filter.ToString());
        Assert.Equal(meant, filter.Matches(PeerAddress.Of(IPAddress.Parse(address)), port));
    }

    [Theory]
    [InlineData("")]
    [InlineData("7")]
    [InlineData("10.1")]
    [InlineData("192.0.2.7:")]
    [InlineData("192.0.2.7:0")]
    [InlineData("192.0.2.7:65536")]
    [InlineData("192.0.2.7/33")]
    [InlineData("192.0.2.7/-1")]
    [InlineData("2001:db8::/129")]
    [InlineData("fe80::1%lo")]
    [InlineData("[192.0.2.7]:80")]
    [InlineData("host:80")]
    public void What_is_no_peer_is_refused(string text) => Assert.False(PeerFilter.TryParse(text, out _));

    [Theory]
    [InlineData("*:80", "*:80", true)]
    [InlineData(":80", "10.0.0.1:80", true)]
    [InlineData("80", "[::]:80 v6only", true)]
    [InlineData("443", "*:80", false)]
    [InlineData("[::]:80", "[::]:80 v6only", false)]
    [InlineData("0.0.0.0:80", "*:80", true)]
    public void A_service_is_named_whole_or_by_its_port(string text, string service, bool meant)
    {
        Assert.True(Service.TryParse(service, out Service? of));
        Assert.Equal(meant, ClientQuery.MatchesService(text, of));
    }

    [Fact]
    public void Rows_of_several_generations_become_one_list()
    {
        ConnectionStatus Row(string peer, double? age, double? idle, long bytes) =>
            new(1, "retired", peer, "*:80", null, null, null, "established", age, false, idle, bytes, 0);
        ConnectionStatus[] rows = [Row("10.0.0.10:5", 3, 9, 1), Row("10.0.0.9:6", null, 9, 7), Row("[2001:db8::1]:7", 8, null, 3)];
        Assert.Equal([6, 5, 7], Sorted(ClientOrder.Idle));
        Assert.Equal([7, 5, 6], Sorted(ClientOrder.Age));
        Assert.Equal([6, 7, 5], Sorted(ClientOrder.Bytes));
        Assert.Equal([6, 5, 7], Sorted(ClientOrder.Peer));

        int[] Sorted(ClientOrder order)
        {
            List<ConnectionStatus> list = [.. rows];
            list.Sort(ClientQuery.Comparison(order));
            return [.. list.Select(r => int.Parse(r.Peer[(r.Peer.LastIndexOf(':') + 1)..]))];
        }
    }
}
