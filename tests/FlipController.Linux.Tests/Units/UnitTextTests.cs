using FlipController.Linux.Files;
using FlipController.Linux.Units;
using FlipController.Tests.Shared;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace FlipController.Linux.Tests.Units;

public sealed class UnitTextTests
{
    [Theory]
    [InlineData("edge", "g00001", @"edge-g00001")]
    [InlineData("my-edge_2", "g00010", @"my\x2dedge_2-g00010")]
    public void An_instance_is_named_as_systemd_escape_names_a_path(string pair, string generation, string name)
    {
        Assert.Equal(name, UnitText.Instance(pair, generation));
        string escape = Require.Program("systemd-escape");
        Assert.Equal(name, Command.Run(escape, $"{pair}/{generation}").Trim());
    }

    /// <summary>By the rules of systemd.exec(5) as they are read for haproxy.environment_files.</summary>
    [Fact]
    public void Any_value_is_read_back_as_it_was() => Prop.ForAll(ArbMap.Default.ArbFor<NonNull<string>>(), s =>
    {
        string value = s.Get.Replace("\0", "", StringComparison.Ordinal).Replace("\r", "", StringComparison.Ordinal);
        return EnvironmentFile.Read($"A={UnitText.Value(value)}\nB={UnitText.Value("b")}\n").SequenceEqual([new("A", value), new("B", "b")]);
    }).QuickCheckThrowOnFailure();

    [Theory]
    [InlineData(@"a ""b"" \c $D `e` 'f' #g ;h", @"""a \""b\"" \\c \$D \`e\` 'f' #g ;h""")]
    [InlineData("", "\"\"")]
    [InlineData("one\ntwo\\", "\"one\ntwo\\\\\"")]
    public void A_value_saves_the_four_characters_of_a_shell(string value, string text) => Assert.Equal(text, UnitText.Value(value));

    [Fact]
    public void Words_are_split_where_they_were_joined() =>
        Assert.Equal(@"""-f"" ""/a b/c\""d\\e$F'"" """"", UnitText.Words(["-f", @"/a b/c""d\e$F'", ""]));
}
