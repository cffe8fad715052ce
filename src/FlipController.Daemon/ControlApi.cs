using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using FlipController.Core;
using FlipController.Daemon.Handover;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;

namespace FlipController.Daemon;

/// <summary>HTTP/JSON on the control socket: the records of Wire.cs, the same that flipctl prints.</summary>
internal static partial class ControlApi
{
    private static readonly TimeSpan s_observation = TimeSpan.FromSeconds(5);

    public static void Map(WebApplication app, Fleet fleet, Keepalived.Node node, NodeHandover? handover, ILogger log, CancellationToken stopping)
    {
        app.Use((context, next) => GuardAsync(context, next, log));
        app.Use((context, next) => AskedAsync(context, next, log));
        app.MapGet("/v1/status", context => StatusAsync(context, fleet, node));
        MapNode(app, node);
        Pair(HttpMethods.Get, "", async (context, pair) =>
            await AnswerAsync(context, WireJson.Default.PairStatus, await pair.StatusAsync(context.RequestAborted)));
        Pair(HttpMethods.Get, "/history", (context, pair) =>
            AnswerAsync(context, WireJson.Default.HistoryReport, new HistoryReport(pair.Name, pair.History())));
        Pair(HttpMethods.Get, "/render/{slot}", RenderAsync);
        Pair(HttpMethods.Get, "/plan", async (context, pair) =>
        {
            string? binary = context.Request.Query["binary"];
            if (binary is not null && await DeniedAsync(context, log, "name the program that runs (--binary)")) return;
            await AnswerAsync(context, WireJson.Default.PlanReport, await pair.PlanAsync(binary, context.RequestAborted));
        });
        Pair(HttpMethods.Post, "/flip", async (context, pair) =>
        {
            FlipRequest request = await BodyAsync(context, WireJson.Default.FlipRequest) ?? new FlipRequest();
            if (request.Binary is not null && await DeniedAsync(context, log, "name the program that runs (--binary)")) return;
            await EndedAsync(context, pair, AnswerOf(pair, pair.FlipAsync(request)), request.Wait, stopping);
        });
        Pair(HttpMethods.Post, "/rollback", async (context, pair) =>
        {
            RollbackRequest request = await BodyAsync(context, WireJson.Default.RollbackRequest) ?? new RollbackRequest();
            await EndedAsync(context, pair, AnswerOf(pair, pair.RollbackAsync(request)), request.Wait, stopping);
        });
        Pair(HttpMethods.Post, "/adopt", async (context, pair) =>
        {
            AdoptRequest request = await BodyAsync(context, WireJson.Default.AdoptRequest) ?? new AdoptRequest();
            if (await DeniedAsync(context, log, "take over from another program")) return;
            bool done = await pair.FindUnmanagedAsync(request);
            await EndedAsync(context, pair, pair.AdoptAsync(request, done), request.Wait, stopping);
        });
        Pair(HttpMethods.Post, "/release", async (context, pair) =>
        {
            ReleaseRequest request = await BodyAsync(context, WireJson.Default.ReleaseRequest) ?? new ReleaseRequest();
            if (await DeniedAsync(context, log, "give back to another program, which may be started for that")) return;
            await EndedAsync(context, pair, AnswerOf(pair, pair.ReleaseAsync(request)), request.Wait, stopping);
        });
        Pair(HttpMethods.Post, "/drain", async (context, pair) =>
        {
            DrainRequest request = await BodyAsync(context, WireJson.Default.DrainRequest) ?? new DrainRequest();
            await DrainedAsync(context, pair, pair.DrainAsync(request), request.Wait || request.DryRun, stopping);
        });
        Pair(HttpMethods.Post, "/drain/cancel", async (context, pair) => await AnswerAsync(context, WireJson.Default.DrainAnswer,
            await pair.CancelDrainAsync(await BodyAsync(context, WireJson.Default.UndrainRequest) ?? new UndrainRequest())));
        Pair(HttpMethods.Post, "/undrain", async (context, pair) => await AnswerAsync(context, WireJson.Default.DrainAnswer,
            await pair.UndrainAsync(await BodyAsync(context, WireJson.Default.UndrainRequest) ?? new UndrainRequest())));
        Pair(HttpMethods.Get, "/drains", (context, pair) => AnswerAsync(context, WireJson.Default.DrainsReport, pair.AllDrains()));
        Pair(HttpMethods.Get, "/drains/{generation:int}", (context, pair) =>
        {
            int generation = int.Parse((string)context.Request.RouteValues["generation"]!, CultureInfo.InvariantCulture);
            return pair.Drain(generation) is { } curve
                ? AnswerAsync(context, WireJson.Default.DrainCurve, curve)
                : RefuseAsync(context, 404, "usage", $"pair {pair.Name}: nothing is kept of how generation {generation} left");
        });
        Pair(HttpMethods.Get, "/connections", async (context, pair) => await AnswerAsync(context, WireJson.Default.ConnectionsReport,
            await pair.ConnectionsAsync(ConnectionsRequest.Of(context.Request.Query), context.RequestAborted)));
        Pair(HttpMethods.Post, "/close", async (context, pair) => await AnswerAsync(context, WireJson.Default.CloseAnswer,
            await pair.CloseAsync(await BodyAsync(context, WireJson.Default.CloseRequest) ?? new CloseRequest(), stopping)));
        app.MapGet("/v1/handover", Handover((h, _) => h.ReportAsync()));
        app.MapPost("/v1/handover/start", Handover(async (h, context) =>
            await h.StartAsync(await BodyAsync(context, WireJson.Default.HandoverStartRequest) ?? new HandoverStartRequest())));
        app.MapPost("/v1/handover/cancel", Handover((h, _) => h.CancelAsync()));
        app.MapPost("/v1/handover/finish", Handover((h, _) => h.FinishAsync()));
        app.MapPost("/v1/reload", async context =>
        {
            IReadOnlyList<string> faults = await fleet.ReloadAsync();
            if (faults.Count > 0) await RefuseAsync(context, 400, "usage", string.Join("\n", faults));
            else await AnswerAsync(context, WireJson.Default.CheckReport, new CheckReport(true, []));
        });
        app.MapGet("/v1/events", context => StreamAsync(context, fleet, stopping));
        app.MapGet("/metrics", async context =>
        {
            context.Response.ContentType = "text/plain; version=0.0.4; charset=utf-8";
            await context.Response.WriteAsync(await Metrics.TextAsync(fleet, node, context.RequestAborted), context.RequestAborted);
        });
        app.MapFallback(context => RefuseAsync(context, 404, "usage", $"there is no {context.Request.Method} {context.Request.Path}"));

        RequestDelegate Handover(Func<NodeHandover, HttpContext, Task<HandoverReport>> ask)
        {
            RequestDelegate answer = async context => await AnswerAsync(context, WireJson.Default.HandoverReport, await ask(handover
                ?? throw new UsageException("there is no handover: the daemon's configuration has no handover section, which names the VIPs; nothing was done"), context));
            return answer;
        }

        // Plain request delegates: the ones with typed parameters bring expression trees and their compiler into memory.
        void Pair(string method, string path, Func<HttpContext, Pair, Task> answer)
        {
            RequestDelegate found = context =>
            {
                string name = (string)context.Request.RouteValues["name"]!;
                return fleet.Find(name) is { } pair
                    ? answer(context, pair)
                    : RefuseAsync(context, 404, "usage",
                        $"cannot {method} {context.Request.Path}: there is no pair \"{name}\"; nothing was done. "
                        + $"There are: {string.Join(", ", fleet.Pairs.Select(p => p.Name))}.");
            };
            app.MapMethods("/v1/pairs/{name}" + path, [method], found);
        }
    }

