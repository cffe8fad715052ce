using System.Globalization;
using System.Text.RegularExpressions;
using FlipController.Core;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>The unit file: systemd understands it, and what it leaves us is enough.</summary>
public sealed partial class SystemdUnitTests
{
    private static readonly string s_unit = Path.Combine(Repository.Root, "config/systemd/flipcontrollerd.service");

    [Fact(Timeout = 60_000)]
    public void It_is_understood_and_as_little_exposed_as_the_README_says()
    {
        string analyze = Require.Program("systemd-analyze");
        string said = Exposure().Match(File.ReadAllText(Path.Combine(Repository.Root, "README.md"))).Groups[1].Value;
        // Another version of systemd looks at some more, or weighs it otherwise.
        int most = (int)Math.Round(10 * (double.Parse(said, CultureInfo.InvariantCulture) + 0.5));
        string judged = Command.Run(analyze, "security", "--offline=true", $"--threshold={most}", s_unit);
        if (Command.Run(analyze, "--version").StartsWith("systemd 252 ", StringComparison.Ordinal))
            Assert.Contains($"Overall exposure level for flipcontrollerd.service: {said} ", judged);
        using var directory = new TempDir();
        // Its programs need not be installed here.
        string copy = directory.Write("flipcontrollerd.service", Installed().Replace(File.ReadAllText(s_unit), "/bin/true"));
        Assert.Equal("", Command.Run(analyze, "verify", copy));
    }

    /// <summary>The template of haproxy.driver: systemd.</summary>
    [Fact(Timeout = 60_000)]
    public void The_template_is_understood_and_says_what_the_driver_relies_on()
    {
        string template = Path.Combine(Path.GetDirectoryName(s_unit)!, "flipcontroller-haproxy@.service");
        string[] lines = File.ReadAllLines(template);
        Assert.All(new[] { "Type=exec", "Restart=no", "KillMode=mixed", "EnvironmentFile=/run/flipcontroller/%I/unit.env", "StandardOutput=journal" }, l => Assert.Contains(l, lines));
        // Whatever becomes of the daemon's unit, this one goes on; and nobody starts it at boot.
        Assert.DoesNotContain(lines, l => l.StartsWith("PartOf=", StringComparison.Ordinal) || l.StartsWith("BindsTo=", StringComparison.Ordinal)
            || l.StartsWith("Requires=", StringComparison.Ordinal) || l == "[Install]" || l.StartsWith("PIDFile=", StringComparison.Ordinal));
        // No right that the daemon's own unit does not give a HAProxy that it starts itself.
        Assert.Empty(Capabilities(lines).Except(Capabilities(File.ReadAllLines(s_unit))));
        string[] sandbox = [.. File.ReadAllLines(s_unit).Where(l => Sandbox().IsMatch(l))];
        Assert.Empty(sandbox.Except(lines));
        string analyze = Require.Program("systemd-analyze");
        using var directory = new TempDir();
        string instance = directory.Write("flipcontroller-haproxy@edge-g00001.service", File.ReadAllText(template));
        Assert.Equal("", Command.Run(analyze, "verify", instance));
        Assert.Equal("", Command.Run(analyze, "verify", directory.Write("flipcontroller-haproxy@.service", File.ReadAllText(template))));
        Command.Run(analyze, "security", "--offline=true", "--threshold=45", instance);

        static string[] Capabilities(string[] unit) => unit.Single(l => l.StartsWith("CapabilityBoundingSet=", StringComparison.Ordinal)).Split('=')[1].Split(' ');
    }

    /// <summary>The HAProxys are not the daemon's: whatever becomes of the unit, they go on.</summary>
    [Fact]
    public void Only_the_daemon_is_stopped_and_no_hold_is_left()
    {
        string[] lines = File.ReadAllLines(s_unit);
        Assert.Contains("KillMode=process", lines);
        Assert.Contains("RuntimeDirectoryPreserve=yes", lines);
        Assert.Contains(lines, l => l.StartsWith("ExecStopPost=-", StringComparison.Ordinal) && l.EndsWith("flipctl reset --holds", StringComparison.Ordinal));
    }

    [Fact(Timeout = 90_000)]
    public async Task With_its_capabilities_alone_a_pair_flips_rolls_back_and_drains_a_HAProxy_of_another_user()
    {
        Require.Program("setpriv");
        string[] capabilities = [.. File.ReadLines(s_unit).Single(l => l.StartsWith("CapabilityBoundingSet=", StringComparison.Ordinal))["CapabilityBoundingSet=".Length..]
            .Split(' ').Select(c => $"+{c["CAP_".Length..].ToLowerInvariant()}")];
        await using var pair = new TroubledPair();
        string Serving(string name) => $"global\n  user nobody\n  group nogroup\n  chroot {pair.Dir["jail"]}\n  maxconn 2000\n" + TroubledPair.Serving(name, front: "127.0.0.1:80");
        Directory.CreateDirectory(pair.Dir["jail"]);
        // Another user's, and nobody else's to read.
        string secret = pair.Dir.Write("secret.map", "a b\n");
        File.SetUnixFileMode(secret, UnixFileMode.UserRead);
        Command.Run("chown", "nobody", secret);
        pair.Save(Serving("v1"));
        pair.WriteYaml();
        await pair.StartDaemonAsync("setpriv", "--bounding-set", $"-all,{string.Join(',', capabilities)}", "--inh-caps", "-all", "--no-new-privs");
        Assert.Contains("NoNewPrivs:\t1", File.ReadAllText($"/proc/{pair.Daemon.Pid}/status"));
        Assert.Equal("v1", pair.Get("127.0.0.1:80"));
        pair.Save(Serving("v2").Replace("http-request return", $"http-request set-header x %[str(a),map({secret})]\n  http-request return", StringComparison.Ordinal));
        Assert.Equal("done", (await pair.FlipsAsync(2))[^1].Outcome);
        Assert.Equal("v2", pair.Get("127.0.0.1:80"));
        Outcome back = await pair.FlipctlAsync("rollback", "edge");
        Assert.True(back.Code == 0, $"{back}\n{pair.Log}");
        Assert.Equal("v1", pair.Get("127.0.0.1:80"));
        Assert.All((await pair.StatusAsync()).Active!.Connections is var counts ? new[] { counts.Sockets, counts.Haproxy } : [], n => Assert.NotNull(n));
        Assert.Equal("queue", (await pair.HistoryAsync())[^1].Hold?.Method);
        Outcome drain = await pair.FlipctlAsync("drain", "edge", "--deadline", "2s");
        Assert.True(drain.Code == 0, $"{drain}\n{pair.Log}");
        await Eventually.True(() => pair.Processes().Length == 1, TroubledPair.Soon, () => pair.Log);
        Assert.DoesNotContain(" ERR ", pair.Log);
    }

    [GeneratedRegex(@"gives it an exposure of ([0-9]\.[0-9])")]
    private static partial Regex Exposure();

    [GeneratedRegex("^(Protect|Restrict|SystemCall|NoNewPrivileges|LockPersonality|PrivateMounts|DevicePolicy|ReadWritePaths|UMask|LimitNOFILE|TasksMax)")]
    private static partial Regex Sandbox();

    [GeneratedRegex("/usr/local/bin/flip[a-z]+")]
    private static partial Regex Installed();
}
