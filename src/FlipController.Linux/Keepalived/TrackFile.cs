using System.Globalization;
using FlipController.Core;

namespace FlipController.Linux.Keepalived;

/// <summary>
/// The file that a track_file of keepalived's configuration names: a number, put in the place of the old one by a rename, which keepalived
/// is told of by inotify. It is never removed: keepalived takes an absent file for 0, which is "all is well" (keepalived issue 1495).
/// </summary>
public static class TrackFile
{
    private const UnixFileMode Readable = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead;

    /// <summary>Null: it is not there, or has no number in it.</summary>
    public static int? Read(string path)
    {
        try
        {
            return int.TryParse(File.ReadAllText(path).Trim(), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int number) ? number : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <exception cref="FlipException">It could not be written; what was there is there still.</exception>
    public static void Write(string path, int number)
    {
        string directory = Path.GetDirectoryName(path)!, temporary = Path.Combine(directory, $".{Path.GetFileName(path)}.new");
        try
        {
            Directory.CreateDirectory(directory);
            File.Delete(temporary);
            using (var file = new FileStream(temporary, new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, BufferSize = 0 }))
                file.Write(System.Text.Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{number}\n")));
            File.SetUnixFileMode(temporary, Readable); // against the umask: keepalived may run as somebody else
            File.Move(temporary, path, overwrite: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new FlipException($"cannot write {number} to keepalived.track_file {path}: {e.Message.TrimEnd('.')}; keepalived goes by what stood there before", e);
        }
    }
}
