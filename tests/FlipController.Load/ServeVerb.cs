using System.CommandLine;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace FlipController.Load;

internal static class ServeVerb
{
    public static Command Create()
    {
        var listen = new Option<IPEndPoint[]>("--listen")
        {
            Description = "ADDR:PORT or [ADDR6]:PORT; port 0 takes a free one",
            Required = true,
            CustomParser = RunVerb.Endpoints,
        };
        var name = new Option<string>("--name")
        {
            Description = "what it answers and puts into X-Backend",
            DefaultValueFactory = _ => "backend",
        };
        var pidFile = new Option<string?>("--pid-file") { Description = "written when it listens, deleted when it ends" };
        var netns = new Option<string?>("--netns") { Description = "the network namespace to listen in" };
        var command = new Command(
            "serve", "An HTTP backend: /, /bytes/N?seed=S&rate=R, /status/CODE, /slow/MS, /health, POST /health/down and /health/up, Upgrade.")
        {
            listen, name, pidFile, netns,
        };
        command.SetAction(async (parsed, cancelled) =>
        {
            var file = parsed.GetValue(pidFile);
            try
            {
                using var backend = Backend.Start(new BackendOptions
                {
                    Listen = parsed.GetRequiredValue(listen), Name = parsed.GetRequiredValue(name), Namespace = parsed.GetValue(netns),
                });
                // The line and the pid file are the sign that connections are accepted.
                if (file is not null)
                    await File.WriteAllTextAsync(file, string.Create(CultureInfo.InvariantCulture, $"{Environment.ProcessId}\n"), CancellationToken.None);
                foreach (var endpoint in backend.Endpoints) await Console.Out.WriteLineAsync($"listening on {endpoint}");
                await Task.Delay(Timeout.Infinite, cancelled).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                return 0;
            }
            catch (Exception e) when (e is SocketException or IOException or UnauthorizedAccessException or System.ComponentModel.Win32Exception)
            {
                await Console.Error.WriteLineAsync($"flipload: cannot serve: {e.Message}");
                return 1;
            }
            finally
            {
                if (file is not null) File.Delete(file);
            }
        });
        return command;
    }
}
