using FlipController.Core;
using FlipController.Core.Keepalived;
using FlipController.Daemon.Keepalived;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;

namespace FlipController.Daemon;

/// <summary>What is asked of the node as a whole.</summary>
internal static partial class ControlApi
{
    private static void MapNode(WebApplication app, Node node)
    {
        app.MapGet("/v1/health", context => AnswerAsync(context, WireJson.Default.HealthReport, node.Health));
        app.MapPost("/v1/keepalived/events", async context =>
        {
            KeepalivedEventRequest request = await BodyAsync(context, WireJson.Default.KeepalivedEventRequest)
                ?? throw new UsageException("an event of keepalived has a type, a name and a state");
            if (VrrpEvent.Read(request.Type, request.Name, request.State, request.Priority?.ToString(System.Globalization.CultureInfo.InvariantCulture), out VrrpEvent? e) is { } why)
                throw new UsageException($"cannot take the event: {why}; it was not kept");
            node.Notify(e!);
            await AnswerAsync(context, WireJson.Default.CheckReport, new CheckReport(true, []), 202);
        });
        app.MapPost("/v1/maintenance", async context =>
        {
            MaintenanceRequest request = await BodyAsync(context, WireJson.Default.MaintenanceRequest) ?? throw new UsageException("on must be true or false");
            await AnswerAsync(context, WireJson.Default.NodeStatus, node.SetMaintenance(request));
        });
    }
}