    private static async Task RenderAsync(HttpContext context, Pair pair) => await (context.Request.RouteValues["slot"] switch
    {
        "blue" => AnswerAsync(context, WireJson.Default.RenderReport, await pair.RenderAsync(Slot.Blue, context.RequestAborted)),
        "green" => AnswerAsync(context, WireJson.Default.RenderReport, await pair.RenderAsync(Slot.Green, context.RequestAborted)),
        var other => RefuseAsync(context, 400, "usage", $"cannot render the slot \"{other}\" of pair {pair.Name}: a slot is blue or green"),
    });

    /// <summary>
    /// What somebody wants changed is said in the log before it is done, with who wants it: nobody can be asked afterwards. A caller who
    /// is refused stands there as well.
    /// </summary>
    private static async Task AskedAsync(HttpContext context, RequestDelegate next, ILogger log)
    {
        if (!HttpMethods.IsGet(context.Request.Method) && Caller.Of(context) is { } caller)
        {
            byte[] body = await BytesAsync(context);
            log.LogInformation(new EventId(141, "Asked"), "{Caller} asks for {What}", caller,
                Caller.Shown($"{context.Request.Method} {context.Request.Path} {Encoding.UTF8.GetString(body)}".TrimEnd()));
            context.Request.Body = new MemoryStream(body);
        }
        await next(context);
    }

