using System.Text;
using System.Text.Json;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Load;
using FlipController.Tests.Shared;
using Xunit;
using static FlipController.SystemTests.PairUnderTest;

namespace FlipController.SystemTests;

/// <summary>Another HAProxy under the same files: `flip --binary`, its refusal, its way back, and what `plan` says of it.</summary>
public sealed class UpgradeTests
{
    private static readonly PairYaml s_warm = new() { Watch = "{ undo: 60s }" };

    /// <summary>
    /// A second HAProxy: another build where tests/run.sh could get one, else a copy of the installed one that gives itself another
    /// version of the same length.
    /// </summary>
    private static async Task<string> OtherHaproxyAsync(PairUnderTest pair)
    {
        string other = Path.Combine(Repository.Root, "tests", "results", "other-haproxy", "usr", "sbin", "haproxy");
        if (File.Exists(other)) return other;
        string installed = Require.Program("haproxy"), copy = pair.Files["haproxy-other"];
        byte[] program = File.ReadAllBytes(installed), version = Encoding.ASCII.GetBytes(await VersionAsync(installed));
        for (int at = program.AsSpan().IndexOf(version); at >= 0;)
        {
            program[at + version.Length - 1] = (byte)'9';
            int next = program.AsSpan(at + 1).IndexOf(version);
            at = next < 0 ? -1 : at + 1 + next;
        }
        File.WriteAllBytes(copy, program);
        File.SetUnixFileMode(copy, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        return copy;
    }

    private static async Task<string> VersionAsync(string binary) => (await HaproxyBinary.VersionAsync(binary)).Text;

    [Fact(Timeout = 60_000)]
    public async Task Another_version_serves_after_the_flip_stays_and_is_undone_by_a_rollback()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(s_warm);
        string other = await OtherHaproxyAsync(pair), now = (await pair.StatusAsync()).Active!.Version!, then = await VersionAsync(other);
        Assert.NotEqual(now, then);
        await using LoadRun load = await StartedAsync(pair.Load(500));

        Said planned = await pair.FlipctlAsync("plan", PairUnderTest.Name, "--binary", other, "--exit-code");
        Assert.Equal((1, ""), (planned.ExitCode, planned.Error));
        Assert.Contains($"haproxy ({now})", planned.Output, StringComparison.Ordinal);
        Assert.Contains($"{other} ({then})", planned.Output.ReplaceLineEndings("").Replace("  ", "", StringComparison.Ordinal), StringComparison.Ordinal);
        Assert.Equal(0, (await pair.FlipctlAsync("plan", PairUnderTest.Name, "--exit-code")).ExitCode);

        Said flipped = await pair.FlipctlAsync("flip", PairUnderTest.Name, "--binary", other, "--reason", "upgrade");
        Assert.Equal((0, ""), (flipped.ExitCode, flipped.Error));
        PairStatus upgraded = await pair.StatusAsync();
        Assert.Equal((then, other), (upgraded.Active!.Version, Executable(upgraded.Active.Pid)));

        // What changes afterwards runs with it too, also when the controller was away, also when it dies.
        PairStatus edited = await pair.FlipByEditAsync(Config("v2"));
        Assert.Equal(then, edited.Active!.Version);
        await pair.RestartDaemonAsync(Kill);
        edited = await pair.FlipByEditAsync(Config("v3"));
        Assert.Equal(then, edited.Active!.Version);
        await PassedAsync(load);

        // One generation back is v2, which ran with the new one already.
        await pair.RollbackAsync();
        Assert.Equal(then, (await pair.StatusAsync()).Active!.Version);
        Assert.Equal("v2", await pair.ServedByAsync());
    }

