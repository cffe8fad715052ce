using System.Globalization;
using System.Text;
using FlipController.Core;
using FlipController.Linux.State;

namespace FlipController.Daemon.Handover;

internal sealed class TrackFileLowering(string path, int weight) : INodeLowering
{
    public void Lower() => Write(weight);
    public void Raise() => Write(0);
    public string? Otherwise => null;

    private void Write(int value) => AtomicFile.Write(path, Encoding.ASCII.GetBytes(value.ToString(CultureInfo.InvariantCulture) + "\n"));
}