    /// <summary>
    /// The control group may say when and back, not what runs as root: that is for root alone. True: the caller has been refused.
    /// </summary>
    private static async Task<bool> DeniedAsync(HttpContext context, ILogger log, string what)
    {
        Caller? caller = Caller.Of(context);
        if (caller is { Uid: 0 }) return false;
        log.LogWarning(new EventId(142, "Denied"), "{Caller} is refused {What}: only root may {Do}", caller, Caller.Shown(context.Request.Path), what);
        await RefuseAsync(context, 403, "refused", $"only root may {what}; nothing was done");
        return true;
    }

    private static async Task StatusAsync(HttpContext context, Fleet fleet, Keepalived.Node node)
    {
        PairStatus[] pairs = await Task.WhenAll(fleet.Pairs.Select(p => p.StatusAsync(context.RequestAborted)));
        await AnswerAsync(context, WireJson.Default.StatusReport, new StatusReport([.. pairs], node.Standings, node.Status));
    }

    /// <summary>TCP is for metrics alone; whatever fails is answered in the house's words.</summary>
    private static async Task GuardAsync(HttpContext context, RequestDelegate next, ILogger log)
    {
        if (context.Connection.LocalIpAddress is not null && context.Request.Path != "/metrics")
        {
            await RefuseAsync(context, 404, "usage", "only /metrics is served here");
            return;
        }
        try
        {
            await next(context);
        }
        catch (OperationCanceledException) when (context.RequestAborted.IsCancellationRequested)
        {
            // The caller went away; what it asked for goes on.
        }
        catch (BadHttpRequestException e)
        {
            await RefuseAsync(context, e.StatusCode, "usage", e.Message);
        }
        catch (JsonException e)
        {
            await RefuseAsync(context, 400, "usage", $"the request's body is not what {context.Request.Path} takes: {e.Message}");
        }
        catch (UsageException e)
        {
            await RefuseAsync(context, 400, "usage", e.Message);
        }
        catch (RefusedException e)
        {
            await RefuseAsync(context, 409, "refused", e.Message);
        }
        catch (FlipException e)
        {
            await RefuseAsync(context, 422, "failed", e.Message);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            // A mistake of ours: whoever asked must hear of it, and the log must have it.
            log.LogError(new EventId(140, "RequestFailed"), e, "{Method} {Path} failed unexpectedly",
                context.Request.Method, context.Request.Path);
            await RefuseAsync(context, 500, "failed", $"{context.Request.Method} {context.Request.Path} failed unexpectedly: {e.Message}");
        }
    }

    private static async Task DrainedAsync(
        HttpContext context, Pair pair, Task<DrainAnswer> asked, bool wait, CancellationToken stopping)
    {
        if (!wait)
        {
            await AcceptedAsync(asked, stopping);
            await AnswerAsync(context, WireJson.Default.DrainAnswer, new DrainAnswer(pair.Name, null), 202);
            return;
        }
        DrainAnswer answer = await OutcomeAsync(context, pair, asked, stopping);
        if (answer.Drain is { Outcome: "failed" or "cancelled" } ended)
            await RefuseAsync(context, 422, "failed", $"pair {pair.Name}: drain {ended.Id} {ended.Outcome}{(ended.Error is null ? "" : $": {ended.Error}")}");
        else
            await AnswerAsync(context, WireJson.Default.DrainAnswer, answer);
    }

