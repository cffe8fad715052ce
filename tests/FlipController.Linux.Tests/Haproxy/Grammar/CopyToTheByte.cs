using System.Text;
using FlipController.Linux.Haproxy;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy.Grammar;

/// <summary>Every line of the user's is in the copy once, in its order: as it was, or said to have changed, or as a comment.</summary>
internal static class CopyToTheByte
{
    public static void Check(SourceFile source, RenderedFile copy)
    {
        string[] before = Lines(source.Content), after = Lines(copy.Content);
        Assert.Equal(after.Length, copy.Lines.Length);
        Assert.Equal(copy.Lines.Select(l => l.Number).Order(), copy.Lines.Select(l => l.Number));
        ILookup<int, int> placesOf = Enumerable.Range(0, after.Length).ToLookup(i => copy.Lines[i].Number);
        for (int number = 1; number <= before.Length; number++)
        {
            string line = before[number - 1];
            int[] places = [.. placesOf[number]];
            // What else stands under this number is ours: above the first line of a file, below any other.
            int[] its = [.. places.Where(i => after[i] == line || after[i] == $"# {line}" || copy.Lines[i].Changed.Length > 0
                || (after[i] == line + "\n" && places.Length > 1))];
            Assert.True(its.Length == 1 || (its.Length > 1 && its.Any(i => after[i] == line)),
                $"line {number} is \"{line}\" and became \"{string.Concat(places.Select(i => after[i]))}\"");
            Assert.All(places.Except(its), i => Assert.True(after[i].StartsWith("    ", StringComparison.Ordinal) || after[i] == "global\n", after[i]));
        }
        Assert.All(copy.Lines, l => Assert.InRange(l.Number, 1, Math.Max(1, before.Length)));
    }

    private static string[] Lines(byte[] content)
    {
        string text = Encoding.Latin1.GetString(content);
        List<string> lines = [];
        for (int at = 0; at < text.Length;)
        {
            int end = text.IndexOf('\n', at) is >= 0 and int newline ? newline + 1 : text.Length;
            lines.Add(text[at..end]);
            at = end;
        }
        return [.. lines];
    }
}
