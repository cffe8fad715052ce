using System.Collections.Immutable;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy;

public sealed class ProjectionTests
{
    private static readonly SlotPlace Place = new("/run/fc/blue", "/run/fc/blue/admin.sock", new PortBlock(21000, 100), new HashSet<int>(), "lb1");

    private static SourceFile File(string text, string path = "/etc/haproxy/haproxy.cfg") => new(path, Encoding.UTF8.GetBytes(text));

    private static RenderedConfiguration Rendered(params SourceFile[] files)
    {
        ProjectionResult result = Projection.Render(files, Place);
        Assert.Empty(result.Faults);
        return result.Configuration!;
    }

    private static string Text(RenderedFile file) => Encoding.UTF8.GetString(file.Content);

    /// <summary>What one file becomes.</summary>
    private static string Copy(string text) => Text(Rendered(File(text)).Files[1]);

    private static ImmutableArray<string> Faults(string text, SlotPlace? place = null) =>
        [.. Projection.Render([File(text)], place ?? Place).Faults.Select(f => f.ToString())];

    [Fact]
    public void The_slots_own_file_comes_first_and_adds_the_admin_socket()
    {
        RenderedConfiguration rendered = Rendered(File("listen a\n bind :80\n"), File("listen b\n bind :81\n", "/etc/haproxy/more.cfg"));
        Assert.Equal(["/run/fc/blue/0-flipcontroller.cfg", "/run/fc/blue/1-haproxy.cfg", "/run/fc/blue/2-more.cfg"], rendered.Files.Select(f => f.Path));
        Assert.Equal([null, "/etc/haproxy/haproxy.cfg", "/etc/haproxy/more.cfg"], rendered.Files.Select(f => f.Source));
        Assert.Equal("""
            # Written by FlipController. The files that follow are copies of the user's, in the order HAProxy reads them.
            global
                stats socket /run/fc/blue/admin.sock mode 600 level admin
                # First health checks begin within this time, not spread over a whole interval: the gate waits for them.
                max-spread-checks 500ms

            """, Text(rendered.Files[0]));
    }

    [Fact]
    public void Only_what_must_change_changes()
    {
        Assert.Equal("""
            # the edge, ümläut
            global
            	daemon
            	stats socket /run/fc/blue/admin.1.sock mode 660 level admin # kept
            	stats  socket   /run/fc/blue/admin.2.sock
            # 	pidfile /run/haproxy.pid
            	log /dev/log local0
            defaults
            	mode http
            frontend www   # the site
                option idle-close-on-response
            	bind   *:21000,10.0.0.1:21001	name web # bind :1
            	bind "ipv4@*:21002" ssl crt '/etc/a b.pem'
            	bind :::21003 v6only
            	default_backend app
            backend app
            	server a 10.0.0.9:80
            """, Copy("""
            # the edge, ümläut
            global
            	daemon
            	stats socket /run/haproxy/admin.sock mode 660 level admin # kept
            	stats  socket   "unix@/run/other sock"
            	pidfile /run/haproxy.pid
            	log /dev/log local0
            defaults
            	mode http
            frontend www   # the site
            	bind   *:80,10.0.0.1:80	name web # bind :1
            	bind "ipv4@*:443" ssl crt '/etc/a b.pem'
            	bind :::80 v6only
            	default_backend app
            backend app
            	server a 10.0.0.9:80
            """));
    }

    [Fact]
    public void Line_ends_are_kept_and_inserted_lines_have_them_too()
    {
        Assert.Equal("defaults\r\n mode http\r\nlisten a\r\n    option idle-close-on-response\r\n bind :21000 \r\n",
            Copy("defaults\r\n mode http\r\nlisten a\r\n bind :80 \r\n"));
        Assert.Equal("listen a\n bind :21000", Copy("listen a\n bind :80"));
    }

