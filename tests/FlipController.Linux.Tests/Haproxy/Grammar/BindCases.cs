using static FlipController.Linux.Tests.Haproxy.Grammar.GrammarCase;

namespace FlipController.Linux.Tests.Haproxy.Grammar;

/// <summary>Addresses and what is said beside them: configuration manual, 4 "bind", 5.1 and 11.</summary>
internal static class BindCases
{
    private static readonly int[] Many = [.. Enumerable.Range(10000, 200)];

    public static IEnumerable<GrammarCase> All =>
    [
        Moved("a comma list", "listen a\n bind 127.0.0.1:80,127.0.0.2:80,127.0.0.1:81, name x\n", "127.0.0.1:80 21000", "127.0.0.2:80 21001", "127.0.0.1:81 21002"),
        Moved("a big comma list", $"listen a\n bind {string.Join(',', Many.Select(p => $"127.0.0.1:{p}"))} name x\n",
            [.. Many.Select((p, i) => $"127.0.0.1:{p} {21000 + i}")]),
        Moved("a range of ports", "listen a\n bind 127.0.0.1:8000-8003 name x\n", "127.0.0.1:8000 21000", "127.0.0.1:8001 21001", "127.0.0.1:8002 21002", "127.0.0.1:8003 21003"),
        Moved("ranges in a comma list", "listen a\n bind 127.0.0.1:80-81,[::1]:90-91,127.0.0.1:99\n",
            "127.0.0.1:80 21000", "127.0.0.1:81 21001", "[::1]:90 21002", "[::1]:91 21003", "127.0.0.1:99 21004"),
        Moved("ranges that have ports in common with others", "listen a\n bind 127.0.0.1:81\n bind 127.0.0.2:80-82\nlisten b\n bind 127.0.0.1:82-83,127.0.0.1:80\n",
            "127.0.0.1:81 21000", "127.0.0.2:80 21001", "127.0.0.2:81 21002", "127.0.0.2:82 21003", "127.0.0.1:82 21004", "127.0.0.1:83 21005", "127.0.0.1:80 21006"),
        Moved("a range of one port", "listen a\n bind 127.0.0.1:80-80\n", "127.0.0.1:80 21000"),
        Moved("every address", "listen a\n bind *:80\n bind 0.0.0.0:81\n bind :82\n bind ipv4@:83\n bind ipv4@*:84\n", "*:80 21000", "*:81 21001", "*:82 21002", "*:83 21003", "*:84 21004"),
        Moved("every address of IPv6", "listen a\n bind :::80\n bind [::]:81\n bind ipv6@:82\n bind ipv6@*:83\n bind [::]:84 v6only\n bind :::85 v4v6\n",
            "[::]:80 21000", "[::]:81 21001", "[::]:82 21002", "[::]:83 21003", "[::]:84 v6only 21004", "[::]:85 21005"),
        Moved("both families on one port", "listen a\n bind *:80\n bind [::]:80 v6only\n", "*:80 21000", "[::]:80 v6only 21001"),
        Moved("addresses of IPv6", "listen a\n bind ::1:80\n bind [::1]:81\n bind ipv6@[::1]:82\n bind [2001:db8::1]:83\n bind 2001:db8:0:0:0:0:0:2:84\n",
            "[::1]:80 21000", "[::1]:81 21001", "[::1]:82 21002", "[2001:db8::1]:83 21003", "[2001:db8::2]:84 21004"),
        Moved("an address of IPv4 written as IPv6", "listen a\n bind [::ffff:127.0.0.1]:80\n", "[::ffff:127.0.0.1]:80 21000"),
        Moved("prefixes", "listen a\n bind ipv4@127.0.0.1:80\n bind tcp@127.0.0.1:81\n bind tcp4@127.0.0.1:82\n bind tcp6@[::1]:83\n bind ip@127.0.0.1:84\n bind stream+ip@127.0.0.1:85\n bind stream+ipv4@127.0.0.1:86\n",
            "127.0.0.1:80 21000", "127.0.0.1:81 21001", "127.0.0.1:82 21002", "[::1]:83 21003", "127.0.0.1:84 21004", "127.0.0.1:85 21005", "127.0.0.1:86 21006"),
        Moved("a host name", "listen a\n bind ipv4@localhost:80\n bind localhost:81\n", "127.0.0.1:80 21000", "127.0.0.1:81 21001"),
        Moved("no defaults at all", "frontend a\n bind 127.0.0.1:80\n default_backend b\nbackend b\n server s 127.0.0.1:81\n", "127.0.0.1:80 21000"),
        Moved("one address on two lines", "listen a\n bind 127.0.0.1:80 process 1/all\n bind 127.0.0.1:80 process 1/1\n", "127.0.0.1:80 21000"),
        Moved("parameters of all sorts", """
            listen a
             mode http
             bind 127.0.0.1:80 accept-proxy backlog 100 maxconn 50 defer-accept mss 1400 tfo nice 5 tcp-ut 20s id 7 name n
             bind 127.0.0.1:81 interface lo
             bind 127.0.0.1:82 accept-netscaler-cip 1 level user
             bind 127.0.0.1:83 proto h2
             bind 127.0.0.1:84 thread all
             http-request return status 200

            """, "127.0.0.1:80 21000", "127.0.0.1:81 21001", "127.0.0.1:82 21002", "127.0.0.1:83 21003", "127.0.0.1:84 21004"),
        Moved("shards", "global\n nbthread 2\nlisten a\n bind 127.0.0.1:80 shards 2\n bind 127.0.0.1:81 shards by-thread name x\n", "127.0.0.1:80 21000", "127.0.0.1:81 21001"),
        Moved("TLS", """
            global
             ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
             ssl-default-bind-ciphers ECDHE+AESGCM
            listen a
             mode http
             bind 127.0.0.1:443 ssl crt site.pem alpn h2,http/1.1 tls-ticket-keys tickets.key
             bind 127.0.0.1:444 ssl crt-list list.crt strict-sni
             bind 127.0.0.1:445 ssl crt certs ca-file site.pem verify optional crt-ignore-err all
             bind 127.0.0.1:446 ssl crt certs/other.pem crt site.pem npn http/1.1 no-sslv3 curves X25519:P-256 allow-0rtt
             http-request return status 200

            """, "127.0.0.1:443 21000", "127.0.0.1:444 21001", "127.0.0.1:445 21002", "127.0.0.1:446 21003"),
        Moved("a frontend behind another on a unix socket", """
            frontend tls
             bind 127.0.0.1:443 ssl crt site.pem
             default_backend loop
            backend loop
             server s unix@@DIR@/loop.sock send-proxy-v2
            frontend clear
             bind unix@@DIR@/loop.sock accept-proxy mode 600

            """, "127.0.0.1:443 21000"),
        Moved("a frontend behind another on an abstract socket", """
            listen tls
             bind 127.0.0.1:443
             server s abns@flip-loop send-proxy-v2
            frontend clear
             bind abns@flip-loop accept-proxy
             bind 127.0.0.1:80

            """, "127.0.0.1:443 21000", "127.0.0.1:80 21001"),
        Moved("a frontend behind another on a loopback port", """
            listen tls
             bind *:443
             server s 127.0.0.1:8443 send-proxy-v2 check
            frontend clear
             bind 127.0.0.1:8443 accept-proxy

            """, "*:443 21000", "127.0.0.1:8443 21001"),
        Moved("unix sockets with a prefix", """
            global
             unix-bind prefix @DIR@/ mode 770
            listen a
             bind 127.0.0.1:80
             server s unix@@DIR@/in.sock
            listen b
             bind unix@in.sock
             bind unix@plain.sock user root
            backend c
             server t unix@@DIR@/plain.sock

            """, "127.0.0.1:80 21000"),
        Moved("a unix socket in a comma list", "listen a\n bind 127.0.0.1:80,@DIR@/a.sock,127.0.0.1:81\n server s unix@@DIR@/a.sock\n", "127.0.0.1:80 21000", "127.0.0.1:81 21001"),
        Moved("a prefix that ends where the path begins with a slash", "global\n unix-bind prefix @DIR@/\nlisten a\n bind 127.0.0.1:80\n bind unix@/b.sock\n server s unix@@DIR@/b.sock\n", "127.0.0.1:80 21000"),
        Moved("a unix socket for others", "listen a\n bind 127.0.0.1:80,@DIR@/a.sock mode 666\nlisten b\n bind uxst@@DIR@/b.sock user root group root\n", "127.0.0.1:80 21000"),
        Moved("nothing but a unix socket, with a prefix", "global\n unix-bind prefix @DIR@/ mode 660\nlisten a\n bind unix@a.sock accept-proxy\n"),
        Refused("names that no link can stand for", "listen a\n bind 127.0.0.1:80\n bind unix@a.sock\n bind abns@front\n",
            "haproxy.cfg:3: haproxy: bind \"unix@a.sock\" is not the absolute path of a file: which one it is depends on the directory HAProxy is started in; write the whole path",
            "haproxy.cfg:4: haproxy: bind \"abns@front\" is an abstract socket: two processes cannot have one name, and there is no file that could lead to another; bind a path, or an address with a port"),
        Moved("an interface", "listen a\n bind *:80 interface lo\n bind :::81 interface lo v6only\n", "*:80 21000", "[::]:81 v6only 21001"),
        Moved("a port of three zeroes", "listen a\n bind 127.0.0.1:00080\n", "127.0.0.1:80 21000"),
        Moved("an address in the head of a section", "listen a 127.0.0.1:80\n mode http\nfrontend b 127.0.0.1:81,127.0.0.1:82\n mode http\n",
            "127.0.0.1:80 21000", "127.0.0.1:81 21001", "127.0.0.1:82 21002") with
        { NotForHaproxy = "only versions before 2.0 take it" },
        Refused("no bind at all", "frontend a\n mode http\n", "haproxy.cfg:1: haproxy: no frontend or listen section binds an address that can be redirected; there is nothing to move connections to") with
        { NotForHaproxy = "it starts nothing" },
        Refused("transparent", "listen a\n bind 127.0.0.1:80 transparent\n",
            "haproxy.cfg:2: haproxy: bind \"127.0.0.1:80\" is transparent: it takes connections for addresses of other hosts, which cannot be redirected to a private port"),
        Refused("another network namespace", "listen a\n bind 127.0.0.1:80 namespace blue\n",
            "haproxy.cfg:2: haproxy: bind \"127.0.0.1:80\" listens in another network namespace, in which nothing is redirected") with
        { NotForHaproxy = "it wants the namespace" },
        Moved("a backend that binds", "listen a\n bind 127.0.0.1:80\nbackend b\n bind 127.0.0.1:81\n", "127.0.0.1:80 21000", "127.0.0.1:81 21001"),
        Refused("interfaces apart", "listen a\n bind *:80 interface lo\n bind *:80 interface eth0\n",
            "haproxy.cfg:3: haproxy: bind \"*:80\" differs from another bind only by its interface, and a redirection by interface is not made yet"),
        Refused("a private port as front port", "listen a\n bind :21500\n",
            "haproxy.cfg:2: haproxy: bind \":21500\" is one of the private ports 21000-21999 of the slot; choose another block in \"ports\""),
        Refused("an inherited descriptor", "listen a\n bind fd@3\n bind 127.0.0.1:80\n", "haproxy.cfg:2: haproxy: bind \"fd@3\" is an inherited file descriptor: FlipController starts the generations and has none to hand on, and two that had the same would take each other's connections; bind a path, or an address with a port") with
        { NotForHaproxy = "it wants the descriptor" },
        Moved("QUIC", "global\n cluster-secret s\nlisten a\n bind quic4@127.0.0.1:443 ssl crt site.pem alpn h3\n bind 127.0.0.1:443 ssl crt site.pem\n",
            "quic@127.0.0.1:443 21000", "127.0.0.1:443 21001") with
        { NotForHaproxy = "not every build has QUIC" },
        Refused("multipath TCP", "listen a\n bind mptcp4@127.0.0.1:80\n", "haproxy.cfg:2: haproxy: bind \"mptcp4@127.0.0.1:80\" is a multipath TCP address; only TCP and QUIC addresses can be redirected") with
        { Since = "3.1" },
        Refused("reverse HTTP", "backend b\n server s 127.0.0.1:80\nlisten a\n mode http\n bind rhttp@b/s\n", "haproxy.cfg:5: haproxy: bind \"rhttp@b/s\" is a reverse HTTP address; only TCP and QUIC addresses can be redirected") with
        { Since = "2.9" },
    ];
}
