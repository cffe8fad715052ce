using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy;

/// <summary>A real HAProxy with the copy that a projection made.</summary>
public sealed class ProjectedHaproxyTests
{
    private const string Request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    [Theory(Timeout = 30_000)]
    [InlineData("", true)]
    [InlineData("no option idle-close-on-response", false)]
    public async Task An_idle_client_outlives_a_soft_stop_by_one_answer_unless_the_user_forbids(string option, bool answered)
    {
        var (haproxy, copy) = await RunningHaproxy.StartProjectedAsync($"""
            defaults
              mode http
              timeout client 20s
            frontend web
              bind 127.0.0.1:80
              {option}
              http-request return status 200 content-type text/plain string hello

            """);
        using RunningHaproxy running = haproxy;
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        using var client = new TcpClient();
        await client.ConnectAsync(IPAddress.Loopback, Assert.Single(copy.Services).PrivatePort, cancellation);
        NetworkStream stream = client.GetStream();
        await stream.WriteAsync(Encoding.ASCII.GetBytes(Request), cancellation);
        string first = await AnswerAsync(stream, cancellation);
        Assert.StartsWith("HTTP/1.1 200", first);
        Assert.DoesNotContain("connection: close", first);

        running.SoftStop();
        if (answered)
        {
            await UntilStopping(running);
            await stream.WriteAsync(Encoding.ASCII.GetBytes(Request), cancellation);
            string second = await AnswerAsync(stream, cancellation);
            Assert.StartsWith("HTTP/1.1 200", second);
            Assert.Contains("connection: close", second);
        }
        // Closed without a word: what the option spares the client.
        Assert.Equal("", await AnswerAsync(stream, cancellation));
    }

    [Fact(Timeout = 30_000)]
    public async Task A_session_opened_before_a_soft_stop_watches_the_drain_to_its_end()
    {
        var (haproxy, copy) = await RunningHaproxy.StartProjectedAsync("listen web\n mode http\n timeout client 20s\n bind 127.0.0.1:80\n http-request return status 200\n");
        using RunningHaproxy running = haproxy;
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        await using AdminSession session = await haproxy.Admin.OpenSessionAsync(cancellation);
        using (var client = new TcpClient())
        {
            await client.ConnectAsync(IPAddress.Loopback, copy.Services[0].PrivatePort, cancellation);
            await client.GetStream().WriteAsync(Encoding.ASCII.GetBytes(Request), cancellation);
            Assert.True(await client.GetStream().ReadAsync(new byte[4096], cancellation) > 0);
            Assert.False(AdminSession.IsDrained(await session.ShowInfoAsync(cancellation)));
            running.SoftStop();
            await UntilStopping(running);
            HaproxyInfo draining = await session.ShowInfoAsync(cancellation);
            Assert.Equal((1, true, false), (draining.CurrConns, draining.Stopping, AdminSession.IsDrained(draining)));
        }
        var waited = Stopwatch.StartNew();
        while (!AdminSession.IsDrained(await session.ShowInfoAsync(cancellation))) Assert.True(waited.Elapsed < TimeSpan.FromSeconds(10));
        Assert.False(running.HasExited);
        await session.DisposeAsync();
        await running.ExitAsync(cancellation);
        await Assert.ThrowsAsync<FlipException>(() => session.ShowInfoAsync(cancellation));
    }

    /// <summary>A soft stop closes every listener, the stats socket's too (src/proxy.c, do_soft_stop_now).</summary>
    private static async Task UntilStopping(RunningHaproxy haproxy)
    {
        var waited = Stopwatch.StartNew();
        await Assert.ThrowsAsync<FlipException>(async () =>
        {
            while (waited.Elapsed < TimeSpan.FromSeconds(10)) await haproxy.Admin.ShowInfoAsync();
        });
    }

    /// <summary>Up to the end of the short body, or of the connection.</summary>
    private static async Task<string> AnswerAsync(NetworkStream stream, CancellationToken cancellation)
    {
        var answer = new StringBuilder();
        var buffer = new byte[4096];
        while (!answer.ToString().EndsWith("hello", StringComparison.Ordinal)
            && await stream.ReadAsync(buffer, cancellation) is > 0 and int read) answer.Append(Encoding.ASCII.GetString(buffer, 0, read));
        return answer.ToString();
    }
}