    [Fact(Timeout = 60_000)]
    public async Task A_rollback_returns_to_the_program_before_inside_the_undo_window_and_after_it()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(new PairYaml { Watch = "{ undo: 2s }" });
        string other = await OtherHaproxyAsync(pair), now = (await pair.StatusAsync()).Active!.Version!, then = await VersionAsync(other);
        await using LoadRun load = await StartedAsync(pair.Load(300));
        foreach (bool late in new[] { false, true })
        {
            Assert.Equal(0, (await pair.FlipctlAsync("flip", PairUnderTest.Name, "--binary", other)).ExitCode);
            Assert.Equal(then, (await pair.StatusAsync()).Active!.Version);
            if (late) await pair.UntilAsync(s => s.State == "steady", "the undo window should end");
            await pair.RollbackAsync();
            Assert.Equal(now, (await pair.StatusAsync()).Active!.Version);
            await pair.UntilAsync(s => s.State == "steady", "the pair should come to rest");
            await pair.FlipByEditAsync(Config(late ? "late" : "early"));
            Assert.Equal(now, (await pair.StatusAsync()).Active!.Version);
            await pair.UntilAsync(s => s.State == "steady", "the pair should come to rest");
        }
        await PassedAsync(load);
    }

    [Fact(Timeout = 60_000)]
    public async Task What_is_no_HAProxy_or_does_not_run_this_file_is_refused_and_nothing_moves()
    {
        await using PairUnderTest pair = await PairUnderTest.StartAsync(s_warm);
        await using LoadRun load = await StartedAsync(pair.Load(300));
        string picky = pair.Files.Write("picky", "#!/bin/sh\ncase \"$1\" in -v*) exec haproxy \"$@\";; esac\n"
            + "echo '[ALERT]    (1) : config : this program does not know what stands there' >&2; exit 1\n");
        File.SetUnixFileMode(picky, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        foreach (var (binary, why) in new[]
        {
            ("/bin/true", "names no HAProxy version"), (pair.Files["nowhere"], "nowhere"), (picky, "this program does not know what stands there"),
        })
        {
            Said planned = await pair.FlipctlAsync("--json", "plan", PairUnderTest.Name, "--binary", binary, "--exit-code");
            Assert.Equal(3, planned.ExitCode);
            Assert.Contains(why, string.Join("|", JsonSerializer.Deserialize(planned.Output, WireJson.Default.PlanReport)!.Problems), StringComparison.Ordinal);
            Said flipped = await pair.FlipctlAsync("flip", PairUnderTest.Name, "--binary", binary);
            Assert.Equal(1, flipped.ExitCode);
            Assert.Contains(why, flipped.Error, StringComparison.Ordinal);
            Assert.Contains("NEW connections go on to generation 1", flipped.Error, StringComparison.Ordinal);
        }
        Assert.Equal(1, (await pair.StatusAsync()).Active!.Number);
        // A refused program is not remembered.
        await pair.FlipByEditAsync(Config("v2"));
        await PassedAsync(load);
    }

    [Fact(Timeout = 60_000)]
    public async Task Who_may_use_the_socket_but_is_not_root_names_no_program_and_no_unit()
    {
        const UnixFileMode passable = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute | UnixFileMode.OtherExecute;
        const UnixFileMode everybody = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.OtherRead | UnixFileMode.OtherWrite;
        await using PairUnderTest pair = await PairUnderTest.StartAsync(s_warm);
        File.SetUnixFileMode(pair.Files.Path, passable);
        File.SetUnixFileMode(pair.Socket, everybody);
        foreach (var (method, path, body, answer) in new[]
        {
            ("POST", "flip", """{"binary":"/bin/true"}""", "403"), ("GET", "plan?binary=/bin/true", "", "403"),
            ("POST", "release", """{"unit":"poweroff.target"}""", "403"), ("GET", "plan", "", "200"), ("POST", "flip", "{}", "200"),
        })
        {
            using NetnsProcess curl = pair.Nets.Server.Start("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                "curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--unix-socket", pair.Socket,
                "--request", method, "--data", body, $"http://flip/v1/pairs/{PairUnderTest.Name}/{path}");
            Assert.Equal(0, await curl.Exit(Patience));
            Assert.Equal(answer, curl.Output.Trim());
        }
    }

    private static string? Executable(int pid) => File.ResolveLinkTarget($"/proc/{pid}/exe", returnFinalTarget: false)?.FullName;
}
