using System.Globalization;

namespace FlipController.Linux.Kernel;

/// <summary>How many SYN cookies this network namespace has sent: tcp(7), tcp_syncookies. They are sent only when a SYN queue is full.</summary>
public static class SynCookies
{
    /// <summary>The counter SyncookiesSent of /proc/net/netstat; 0 where the kernel does not tell.</summary>
    public static long Sent()
    {
        string[] lines = [.. File.ReadLines("/proc/thread-self/net/netstat").Where(l => l.StartsWith("TcpExt:", StringComparison.Ordinal))];
        if (lines.Length != 2) return 0;
        int column = Array.IndexOf(lines[0].Split(' '), "SyncookiesSent");
        string[] values = lines[1].Split(' ');
        return column > 0 && column < values.Length && long.TryParse(values[column], CultureInfo.InvariantCulture, out long sent) ? sent : 0;
    }
}
