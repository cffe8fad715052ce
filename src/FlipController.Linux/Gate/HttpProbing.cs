using System.Net;
using System.Net.Http;
using System.Net.Security;
using System.Net.Sockets;
using FlipController.Core;

namespace FlipController.Linux.Gate;

/// <summary>One HTTP request to one private port, as a client of the service would send it.</summary>
public static class HttpProbing
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(5);

    /// <summary>Null when the answer is what the probe expects; else why not, in one sentence.</summary>
    /// <param name="open">Makes the socket; null: a plain one.</param>
    public static async Task<string?> AskAsync(
        HttpProbe probe, IPEndPoint target, CancellationToken stop, Func<AddressFamily, Socket>? open = null)
    {
        string host = probe.Host
            ?? (target.AddressFamily == AddressFamily.InterNetworkV6 ? $"[{target.Address}]" : target.Address.ToString());
        string scheme = probe.Tls ? "https" : "http";
        string asked = $"GET {scheme}://{host}{probe.Path} on {target} for {probe.Service}";
        // Opened here: a socket belongs to the network namespace of the thread that opens it, and the handler connects on another.
        using Socket socket = open?.Invoke(target.AddressFamily)
            ?? new Socket(target.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        using var handler = new SocketsHttpHandler
        {
            AllowAutoRedirect = false, UseProxy = false, UseCookies = false,
            // The name is rarely the address's own and the certificate is the service's matter; what is proven is that it answers.
            SslOptions = new SslClientAuthenticationOptions
            {
                TargetHost = probe.Host ?? target.Address.ToString(),
                RemoteCertificateValidationCallback = static (_, _, _, _) => true,
            },
            ConnectCallback = async (_, ct) =>
            {
                await socket.ConnectAsync(target, ct);
                return new NetworkStream(socket, ownsSocket: true);
            },
        };
        using var client = new HttpClient(handler) { Timeout = s_patience };
        string authority = probe.Host is null ? "flipcontroller.invalid" : host;
        using var request = new HttpRequestMessage(HttpMethod.Get, $"{scheme}://{authority}{probe.Path}");
        request.Headers.Host = host;
        request.Headers.ConnectionClose = true;
        request.Headers.UserAgent.ParseAdd("flipcontroller-gate");
        try
        {
            using HttpResponseMessage response = await client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, stop);
            int status = (int)response.StatusCode;
            return status >= probe.ExpectFrom && status <= probe.ExpectTo
                ? null
                : $"{asked} was answered {status}, not {probe.ExpectFrom}-{probe.ExpectTo}";
        }
        catch (HttpRequestException e)
        {
            return $"{asked} failed: {e.InnerException?.Message ?? e.Message}";
        }
        catch (OperationCanceledException)
        {
            // The gate's own end is seen by the gate; what was asked in vain must be in its sentence.
            return stop.IsCancellationRequested ? $"{asked} had no answer" : $"{asked} had no answer within {s_patience.TotalSeconds:0} s";
        }
    }
}
