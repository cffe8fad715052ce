using System.Globalization;
using System.Net;

namespace FlipController.Load;

public enum LoadMode
{
    /// <summary>A new connection for every request.</summary>
    Fresh,

    /// <summary>Connections that are used again and again.</summary>
    Keepalive,

    /// <summary>Connections that outlive the run: upgraded ones that echo, and slow downloads.</summary>
    Long,
}

public enum LongTraffic
{
    Both,
    Echo,
    Download,
}

/// <summary>What to send. Requests leave on a fixed schedule, whatever came back before them; in a closed loop, when the one before is done.</summary>
public sealed record LoadOptions
{
    /// <summary>Taken in turn.</summary>
    public required IReadOnlyList<IPEndPoint> Targets { get; init; }

    public LoadMode Mode { get; init; } = LoadMode.Fresh;

    /// <summary>Requests a second, over all connections; in Long mode, echoes a second.</summary>
    public double Rate { get; init; } = 100;

    /// <summary>
    /// Fresh: so many clients, each of which asks again as soon as its connection before has ended, whether or not it failed; there is
    /// no schedule then, and <see cref="Rate"/> means nothing. Null: an open loop.
    /// </summary>
    public int? ClosedLoop { get; init; }

    /// <summary>A closed loop ends after so many, if it does not by <see cref="Duration"/>; null: by that alone.</summary>
    public long? Requests { get; init; }

    public TimeSpan Duration { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>How many connections Keepalive and Long keep; Fresh has as many as are open.</summary>
    public int Connections { get; init; } = 16;

    public string Path { get; init; } = "/";

    /// <summary>The Host header; null: the target's address.</summary>
    public string? Host { get; init; }

    /// <summary>The status a response must have; null: any from 200 to 299.</summary>
    public int? Status { get; init; }

    public Expectation Expect { get; init; } = Expectation.Any;

    /// <summary>For a request from its start; for an echo from when it is sent; for a download between two pieces of it.</summary>
    public TimeSpan Timeout { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>The response header whose values are counted.</summary>
    public string ServedByHeader { get; init; } = "X-Served-By";

    /// <summary>What Long's connections do; with Both every second one downloads.</summary>
    public LongTraffic Long { get; init; } = LongTraffic.Both;

    /// <summary>Bytes a second of each download. Its length is what that gives in nine tenths of the duration.</summary>
    public int DownloadRateBytes { get; init; } = 64 * 1024;

    /// <summary>
    /// Fresh: how many connections may be open at a time; Keepalive and Long: how many requests may wait for one connection.
    /// A request past it is not sent and counts as failed (overrun). Null: Fresh, as many as the rate makes in one timeout, at
    /// most 16,000; otherwise 1,000.
    /// </summary>
    public int? MaxInFlight { get; init; }

    /// <summary>The network namespace the connections come from; null: the caller's.</summary>
    public string? Namespace { get; init; }

    /// <summary>The arguments after `flipload` that make this run in a process of its own.</summary>
    public IReadOnlyList<string> ToArguments()
    {
        List<string> a = ["run", "--json", "--mode", Mode.ToString().ToLowerInvariant()];
        foreach (var target in Targets) a.AddRange(["--target", target.ToString()]);
        a.AddRange(["--rate", Rate.ToString(CultureInfo.InvariantCulture), "--duration", Durations.Text(Duration)]);
        a.AddRange(["--timeout", Durations.Text(Timeout), "--connections", Connections.ToString(CultureInfo.InvariantCulture)]);
        a.AddRange(["--path", Path, "--served-by", ServedByHeader, "--long", Long.ToString().ToLowerInvariant()]);
        a.AddRange(["--download-rate", DownloadRateBytes.ToString(CultureInfo.InvariantCulture)]);
        if (Expect.Text is { } expect) a.AddRange(["--expect", expect]);
        if (Host is { } host) a.AddRange(["--host", host]);
        if (Status is { } status) a.AddRange(["--status", status.ToString(CultureInfo.InvariantCulture)]);
        if (ClosedLoop is { } clients) a.AddRange(["--closed-loop", clients.ToString(CultureInfo.InvariantCulture)]);
        if (Requests is { } requests) a.AddRange(["--requests", requests.ToString(CultureInfo.InvariantCulture)]);
        if (MaxInFlight is { } max) a.AddRange(["--max-in-flight", max.ToString(CultureInfo.InvariantCulture)]);
        if (Namespace is { } name) a.AddRange(["--netns", name]);
        return a;
    }

    /// <summary>Every rule that is broken, or nothing.</summary>
    internal IEnumerable<string> Problems()
    {
        if (Targets.Count == 0) yield return "no target";
        if (!(Rate > 0 && Rate <= 100_000)) yield return $"rate: {Rate} must be above 0 and at most 100000 a second";
        if (ClosedLoop is < 1 or > 16_000) yield return $"closed-loop: {ClosedLoop} must be between 1 and 16000 clients";
        if (ClosedLoop is not null && Mode != LoadMode.Fresh) yield return "closed-loop: each of its requests has a connection of its own, so the mode must be fresh";
        if (Requests is < 1) yield return $"requests: {Requests} must be at least 1";
        if (Requests is not null && ClosedLoop is null) yield return "requests: only a closed loop ends by their number; an open one sends rate times duration";
        if (Duration <= TimeSpan.Zero || Duration > TimeSpan.FromHours(24))
            yield return $"duration: {Durations.Text(Duration)} must be between 1ms and 24h";
        if (Timeout <= TimeSpan.Zero || Timeout > TimeSpan.FromHours(1))
            yield return $"timeout: {Durations.Text(Timeout)} must be between 1ms and 1h";
        if (Connections is < 1 or > 16_000) yield return $"connections: {Connections} must be between 1 and 16000";
        if (MaxInFlight is < 1 or > 60_000) yield return $"max-in-flight: {MaxInFlight} must be between 1 and 60000";
        if (DownloadRateBytes < 1) yield return $"download-rate: {DownloadRateBytes} must be at least 1 byte a second";
        if (!Path.StartsWith('/') || Path.AsSpan().ContainsAnyInRange('\0', ' '))
            yield return $"path: \"{Path}\" must start with / and have no space";
        if (Host is { } host && host.AsSpan().ContainsAnyInRange('\0', ' ')) yield return $"host: \"{host}\" must have no space";
    }
}

/// <summary>Durations as operators write them: 250ms, 12s, 1.5m, 1h.</summary>
internal static class Durations
{
    private static readonly (string Unit, double Milliseconds)[] Units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

    public static bool TryParse(string text, out TimeSpan value)
    {
        foreach (var (unit, milliseconds) in Units)
        {
            if (text.EndsWith(unit, StringComparison.Ordinal)
                && double.TryParse(text.AsSpan(0, text.Length - unit.Length), NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var number))
            {
                value = TimeSpan.FromMilliseconds(Math.Min(number * milliseconds, 1e12));
                return true;
            }
        }
        value = default;
        return false;
    }

    public static string Text(TimeSpan value) => value.TotalMilliseconds.ToString("0.###", CultureInfo.InvariantCulture) + "ms";
}
