using FlipController.Linux.Haproxy.Runtime;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy.Runtime;

/// <summary>Real HAProxies that load what was saved of one before.</summary>
public sealed class SavedServerStateTests : IDisposable
{
    private readonly TemporaryDirectory _files = new();

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    public void Dispose() => _files.Dispose();

    private string Config() => $"""
        global
          server-state-file {_files.File("server-state-1")}
        backend app
          load-server-state-from-file global
          server dead 127.0.0.1:1 check inter 60s rise 1 fall 1
          server out 127.0.0.1:2
        backend other
          load-server-state-from-file local
          server-state-file-name {_files.File("server-state-2")}
          server light 127.0.0.1:3 weight 10

        """;

    private (string, string?)[] Loaded => [(_files.File("server-state-1"), null), (_files.File("server-state-2"), "other")];

    [Fact(Timeout = 30_000)]
    public async Task Servers_begin_as_the_active_one_knows_them_else_as_they_were_saved_last_else_as_the_users_file_says()
    {
        var saved = new SavedServerState(_files.File("saved"));
        Assert.Equal(ServerStateSource.User, await saved.FillAsync(Loaded, null, Stop));
        // No file at all would be a warning at every start.
        Assert.Equal(0, (await new ChildProcess("haproxy", ["-c", "-f", Written("h.cfg", Config())]).RunAsync(Stop)).Output.Split("server state").Length - 1);
        await File.WriteAllTextAsync(_files.File("server-state-1"), "1\n# the user's\n", Stop);
        Assert.Equal(ServerStateSource.User, await saved.FillAsync(Loaded, null, Stop));
        Assert.Equal("1\n# the user's\n", await File.ReadAllTextAsync(_files.File("server-state-1"), Stop));
        FlipController.Linux.Haproxy.AdminSocket gone;
        using (RunningHaproxy active = await RunningHaproxy.StartAsync(Config()))
        {
            await Eventually.True(async () => (await active.Admin.ServersAsync(Stop)).Any(s => s is { Name: "dead", IsUp: false }), TimeSpan.FromSeconds(10),
                () => "the first check should fail");
            await active.Admin.CommandAsync("set server app/out state maint", Stop);
            await active.Admin.CommandAsync("set server other/light weight 3", Stop);
            await saved.SaveAsync(active.Admin, Stop);
            await active.Admin.CommandAsync("set server other/light weight 4", Stop);
            Assert.Equal(ServerStateSource.Active, await saved.FillAsync(Loaded, active.Admin, Stop));
            Assert.DoesNotContain(" app ", await File.ReadAllTextAsync(_files.File("server-state-2"), Stop));
            await LoadedAsync("4");
            gone = active.Admin;
        }
        // It has the traffic still, and is mute.
        Assert.Equal(ServerStateSource.Saved, await saved.FillAsync(Loaded, gone, Stop));
        Assert.Equal(ServerStateSource.Saved, await saved.FillAsync(Loaded, null, Stop));
        await LoadedAsync("3");

        // A file cut by a full disk is no state.
        await File.WriteAllTextAsync(saved.Path, (await File.ReadAllTextAsync(saved.Path, Stop))[..^20], Stop);
        Assert.Equal(ServerStateSource.User, await saved.FillAsync(Loaded, null, Stop));
    }

    private string Written(string name, string text)
    {
        File.WriteAllText(_files.File(name), text);
        return _files.File(name);
    }

    private async Task LoadedAsync(string weight)
    {
        using RunningHaproxy next = await RunningHaproxy.StartAsync(Config());
        RuntimeState state = await RuntimeReading.ReadAsync(next.Admin, Stop);
        Assert.Equal(("maint", weight), (state.Find("server app/out", "state"), state.Find("server other/light", "weight")));
        // Not believed UP until its first check: it begins where it was.
        Assert.Contains("DOWN", Assert.Single((await next.Admin.ShowStatAsync(Stop)), r => r.Name == "dead").Status);
    }
}
