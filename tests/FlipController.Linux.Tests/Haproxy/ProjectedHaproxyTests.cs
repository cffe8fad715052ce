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
