namespace FlipController.Linux.Kernel;

public sealed class ConntrackLedger : IDisposable
{
    public static ConntrackLedger? Open(TimeProvider time) => null;
    public void Follow(uint mark, uint mask) { }
    public void Unfollow(uint mark) { }
    public void Dispose() { }
}
