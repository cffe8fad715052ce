using System.Net;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using FlipController.Core;

namespace FlipController.Cli;

/// <summary>The daemon's API over its unix socket. Every way it can fail becomes a <see cref="VerbFailure"/> with its exit code.</summary>
internal sealed class ControlClient : IDisposable
{
    // A status asks the kernel and HAProxy; what takes longer than this is stuck.
    private static readonly TimeSpan AnswerTime = TimeSpan.FromSeconds(30);

    private readonly HttpClient _http;
    private readonly string _verb;

    public ControlClient(string socket, string verb)
    {
        Socket = socket;
        _verb = verb;
        _http = new HttpClient(new SocketsHttpHandler { ConnectCallback = ConnectAsync, UseProxy = false, AllowAutoRedirect = false })
        {
            BaseAddress = new Uri("http://flipcontrollerd/"),
            // A flip may wait for a gate of an hour; each call below brings its own patience.
            Timeout = Timeout.InfiniteTimeSpan,
        };
    }

    public string Socket { get; }

    public void Dispose() => _http.Dispose();

    public Task<StatusReport> StatusAsync(CancellationToken cancel) => GetAsync("v1/status", WireJson.Default.StatusReport, cancel);

    public Task<PairStatus> PairAsync(string pair, CancellationToken cancel) =>
        GetAsync(Path(pair, ""), WireJson.Default.PairStatus, cancel);

    public Task<HistoryReport> HistoryAsync(string pair, CancellationToken cancel) =>
        GetAsync(Path(pair, "/history"), WireJson.Default.HistoryReport, cancel);

    public Task<RenderReport> RenderAsync(string pair, string slot, CancellationToken cancel) =>
        GetAsync(Path(pair, $"/render/{slot}"), WireJson.Default.RenderReport, cancel);

    public Task<PlanReport> PlanAsync(string pair, string? binary, CancellationToken cancel) =>
        GetAsync(
            Path(pair, binary is null ? "/plan" : $"/plan?binary={Uri.EscapeDataString(binary)}"), WireJson.Default.PlanReport, cancel);

    /// <param name="query">What follows the question mark, escaped.</param>
    public Task<ConnectionsReport> ConnectionsAsync(string pair, string query, CancellationToken cancel) =>
        GetAsync(Path(pair, $"/connections?{query}"), WireJson.Default.ConnectionsReport, cancel);

    public Task<DrainsReport> DrainsAsync(string pair, CancellationToken cancel) =>
        GetAsync(Path(pair, "/drains"), WireJson.Default.DrainsReport, cancel);

    public Task<DrainCurve> DrainCurveAsync(string pair, int generation, CancellationToken cancel) =>
        GetAsync(Path(pair, $"/drains/{generation}"), WireJson.Default.DrainCurve, cancel);

    public Task<FlipAnswer> FlipAsync(string pair, FlipRequest request, CancellationToken cancel) =>
        PostAsync(pair, "flip", Body(request, WireJson.Default.FlipRequest), WireJson.Default.FlipAnswer, cancel);

    public Task<FlipAnswer> RollbackAsync(string pair, RollbackRequest request, CancellationToken cancel) =>
        PostAsync(pair, "rollback", Body(request, WireJson.Default.RollbackRequest), WireJson.Default.FlipAnswer, cancel);

    public Task<FlipAnswer> AdoptAsync(string pair, AdoptRequest request, CancellationToken cancel) =>
        PostAsync(pair, "adopt", Body(request, WireJson.Default.AdoptRequest), WireJson.Default.FlipAnswer, cancel);

    public Task<FlipAnswer> ReleaseAsync(string pair, ReleaseRequest request, CancellationToken cancel) =>
        PostAsync(pair, "release", Body(request, WireJson.Default.ReleaseRequest), WireJson.Default.FlipAnswer, cancel);

    public Task<DrainAnswer> DrainAsync(string pair, DrainRequest request, CancellationToken cancel) =>
        PostAsync(pair, "drain", Body(request, WireJson.Default.DrainRequest), WireJson.Default.DrainAnswer, cancel);

    public Task<DrainAnswer> CancelDrainAsync(string pair, UndrainRequest request, CancellationToken cancel) =>
        PostAsync(pair, "drain/cancel", Body(request, WireJson.Default.UndrainRequest), WireJson.Default.DrainAnswer, cancel);