    [Theory]
    [InlineData("bind :80", "*:80")]
    [InlineData("bind *:80", "*:80")]
    [InlineData("bind 0.0.0.0:80", "*:80")]
    [InlineData("bind ipv4@10.0.0.1:80", "10.0.0.1:80")]
    [InlineData("bind tcp@:80", "*:80")]
    [InlineData("bind stream+ip@:80", "*:80")]
    [InlineData("bind :::80", "[::]:80")]
    [InlineData("bind [::]:80 v4v6", "[::]:80")]
    [InlineData("bind :::80 ssl crt x v6only", "[::]:80 v6only")]
    [InlineData("bind ipv6@:80 v6only", "[::]:80 v6only")]
    [InlineData("bind ipv6@*:80", "[::]:80")]
    [InlineData("bind [2001:db8::1]:443 v6only", "[2001:db8::1]:443")]
    [InlineData("bind 2001:db8::1:443", "[2001:db8::1]:443")]
    [InlineData("bind :80 name v6only", "*:80")]
    [InlineData("bind :080", "*:80")]
    [InlineData("bind :80,:81,", "*:80 *:81")]
    public void A_bind_line_becomes_services(string bind, string services) =>
        Assert.Equal(services, string.Join(' ', Rendered(File($"listen a\n {bind}\n")).Services.Select(s => s.Service)));

    [Theory]
    [InlineData("bind 10.0.0.1:\"80\" name x", "bind 10.0.0.1:\"21000\" name x")]
    [InlineData("bind 10.0.0.1:8\"0\" name x", "bind 10.0.0.1:21000 name x")]
    [InlineData("bind \\x31\\x30.0.0.1:80", "bind \\x31\\x30.0.0.1:21000")]
    [InlineData("bind :\\x380", "bind :21000")]
    [InlineData("bind :8\\x34", "bind :21000")]
    [InlineData("bind :\\x38", "bind :21000")]
    public void Quotes_and_escapes_around_a_port_are_understood(string bind, string copy) =>
        Assert.Equal($"listen a\n {copy}\n", Copy($"listen a\n {bind}\n"));

    [Fact]
    public void A_service_bound_twice_has_one_private_port() =>
        Assert.Equal("listen a\n bind :21000 process 1\n bind *:21000 process 2\nlisten b\n bind 0.0.0.0:21000,:21001\n",
            Copy("listen a\n bind :80 process 1\n bind *:80 process 2\nlisten b\n bind 0.0.0.0:80,:81\n"));

    [Fact]
    public void Taken_ports_are_passed_over()
    {
        SlotPlace place = Place with { TakenPorts = new HashSet<int> { 21000, 21002 } };
        ProjectionResult result = Projection.Render([File("listen a\n bind :80,:81\n")], place);
        Assert.Equal([21001, 21003], result.Configuration!.Services.Select(s => s.PrivatePort));
    }

    [Fact]
    public void A_disabled_proxy_is_left_alone()
    {
        const string disabled = "listen off\n disabled\n bind :80-90\n bind abns@x\ndefaults\n disabled\nfrontend g\n bind :82\n";
        Assert.Equal($"listen on\n bind :21000\n{disabled}", Copy($"listen on\n bind :80\n{disabled}"));
    }

    [Theory]
    [InlineData("defaults\n mode http\n", "", true)]
    [InlineData("defaults\n mode http\n", " mode tcp\n", false)]
    [InlineData("", " mode http\n", true)]
    [InlineData("", "", false)]
    [InlineData("defaults\n mode http\n option idle-close-on-response\n", "", false)]
    [InlineData("defaults\n mode http\n", " no option idle-close-on-response\n", false)]
    [InlineData("defaults\n mode http\ndefaults\n timeout client 1s\n", "", false)]
    [InlineData("defaults x\n mode http\ndefaults y from x\n timeout client 1s\n", "", true)]
    public void Idle_clients_of_an_http_proxy_hear_of_the_stop_unless_the_user_decided(string defaults, string own, bool inserted) =>
        Assert.Equal(inserted, Copy($"{defaults}listen a\n{own} bind :80\n").Contains("listen a\n    option idle-close-on-response\n", StringComparison.Ordinal));

