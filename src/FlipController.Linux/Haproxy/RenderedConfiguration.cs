using System.Collections.Immutable;
using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using FlipController.Core;

namespace FlipController.Linux.Haproxy;

/// <summary>A slot's own copy of the user's configuration: the files to write and to pass to HAProxy with -f, in this order.</summary>
/// <param name="Services">In the order in which the private ports were handed out.</param>
/// <param name="LocalPeer">
/// The name to pass with -L: the copy has no <c>localpeer</c> any more, and no <c>pidfile</c> beside -p. Null: it is in our own file.
/// </param>
public sealed record RenderedConfiguration(
    ImmutableArray<RenderedFile> Files, ImmutableArray<ServicePort> Services, string? LocalPeer)
{
    /// <summary>What is not as the user may expect it, each by file and line.</summary>
    public ImmutableArray<string> Notes { get; init; } = [];

    /// <summary>The option that goes with the files, or none.</summary>
    public IEnumerable<string> LocalPeerOption => LocalPeer is null ? [] : ["-L", LocalPeer];

    /// <summary>Puts the user's own path, line and addresses into what HAProxy says about the copy.</summary>
    public string Explain(string haproxyOutput)
    {
        var explained = new StringBuilder(haproxyOutput.Length);
        foreach (string line in Regex.Split(haproxyOutput, "(?<=\n)"))
        {
            string text = line;
            foreach (RenderedFile file in Files)
                if (file.Source is not null) text = file.Explain(text);
            explained.Append(text);
        }
        return explained.ToString();
    }
}

/// <param name="Source">The user's file it was made from; null for the part that is ours.</param>
/// <param name="Lines">For each line of the copy, in order, where it came from.</param>
public sealed record RenderedFile(string Path, string? Source, byte[] Content, ImmutableArray<RenderedLine> Lines)
{
    internal string Explain(string message)
    {
        var words = ImmutableArray.CreateBuilder<(string Now, string Before)>();
        string text = Regex.Replace(message, Regex.Escape(Path) + @"(?::(\d{1,9}))?", match =>
        {
            if (!match.Groups[1].Success) return Source!;
            int number = int.Parse(match.Groups[1].ValueSpan, CultureInfo.InvariantCulture);
            if (number < 1 || number > Lines.Length) return $"{Source}:{number}";
            RenderedLine line = Lines[number - 1];
            words.AddRange(line.Changed);
            return $"{Source}:{line.Number}";
        });
        foreach (var (now, before) in words)
            text = Regex.Replace(text, $@"(?<![\w:.\]]){Regex.Escape(now)}(?!\d)", _ => before);
        return text;
    }
}

/// <param name="Number">The line of the user's file it is, or stands below of.</param>
/// <param name="Changed">The words of it that are not the user's: as the copy has them, and as the user wrote them.</param>
public sealed record RenderedLine(int Number, ImmutableArray<(string Now, string Before)> Changed);
