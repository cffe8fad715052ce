using System.ComponentModel;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;

namespace FlipController.Tests.Shared;

/// <summary>Code inside a named network namespace (one that `ip netns add` made).</summary>
// A namespace belongs to a thread, and a thread gets the namespace of the one that created it. So a pool thread must never be
// created from inside: it would carry the namespace into whatever test it serves next. Two rules follow: the code runs on a
// thread of its own that ends with it, and it opens sockets but awaits nothing. A socket stays in the namespace it was opened
// in and may be used from any thread.
internal static class NamespaceThread
{
    public static T Run<T>(string name, Func<T> code)
    {
        T result = default!;
        ExceptionDispatchInfo? failure = null;
        var thread = new Thread(() =>
        {
            try
            {
                Enter($"/var/run/netns/{name}");
                result = code();
            }
            catch (Exception e)
            {
                failure = ExceptionDispatchInfo.Capture(e);
            }
        })
        { IsBackground = true, Name = $"in {name}" };
        thread.Start();
        thread.Join();
        failure?.Throw();
        return result;
    }

    /// <summary>Moves the calling thread, which must be its caller's own, until the answer is disposed of.</summary>
    public static IDisposable Visit(string name)
    {
        var home = File.OpenHandle("/proc/thread-self/ns/net");
        Enter($"/var/run/netns/{name}");
        return new Return(home);
    }

    private sealed class Return(Microsoft.Win32.SafeHandles.SafeFileHandle home) : IDisposable
    {
        public void Dispose()
        {
            using (home) Enter(home, "the namespace it came from");
        }
    }

    private static void Enter(string path)
    {
        using var handle = File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        Enter(handle, path);
    }

    private static void Enter(Microsoft.Win32.SafeHandles.SafeFileHandle handle, string what)
    {
        const int CloneNewnet = 0x40000000; // CLONE_NEWNET, linux/sched.h
        if (setns(handle, CloneNewnet) != 0)
            throw new Win32Exception(Marshal.GetLastPInvokeError(), $"setns to {what}: {Marshal.GetLastPInvokeErrorMessage()}");
    }

    [DllImport("libc", SetLastError = true)]
    private static extern int setns(Microsoft.Win32.SafeHandles.SafeFileHandle fd, int type);
}