    public Task<DrainAnswer> UndrainAsync(string pair, UndrainRequest request, CancellationToken cancel) =>
        PostAsync(pair, "undrain", Body(request, WireJson.Default.UndrainRequest), WireJson.Default.DrainAnswer, cancel);

    public Task<CloseAnswer> CloseAsync(string pair, CloseRequest request, CancellationToken cancel) =>
        PostAsync(pair, "close", Body(request, WireJson.Default.CloseRequest), WireJson.Default.CloseAnswer, cancel);

    public Task<HandoverReport> HandoverAsync(CancellationToken cancel) => GetAsync("v1/handover", WireJson.Default.HandoverReport, cancel);

    public Task<HandoverReport> StartHandoverAsync(HandoverStartRequest request, CancellationToken cancel) =>
        PostAsync("v1/handover/start", Body(request, WireJson.Default.HandoverStartRequest), WireJson.Default.HandoverReport, cancel);

    public Task<HandoverReport> CancelHandoverAsync(CancellationToken cancel) =>
        PostAsync("v1/handover/cancel", null, WireJson.Default.HandoverReport, cancel);

    public Task<HandoverReport> FinishHandoverAsync(CancellationToken cancel) =>
        PostAsync("v1/handover/finish", null, WireJson.Default.HandoverReport, cancel);

    public Task<NodeStatus> MaintenanceAsync(MaintenanceRequest request, CancellationToken cancel) =>
        PostAsync("v1/maintenance", Body(request, WireJson.Default.MaintenanceRequest), WireJson.Default.NodeStatus, cancel);

    /// <summary>Notices as they come; it ends only when the daemon does.</summary>
    public async IAsyncEnumerable<PairNotice> EventsAsync(string? pair, [EnumeratorCancellation] CancellationToken cancel)
    {
        string query = pair is null ? "v1/events" : $"v1/events?pair={Uri.EscapeDataString(pair)}";
        using HttpResponseMessage response = await SendAsync(new HttpRequestMessage(HttpMethod.Get, query), cancel);
        if (!response.IsSuccessStatusCode) throw await RefusedAsync(response, cancel);
        using var reader = new StreamReader(await response.Content.ReadAsStreamAsync(cancel));
        while (await LineAsync(reader, cancel) is { } line)
        {
            // Empty lines keep the connection alive.
            if (line.Length > 0) yield return Parsed(line, WireJson.Default.PairNotice);
        }
    }

    /// <summary>True when somebody answers on the socket, whatever they say.</summary>
    public static async Task<bool> IsThereAsync(string socket, CancellationToken cancel)
    {
        try
        {
            using var probe = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await probe.ConnectAsync(new UnixDomainSocketEndPoint(socket), cancel);
            return true;
        }
        catch (Exception e) when (e is SocketException or ArgumentException)
        {
            return false;
        }
    }

    /// <summary>With its length: JsonContent would send it in chunks, which small servers and people with socat read badly.</summary>
    private static StringContent Body<T>(T request, JsonTypeInfo<T> type) =>
        new(JsonSerializer.Serialize(request, type), new MediaTypeHeaderValue("application/json"));

    private static string Path(string pair, string rest) => $"v1/pairs/{Uri.EscapeDataString(pair)}{rest}";

