using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using FlipController.Core;
using Microsoft.Win32.SafeHandles;

namespace FlipController.Linux.State;

/// <summary>One daemon per state directory: a lock of flock(2), which the kernel drops when the process ends.</summary>
public sealed partial class StateLock : IDisposable
{
    private readonly SafeFileHandle _file;

    private StateLock(SafeFileHandle file) => _file = file;

    public static StateLock Take(string stateDirectory)
    {
        AtomicFile.EnsurePrivateDirectory(stateDirectory, mayBeLink: true);
        SafeFileHandle file = AtomicFile.OpenOwn(Path.Combine(stateDirectory, "lock"), append: false);
        const int exclusive = 2, doNotWait = 4; // LOCK_EX, LOCK_NB: asm-generic/fcntl.h
        if (Flock(file, exclusive | doNotWait) != 0)
        {
            file.Dispose();
            throw new FlipException(
                $"cannot take the state directory {stateDirectory}: another flipcontrollerd holds its lock; that one goes on, this one "
                + "did nothing. Give each daemon a state and runtime directory of its own, or stop the other first.");
        }
        RandomAccess.SetLength(file, 0);
        RandomAccess.Write(file, Encoding.ASCII.GetBytes(Environment.ProcessId.ToString(CultureInfo.InvariantCulture)), 0);
        return new StateLock(file);
    }

    public void Dispose() => _file.Dispose();

    [LibraryImport("libc", EntryPoint = "flock", SetLastError = true)]
    private static partial int Flock(SafeFileHandle file, int operation);
}
