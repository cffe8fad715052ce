using FlipController.Linux.Haproxy;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy.Grammar;

/// <summary>The table: what each configuration becomes. That it runs is shown by <see cref="RunningCorpusTests"/>.</summary>
public sealed class GrammarTests
{
    internal static readonly GrammarCase[] Cases = [.. WordCases.All, .. BindCases.All, .. SectionCases.All];

    public static TheoryData<string> Names => [.. Cases.Select(c => c.Name)];

    [Fact]
    public void The_table_is_large_and_no_name_stands_in_it_twice()
    {
        Assert.True(Cases.Length >= 80, $"{Cases.Length}");
        Assert.Equal(Cases.Length, Cases.DistinctBy(c => c.Name).Count());
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void A_configuration_becomes_what_the_table_says(string name)
    {
        GrammarCase row = Cases.Single(c => c.Name == name);
        ProjectionResult result = row.Render("/srv/x");
        Assert.Equal(row.Expected, GrammarCase.Said(result, "/srv/x"));
    }
}
