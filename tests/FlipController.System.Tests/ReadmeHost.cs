using System.Net;
using FlipController.Load;
using FlipController.Tests.Shared;

namespace FlipController.SystemTests;

/// <summary>
/// A host such as the README speaks of: the daemon on its default paths with the pair `edge`, whose HAProxy has the quickstart's
/// haproxy.cfg. Network and mounts are its own: its /etc is a copy, its /run and /var/lib are empty but for this.
/// </summary>
internal sealed class ReadmeHost : IAsyncDisposable
{
    private const string Begin = """
        set -eu
        cp -a /etc "$1/etc"
        mount --bind "$1/etc" /etc
        mkdir -p "$1/lib/haproxy" /etc/flipcontroller
        mount --bind "$1/lib" /var/lib
        mount -t tmpfs -o mode=755 tmpfs /run
        mkdir /run/haproxy
        cp "$2/examples/quickstart/haproxy.cfg" /etc/haproxy/haproxy.cfg
        echo 'pairs: { edge: { haproxy: { config: [/etc/haproxy/haproxy.cfg] } } }' >/etc/flipcontroller/flipcontroller.yaml
        exec "$3"
        """;

    private readonly Netns _netns = Netns.Create();
    private readonly TempDir _files = new();
    private readonly Backend _backend;
    private readonly NetnsProcess _daemon;

    private ReadmeHost()
    {
        IPEndPoint[] servers = [new(IPAddress.Loopback, 8081), new(IPAddress.Loopback, 8082)];
        _backend = Backend.Start(new BackendOptions { Namespace = _netns.Name, Listen = servers, Name = "app" });
        string sudo = _files.Write("bin/sudo", "#!/bin/sh\nexec \"$@\"\n");
        File.SetUnixFileMode(sudo, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        // Each becomes the next, so the pid is the daemon's in the end.
        _daemon = _netns.Start("unshare", "--mount", "--propagation", "private", "bash", "-c", Begin, "begin", _files.Path, Repository.Root, Programs.Daemon);
    }

    public static async Task<ReadmeHost> StartAsync()
    {
        Require.Netns();
        Require.Program("haproxy");
        var host = new ReadmeHost();
        try
        {
            await Eventually.True(() => File.Exists($"/proc/{host._daemon.Pid}/root/run/flipcontroller/control.sock") || host._daemon.HasExited,
                TimeSpan.FromSeconds(30), "the daemon should listen");
            (int code, string said) = await host.RunAsync("until flipctl status edge --json | grep -q '\"state\":\"steady\"'; do sleep 0.1; done", TimeSpan.FromSeconds(30));
            if (code != 0) throw new InvalidOperationException($"the pair did not start:\n{said}{host._daemon.Output}{host._daemon.Errors}");
            return host;
        }
        catch
        {
            await host.DisposeAsync();
            throw;
        }
    }

    /// <summary>What it said, both streams together in the order of their ends: stdout, then stderr.</summary>
    public async Task<(int ExitCode, string Output)> RunAsync(string script, TimeSpan patience)
    {
        string path = $"{Programs.Folder}:{_files["bin"]}:{Environment.GetEnvironmentVariable("PATH")}:/usr/sbin:/sbin";
        using var shell = new NetnsProcess("nsenter", [
            $"--target={_daemon.Pid}", "--net", "--mount", $"--wd={Repository.Root}", "env", $"PATH={path}", "FLIPCONTROLLER_SOCKET=/run/flipcontroller/control.sock",
            "FLIPCONTROLLER_RUNTIME=/run/flipcontroller", "bash", "-euo", "pipefail", "-c", script]);
        int code = await shell.Exit(patience);
        return (code, shell.Output + shell.Errors);
    }

    public ValueTask DisposeAsync()
    {
        _netns.Dispose();
        _daemon.Dispose();
        _backend.Dispose();
        _files.Dispose();
        return ValueTask.CompletedTask;
    }
}
