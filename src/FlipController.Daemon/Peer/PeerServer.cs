using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using FlipController.Core;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace FlipController.Daemon.Peer;

/// <summary>
/// Answers the other node's daemon. Who else calls is hung up on; whoever calls from the peer's address without the key learns nothing and
/// makes this one remember nothing: the seal is checked before the body is read.
/// </summary>
internal sealed class PeerServer(IPEndPoint listen, IPAddress peer, PeerSeal seal, string id, ILogger log) : IAsyncDisposable
{
    private const long QuietMilliseconds = 60_000;

    private readonly ConcurrentDictionary<string, Func<byte[], CancellationToken, Task<byte[]>>> _handlers = new();
    private readonly PeerAdmission _admission = new(id);
    private readonly Lock _said = new();
    private long _quietUntil; // Environment.TickCount64
    private int _unsaid;
    private WebApplication? _host;
    private CancellationToken _stopping;

    /// <summary>
    /// What is done when the peer asks for <paramref name="name"/>. A <see cref="FlipException"/> of it is the asker's. It may be asked for
    /// once more when the connection broke, so twice must be as good as once.
    /// </summary>
    public void On<TAsk, TAnswer>(
        string name, JsonTypeInfo<TAsk> ask, JsonTypeInfo<TAnswer> answer, Func<TAsk, CancellationToken, Task<TAnswer>> handler) =>
        _handlers[name] = async (body, stop) =>
        {
            TAsk asked = JsonSerializer.Deserialize(body, ask) ?? throw new JsonException("null is nothing to ask");
            return JsonSerializer.SerializeToUtf8Bytes(await handler(asked, stop), answer);
        };

