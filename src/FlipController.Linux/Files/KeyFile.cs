using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Files;

/// <summary>A secret that two nodes share, as bytes: what stands in the file is the key, a newline at its end included.</summary>
public static class KeyFile
{
    public const int LeastBytes = 32, MostBytes = 4096;
    private const UnixFileMode Others = UnixFileMode.GroupRead | UnixFileMode.GroupWrite | UnixFileMode.OtherRead | UnixFileMode.OtherWrite;

    /// <exception cref="FlipException">It cannot be read, others may read or change it, or it is too short to be a secret.</exception>
    public static byte[] Read(string path)
    {
        byte[] key;
        UnixFileMode mode;
        uint owner;
        try
        {
            using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read);
            mode = File.GetUnixFileMode(file.SafeFileHandle);
            owner = FileStatus.Read(path, follow: true)?.Owner ?? uint.MaxValue;
            key = new byte[MostBytes + 1];
            key = key[..file.ReadAtLeast(key, key.Length, throwOnEndOfStream: false)];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or KernelException)
        {
            throw new FlipException($"cannot read the key {path}: {e.Message}. {Remedy(path)}", e);
        }
        if ((mode & Others) != 0 || owner is not 0 && owner != OwnUser())
            throw new FlipException($"cannot use the key {path}: others than root may read or change it (mode {Convert.ToString((int)mode, 8)}, "
                + $"owner {owner}), so it is no secret; nothing was sent. `chown root {path}; chmod 600 {path}`, or make another on both nodes.");
        return key.Length is >= LeastBytes and <= MostBytes
            ? key
            : throw new FlipException($"cannot use the key {path}: it has {(key.Length > MostBytes ? $"more than {MostBytes}" : key.Length)} bytes, and "
                + $"{LeastBytes} to {MostBytes} are asked for; nothing was sent. {Remedy(path)}");
    }

    /// <summary>Who started this, root or not, owns what it made.</summary>
    private static uint OwnUser() => FileStatus.Read("/proc/self")?.Owner ?? 0;

    private static string Remedy(string path) => $"`(umask 077; openssl rand -out {path} 32)` makes one; the other node needs the same.";
}
