using System.Net;
using System.Net.Sockets;
using FlipController.Linux.Haproxy;
using Xunit;
using static FlipController.Linux.Tests.Haproxy.Projected;

namespace FlipController.Linux.Tests.Haproxy;

public sealed class ListenerProjectionTests
{
    [Theory]
    [InlineData("bind :80-82 name x", "bind :21000,:21001,:21002 name x", "*:80 *:81 *:82")]
    [InlineData("bind :80-80", "bind :21000", "*:80")]
    [InlineData("bind ipv6@:80-81,10.0.0.1:90 # all", "bind ipv6@:21000,ipv6@:21001,10.0.0.1:21002 # all", "[::]:80 [::]:81 10.0.0.1:90")]
    [InlineData("bind \"::1:80-81\"", "bind ::1:21000,::1:21001", "[::1]:80 [::1]:81")]
    public void A_range_of_ports_is_a_service_for_each(string bind, string copy, string services)
    {
        RenderedConfiguration rendered = Of($"listen a\n {bind}\n");
        Assert.Equal($"listen a\n {copy}\n", Copy($"listen a\n {bind}\n"));
        Assert.Equal(services, string.Join(' ', rendered.Services.Select(s => s.Service)));
    }

    [Theory]
    [InlineData("bind web:80", "bind 192.0.2.1:21000")]
    [InlineData("bind ipv4@web:80-81", "bind ipv4@192.0.2.1:21000,ipv4@192.0.2.1:21001")]
    [InlineData("bind ipv6@web:80 v6only", "bind ipv6@[2001:db8::1]:21000 v6only")]
    [InlineData("bind six:80", "bind [2001:db8::1]:21000")]
    public void A_name_is_written_as_the_address_it_has(string bind, string copy)
    {
        HaproxySurroundings named = Bare with
        {
            Resolve = (name, family) => IPAddress.Parse(family == AddressFamily.InterNetworkV6 || name == "six" ? "2001:db8::1" : "192.0.2.1"),
        };
        Assert.Equal($"listen a\n {copy}\n", Copy($"listen a\n {bind}\n", named));
    }

    [Fact]
    public void A_name_without_an_address_is_refused_and_so_is_what_is_no_name()
    {
        Assert.Equal(["2: bind \"web:80\" is not an IP address, nor a name that has one here; write the address itself"], Faults("listen a\n bind web:80\n"));
        Assert.Equal(["2: bind \":81-80\" has no range of ports between 1 and 65535"], Faults("listen a\n bind :81-80\n"));
        Assert.Equal(["2: bind \":1-65535\" finds no free port left in the slot's block 21000-21099"], Faults("listen a\n bind :1-65535\n"));
    }

    [Fact]
    public void An_address_on_the_header_of_an_old_file_moves() =>
        Assert.Equal("listen a 10.0.0.1:21000\nfrontend b :21001,:21002\n", Copy("listen a 10.0.0.1:80\nfrontend b :81,:82\n"));

    [Fact]
    public void What_a_backend_binds_listens_and_so_moves() =>
        Assert.Equal("listen a\n bind :21000\nbackend b\n bind :21001\n", Copy("listen a\n bind :80\nbackend b\n bind :81\n"));

    [Fact]
    public void A_log_forward_takes_logs_over_TCP_and_UDP_each_on_a_port_of_its_own()
    {
        const string text = "log-forward l\n bind 0.0.0.0:514\n dgram-bind :514\n dgram-bind udp6@[::1]:515-516,dgram+ipv4@10.0.0.1:517 interface lo\n";
        Assert.Equal("log-forward l\n bind 0.0.0.0:21000\n dgram-bind :21001\n dgram-bind udp6@[::1]:21002,udp6@[::1]:21003,dgram+ipv4@10.0.0.1:21004 interface lo\n", Copy(text));
        Assert.Equal(["*:514", "udp@*:514", "udp@[::1]:515", "udp@[::1]:516", "udp@10.0.0.1:517"], Of(text).Services.Select(s => s.Service.ToString()));
        Assert.Equal("log-forward l\n dgram-bind :21000\n", Copy("log-forward l\n dgram-bind :514\n"));
    }

    [Fact]
    public void What_connects_to_a_port_over_TCP_does_not_follow_UDP() => Assert.Equal(
        "log-forward l\n dgram-bind 127.0.0.1:21000\nbackend b\n server s 127.0.0.1:514\n",
        Copy("log-forward l\n dgram-bind 127.0.0.1:514\nbackend b\n server s 127.0.0.1:514\n"));

