using FlipController.Linux.Haproxy;
using Xunit;
using static FlipController.Linux.Tests.Haproxy.Projected;

namespace FlipController.Linux.Tests.Haproxy;

/// <summary>A configuration that connects to itself: the copy connects to itself, too.</summary>
public sealed class LoopProjectionTests
{
    [Theory]
    [InlineData("bind abns@next accept-proxy", "server x abns@next send-proxy", "bind abns@next.g00007 accept-proxy", "server x abns@next.g00007 send-proxy")]
    [InlineData("bind /run/n.sock mode 600", "server x unix@/run/n.sock", "bind /run/n.sock.g00007 mode 600", "server x unix@/run/n.sock.g00007")]
    [InlineData("bind unix@/run/n.sock", "server x /run/n.sock check", "bind unix@/run/n.sock.g00007", "server x /run/n.sock.g00007 check")]
    [InlineData("bind 127.0.0.1:81", "server x 127.0.0.1:81 check", "bind 127.0.0.1:21000", "server x 127.0.0.1:21000 check")]
    [InlineData("bind :81", "server x ipv4@127.0.0.2:81", "bind :21000", "server x ipv4@127.0.0.2:21000")]
    [InlineData("bind :::81 v4v6", "server x localhost:81", "bind :::21000 v4v6", "server x localhost:21000")]
    [InlineData("bind ::1:81", "server x [::1]:81", "bind ::1:21000", "server x [::1]:21000")]
    [InlineData("bind 10.0.0.1:81", "server x 10.0.0.1:81", "bind 10.0.0.1:21000", "server x 10.0.0.1:21000")]
    [InlineData("bind :81", "server x 0.0.0.0:81", "bind :21000", "server x 0.0.0.0:21000")]
    [InlineData("bind :81", "server-template x 1-3 127.0.0.1:81", "bind :21000", "server-template x 1-3 127.0.0.1:21000")]
    [InlineData("bind :81", "dispatch 127.0.0.1:81", "bind :21000", "dispatch 127.0.0.1:21000")]
    [InlineData("bind :81", "server x 10.0.0.9:80 check addr 127.0.0.1 port 81", "bind :21000", "server x 10.0.0.9:80 check addr 127.0.0.1 port 21000")]
    [InlineData("bind :81", "server x 127.0.0.1:8080 check port 81", "bind :21000", "server x 127.0.0.1:8080 check port 21000")]
    [InlineData("bind :81", "server x 10.0.0.9:80 agent-check agent-addr 127.0.0.1 agent-port 81", "bind :21000", "server x 10.0.0.9:80 agent-check agent-addr 127.0.0.1 agent-port 21000")]
    [InlineData("bind :81", "tcp-check connect addr 127.0.0.1 port 81", "bind :21000", "tcp-check connect addr 127.0.0.1 port 21000")]
    public void Both_sides_move(string bind, string server, string movedBind, string movedServer) =>
        Assert.Equal($"listen a\n {movedBind}\nbackend b\n {movedServer}\nlisten z\n bind :{(movedBind.Contains("21000") ? 21001 : 21000)}\n",
            Copy($"listen a\n {bind}\nbackend b\n {server}\nlisten z\n bind :80\n"));

    /// <summary>unix(7), sun_path; HAProxy binds a path under a longer, temporary name.</summary>
    [Theory]
    [InlineData("abns@", 107)]
    [InlineData("/", 95)]
    public void A_name_that_leaves_no_room_for_the_copys_own_is_refused(string kind, int most)
    {
        string fits = kind + new string('n', most - ".g00007".Length - (kind == "/" ? 1 : 0)), tooLong = fits + "n";
        Assert.Contains($"{fits}.g00007", Copy($"listen a\n bind {fits}\n server x unix@{fits}\nlisten z\n bind :80\n".Replace("unix@abns@", "abns@")));
        Assert.Equal($"2: bind \"{tooLong}\" is what this configuration connects to itself, and the copy's own name for it would be longer than the {most} bytes it may have; use a shorter one",
            Assert.Single(Faults($"listen a\n bind {tooLong}\n server x unix@{tooLong}\nlisten z\n bind :80\n".Replace("unix@abns@", "abns@"))));
    }

