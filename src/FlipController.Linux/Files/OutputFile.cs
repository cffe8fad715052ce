using System.Runtime.InteropServices;
using FlipController.Core;

namespace FlipController.Linux.Files;

/// <summary>A file that a user asked for, to keep and to pass on: with the mode that their umask gives.</summary>
public static partial class OutputFile
{
    /// <summary>
    /// The whole text, or what was there before: written beside its place and renamed into it. What is there may be a regular file, or
    /// a link that leads to one, and nothing else: a rename would put a file in the place of a device.
    /// </summary>
    /// <exception cref="FlipException">It cannot be written; what was there is there still.</exception>
    public static void Write(string path, string text)
    {
        string? beside = null;
        try
        {
            // Asked about what is not there, ResolveLinkTarget throws.
            string place = new FileInfo(path).LinkTarget is null ? Path.GetFullPath(path)
                : File.ResolveLinkTarget(path, returnFinalTarget: true)?.FullName ?? Path.GetFullPath(path);
            UnixFileMode? mode = null;
            if (Path.Exists(place))
            {
                if (!IsRegular(place))
                    throw new FlipException($"cannot write {path}: it is there and no regular file; nothing was written; name another");
                mode = File.GetUnixFileMode(place);
            }
            string temporary = Path.Combine(Path.GetDirectoryName(place)!, $".{Path.GetRandomFileName()}");
            using (var file = new StreamWriter(new FileStream(temporary, FileMode.CreateNew, FileAccess.Write)))
            {
                beside = temporary;
                file.Write(text);
            }
            if (mode is { } same) File.SetUnixFileMode(beside, same);
            File.Move(beside, place, overwrite: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            if (beside is not null) File.Delete(beside);
            throw new FlipException($"cannot write {path}: {e.Message.TrimEnd('.')}; nothing was written", e);
        }
    }

    private static unsafe bool IsRegular(string path)
    {
        // statx(2), include/uapi/linux/stat.h: the same on every architecture, unlike stat(2).
        const int here = -100; // AT_FDCWD
        const uint wantType = 1; // STATX_TYPE
        const int size = 256, modeAt = 28; // sizeof(struct statx), offsetof(stx_mode)
        const int typeBits = 0xf000, regular = 0x8000; // S_IFMT, S_IFREG
        byte* status = stackalloc byte[size];
        return Statx(here, path, 0, wantType, status) == 0
            && (*(ushort*)(status + modeAt) & typeBits) == regular;
    }

    [LibraryImport("libc", EntryPoint = "statx", StringMarshalling = StringMarshalling.Utf8, SetLastError = true)]
    private static unsafe partial int Statx(int directory, string path, int flags, uint mask, byte* status);
}