    private async Task<T> GetAsync<T>(string path, JsonTypeInfo<T> type, CancellationToken cancel)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        patience.CancelAfter(AnswerTime);
        try
        {
            using HttpResponseMessage response = await SendAsync(new HttpRequestMessage(HttpMethod.Get, path), patience.Token);
            return await AnswerAsync(response, type, patience.Token);
        }
        catch (OperationCanceledException) when (!cancel.IsCancellationRequested)
        {
            throw new VerbFailure(ExitCode.Unreachable,
                $"{_verb}: the daemon at {Socket} took the request but did not answer within {Durations.Format(AnswerTime)}; "
                + "nothing was changed; "
                + "see `journalctl -u flipcontrollerd`");
        }
    }

    private Task<T> PostAsync<T>(string pair, string verb, HttpContent content, JsonTypeInfo<T> type, CancellationToken cancel) =>
        PostAsync(Path(pair, $"/{verb}"), content, type, cancel);

    private async Task<T> PostAsync<T>(string path, HttpContent? content, JsonTypeInfo<T> type, CancellationToken cancel)
    {
        using HttpResponseMessage response = await SendAsync(new HttpRequestMessage(HttpMethod.Post, path) { Content = content }, cancel);
        return await AnswerAsync(response, type, cancel);
    }

    private async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancel)
    {
        try
        {
            return await _http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancel);
        }
        catch (HttpRequestException e)
        {
            throw Gone(e, request.Method);
        }
    }

    private VerbFailure Gone(HttpRequestException e, HttpMethod method)
    {
        string tried = $"{_verb}: cannot reach the daemon at {Socket}";
        const string Remedy = "is it running (`systemctl status flipcontrollerd`), and is this its socket (--socket)?";
        return new VerbFailure(ExitCode.Unreachable, e.InnerException switch
        {
            SocketException { SocketErrorCode: SocketError.AccessDenied } =>
                $"{tried}: permission denied; nothing was changed; run it as root or as a member of the group that control.group names",
            SocketException { SocketErrorCode: SocketError.ConnectionRefused } =>
                $"{tried}: nobody listens there; nothing was changed; {Remedy}",
            SocketException { SocketErrorCode: SocketError.AddressNotAvailable } or FileNotFoundException =>
                $"{tried}: there is no such socket; nothing was changed; {Remedy}",
            SocketException s => $"{tried}: {s.Message}; nothing was changed; {Remedy}",
            ArgumentException => $"{tried}: the path does not fit a unix socket address; nothing was changed; give another --socket",
            _ when method == HttpMethod.Post =>
                $"{_verb}: the daemon at {Socket} went away before it answered; "
                + "what it began it finishes when it is back; look with `flipctl status`",
            _ => $"{_verb}: the daemon at {Socket} went away before it answered; nothing was changed; {Remedy}",
        });
    }

    private async Task<T> AnswerAsync<T>(HttpResponseMessage response, JsonTypeInfo<T> type, CancellationToken cancel)
    {
        if (!response.IsSuccessStatusCode) throw await RefusedAsync(response, cancel);
        try
        {
            return Parsed(await response.Content.ReadAsStringAsync(cancel), type);
        }
        catch (HttpRequestException e)
        {
            throw Gone(e, response.RequestMessage!.Method);
        }
    }

    private async Task<VerbFailure> RefusedAsync(HttpResponseMessage response, CancellationToken cancel)
    {
        ErrorAnswer? answer = null;
        try
        {
            answer = JsonSerializer.Deserialize(await response.Content.ReadAsStringAsync(cancel), WireJson.Default.ErrorAnswer);
        }
        catch (Exception e) when (e is JsonException or HttpRequestException)
        {
            // The status alone has to do, below.
        }
        ExitCode code = response.StatusCode switch
        {
            HttpStatusCode.Conflict => ExitCode.Refused,
            HttpStatusCode.BadRequest or HttpStatusCode.NotFound => ExitCode.Usage,
            _ => ExitCode.Failed,
        };
        return new VerbFailure(code, answer?.Error
            ?? $"{_verb}: the daemon at {Socket} answered {(int)response.StatusCode} without a reason; "
            + "see `journalctl -u flipcontrollerd`");
    }

    private T Parsed<T>(string text, JsonTypeInfo<T> type)
    {
        try
        {
            return JsonSerializer.Deserialize(text, type) ?? throw new JsonException("null");
        }
        catch (JsonException e)
        {
            throw new VerbFailure(ExitCode.Failed,
                $"{_verb}: the answer of the daemon at {Socket} is not what this flipctl understands ({e.Message}); "
                + "are both of one version?");
        }
    }

    private static async Task<string?> LineAsync(StreamReader reader, CancellationToken cancel)
    {
        try
        {
            return await reader.ReadLineAsync(cancel);
        }
        catch (Exception e) when (e is IOException or HttpRequestException)
        {
            return null;
        }
    }

    private async ValueTask<Stream> ConnectAsync(SocketsHttpConnectionContext context, CancellationToken cancel)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(Socket), cancel);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
