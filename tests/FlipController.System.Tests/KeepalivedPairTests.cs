using System.Globalization;
using System.Text.RegularExpressions;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>examples/keepalived-pair/run.sh, as a visitor runs it, with the programs that the build put beside the test.</summary>
[Collection(PairUnderTest.Alone)]
public sealed class KeepalivedPairTests
{
    private const int Limit = 5 * 60_000;

    [Fact(Timeout = Limit)]
    public async Task It_ends_with_a_table_in_which_nothing_failed_and_nobody_was_cut()
    {
        using NetnsProcess run = Start();
        int code = await run.Exit(TimeSpan.FromMinutes(4));
        Assert.True(code == 0, $"exit code {code}\n{run.Output}{run.Errors}");
        TestContext.Current.TestOutputHelper?.WriteLine(run.Output);
        Assert.Equal("", run.Errors);
        Assert.True(Row(run.Output, "new connections") > 5000);
        Assert.Equal(0, Row(run.Output, "failed"));
        Assert.Equal(0, Row(run.Output, "  cut"));
        Match served = Regex.Match(run.Output, @"served by a, by b +(\d+), (\d+)");
        Assert.All(served.Groups.Values.Skip(1), g => Assert.True(int.Parse(g.Value, CultureInfo.InvariantCulture) > 500, run.Output));
        AssertGone(run.Pid);
    }

    [Fact(Timeout = Limit)]
    public async Task Interrupted_in_the_middle_of_a_handover_it_leaves_nothing()
    {
        using NetnsProcess run = Start();
        await Eventually.True(() => run.Output.Contains("emptying", StringComparison.Ordinal), TimeSpan.FromMinutes(2), () => run.Output + run.Errors);
        run.Signal(Signals.Interrupt);
        Assert.Equal(130, await run.Exit(TimeSpan.FromSeconds(60)));
        AssertGone(run.Pid);
    }

    private static NetnsProcess Start()
    {
        Require.Netns();
        Require.Program("haproxy");
        Require.Program("keepalived");
        return new NetnsProcess("env", [$"FLIP_PUBLISHED={Programs.Folder}", Path.Combine(Repository.Root, "examples/keepalived-pair/run.sh")]);
    }

    private static int Row(string output, string name) =>
        int.Parse(Regex.Match(output, $@"^  {name} +(\d+)", RegexOptions.Multiline).Groups[1].Value, CultureInfo.InvariantCulture);

    private static void AssertGone(int pid)
    {
        Assert.Empty(Directory.EnumerateFileSystemEntries("/run/netns", $"flipk-{pid}-*"));
        Assert.Empty(Directory.EnumerateDirectories("/tmp", $"flipk-{pid}.*"));
    }
}
