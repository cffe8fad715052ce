using System.Collections.Immutable;
using System.Globalization;
using System.Text;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// What <c>.if</c> and <c>.elif</c> ask (configuration manual, 2.4 "Conditional blocks"; src/cfgcond.c):
/// <code>
///   expression = and [ "||" expression ]     term = { "!" } ( number | "(" expression ")" | predicate [ "(" arguments ")" ] )
///   and        = term [ "&amp;&amp;" and ]
/// </code>
/// An answer that is not needed is not asked for, and may be unknown.
/// </summary>
internal sealed class ConfigurationCondition
{
    // src/cfgcond.c, cond_predicates, 2.4 to 3.5: another name makes the whole condition one that HAProxy does not understand.
    private static readonly HashSet<string> s_askable = new(StringComparer.Ordinal)
    {
        "feature", "version_atleast", "version_before", "openssl_version_atleast", "openssl_version_before", "ssllib_name_startswith",
        "awslc_api_atleast", "awslc_api_before", "enabled", "fips_mode",
    };

    private const int DeepestNesting = 1024; // MAX_CFG_RECURSION, include/haproxy/defaults.h
    private readonly string _text;
    private readonly HaproxyEnvironment _environment;
    private readonly HaproxySurroundings _surroundings;
    private readonly IReadOnlySet<string> _switchedOff;
    private int _at;

    private ConfigurationCondition(
        string text, HaproxyEnvironment environment, HaproxySurroundings surroundings, IReadOnlySet<string> switchedOff) =>
        (_text, _environment, _surroundings, _switchedOff) = (text, environment, surroundings, switchedOff);

    /// <param name="text">All words behind the keyword, one blank between them.</param>
    /// <param name="switchedOff">What the files have switched off so far, by the name <c>enabled()</c> knows it by.</param>
    /// <returns>Null: HAProxy does not understand it, or it asks for what is not known.</returns>
    public static bool? Holds(
        string text, HaproxyEnvironment environment, HaproxySurroundings surroundings, IReadOnlySet<string> switchedOff)
    {
        if (text.Length == 0) return false;
        var condition = new ConfigurationCondition(text, environment, surroundings, switchedOff);
        Func<bool?>? whole = condition.Expression(DeepestNesting);
        condition.Blanks();
        return whole is null || condition._at < text.Length ? null : whole();
    }

    private char Next => _at < _text.Length ? _text[_at] : '\0';

    private void Blanks()
    {
        while (Next is ' ' or '\t') _at++;
    }

    private bool Took(string sign)
    {
        Blanks();
        if (!_text.AsSpan(_at).StartsWith(sign, StringComparison.Ordinal)) return false;
        _at += sign.Length;
        Blanks();
        return true;
    }

    private Func<bool?>? Expression(int depth)
    {
        if (depth <= 0 || And(depth - 1) is not { } left) return null;
        if (!Took("||")) return left;
        return Expression(depth - 1) is { } right ? () => left() is var known && known == false ? right() : known : null;
    }

    private Func<bool?>? And(int depth)
    {
        if (depth <= 0 || Term(depth - 1) is not { } left) return null;
        if (!Took("&&")) return left;
        return And(depth - 1) is { } right ? () => left() is var known && known == true ? right() : known : null;
    }

    private Func<bool?>? Term(int depth)
    {
        Blanks();
        if (depth <= 0) return null;
        bool negated = false;
        for (; Next == '!'; Blanks()) { negated = !negated; _at++; }
        Func<bool?>? term = Number() is { } number ? () => number
            : Next == '(' ? Parenthesis(depth)
            : Predicate();
        return term is null ? null : negated ? () => !term() : term;
    }

    private Func<bool?>? Parenthesis(int depth)
    {
        _at++;
        Blanks();
        return Expression(depth - 1) is { } inner && Took(")") ? inner : null;
    }

    /// <summary>strtol(3) with base 0: decimal, 0x for hexadecimal, 0 for octal; every number but 0 is true.</summary>
    private bool? Number()
    {
        int at = _at;
        while (at < _text.Length && (ConfigurationLine.IsSpace(_text[at]) || _text[at] == '\n')) at++;
        if (at < _text.Length && _text[at] is '+' or '-') at++;
        int first = at, radix = 10;
        if (at < _text.Length && _text[at] == '0')
        {
            bool hexadecimal = at + 2 < _text.Length && _text[at + 1] is 'x' or 'X' && char.IsAsciiHexDigit(_text[at + 2]);
            radix = hexadecimal ? 16 : 8;
            if (hexadecimal) first = at += 2;
        }
        bool any = false;
        for (; at < _text.Length && DigitOf(_text[at]) is >= 0 and int digit && digit < radix; at++) any |= digit != 0;
        if (at == first) return null;
        _at = at;
        return any;
    }

    private static int DigitOf(char c) => char.IsAsciiHexDigit(c) ? Convert.ToInt32(c.ToString(), 16) : -1;

    private Func<bool?>? Predicate()
    {
        int from = _at, end = _text.AsSpan(_at).IndexOfAny(' ', '(') is >= 0 and int stop ? _at + stop : _text.Length;
        string name = _text[from..end];
        _at = end;
        if (Arguments() is not { } arguments) return null;
        string asked = _text[from.._at];
        string first = arguments[0], second = arguments.Length > 1 ? arguments[1] : "";
        HaproxyBuild? build = _surroundings.Build;
        return (name, arguments.Length) switch
        {
            ("defined", 1) => () => _environment.IsDefined(first),
            ("streq", 2) => () => string.Equals(first, second, StringComparison.Ordinal),
            ("strneq", 2) => () => !string.Equals(first, second, StringComparison.Ordinal),
            ("strstr", 2) => () => first.Contains(second, StringComparison.Ordinal),
            ("feature", 1) when build is not null => () => build.Features.Contains(first),
            ("version_atleast", 1) when build is not null => () => build.Version.ComparedWith(first) <= 0,
            ("version_before", 1) when build is not null => () => build.Version.ComparedWith(first) > 0,
            ("enabled", 1) when _switchedOff.Contains(first) => () => false,
            _ when s_askable.Contains(name) => () => _surroundings.Condition(asked),
            _ => null,
        };
    }

    /// <summary>src/arg.c, make_arg_list: quotes and escapes once more, a comma between; nothing at all is one empty argument.</summary>
    private ImmutableArray<string>? Arguments()
    {
        if (Next != '(') return [""];
        var arguments = ImmutableArray.CreateBuilder<string>();
        var argument = new StringBuilder();
        bool single = false, twofold = false;
        for (_at++; _at < _text.Length; _at++)
        {
            char c = _text[_at];
            if (c == '"' && !single) twofold = !twofold;
            else if (c == '\'' && !twofold) single = !single;
            else if (c == '\\' && !single)
            {
                if (_at + 1 == _text.Length) return null;
                char next = _text[_at + 1];
                if (next is '\\' or ' ' or '"' or '\'' or 'r' or 'n' or 't') _at++;
                argument.Append(next switch { '\\' or ' ' or '"' or '\'' => next, 'r' => '\r', 'n' => '\n', 't' => '\t', _ => '\\' });
            }
            else if (!single && !twofold && c is ',' or ')')
            {
                arguments.Add(argument.ToString());
                argument.Clear();
                if (c == ',') continue;
                _at++;
                return arguments.ToImmutable();
            }
            else argument.Append(c);
        }
        return null;
    }
}
