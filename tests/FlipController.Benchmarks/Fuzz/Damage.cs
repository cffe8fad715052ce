using System.Buffers.Binary;
using System.Text;

namespace FlipController.Fuzz;

/// <summary>Spoils a sample: the same for the same state of the random numbers.</summary>
internal static class Damage
{
    private const int MostEdits = 8, LongestInput = 32 * 1024, MostRepeats = 3000;

    /// <summary>What readers stumble over: ends of number ranges, beginnings without ends, bytes that are no text.</summary>
    private static readonly byte[][] s_words =
    [
        .. new[]
        {
            "0", "-0", "-1", "1", "127", "128", "255", "256", "32768", "65535", "65536", "2147483647", "2147483648", "-2147483648", "4294967295",
            "4294967296", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "99999999999999999999999", "1e999", "NaN", "0x",
            "{", "}", "[", "]", "{}", "[]", "null", "true", "\"", "\"\"", "'", "\\", "\\u", "\\ud800", "\\x", "$", "${", ":", "::", ",", "=", "#", "<",
            ">", "> ", "\n> ", "\n", "\n\n", "\r\n", "\t", " ", "\0", "&a ", "*a", "!!t ", "|", "- ", "---", "%", "/", "..", "~", "٣", "﻿",
        }.Select(Encoding.UTF8.GetBytes),
        [0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xff, 0xff, 0xff, 0xff], [0xff, 0xff, 0xff, 0x7f], [0, 0, 0, 0x80], [0, 0], [4, 0], [3, 0], [0xff, 0x7f], [0, 0x80],
    ];

    public static byte[] Make(IReadOnlyList<byte[]> samples, Random random)
    {
        if (random.Next(50) == 0)
        {
            byte[] noise = new byte[random.Next(300)];
            random.NextBytes(noise);
            return noise;
        }
        List<byte> content = [.. samples[random.Next(samples.Count)]];
        for (int left = random.Next(2) == 0 ? 1 : random.Next(1, MostEdits + 1); left > 0; left--) Edit(content, samples, random);
        if (content.Count > LongestInput) content.RemoveRange(LongestInput, content.Count - LongestInput);
        return [.. content];
    }

    private static void Edit(List<byte> content, IReadOnlyList<byte[]> samples, Random random)
    {
        int at = random.Next(content.Count + 1);
        int length = Math.Min(random.Next(1, random.Next(4) == 0 ? 400 : 12), content.Count - at);
        switch (random.Next(13))
        {
            case 0 when at < content.Count:
                content[at] ^= (byte)(1 << random.Next(8));
                break;
            case 1 when at < content.Count:
                content[at] = (byte)random.Next(256);
                break;
            case 2:
                content.RemoveRange(at, length);
                break;
            case 3:
                content.RemoveRange(at, content.Count - at);
                break;
            case 4: // said twice
                content.InsertRange(random.Next(content.Count + 1), content.GetRange(at, length));
                break;
            case 5: // the rest is another one's
                byte[] other = samples[random.Next(samples.Count)];
                content.RemoveRange(at, content.Count - at);
                content.AddRange(other.AsSpan(random.Next(other.Length + 1)));
                break;
            case 6: // a piece of another one
                byte[] third = samples[random.Next(samples.Count)];
                int from = random.Next(third.Length + 1);
                content.InsertRange(at, third.AsSpan(from, Math.Min(random.Next(1, 60), third.Length - from)));
                break;
            case 7:
                Number(content, at, random);
                break;
            case 8: // a number of a binary message
                byte[] number = new byte[random.Next(3) switch { 0 => 1, 1 => 2, _ => 4 }];
                BinaryPrimitives.TryWriteUInt16LittleEndian(number, (ushort)random.Next(64));
                if (random.Next(2) == 0) random.NextBytes(number);
                for (int i = 0; i < number.Length && at + i < content.Count; i++) content[at + i] = number[i];
                break;
            case 9 when random.Next(8) == 0: // many of the same, one in another
                byte[] word = s_words[random.Next(s_words.Length)];
                byte[] many = new byte[Math.Min(word.Length * random.Next(MostRepeats), LongestInput)];
                for (int i = 0; i < many.Length; i++) many[i] = word[i % word.Length];
                content.InsertRange(at, many);
                break;
            case 10: // in the place of something
                content.RemoveRange(at, length);
                content.InsertRange(at, s_words[random.Next(s_words.Length)]);
                break;
            default:
                content.InsertRange(at, s_words[random.Next(s_words.Length)]);
                break;
        }
    }

    /// <summary>Another number stands where one stood, the next after a place.</summary>
    private static void Number(List<byte> content, int at, Random random)
    {
        int start = at < content.Count ? content.FindIndex(at, b => b is >= (byte)'0' and <= (byte)'9') : -1;
        if (start < 0) return;
        int end = start;
        while (end < content.Count && content[end] is >= (byte)'0' and <= (byte)'9') end++;
        content.RemoveRange(start, end - start);
        content.InsertRange(start, s_words[random.Next(22)]);
    }
}
