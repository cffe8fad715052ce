using System.Runtime.InteropServices;

namespace FlipController.Linux.Tests.Hold;

/// <summary>capset(2), which is about the calling thread alone.</summary>
internal static partial class Capabilities
{
    internal static unsafe void DropAll()
    {
        const uint version = 0x20080522; // _LINUX_CAPABILITY_VERSION_3: include/uapi/linux/capability.h
        uint* header = stackalloc uint[2] { version, 0 };
        uint* data = stackalloc uint[6];
        new Span<uint>(data, 6).Clear();
        if (Set(header, data) != 0) throw new InvalidOperationException($"capset: errno {Marshal.GetLastPInvokeError()}");
    }

    [LibraryImport("libc", EntryPoint = "capset", SetLastError = true)]
    private static unsafe partial int Set(uint* header, uint* data);
}