    [Fact]
    public void The_local_peer_moves_and_the_others_stay()
    {
        RenderedConfiguration old = Rendered(File("peers p\n peer lb1 10.0.0.1:1024 ssl\n peer lb2 10.0.0.2:1024\nlisten a\n bind :80\n"));
        Assert.Equal("peers p\n peer lb1 10.0.0.1:21000 ssl\n peer lb2 10.0.0.2:1024\nlisten a\n bind :21001\n", Text(old.Files[1]));
        Assert.Equal("peers p\n bind :21000\n server lb1\n server lb2 10.0.0.2:1024\nlisten a\n bind :21001\n",
            Copy("peers p\n bind :1024\n server lb1\n server lb2 10.0.0.2:1024\nlisten a\n bind :80\n"));
    }

    [Fact]
    public void The_name_of_the_local_peer_is_passed_by_option()
    {
        RenderedConfiguration rendered = Rendered(File("global\n localpeer lb7\npeers p\n peer lb7 :1024\n peer lb1 10.0.0.2:1024\nlisten a\n bind :80\n"));
        Assert.Equal("lb7", rendered.LocalPeer);
        Assert.Equal("global\n#  localpeer lb7\npeers p\n peer lb7 :21000\n peer lb1 10.0.0.2:1024\nlisten a\n bind :21001\n", Text(rendered.Files[1]));
    }

    [Fact]
    public void Relative_names_resolve_as_before()
    {
        RenderedConfiguration rendered = Rendered(
            File("global\n default-path config # here\n"), File("listen a\n bind :80\n", "/srv/a b/site.cfg"),
            File("global\n default-path parent\n", "/srv/c/x.cfg"), File("global\n default-path origin rel\n", "/srv/d/y.cfg"), File("", "/srv/e/z.cfg"));
        Assert.Equal(
            [
                "global\n default-path origin /etc/haproxy # here\n",
                "global\n    default-path origin /srv/a\\ b\nlisten a\n bind :21000\n",
                "global\n    default-path origin /srv/c\nglobal\n default-path origin /srv/c/..\n",
                "global\n    default-path origin /srv/d/..\nglobal\n default-path origin rel\n",
                "",
            ],
            rendered.Files.Skip(1).Select(Text));
    }

    [Fact]
    public void A_ring_has_a_file_of_its_own() =>
        Assert.Equal("ring r\n backing-file /run/fc/blue/ring-1\nlisten a\n bind :21000\n", Copy("ring r\n backing-file /var/r\nlisten a\n bind :80\n"));

    [Fact]
    public void HAProxys_words_name_the_users_files_lines_and_addresses()
    {
        RenderedConfiguration rendered = Rendered(
            File("defaults\n mode http\nlisten a\n bind :80 crt x\n bogus\n"), File("listen b\n bind *:81\n", "/etc/haproxy/more.cfg"));
        Assert.Equal("""
            [NOTICE]   (7) : haproxy version is 2.6.12
            [ALERT]    (7) : config : parsing [/etc/haproxy/haproxy.cfg:5] : unknown keyword 'bogus' in 'listen' section
            [ALERT]    (7) : config : parsing [/etc/haproxy/haproxy.cfg:4] : 'bind :80' in section 'listen' : unable to stat 'x'.
            [ALERT]    (7) : config : Error(s) found in configuration file : /etc/haproxy/haproxy.cfg
            [WARNING]  (7) : config : Proxy 'b' (/etc/haproxy/more.cfg:2) bind *:81, port 21000

            """, rendered.Explain("""
            [NOTICE]   (7) : haproxy version is 2.6.12
            [ALERT]    (7) : config : parsing [/run/fc/blue/1-haproxy.cfg:6] : unknown keyword 'bogus' in 'listen' section
            [ALERT]    (7) : config : parsing [/run/fc/blue/1-haproxy.cfg:5] : 'bind :21000' in section 'listen' : unable to stat 'x'.
            [ALERT]    (7) : config : Error(s) found in configuration file : /run/fc/blue/1-haproxy.cfg
            [WARNING]  (7) : config : Proxy 'b' (/run/fc/blue/2-more.cfg:3) bind *:21001, port 21000

            """));
    }

