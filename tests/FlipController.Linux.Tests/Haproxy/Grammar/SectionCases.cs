using System.Collections.Immutable;
using static FlipController.Linux.Tests.Haproxy.Grammar.GrammarCase;

namespace FlipController.Linux.Tests.Haproxy.Grammar;

/// <summary>Every kind of section, and what two processes would fight over.</summary>
internal static class SectionCases
{
    private const string Web = "listen web\n mode http\n bind 127.0.0.1:80\n http-request return status 200\n";

    public static IEnumerable<GrammarCase> All =>
    [
        Moved("files of a global section", $"""
            global
             daemon
             pidfile @DIR@/haproxy.pid
             chroot /var/lib/haproxy
             user haproxy
             group haproxy
             server-state-file @DIR@/server.state
             server-state-base @DIR@
             log stdout format raw local0 info
             log 127.0.0.1:514 local1
             log-send-hostname
             description the\ edge
             node edge1
             stats socket @DIR@/admin.sock mode 660 level admin expose-fd listeners
             stats socket unix@@DIR@/second.sock user root group root level operator
             stats timeout 30s
             stats maxconn 4
            {Web}
            """, "127.0.0.1:80 21000"),
        Moved("tuning", $"""
            global
             nbthread 2
             cpu-map auto:1/1-2 0-1
             maxconn 200
             ulimit-n 1000
             zero-warning
             set-dumpable
             strict-limits
             no busy-polling
             hard-stop-after 30s
             tune.bufsize 32768
             tune.ssl.default-dh-param 2048
             spread-checks 5
             max-spread-checks 10s
             ssl-server-verify none
            defaults
             timeout client 1s
             timeout server 1s
             timeout connect 1s
            {Web}
            """, "127.0.0.1:80 21000"),
        Moved("stats sockets of other kinds", $"global\n stats socket ipv4@127.0.0.1:9999 level user\n stats socket abns@flip-stats\n stats socket @DIR@/a.sock\n{Web}",
            "127.0.0.1:9999 21000", "127.0.0.1:80 21001"),
        Moved("a stats socket in a variable", $"global\n stats socket \"$RUN/admin.sock\" mode 600\n{Web}", "127.0.0.1:80 21000") with
        { Environment = ImmutableDictionary<string, string>.Empty.Add("RUN", "/tmp") },
        Moved("a stats page", """
            listen stats
             bind 127.0.0.1:8404
             mode http
             stats enable
             stats uri /stats
             stats refresh 10s
             stats admin if { src 127.0.0.1 }
             stats auth admin:a\ b
             stats hide-version
             http-request use-service prometheus-exporter if { path /metrics }

            """, "127.0.0.1:8404 21000"),
        Moved("a master that is not needed", $"global\n master-worker\n mworker-max-reloads 3\n{Web}", "127.0.0.1:80 21000"),
        Moved("a master that is not needed, with a parameter", $"global\n master-worker no-exit-on-failure\n{Web}", "127.0.0.1:80 21000"),
        Moved("peers, the older form", $"""
            peers p
             peer lb1 127.0.0.1:1024
             peer lb2 127.0.0.2:1024
             table t type ip size 1k store gpc0
            backend b
             stick-table type ip size 1m expire 30m store conn_rate(10s) peers p
            {Web}
            """, "127.0.0.1:1024 21000", "127.0.0.1:80 21001"),
        Moved("peers, the newer form", $"""
            peers p
             bind 127.0.0.1:1024 ssl crt site.pem
             default-server ssl verify none
             server lb1
             server lb2 127.0.0.2:1024
            peers off
             disabled
             peer lb1 127.0.0.1:1025
            {Web}
            """, "127.0.0.1:1024 21000", "127.0.0.1:80 21001"),
        Moved("peers under a name of their own", $"global\n localpeer edge\npeers p\n peer edge 127.0.0.1:1024\n peer lb1 127.0.0.2:1024\n{Web}",
            "127.0.0.1:1024 21000", "127.0.0.1:80 21001"),
        Moved("resolvers", $"resolvers dns\n nameserver a 127.0.0.1:53\n nameserver b tcp@127.0.0.1:53\n parse-resolv-conf\n hold valid 10s\nbackend b\n server s localhost:80 resolvers dns init-addr none check\n{Web}",
            "127.0.0.1:80 21000"),
        Moved("mailers", $"mailers m\n timeout mail 5s\n mailer a 127.0.0.1:25\nbackend b\n email-alert mailers m\n email-alert from a@example.org\n email-alert to b@example.org\n server s 127.0.0.1:81 check\n{Web}",
            "127.0.0.1:80 21000"),
        Moved("a userlist", "userlist u\n group g users a,b\n user a password $5$salt$abc\n user b insecure-password \"p # w\"\nlisten web\n mode http\n bind 127.0.0.1:80\n http-request auth unless { http_auth_group(u) g }\n",
            "127.0.0.1:80 21000"),
        Moved("a ring", $"ring r\n format rfc5424\n maxlen 1200\n size 32768\n timeout connect 1s\n timeout server 1s\n server log 127.0.0.1:514 log-proto octet-count\nglobal\n log ring@r local0\n{Web}",
            "127.0.0.1:80 21000"),
        Moved("a ring in a file", $"ring r\n size 32768\n maxlen 1200\n backing-file @DIR@/ring\n{Web}", "127.0.0.1:80 21000"),
        Moved("a log forwarder over TCP", $"log-forward f\n bind 127.0.0.1:1514\n log 127.0.0.1:514 local0\n maxconn 10\n{Web}", "127.0.0.1:1514 21000", "127.0.0.1:80 21001"),
        Moved("a log forwarder over UDP", $"log-forward f\n dgram-bind 127.0.0.1:1514-1515 interface lo\n dgram-bind udp6@[::1]:1514\n log 127.0.0.1:514 local0\n{Web}",
            "udp@127.0.0.1:1514 21000", "udp@127.0.0.1:1515 21001", "udp@[::1]:1514 21002", "127.0.0.1:80 21003"),
        Moved("a cache", "cache c\n total-max-size 4\n max-age 60\nlisten web\n mode http\n bind 127.0.0.1:80\n filter cache c\n filter compression\n http-request cache-use c\n http-response cache-store c\n server s 127.0.0.1:81\n",
            "127.0.0.1:80 21000"),
        Moved("FastCGI", "fcgi-app php\n log-stderr global\n docroot /srv/www\n index index.php\n path-info ^(/.+\\.php)(/.*)?$\nlisten web\n mode http\n bind 127.0.0.1:80\n use-fcgi-app php\n server s unix@/run/php.sock proto fcgi\n",
            "127.0.0.1:80 21000"),
        Moved("error pages", "http-errors e\n errorfile 503 errors/503.http\nlisten web\n mode http\n bind 127.0.0.1:80\n errorfiles e\n errorfile 500 errors/503.http\n http-error status 404 content-type text/plain string \"no # such\"\n http-request return status 200\n",
            "127.0.0.1:80 21000"),
        Moved("a script", "global\n lua-prepend-path @DIR@/?.lua\n lua-load hello.lua\nlisten web\n mode http\n bind 127.0.0.1:80\n http-request use-service lua.hello\n", "127.0.0.1:80 21000"),
        Moved("maps and lists", "listen web\n mode http\n bind 127.0.0.1:80\n acl known req.hdr(host) -i -f sub/names.lst\n http-request set-var(txn.b) req.hdr(host),lower,map(hosts.map,none) if known\n http-request deny if !known\n http-request return status 200\n",
            "127.0.0.1:80 21000"),
        Moved("a stream processing filter", "listen web\n mode http\n bind 127.0.0.1:80\n filter spoe engine check config spoe.conf\n http-request return status 200\nbackend spoe\n mode tcp\n server s 127.0.0.1:12345\n",
            "127.0.0.1:80 21000"),
        Moved("server state", $"global\n server-state-file @DIR@/server.state\ndefaults\n load-server-state-from-file global\nbackend b\n server s 127.0.0.1:81\n{Web}", "127.0.0.1:80 21000"),
        Moved("a gateway by server name", """
            frontend tls
             mode tcp
             bind 127.0.0.1:443
             tcp-request inspect-delay 5s
             tcp-request content accept if { req.ssl_hello_type 1 }
             use_backend a if { req.ssl_sni -i a.example.org }
             use_backend %[req.ssl_sni,lower,map(hosts.map,b)]
             default_backend b
            backend a
             mode tcp
             stick-table type binary len 32 size 30k expire 30m
             stick on payload_lv(43,1)
             server a1 127.0.0.1:8443 send-proxy check-ssl verify none
            backend b
             mode tcp
             balance source
             source 127.0.0.1
             server b1 127.0.0.1:8444 source 127.0.0.1:20000-20010 backup

            """, "127.0.0.1:443 21000"),
        Moved("a rate limit", """
            frontend web
             mode http
             bind 127.0.0.1:80
             stick-table type ipv6 size 100k expire 30s store http_req_rate(10s),gpc0
             http-request track-sc0 src
             http-request deny deny_status 429 if { sc_http_req_rate(0) gt 100 }
             tcp-request connection reject if { src_conn_rate gt 50 }
             http-request return status 200

            """, "127.0.0.1:80 21000"),
        Moved("rules of many kinds", """
            frontend web
             mode http
             bind 127.0.0.1:80
             monitor-uri /alive
             option httplog clf
             option forwardfor except 127.0.0.0/8 header X-Client
             unique-id-format %{+X}o\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid
             capture request header Host len 64
             http-request redirect scheme https code 301 if !{ ssl_fc } { path_beg /secure }
             http-request replace-path (.*) /x\1
             http-request set-src hdr(x-real-ip) if { src 10.0.0.0/8 }
             redirect prefix http://example.org if { path / }
             default_backend b
            backend b
             mode http
             option httpchk
             http-check send meth GET uri /health ver HTTP/1.1 hdr host example.org
             http-check expect rstatus ^2
             cookie SRV insert indirect nocache
             server a 127.0.0.1:81 cookie a check inter 1s weight 10
             server-template t 3 127.0.0.1:82 disabled

            """, "127.0.0.1:80 21000"),
        Moved("defaults by name", """
            defaults plain
             mode tcp
            defaults web from plain
             mode http
            defaults
             timeout client 5s
            frontend a from web
             bind 127.0.0.1:80
             http-request return status 200
            frontend b from plain
             bind 127.0.0.1:81
             default_backend c
            backend c from plain
             server s 127.0.0.1:82

            """, "127.0.0.1:80 21000", "127.0.0.1:81 21001"),
        Moved("defaults without a name, one after another", "defaults\n mode http\nlisten a\n bind 127.0.0.1:80\n http-request return status 200\ndefaults\n timeout client 1s\nlisten b\n bind 127.0.0.1:81\n server s 127.0.0.1:82\n",
            "127.0.0.1:80 21000", "127.0.0.1:81 21001"),
        Moved("proxies that are disabled", """
            listen off
             disabled
             bind 127.0.0.1:81
             bind @DIR@/off.sock
            defaults
             disabled
            frontend also
             bind 127.0.0.1:82
            frontend but
             enabled
             bind 127.0.0.1:80

            """, "127.0.0.1:80 21000"),
        new("several files", [("a.cfg", "global\n maxconn 100\ndefaults\n mode http\n timeout client 1s\n"), ("b.cfg", "listen b\n bind 127.0.0.1:80\n http-request return status 200\n"), ("c.cfg", "backend c\n server s 127.0.0.1:81\n")],
            ["127.0.0.1:80 21000"]),
        new("files of one name", [("a/site.cfg", "listen a\n bind 127.0.0.1:80\n"), ("b/site.cfg", "listen b\n bind 127.0.0.1:81\n")], ["127.0.0.1:80 21000", "127.0.0.1:81 21001"]),
        new("files with blanks and letters in their names", [("a b/\xc3\xa4 #1.cfg", "listen a\n bind 127.0.0.1:80\n")], ["127.0.0.1:80 21000"]) { NotForHaproxy = "checked by another test" },
        new("default-path config, per file", [("sub/a.cfg", "global\n default-path config\nlisten a\n mode http\n bind 127.0.0.1:80\n http-request deny if { path -f names.lst }\n http-request return status 200\n"),
            ("b.cfg", "listen b\n mode http\n bind 127.0.0.1:81\n http-request deny if { path -f sub/names.lst }\n http-request return status 200\n")], ["127.0.0.1:80 21000", "127.0.0.1:81 21001"]),
        new("default-path parent", [("sub/a.cfg", "global\n default-path parent\nlisten a\n bind 127.0.0.1:443 ssl crt site.pem\n")], ["127.0.0.1:443 21000"]),
        new("default-path origin, then current", [("a.cfg", "global\n default-path origin @DIR@/sub\nlisten a\n mode http\n bind 127.0.0.1:80\n http-request deny if { path -f names.lst }\n http-request return status 200\n"),
            ("b.cfg", "global\n default-path current\nlisten b\n mode http\n bind 127.0.0.1:81\n http-request deny if { path -f sub/names.lst }\n http-request return status 200\n")], ["127.0.0.1:80 21000", "127.0.0.1:81 21001"]),
        new("variables from one file to the next", [("a.cfg", "global\n setenv PORT 81\n"), ("b.cfg", "listen b\n bind 127.0.0.1:$PORT\n.if defined(PORT)\n bind 127.0.0.1:82\n.endif\n")],
            ["127.0.0.1:81 21000", "127.0.0.1:82 21001"]),
        Refused("a program", $"global\n master-worker\nprogram p\n command /bin/sleep 1000\n{Web}",
            "haproxy.cfg:3: haproxy: a program section needs master-worker mode; FlipController starts and watches HAProxy itself"),
        Moved("grace", $"global\n grace 10s\n{Web}", "127.0.0.1:80 21000"),
        Moved("a certificate store", $"crt-store s\n crt-base @DIR@\n load crt site.pem alias site\nlisten web\n mode http\n bind 127.0.0.1:443 ssl crt @s/site\n http-request return status 200\n", "127.0.0.1:443 21000") with { Since = "3.0" },
        Moved("counters in a file", $"global\n stats-file @DIR@/stats.file\n{Web}", "127.0.0.1:80 21000") with { Since = "3.0" },
        Moved("a log profile", $"log-profile p\n log-tag x\n on any format \"%ci\"\nglobal\n log stdout profile p local0\n{Web}", "127.0.0.1:80 21000") with { Since = "3.1" },
        Moved("traces", $"traces\n trace h1 sink stdout level user\n{Web}", "127.0.0.1:80 21000") with { Since = "3.1" },
        Refused("certificates from an authority", $"acme a\n directory https://example.org/directory\n account-key @DIR@/a.key\n{Web}",
            "haproxy.cfg:1: haproxy: an acme section would order the same certificates from both processes; order them outside HAProxy") with { Since = "3.2" },
        Moved("counters in shared memory", $"global\n shm-stats-file @DIR@/shm\n{Web}", "127.0.0.1:80 21000") with { Since = "3.3" },
    ];
}
