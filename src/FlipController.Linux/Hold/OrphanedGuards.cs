using System.Diagnostics;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Hold;

/// <summary>
/// Guards (<see cref="DeadMan"/>) whose owner is dead and whose time is not over. What waits in a queue can be let go by the queue's own
/// socket only, and of a dead owner's that is in the hands of its guard alone.
/// </summary>
internal static class OrphanedGuards
{
    /// <summary>It sends some bytes and ends.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromMilliseconds(500);

    /// <summary>Those of the calling thread's network namespace send at once. Returns when they have, or after a moment.</summary>
    internal static void Fire()
    {
        string? here = Link("/proc/thread-self/ns/net");
        List<Program> programs = [.. Programs()];
        foreach (Program dd in programs.Where(p => p.Is("dd") && p.Words.Skip(1).SequenceEqual(DeadMan.SenderWords)))
        {
            if (here is null || Link($"/proc/{dd.Id.Pid}/ns/net") != here || Link($"/proc/{dd.Id.Pid}/fd/0") is not { } pipe) continue;
            uint socket = ProcessDescriptors.Inode(dd.Id.Pid, 1);
            if (socket == 0 || programs.Any(p => p.Id.Pid != dd.Id.Pid && Holds(p.Id.Pid, socket))) continue;
            // The end of sleep, the only writer of its pipe, is what it waits for.
            foreach (Program sleep in programs.Where(p => p.Is("sleep") && p.Words.Length == 2))
            {
                if (Link($"/proc/{sleep.Id.Pid}/fd/1") == pipe) _ = sleep.Id.Signal(OwnChild.Kill);
            }
            long began = Stopwatch.GetTimestamp();
            while (dd.Id.IsAlive && Stopwatch.GetElapsedTime(began) < Patience) Thread.Sleep(1);
        }
    }

    private static IEnumerable<Program> Programs()
    {
        foreach (int pid in ProcessIdentity.Pids())
        {
            if (ProcessIdentity.Read(pid) is { } id && Words(pid) is { } words) yield return new Program(id, words);
        }
    }

    private static string[]? Words(int pid)
    {
        try
        {
            return File.ReadAllText($"/proc/{pid}/cmdline").TrimEnd('\0').Split('\0');
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    private static bool Holds(int pid, uint socket)
    {
        try
        {
            return ProcessDescriptors.Read(pid).Holds(socket);
        }
        catch (KernelException)
        {
            return true; // nobody is declared dead whom we may not look at
        }
    }

    private static string? Link(string path)
    {
        try
        {
            return new FileInfo(path).LinkTarget;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    private sealed record Program(ProcessIdentity Id, string[] Words)
    {
        internal bool Is(string name) => Path.GetFileName(Words[0]) == name;
    }
}
