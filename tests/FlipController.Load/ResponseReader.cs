using System.Buffers.Text;
using System.Text;

namespace FlipController.Load;

/// <summary>One HTTP/1.1 response after another, in whatever pieces they come.</summary>
internal sealed class ResponseReader
{
    private enum Part
    {
        Head,
        Length,
        UntilEnd,
        ChunkSize,
        ChunkData,
        Trailer,
        Done,
    }

    private const int MaxLine = 16 * 1024;

    private Part _part;
    private byte[] _line = []; // a head or a chunk line that did not come in one piece
    private int _lineLength;
    private long _remaining;

    public int Status { get; private set; }

    public bool Closes { get; private set; }

    /// <summary>The counted header, as the tally keeps it; empty when it is not there.</summary>
    public byte[] ServedBy { get; private set; } = [];

    public long BodyBytes { get; private set; }

    public bool Started { get; private set; }

    public bool Done => _part == Part.Done;

    /// <summary>What is not HTTP about it, when something is not.</summary>
    public string? Malformed { get; private set; }

    public void Begin()
    {
        _part = Part.Head;
        _lineLength = 0;
        (Status, Closes, BodyBytes, Started, Malformed) = (0, false, 0, false, null);
        ServedBy = [];
    }

    /// <summary>A body without a length ends with the connection; any other is cut by it.</summary>
    public bool EndsHere()
    {
        if (_part == Part.UntilEnd) _part = Part.Done;
        return Done;
    }

    /// <returns>How many bytes were of this response.</returns>
    public int Feed(ReadOnlySpan<byte> data, BodyCheck check, Tally servedBy)
    {
        var all = data.Length;
        while (!data.IsEmpty && !Done && Malformed is null)
        {
            Started = true;
            switch (_part)
            {
                case Part.Head:
                    if (TakeThrough(ref data, "\r\n\r\n"u8) is { IsEmpty: false } head) ReadHead(head, servedBy);
                    break;
                case Part.Length:
                case Part.ChunkData:
                    var body = data[..(int)Math.Min(_remaining, data.Length)];
                    Body(body, check);
                    data = data[body.Length..];
                    _remaining -= body.Length;
                    if (_remaining == 0) _part = _part == Part.Length ? Part.Done : Part.ChunkSize;
                    break;
                case Part.UntilEnd:
                    Body(data, check);
                    data = default;
                    break;
                case Part.ChunkSize:
                    if (TakeThrough(ref data, "\r\n"u8) is { IsEmpty: false } size) ReadChunkSize(size);
                    break;
                case Part.Trailer:
                    if (TakeThrough(ref data, "\r\n"u8) is { Length: 2 }) _part = Part.Done;
                    break;
                case Part.Done:
                    break;
            }
        }
        return all - data.Length;
    }

    private void Body(ReadOnlySpan<byte> part, BodyCheck check)
    {
        BodyBytes += part.Length;
        check.Feed(part);
    }

    /// <summary>Everything through the delimiter once it is all there, from the data itself when it came in one piece.</summary>
    private ReadOnlySpan<byte> TakeThrough(ref ReadOnlySpan<byte> data, ReadOnlySpan<byte> delimiter)
    {
        if (_lineLength == 0 && data.IndexOf(delimiter) is var end and >= 0)
        {
            var whole = data[..(end + delimiter.Length)];
            data = data[whole.Length..];
            return whole;
        }
        if (_line.Length == 0) _line = new byte[1024];
        while (!data.IsEmpty)
        {
            if (_lineLength == _line.Length)
            {
                if (_lineLength == MaxLine)
                {
                    Malformed = $"a head or chunk line longer than {MaxLine} bytes";
                    return default;
                }
                Array.Resize(ref _line, _line.Length * 2);
            }
            _line[_lineLength++] = data[0];
            data = data[1..];
            if (_line.AsSpan(0, _lineLength).EndsWith(delimiter))
            {
                var whole = _line.AsSpan(0, _lineLength);
                _lineLength = 0;
                return whole;
            }
        }
        return default;
    }

