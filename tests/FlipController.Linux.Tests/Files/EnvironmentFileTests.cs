using FlipController.Linux.Files;
using Xunit;

namespace FlipController.Linux.Tests.Files;

/// <summary>The examples of systemd.exec(5) and what its parser (src/basic/env-file.c) makes of odd ones.</summary>
public sealed class EnvironmentFileTests
{
    [Theory]
    [InlineData("A=b\n", "A=b")]
    [InlineData("A=b", "A=b")]
    [InlineData("A=b c  \n", "A=b c")]
    [InlineData("  A = b\n", "A=b")]
    [InlineData("A=\nB=x\n", "A= B=x")]
    [InlineData("# A=1\n; A=2\nA=3\n", "A=3")]
    [InlineData("# go on \\\nA=1\nB=2\n", "B=2")]
    [InlineData("A=\"b c \" \n", "A=b c ")]
    [InlineData("A='b \"c\" $D'\n", "A=b \"c\" $D")]
    [InlineData("A=\"b\\\"c\\n\\$\"\n", "A=b\"c\\n$")]
    [InlineData("A=b\\\nc\n", "A=bc")]
    [InlineData("A=b\\ c\n", "A=b c")]
    [InlineData("A=b#c\n", "A=b#c")]
    [InlineData("A=\"b\nc\"\n", "A=b\nc")]
    [InlineData("A=1\r\nB=2\r\n", "A=1 B=2")]
    [InlineData("1A=b\nA-B=c\nexport C=d\nnothing\nD=e\n", "D=e")]
    [InlineData("A=1\nA=2\n", "A=1 A=2")]
    [InlineData("A=\"open\n", "A=open\n")]
    [InlineData("A=\\", "A=")]
    public void Variables_are_read_as_systemd_does(string text, string variables) =>
        Assert.Equal(variables, string.Join(' ', EnvironmentFile.Read(text).Select(v => $"{v.Key}={v.Value}")));
}
