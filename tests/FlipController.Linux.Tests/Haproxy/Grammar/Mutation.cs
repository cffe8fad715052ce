using System.Text;

namespace FlipController.Linux.Tests.Haproxy.Grammar;

/// <summary>Damage to configurations, the same for the same seed.</summary>
internal static class Mutation
{
    private static readonly byte[][] Pieces =
    [
        .. new[]
        {
            "\"", "'", "\\", "\\x", "\\x3a", "\\ ", "$", "${", "${A}", "${A-", "${A[*]}", "}", "\"${B}\"", "\0", "\r", "\n", "#", "[", "]", ":", ",", "-", "@", " ", "\t",
            "bind ", "bind :80\n", "bind :81-83,", "no ", "listen x\n", "defaults from x\n", "peers p\n", "global\n", "peer lb1 ", "stats socket ", "stats socket :99\n",
            "default-path config\n", ".if\n", ".if 1\n", ".if 0\n", ".if defined(A)\n", ".if streq(\"$A\",b)\n", ".elif 1\n", ".else\n", ".endif\n", "setenv A :80\n", "from ",
            "mode http\n", "interface ", "v6only", "abns@", "unix@", "ipv6@", "/s,", "::", "\xff", "65536", "99999999999999999999", "unix-bind prefix /p\n", "master-worker\n",
            "server s abns@x\n", "server s 127.0.0.1:80\n", "log-forward f\n", "disabled\n", "localhost:80", "\n\n", "frontend f :80\n", "localpeer x\n",
        }.Select(Encoding.Latin1.GetBytes),
    ];

    public static readonly IReadOnlyDictionary<string, string> Environment = new Dictionary<string, string> { ["A"] = "127.0.0.1", ["B"] = "a b,c:1 \"" };

    /// <param name="corpus">What it starts from and what it takes pieces of.</param>
    public static byte[] Make(IReadOnlyList<byte[]> corpus, int seed, int edits)
    {
        var random = new Random(seed);
        List<byte> content = [.. corpus[random.Next(corpus.Count)]];
        for (int left = random.Next(1, edits + 1); left > 0; left--) Edit(content, corpus, random);
        return [.. content];
    }

    /// <summary>Other spellings of the same: what HAProxy accepted it mostly accepts still, and the projection must read as HAProxy does.</summary>
    public static byte[] Respell(IReadOnlyList<byte[]> corpus, int seed)
    {
        var random = new Random(seed);
        List<string> lines = [.. Encoding.Latin1.GetString(corpus[random.Next(corpus.Count)]).Split('\n')];
        for (int left = random.Next(1, 6); left > 0; left--)
        {
            int at = random.Next(lines.Count);
            string line = lines[at];
            switch (random.Next(8))
            {
                case 0: (lines[at], lines[random.Next(lines.Count)]) = (lines[random.Next(lines.Count)], line); break;
                case 1: lines.Insert(at, line); break;
                case 2: lines.InsertRange(at, [".if 0", " bind :77 \\", "frontend x", " bogus", ".endif"]); break;
                case 3: (lines[at], _) = ($".if 1\n{line}\n.else\n bogus\n.endif", line); break;
                default: lines[at] = Respell(line, random); break;
            }
        }
        return Encoding.Latin1.GetBytes(string.Join('\n', lines));
    }

    private static string Respell(string line, Random random)
    {
        if (line.IndexOfAny(['"', '\'', '\\', '#', '$', '\r', '\0']) >= 0 || line.TrimStart().StartsWith('.')) return line;
        string[] words = line.Split(' ');
        int at = random.Next(words.Length);
        string word = words[at];
        if (word == "") return line.Replace(" ", " \t ", StringComparison.Ordinal);
        int cut = random.Next(word.Length);
        words[at] = random.Next(7) switch
        {
            0 => $"\"{word}\"",
            1 => $"'{word}'",
            2 => $"{word[..cut]}\\x{(int)word[cut]:x2}{word[(cut + 1)..]}",
            3 => $"{word[..cut]}\"{word[cut..]}\"",
            4 => $"{word[..cut]}\"\"''{word[cut..]}",
            5 when word.IndexOf('}', StringComparison.Ordinal) < 0 => $"\"{word[..cut]}${{NOTHERE-{word[cut..]}}}\"",
            _ => $"{word} \t",
        };
        return string.Join(' ', words) + (random.Next(3) == 0 ? " # bind :78" : "");
    }

    private static void Edit(List<byte> content, IReadOnlyList<byte[]> corpus, Random random)
    {
        int at = random.Next(content.Count + 1);
        switch (random.Next(9))
        {
            case 0:
                content.InsertRange(at, Pieces[random.Next(Pieces.Length)]);
                break;
            case 1:
                content.RemoveRange(at, Math.Min(random.Next(12), content.Count - at));
                break;
            case 2 when at < content.Count:
                content[at] = (byte)random.Next(256);
                break;
            case 3 when at < content.Count:
                content[at] ^= (byte)(1 << random.Next(8));
                break;
            case 4: // a line stands where another stood
                Swap(content, Line(content, at), Line(content, random.Next(content.Count + 1)));
                break;
            case 5: // a word less
                Cut(content, Word(content, at));
                break;
            case 6: // a word of another file
                byte[] other = corpus[random.Next(corpus.Count)];
                (int from, int to) = Word([.. other], random.Next(other.Length + 1));
                (int start, int end) = Word(content, at);
                content.RemoveRange(start, end - start);
                content.InsertRange(start, other.AsSpan(from, to - from).ToArray());
                break;
            case 7: // a line of another file
                byte[] third = corpus[random.Next(corpus.Count)];
                (int first, int last) = Line([.. third], random.Next(third.Length + 1));
                content.InsertRange(Line(content, at).Start, third.AsSpan(first, last - first).ToArray());
                break;
            default: // a line of ours before a line
                content.InsertRange(Line(content, at).Start, Pieces[random.Next(Pieces.Length)]);
                break;
        }
    }

    private static (int Start, int End) Line(List<byte> content, int at)
    {
        int start = at, end = at;
        while (start > 0 && content[start - 1] != '\n') start--;
        while (end < content.Count && content[end++] != '\n') { }
        return (start, end);
    }

    private static (int Start, int End) Word(List<byte> content, int at)
    {
        int start = at, end = at;
        while (start > 0 && content[start - 1] > ' ') start--;
        while (end < content.Count && content[end] > ' ') end++;
        return (start, end);
    }

    private static void Cut(List<byte> content, (int Start, int End) range) => content.RemoveRange(range.Start, range.End - range.Start);

    private static void Swap(List<byte> content, (int Start, int End) one, (int Start, int End) two)
    {
        if (one.Start > two.Start) (one, two) = (two, one);
        if (one.End > two.Start) return;
        byte[] first = [.. content[one.Start..one.End]], second = [.. content[two.Start..two.End]];
        Cut(content, two);
        content.InsertRange(two.Start, first);
        Cut(content, one);
        content.InsertRange(one.Start, second);
    }
}
