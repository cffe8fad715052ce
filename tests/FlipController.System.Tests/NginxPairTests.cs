using System.Globalization;
using System.Text.RegularExpressions;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>examples/nginx-pair/run.sh, as a visitor runs it, with the programs that the build put beside the test.</summary>
[Collection(PairUnderTest.Alone)]
public sealed class NginxPairTests
{
    [Fact(Timeout = 4 * 60_000)]
    public async Task It_ends_with_a_table_in_which_nothing_failed()
    {
        Require.Netns();
        Require.Program("nginx");
        using var run = new NetnsProcess("env", [$"FLIP_PUBLISHED={Programs.Folder}", Path.Combine(Repository.Root, "examples/nginx-pair/run.sh")]);
        int code = await run.Exit(TimeSpan.FromMinutes(3));
        TestContext.Current.TestOutputHelper?.WriteLine(run.Output);
        Assert.True(code == 0, $"exit code {code}\n{run.Output}{run.Errors}");
        Assert.Equal("", run.Errors);
        Assert.True(Row(run.Output, "requests") > 1_000);
        Assert.Equal(0, Row(run.Output, "failed"));
        Assert.Contains("unknown directive \"retrun\" in nginx.conf:10", run.Output, StringComparison.Ordinal);
        Assert.Empty(Directory.EnumerateFileSystemEntries("/run/netns", $"flipn-{run.Pid}"));
        Assert.DoesNotContain($"flipn-{run.Pid}.", string.Join('\n', Directory.EnumerateDirectories("/tmp")), StringComparison.Ordinal);
    }

    private static int Row(string output, string name) =>
        int.Parse(Regex.Match(output, $@"^  {name} +(\d+)", RegexOptions.Multiline).Groups[1].Value, CultureInfo.InvariantCulture);
}
