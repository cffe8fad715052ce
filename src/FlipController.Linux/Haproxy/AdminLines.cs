namespace FlipController.Linux.Haproxy;

/// <summary>Looks at one line of an answer, without its end; what it wants to keep it copies.</summary>
public delegate void LineVisitor(ReadOnlySpan<byte> line);

/// <summary>
/// Cuts what comes from HAProxy into lines and prompts (<c>&gt; </c> where a line begins) in one buffer that is used again: an answer of
/// any length is never held. A prompt may stand before an answer in the same line: <c>&gt; No such session.</c>
/// </summary>
internal sealed class AdminLines
{
    private const int LongestLine = 1 << 20;
    private byte[] _buffer = new byte[65536];
    private int _begin, _end;

    internal enum Piece { None, Line, Prompt }

    /// <summary>Where to read to; then <see cref="Added"/>.</summary>
    /// <exception cref="IOException">A line of a megabyte.</exception>
    internal Memory<byte> Room()
    {
        if (_begin > 0)
        {
            _buffer.AsSpan(_begin, _end - _begin).CopyTo(_buffer);
            (_begin, _end) = (0, _end - _begin);
        }
        if (_end == _buffer.Length)
        {
            if (_end >= LongestLine) throw new IOException($"a line of the answer has more than {LongestLine} bytes");
            Array.Resize(ref _buffer, _buffer.Length * 2);
        }
        return _buffer.AsMemory(_end);
    }

    internal void Added(int count) => _end += count;

    /// <summary>The next line or prompt; a prompt that is not <paramref name="interactive"/> is a line like others.</summary>
    internal Piece Next(bool interactive, out ReadOnlySpan<byte> line)
    {
        line = default;
        ReadOnlySpan<byte> rest = _buffer.AsSpan(_begin, _end - _begin);
        if (interactive && rest.StartsWith("> "u8))
        {
            _begin += 2;
            return Piece.Prompt;
        }
        int length = rest.IndexOf((byte)'\n');
        if (length < 0) return Piece.None;
        line = rest[..length];
        _begin += length + 1;
        return Piece.Line;
    }

    /// <summary>Nothing is left of a line whose end did not come.</summary>
    internal bool IsEmpty => _begin == _end;
}