    // Each refusal with its whole sentence: they are what an operator reads.
    [Theory]
    [InlineData("listen a\n bind \"${ADDR}:80\"\n", "2: haproxy: bind \"${ADDR}:80\" holds a variable whose value is not known here; write the value itself")]
    [InlineData("listen a\n bind $ADDR:80\n", "2: haproxy: bind \"$ADDR:80\" holds a variable whose value is not known here; write the value itself")]
    [InlineData("listen a\n bind :80,/run/a.sock\n bind /run/a.sock\n", "3: haproxy: bind \"/run/a.sock\" is bound already, and only the last of several would be reached there; take it out")]
    [InlineData("listen a\n bind unix@a.sock\n", "2: haproxy: bind \"unix@a.sock\" is not the absolute path of a file: which one it is depends on the directory HAProxy is started in; write the whole path")]
    [InlineData("listen a\n bind :80,abns@a\n", "2: haproxy: bind \"abns@a\" is an abstract socket: two processes cannot have one name, and there is no file that could lead to another; bind a path, or an address with a port")]
    [InlineData("listen a\n bind fd@3\n", "2: haproxy: bind \"fd@3\" is an inherited file descriptor: FlipController starts the generations and has none to hand on, and two that had the same would take each other's connections; bind a path, or an address with a port")]
    [InlineData("listen a\n bind sockpair@3\n", "2: haproxy: bind \"sockpair@3\" is an inherited file descriptor: FlipController starts the generations and has none to hand on, and two that had the same would take each other's connections; bind a path, or an address with a port")]
    [InlineData("listen a\n bind quic4@:443 ssl transparent\nglobal\n cluster-secret s\n", "2: haproxy: bind \"quic4@:443\" is transparent: it takes connections for addresses of other hosts, which cannot be redirected to a private port")]
    [InlineData("listen a\n bind udp@:53\n", "2: haproxy: bind \"udp@:53\" is a UDP address; only TCP and QUIC addresses can be redirected")]
    [InlineData("listen a\n bind mptcp@:80\n", "2: haproxy: bind \"mptcp@:80\" is a multipath TCP address; only TCP and QUIC addresses can be redirected")]
    [InlineData("listen a\n bind rhttp@b/s\n", "2: haproxy: bind \"rhttp@b/s\" is a reverse HTTP address; only TCP and QUIC addresses can be redirected")]
    [InlineData("listen a\n bind localhost:80\n", "2: haproxy: bind \"localhost:80\" is not an IP address, nor a name that has one here; write the address itself")]
    [InlineData("listen a\n bind ipv4@[::1]:80\n", "2: haproxy: bind \"ipv4@[::1]:80\" is not an IP address, nor a name that has one here; write the address itself")]
    [InlineData("listen a\n bind 80\n", "2: haproxy: bind \"80\" has no port; ADDRESS:PORT was expected")]
    [InlineData("listen a\n bind [::1]\n", "2: haproxy: bind \"[::1]\" has no port; ADDRESS:PORT was expected")]
    [InlineData("listen a\n bind :0\n", "2: haproxy: bind \":0\" has no port between 1 and 65535")]
    [InlineData("listen a\n bind :80x\n", "2: haproxy: bind \":80x\" has no port between 1 and 65535")]
    [InlineData("listen a\n bind :80 transparent\n", "2: haproxy: bind \":80\" is transparent: it takes connections for addresses of other hosts, which cannot be redirected to a private port")]
    [InlineData("listen a\n bind :80 namespace red\n", "2: haproxy: bind \":80\" listens in another network namespace, in which nothing is redirected")]
    [InlineData("listen a\n bind :80 tcp-md5sig x\n", "2: haproxy: bind \":80\" has TCP MD5 signatures, which do not survive a redirection to another port")]
    [InlineData("listen a\n bind :80 interface e0\n bind :80 interface e1\n", "3: haproxy: bind \":80\" differs from another bind only by its interface, and a redirection by interface is not made yet")]
    [InlineData("listen a\n bind :21050\n", "2: haproxy: bind \":21050\" is one of the private ports 21000-21099 of the slot; choose another block in \"ports\"")]
    [InlineData("global\n stats socket \"$S\"\nlisten a\n bind :80\n", "2: haproxy: stats socket \"$S\" holds a variable whose value is not known here; write the value itself")]
    [InlineData("global\n localpeer \"$HOSTNAME\"\nlisten a\n bind :80\n", "2: haproxy: localpeer \"$HOSTNAME\" holds a variable whose value is not known here; write the value itself")]
    [InlineData("global\n nbproc 4\nlisten a\n bind :80\n", "2: haproxy: nbproc makes several processes of one configuration; use nbthread")]
    [InlineData("program p\n command x\nlisten a\n bind :80\n", "1: haproxy: a program section needs master-worker mode; FlipController starts and watches HAProxy itself")]
    [InlineData("acme a\nlisten a\n bind :80\n", "1: haproxy: an acme section would order the same certificates from both processes; order them outside HAProxy")]
    [InlineData("log-forward l\n dgram-bind :514 transparent\nlisten a\n bind :80\n", "2: haproxy: dgram-bind \":514\" is transparent: it takes connections for addresses of other hosts, which cannot be redirected to a private port")]
    [InlineData("peers p\n peer \"$HOSTNAME\" :1024\nlisten a\n bind :80\n", "2: haproxy: peer \"$HOSTNAME\" holds a variable whose value is not known here; write the value itself")]
    [InlineData("peers p\n peer lb1 lb1.example.org:1024\nlisten a\n bind :80\n", "2: haproxy: peer \"lb1.example.org:1024\" is not an IP address, nor a name that has one here; write the address itself")]
    [InlineData(".if feature(QUIC)\nlisten a\n bind :80\n.endif\n", "1: haproxy: .if \"feature(QUIC)\" has no answer here; HAProxy does not understand it, or it asks for what only a running HAProxy knows")]
    [InlineData("listen a\n \"$KEYWORD\" :81\n bind :80\n", "2: haproxy: $KEYWORD is a keyword from a variable whose value is not known here; write the keyword itself")]
    [InlineData("backend a\n server b :80\n", "1: haproxy: no frontend or listen section binds an address that can be redirected; there is nothing to move connections to")]
    [InlineData("", "1: haproxy: no frontend or listen section binds an address that can be redirected; there is nothing to move connections to")]
    public void What_cannot_be_projected_is_refused_in_one_sentence(string text, string fault) =>
        Assert.Equal([$"/etc/haproxy/haproxy.cfg:{fault}"], Faults(text));

    [Fact]
    public void Running_out_of_ports_names_the_block() =>
        Assert.Equal(["/etc/haproxy/haproxy.cfg:2: haproxy: bind \":82\" finds no free port left in the slot's block 21000-21001"],
            Faults("listen a\n bind :80,:81,:82\n", Place with { Ports = new PortBlock(21000, 2) }));

    [Fact]
    public void Every_fault_is_told_at_once_in_the_order_of_the_files()
    {
        ProjectionResult result = Projection.Render(
            [File("global\n nbproc 2\nlisten a\n bind unix@s\n bind :80\n"), File("listen b\n bind udp@:1\n", "/etc/haproxy/b.cfg")], Place);
        Assert.Null(result.Configuration);
        Assert.Equal([("/etc/haproxy/haproxy.cfg", 2), ("/etc/haproxy/haproxy.cfg", 4), ("/etc/haproxy/b.cfg", 2)],
            result.Faults.Select(f => (f.File, f.Line)));
    }
}
