using System.Text;

namespace FlipController.Linux.Units;

/// <summary>Text that systemd reads back as it was.</summary>
public static class UnitText
{
    /// <summary>
    /// A value for a file that EnvironmentFile= names: systemd.exec(5). Between double quotes a line break is a character like any
    /// other, and of the rest a backslash saves the four that a shell would take for something else (src/basic/env-file.c).
    /// </summary>
    public static string Value(string text) => Quoted(text, "\"\\`$");

    /// <summary>
    /// Words for a command line's <c>$NAME</c>, which is split at white space; quotes are respected and a backslash saves any
    /// character: systemd.service(5), "Command lines" (src/basic/extract-word.c).
    /// </summary>
    public static string Words(IEnumerable<string> words) => string.Join(' ', words.Select(w => Quoted(w, "\"\\")));

    /// <summary>
    /// The name of a path below a directory as a unit's instance: / becomes -, and a - that was there <c>\x2d</c>, so that %I is the
    /// path again: systemd.unit(5), "String escaping for inclusion in unit names".
    /// </summary>
    /// <param name="parts">Of a-z, 0-9, _ and - alone.</param>
    public static string Instance(params ReadOnlySpan<string> parts)
    {
        var name = new StringBuilder();
        foreach (string part in parts) name.Append(name.Length == 0 ? "" : "-").Append(part.Replace("-", @"\x2d", StringComparison.Ordinal));
        return name.ToString();
    }

    private static string Quoted(string text, string saved)
    {
        var quoted = new StringBuilder("\"", text.Length + 2);
        foreach (char c in text) quoted.Append(saved.Contains(c, StringComparison.Ordinal) ? "\\" : "").Append(c);
        return quoted.Append('"').ToString();
    }
}
