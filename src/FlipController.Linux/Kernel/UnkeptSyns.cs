using System.Globalization;

namespace FlipController.Linux.Kernel;

/// <summary>
/// Opening SYNs that left no socket behind, in this network namespace: answered by a cookie because the SYN queue was full (tcp(7),
/// tcp_syncookies), or dropped because the accept queue was. Their clients are in the middle of opening all the same, or will send
/// again, and go where conntrack says the first one went.
/// </summary>
public static class UnkeptSyns
{
    /// <summary>The counters SyncookiesSent and ListenDrops of /proc/net/netstat; 0 where the kernel does not tell.</summary>
    public static long Count()
    {
        string[] lines = [.. File.ReadLines("/proc/thread-self/net/netstat").Where(l => l.StartsWith("TcpExt:", StringComparison.Ordinal))];
        if (lines.Length != 2) return 0;
        string[] names = lines[0].Split(' '), values = lines[1].Split(' ');
        return Of("SyncookiesSent") + Of("ListenDrops");

        long Of(string name) => Array.IndexOf(names, name) is var column and > 0 && column < values.Length
            && long.TryParse(values[column], CultureInfo.InvariantCulture, out long count) ? count : 0;
    }
}
