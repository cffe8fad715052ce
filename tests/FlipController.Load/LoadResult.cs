using System.Text.Json;
using System.Text.Json.Serialization;

namespace FlipController.Load;

/// <summary>How a request failed. The order is that of the report.</summary>
public enum Failure
{
    Refused,
    Reset,
    TimedOut,

    /// <summary>The connection ended in good order before the response did.</summary>
    Truncated,
    WrongContent,
    WrongStatus,

    /// <summary>Not sent: too many were open or waiting already.</summary>
    Overrun,

    /// <summary>Not sent: this machine had no source port left.</summary>
    PortsExhausted,
    Other,
}

/// <summary>What came of a run. Requests = Ok + Failed, and Failed is the sum of the nine counts after it.</summary>
/// <param name="Rate">Requests a second that were asked for; 0 in a closed loop, which has as many as it gets.</param>
/// <param name="Raced">
/// Requests that met the orderly close of an idle connection before any byte of their response; sent again once on a new
/// connection, as RFC 9110 section 9.2.2 lets a client do. Not failures by themselves.
/// </param>
/// <param name="Reconnected">Connections that the server closed in good order between two requests and that were made anew.</param>
/// <param name="LateResets">Resets after a complete response: nothing was lost, but the server does not close politely.</param>
/// <param name="Connections">Connections established.</param>
/// <param name="Latency">Of the Ok ones, from the time each was scheduled for (so a stall counts for all it delayed); in a closed loop from when its client began it.</param>
/// <param name="Connect">From the scheduled time until the connection was established, for those that needed a new one.</param>
/// <param name="Lag">How late the generator itself started requests: its own share of the latencies.</param>
/// <param name="CpuPercent">Of one processor, used by the generator.</param>
public sealed record LoadResult(
    LoadMode Mode, IReadOnlyList<string> Targets, double Rate, double Seconds, long Requests, long Ok, long Failed,
    long Refused, long Reset, long TimedOut, long Truncated, long WrongContent, long WrongStatus, long Overrun, long PortsExhausted, long Other,
    long Raced, long Reconnected, long LateResets, long Connections, long BytesReceived,
    Percentiles Latency, Percentiles Connect, Percentiles Lag, double CpuPercent,
    IReadOnlyDictionary<string, Served> ServedBy, IReadOnlyList<FailureSample> Samples)
{
    /// <summary>Something was asked, and nothing failed.</summary>
    public bool Passed => Requests > 0 && Failed == 0;

    public string ToJson() => JsonSerializer.Serialize(this, LoadJson.Default.LoadResult);

    public static LoadResult FromJson(string json) =>
        JsonSerializer.Deserialize(json, LoadJson.Default.LoadResult) ?? throw new FormatException("a load result was null");
}

/// <summary>Milliseconds.</summary>
public sealed record Percentiles(long Count, double P50, double P90, double P99, double P999, double Max);

/// <param name="FirstMs">When the first request so served was scheduled, from the start of the run.</param>
/// <param name="LastMs">And the last.</param>
public sealed record Served(long Count, double FirstMs, double LastMs);

/// <param name="AtMs">When the request was scheduled, from the start of the run.</param>
public sealed record FailureSample(double AtMs, Failure Failure, string Target, string Message);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true, UseStringEnumConverter = true)]
[JsonSerializable(typeof(LoadResult))]
public sealed partial class LoadJson : JsonSerializerContext;
