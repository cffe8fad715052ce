using FlipController.Core;
using FlipController.Linux.Kernel;
using FlipController.Linux.Keepalived;

namespace FlipController.Linux;

public static partial class Doctor
{
    /// <summary>Whether keepalived can be heard and told, as far as that can be seen from here.</summary>
    private static IEnumerable<CheckLine> Keepalived(Configuration configuration)
    {
        if (configuration.Keepalived is not { } options) yield break;
        if (options.Fifo is { } fifo) yield return Fifo(fifo);
        if (options.TrackFile is { } file) yield return Directory("keepalived.track_file's directory", Path.GetDirectoryName(file.Path) ?? "/");
        if (options.Link is { } link)
        {
            const string subject = "keepalived.link";
            CheckLine line;
            try
            {
                line = TrackedLink.IsUp(link) is { } up ? new CheckLine(subject, true, $"{link} is there, and {(up ? "up" : "down")}")
                    : new CheckLine(subject, false, $"there is no device {link}", $"make it before keepalived starts: `ip link add {link} type dummy`");
            }
            catch (FlipException e)
            {
                line = new CheckLine(subject, false, e.Message, "run it as root", Warning: true);
            }
            yield return line;
        }
    }

    private static CheckLine Fifo(string path)
    {
        const string subject = "keepalived.fifo";
        try
        {
            return FileStatus.Read(path) switch
            {
                null => new CheckLine(subject, false, $"{path} is not there", "keepalived makes it at its start, where its vrrp_notify_fifo names it", Warning: true),
                { Kind: FileKind.Fifo } => new CheckLine(subject, true, $"{path} is there"),
                _ => new CheckLine(subject, false, $"{path} is no FIFO", "remove it, and restart keepalived, which makes it"),
            };
        }
        catch (KernelException e)
        {
            return new CheckLine(subject, false, e.Message, "run it as root", Warning: true);
        }
    }
}
