using Xunit;

namespace FlipController.Core.Tests;

public class SideComparisonTests
{
    private static readonly WatchOptions s_options = new() { Max5xxRatio = 0.05, MinRequests = 50 };
    private static readonly SideCounters s_healthy = new(1000, 0, 0), s_nothing = new(0, 0, 0);

    [Fact]
    public void Too_few_requests_prove_nothing() =>
        Assert.Null(SideComparison.Judge(s_options, s_healthy, s_nothing, new SideCounters(49, 49, 49)));

    [Fact]
    public void Answers_5xx_above_the_ratio_are_worse_and_the_sentence_has_the_figures() =>
        Assert.Equal("10.0 % of its answers are 5xx (10 of 100), 0.0 % on the generation before (watch.max_5xx_ratio 0.05)",
            SideComparison.Judge(s_options, s_healthy, s_nothing, new SideCounters(100, 10, 0))?.Replace("\u00a0", " "));

    [Fact]
    public void Connection_errors_above_the_ratio_are_worse() =>
        Assert.Contains("could not reach a server (10 of 100)", SideComparison.Judge(s_options, s_healthy, s_nothing, new SideCounters(100, 0, 10)));

    [Fact]
    public void A_side_that_was_failing_before_is_not_the_flips_fault() =>
        Assert.Null(SideComparison.Judge(s_options, new SideCounters(1000, 80, 0), s_nothing, new SideCounters(100, 10, 0)));

    [Fact]
    public void The_gates_own_probes_do_not_count() =>
        Assert.Null(SideComparison.Judge(s_options, s_healthy, new SideCounters(10, 10, 0), new SideCounters(110, 10, 0)));
}

public class ConnectionMarkTests
{
    [Theory]
    [InlineData(0x00ffff00u, 1, 1, 0x00100100u)]
    [InlineData(0x00ffff00u, 15, 4095, 0x00ffff00u)]
    [InlineData(0xff000000u, 2, 3, 0x23000000u)]
    [InlineData(0x000000ffu, 2, 3, 0x00000023u)]
    public void Pair_and_tag_stand_in_the_mask(uint mask, int pair, int tag, uint value) =>
        Assert.Equal(value, new ConnectionMark(mask, pair).ValueOf(tag));

    [Fact]
    public void Tags_go_round_and_pass_by_those_that_live()
    {
        var mark = new ConnectionMark(0xff, 1); // 15 tags
        Assert.Equal(1, mark.NextTag(1, new HashSet<int>()));
        Assert.Equal(15, mark.NextTag(15, new HashSet<int>()));
        Assert.Equal(1, mark.NextTag(16, new HashSet<int>()));
        Assert.Equal(3, mark.NextTag(16, new HashSet<int> { 1, 2 }));
        Assert.Throws<FlipException>(() => mark.NextTag(16, Enumerable.Range(1, 15).ToHashSet()));
    }
}
