using System.Globalization;
using System.Text.RegularExpressions;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.SystemTests;

/// <summary>examples/quickstart/run.sh, as a visitor runs it, with the programs that the build put beside the test.</summary>
[Collection(PairUnderTest.Alone)]
public sealed class QuickstartTests
{
    private const int Limit = 5 * 60_000;

    [Fact(Timeout = Limit)]
    public async Task It_ends_with_a_table_in_which_nothing_failed()
    {
        using NetnsProcess run = Start();
        int code = await run.Exit(TimeSpan.FromMinutes(4));
        Assert.True(code == 0, $"exit code {code}\n{run.Output}{run.Errors}");
        TestContext.Current.TestOutputHelper?.WriteLine(run.Output);
        Assert.Equal("", run.Errors);
        Assert.True(Row(run.Output, "requests") > 20_000);
        Assert.Equal(0, Row(run.Output, "failed"));
        Assert.True(Row(run.Output, "flips") >= 4);
        Assert.Equal(1, Row(run.Output, "refused flips"));
        Assert.True(Row(run.Output, "stayed on the old side") >= 40);
        Assert.Contains("unknown keyword 'defautl_backend'", run.Output, StringComparison.Ordinal);
        Assert.InRange(run.Output.Count(c => c == '\n'), 30, 80);
        AssertGone(run.Pid);
    }

    [Theory(Timeout = Limit)]
    [InlineData(Signals.Interrupt, 130)]
    [InlineData(Signals.Terminate, 143)]
    public async Task Interrupted_it_leaves_nothing(int signal, int exitCode)
    {
        using NetnsProcess run = Start();
        await Eventually.True(() => run.Output.Contains("the load begins", StringComparison.Ordinal), TimeSpan.FromMinutes(1), "the pair should start");
        run.Signal(signal);
        Assert.Equal(exitCode, await run.Exit(TimeSpan.FromSeconds(30)));
        AssertGone(run.Pid);
    }

    private static NetnsProcess Start()
    {
        Require.Netns();
        Require.Program("haproxy");
        return new NetnsProcess("env", [$"FLIP_PUBLISHED={Programs.Folder}", Path.Combine(Repository.Root, "examples/quickstart/run.sh")]);
    }

    private static int Row(string output, string name) =>
        int.Parse(Regex.Match(output, $@"^  {name} +(\d+)", RegexOptions.Multiline).Groups[1].Value, CultureInfo.InvariantCulture);

    private static void AssertGone(int pid)
    {
        Assert.Empty(Directory.EnumerateFileSystemEntries("/run/netns", $"flipq-{pid}-*"));
        Assert.DoesNotContain($"flipq-{pid}.", string.Join('\n', Directory.EnumerateDirectories("/tmp")), StringComparison.Ordinal);
        Assert.DoesNotContain($"flipq-{pid}.", CommandLines(), StringComparison.Ordinal);
    }

    private static string CommandLines() => string.Join('\n', Directory.EnumerateDirectories("/proc")
        .Where(d => char.IsAsciiDigit(Path.GetFileName(d)[0])).Select(d =>
        {
            try
            {
                return File.ReadAllText($"{d}/cmdline").Replace('\0', ' ');
            }
            catch (IOException)
            {
                return ""; // It has ended meanwhile.
            }
        }));
}