    [Theory]
    [InlineData("/dev/log", "is a unix socket for datagrams: senders stay with the socket they have found, and what one that ends has not read is lost; only UDP addresses can be redirected")]
    [InlineData("uxdg@/run/l", "is a unix socket of datagrams: senders stay with the socket they have found, and what one that ends has not read is lost; only UDP addresses can be redirected")]
    [InlineData("dgram+unix@/run/l", "is a unix socket; only UDP addresses can be redirected")]
    [InlineData("dgram+dgram+:514", "is not an IP address, nor a name that has one here; write the address itself")]
    [InlineData("quic4@:514", "is a QUIC address; only UDP addresses can be redirected")]
    [InlineData(":514 namespace red", "listens in another network namespace, in which nothing is redirected")]
    public void A_dgram_bind_that_cannot_be_moved_is_refused(string address, string why) =>
        Assert.Equal([$"2: dgram-bind \"{address.Split(' ')[0]}\" {why}"], Faults($"log-forward l\n dgram-bind {address}\n bind :80\n"));

    [Fact]
    public void QUIC_moves_beside_TCP_on_the_same_port()
    {
        const string text = "global\n cluster-secret s3cret\nlisten a\n bind :443 ssl crt a.pem\n bind quic4@:443 ssl crt a.pem alpn h3\n bind quic6@[::1]:443,quic+ipv4@10.0.0.1:443 ssl crt a.pem\n";
        Assert.Equal("global\n cluster-secret s3cret\nlisten a\n bind :21000 ssl crt a.pem\n bind quic4@:21001 ssl crt a.pem alpn h3\n bind quic6@[::1]:21002,quic+ipv4@10.0.0.1:21003 ssl crt a.pem\n",
            Copy(text));
        Assert.Equal(["*:443", "quic@*:443", "quic@[::1]:443", "quic@10.0.0.1:443"], Of(text).Services.Select(s => s.Service.ToString()));
    }

    [Fact]
    public void One_socket_for_all_QUIC_connections_is_noted() => Assert.Equal(
        ["/etc/haproxy/haproxy.cfg:3: with one socket for all QUIC connections a soft stop cuts those that are left"],
        Of("global\n cluster-secret s\n tune.quic.socket-owner listener\nlisten a\n bind quic4@:443 ssl crt a.pem\n").Notes.Select(n => n.ToString()));

    [Fact]
    public void QUIC_needs_one_secret_for_both_sides()
    {
        const string quic = "listen a\n bind quic4@:443 ssl crt a.pem\n";
        Assert.Equal(["2: QUIC needs \"cluster-secret\" in the global section: without it each process makes up its own, and what one has told "
            + "a client to show again means nothing to the other"], Faults(quic));
        RenderedConfiguration one = Of($"global\n cluster-secret one\n{quic}"), other = Of($"{quic}global\n cluster-secret other\n"),
            none = Of("listen a\n bind :80\n");
        Assert.False(one.HasOtherClusterSecret(one));
        Assert.True(other.HasOtherClusterSecret(one));
        Assert.False(none.HasOtherClusterSecret(one));
        Assert.DoesNotContain("one", one.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void Each_stats_socket_has_its_place()
    {
        Assert.Equal("""
            global
             stats socket ipv4@127.0.0.1:21000 level admin
             stats socket /run/fc/g00007.1.sock mode 660
             stats socket abns@stats.g00007
            listen a
             bind :21001

            """, Copy("""
            global
             stats socket ipv4@127.0.0.1:9999 level admin
             stats socket /run/haproxy.sock mode 660
             stats socket abns@stats
            listen a
             bind :80

            """));
        Assert.Equal(["2: stats socket \"fd@3\" is an inherited file descriptor: FlipController starts the generations and has none to hand on, and two that had the same would take each other's connections; bind a path, or an address with a port"],
            Faults("global\n stats socket fd@3\nlisten a\n bind :80\n"));
    }

    [Fact]
    public void A_peers_section_without_this_host_listens_nowhere()
    {
        const string incomplete = "peers p\n bind 127.0.0.1:1024\n server other 127.0.0.2:1024\npeers q\n peer other :1025\n";
        Assert.Equal($"{incomplete}listen a\n bind :21000\n", Copy($"{incomplete}listen a\n bind :80\n"));
    }

    [Fact]
    public void Every_bind_is_told_with_its_section_line_and_parameters() =>
        Assert.Equal(
            [
                new("*:80", 21000, "frontend www", "/etc/haproxy/haproxy.cfg", 2, "ssl crt 'a b' name \"x\""),
                new("*:81", 21001, "frontend www", "/etc/haproxy/haproxy.cfg", 2, "ssl crt 'a b' name \"x\""),
                new("*:80", 21000, "listen b", "/etc/haproxy/haproxy.cfg", 5, ""),
            ],
            Of("frontend www\n bind :80-81 ssl crt 'a b' name \"x\" # here\n\nlisten b\n bind *:80\n").Binds
                .Select(b => (b.Service.ToString(), b.PrivatePort, b.Section, b.File, b.Line, b.Parameters)));
}
