using System.Runtime.InteropServices;
using System.Text;
using FlipController.Core;

namespace FlipController.Linux.Haproxy;

/// <summary>What HAProxy does for one client connection now.</summary>
/// <param name="AgeSeconds">
/// Of the oldest stream; -1: not told. A connection is at least as old: HTTP gives each request a stream of its own.
/// </param>
public readonly record struct ClientStream(string Frontend, string? Backend, string? Server, long AgeSeconds);

/// <summary>
/// The streams of one HAProxy at one look (<c>show sess</c>), by its descriptor for the client: that leads to the kernel's socket
/// whatever address HAProxy believes the client to have. HTTP/2 has several streams on one descriptor; a client between two requests
/// has none.
/// </summary>
public sealed class HaproxyStreams
{
    private const int SamplesOfFrontend = 8, MostSamples = 64;

    private readonly Dictionary<int, ClientStream> _byDescriptor = [];
    private readonly Dictionary<(PeerAddress, int), int> _bySource = [];
    private readonly Dictionary<string, int> _sampled = new(StringComparer.Ordinal);
    private readonly HashSet<string> _names = new(StringComparer.Ordinal);

    private HaproxyStreams() { }

    /// <summary>Every stream but those of the stats socket.</summary>
    public int Count { get; private set; }

    public ClientStream? this[int descriptor] => _byDescriptor.TryGetValue(descriptor, out ClientStream stream) ? stream : null;

    /// <summary>
    /// Descriptors are slow to ask the kernel for, addresses are not: the descriptor whose client has this address, as HAProxy believes;
    /// -1: none.
    /// </summary>
    internal int DescriptorOf(PeerAddress peer, int port) => _bySource.GetValueOrDefault((peer, port), -1);

    /// <summary>A client has used the same port towards two of the services: then addresses do not tell.</summary>
    internal bool HasDoubles { get; private set; }

    /// <summary>
    /// Some clients of every frontend. If one of them is nobody's peer, HAProxy has its addresses from elsewhere (PROXY protocol,
    /// <c>set-src</c>).
    /// </summary>
    internal Dictionary<(PeerAddress Peer, int Port), int> Samples { get; } = [];

    public static async Task<HaproxyStreams> ReadAsync(AdminChannel haproxy, CancellationToken stop)
    {
        var streams = new HaproxyStreams();
        await haproxy.LinesAsync("show sess", streams.Add, stop);
        return streams;
    }

    private void Add(ReadOnlySpan<byte> line)
    {
        if (!StreamLine.TryParse(line, out StreamLine stream) || stream.IsOwn) return;
        Count++;
        if (stream.ClientDescriptor < 0) return;
        ref ClientStream place = ref CollectionsMarshal.GetValueRefOrAddDefault(_byDescriptor, stream.ClientDescriptor, out bool known);
        if (known && place.AgeSeconds >= stream.AgeSeconds) return;
        place = new ClientStream(Name(stream.Frontend) ?? "", Name(stream.Backend), Name(stream.Server), stream.AgeSeconds);
        if (known || !StreamLine.TryParseSource(stream.Source, out PeerAddress peer, out int port)) return;
        HasDoubles |= !_bySource.TryAdd((peer, port), stream.ClientDescriptor);
        ref int samples = ref CollectionsMarshal.GetValueRefOrAddDefault(_sampled, place.Frontend, out _);
        if (samples < SamplesOfFrontend && Samples.Count < MostSamples && Samples.TryAdd((peer, port), stream.ClientDescriptor)) samples++;
    }

    /// <summary>The same few names again and again: each is kept once.</summary>
    private string? Name(ReadOnlySpan<byte> bytes)
    {
        if (bytes.IsEmpty || bytes.SequenceEqual("<NONE>"u8) || bytes.SequenceEqual("<none>"u8)) return null;
        Span<char> text = stackalloc char[256];
        if (bytes.Length > text.Length) return Encoding.Latin1.GetString(bytes);
        ReadOnlySpan<char> name = text[..Encoding.Latin1.GetChars(bytes, text)];
        var lookup = _names.GetAlternateLookup<ReadOnlySpan<char>>();
        if (lookup.TryGetValue(name, out string? kept)) return kept;
        kept = name.ToString();
        _names.Add(kept);
        return kept;
    }
}
