using System.Collections.Immutable;
using System.Globalization;
using System.Net;
using System.Numerics;
using System.Text;
using System.Text.RegularExpressions;

namespace FlipController.Core;

/// <summary>What one value must be. What values must be to each other is in <see cref="ConfigurationReader"/>.</summary>
internal static partial class ConfigurationRules
{
    /// <summary>unix(7): sun_path has 108 bytes, the last one a NUL.</summary>
    public const int SocketPathBytes = 107;

    public static readonly ImmutableArray<string> Placeholders = ["pair", "from", "to", "slot", "reason", "flip"];

    public static Rule<TimeSpan> Duration(TimeSpan least, TimeSpan most) => (string text, out TimeSpan value) =>
        !Durations.TryParse(text, out value)
            ? $"a duration such as 250ms, 30s, 10m or 1h, between {Durations.Format(least)} and {Durations.Format(most)}"
            : value < least || value > most ? $"between {Durations.Format(least)} and {Durations.Format(most)}" : null;

    public static Rule<int> Whole(int least, int most) => (string text, out int value) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out value) && value >= least && value <= most
            ? null : $"a whole number between {least} and {most}";

    public static Rule<TimeSpan> SettleTime { get; } = Duration(TimeSpan.FromMilliseconds(10), TimeSpan.FromMinutes(1));

    public static string? Ratio(string text, out double value) =>
        double.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out value) && value is >= 0 and <= 1
            ? null : "a number between 0 and 1";

    public static string? YesNo(string text, out bool value)
    {
        value = text == "true";
        return text is "true" or "false" ? null : "true or false";
    }

    /// <summary>One of the named values; <paramref name="absent"/> are in the manual's words but not in this version.</summary>
    public static Rule<T> OneOf<T>(IReadOnlyList<(string Name, T Value)> named, params string[] absent) => (string text, out T value) =>
    {
        value = named.FirstOrDefault(n => n.Name == text).Value;
        if (named.Any(n => n.Name == text)) return null;
        string must = Either(named.Select(n => n.Name));
        return absent.Length == 0 ? must
            : $"{must} ({Listed(absent)} {(absent.Length == 1 ? "is" : "are")} not available in this version)";
    };

    public static string? AbsolutePath(string text, out string value)
    {
        // "." and ".." would make one directory look like two; a trailing slash is only noise.
        value = text.Length > 1 ? text.TrimEnd('/') : text;
        return text.StartsWith('/') && value.Length > 1 && !text.Any(char.IsControl) && !text.Split('/').Any(p => p is "." or "..")
            ? null : "an absolute path, without . or ..";
    }

    public static string? SocketPath(string text, out string value)
    {
        if (AbsolutePath(text, out value) is { } must) return must;
        return Encoding.UTF8.GetByteCount(value) <= SocketPathBytes ? null
            : $"a path of at most {SocketPathBytes} bytes (it has {Encoding.UTF8.GetByteCount(value)}), as the kernel has no room for more";
    }

    public static string? Program(string text, out string value)
    {
        value = text;
        bool isName = text.Length > 0 && !text.Contains('/') && !text.Any(c => char.IsControl(c) || char.IsWhiteSpace(c));
        return isName || AbsolutePath(text, out value) is null ? null : "the name of a program, or its absolute path";
    }

    public static string? EnvironmentFile(string text, out string value)
    {
        string? must = AbsolutePath(text.TrimStart('-'), out string path);
        value = text.StartsWith('-') ? $"-{path}" : path;
        return must is null && !text.StartsWith("--", StringComparison.Ordinal)
            ? null : "an absolute path, without . or .., with a leading - if the file may be absent";
    }

    public static string? FrontAddress(string text, out Service value)
    {
        bool parsed = Service.TryParse(text, out Service? service);
        value = service!;
        return parsed ? null : "a front address, such as :80, 10.0.0.1:443 or \"[::]:80\" (both families)";
    }

    public static string? SignalName(string text, out StopSignal? value)
    {
        string name = text.StartsWith("SIG", StringComparison.Ordinal) ? text[3..] : text;
        value = Enum.GetValues<StopSignal>().Where(s => s.ToString().ToUpperInvariant() == name).Select(s => (StopSignal?)s).FirstOrDefault();
        return value is null ? Either(Enum.GetNames<StopSignal>().Select(n => n.ToUpperInvariant()).Order(StringComparer.Ordinal)) : null;
    }

    /// <summary>A path that may begin with {directory} and have other placeholders in it.</summary>
    public static string? FilledPath(string text, out string value)
    {
        value = text;
        return AbsolutePath(text.StartsWith("{directory}/", StringComparison.Ordinal) ? text["{directory}".Length..] : text, out _);
    }

    public static string? VariableValue(string text, out string value)
    {
        value = text;
        return text.Contains('\0') ? "text without a NUL" : null;
    }

    public static string? PeerName(string text, out string? value)
    {
        value = text;
        return text.Length is > 0 and <= 255 && text.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '-' or '_' or ':')
            ? null : "the name of a peer: letters, digits, ., -, _ and :";
    }

    /// <summary>dev_valid_name() in net/core/dev.c; what follows a colon would be an alias of an address, and no device.</summary>
    public static string? DeviceName(string text, out string value)
    {
        value = text;
        return text.Length is > 0 and <= 15 && text is not ("." or "..") && !text.Any(c => c is '/' or ':' || char.IsWhiteSpace(c) || char.IsControl(c))
            ? null : "the name of a network device: at most 15 characters, none of them a space, / or :";
    }

    public static string? Group(string text, out string value)
    {
        value = text;
        return GroupName().IsMatch(text) ? null : "the name of a group";
    }

    public static string? Listen(string text, out string value)
    {
        value = text;
        return IPEndPoint.TryParse(text, out IPEndPoint? end) && end.Port > 0 && text.Contains(':')
            && (end.AddressFamily == System.Net.Sockets.AddressFamily.InterNetwork || text.StartsWith('['))
            ? null : "ADDRESS:PORT, such as 127.0.0.1:9107 or [::1]:9107";
    }

    /// <summary>It is asked from there, too: an address that any node may have is none.</summary>
    public static string? NodeAddress(string text, out string value)
    {
        if (Listen(text, out value) is { } must) return must;
        IPAddress address = IPEndPoint.Parse(text).Address;
        return address.Equals(IPAddress.Any) || address.Equals(IPAddress.IPv6Any) ? "ADDRESS:PORT of one node, not of every address" : null;
    }

    public static string? Vip(string text, out IPAddress value)
    {
        // IPAddress takes "1" and "1.2" too, as the C library does.
        bool parsed = IPAddress.TryParse(text, out IPAddress? address) && (address.ToString() == text || text.Contains(':'));
        value = address ?? IPAddress.None;
        return parsed && !value.Equals(IPAddress.Any) && !value.Equals(IPAddress.IPv6Any) && !IPAddress.IsLoopback(value) && value.ScopeIdOrZero() == 0
            ? null : "an address such as 10.0.0.100 or fd00::100, without a prefix length";
    }

    private static long ScopeIdOrZero(this IPAddress address) =>
        address.AddressFamily == System.Net.Sockets.AddressFamily.InterNetworkV6 ? address.ScopeId : 0;

    public static string? OptionalDevice(string text, out string value)
    {
        value = text;
        return text.Length == 0 ? null : DeviceName(text, out value);
    }

    /// <summary>As it may stand between the quotes of a line of keepalived's FIFO.</summary>
    public static string? VrrpName(string text, out string value)
    {
        value = text;
        return text.Length is > 0 and <= 255 && !text.Any(c => c == '"' || char.IsControl(c))
            ? null : "a name of keepalived's configuration: 1 to 255 characters, without quotes";
    }

    public static string? MarkMask(string text, out uint value)
    {
        bool parsed = text.StartsWith("0x", StringComparison.OrdinalIgnoreCase)
            ? uint.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out value)
            : uint.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out value);
        // One run of ones: shifted down to bit 0 it is one less than a power of two.
        uint run = value == 0 ? 0 : value >> BitOperations.TrailingZeroCount(value);
        return parsed && BitOperations.PopCount(value) >= 8 && (run & (run + 1)) == 0
            ? null : "one run of at least 8 bits, such as 0x00ffff00";
    }

    public static string? ServiceText(string text, out string value)
    {
        value = text;
        return Service.TryParse(text, out _) ? null : "a front address, such as :80 or 10.0.0.1:443";
    }

    public static string? HttpPath(string text, out string value)
    {
        value = text;
        return text.StartsWith('/') && text.All(c => c is > ' ' and < (char)0x7f) ? null : "a path that begins with / and has no blanks";
    }

    public static string? HostName(string text, out string? value)
    {
        value = text;
        return text.Length is > 0 and <= 255 && text.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '-' or '_' or ':' or '[' or ']')
            ? null : "a host name";
    }

    public static string? StatusRange(string text, out (int From, int To) value)
    {
        Match match = Range().Match(text);
        value = default;
        if (match.Success)
        {
            int from = int.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture);
            value = (from, match.Groups[2].Success ? int.Parse(match.Groups[2].Value, CultureInfo.InvariantCulture) : from);
        }
        return match.Success && value.From is >= 100 and <= 599 && value.To >= value.From && value.To <= 599
            ? null : "a status between 100 and 599, or a range of them such as 200-399";
    }

    public static string? HookArgument(string text, out string value)
    {
        value = text;
        Match? unknown = Placeholder().Matches(text).FirstOrDefault(m => !Placeholders.Contains(m.Groups[1].Value));
        return unknown is null ? null
            : $"without {unknown.Value}, which is none of {string.Join(", ", Placeholders.Select(p => $"{{{p}}}"))}";
    }

    public static bool IsVariableName(string name) => VariableName().IsMatch(name);

    public static bool IsPairName(string name) => PairName().IsMatch(name);

    public static string Listed(IEnumerable<string> names) => Joined(names, "and");

    private static string Either(IEnumerable<string> names) => Joined(names, "or");

    private static string Joined(IEnumerable<string> names, string last)
    {
        string[] all = [.. names];
        return all.Length == 1 ? all[0] : $"{string.Join(", ", all[..^1])} {last} {all[^1]}";
    }

    [GeneratedRegex(@"\A[a-z0-9][a-z0-9_-]{0,31}\z")]
    private static partial Regex PairName();

    [GeneratedRegex(@"\A[A-Za-z_][A-Za-z0-9_]*\z")]
    private static partial Regex VariableName();

    [GeneratedRegex(@"\A[A-Za-z_][A-Za-z0-9_.-]{0,31}\z")]
    private static partial Regex GroupName();

    [GeneratedRegex(@"\A([0-9]{3})(?:-([0-9]{3}))?\z")]
    private static partial Regex Range();

    // Only what looks like a placeholder: braces of JSON in an argument are the operator's own.
    [GeneratedRegex(@"\{([A-Za-z_]+)\}")]
    private static partial Regex Placeholder();
}
