using FlipController.Core;
using FlipController.Linux.Haproxy;
using Xunit;
using static FlipController.Linux.Tests.Haproxy.Projected;

namespace FlipController.Linux.Tests.Haproxy;

/// <summary>Unix sockets that outsiders connect to.</summary>
public sealed class UnixFrontProjectionTests
{
    [Theory]
    [InlineData("bind /run/a.sock mode 666 user www # all", "bind /run/a.sock.g00007 mode 666 user www # all", "/run/a.sock")]
    [InlineData("bind unix@/run/a.sock ssl crt 'a b'", "bind unix@/run/a.sock.g00007 ssl crt 'a b'", "/run/a.sock")]
    [InlineData("bind :80,/run/a.sock,uxst@/run/b.sock", "bind :21000,/run/a.sock.g00007,uxst@/run/b.sock.g00007", "/run/a.sock /run/b.sock")]
    [InlineData("bind stream+unix@/run/a.sock", "bind stream+unix@/run/a.sock.g00007", "/run/a.sock")]
    [InlineData("bind \"/run/${WHERE}.sock\"", "bind /run/there.sock.g00007", "/run/there.sock")]
    public void Each_generation_listens_beside_the_path_as_the_line_says(string bind, string copy, string paths)
    {
        HaproxySurroundings there = With(("WHERE", "there"));
        Assert.Equal($"listen a\n {copy}\n", Copy($"listen a\n {bind}\n", there));
        RenderedConfiguration rendered = Of($"listen a\n {bind}\n", there);
        Assert.Equal([.. paths.Split(' ').Select(p => new UnixFront(p, $"{p}.g00007"))], rendered.Fronts);
        Assert.Equal(rendered.Fronts.Select(f => f.Socket), rendered.OwnSockets);
    }

    [Fact]
    public void A_prefix_is_a_part_of_the_path_and_a_new_root_is_not()
    {
        RenderedConfiguration rendered = Of("global\n chroot /srv/jail\n unix-bind prefix /run/app/ mode 660\nfrontend a\n bind unix@in.sock\nlog-forward l\n bind unix@log.sock\n");
        Assert.EndsWith("frontend a\n bind unix@in.sock.g00007\nlog-forward l\n bind unix@log.sock.g00007\n", System.Text.Encoding.UTF8.GetString(rendered.Files[1].Content));
        Assert.Equal([new UnixFront("/run/app/in.sock", "/run/app/in.sock.g00007"), new UnixFront("/run/app/log.sock", "/run/app/log.sock.g00007")], rendered.Fronts);
    }

    [Fact]
    public void What_the_configuration_itself_connects_to_is_not_for_others() =>
        Assert.Empty(Of("listen a\n bind :80\n bind /run/n.sock\nbackend b\n server s /run/n.sock\n").Fronts);

    [Fact]
    public void Paths_alone_are_something_to_move() => Assert.Empty(Of("listen a\n bind /run/a.sock\n").Services);

    [Fact]
    public void Every_fault_is_told_with_its_line()
    {
        string fits = "/run/" + new string('x', 107 - ".4194304.tmp".Length - ".g00007".Length - "/run/".Length), tooLong = fits + "x";
        Assert.Equal($"listen a\n bind {fits}.g00007\n", Copy($"listen a\n bind {fits}\n"));
        Assert.Equal(
            [
                "2: bind \"unix@a.sock\" is not the absolute path of a file: which one it is depends on the directory HAProxy is started in; write the whole path",
                $"3: bind \"{tooLong}\" has 89 bytes, and a generation's own name beside it, under which HAProxy binds it for a moment with its process id behind, "
                    + "may have no more than 107 (sun_path, unix(7)); use a path of at most 88 bytes",
                "5: bind \"/run/../run/a.sock\" is bound already, and only the last of several would be reached there; take it out",
                "6: bind \"abns@a\" is an abstract socket: two processes cannot have one name, and there is no file that could lead to another; bind a path, or an address with a port",
                "7: bind \"sockpair@3\" is an inherited file descriptor: FlipController starts the generations and has none to hand on, and two that had the same would take "
                    + "each other's connections; bind a path, or an address with a port",
                "8: bind \"uxdg@/run/d\" is a unix socket of datagrams: senders stay with the socket they have found, and what one that ends has not read is lost; "
                    + "only TCP and QUIC addresses can be redirected",
                "10: bind \"/run/p\" is a unix socket for peers: they stay connected to the side that stops, and how they find the other one by a path is not tried here; "
                    + "use an address with a port",
            ],
            Faults($"listen a\n bind unix@a.sock\n bind {tooLong}\n bind /run/a.sock\n bind /run/../run/a.sock\n bind abns@a\n bind sockpair@3\n bind uxdg@/run/d\npeers p\n bind /run/p\n server lb1\n"));
    }
}
