using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using FlipController.Linux.Haproxy;

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
        running.process = Process.Start(new ProcessStartInfo("haproxy", ["-db", "-q", "-L", "local", "-f", running.directory.File("h.cfg")])
        {
            RedirectStandardError = true,
        })!;
        var waited = Stopwatch.StartNew();
        while (true)
        {
            try
            {
                await running.Admin.ShowInfoAsync();
                return running;
            }
            catch (Core.FlipException) when (!running.process.HasExited && waited.Elapsed < TimeSpan.FromSeconds(10))
            {
                await Task.Yield();
            }
        }
    }

    public void Dispose()
    {
        process?.Kill();
        process?.WaitForExit(5000);
        process?.Dispose();
        directory.Dispose();
    }
}
