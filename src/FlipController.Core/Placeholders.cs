using System.Text.RegularExpressions;

namespace FlipController.Core;

/// <summary>
/// What stands in braces in the words a pair's own programs are given, and in the configuration of a <c>command</c> pair:
/// {pair}, {slot}, {generation} (its number), {directory} (the generation's own), {config} (the copy of the first file),
/// {config:NAME} (of the file of that name), {pidfile}, {port:NAME} (the private port of a service).
/// </summary>
public static partial class Placeholders
{
    public const string Port = "port:", Config = "config:";

    public const string Listed = "{pair}, {slot}, {generation}, {directory}, {config}, {pidfile}, {config:NAME}, {port:NAME}";

    /// <summary>Those in a text that are in our manner, known or not, without their braces.</summary>
    public static IEnumerable<string> In(string text) => Any().Matches(text).Select(m => m.Groups[1].Value);

    /// <summary>{port:NAME} or {config:NAME}, whoever has that name.</summary>
    public static bool IsNamed(string name) => name.StartsWith(Port, StringComparison.Ordinal) || name.StartsWith(Config, StringComparison.Ordinal);

    /// <summary>By which {config:NAME} asks for a file's copy.</summary>
    public static string NameOf(string file) => file[(file.LastIndexOf('/') + 1)..];

    /// <param name="value">Null: what stands there is not ours, and stays.</param>
    public static string Fill(string text, Func<string, string?> value) => Any().Replace(text, m => value(m.Groups[1].Value) ?? m.Value);

    // Only what looks like one: braces of JSON in an argument are the operator's own.
    [GeneratedRegex(@"\{([A-Za-z_]+(?::[^{}\s]+)?)\}")]
    private static partial Regex Any();
}
