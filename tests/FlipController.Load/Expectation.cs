using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace FlipController.Load;

/// <summary>What a response's body must be.</summary>
public abstract record Expectation
{
    public static readonly Expectation Any = new AnyBody();

    /// <summary>As `--expect` takes it; null when anything goes.</summary>
    public abstract string? Text { get; }

    public static Expectation Contains(string text) => new ContainedText(text);

    public static Expectation Length(long bytes) => new ExactLength(bytes);

    public static Expectation Sha256(string hex) => new Hash(hex.ToLowerInvariant());

    /// <summary>What the backend's /bytes/LENGTH?seed=SEED answers.</summary>
    public static Expectation Bytes(long length, ulong seed) => new SeededBytes(length, seed);

    /// <summary>`length:N`, `sha256:HEX`, `bytes:N:SEED`; anything else is a text the body must contain, `text:…` too.</summary>
    public static Expectation Parse(string text)
    {
        var parts = text.Split(':');
        return parts switch
        {
            ["length", var n] when long.TryParse(n, NumberStyles.None, CultureInfo.InvariantCulture, out var length) => Length(length),
            ["sha256", { Length: 64 } hex] => Sha256(hex),
            ["bytes", var n, var s] when long.TryParse(n, NumberStyles.None, CultureInfo.InvariantCulture, out var length)
                && ulong.TryParse(s, NumberStyles.None, CultureInfo.InvariantCulture, out var seed) => Bytes(length, seed),
            ["text", ..] => Contains(text["text:".Length..]),
            _ => Contains(text),
        };
    }

    /// <summary>A check for one body at a time, fed in pieces; it is used again for the next body.</summary>
    internal abstract BodyCheck NewCheck();

    private sealed record AnyBody : Expectation
    {
        public override string? Text => null;
        internal override BodyCheck NewCheck() => BodyCheck.None;
    }

    private sealed record ContainedText(string Wanted) : Expectation
    {
        public override string Text => $"text:{Wanted}";
        internal override BodyCheck NewCheck() => new ContainsCheck(Encoding.UTF8.GetBytes(Wanted));
    }

    private sealed record ExactLength(long Size) : Expectation
    {
        public override string Text => string.Create(CultureInfo.InvariantCulture, $"length:{Size}");
        internal override BodyCheck NewCheck() => new LengthCheck(Size);
    }

    private sealed record Hash(string Hex) : Expectation
    {
        public override string Text => $"sha256:{Hex}";
        internal override BodyCheck NewCheck() => new HashCheck(Convert.FromHexString(Hex));
    }

    private sealed record SeededBytes(long Size, ulong Seed) : Expectation
    {
        public override string Text => string.Create(CultureInfo.InvariantCulture, $"bytes:{Size}:{Seed}");
        internal override BodyCheck NewCheck() => new BytesCheck(Size, Seed);
    }
}

internal abstract class BodyCheck
{
    public static readonly BodyCheck None = new NoCheck();

    public virtual void Begin()
    {
    }

    public abstract void Feed(ReadOnlySpan<byte> part);

    /// <summary>Null when the body was what it should be, otherwise what was wrong.</summary>
    public abstract string? Verdict();

    private sealed class NoCheck : BodyCheck
    {
        public override void Feed(ReadOnlySpan<byte> part)
        {
        }

        public override string? Verdict() => null;
    }
}

internal sealed class LengthCheck(long expected) : BodyCheck
{
    private long _length;

    public override void Begin() => _length = 0;

    public override void Feed(ReadOnlySpan<byte> part) => _length += part.Length;

    public override string? Verdict() => _length == expected ? null : $"{_length} bytes of body, {expected} expected";
}

internal sealed class BytesCheck(long expected, ulong seed) : BodyCheck
{
    private long _position;
    private long _wrongAt;

    public override void Begin() => (_position, _wrongAt) = (0, -1);

    public override void Feed(ReadOnlySpan<byte> part)
    {
        if (_wrongAt < 0 && !Content.Matches(part, seed, _position)) _wrongAt = _position;
        _position += part.Length;
    }

    public override string? Verdict() =>
        _wrongAt >= 0 ? $"a wrong byte at or after offset {_wrongAt}"
        : _position != expected ? $"{_position} bytes of body, {expected} expected"
        : null;
}

internal sealed class HashCheck(byte[] expected) : BodyCheck
{
    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);

    public override void Begin() => _hash.GetHashAndReset();

    public override void Feed(ReadOnlySpan<byte> part) => _hash.AppendData(part);

    public override string? Verdict() => _hash.GetHashAndReset() is var found && found.AsSpan().SequenceEqual(expected)
        ? null
        : $"a body with SHA-256 {Convert.ToHexStringLower(found)}";
}

/// <summary>Knuth-Morris-Pratt, so that a text cut in two by the network is found without keeping the body.</summary>
internal sealed class ContainsCheck : BodyCheck
{
    private readonly byte[] _wanted;
    private readonly int[] _fallback;
    private int _matched;

    public ContainsCheck(byte[] wanted)
    {
        _wanted = wanted;
        _fallback = new int[wanted.Length];
        for (int i = 1, k = 0; i < wanted.Length; i++)
        {
            while (k > 0 && wanted[i] != wanted[k]) k = _fallback[k - 1];
            if (wanted[i] == wanted[k]) k++;
            _fallback[i] = k;
        }
    }

    public override void Begin() => _matched = 0;

    public override void Feed(ReadOnlySpan<byte> part)
    {
        foreach (var b in part)
        {
            if (_matched == _wanted.Length) return;
            while (_matched > 0 && b != _wanted[_matched]) _matched = _fallback[_matched - 1];
            if (b == _wanted[_matched]) _matched++;
        }
    }

    public override string? Verdict() =>
        _matched == _wanted.Length ? null : $"a body without \"{Encoding.UTF8.GetString(_wanted)}\"";
}