    [Fact]
    public void An_abstract_name_is_noted_and_what_can_be_led_on_is_told()
    {
        RenderedConfiguration copy = Of("listen a\n bind abns@next\n bind 127.0.0.1:81\n bind /run/n.sock\nlisten z\n bind :80\n"
            + " server a abns@next\n server b 127.0.0.1:81\n server c /run/n.sock\n");
        Assert.Equal("\"abns@next\" is an abstract name: a client that stays connected to a generation after its soft stop gets an error once "
            + "it needs a new connection to it; the path of a unix socket, or 127.0.0.1 with a port, has no such limit",
            Assert.Single(copy.Notes).Text);
        Assert.Equal(7, copy.Notes[0].Line);
        Assert.Equal(["127.0.0.1:81"], copy.Loops.Select(s => s.ToString()));
        Assert.Equal(["/run/n.sock.g00007"], copy.OwnSockets);
    }

    [Fact]
    public void A_port_taken_from_the_client_is_noted() =>
        Assert.Equal("\"127.0.0.1:+1\" takes its port from the client's; where this configuration listens there itself, "
            + "the connection goes to the generation that has the NEW connections",
            Assert.Single(Of("listen z\n bind :80\n server x 127.0.0.1:+1\n").Notes).Text);

    [Theory]
    [InlineData("bind 127.0.0.1:81", "server x 127.0.0.2:81")]
    [InlineData("bind 127.0.0.1:81", "server x 127.0.0.1:82")]
    [InlineData("bind :81", "server x 10.0.0.9:81")]
    [InlineData("bind :81", "server x [::1]:81")]
    [InlineData("bind :81", "server x 10.0.0.9:80 check port 81")]
    [InlineData("bind :81", "server x 127.0.0.1")]
    [InlineData("bind :81", "server x 127.0.0.1:+81")]
    [InlineData("bind :81 interface eth0", "server x 127.0.0.1:81")]
    [InlineData("bind :81", "server x 127.0.0.1:81 namespace red")]
    [InlineData("bind :81", "server x 127.0.0.1:81 socks4 10.0.0.9:1080")]
    [InlineData("bind :81", "server x /run/other.sock")]
    [InlineData("bind :81", "server x example.org:81")]
    [InlineData("bind :81\n http-request set-dst ipv4(10.0.0.9)", "server x 0.0.0.0:81")]
    public void What_goes_elsewhere_stays(string bind, string server) =>
        Assert.Contains($" {server}\n", Copy($"listen a\n {bind}\nbackend b\n {server}\n"));

    [Fact]
    public void A_prefix_and_a_new_root_are_understood()
    {
        RenderedConfiguration rendered = Of(
            "global\n chroot /srv/jail/\n unix-bind prefix /srv/jail/run/ mode 600\nlisten a\n bind unix@in.sock\n bind :80\nbackend b\n server x /run/in.sock\n");
        Assert.EndsWith("listen a\n bind unix@in.sock.g00007\n bind :21000\nbackend b\n server x /run/in.sock.g00007\n",
            System.Text.Encoding.UTF8.GetString(rendered.Files[1].Content));
        Assert.Equal(["/srv/jail/run/in.sock.g00007"], rendered.OwnSockets);
    }

    [Fact]
    public void A_server_that_is_the_stats_socket_finds_it() =>
        Assert.Equal("global\n stats socket /run/s.g00007 level user\nlisten cli\n bind :21000\n server s /run/s.g00007\n",
            Copy("global\n stats socket /run/s level user\nlisten cli\n bind :9999\n server s /run/s\n"));
}
