using System.Globalization;

namespace FlipController.Linux.Kernel;

/// <summary>
/// A server is one process or several: a master that starts workers, which hold the connections. All of them are the one that was
/// started and what descends from it.
/// </summary>
public static class ProcessFamily
{
    /// <summary>The process first, then its children, theirs, and so on; itself alone when it has none or is gone.</summary>
    public static IReadOnlyList<int> Pids(int pid)
    {
        List<int> family = [pid];
        for (int i = 0; i < family.Count; i++)
            foreach (int child in Children(family[i]))
                if (!family.Contains(child)) family.Add(child);
        return family;
    }

    /// <summary>The same, as processes that can be told from others that get their pids later.</summary>
    public static IReadOnlyList<ProcessIdentity> Of(int pid) => [.. Pids(pid).Select(ProcessIdentity.Read).OfType<ProcessIdentity>()];

    /// <summary>
    /// What a process that is gone left behind: members of the session it led, which no other process can lead while one of them lives.
    /// </summary>
    public static IReadOnlyList<ProcessIdentity> Survivors(ProcessIdentity gone) => gone.IsAlive || gone.BootId != ProcessIdentity.CurrentBootId
        ? []
        : [.. ProcessIdentity.Pids().Where(p => p != gone.Pid && ProcessIdentity.Stat.Read(p) is { IsDead: false } stat && stat.Session == gone.Pid)
            .Select(ProcessIdentity.Read).OfType<ProcessIdentity>()];

    /// <summary>Children of each of its threads: proc(5), /proc/PID/task/TID/children, in kernels with CONFIG_PROC_CHILDREN, as distributions' have.</summary>
    private static IEnumerable<int> Children(int pid)
    {
        try
        {
            List<int> children = [];
            foreach (string task in Directory.EnumerateDirectories(string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/task")))
                foreach (string child in File.ReadAllText($"{task}/children").Split(' ', StringSplitOptions.RemoveEmptyEntries))
                    children.Add(int.Parse(child, NumberStyles.None, CultureInfo.InvariantCulture));
            return children;
        }
        catch (FileNotFoundException)
        {
            // Without that file, or the thread ended meanwhile.
            return ProcessIdentity.Pids().Where(p => ProcessIdentity.Stat.Read(p)?.Parent == pid);
        }
        catch (IOException)
        {
            return []; // it is gone
        }
    }
}
