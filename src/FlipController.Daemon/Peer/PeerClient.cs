using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using FlipController.Core;

namespace FlipController.Daemon.Peer;

/// <summary>Asks the other node's daemon, over connections that stay open between asks.</summary>
internal sealed class PeerClient : IDisposable
{
    // The first may go to a run of the peer that has ended, the second may meet a connection that has died with it.
    private const int MostTries = 3;

    private readonly IPAddress _from;
    private readonly IPEndPoint _peer;
    private readonly PeerSeal _seal;
    private readonly string _id;
    private readonly HttpClient _http;
    private ulong _counter;
    private volatile string? _word, _bootId;

    /// <param name="from">Calls come from this address, or a VIP that is on this node now and on the other later would be their source.</param>
    public PeerClient(IPAddress from, IPEndPoint peer, PeerSeal seal, string id)
    {
        (_from, _peer, _seal, _id) = (from, peer, seal, id);
        _http = new HttpClient(new SocketsHttpHandler
        {
            ConnectCallback = ConnectAsync, UseProxy = false, UseCookies = false, AllowAutoRedirect = false, ActivityHeadersPropagator = null,
            // A link that was cut and is whole again is not waited for longer than this, whatever TCP's next try is.
            ConnectTimeout = TimeSpan.FromSeconds(2), MaxConnectionsPerServer = 16, PooledConnectionIdleTimeout = TimeSpan.FromMinutes(1),
        })
        {
            BaseAddress = new Uri($"http://{peer}"), MaxResponseContentBufferSize = PeerSeal.LargestBodyBytes, Timeout = Timeout.InfiniteTimeSpan,
        };
    }

    /// <summary>Of the run of the peer's daemon that answered last; another one: it has restarted since. Null: it has not answered yet.</summary>
    public string? BootId => _bootId;

    /// <param name="timeout">For all of it, however often it is tried.</param>
    /// <exception cref="PeerException">There is no answer.</exception>
    /// <exception cref="FlipException">The peer's own, in its words.</exception>
    public async Task<TAnswer> AskAsync<TAsk, TAnswer>(
        string name, TAsk ask, JsonTypeInfo<TAsk> askType, JsonTypeInfo<TAnswer> answerType, TimeSpan timeout, CancellationToken stop)
    {
        byte[] body = JsonSerializer.SerializeToUtf8Bytes(ask, askType);
        if (body.Length > PeerSeal.LargestBodyBytes)
            throw new FlipException($"cannot ask the peer for {name}: {body.Length} bytes are more than the {PeerSeal.LargestBodyBytes} it takes; nothing was sent");
        using var late = CancellationTokenSource.CreateLinkedTokenSource(stop);
        late.CancelAfter(timeout);
        try
        {
            byte[] answer = await AnswerAsync(name, body, late.Token);
            return JsonSerializer.Deserialize(answer, answerType) ?? throw new JsonException("null is no answer");
        }
        catch (OperationCanceledException e) when (!stop.IsCancellationRequested)
        {
            throw new PeerException(PeerTrouble.Unreachable, Sentence(name, $"it did not answer within {timeout.TotalSeconds:0.###} s"), e);
        }
        catch (JsonException e)
        {
            throw new FlipException(Sentence(name, $"its answer cannot be read ({e.Message}): the two are of different versions"), e);
        }
    }

    public void Dispose() => _http.Dispose();

