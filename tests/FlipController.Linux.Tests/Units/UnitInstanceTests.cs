using System.Collections.Immutable;
using System.Net;
using System.Net.Sockets;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Linux.Kernel;
using FlipController.Linux.Units;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Linux.Tests.Units;

/// <summary>A real HAProxy, or a program that tells how it was started, from the shipped template.</summary>
public sealed class UnitInstanceTests : IDisposable
{
    private const int Limit = 60_000, Kill = 9;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);
    private readonly TempDir _files = new();
    private readonly StandInUnits _units;
    private readonly List<ProcessIdentity> _started = [];

    public UnitInstanceTests()
    {
        _units = new StandInUnits(_files["systemd"], _files["run"]);
        Systemd = new Systemctl(_units.Systemctl, _units.Journalctl);
    }

    private GenerationPlace Place => new(_files["run"], "my-edge", 7);

    private Systemctl Systemd { get; set; }

    private GenerationUnit Unit => new(Place, Systemd);

    private UnitInstance Instance(string text, string binary = "haproxy", string file = "a b$c\"d.cfg", params (string Name, string Value)[] environment)
    {
        Directory.CreateDirectory(_files["etc $x"]);
        var copy = new RenderedFile(Path.Combine(Place.Directory, file), Path.Combine(_files["etc $x"], "haproxy.cfg"), Encoding.UTF8.GetBytes(text), []);
        var ours = new RenderedFile(Path.Combine(Place.Directory, "our.cfg"), null, Encoding.UTF8.GetBytes($"global\n  stats socket {Place.AdminSocket} level admin\n"), []);
        var instance = new UnitInstance(binary, new RenderedConfiguration([ours, copy], [], "local é"), Place, _files["etc $x"])
        {
            Systemd = Systemd, Environment = environment.ToImmutableDictionary(v => v.Name, v => v.Value),
        };
        instance.WriteFiles();
        return instance;
    }

    private async Task<ProcessIdentity> StartedAsync(UnitInstance instance)
    {
        ProcessIdentity process = await instance.StartAsync(CancellationToken.None);
        _started.Add(process);
        return process;
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    private static string Listening(int port) => $"""
        global
          daemon
        defaults
          mode http
          timeout client 1s
        frontend f
          bind 127.0.0.1:{port}
          http-request return status 200 lf-string "%[env(SECRET)]" content-type text/plain

        """;

    [Fact(Timeout = Limit)]
    public async Task It_runs_in_the_foreground_of_its_unit_with_its_environment_and_its_directory()
    {
        Require.Program("haproxy");
        UnitInstance instance = Instance(Listening(FreePort()), environment: ("SECRET", "a \"b\" $C `d` \\ 'e' # é\n2"));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(Place.UnitFile));
        Assert.Null(await instance.CheckAsync(CancellationToken.None));
        ProcessIdentity process = await StartedAsync(instance);
        Assert.Equal(@"flipcontroller-haproxy@my\x2dedge-g00007.service", Unit.Name);
        Assert.Equal((process.Pid, 19), ProcessIdentity.Stat.Read(process.Pid) is { } stat ? (stat.Session, stat.Niceness) : default);
        Assert.Equal(_files["etc $x"], File.ResolveLinkTarget($"/proc/{process.Pid}/cwd", false)!.FullName);
        Assert.Contains("SECRET=a \"b\" $C `d` \\ 'e' # é\n2", File.ReadAllText($"/proc/{process.Pid}/environ").Split('\0'));
        Assert.Equal(process, Linux.Instance.LeftBehind(Place));
        // Nobody could note it.
        File.Delete(Place.PidFile);
        Assert.Equal(process, Linux.Instance.LeftBehind(Place));
        Assert.Null(Linux.Instance.LeftBehind(Place with { Number = 8 }));
        UnitLook look = await Systemd.ShowAsync(Unit.Name, CancellationToken.None);
        Assert.Equal(("active", process.Pid), (look.ActiveState, look.MainPid));
        // Who answers for a unit already is not taken for the one that is started.
        FlipException twice = await Assert.ThrowsAsync<FlipException>(() => instance.StartAsync(CancellationToken.None));
        Assert.Contains($"is active already (process {process.Pid})", twice.Message, StringComparison.Ordinal);
        process.Signal(10); // SIGUSR1
        await Eventually.True(() => !process.IsAlive, s_patience, () => "it should have finished");
        await Unit.ClearAsync(CancellationToken.None);
        Assert.Equal("inactive", _units.States[Unit.Name]);
    }

    [Fact(Timeout = Limit)]
    public async Task Words_reach_the_program_as_they_are()
    {
        string program = _files.Write("bin $ 1/show", "#!/bin/sh\nfor w in \"$@\"; do echo \"[$w]\"; done >&2\nexit 3\n");
        File.SetUnixFileMode(program, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        FlipException ended = await Assert.ThrowsAsync<FlipException>(() => Instance("", program).StartAsync(CancellationToken.None));
        Assert.Equal($"HAProxy does not start in {Unit.Name} (exit code 3): [-db] | [-p] | [{Place.PidFile}] | [-C] | [{_files["etc $x"]}] (`journalctl -u '{Unit.Name}'` has all of it)", ended.Message);
        Assert.Equal(["[-db]", "[-p]", $"[{Place.PidFile}]", "[-C]", $"[{_files["etc $x"]}]", "[-L]", "[local é]", "[-f]", $"[{Place.Directory}/our.cfg]", "[-f]", $"[{Place.Directory}/a b$c\"d.cfg]"],
            _units.JournalOf(Unit.Name).TrimEnd().Split('\n'));
        Assert.Equal("failed", _units.States[Unit.Name]);
        await Unit.ClearAsync(CancellationToken.None);
        await Unit.ClearAsync(CancellationToken.None);
        Assert.Equal("inactive", _units.States[Unit.Name]);
        Assert.Contains($"systemctl reset-failed {Unit.Name}", _units.Asked);
    }

    [Fact(Timeout = Limit)]
    public async Task A_program_that_is_not_there_and_a_port_that_is_taken_are_told_in_the_users_words()
    {
        Require.Program("haproxy");
        FlipException missing = await Assert.ThrowsAsync<FlipException>(() => Instance("", "/nonexistent/haproxy").StartAsync(CancellationToken.None));
        Assert.Contains("(exit code 127): /usr/bin/nice: ", missing.Message, StringComparison.Ordinal);
        UnitInstance instance = Instance(Listening(21500).Replace("127.0.0.1", "192.0.2.7", StringComparison.Ordinal));
        Assert.Null(await instance.CheckAsync(CancellationToken.None));
        FlipException refused = await Assert.ThrowsAsync<FlipException>(() => StartedAsync(instance));
        Assert.Matches(@"^HAProxy does not start in \S+ \(exit code 1\): .*192\.0\.2\.7:21500", refused.Message);
        Assert.DoesNotContain("[ALERT]", refused.Message, StringComparison.Ordinal);
        await Unit.ClearAsync(CancellationToken.None);
    }

    /// <summary>As where the controller runs in a container, and systemd on its host.</summary>
    [Fact(Timeout = Limit)]
    public async Task One_that_comes_up_in_another_network_namespace_is_refused()
    {
        Require.Netns();
        Require.Program("haproxy");
        using var net = Netns.Create();
        string there = _files.Write("there", $"#!/bin/sh\nexec ip netns exec {net.Name} {_units.Systemctl} \"$@\"\n");
        File.SetUnixFileMode(there, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        Systemd = Systemd with { Program = there };
        FlipException refused = await Assert.ThrowsAsync<FlipException>(() => Instance(Listening(21500)).StartAsync(CancellationToken.None));
        Assert.Contains("runs in another network namespace (net:[", refused.Message, StringComparison.Ordinal);
        await Unit.ClearAsync(CancellationToken.None); // stops it
        Assert.Equal("inactive", _units.States[Unit.Name]);
        Assert.Null(Linux.Instance.LeftBehind(Place));
    }

    [Fact(Timeout = Limit)]
    public async Task What_the_controller_has_not_written_does_not_start()
    {
        UnitInstance instance = Instance(Listening(21500));
        File.Delete(Place.UnitFile);
        FlipException ended = await Assert.ThrowsAsync<FlipException>(() => instance.StartAsync(CancellationToken.None));
        Assert.Contains("systemd says: resources", ended.Message, StringComparison.Ordinal);
        await Unit.ClearAsync(CancellationToken.None);
    }

    [Fact]
    public void Every_obstacle_is_told_at_once_and_none_is_there_with_the_template_as_it_is_shipped()
    {
        UnitLook Look(string shown) => UnitLook.Read("u.service", shown);
        string fine = $"LoadState=loaded\nActiveState=inactive\nType=exec\nRestart=no\nRemainAfterExit=no\nRuntimeMaxUSec=infinity\nWatchdogUSec=0\nEnvironmentFiles={Place.UnitFile} (ignore_errors=no)\n";
        Assert.Empty(Look(fine).Obstacles(Place));
        Assert.Equal(5, Look(fine.Replace("inactive", "active", StringComparison.Ordinal).Replace("exec", "forking", StringComparison.Ordinal).Replace("Restart=no", "Restart=always", StringComparison.Ordinal)
            .Replace("infinity", "1h", StringComparison.Ordinal).Replace(Place.UnitFile, "/else", StringComparison.Ordinal)).Obstacles(Place).Length);
        Assert.Contains("bad-setting: org.x \"y\"", Look("LoadState=bad-setting\nLoadError=org.x \"y\"\n").Obstacles(Place).Single(), StringComparison.Ordinal);
    }

    [Fact(Timeout = Limit)]
    public async Task Doctor_says_whether_systemd_can_run_generations_and_why_not()
    {
        async Task<string> LinesAsync(DriverChoice driver)
        {
            var pair = new PairOptions { Name = "edge", Haproxy = new HaproxyOptions { Driver = driver } };
            var configuration = new Configuration { Runtime = _files["run"], Pairs = ImmutableSortedDictionary<string, PairOptions>.Empty.Add("edge", pair) };
            return string.Join('\n', (await Doctor.SystemdAsync(configuration, Systemd, CancellationToken.None)).Select(l => $"{(l.Ok ? "ok" : l.Warning ? "warning" : "bad")} {l.Found} {l.Remedy}"));
        }
        string template = Path.Combine(_files["systemd"], "units", StandInUnits.Template);
        Assert.Equal($"ok systemd has {StandInUnits.Template} from {template} ", await LinesAsync(DriverChoice.Systemd));
        File.AppendAllText(template, "LimitNOFILE=1024\n");
        Assert.Matches($"^ok .*\nwarning {template} is another one than this version .* leave what is your own to a drop-in$", await LinesAsync(DriverChoice.Systemd));
        _units.RemoveDropIn("runtime");
        Assert.Matches("^bad .*reads /run/flipcontroller/edge/g00000/unit.env .*a drop-in of flipcontroller-haproxy@.service must say so", await LinesAsync(DriverChoice.Systemd));
        _units.Remove();
        Assert.Matches("^bad systemd knows no ", await LinesAsync(DriverChoice.Systemd));
        Assert.Matches("^ok does not work here, and no pair is configured for it: systemd knows no ", await LinesAsync(DriverChoice.Process));
        _units.Gone("System has not been booted with systemd as init system (PID 1). Can't operate.");
        Assert.Matches("^bad .*not been booted with systemd.* set haproxy.driver: process", await LinesAsync(DriverChoice.Systemd));
        Systemd = new Systemctl("/nonexistent/systemctl");
        Assert.Matches("^bad cannot run \"/nonexistent/systemctl show ", await LinesAsync(DriverChoice.Systemd));
    }

    public void Dispose()
    {
        foreach (ProcessIdentity process in _started) process.Signal(Kill);
        _files.Dispose();
    }
}