    /// <summary>Answers from when it returns.</summary>
    /// <exception cref="FlipException">The address is not this node's, or the port is taken.</exception>
    public async Task ListenAsync(CancellationToken stopping)
    {
        _stopping = stopping;
        WebApplicationBuilder builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = PeerSeal.LargestBodyBytes;
            kestrel.Limits.MaxConcurrentConnections = 64;
            kestrel.Listen(listen, o =>
            {
                o.Protocols = HttpProtocols.Http1;
                o.Use(next => connection => IsPeer(connection) ? next(connection) : Task.CompletedTask);
            });
        });
        // The daemon's own signal handling decides when it ends.
        builder.Services.AddSingleton<IHostLifetime, NoLifetime>();
        WebApplication host = builder.Build();
        host.Run(AnswerAsync);
        try
        {
            await host.StartAsync(CancellationToken.None);
        }
        catch (Exception e) when (e is IOException or SocketException)
        {
            await host.DisposeAsync();
            throw new FlipException($"cannot listen for the peer on {listen}: {e.Message}. Set peer.listen to an address of this node that "
                + "keepalived does not move, and a free port.", e);
        }
        _host = host;
        log.LogInformation(new EventId(190, "PeerListens"), "the other node's daemon, {Peer}, is answered on {Listen}", peer, listen);
    }

    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _host, null) is not { } host) return;
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(2));
        await host.StopAsync(patience.Token);
        await host.DisposeAsync();
    }

    private bool IsPeer(ConnectionContext connection)
    {
        IPAddress? caller = (connection.RemoteEndPoint as IPEndPoint)?.Address;
        if (caller is { IsIPv4MappedToIPv6: true }) caller = caller.MapToIPv4();
        if (peer.Equals(caller)) return true;
        Say($"{caller} called, who is not the peer ({peer}), and was hung up on");
        return false;
    }

    private async Task AnswerAsync(HttpContext context)
    {
        try
        {
            if (!HttpMethods.IsPost(context.Request.Method)) await DenyAsync(context, "it is no POST");
            else if (context.Request.Path == PeerSeal.Hello)
                await SendAsync(context, 200, JsonSerializer.SerializeToUtf8Bytes(new PeerHello(_admission.Boot), PeerJson.Default.PeerHello), null);
            else await AskedAsync(context);
        }
        catch (Exception e) when (e is IOException || e is OperationCanceledException && context.RequestAborted.IsCancellationRequested)
        {
            // The peer went away in the middle of a request or of its answer: it asks again if it still wants to know.
            context.Abort();
        }
    }

    private async Task AskedAsync(HttpContext context)
    {
        IHeaderDictionary headers = context.Request.Headers;
        string path = context.Request.Path.Value ?? "", boot = $"{headers[PeerSeal.Boot]}", client = $"{headers[PeerSeal.Client]}";
        string bodyHash = $"{headers[PeerSeal.Body]}", told = $"{headers[PeerSeal.Seal]}";
        if (!PeerSeal.IsPath(path) || context.Request.QueryString.HasValue || !PeerAdmission.IsWord(boot)
            || !PeerSeal.IsId(client) || !ulong.TryParse(headers[PeerSeal.Counter], NumberStyles.None, CultureInfo.InvariantCulture, out ulong counter))
        {
            await DenyAsync(context, "its headers are not those of a daemon of this kind");
            return;
        }
        string askSeal = seal.OfAsk(path, boot, client, counter, bodyHash);
        if (!PeerSeal.Same(askSeal, told))
        {
            await DenyAsync(context, "its seal was not made with this node's key");
            return;
        }
        if (client == id)
        {
            await DenyAsync(context, "it came from this daemon itself");
            return;
        }
        switch (_admission.Admit(boot, client, counter))
        {
            case Admitted.OtherBoot:
                await FaultAsync(context, askSeal, 409, new PeerFault("boot", "the ask was for another run of this daemon", _admission.Boot));
                return;
            case Admitted.Again:
                Say($"an ask came again, or far too late, for {path}, and was not done");
                await FaultAsync(context, askSeal, 409, new PeerFault("again", "this ask has been seen"));
                return;
            case Admitted.Yes:
                break;
        }
        using var content = new MemoryStream();
        await context.Request.Body.CopyToAsync(content, context.RequestAborted);
        byte[] body = content.ToArray();
        if (!PeerSeal.Same(bodyHash, PeerSeal.Hash(body)))
        {
            await DenyAsync(context, "its body is not the one that was sealed");
            return;
        }
        await DoneAsync(context, path, askSeal, body);
    }

    private async Task DoneAsync(HttpContext context, string path, string askSeal, byte[] body)
    {
        string name = path[PeerSeal.Root.Length..];
        if (!_handlers.TryGetValue(name, out Func<byte[], CancellationToken, Task<byte[]>>? handler))
        {
            await FaultAsync(context, askSeal, 404, new PeerFault("unknown", $"the daemon of {listen.Address} does not know \"{name}\": the two are of different versions"));
            return;
        }
        using var either = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted, _stopping);
        try
        {
            await SendAsync(context, 200, await handler(body, either.Token), askSeal);
        }
        catch (FlipException e)
        {
            await FaultAsync(context, askSeal, 422, new PeerFault("failed", e.Message));
        }
        catch (JsonException e)
        {
            await FaultAsync(context, askSeal, 422, new PeerFault("failed", $"the daemon of {listen.Address} cannot read \"{name}\": {e.Message}"));
        }
        catch (OperationCanceledException) when (_stopping.IsCancellationRequested)
        {
            await FaultAsync(context, askSeal, 422, new PeerFault("failed", $"the daemon of {listen.Address} stops; \"{name}\" was not done to its end"));
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            // A mistake of ours: whoever asked must hear of it, and the log must have it.
            log.LogError(new EventId(192, "PeerAskFailed"), e, "the peer's ask {Name} failed unexpectedly", name);
            await FaultAsync(context, askSeal, 422, new PeerFault("failed", $"\"{name}\" failed unexpectedly on {listen.Address}: {e.Message}"));
        }
    }

    private async Task DenyAsync(HttpContext context, string why)
    {
        Say($"a request from {context.Connection.RemoteIpAddress} for {Caller.Shown($"{context.Request.Method} {context.Request.Path}")} was not authenticated: {why}");
        // What was not read of it is not waited for.
        context.Response.Headers.Connection = "close";
        await SendAsync(context, 401, "not authenticated"u8.ToArray(), null);
    }

    private Task FaultAsync(HttpContext context, string askSeal, int status, PeerFault fault) =>
        SendAsync(context, status, JsonSerializer.SerializeToUtf8Bytes(fault, PeerJson.Default.PeerFault), askSeal);

    private async Task SendAsync(HttpContext context, int status, byte[] body, string? askSeal)
    {
        context.Response.StatusCode = status;
        context.Response.ContentLength = body.Length;
        if (askSeal is not null) context.Response.Headers[PeerSeal.Seal] = seal.OfAnswer(askSeal, status, PeerSeal.Hash(body));
        await context.Response.Body.WriteAsync(body, context.RequestAborted);
    }

    /// <summary>Once a minute at most, however often somebody tries.</summary>
    private void Say(string what)
    {
        int unsaid;
        lock (_said)
        {
            long now = Environment.TickCount64;
            if (now < _quietUntil)
            {
                _unsaid++;
                return;
            }
            (_quietUntil, unsaid, _unsaid) = (now + QuietMilliseconds, _unsaid, 0);
        }
        log.LogWarning(new EventId(191, "PeerDenied"), "{What} ({Unsaid} more since this was said last)", what, unsaid);
    }
}
