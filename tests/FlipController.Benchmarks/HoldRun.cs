using System.Text.Json;
using System.Text.Json.Serialization;
using FlipController.Load;

namespace FlipController.Benchmarks;

/// <summary>What one run of the hold benchmark found, on one machine: its rows may be compared, those of another run may not.</summary>
/// <param name="Method">Of <c>flipctl protect</c>.</param>
/// <param name="Kernel">Its version.</param>
/// <param name="IsEmulated">In QEMU, without the processor's help.</param>
internal sealed record HoldRun(string Method, string Kernel, bool IsEmulated, int Processors, int Clients, IReadOnlyList<HoldRow> Rows)
{
    public string ToJson() => JsonSerializer.Serialize(this, HoldJson.Default.HoldRun);

    public static HoldRun FromJson(string json) =>
        JsonSerializer.Deserialize(json, HoldJson.Default.HoldRun) ?? throw new FormatException("a run of the hold benchmark was null");

    public string Where => $"Linux {Kernel}{(IsEmulated ? ", emulated" : "")}, {Processors} processors";
}

/// <param name="Failures">How many of each kind failed; those of which there were none are left out.</param>
/// <param name="Restarts">Of the HAProxy, while the load ran.</param>
/// <param name="FailedCommands">Restarts whose command ended with another code than 0.</param>
/// <param name="Latency">Of the requests that succeeded: connection and response.</param>
/// <param name="Commands">How long a restart took, from the start of its first program to the end of its last.</param>
/// <param name="Holds">As protect reported them; null where nothing was held.</param>
internal sealed record HoldRow(
    RestartWay Way, long Requests, long Failed, IReadOnlyDictionary<string, long> Failures, int Restarts, int FailedCommands, double Seconds,
    Percentiles Latency, Percentiles Commands, HoldWindows? Holds);

/// <param name="Window">Milliseconds from before the close to after the opening.</param>
/// <param name="Held">Opening SYNs that waited, of all holds.</param>
/// <param name="LongestWaitMs">The longest any of them waited, at most.</param>
/// <param name="NotAccepted">From before a hold, and not accepted when its command was started.</param>
/// <param name="OpenedOtherwise">Holds that something else opened than the end of the command.</param>
internal sealed record HoldWindows(Percentiles Window, long Held, double LongestWaitMs, long Dropped, long NotAccepted, int OpenedOtherwise);

/// <summary>How the HAProxy is restarted. The order is that of the table.</summary>
internal enum RestartWay
{
    None,
    Reload,
    Drop,
    Bare,
    Protect,
}

/// <param name="WindowUs">Close, switch, open, while clients connect. This and the next two are sorted.</param>
/// <param name="AtRestUs">The same without clients.</param>
/// <param name="ProgramsUs">The same three steps by tc and nft, a program each, at rest; empty where there is no program for it.</param>
/// <param name="Requests">Of the clients meanwhile.</param>
internal sealed record WindowRun(string Method, string Kernel, bool IsEmulated, double[] WindowUs, double[] AtRestUs, double[] ProgramsUs, long Requests, long Failed)
{
    public string ToJson() => JsonSerializer.Serialize(this, HoldJson.Default.WindowRun);

    public static WindowRun FromJson(string json) =>
        JsonSerializer.Deserialize(json, HoldJson.Default.WindowRun) ?? throw new FormatException("a run of the window benchmark was null");
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true, UseStringEnumConverter = true)]
[JsonSerializable(typeof(HoldRun))]
[JsonSerializable(typeof(WindowRun))]
internal sealed partial class HoldJson : JsonSerializerContext;
