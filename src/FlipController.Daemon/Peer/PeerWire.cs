using System.Text.Json.Serialization;

namespace FlipController.Daemon.Peer;

/// <summary>What a daemon tells whoever asks at <c>hello</c>: a word for this run of it, which every ask to it must carry.</summary>
internal sealed record PeerHello(string Boot);

/// <summary>Why the peer did not do what it was asked for.</summary>
/// <param name="Code">
/// <c>boot</c>: the ask was for another run of it, <see cref="Boot"/> is this one's. <c>again</c>: it has seen this ask. <c>unknown</c>: it
/// takes no asks of this name. <c>failed</c>: it tried, and <see cref="Sentence"/> says what came of it.
/// </param>
internal sealed record PeerFault(string Code, string Sentence, string? Boot = null);

/// <summary>Has the pair of this name flipped to files with this content, with the way back closed?</summary>
internal sealed record ProvenAsk(string Pair, string Content);

/// <summary>What goes between two nodes' daemons.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(PeerHello))]
[JsonSerializable(typeof(PeerFault))]
[JsonSerializable(typeof(ProvenAsk))]
[JsonSerializable(typeof(Core.Keepalived.PeerProof))]
internal sealed partial class PeerJson : JsonSerializerContext;
