using System.Net;
using FlipController.Linux.Files;

namespace FlipController.Daemon.Peer;

/// <summary>
/// Between this node's daemon and the other's: each asks and each answers, over HTTP/1.1 on a TCP port of its own, where the control API
/// is not. Content is authentic and new, not secret.
/// </summary>
internal sealed class PeerChannel : IAsyncDisposable
{
    /// <param name="listen">Where the other node's daemon finds this one; also what this one calls from.</param>
    /// <param name="address">Where this one finds the other's.</param>
    /// <exception cref="FlipController.Core.FlipException">The key is not one to trust.</exception>
    public PeerChannel(IPEndPoint listen, IPEndPoint address, string keyFile, ILogger log)
    {
        var seal = new PeerSeal(KeyFile.Read(keyFile));
        string id = PeerSeal.RandomId();
        Server = new PeerServer(listen, address.Address, seal, id, log);
        Client = new PeerClient(listen.Address, address, seal, id);
    }

    public PeerServer Server { get; }

    public PeerClient Client { get; }

    public async ValueTask DisposeAsync()
    {
        Client.Dispose();
        await Server.DisposeAsync();
    }
}
