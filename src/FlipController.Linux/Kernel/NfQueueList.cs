using System.Globalization;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace FlipController.Linux.Kernel;

/// <param name="Waiting">Packets that wait for a verdict now.</param>
/// <param name="Dropped">Lost for want of room in the queue or in its socket's buffer, since it was bound.</param>
internal readonly record struct NfQueueLine(int Number, long Waiting, long Dropped);

/// <summary>The queues of the network namespace that the thread was in which opened it; read from any thread.</summary>
internal sealed class NfQueueList : IDisposable
{
    private readonly SafeFileHandle? _file;

    private NfQueueList(SafeFileHandle? file) => _file = file;

    internal static NfQueueList Open()
    {
        try
        {
            return new NfQueueList(
                File.OpenHandle("/proc/thread-self/net/netfilter/nfnetlink_queue", FileMode.Open, FileAccess.Read, FileShare.ReadWrite));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // No nfnetlink_queue in this kernel, or no right to read it, which whoever may bind a queue has.
            return new NfQueueList(null);
        }
    }

    internal List<NfQueueLine> Read()
    {
        if (_file is null) return [];
        byte[] buffer = new byte[4096];
        StringBuilder text = new();
        long offset = 0;
        while (RandomAccess.Read(_file, buffer, offset) is > 0 and int count)
        {
            text.Append(Encoding.ASCII.GetString(buffer, 0, count));
            offset += count;
        }
        return Parse(text.ToString());
    }

    /// <summary>
    /// seq_show() in net/netfilter/nfnetlink_queue.c: number, port id, waiting, copy mode, copy range, dropped, dropped for the socket's
    /// buffer, last packet's id, 1.
    /// </summary>
    internal static List<NfQueueLine> Parse(string text)
    {
        List<NfQueueLine> lines = [];
        foreach (string line in text.Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] fields = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (fields.Length < 7) continue;
            if (Number(0) is { } number && Number(2) is { } waiting && Number(5) is { } dropped && Number(6) is { } unread)
                lines.Add(new NfQueueLine((int)number, waiting, (long)dropped + unread));

            uint? Number(int field) => uint.TryParse(fields[field], NumberStyles.None, CultureInfo.InvariantCulture, out uint read) ? read : null;
        }
        return lines;
    }

    public void Dispose() => _file?.Dispose();
}
