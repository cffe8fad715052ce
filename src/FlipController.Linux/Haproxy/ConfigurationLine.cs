using System.Buffers;
using System.Collections.Immutable;
using System.Text;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// One line of a HAProxy configuration, its bytes as characters (Latin-1), cut into words the way HAProxy does it
/// (configuration manual, 2.2 "Quoting and escaping", 2.3 "Environment variables"; src/tools.c, parse_line). Every word
/// remembers where its characters came from, so that a part of it can be replaced and everything around it stays as it was.
/// </summary>
/// <param name="NamesItself">It holds a variable that says in which file and line it stands.</param>
internal sealed record ConfigurationLine(string Text, ImmutableArray<Word> Words, bool NamesItself)
{
    private static readonly SearchValues<char> s_special = SearchValues.Create(" \t\v\f\r\n\0#\"'\\");

    /// <summary>What ends the line: "\n", "\r\n" or, on a last line, nothing.</summary>
    public string Ending => Text.EndsWith("\r\n", StringComparison.Ordinal) ? "\r\n" : Text.EndsWith('\n') ? "\n" : "";

    public string this[int word] => word < Words.Length ? Words[word].Text : "";

    /// <summary>How many words a parser sees that takes an empty one for the end of the line, as most of HAProxy's do.</summary>
    public int Count
    {
        get
        {
            int count = 0;
            while (count < Words.Length && Words[count].Text != "") count++;
            return count;
        }
    }

    /// <param name="environment">Null: the value of no variable is known.</param>
    public static ConfigurationLine Read(string text, HaproxyEnvironment? environment = null)
    {
        int at = 0;
        while (at < text.Length && (IsSpace(text[at]) || text[at] == '\n')) at++;
        // A line that starts with '[' sets a scope (src/cfgparse.c, cfg_parse_scope): it has no words.
        if (at == text.Length || text[at] is '#' or '[' or '\0') return new(text, [], false);
        var words = ImmutableArray.CreateBuilder<Word>(8);
        bool namesItself = false;
        while (at < text.Length)
        {
            char c = text[at];
            // A carriage return ends the line, but among spaces it is one of them.
            if (IsSpace(c)) { at++; continue; }
            if (c is '\0' or '\n' or '#') break;
            int end = text.AsSpan(at).IndexOfAny(s_special) is >= 0 and int special ? at + special : text.Length;
            if (end == text.Length || text[end] is not ('"' or '\'' or '\\')) words.Add(new Word(text[at..end], at, end));
            else
            {
                var quoted = new QuotedWord(text, at, environment);
                quoted.ReadInto(words);
                (end, namesItself) = (quoted.At, namesItself | quoted.NamesItself);
            }
            if (end < text.Length && text[end] == '\r') break;
            at = end;
        }
        if (environment is not null && text.Contains('$', StringComparison.Ordinal))
            for (int i = 0; i < words.Count; i++)
                if (words[i].Text.Contains('$', StringComparison.Ordinal) && !words[i].IsUnknown)
                    words[i] = words[i] with { Address = environment.Expand(words[i].Text) };
        return new(text, words.DrainToImmutable(), namesItself);
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
        if (word.Length == 0) return "\"\"";
        if (!word.AsSpan().ContainsAny("\t\n\r #\\'\"")) return word;
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

    /// <summary>isspace(3) in the C locale, but for the end of the line.</summary>
    internal static bool IsSpace(char c) => c is ' ' or '\t' or '\v' or '\f' or '\r';
}

/// <param name="Text">The word as HAProxy understands it: quotes and escapes resolved, variables expanded.</param>
/// <param name="Start">Where it begins in the line, quotes included.</param>
/// <param name="Sources">Where in the line each character comes from, -1 for a variable's; null: they stand there as they are.</param>
/// <param name="IsUnknown">It holds a variable whose value is not known, and stands here as it is written.</param>
/// <param name="IsShared">It is one of several words that a list has become, which share one place in the line.</param>
internal sealed record Word(
    string Text, int Start, int End, int[]? Sources = null, bool IsUnknown = false, bool IsShared = false)
{
    /// <summary>
    /// The word where HAProxy takes it for an address, in which variables are expanded outside of quotes too (src/tools.c,
    /// str2sa_range); null: one's value is not known.
    /// </summary>
    public string? Address { get; init; } = IsUnknown || Text.Contains('$', StringComparison.Ordinal) ? null : Text;

    /// <summary>Where in the line the character at <paramref name="index"/> stands.</summary>
    public int SourceOf(int index) => Sources is null ? Start + index : Sources[index];

    /// <summary>The characters <paramref name="from"/> to <paramref name="to"/> stand in the line exactly as in the word.</summary>
    public bool IsPlain(string line, int from, int to) =>
        !IsShared && to > from && SourceOf(from) >= 0 && SourceOf(to - 1) - SourceOf(from) == to - 1 - from
        && line.AsSpan(SourceOf(from)).StartsWith(Text.AsSpan(from, to - from), StringComparison.Ordinal);
}

internal readonly record struct Edit(int Start, int End, string Text);
