using System.Text;
using FlipController.Linux.Haproxy;
using Xunit;

namespace FlipController.Linux.Tests.Haproxy.Grammar;

/// <summary>Every line of the user's is in the copy, in its order: as it was, or said to have changed, or as a comment.</summary>
internal static class CopyToTheByte
{
    public static void Check(SourceFile source, RenderedFile copy)
    {
        string[] before = Lines(source.Content), after = Lines(copy.Content);
        Assert.Equal(after.Length, copy.Lines.Length);
        int next = 1;
        for (int i = 0; i < after.Length; i++)
        {
            RenderedLine origin = copy.Lines[i];
            bool own = origin.Number < next || (origin.Number == next && i + 1 < after.Length && copy.Lines[i + 1].Number == next && after[i] != before[next - 1]);
            if (own) continue;
            Assert.Equal(next, origin.Number);
            string line = before[next++ - 1];
            // A last line without its end gets one when something of ours follows.
            if (after[i] != line && after[i] != line + "\n") Assert.True(origin.Changed.Length > 0 || after[i].StartsWith('#'), $"line {origin.Number} is \"{line}\" and became \"{after[i]}\"");
        }
        Assert.Equal(before.Length, next - 1);
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
