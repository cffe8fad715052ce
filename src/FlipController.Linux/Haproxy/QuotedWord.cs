using System.Collections.Immutable;
using System.Text;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// A word that has quotes, escapes or variables in it. Variables are expanded inside double quotes only; <c>"${LIST[*]}"</c>
/// becomes a word for each of its value's, or none.
/// </summary>
internal sealed class QuotedWord(string text, int from, HaproxyEnvironment? environment)
{
    private readonly int _start = from;
    private readonly StringBuilder _word = new();
    private readonly List<int> _sources = [];
    private readonly List<Word> _words = [];
    private bool _isUnknown;
    // What makes an argument of it, though it be empty (src/tools.c, parse_line: in_arg, empty_quote).
    private bool _isArgument, _emptyQuotes;

    /// <summary>Where it ends.</summary>
    public int At { get; private set; } = from;

    public bool NamesItself { get; private set; }

    public void ReadInto(ImmutableArray<Word>.Builder words)
    {
        bool single = false, twofold = false;
        for (; At < text.Length; At++)
        {
            char c = text[At];
            if (c is '\0' or '\n' or '\r' || (!single && !twofold && (c == '#' || ConfigurationLine.IsSpace(c)))) break;
            if (c == '"' && !single) { twofold = !twofold; Quotes(twofold); }
            else if (c == '\'' && !twofold) { single = !single; Quotes(single); }
            else if (c == '\\' && !single) At = Escape(twofold);
            else if (c == '$' && twofold) Variable();
            else Emit(c, At);
        }
        bool dropsEmpty = environment?.DropsEmptyLists == true;
        if (!dropsEmpty || _isArgument) End();
        foreach (Word word in _words) words.Add(word with { End = At, IsShared = _words.Count > 1 });
    }

    private void Quotes(bool opened)
    {
        if (opened) _emptyQuotes = true;
        else _isArgument |= _emptyQuotes;
    }

    private void Emit(char c, int source)
    {
        _word.Append(c);
        _sources.Add(source);
        _isArgument = true;
    }

    private void End()
    {
        _words.Add(new Word(_word.ToString(), _start, At, [.. _sources], _isUnknown));
        _word.Clear();
        _sources.Clear();
        _isUnknown = _isArgument = false;
    }

    /// <returns>Where the escape ends.</returns>
    private int Escape(bool twofold)
    {
        char next = At + 1 < text.Length ? text[At + 1] : '\0';
        switch (next)
        {
            case ' ' or '\\' or '#' or '\'' or '"': Emit(next, At); return At + 1;
            case 't': Emit('\t', At); return At + 1;
            case 'n': Emit('\n', At); return At + 1;
            case 'r': Emit('\r', At); return At + 1;
            case '$' when twofold: Emit('$', At); return At + 1;
            case 'x' when At + 3 < text.Length && char.IsAsciiHexDigit(text[At + 2]) && char.IsAsciiHexDigit(text[At + 3]):
                Emit((char)Convert.ToByte(text.Substring(At + 2, 2), 16), At);
                return At + 3;
            default: Emit('\\', At); return At;
        }
    }

    /// <summary>$NAME, ${NAME}, ${NAME-default} and ${NAME[*]-default}; what is none of these HAProxy refuses, and so it stays.</summary>
    private void Variable()
    {
        int at = At + 1;
        bool brace = at < text.Length && text[at] == '{';
        if (brace) at++;
        int name = at;
        if (at < text.Length && text[at] == '.') at++;
        else if (at >= text.Length || !(char.IsAsciiLetter(text[at]) || text[at] == '_')) { Emit('$', At); return; }
        while (at < text.Length && (char.IsAsciiLetterOrDigit(text[at]) || text[at] == '_')) at++;
        string variable = text[name..at];
        bool list = brace && text.AsSpan(at).StartsWith("[*]", StringComparison.Ordinal);
        if (list) at += "[*]".Length;
        string? absent = null;
        if (brace)
        {
            int end = text.IndexOf('}', at);
            if (end < 0 || (end > at && text[at] != '-')) { Emit('$', At); return; }
            // Up to the brace nothing is interpreted: "${A-"b"}".
            if (end > at) absent = text[(at + 1)..end];
            at = end + 1;
        }
        if (environment is null || !environment.TryGet(variable, out string? value))
        {
            _isUnknown = true;
            for (; At < at; At++) Emit(text[At], At);
        }
        else
        {
            NamesItself |= variable is ".LINE" or ".FILE";
            if (list) _emptyQuotes = false;
            Expand(value ?? absent, list, environment.DropsEmptyLists);
        }
        At = at - 1;
    }

    private void Expand(string? value, bool list, bool dropsEmpty)
    {
        // An unset variable is an argument all the same, but for a list.
        if (value is null) { _isArgument |= !list; return; }
        for (int i = 0; i < value.Length; i++)
        {
            if (!list || !(ConfigurationLine.IsSpace(value[i]) || value[i] == '\n')) { Emit(value[i], -1); continue; }
            while (i + 1 < value.Length && (ConfigurationLine.IsSpace(value[i + 1]) || value[i + 1] == '\n')) i++;
            if (!dropsEmpty || _isArgument) End();
        }
    }
}