    private void ReadHead(ReadOnlySpan<byte> head, Tally servedBy)
    {
        if (head.Length < 13 || !head.StartsWith("HTTP/1."u8) || !Utf8Parser.TryParse(head[9..12], out int status, out var digits)
            || digits != 3)
        {
            Malformed = $"not an HTTP/1 response: {Encoding.Latin1.GetString(head[..Math.Min(head.Length, 40)])}";
            return;
        }
        Status = status;
        Closes = head[7] == '0';
        long? length = null;
        var chunked = false;
        head = head[(head.IndexOf("\r\n"u8) + 2)..];
        while (head.IndexOf("\r\n"u8) is var end and > 0)
        {
            var line = head[..end];
            head = head[(end + 2)..];
            var colon = line.IndexOf((byte)':');
            if (colon < 0) continue;
            var name = line[..colon];
            var value = line[(colon + 1)..].Trim((byte)' ');
            if (Ascii.EqualsIgnoreCase(name, "content-length"u8))
            {
                if (!Utf8Parser.TryParse(value, out long n, out var used) || used != value.Length || n < 0)
                    Malformed = "a Content-Length that is no number";
                length = n;
            }
            else if (Ascii.EqualsIgnoreCase(name, "transfer-encoding"u8))
            {
                chunked = Ascii.EqualsIgnoreCase(value, "chunked"u8);
            }
            else if (Ascii.EqualsIgnoreCase(name, "connection"u8))
            {
                Closes = Ascii.EqualsIgnoreCase(value, "close"u8) || (Closes && !Ascii.EqualsIgnoreCase(value, "keep-alive"u8));
            }
            else if (servedBy.IsHeader(name))
            {
                ServedBy = servedBy.Keep(value);
            }
        }

        if (status is >= 100 and < 200 && status != 101) _part = Part.Head; // interim: the response proper follows
        else if (status is 101 or 204 or 304) _part = Part.Done;
        else if (chunked) _part = Part.ChunkSize;
        else if (length is { } l) (_remaining, _part) = (l, l == 0 ? Part.Done : Part.Length);
        else (_part, Closes) = (Part.UntilEnd, true);
    }

    private void ReadChunkSize(ReadOnlySpan<byte> line)
    {
        if (line.Length == 2) return; // the end of the chunk before
        if (!Utf8Parser.TryParse(line, out _remaining, out _, 'x') || _remaining < 0) Malformed = "a chunk size that is no number";
        _part = _remaining == 0 ? Part.Trailer : Part.ChunkData;
    }
}

/// <summary>How often each value of one header came, without a string for every response.</summary>
internal sealed class Tally(string header)
{
    // A header that differs in every response must not eat the memory.
    private const int MaxValues = 64;

    private sealed class Entry(byte[] value)
    {
        public readonly byte[] Value = value;
        public long Count, First = long.MaxValue, Last = long.MinValue;
    }

    private readonly byte[] _header = Encoding.ASCII.GetBytes(header);
    private readonly List<Entry> _entries = [];
    private readonly byte[] _others = "(other values)"u8.ToArray();

    public bool IsHeader(ReadOnlySpan<byte> name) => Ascii.EqualsIgnoreCase(name, _header);

    public byte[] Keep(ReadOnlySpan<byte> value)
    {
        foreach (var known in _entries)
        {
            if (value.SequenceEqual(known.Value)) return known.Value;
        }
        var kept = _entries.Count < MaxValues ? value.ToArray() : _others;
        if (_entries.All(e => e.Value != kept)) _entries.Add(new Entry(kept));
        return kept;
    }

    public void Count(byte[] value, long scheduled)
    {
        foreach (var entry in _entries)
        {
            if (!ReferenceEquals(entry.Value, value)) continue;
            entry.Count++;
            entry.First = Math.Min(entry.First, scheduled);
            entry.Last = Math.Max(entry.Last, scheduled);
        }
    }

    public IReadOnlyDictionary<string, Served> Read(long start) => _entries.Where(e => e.Count > 0).ToDictionary(
        e => Encoding.Latin1.GetString(e.Value), e => new Served(e.Count, (e.First - start) / 1e6, (e.Last - start) / 1e6));
}
