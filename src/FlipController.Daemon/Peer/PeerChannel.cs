using System.Net;
using FlipController.Core;
using FlipController.Linux.Files;

namespace FlipController.Daemon.Peer;

/// <summary>
/// Between this node's daemon and the other's: each asks and each answers, over HTTP/1.1 on a TCP port of its own, where the control API
/// is not. Content is authentic and new, not secret.
/// </summary>
internal sealed class PeerChannel : IAsyncDisposable
{
    /// <exception cref="FlipException">The key is not one to trust.</exception>
    public PeerChannel(PeerOptions options, ILogger log)
    {
        IPEndPoint listen = IPEndPoint.Parse(options.Listen), address = IPEndPoint.Parse(options.Address);
        var seal = new PeerSeal(KeyFile.Read(options.Key));
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
