using System.Runtime.InteropServices;

namespace FlipController.Linux;

/// <summary>What the daemon can spare while nothing happens.</summary>
public static partial class Memory
{
    /// <summary>Collects, and gives what is free back to the kernel: the managed heap's and, of libnftables' work, malloc's (malloc_trim(3)).</summary>
    public static void GiveBack()
    {
        GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
        _ = MallocTrim(0);
    }

    [LibraryImport("libc", EntryPoint = "malloc_trim")]
    private static partial int MallocTrim(nuint pad);
}
