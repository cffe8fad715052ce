using System.Net;
using System.Net.Sockets;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy;

/// <summary>The user's own HAProxy and a copy of its configuration, both running in one namespace.</summary>
public sealed class SideBySideTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(15);

    [Fact(Timeout = 60_000)]
    public async Task Each_connects_to_itself_by_every_kind_of_address()
    {
        Require.Netns();
        Require.Program("haproxy");
        using Netns net = Netns.Create();
        using var files = new TempDir();
        Directory.CreateDirectory(files["jail"]);
        Directory.CreateDirectory(files["g00007"]);
        files.Write("haproxy.cfg", $$"""
            global
              zero-warning
              chroot {{files["jail"]}}
              user nobody
              unix-bind prefix {{files["jail"]}} mode 666
              stats socket {{files["user.sock"]}}
              stats socket ipv4@127.0.0.1:9999
              setenv LAST 82
            defaults
              mode http
              timeout client 5s
              timeout server 5s
              timeout connect 1s
            .if version_atleast(2.4)
            frontend one
              bind 127.0.0.1:80
              default_backend to-unix
            .else
            frontend one
              bind 127.0.0.1:80,127.0.0.1:90
            .endif
            frontend two
              bind unix@/in.sock
              default_backend to-abstract
            frontend three
              bind abns@inner
              default_backend to-range
            frontend four
              bind localhost:81-"${LAST}"
              http-request return status 200 content-type text/plain lf-string "pid=%pid"
            backend to-unix
              server s unix@/in.sock
            backend to-abstract
              server s abns@inner
            backend to-range
              server s 127.0.0.1:"${LAST}"

            """);
        NetnsProcess original = net.Start("haproxy", "-db", "-f", files["haproxy.cfg"]);
        string ownPid = "";
        await Eventually.True(async () => (ownPid = await AnswerAsync(net, 80)).Contains("pid=", StringComparison.Ordinal), Patience, () => original.Errors);

        HaproxySurroundings surroundings = await HostSurroundings.OfAsync("haproxy", System.Collections.Immutable.ImmutableDictionary<string, string>.Empty);
        var place = new SlotPlace(files["g00007"], files["g00007.sock"], new PortBlock(21000, 20), new HashSet<int>(), "lb1");
        ProjectionResult result = Projection.Render([new(files["haproxy.cfg"], File.ReadAllBytes(files["haproxy.cfg"]))], place, surroundings);
        Assert.Empty(result.Faults);
        RenderedConfiguration copy = result.Configuration!;
        Assert.Equal(["127.0.0.1:9999", "127.0.0.1:80", "127.0.0.1:81", "127.0.0.1:82"], copy.Services.Select(s => s.Service.ToString()));
        foreach (RenderedFile file in copy.Files) await File.WriteAllBytesAsync(file.Path, file.Content);
        NetnsProcess standby = net.Start("haproxy", ["-db", .. copy.LocalPeerOption, .. copy.Files.SelectMany(f => new[] { "-f", f.Path })]);
        string copyPid = "";
        await Eventually.True(async () => (copyPid = await AnswerAsync(net, copy.Services[1].PrivatePort)).Contains("pid=", StringComparison.Ordinal),
            Patience, () => standby.Errors);

        Assert.NotEqual(ownPid, copyPid);
        for (int i = 0; i < 5; i++)
        {
            Assert.Equal(copyPid, await AnswerAsync(net, copy.Services[1].PrivatePort));
            Assert.Equal(ownPid, await AnswerAsync(net, 80));
        }
        Assert.True(File.Exists(Assert.Single(copy.OwnSockets)));
    }

    private static async Task<string> AnswerAsync(Netns net, int port)
    {
        using Socket socket = net.Run(() => new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp));
        try
        {
            await socket.ConnectAsync(IPAddress.Loopback, port);
        }
        catch (SocketException)
        {
            return "";
        }
        await socket.SendAsync("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"u8.ToArray());
        using var reader = new StreamReader(new NetworkStream(socket), Encoding.ASCII);
        return (await reader.ReadToEndAsync()).Split("\r\n\r\n")[^1];
    }
}
