using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using FlipController.Core;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;

namespace FlipController.Daemon;

/// <summary>HTTP/JSON on the control socket: the records of Wire.cs, the same that flipctl prints.</summary>
internal static class ControlApi
{
    private static readonly TimeSpan s_observation = TimeSpan.FromSeconds(5);

    public static void Map(WebApplication app, Fleet fleet, ILogger log, CancellationToken stopping)
    {
        app.Use((context, next) => GuardAsync(context, next, log));
        app.MapGet("/v1/status", context => StatusAsync(context, fleet));
        app.MapGet("/v1/pairs/{name}", (HttpContext context, string name) => WithPairAsync(context, fleet, name, async pair =>
            await AnswerAsync(context, WireJson.Default.PairStatus, await pair.StatusAsync(context.RequestAborted))));
        app.MapGet("/v1/pairs/{name}/history", (HttpContext context, string name) => WithPairAsync(context, fleet, name, pair =>
            AnswerAsync(context, WireJson.Default.HistoryReport, new HistoryReport(pair.Name, pair.History()))));
        app.MapGet("/v1/pairs/{name}/render/{slot}", (HttpContext context, string name, string slot) => WithPairAsync(context, fleet, name, pair =>
            slot is not ("blue" or "green")
                ? RefuseAsync(context, 400, "usage", $"there is no slot \"{slot}\": blue or green")
                : AnswerAsync(context, WireJson.Default.RenderReport, pair.Render(slot == "blue" ? Slot.Blue : Slot.Green))));
        app.MapGet("/v1/pairs/{name}/plan", (HttpContext context, string name) => WithPairAsync(context, fleet, name, async pair =>
            await AnswerAsync(context, WireJson.Default.PlanReport, await pair.PlanAsync(context.RequestAborted))));
        app.MapPost("/v1/pairs/{name}/flip", (HttpContext context, string name) => WithPairAsync(context, fleet, name, async pair =>
        {
            FlipRequest request = await BodyAsync(context, WireJson.Default.FlipRequest) ?? new FlipRequest();
            await EndedAsync(context, pair, pair.FlipAsync(request), request.Wait, stopping);
        }));
        app.MapPost("/v1/pairs/{name}/rollback", (HttpContext context, string name) => WithPairAsync(context, fleet, name, async pair =>
        {
            RollbackRequest request = await BodyAsync(context, WireJson.Default.RollbackRequest) ?? new RollbackRequest();
            await EndedAsync(context, pair, pair.RollbackAsync(request), request.Wait, stopping);
        }));
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
            await context.Response.WriteAsync(await Metrics.TextAsync(fleet, context.RequestAborted), context.RequestAborted);
        });
        app.MapFallback(context => RefuseAsync(context, 404, "usage", $"there is no {context.Request.Method} {context.Request.Path}"));
    }

    private static async Task StatusAsync(HttpContext context, Fleet fleet)
    {
        PairStatus[] pairs = await Task.WhenAll(fleet.Pairs.Select(p => p.StatusAsync(context.RequestAborted)));
        await AnswerAsync(context, WireJson.Default.StatusReport, new StatusReport([.. pairs]));
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
            log.LogError(new EventId(140, "RequestFailed"), e, "{Method} {Path} failed unexpectedly", context.Request.Method, context.Request.Path);
            await RefuseAsync(context, 500, "failed", $"{context.Request.Method} {context.Request.Path} failed unexpectedly: {e.Message}");
        }
    }

    private static Task WithPairAsync(HttpContext context, Fleet fleet, string name, Func<Pair, Task> answer) => fleet.Find(name) is { } pair
        ? answer(pair)
        : RefuseAsync(context, 404, "usage", $"there is no pair \"{name}\"; there are: {string.Join(", ", fleet.Pairs.Select(p => p.Name))}");

    private static async Task EndedAsync(HttpContext context, Pair pair, Task<FlipRecord> flip, bool wait, CancellationToken stopping)
    {
        if (!wait)
        {
            // A denial comes at once, an outcome does not: only the first is worth waiting for here.
            Task first = await Task.WhenAny(flip, Task.Delay(TimeSpan.FromMilliseconds(50), stopping));
            if (first == flip && flip.IsFaulted) await flip;
            await AnswerAsync(context, WireJson.Default.FlipAnswer, new FlipAnswer(pair.Name, null), 202);
            return;
        }
        using var either = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted, stopping);
        FlipRecord ended = await flip.WaitAsync(either.Token);
        if (ended.Outcome is "failed" or "returned") await RefuseAsync(context, 422, "failed", $"pair {pair.Name}: flip {ended.Id} {ended.Outcome}: {ended.Error}");
        else await AnswerAsync(context, WireJson.Default.FlipAnswer, new FlipAnswer(pair.Name, ended));
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
                await context.Response.Body.WriteAsync(JsonSerializer.SerializeToUtf8Bytes(notice, WireJson.Default.PairNotice), either.Token);
                await context.Response.Body.WriteAsync("\n"u8.ToArray(), either.Token);
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
        // Not by Content-Length: a body may come in chunks, as flipctl sends it, and then has none. Kestrel bounds its size.
        using var body = new MemoryStream();
        await context.Request.Body.CopyToAsync(body, context.RequestAborted);
        return body.Length == 0 ? null : JsonSerializer.Deserialize(body.GetBuffer().AsSpan(0, (int)body.Length), type);
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
        context.Response.HasStarted ? Task.CompletedTask : AnswerAsync(context, WireJson.Default.ErrorAnswer, new ErrorAnswer(code, sentence), status);
}
