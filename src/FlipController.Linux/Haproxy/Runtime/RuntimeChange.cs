using System.Collections.Immutable;
using System.Text;

namespace FlipController.Linux.Haproxy.Runtime;

/// <summary>Something an operator changed on the active one's admin socket.</summary>
/// <param name="Subject">What was changed: <c>server app/s1</c>, <c>map /etc/haproxy/hosts.map</c>, <c>process</c>.</param>
/// <param name="Text">How, for a person, after the subject: "is in maintenance".</param>
/// <param name="Commands">What makes it so on the standby; empty: it is so already, or cannot be made.</param>
/// <param name="Why">Why the standby cannot have it; null: it can.</param>
/// <param name="IsLate">It keeps the gate from passing (a frontend that does not listen), so it is made right before the switch.</param>
public sealed record RuntimeChange(string Subject, string Text, ImmutableArray<string> Commands, string? Why = null, bool IsLate = false)
{
    /// <summary>For people and records: what HAProxy holds as bytes is text again.</summary>
    public string Sentence => Shown(Why is null ? $"{Subject} {Text}" : $"{Subject} {Text}: {Why}");

    public static string Shown(string bytes) =>
        bytes.All(c => c < 0x80) ? bytes : Encoding.UTF8.GetString(Encoding.Latin1.GetBytes(bytes));
}

/// <summary>One setting in words and as a command (management manual, 9.3).</summary>
internal static class RuntimeSetting
{
    public static string Text(string subject, string name, string before, string now) => (Kind(subject), name) switch
    {
        ("server", "state") => now switch { "maint" => "is in maintenance", "drain" => "drains", _ => "is ready, out of maintenance" },
        ("server", "maxconn") => $"takes at most {Limit(now)} instead of {Limit(before)} (maxconn)",
        ("server", "health") => now == "off" ? "has its health checks disabled" : "has its health checks enabled",
        ("server", "agent") => now == "off" ? "has its agent check disabled" : "has its agent check enabled",
        ("server", "ssl") => now == "1" ? "is spoken to with TLS" : "is spoken to without TLS",
        ("server", _) => $"has {name} {now} instead of {before}",
        ("frontend", "state") => now switch { "disabled" => "is disabled", "shut" => "is shut down", _ => "is enabled" },
        ("frontend", _) => $"takes at most {Limit(now)} instead of {Limit(before)} (maxconn)",
        ("process", "Maxconn") => $"takes at most {Limit(now)} instead of {Limit(before)} (maxconn)",
        ("process", _) => $"has a rate limit of {now} instead of {before} ({LimitName(name)})",
        ("TLS", _) => "were changed",
        _ => "was replaced",
    };

    private static string Limit(string value) => value is "0" or "" ? "any number of connections" : $"{value} connections";

    private static string LimitName(string name) => name switch
    {
        "ConnRateLimit" => "connections",
        "SessRateLimit" => "sessions",
        "SslRateLimit" => "ssl-sessions",
        _ => "http-compression",
    };

    private static string Kind(string subject) => subject.Split(' ')[0];

    /// <param name="address">The server's address, which a change of its port must name.</param>
    /// <returns>Null: no command makes it so.</returns>
    public static string? Command(string subject, string name, string value, string? address)
    {
        string target = subject[(subject.IndexOf(' ') + 1)..];
        return (Kind(subject), name) switch
        {
            ("server", "state" or "weight") => $"set server {target} {name} {value}",
            ("server", "maxconn") => $"set maxconn server {target} {value}",
            ("server", "health" or "agent") => $"{(value == "off" ? "disable" : "enable")} {name} {target}",
            ("server", "address") when value != "-" => $"set server {target} addr {value}",
            ("server", "port") when address is not (null or "-") => $"set server {target} addr {address} port {value}",
            ("server", "name") when value != "-" => $"set server {target} fqdn {value}",
            ("server", "ssl") => $"set server {target} ssl {(value == "1" ? "on" : "off")}",
            ("server", "check address") when value != "-" => $"set server {target} check-addr {value}",
            ("server", "check port") => $"set server {target} check-port {value}",
            ("server", "agent address") when value != "-" => $"set server {target} agent-addr {value}",
            ("server", "agent port") => $"set server {target} agent-port {value}",
            ("frontend", "state") => $"{value switch { "disabled" => "disable", "shut" => "shutdown", _ => "enable" }} frontend {target}",
            ("frontend", "maxconn") => $"set maxconn frontend {target} {value}",
            ("process", "Maxconn") => $"set maxconn global {value}",
            ("process", _) => $"set rate-limit {LimitName(name)} global {value}",
            _ => null,
        };
    }

    /// <summary>Why what is known by its fingerprint alone cannot be carried.</summary>
    public static string WhyNot(string subject) =>
        subject.StartsWith(RuntimeSubject.Certificate, StringComparison.Ordinal)
            ? "HAProxy does not give private keys back; write it to its file"
            : subject.StartsWith(RuntimeSubject.Server, StringComparison.Ordinal)
                ? "no command makes it so"
                : "HAProxy does not give it back; write it to its file";
}
