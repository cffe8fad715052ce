using System.Globalization;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace FlipController.Linux.State;

/// <summary>A unix socket that its owner and one group may use, and nobody else at any instant.</summary>
public static partial class SharedSocket
{
    private const uint OwnerOnly = 0x7f; // 0177, umask(2)
    private const int Backlog = 512;

    /// <summary>
    /// Binds it with everybody else shut out, then lets the group in; without such a group, nobody. The mask is the whole process's:
    /// to be called before anything of ours is started that would inherit it.
    /// </summary>
    public static Socket Bind(string path, string group)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        uint before = SetMask(OwnerOnly);
        try
        {
            socket.Bind(new UnixDomainSocketEndPoint(path));
            // Whoever sees the file may connect: it waits in the queue until the daemon answers, and is never refused.
            socket.Listen(Backlog);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
        finally
        {
            _ = SetMask(before);
        }
        if (GroupId(group) is { } id && ChangeOwner(path, uint.MaxValue, id) == 0)
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.GroupWrite);
        return socket;
    }

    /// <summary>The group may read it; without such a group it stays the owner's.</summary>
    internal static void Share(string path, string group)
    {
        if (GroupId(group) is { } id) _ = ChangeOwner(path, uint.MaxValue, id);
    }

    /// <summary>From group(5); null when this host has no such group.</summary>
    private static uint? GroupId(string name)
    {
        if (!File.Exists("/etc/group")) return null;
        foreach (string line in File.ReadLines("/etc/group"))
        {
            string[] fields = line.Split(':');
            if (fields.Length > 2 && fields[0] == name
                && uint.TryParse(fields[2], NumberStyles.None, CultureInfo.InvariantCulture, out uint id)) return id;
        }
        return null;
    }

    [LibraryImport("libc", EntryPoint = "umask")]
    private static partial uint SetMask(uint mask);

    [LibraryImport("libc", EntryPoint = "chown", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int ChangeOwner(string path, uint owner, uint group);
}
