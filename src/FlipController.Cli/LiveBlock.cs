using System.Text;

namespace FlipController.Cli;

/// <summary>
/// Lines at the end of a terminal's output that are drawn over and over, with what stays written above them. Only for a terminal that
/// is live.
/// </summary>
internal sealed class LiveBlock(Terminal terminal)
{
    // ECMA-48 control functions, as console_codes(4) names them.
    private const string EraseBelow = "\e[J", NoWrap = "\e[?7l", Wrap = "\e[?7h";

    private int _drawn;

    /// <summary>Rows a block may have: more could not be drawn over, as what has left the window is out of reach.</summary>
    public int Rows => Math.Max(1, terminal.Size.Rows - 1);

    /// <summary>Replaces what was drawn before; longer lines are cut by the terminal, more lines than it has rows here.</summary>
    public void Draw(IReadOnlyList<string> lines)
    {
        StringBuilder text = Begin();
        int rows = Rows;
        // A line that wrapped would be two, and the next drawing one line too low.
        text.Append(NoWrap);
        foreach (string line in lines.Take(rows)) text.Append(line).Append('\n');
        text.Append(Wrap);
        _drawn = Math.Min(lines.Count, rows);
        terminal.Output.Write(text);
        terminal.Output.Flush();
    }

    /// <summary>A line that stays, above the block.</summary>
    public void Above(string line, IReadOnlyList<string> lines)
    {
        terminal.Output.Write(Begin().Append(line).Append('\n'));
        _drawn = 0;
        Draw(lines);
    }

    private StringBuilder Begin()
    {
        var text = new StringBuilder();
        if (_drawn > 0) text.Append("\e[").Append(_drawn).Append('A');
        return text.Append('\r').Append(EraseBelow);
    }
}
