using System.Collections.Immutable;
using System.Text;

namespace FlipController.Linux.Files;

/// <summary>
/// A file of variables as systemd reads it (systemd.exec(5), EnvironmentFile=): NAME=VALUE a line, # and ; begin comments, quotes
/// around a value, a backslash at the end of a line continues it. Nothing in it is expanded.
/// </summary>
public static class EnvironmentFile
{
    /// <summary>In the order of the file; what is no assignment to a variable's name is passed over, as systemd does it.</summary>
    public static ImmutableArray<KeyValuePair<string, string>> Read(string text)
    {
        var variables = ImmutableArray.CreateBuilder<KeyValuePair<string, string>>();
        for (int at = 0; at < text.Length;)
        {
            while (at < text.Length && char.IsWhiteSpace(text[at])) at++;
            if (at == text.Length) break;
            if (text[at] is '#' or ';') { at = AfterComment(text, at); continue; }
            int name = at;
            while (at < text.Length && text[at] is not ('=' or '\n')) at++;
            if (at == text.Length || text[at] == '\n') continue;
            string key = text[name..at].TrimEnd();
            at++;
            string value = Value(text, ref at);
            if (IsName(key)) variables.Add(new(key, value));
        }
        return variables.ToImmutable();
    }

    internal static bool IsName(string text) =>
        text.Length > 0 && !char.IsAsciiDigit(text[0]) && text.All(c => char.IsAsciiLetterOrDigit(c) || c == '_');

    /// <summary>A comment that ends in a backslash goes on in the next line.</summary>
    private static int AfterComment(string text, int at)
    {
        for (; at < text.Length && text[at] != '\n'; at++)
            if (text[at] == '\\') at++;
        return Math.Min(at, text.Length);
    }

    private static string Value(string text, ref int at)
    {
        var value = new StringBuilder();
        int kept = 0; // Blanks at the end are kept only within quotes or behind a backslash.
        while (at < text.Length && text[at] is ' ' or '\t') at++;
        for (; at < text.Length && text[at] is not ('\n' or '\r'); at++)
        {
            char c = text[at];
            if (c is '"' or '\'' && value.Length == kept) { Quoted(text, ref at, value); kept = value.Length; }
            else if (c == '\\')
            {
                if (++at < text.Length && text[at] is not ('\n' or '\r')) { value.Append(text[at]); kept = value.Length; }
            }
            else
            {
                value.Append(c);
                if (!char.IsWhiteSpace(c)) kept = value.Length;
            }
        }
        return value.ToString(0, kept);
    }

    /// <summary>Leaves <paramref name="at"/> on the closing quote.</summary>
    private static void Quoted(string text, ref int at, StringBuilder value)
    {
        char quote = text[at++];
        for (; at < text.Length && text[at] != quote; at++)
        {
            if (text[at] == '\\' && quote == '"' && at + 1 < text.Length)
            {
                at++;
                if (text[at] == '\n') continue;
                if (text[at] is not ('"' or '\\' or '`' or '$')) value.Append('\\');
            }
            value.Append(text[at]);
        }
    }
}
