using System.Globalization;
using System.Text;
using FlipController.Core;
using FlipController.Linux.State;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// Where one generation lives under the runtime directory: RUNTIME/PAIR/gNNNNN/, which is private, and beside it its sockets:
/// gNNNNN.sock, ours, and gNNNNN.1.sock and so on, the user's own.
/// </summary>
public sealed record GenerationPlace(string Runtime, string Pair, int Number)
{
    internal string Name => string.Create(CultureInfo.InvariantCulture, $"g{Number:00000}");

    public string Directory => Path.Combine(Runtime, Pair, Name);

    public string AdminSocket => Path.Combine(Runtime, Pair, Name + ".sock");

    /// <summary>The user's own stats socket, from 1 on in the order of the files.</summary>
    public string StatsSocket(int number) => Path.ChangeExtension(AdminSocket, string.Create(CultureInfo.InvariantCulture, $".{number}.sock"));

    public string PidFile => Path.Combine(Directory, "haproxy.pid");

    /// <summary>The process, where it has no file of HAProxy's own: its pid, its start time and the boot it is of.</summary>
    public string ProcessFile => Path.Combine(Directory, "process");

    /// <summary>It is there when what runs here is a pair's command, and not HAProxy.</summary>
    public string CommandFile => Path.Combine(Directory, "command");

    /// <summary>It is there when systemd starts what runs here: the program, its arguments and its environment, for the unit.</summary>
    public string UnitFile => Path.Combine(Directory, "unit.env");

    /// <summary>What the server said as it started.</summary>
    public string StartLog => Path.Combine(Directory, "start.log");

    /// <summary>Names the sockets it has elsewhere, which HAProxy leaves behind when it ends; a NUL between.</summary>
    public string SocketList => Path.Combine(Directory, "sockets");

    /// <summary>The sockets it has elsewhere, each beside the user's own and named after it: PATH.gNNNNN.</summary>
    public IReadOnlyList<string> OwnSockets() => File.Exists(SocketList) ? File.ReadAllText(SocketList).Split('\0') : [];

    /// <summary>
    /// Who connects to one of its own sockets reaches that of another generation from now on, each at one instant: connect(2) follows
    /// a link. The link is relative, so that it means the same to a process that has changed its root. One that the other generation
    /// does not have stays as it is.
    /// </summary>
    /// <param name="to">Null: to the user's own path, whoever listens there.</param>
    /// <exception cref="IOException">Not all of them could be made.</exception>
    public void LeadOwnSockets(GenerationPlace? to)
    {
        HashSet<string>? there = to?.OwnSockets().Select(Path.GetFullPath).ToHashSet(StringComparer.Ordinal);
        foreach (string socket in OwnSockets())
        {
            string user = socket[..socket.LastIndexOf('.')], target = to is null ? user : $"{user}.{to.Name}";
            if (there?.Contains(Path.GetFullPath(target)) != false && System.IO.Directory.Exists(Path.GetDirectoryName(socket)))
            {
                AtomicFile.Link(socket, Path.GetFileName(target));
                // Whoever removes the generation at this moment has not seen the link.
                if (!File.Exists(SocketList)) File.Delete(socket);
            }
        }
    }

    private string ReloadedFile => Path.Combine(Directory, "reloaded");

    /// <summary>What it read again last without a flip, as <see cref="Generation.ContentSha256"/>; null: nothing since its start.</summary>
    public string? Reloaded => File.Exists(ReloadedFile) ? File.ReadAllText(ReloadedFile) : null;

    public void SaveReloaded(string contentSha256) => AtomicFile.Write(ReloadedFile, Encoding.ASCII.GetBytes(contentSha256));

    /// <summary>Tolerates absence.</summary>
    public void Remove()
    {
        try
        {
            IReadOnlyList<string> sockets = OwnSockets();
            DeleteAll(sockets);
            // From here on nobody leads one of them anywhere; what was led there meanwhile goes too.
            File.Delete(SocketList);
            DeleteAll(sockets);
            System.IO.Directory.Delete(Directory, recursive: true);
        }
        catch (DirectoryNotFoundException)
        {
            // It is gone, or goes at this moment: a sweep and the end of a generation may meet here.
        }
        if (!System.IO.Directory.Exists(Path.Combine(Runtime, Pair))) return;
        File.Delete(AdminSocket);
        foreach (string socket in System.IO.Directory.EnumerateFiles(Path.Combine(Runtime, Pair), Name + ".*.sock")) File.Delete(socket);
        StatsLinks.Forget(this);
    }

    private static void DeleteAll(IEnumerable<string> sockets)
    {
        foreach (string socket in sockets)
            if (System.IO.Directory.Exists(Path.GetDirectoryName(socket))) File.Delete(socket);
    }

    /// <summary>Numbers of every generation that has a directory in the pair's place.</summary>
    public static IEnumerable<int> Numbers(string runtime, string pair)
    {
        string place = Path.Combine(runtime, pair);
        if (!System.IO.Directory.Exists(place)) return [];
        return [.. System.IO.Directory.EnumerateDirectories(place, "g*")
            .Select(d => int.TryParse(Path.GetFileName(d).AsSpan(1), NumberStyles.None, CultureInfo.InvariantCulture, out int n) ? n : 0)
            .Where(n => n > 0)];
    }
}
