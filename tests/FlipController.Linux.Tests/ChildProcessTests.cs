using System.Diagnostics;
using FlipController.Linux.Haproxy;
using Xunit;

namespace FlipController.Linux.Tests;

public sealed class ChildProcessTests
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact(Timeout = 30_000)]
    public async Task Words_arrive_as_they_are_and_both_streams_come_back()
    {
        ChildOutcome outcome = await new ChildProcess("sh", ["-c", "printf '%s|' \"$@\"; pwd; echo bad >&2; exit 3", "x", "a b", "$HOME", "'", ""])
        {
            WorkingDirectory = "/",
        }.RunAsync(Cancellation);
        Assert.Equal(new ChildOutcome(3, "a b|$HOME|'||/\n", "bad\n"), outcome);
    }

    [Fact(Timeout = 30_000)]
    public async Task Success_is_exit_code_0_and_anything_else_an_error_with_the_command_line()
    {
        Assert.Equal("hi\n", (await new ChildProcess("echo", ["hi"]).SucceedAsync(Cancellation)).StandardOutput);
        var e = await Assert.ThrowsAsync<CommandFailedException>(() => new ChildProcess("sh", ["-c", "echo one >&2; echo two >&2; exit 4"]).SucceedAsync(Cancellation));
        Assert.Equal("cannot run \"sh -c 'echo one >&2; echo two >&2; exit 4'\": exit code 4 (one; two)", e.Message);
        Assert.Equal((4, "one\ntwo\n"), (e.ExitCode, e.Stderr));
    }

    [Theory(Timeout = 30_000)]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_program_that_is_not_there_is_an_error(bool polite)
    {
        var e = await Assert.ThrowsAsync<CommandFailedException>(() => new ChildProcess("/no/such", ["x"]) { Polite = polite }.RunAsync(Cancellation));
        Assert.Null(e.ExitCode);
        Assert.StartsWith("cannot run \"/no/such x\": no exit code (", e.Message);
        Assert.Contains("No such file or directory", e.Message);
    }

    [Fact(Timeout = 30_000)]
    public async Task A_directory_that_is_not_there_is_an_error() =>
        await Assert.ThrowsAsync<CommandFailedException>(() => new ChildProcess("true", []) { WorkingDirectory = "/no/such" }.RunAsync(Cancellation));

    [Fact(Timeout = 30_000)]
    public async Task What_overruns_its_time_is_killed()
    {
        var waited = Stopwatch.StartNew();
        var e = await Assert.ThrowsAsync<CommandFailedException>(() =>
            new ChildProcess("sleep", ["600"]) { Timeout = TimeSpan.FromMilliseconds(100), Polite = true }.RunAsync(Cancellation));
        Assert.Equal("cannot run \"sleep 600\": no exit code (no end after 0.1 s, it was killed)", e.Message);
        Assert.True(waited.Elapsed < TimeSpan.FromSeconds(10));
    }

    [Fact(Timeout = 30_000)]
    public async Task What_is_cancelled_is_killed()
    {
        using var directory = new Haproxy.TemporaryDirectory();
        using var cancelled = new CancellationTokenSource();
        Task<ChildOutcome> running = new ChildProcess("sh", ["-c", "echo $$ > pid.new; mv pid.new pid; exec sleep 600"]) { WorkingDirectory = directory.Path }
            .RunAsync(cancelled.Token);
        while (!File.Exists(directory.File("pid"))) await Task.Yield();
        int pid = int.Parse(await File.ReadAllTextAsync(directory.File("pid"), Cancellation));
        await cancelled.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => running);
        while (!HasEnded(pid)) await Task.Yield();

        static bool HasEnded(int pid)
        {
            try { return File.ReadAllText($"/proc/{pid}/stat").Contains(") Z ", StringComparison.Ordinal); }
            catch (IOException) { return true; } // ENOENT at open, ESRCH at read
        }
    }

    [Fact(Timeout = 30_000)]
    public async Task A_polite_program_runs_at_the_lowest_priority() =>
        Assert.Equal("19\n", (await new ChildProcess("nice", []) { Polite = true }.SucceedAsync(Cancellation)).StandardOutput);

    [Fact(Timeout = 30_000)]
    public async Task Much_output_on_both_streams_does_not_block()
    {
        ChildOutcome outcome = await new ChildProcess("sh", ["-c", "head -c 1000000 /dev/zero >&2; head -c 1000000 /dev/zero"]).RunAsync(Cancellation);
        Assert.Equal((1_000_000, 1_000_000), (outcome.StandardOutput.Length, outcome.StandardError.Length));
    }

    [Theory]
    [InlineData("HAProxy version 2.6.12-1+deb12u1 2023/12/16 - https://haproxy.org/\nStatus: x\n", "2.6.12-1+deb12u1", 2, 6)]
    [InlineData("HA-Proxy version 2.2.9-2+deb11u6 2023/12/07 - https://haproxy.org/\n", "2.2.9-2+deb11u6", 2, 2)]
    [InlineData("HAProxy version 3.4-dev9 2026/03/01\n", "3.4-dev9", 3, 4)]
    public void A_version_is_read_from_haproxys_first_line(string output, string text, int major, int minor) =>
        Assert.Equal(new HaproxyVersion(text, major, minor), HaproxyVersion.Parse(output));

    [Fact(Timeout = 30_000)]
    public async Task The_installed_haproxy_has_a_version_and_others_are_told_apart()
    {
        Assert.True((await HaproxyBinary.VersionAsync("haproxy", Cancellation)).IsAtLeast(2, 4));
        var e = await Assert.ThrowsAsync<CommandFailedException>(() => HaproxyBinary.VersionAsync("echo", Cancellation));
        Assert.Contains("names no HAProxy version", e.Message);
    }

    [Theory(Timeout = 30_000)]
    [InlineData("listen a\n mode tcp\n bind 127.0.0.1:1\n timeout client 1s\n timeout connect 1s\n timeout server 1s\n", HaproxyVerdict.Valid)]
    [InlineData("listen a\n bogus\n", HaproxyVerdict.Invalid)]
    [InlineData("backend a\n timeout connect 1s\n timeout server 1s\n", HaproxyVerdict.NoListener)]
    public async Task Haproxy_judges_a_configuration(string text, HaproxyVerdict verdict)
    {
        using var directory = new Haproxy.TemporaryDirectory();
        await File.WriteAllTextAsync(directory.File("a.cfg"), text, Cancellation);
        HaproxyCheck check = await HaproxyBinary.CheckAsync("haproxy", [directory.File("a.cfg")], "local", directory.Path, cancellation: Cancellation);
        Assert.Equal(verdict, check.Verdict);
        if (verdict == HaproxyVerdict.Invalid) Assert.Contains($"parsing [{directory.File("a.cfg")}:2] : unknown keyword 'bogus'", check.Output);
    }

    [Theory(Timeout = 20_000)]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Variables_are_given_beside_our_own(bool polite)
    {
        var command = new ChildProcess("env", []) { Polite = polite, Environment = new Dictionary<string, string> { ["FLIP_A"] = "b c\n$D" } };
        string said = (await command.SucceedAsync(Cancellation)).StandardOutput;
        Assert.Contains("FLIP_A=b c\n$D\n", said);
        Assert.Contains("PATH=", said);
    }
}
