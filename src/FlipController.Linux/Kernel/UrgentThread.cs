using System.Runtime.InteropServices;

namespace FlipController.Linux.Kernel;

/// <summary>
/// While it lasts no ordinary thread takes the processor from the calling one: SCHED_FIFO, sched(7). For the switch alone, which is
/// a few microseconds of work and must not be cut in two by whoever else is busy. Not permitted: nothing changes.
/// </summary>
public readonly partial struct UrgentThread : IDisposable
{
    private const int Other = 0, Fifo = 1; // SCHED_OTHER, SCHED_FIFO: include/uapi/linux/sched.h
    private readonly bool _urgent;

    private UrgentThread(bool urgent) => _urgent = urgent;

    public static UrgentThread Enter() => new(Set(Fifo, 1));

    /// <summary>A process of one thread that sleeps nearly always and must not wait when it wakes. Where that is not permitted it stays as it is.</summary>
    internal static void Raise(int pid) => _ = SetScheduler(pid, Fifo, 1);

    /// <summary>On the same thread.</summary>
    public void Dispose()
    {
        if (_urgent) Set(Other, 0);
    }

    private static bool Set(int policy, int priority) => SetScheduler(0, policy, in priority) == 0;

    // struct sched_param has this one field; pid 0 is the calling thread, sched_setscheduler(2).
    [LibraryImport("libc", EntryPoint = "sched_setscheduler")]
    private static partial int SetScheduler(int pid, int policy, in int parameter);
}
