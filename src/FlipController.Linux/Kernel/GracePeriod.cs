using System.Runtime.InteropServices;

namespace FlipController.Linux.Kernel;

/// <summary>
/// A packet that looked at a rule before it was removed is on its way still when the transaction has returned. After a grace period it
/// has left netfilter's hooks, which run under rcu_read_lock (nf_hook() in include/linux/netfilter.h), into the queue or past it.
/// </summary>
public static class GracePeriod
{
    private const int Global = 1; // MEMBARRIER_CMD_GLOBAL: include/uapi/linux/membarrier.h
    private static readonly TimeSpan Instead = TimeSpan.FromMilliseconds(5);

    /// <summary>membarrier(2) for all processes is synchronize_rcu(), some 10 ms. Where it is not to be had: 5 ms, for what takes microseconds.</summary>
    public static void Wait()
    {
        long number = RuntimeInformation.ProcessArchitecture switch
        {
            Architecture.X64 => 324,
            Architecture.Arm64 or Architecture.RiscV64 or Architecture.LoongArch64 => 283, // include/uapi/asm-generic/unistd.h
            _ => -1,
        };
        if (number < 0 || Libc.MemoryBarrier(number, Global) < 0) Thread.Sleep(Instead);
    }
}
