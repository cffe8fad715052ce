using System.Buffers;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace FlipController.Daemon.Peer;

/// <summary>
/// How asks and answers are sealed with the key that both nodes have (HMAC-SHA256, RFC 2104). No clock is compared: an ask is good for one
/// run of the daemon it goes to (<c>boot</c>) and for one time (<c>counter</c>), an answer for the one ask it answers.
/// <code>
///   ask:    key, "ask" | path | boot | client | counter | sha256(body)
///   answer: key, "answer" | seal of the ask | status | sha256(body)
/// </code>
/// The parts are joined by newlines, which none of them can have.
/// </summary>
internal sealed class PeerSeal(byte[] key)
{
    public const string Client = "Flip-Client", Boot = "Flip-Boot", Counter = "Flip-Counter", Body = "Flip-Body", Seal = "Flip-Seal";
    public const string Root = "/v1/peer/", Hello = Root + "hello";
    public const int LargestBodyBytes = 64 * 1024 * 1024;

    private static readonly SearchValues<char> s_nameCharacters = SearchValues.Create("abcdefghijklmnopqrstuvwxyz0123456789-/");

    public string OfAsk(string path, string boot, string client, ulong counter, string bodyHash) =>
        Sealed($"ask\n{path}\n{boot}\n{client}\n{counter.ToString(CultureInfo.InvariantCulture)}\n{bodyHash}");

    public string OfAnswer(string askSeal, int status, string bodyHash) =>
        Sealed($"answer\n{askSeal}\n{status.ToString(CultureInfo.InvariantCulture)}\n{bodyHash}");

    public static string Hash(ReadOnlySpan<byte> body) => Convert.ToHexStringLower(SHA256.HashData(body));

    /// <summary>In the same time wherever they differ.</summary>
    public static bool Same(string expected, string? told) =>
        told is not null && CryptographicOperations.FixedTimeEquals(Encoding.ASCII.GetBytes(expected), Encoding.ASCII.GetBytes(told));

    /// <summary>16 bytes that nobody can guess or meet again.</summary>
    public static string RandomId() => Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(16));

    public static bool IsId(string text) => text.Length == 32 && text.All(char.IsAsciiHexDigitLower);

    public static bool IsPath(string path) =>
        path.StartsWith(Root, StringComparison.Ordinal) && path.AsSpan(Root.Length).IndexOfAnyExcept(s_nameCharacters) < 0;

    private string Sealed(string text) => Convert.ToHexStringLower(HMACSHA256.HashData(key, Encoding.ASCII.GetBytes(text)));
}
