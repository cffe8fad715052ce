using System.Collections.Immutable;
using System.Text;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// One line of a HAProxy configuration, its bytes as characters (Latin-1), cut into words the way HAProxy does it
/// (configuration manual, 2.2 "Quoting and escaping"; src/tools.c, parse_line). Every word remembers where its characters
/// came from, so that a part of it can be replaced and everything around it stays as it was.
/// </summary>
internal sealed record ConfigurationLine(string Text, ImmutableArray<Word> Words)
{
    /// <summary>What ends the line: "\n", "\r\n" or, on a last line, nothing.</summary>
    public string Ending => Text.EndsWith("\r\n", StringComparison.Ordinal) ? "\r\n" : Text.EndsWith('\n') ? "\n" : "";

    public string this[int word] => word < Words.Length ? Words[word].Text : "";

    public static ConfigurationLine Read(string text)
    {
        // A line that starts with '[' sets a scope (src/cfgparse.c, cfg_parse_scope): it has no words.
        if (text.AsSpan().TrimStart(" \t\v\f\r\n").StartsWith("[", StringComparison.Ordinal)) return new(text, []);

        var words = ImmutableArray.CreateBuilder<Word>();
        var word = new StringBuilder();
        var sources = ImmutableArray.CreateBuilder<int>();
        int start = -1;
        bool single = false, twofold = false, variable = false;
        int at = 0;
        void Begin() { if (start < 0) start = at; }
        void Emit(char c, int source) { word.Append(c); sources.Add(source); }
        void End()
        {
            if (start >= 0) words.Add(new Word(word.ToString(), start, at, variable, sources.ToImmutable()));
            word.Clear();
            sources.Clear();
            start = -1;
            variable = false;
        }

        for (; at < text.Length; at++)
        {
            char c = text[at];
            // A carriage return ends the line, but among spaces it is one of them.
            if (c is '\0' or '\n' || (c == '\r' && start >= 0)) break;
            if (c == '#' && !single && !twofold) break;
            if (IsSpace(c) && !single && !twofold) { End(); continue; }
            Begin();
            if (c == '"' && !single) twofold = !twofold;
            else if (c == '\'' && !twofold) single = !single;
            else if (c == '\\' && !single) at = Escape(text, at, twofold, Emit);
            else if (c == '$' && twofold)
            {
                // Kept as it is written, with the mark that HAProxy will put something else there. A default value may hold
                // quotes, "${A-"b"}": up to the brace nothing is interpreted.
                variable = true;
                int last = at + 1 < text.Length && text[at + 1] == '{' && text.IndexOf('}', at) is > 0 and int brace ? brace : at;
                for (; at < last; at++) Emit(text[at], at);
                Emit(text[at], at);
            }
            else Emit(c, at);
        }
        End();
        return new(text, words.ToImmutable());
    }

    /// <summary>Replaces parts of the text; the edits must not overlap.</summary>
    public string With(IEnumerable<Edit> edits)
    {
        string text = Text;
        foreach (Edit edit in edits.OrderByDescending(e => e.Start))
            text = string.Concat(text.AsSpan(0, edit.Start), edit.Text, text.AsSpan(edit.End));
        return text;
    }

    /// <summary>Writes <paramref name="word"/> so that HAProxy reads it back as one word.</summary>
    public static string Quote(string word)
    {
        var quoted = new StringBuilder(word.Length);
        foreach (char c in word)
            quoted.Append(c switch
            {
                '\t' => "\\t",
                '\n' => "\\n",
                '\r' => "\\r",
                ' ' or '#' or '\\' or '\'' or '"' => $"\\{c}",
                _ => c.ToString(),
            });
        return quoted.ToString();
    }

    /// <returns>Where the escape ends.</returns>
    private static int Escape(string text, int at, bool twofold, Action<char, int> emit)
    {
        char next = at + 1 < text.Length ? text[at + 1] : '\0';
        switch (next)
        {
            case ' ' or '\\' or '#' or '\'' or '"': emit(next, at); return at + 1;
            case 't': emit('\t', at); return at + 1;
            case 'n': emit('\n', at); return at + 1;
            case 'r': emit('\r', at); return at + 1;
            case '$' when twofold: emit('$', at); return at + 1;
            case 'x' when at + 3 < text.Length && char.IsAsciiHexDigit(text[at + 2]) && char.IsAsciiHexDigit(text[at + 3]):
                emit((char)Convert.ToByte(text.Substring(at + 2, 2), 16), at);
                return at + 3;
            default: emit('\\', at); return at;
        }
    }

    /// <summary>isspace(3) in the C locale.</summary>
    private static bool IsSpace(char c) => c is ' ' or '\t' or '\v' or '\f' or '\r';
}

/// <param name="Text">The word as HAProxy understands it: quotes and escapes resolved.</param>
/// <param name="Start">Where it begins in the line, quotes included.</param>
/// <param name="HasVariable">It holds an environment variable, whose value is not known here.</param>
/// <param name="Sources">Where in the line each character of <paramref name="Text"/> comes from.</param>
internal sealed record Word(string Text, int Start, int End, bool HasVariable, ImmutableArray<int> Sources)
{
    /// <summary>The characters <paramref name="from"/> to <paramref name="to"/> stand in the line exactly as in the word.</summary>
    public bool IsPlain(string line, int from, int to) =>
        to > from && line.AsSpan(Sources[from]).StartsWith(Text.AsSpan(from, to - from), StringComparison.Ordinal)
        && Sources[to - 1] - Sources[from] == to - 1 - from;
}

internal readonly record struct Edit(int Start, int End, string Text);
