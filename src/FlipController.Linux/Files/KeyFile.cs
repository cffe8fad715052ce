using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Files;

/// <summary>A secret that two nodes share, as bytes: what stands in the file is the key, a newline at its end included.</summary>
public static class KeyFile
{
    public const int LeastBytes = 32, MostBytes = 4096;
    private const UnixFileMode Others = UnixFileMode.GroupRead | UnixFileMode.GroupWrite | UnixFileMode.OtherRead | UnixFileMode.OtherWrite;

    /// <exception cref="FlipException">It cannot be read, others may read or change it, or it is too short to be a secret.</exception>
    public static byte[] Read(string path) =>
        Look(path, out byte[] key) is { } fault ? throw new FlipException($"{fault.Why}; nothing was sent. {fault.Remedy}", fault.Cause) : key;

    /// <summary>Why it is no key to use, and what to do; null: it is one.</summary>
    public static KeyFault? Look(string path, out byte[] key)
    {
        UnixFileMode mode;
        uint owner;
        key = [];
        try
        {
            using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read);
            mode = File.GetUnixFileMode(file.SafeFileHandle);
            owner = FileStatus.Read(path, follow: true)?.Owner ?? uint.MaxValue;
            byte[] read = new byte[MostBytes + 1];
            key = read[..file.ReadAtLeast(read, read.Length, throwOnEndOfStream: false)];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or KernelException)
        {
            return new KeyFault($"cannot read the key {path}: {e.Message}", Remedy(path), e);
        }
        if ((mode & Others) != 0 || owner is not 0 && owner != OwnUser())
            return new KeyFault($"cannot use the key {path}: others than root may read or change it (mode {Convert.ToString((int)mode, 8)}, owner {owner}), so it is no secret",
                $"`chown root {path}; chmod 600 {path}`, or make another on both nodes.");
        return key.Length is >= LeastBytes and <= MostBytes ? null
            : new KeyFault($"cannot use the key {path}: it has {(key.Length > MostBytes ? $"more than {MostBytes}" : key.Length)} bytes, and {LeastBytes} to {MostBytes} are asked for", Remedy(path));
    }

    /// <summary>Who started this, root or not, owns what it made.</summary>
    private static uint OwnUser() => FileStatus.Read("/proc/self")?.Owner ?? 0;

    private static string Remedy(string path) => $"`(umask 077; openssl rand -out {path} 32)` makes one; the other node needs the same.";
}

/// <param name="Why">What was attempted, on what, and what is wrong.</param>
/// <param name="Remedy">What to do, a sentence.</param>
public sealed record KeyFault(string Why, string Remedy, Exception? Cause = null);
