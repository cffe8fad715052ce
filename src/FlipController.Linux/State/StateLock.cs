using System.Globalization;
using System.Text;
using FlipController.Core;

namespace FlipController.Linux.State;

/// <summary>One daemon per state directory: .NET takes flock(2) for FileShare.None, which the kernel drops when the process ends.</summary>
public sealed class StateLock : IDisposable
{
    private const int Locked = 11; // EAGAIN: flock(2); a full or read-only disk has its own number and its own words

    private readonly FileStream _file;

    private StateLock(FileStream file) => _file = file;

    public static StateLock Take(string stateDirectory)
    {
        AtomicFile.EnsurePrivateDirectory(stateDirectory);
        string path = Path.Combine(stateDirectory, "lock");
        try
        {
            var file = new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            file.SetLength(0);
            file.Write(Encoding.ASCII.GetBytes(Environment.ProcessId.ToString(CultureInfo.InvariantCulture)));
            file.Flush();
            return new StateLock(file);
        }
        catch (IOException e) when (e.HResult == Locked)
        {
            throw new FlipException(
                $"cannot take the state directory {stateDirectory}: another flipcontrollerd holds its lock; that one goes on, this one "
                + "did nothing. Give each daemon a state and runtime directory of its own, or stop the other first.", e);
        }
    }

    public void Dispose() => _file.Dispose();
}
