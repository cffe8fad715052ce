using FlipController.Linux.Haproxy;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy;

public sealed class ConfigurationLineTests
{
    [Theory]
    [InlineData("  bind  :80\t# comment\n", "bind|:80")]
    [InlineData("bind \"*:80\" '#no' a\\#b\n", "bind|*:80|#no|a#b")]
    [InlineData("a \\ b \\x41\\x4G \\\\ \\1 \\n\n", "a| b|A\\x4G|\\|\\1|\n")]
    [InlineData("x \"it's\" 'say \"hi\"' a\"b c\"d\n", "x|it's|say \"hi\"|ab cd")]
    [InlineData("x \"${A-\"b c\"}\" \"$B\" $C \"\\$D\"\n", "x|${A-\"b c\"}|$B|$C|$D")]
    [InlineData("cr\r\n", "cr")]
    [InlineData("cr :80\rnothing\n", "cr|:80")]
    [InlineData("[scope\n", "")]
    [InlineData("# all of it\n", "")]
    [InlineData("open \"quote\n", "open|quote")]
    [InlineData("", "")]
    public void A_line_is_cut_as_HAProxy_cuts_it(string line, string words) =>
        Assert.Equal(words, string.Join('|', ConfigurationLine.Read(line).Words.Select(w => w.Text)));

    [Fact]
    public void A_variable_counts_only_within_double_quotes()
    {
        ConfigurationLine line = ConfigurationLine.Read("x \"$A\" $A '$A' \"\\$A\" \"${A}:80\"\n");
        Assert.Equal([false, true, false, false, false, true], line.Words.Select(w => w.IsUnknown));
    }

    [Theory]
    [InlineData("/run/a b/#1")]
    [InlineData("quote'\"s\\")]
    [InlineData("plain")]
    public void A_quoted_word_reads_back_as_itself(string word) =>
        Assert.Equal(["x", word, "y"], ConfigurationLine.Read($"x {ConfigurationLine.Quote(word)} y\n").Words.Select(w => w.Text));
}
