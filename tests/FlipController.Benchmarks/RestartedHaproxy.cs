using System.Text.Json;
using FlipController.Core;
using FlipController.Tests.Shared;

namespace FlipController.Benchmarks;

/// <summary>The one HAProxy of the hold benchmark, on port 80 of the server's namespace in front of a backend, and the ways to restart it.</summary>
internal sealed class RestartedHaproxy(NetnsPair nets, TempDir files, string flipctl, string method)
{
    /// <summary>Protect's own, unless a start may take a second.</summary>
    private static readonly string[] s_max = Machine.IsEmulated ? ["--max", "10s"] : [];

    private static readonly TimeSpan s_dropped = TimeSpan.FromSeconds(1), s_patience = TimeSpan.FromSeconds(60);

    private string Configuration => files["haproxy.cfg"];

    private string PidFile => files["haproxy.pid"];

    private string Script => files["restart"];

    /// <summary>It listens when this returns.</summary>
    public void Start()
    {
        files.Write("haproxy.cfg", """
            global
              maxconn 4000
            defaults
              mode http
              timeout connect 5s
              timeout client 30s
              timeout server 30s
            frontend web
              bind *:80
              bind :::80 v6only
              default_backend app
            backend app
              http-reuse always
              server s1 127.0.0.1:8080

            """);
        // The worst there is: from when the old one has closed its sockets until the new one has read its configuration, nobody listens.
        files.Write("restart", $"""
            #!/bin/sh
            read -r pid <{PidFile}
            kill -USR1 "$pid"
            exec haproxy -D -q -f {Configuration} -p {PidFile}

            """);
        File.SetUnixFileMode(Script, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        nets.Server.Exec("nft", "add table inet syns; add chain inet syns input { type filter hook input priority 0; }");
        nets.Server.Exec("haproxy", "-D", "-q", "-f", Configuration, "-p", PidFile);
    }

    /// <returns>What protect said of the hold, or null where there was none.</returns>
    /// <exception cref="InvalidOperationException">The command failed.</exception>
    public async Task<ProtectReport?> RestartAsync(RestartWay way)
    {
        switch (way)
        {
            case RestartWay.Reload:
                nets.Server.Exec("haproxy", "-D", "-q", "-f", Configuration, "-p", PidFile, "-sf", File.ReadAllText(PidFile).Trim());
                return null;
            case RestartWay.Drop:
                // What was recommended before: https://serverfault.com/q/580595. The second lets the connections pass that came before.
                nets.Server.Exec("nft", "add rule inet syns input tcp dport 80 tcp flags & (fin | syn | rst | ack) == syn drop");
                await Task.Delay(s_dropped);
                nets.Server.Exec(Script);
                nets.Server.Exec("nft", "flush chain inet syns input");
                return null;
            case RestartWay.Bare:
                nets.Server.Exec(Script);
                return null;
            case RestartWay.Protect:
                using (NetnsProcess protect = nets.Server.Start(
                    flipctl, ["protect", "--method", method, "--port", "80", .. s_max, "--report", files["report.json"], "--", Script]))
                {
                    int code = await protect.Exit(s_patience);
                    if (code != 0) throw new InvalidOperationException($"`{protect.CommandLine}` exited {code}: {protect.Output}{protect.Errors}");
                }
                return JsonSerializer.Deserialize(File.ReadAllText(files["report.json"]), WireJson.Default.ProtectReport);
            case RestartWay.None:
                return null;
        }
        throw new ArgumentOutOfRangeException(nameof(way));
    }
}
