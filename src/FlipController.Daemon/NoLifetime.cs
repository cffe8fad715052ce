using Microsoft.Extensions.Hosting;

namespace FlipController.Daemon;

/// <summary>Of a web host that neither listens to signals nor ends the process: the daemon's own handling of them decides.</summary>
internal sealed class NoLifetime : IHostLifetime
{
    public Task WaitForStartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
}