    /// <summary>A denial comes at once, an outcome does not: only the first is worth waiting for here.</summary>
    private static async Task AcceptedAsync(Task asked, CancellationToken stopping)
    {
        Task first = await Task.WhenAny(asked, Task.Delay(TimeSpan.FromMilliseconds(50), stopping));
        if (first == asked && asked.IsFaulted) await asked;
    }

    private static async Task<T> OutcomeAsync<T>(HttpContext context, Pair pair, Task<T> asked, CancellationToken stopping)
    {
        using var either = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted, stopping);
        try
        {
            return await asked.WaitAsync(either.Token);
        }
        catch (OperationCanceledException) when (stopping.IsCancellationRequested)
        {
            throw new FlipException($"pair {pair.Name}: the daemon stops; what was under way is taken up at its next start");
        }
    }

    private static async Task<FlipAnswer> AnswerOf(Pair pair, Task<FlipRecord> flip) => new(pair.Name, await flip);

    private static async Task EndedAsync(HttpContext context, Pair pair, Task<FlipAnswer> asked, bool wait, CancellationToken stopping)
    {
        if (!wait)
        {
            await AcceptedAsync(asked, stopping);
            await AnswerAsync(context, WireJson.Default.FlipAnswer, new FlipAnswer(pair.Name, null), 202);
            return;
        }
        FlipAnswer answer = await OutcomeAsync(context, pair, asked, stopping);
        if (answer.Flip is { Outcome: "failed" or "returned" } ended)
        {
            string what = ended.Trigger is "release" ? "release" : "flip";
            await RefuseAsync(context, 422, "failed", $"pair {pair.Name}: {what} {ended.Id} {ended.Outcome}: {ended.Error}");
        }
        else
        {
            await AnswerAsync(context, WireJson.Default.FlipAnswer, answer);
        }
    }

    private static async Task StreamAsync(HttpContext context, Fleet fleet, CancellationToken stopping)
    {
        string? only = context.Request.Query["pair"];
        if (only is not null && fleet.Find(only) is null)
        {
            await RefuseAsync(context, 404, "usage", $"there is no pair \"{only}\"");
            return;
        }
        context.Response.ContentType = "application/x-ndjson";
        using var either = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted, stopping);
        await context.Response.StartAsync(either.Token);
        await context.Response.Body.FlushAsync(either.Token);
        try
        {
            await foreach (PairNotice notice in fleet.Notices.WatchAsync(either.Token))
            {
                if (only is not null && notice.Pair != only) continue;
                byte[] line = [.. JsonSerializer.SerializeToUtf8Bytes(notice, WireJson.Default.PairNotice), (byte)'\n'];
                await context.Response.Body.WriteAsync(line, either.Token);
                await context.Response.Body.FlushAsync(either.Token);
            }
        }
        catch (OperationCanceledException) when (either.IsCancellationRequested)
        {
            // The watcher went away, or the daemon stops.
        }
    }

    private static async Task<T?> BodyAsync<T>(HttpContext context, JsonTypeInfo<T> type) where T : class
    {
        byte[] body = await BytesAsync(context);
        return body.Length == 0 ? null : JsonSerializer.Deserialize(body, type);
    }

    private static async Task<byte[]> BytesAsync(HttpContext context)
    {
        using var body = new MemoryStream();
        // Kestrel ends this at the largest request; a chunked body has no length to look at before.
        await context.Request.Body.CopyToAsync(body, context.RequestAborted);
        return body.ToArray();
    }

    private static async Task AnswerAsync<T>(HttpContext context, JsonTypeInfo<T> type, T answer, int status = 200)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted);
        patience.CancelAfter(s_observation);
        context.Response.StatusCode = status;
        context.Response.ContentType = "application/json";
        await JsonSerializer.SerializeAsync(context.Response.Body, answer, type, patience.Token);
        await context.Response.Body.WriteAsync("\n"u8.ToArray(), patience.Token);
    }

    private static Task RefuseAsync(HttpContext context, int status, string code, string sentence) =>
        context.Response.HasStarted
            ? Task.CompletedTask
            : AnswerAsync(context, WireJson.Default.ErrorAnswer, new ErrorAnswer(code, sentence), status);
}