    private async Task<byte[]> AnswerAsync(string name, byte[] body, CancellationToken stop)
    {
        bool isRetried = false;
        for (int tries = 1; ; tries++)
        {
            try
            {
                string word = _word ?? await HelloAsync(name, stop);
                (int status, byte[] answer) = await OnceAsync(name, word, body, stop);
                if (status == 200)
                {
                    _bootId = PeerAdmission.IdOf(word);
                    return answer;
                }
                PeerFault fault = JsonSerializer.Deserialize(answer, PeerJson.Default.PeerFault) ?? throw new JsonException("null is no fault");
                if (fault.Code is not ("boot" or "again"))
                {
                    _bootId = PeerAdmission.IdOf(word);
                    throw new FlipException(fault.Sentence);
                }
                // The word of a peer that has been started anew came sealed: no second hello is needed.
                if (fault.Boot is { } boot && PeerAdmission.IsWord(boot)) _word = boot;
                if (tries == MostTries) throw new PeerException(PeerTrouble.Denied, Sentence(name, $"it says that {fault.Sentence}, however often it is asked"));
            }
            catch (HttpRequestException e) when (e.InnerException is SocketException { SocketErrorCode: SocketError.ConnectionRefused })
            {
                throw new PeerException(PeerTrouble.Refused, Sentence(name, "the host is there, but no daemon listens"), e);
            }
            catch (HttpRequestException e) when (e.HttpRequestError == HttpRequestError.ConnectionError)
            {
                throw new PeerException(PeerTrouble.Unreachable, Sentence(name, $"no connection to it can be made from {_from}: {e.InnerException?.Message ?? e.Message}"), e);
            }
            catch (HttpRequestException e)
            {
                // It was open, and has died: the peer's daemon was killed, or a firewall forgot it. Once more, with another one.
                if (isRetried || tries == MostTries)
                    throw new PeerException(PeerTrouble.Refused, Sentence(name, $"it closed the connection instead of answering, twice ({e.Message})"), e);
                isRetried = true;
            }
        }
    }

    private async Task<string> HelloAsync(string name, CancellationToken stop)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, PeerSeal.Hello) { Content = new ByteArrayContent([]) };
        using HttpResponseMessage answer = await _http.SendAsync(request, stop);
        string? boot = answer.StatusCode == HttpStatusCode.OK
            ? JsonSerializer.Deserialize(await answer.Content.ReadAsByteArrayAsync(stop), PeerJson.Default.PeerHello)?.Boot
            : null;
        if (boot is null || !PeerAdmission.IsWord(boot))
            throw new PeerException(PeerTrouble.Denied, Sentence(name, $"what answers there ({(int)answer.StatusCode}) is not such a daemon"));
        if (PeerAdmission.IdOf(boot) == _id)
            throw new PeerException(PeerTrouble.Denied, Sentence(name, "that is this daemon itself; peer.address must be the other node's"));
        return _word = boot;
    }

    private async Task<(int Status, byte[] Body)> OnceAsync(string name, string word, byte[] body, CancellationToken stop)
    {
        string path = PeerSeal.Root + name, hash = PeerSeal.Hash(body);
        ulong counter = Interlocked.Increment(ref _counter);
        string seal = _seal.OfAsk(path, word, _id, counter, hash);
        using var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = new ByteArrayContent(body) };
        request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
        request.Headers.Add(PeerSeal.Client, _id);
        request.Headers.Add(PeerSeal.Boot, word);
        request.Headers.Add(PeerSeal.Counter, counter.ToString(CultureInfo.InvariantCulture));
        request.Headers.Add(PeerSeal.Body, hash);
        request.Headers.Add(PeerSeal.Seal, seal);
        using HttpResponseMessage answer = await _http.SendAsync(request, stop);
        byte[] answered = await answer.Content.ReadAsByteArrayAsync(stop);
        int status = (int)answer.StatusCode;
        if (status == 401)
            throw new PeerException(PeerTrouble.Denied, Sentence(name, "it does not take this node's key; the file of peer.key must be the same on both"));
        string? told = answer.Headers.TryGetValues(PeerSeal.Seal, out IEnumerable<string>? seals) ? seals.First() : null;
        return PeerSeal.Same(_seal.OfAnswer(seal, status, PeerSeal.Hash(answered)), told)
            ? (status, answered)
            : throw new PeerException(PeerTrouble.Denied, Sentence(name, "its answer is not sealed with this node's key; it was not believed"));
    }

    private async ValueTask<Stream> ConnectAsync(SocketsHttpConnectionContext context, CancellationToken stop)
    {
        var socket = new Socket(_peer.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            if (_from.AddressFamily == _peer.AddressFamily && !_from.Equals(IPAddress.Any) && !_from.Equals(IPAddress.IPv6Any)) socket.Bind(new IPEndPoint(_from, 0));
            await socket.ConnectAsync(_peer, stop);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private string Sentence(string name, string why) => $"cannot ask the peer {_peer} for {name}: {why}";
}
