using System.Runtime.InteropServices;

namespace FlipController.Linux.Kernel;

/// <summary>posix_spawn(3) and what belongs to it. Those that return an int return an errno and leave errno itself alone.</summary>
internal static unsafe partial class Libc
{
    // spawn.h; musl has the same numbers.
    internal const short SpawnSetSignalDefaults = 0x04; // POSIX_SPAWN_SETSIGDEF
    internal const short SpawnSetSignalMask = 0x08; // POSIX_SPAWN_SETSIGMASK
    internal const short SpawnSetSession = 0x80; // POSIX_SPAWN_SETSID
    internal const int ReadOnly = 0; // O_RDONLY
    internal const int WriteOnly = 1; // O_WRONLY
    internal const int ReadWrite = 2; // O_RDWR
    internal const int Create = 0x40; // O_CREAT, include/uapi/asm-generic/fcntl.h
    internal const int AppendOnly = 0x400; // O_APPEND
    internal const uint OwnerOnly = 0x180; // S_IRUSR | S_IWUSR
    internal const int NoHang = 1; // WNOHANG

    /// <summary>posix_spawnattr_t, which glibc and musl make 336 bytes long.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 512)]
    internal struct SpawnAttributes { private long _first; }

    /// <summary>posix_spawn_file_actions_t, 80 bytes long.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 256)]
    internal struct SpawnFileActions { private long _first; }

    /// <summary>sigset_t, 128 bytes long.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 128)]
    internal struct SignalSet { private long _first; }

    [LibraryImport("libc", EntryPoint = "posix_spawnp")]
    internal static partial int Spawn(int* pid, byte* file, SpawnFileActions* actions, SpawnAttributes* attributes, byte** arguments, byte** environment);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_init")]
    internal static partial int InitSpawnAttributes(SpawnAttributes* attributes);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_destroy")]
    internal static partial int DestroySpawnAttributes(SpawnAttributes* attributes);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_setflags")]
    internal static partial int SetSpawnFlags(SpawnAttributes* attributes, short flags);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_setsigmask")]
    internal static partial int SetSpawnSignalMask(SpawnAttributes* attributes, SignalSet* signals);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_setsigdefault")]
    internal static partial int SetSpawnSignalDefaults(SpawnAttributes* attributes, SignalSet* signals);

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_init")]
    internal static partial int InitSpawnFileActions(SpawnFileActions* actions);

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_destroy")]
    internal static partial int DestroySpawnFileActions(SpawnFileActions* actions);

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_adddup2")]
    internal static partial int AddSpawnDuplicate(SpawnFileActions* actions, int fd, int becomes);

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_addopen")]
    internal static partial int AddSpawnOpen(SpawnFileActions* actions, int fd, byte* path, int flags, uint mode);

    /// <summary>glibc since 2.29, musl since 1.1.24.</summary>
    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_addchdir_np")]
    internal static partial int AddSpawnDirectory(SpawnFileActions* actions, byte* path);

    /// <summary>glibc since 2.34; elsewhere <see cref="EntryPointNotFoundException"/>.</summary>
    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_addclosefrom_np")]
    internal static partial int AddSpawnCloseFrom(SpawnFileActions* actions, int first);

    [LibraryImport("libc", EntryPoint = "sigemptyset")]
    internal static partial int EmptySignals(SignalSet* set);

    [LibraryImport("libc", EntryPoint = "sigfillset")]
    internal static partial int FillSignals(SignalSet* set);

    [LibraryImport("libc", EntryPoint = "sigaddset")]
    internal static partial int AddSignal(SignalSet* set, int signal);

    [LibraryImport("libc", EntryPoint = "kill")]
    internal static partial int Kill(int pid, int signal);

    [LibraryImport("libc", EntryPoint = "waitpid", SetLastError = true)]
    internal static partial int WaitPid(int pid, int* status, int options);

    [LibraryImport("libc", EntryPoint = "pipe2", SetLastError = true)]
    internal static partial int Pipe(int* ends, int flags);

    /// <summary>The same file under another number, at least <paramref name="least"/>, which no started program inherits.</summary>
    internal static int DuplicateAbove(int fd, int least)
    {
        const int duplicate = 1030; // F_DUPFD_CLOEXEC, include/uapi/linux/fcntl.h
        return Control(fd, duplicate, least);
    }

    /// <summary>char **environ as this process was given it, with bytes that are no UTF-8 and all.</summary>
    internal static byte** Environment() =>
        *(byte***)NativeLibrary.GetExport(NativeLibrary.Load("libc", typeof(Libc).Assembly, null), "environ");
}
