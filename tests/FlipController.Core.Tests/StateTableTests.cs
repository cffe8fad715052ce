using FlipController.Core.Machine;
using FlipController.Tests.Shared;
using Xunit;

namespace FlipController.Core.Tests;

public class StateTableTests
{
    private const string Begin = "<!-- state table -->\n", End = "<!-- end of state table -->";

    /// <summary>With FLIP_UPDATE=1 it writes the table instead.</summary>
    [Fact]
    public void The_table_in_the_README_is_the_machines_own()
    {
        string readme = Path.Combine(Repository.Root, "README.md");
        string text = File.ReadAllText(readme);
        int from = text.IndexOf(Begin, StringComparison.Ordinal) + Begin.Length, to = text.IndexOf(End, StringComparison.Ordinal);
        Assert.True(from >= Begin.Length && to >= from, "README.md has no state table between its two marks");
        if (Environment.GetEnvironmentVariable("FLIP_UPDATE") == "1") File.WriteAllText(readme, text[..from] + StateTable.Render() + text[to..]);
        else Assert.Equal(StateTable.Render(), text[from..to]);
    }

    [Fact]
    public void The_table_has_every_state_and_every_event()
    {
        Assert.Equal(Enum.GetValues<PhaseKind>(), StateTable.States.ToArray());
        Assert.Equal(Enum.GetValues<PairEventKind>(), StateTable.Events.Distinct().Order());
    }
}
