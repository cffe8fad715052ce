using System.Runtime.InteropServices;
using System.Text;
using FlipController.Core.Keepalived;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Keepalived;

/// <summary>
/// Reads keepalived's notify FIFO, in order, for as long as it is asked to.
/// keepalived makes the FIFO, holds it open itself and writes without waiting: what does not fit is lost (notify_fifo_open() and
/// fifo_write_entry() in lib/notify.c). So it is emptied at once, and what was written while nobody read is still in it. It is made anew
/// by every start of keepalived, and never by us: a newer one refuses what another user has made.
/// </summary>
/// <param name="line">Gets each event. It must not wait.</param>
/// <param name="warn">Gets a sentence now and then about what could not be read.</param>
public sealed unsafe class NotifyFifo(string path, Action<VrrpEvent> line, Action<string> warn)
{
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(100), s_quiet = TimeSpan.FromSeconds(10), s_oldOne = TimeSpan.FromSeconds(1);
    private const short HungUp = 0x10; // POLLHUP: include/uapi/asm-generic/poll.h
    private const int ChunkBytes = 64 * 1024; // what a pipe holds

    private readonly byte[] _line = new byte[VrrpEvent.LongestLine];
    private int _length;
    private bool _tooLong;
    private string? _lastTrouble;
    private long _lastWarned;
    private int _unsaid;

    /// <summary>What stands in the way of reading now; null: nothing.</summary>
    public string? Trouble { get; private set; }

    /// <summary>On a thread of its own, until it is told to stop.</summary>
    public Task RunAsync(CancellationToken stop) =>
        Task.Factory.StartNew(() => Run(stop), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    private void Run(CancellationToken stop)
    {
        while (!stop.IsCancellationRequested)
        {
            int fd = Open(out uint inode);
            if (fd < 0)
            {
                stop.WaitHandle.WaitOne(s_look);
                continue;
            }
            try
            {
                ReadUntilLeft(fd, inode, stop);
            }
            finally
            {
                _ = Libc.Close(fd);
                if (_length > 0) Warn("the last line was cut when keepalived ended");
                (_length, _tooLong) = (0, false);
            }
        }
    }

    /// <summary>Until keepalived has ended, or has made another one in its place.</summary>
    private void ReadUntilLeft(int fd, uint inode, CancellationToken stop)
    {
        byte[] chunk = new byte[ChunkBytes];
        long replacedAt = 0;
        while (!stop.IsCancellationRequested)
        {
            var poll = new Libc.PollDescriptor { Fd = fd, Events = Libc.PollIn };
            int ready = Libc.Poll(&poll, 1, (int)s_look.TotalMilliseconds);
            if (ready > 0 && (poll.Returned & Libc.PollIn) != 0)
            {
                nint read;
                fixed (byte* start = chunk) read = Libc.Read(fd, start, ChunkBytes);
                if (read > 0)
                {
                    Take(chunk.AsSpan(0, (int)read));
                    continue;
                }
                if (read == 0) return;
            }
            // Nobody has it open for writing any more. One that was just opened and that nobody writes to yet says nothing of the kind.
            if (ready > 0 && (poll.Returned & HungUp) != 0) return;
            // What it still says through the old one comes before what it says through the new one.
            if (replacedAt == 0 && IsReplaced(inode)) replacedAt = Environment.TickCount64;
            if (replacedAt != 0 && Environment.TickCount64 - replacedAt > s_oldOne.TotalMilliseconds) return;
        }
    }

    private bool IsReplaced(uint inode)
    {
        try
        {
            return FileStatus.Read(path) is { } there && there.Inode != inode;
        }
        catch (KernelException)
        {
            return false;
        }
    }

    /// <returns>-1: not there yet, or not to be read; <see cref="Trouble"/> says why.</returns>
    private int Open(out uint inode)
    {
        const int noFollow = 0x20000, noFollowOnArm = 0x8000; // O_NOFOLLOW: asm-generic/fcntl.h, arch/arm64/include/uapi/asm/fcntl.h
        inode = 0;
        try
        {
            switch (FileStatus.Read(path))
            {
                case null:
                    return NotNow("keepalived has not made it", null);
                case { Kind: not FileKind.Fifo } other:
                    return NotNow($"{(other.Kind == FileKind.Link ? "it is a link, and none is followed here" : "it is no FIFO")}",
                        "remove it, and restart keepalived, which makes it");
            }
            int fd;
            bool arm = RuntimeInformation.ProcessArchitecture is Architecture.Arm64 or Architecture.Arm;
            fixed (byte* name = Encoding.UTF8.GetBytes(path + '\0'))
                fd = Libc.OpenAt(Libc.AtCurrentDirectory, name, Libc.NonBlocking | Libc.CloseOnExec | (arm ? noFollowOnArm : noFollow));
            if (fd < 0) return NotNow(Errno.Name(Marshal.GetLastPInvokeError()), null);
            // Once more, of what was opened: it may have been another one a moment ago.
            if (FileStatus.Read($"/proc/self/fd/{fd}", follow: true) is not { Kind: FileKind.Fifo } opened)
            {
                _ = Libc.Close(fd);
                return NotNow("it is no FIFO", null);
            }
            inode = opened.Inode;
            (Trouble, _lastTrouble) = (null, null);
            return fd;
        }
        catch (KernelException e)
        {
            return NotNow(e.Message, null);
        }
    }

    private int NotNow(string why, string? remedy)
    {
        Trouble = $"keepalived.fifo {path} is not read: {why}{(remedy is null ? "" : $"; {remedy}")}";
        if (Trouble != _lastTrouble) warn($"{Trouble}; it is looked for again");
        _lastTrouble = Trouble;
        return -1;
    }

    private void Take(ReadOnlySpan<byte> read)
    {
        while (!read.IsEmpty)
        {
            int end = read.IndexOf((byte)'\n');
            ReadOnlySpan<byte> part = end < 0 ? read : read[..end];
            if (_length + part.Length > _line.Length) _tooLong = true;
            else
            {
                part.CopyTo(_line.AsSpan(_length));
                _length += part.Length;
            }
            if (end < 0) return;
            if (_tooLong) Warn($"a line of more than {VrrpEvent.LongestLine} bytes is ignored");
            else Finish(Encoding.UTF8.GetString(_line.AsSpan(0, _length)));
            (_length, _tooLong) = (0, false);
            read = read[(end + 1)..];
        }
    }

    private void Finish(string text)
    {
        if (VrrpEvent.IsOfLvs(text)) return;
        if (VrrpEvent.ReadLine(text, out VrrpEvent? read) is { } why) Warn($"a line is ignored, as {why}: {Shown(text)}");
        else line(read!);
    }

    private static string Shown(string text) => string.Concat(text.Take(100).Select(c => char.IsControl(c) ? '?' : c));

    /// <summary>Somebody who writes nonsense there all day must not fill the log.</summary>
    private void Warn(string what)
    {
        long now = Environment.TickCount64;
        if (_lastWarned != 0 && now - _lastWarned < s_quiet.TotalMilliseconds)
        {
            _unsaid++;
            return;
        }
        warn($"keepalived.fifo {path}: {what}{(_unsaid > 0 ? $" (and {_unsaid} more since the last of these words)" : "")}");
        (_lastWarned, _unsaid) = (now, 0);
    }
}
