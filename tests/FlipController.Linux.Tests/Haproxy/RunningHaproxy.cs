using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy;

/// <summary>A HAProxy in the foreground with one frontend <c>f</c> and whatever the test adds; killed by its pid in the end.</summary>
internal sealed class RunningHaproxy : IDisposable
{
    private readonly TemporaryDirectory directory = new();
    private Process? process;

    public int Port { get; } = FreePort();
    public int Pid => process!.Id;
    public AdminSocket Admin => new(directory.File("admin"));

    public static int FreePort()
    {
        using var probe = new TcpListener(IPAddress.Loopback, 0);
        probe.Start();
        return ((IPEndPoint)probe.LocalEndpoint).Port;
    }

    public static async Task<RunningHaproxy> StartAsync(string more)
    {
        var running = new RunningHaproxy();
        await File.WriteAllTextAsync(running.directory.File("h.cfg"), $"""
            global
              stats socket {running.directory.File("admin")} mode 600 level admin
              max-spread-checks 50ms
            defaults
              mode http
              timeout connect 1s
              timeout client 30s
              timeout server 30s
              timeout check 30s
            frontend f
              bind 127.0.0.1:{running.Port}

            {more}
            """);
        return await running.RunAsync([running.directory.File("h.cfg")], "local");
    }

    /// <summary>Starts the copy that a projection makes of <paramref name="text"/>.</summary>
    public static async Task<(RunningHaproxy Haproxy, RenderedConfiguration Copy)> StartProjectedAsync(string text)
    {
        var running = new RunningHaproxy();
        var place = new SlotPlace(running.directory.Path, running.directory.File("admin"), new PortBlock(FreePort(), 1), new HashSet<int>(), "local");
        RenderedConfiguration copy = Projection.Render([new SourceFile("/etc/haproxy/haproxy.cfg", Encoding.UTF8.GetBytes(text))], place).Configuration!;
        foreach (RenderedFile file in copy.Files) await File.WriteAllBytesAsync(file.Path, file.Content);
        return (await running.RunAsync(copy.Files.Select(f => f.Path), copy.LocalPeer), copy);
    }

    public bool HasExited => process!.HasExited;

    public Task ExitAsync(CancellationToken cancellation) => process!.WaitForExitAsync(cancellation);

    public void SoftStop() => Assert.Equal(0, kill(Pid, 10)); // SIGUSR1, asm-generic/signal.h

    private async Task<RunningHaproxy> RunAsync(IEnumerable<string> files, string? localPeer)
    {
        process = Process.Start(new ProcessStartInfo("haproxy", ["-db", "-q", .. localPeer is null ? [] : new[] { "-L", localPeer }, .. files.SelectMany(f => new[] { "-f", f })])
        {
            RedirectStandardError = true,
        })!;
        var waited = Stopwatch.StartNew();
        while (true)
        {
            try
            {
                await Admin.ShowInfoAsync();
                return this;
            }
            catch (FlipException) when (!process.HasExited && waited.Elapsed < TimeSpan.FromSeconds(10))
            {
                await Task.Yield();
            }
        }
    }

    [DllImport("libc", SetLastError = true)]
    private static extern int kill(int pid, int signal);

    public void Dispose()
    {
        process?.Kill();
        process?.WaitForExit(5000);
        process?.Dispose();
        directory.Dispose();
    }
}
