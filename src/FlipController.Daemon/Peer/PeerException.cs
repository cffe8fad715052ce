using FlipController.Core;

namespace FlipController.Daemon.Peer;

/// <summary>Why there is no answer of the peer's daemon.</summary>
internal enum PeerTrouble
{
    /// <summary>Nothing answered in time: the host, the link or the daemon's loop may be gone, or it works longer than was waited.</summary>
    Unreachable,

    /// <summary>The host is there and says that no daemon listens, or closes every connection.</summary>
    Refused,

    /// <summary>The two do not have the same key.</summary>
    Denied,
}

/// <summary>There is no answer. Whether what was asked for was done is not known, <see cref="PeerTrouble.Refused"/> and Denied apart: then it was not.</summary>
internal sealed class PeerException(PeerTrouble trouble, string sentence, Exception? inner = null) : FlipException(sentence, inner)
{
    public PeerTrouble Trouble => trouble;
}
