using System.Globalization;

namespace FlipController.Linux.Kernel;

public static class ProcessMemory
{
    /// <summary>Of it and its descendants, what they share counted for each. Null: it is gone.</summary>
    public static long? OfFamily(int pid) => Resident(pid) is null ? null : ProcessFamily.Pids(pid).Sum(p => Resident(p) ?? 0);

    /// <summary>Resident bytes of a process, shared pages included: the second field of /proc/PID/statm, proc(5). Null: it is gone.</summary>
    public static long? Resident(int pid)
    {
        try
        {
            string[] fields = File.ReadAllText(string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/statm")).Split(' ');
            return fields.Length > 1 && long.TryParse(fields[1], NumberStyles.None, CultureInfo.InvariantCulture, out long pages) && pages > 0
                ? pages * Environment.SystemPageSize
                : null; // a zombie has none
        }
        catch (IOException)
        {
            return null;
        }
    }
}
