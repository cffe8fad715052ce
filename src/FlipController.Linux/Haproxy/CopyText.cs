using System.Collections.Immutable;
using System.Text;

namespace FlipController.Linux.Haproxy;

/// <summary>The texts of the copy: the user's lines, with what becomes of some of them.</summary>
/// <param name="heads">Lines of ours to begin a file with, by the file's number.</param>
/// <param name="more">Lines for our own file, whose last section is <c>global</c>.</param>
internal sealed class CopyText(
    SlotPlace place, IReadOnlyList<SourceFile> files, IReadOnlyDictionary<PlacedLine, LineChange> changes,
    IReadOnlyDictionary<int, string> heads, string more)
{
    public ImmutableArray<RenderedFile> Files(ImmutableArray<PlacedLine> lines)
    {
        var rendered = ImmutableArray.CreateBuilder<RenderedFile>(files.Count + 1);
        rendered.Add(OwnFile());
        int from = 0;
        for (int i = 0; i < files.Count; i++)
        {
            int to = from;
            while (to < lines.Length && lines[to].File == i) to++;
            rendered.Add(Copy(i, lines.AsSpan()[from..to]));
            from = to;
        }
        return rendered.ToImmutable();
    }

    private RenderedFile OwnFile()
    {
        string text = $"""
            # Written by FlipController. The files that follow are copies of the user's, in the order HAProxy reads them.
            global
                stats socket {ConfigurationLine.Quote(HaproxyEnvironment.Bytes(place.AdminSocket))} mode 600 level admin
                # First health checks begin within this time, not spread over a whole interval: the gate waits for them.
                max-spread-checks 500ms

            """.ReplaceLineEndings("\n");
        return new($"{place.Directory}/{Projection.OwnFile}", null, Encoding.Latin1.GetBytes(text + more), []);
    }

    private RenderedFile Copy(int file, ReadOnlySpan<PlacedLine> lines)
    {
        var text = new StringBuilder(files[file].Content.Length + 1024);
        var origins = ImmutableArray.CreateBuilder<RenderedLine>(lines.Length);
        if (heads.TryGetValue(file, out string? head))
        {
            text.Append(head);
            for (int i = head.Count(c => c == '\n'); i > 0; i--) origins.Add(new(1, []));
        }
        foreach (PlacedLine placed in lines)
        {
            if (!changes.TryGetValue(placed, out LineChange? change))
            {
                text.Append(placed.Line.Text);
                origins.Add(new(placed.Number, []));
                continue;
            }
            if (change.Drop) text.Append("# ");
            text.Append(change.Apply(placed.Line));
            origins.Add(new(placed.Number, [.. change.Said]));
            string ending = placed.Line.Ending;
            foreach (string below in change.Below)
            {
                text.Append(ending == "" ? $"\n{below}" : $"{below}{ending}");
                origins.Add(new(placed.Number, []));
            }
        }
        string path = files[file].Path;
        string name = path[(path.LastIndexOf('/') + 1)..];
        return new($"{place.Directory}/{file + 1}-{name}", path, Encoding.Latin1.GetBytes(text.ToString()), origins.ToImmutable());
    }
}

/// <summary>What becomes of one line.</summary>
internal sealed class LineChange
{
    private readonly Dictionary<Word, string> _words = new(ReferenceEqualityComparer.Instance);
    private readonly List<Edit> _edits = [];

    public List<(string Now, string Before)> Said { get; } = [];
    /// <summary>It is kept as a comment.</summary>
    public bool Drop { get; set; }
    /// <summary>Lines of ours below it.</summary>
    public List<string> Below { get; } = [];
    public bool IsRing { get; set; }

    public bool Has(Word word) => _words.ContainsKey(word);

    /// <summary>Writes another word in its place.</summary>
    public void Replace(Word word, string text)
    {
        if (!_words.TryAdd(word, text)) return;
        Said.Add((text, word.Address ?? word.Text));
    }

    /// <summary>Writes text in its place, quoted already.</summary>
    public void ReplaceWithText(Word word, string text)
    {
        _edits.Add(new(word.Start, word.End, text));
        Said.Add((text, word.Text));
    }

    /// <summary>Writes other text in the place of a part of a word that stands in the line just so.</summary>
    public void ReplacePart(Word word, int from, int to, string text) =>
        _edits.Add(new(word.SourceOf(from), word.SourceOf(to - 1) + 1, text));

    /// <summary>Writes more words at the end of the line, before its comment.</summary>
    public void Append(Word last, string text) => _edits.Add(new(last.End, last.End, text));

    public void Say(string now, string before) => Said.Add((now, before));

    public string Apply(ConfigurationLine line)
    {
        IEnumerable<Edit> edits = _edits;
        // The words that a list has become share their place: all of them are written there, the changed ones changed.
        foreach (IGrouping<int, Word> place in _words.Keys.GroupBy(w => w.Start))
            edits = edits.Append(new Edit(place.Key, place.First().End, string.Join(' ', line.Words.Where(w => w.Start == place.Key)
                .Select(w => ConfigurationLine.Quote(_words.GetValueOrDefault(w, w.Text))))));
        return line.With(edits);
    }
}
