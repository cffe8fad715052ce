using System.Text;
using FlipController.Linux.Haproxy;
using Xunit;
using static FlipController.Linux.Tests.Haproxy.Projected;

namespace FlipController.Linux.Tests.Haproxy;

public sealed class GlobalProjectionTests
{
    [Fact]
    public void What_is_not_for_a_copy_is_left_out_and_told()
    {
        RenderedConfiguration rendered = Of("global\n master-worker no-exit-on-failure\n grace 10s\n hard-stop-after 30s\n nbproc 1\n shm-stats-file /dev/shm/x\nlisten a\n bind :80\n");
        Assert.Equal("global\n#  master-worker no-exit-on-failure\n#  grace 10s\n hard-stop-after 30s\n nbproc 1\n shm-stats-file /run/fc/g00007/shm-stats\nlisten a\n bind :21000\n",
            Encoding.UTF8.GetString(rendered.Files[1].Content));
        Assert.Equal(
            [
                "/etc/haproxy/haproxy.cfg:2: master-worker is left out: FlipController starts and watches HAProxy itself",
                "/etc/haproxy/haproxy.cfg:3: grace is left out: a stopped generation does not go on listening, and has no need to: NEW connections go to the other one already",
                "/etc/haproxy/haproxy.cfg:4: hard-stop-after 30s ends a retired generation and its connections after that time, even if drain.deadline is later",
            ],
            rendered.Notes.Select(n => n.ToString()));
    }

    [Fact]
    public void What_means_something_else_for_two_processes_is_told()
    {
        RenderedConfiguration rendered = Of("peers p\n peer lb1 :1024\nmailers m\n mailer x 10.0.0.1:25\nlisten a\n bind :::80\n http-request deny if { dst_port 80 }\n log-format %fp\n");
        Assert.Equal([(1, "peers p knows"), (3, "mailers m get"), (7, "on IPv6 the d"), (8, "on IPv6 the d")],
            rendered.Notes.Select(n => (n.Line, n.Text[..13])));
        Assert.Empty(Of("peers p\n peer lb1 :1024\n peer lb2 10.0.0.2:1024\nlisten a\n bind :80\n http-request deny if { dst_port 80 }\n").Notes);
    }

    [Fact]
    public void The_state_of_servers_is_loaded_from_files_of_the_copys_own()
    {
        RenderedConfiguration rendered = Of("""
            global
             server-state-base /var/lib/haproxy/
             server-state-file all
            defaults
             load-server-state-from-file global
            backend a
            backend b
             load-server-state-from-file local
            backend c
             load-server-state-from-file local
             server-state-file-name /srv/c.state
            backend d
             load-server-state-from-file local
             server-state-file-name
            listen z
             bind :80

            """);
        Assert.Equal("""
            global
             server-state-base /var/lib/haproxy/
             server-state-file /run/fc/g00007/server-state-1
            defaults
             load-server-state-from-file global
            backend a
            backend b
                server-state-file-name /run/fc/g00007/server-state-2
             load-server-state-from-file local
            backend c
             load-server-state-from-file local
             server-state-file-name /run/fc/g00007/server-state-3
            backend d
             load-server-state-from-file local
             server-state-file-name
                server-state-file-name /run/fc/g00007/server-state-4
            listen z
             bind :21000

            """, Encoding.UTF8.GetString(rendered.Files[1].Content));
        Assert.Equal(
            [
                ("/run/fc/g00007/server-state-1", "/var/lib/haproxy/all", null), ("/run/fc/g00007/server-state-2", "/var/lib/haproxy/b", "b"),
                ("/run/fc/g00007/server-state-3", "/srv/c.state", "c"), ("/run/fc/g00007/server-state-4", "/var/lib/haproxy/d", "d"),
            ],
            rendered.ServerStateFiles.Select(f => (f.Path, f.UserPath, f.Backend)));
        Assert.Equal("Can't open '/var/lib/haproxy/all'", rendered.Explain("Can't open '/run/fc/g00007/server-state-1'"));
    }

    [Fact]
    public void A_state_file_that_several_backends_load_is_for_all_of_them() =>
        Assert.Equal(
            [("/run/fc/g00007/server-state-1", "/srv/both.state", null)],
            Of("""
                defaults
                 load-server-state-from-file local
                 server-state-file-name /srv/both.state
                backend a
                backend b
                listen z
                 bind :80

                """).ServerStateFiles.Select(f => (f.Path, f.UserPath, f.Backend)));

    [Fact]
    public void An_option_is_not_inserted_that_the_program_does_not_know()
    {
        HaproxySurroundings old = Bare with { Build = Bare.Build! with { Version = HaproxyVersion.Parse("HAProxy version 2.4.0")! } };
        Assert.Equal("listen a\n mode http\n bind :21000\n", Copy("listen a\n mode http\n bind :80\n", old));
    }
}
