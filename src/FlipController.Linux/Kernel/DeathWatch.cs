using System.Runtime.InteropServices;

namespace FlipController.Linux.Kernel;

/// <summary>
/// Tells at once when a process dies: one thread sleeps in poll(2) on the pidfds of all of them. They need not be our children.
/// </summary>
public sealed unsafe class DeathWatch : IDisposable
{
    private sealed record Watched(ProcessIdentity Identity, Pidfd? Pidfd, Action<ProcessIdentity> Died);

    private readonly Lock _lock = new();
    private readonly List<Watched> _watched = [];
    private readonly List<Pidfd> _toClose = [];
    private readonly Thread _thread;
    private readonly int _wake;
    private bool _stop;

    public DeathWatch()
    {
        _wake = Libc.EventFd(0, Libc.CloseOnExec | Libc.NonBlocking);
        if (_wake < 0) throw new KernelException("make an eventfd", Marshal.GetLastPInvokeError());
        _thread = new Thread(Run) { IsBackground = true, Name = "death watch" };
        _thread.Start();
    }

    /// <summary>
    /// Calls <paramref name="died"/> once, on the watch's thread, when the process dies; at once if it is dead already. The callback
    /// posts an event and returns: while it runs nobody else's death is noticed, and what it throws ends the daemon.
    /// </summary>
    public void Add(ProcessIdentity identity, Action<ProcessIdentity> died)
    {
        Watched watched = new(identity, Pidfd.Open(identity), died);
        lock (_lock)
        {
            if (_stop)
            {
                watched.Pidfd?.Dispose();
                throw new ObjectDisposedException(nameof(DeathWatch));
            }
            _watched.Add(watched);
            Wake();
        }
    }

    /// <summary>Tolerates absence. A callback that has begun may still be running when this returns; none begins after it.</summary>
    public void Remove(ProcessIdentity identity)
    {
        lock (_lock)
        {
            if (_stop) return;
            for (int i = _watched.Count - 1; i >= 0; i--)
            {
                if (_watched[i].Identity == identity) Take(i);
            }
            Wake();
        }
    }

    public void Dispose()
    {
        lock (_lock)
        {
            if (_stop) return;
            _stop = true;
            Wake();
        }
        // From a callback it cannot wait for itself; the thread closes everything when it gets there.
        if (Thread.CurrentThread != _thread) _thread.Join();
    }

    private void Run()
    {
        List<Watched> dead = [];
        Libc.PollDescriptor[] descriptors = [];
        Watched[] asked = [];
        while (true)
        {
            lock (_lock)
            {
                // Closed here and not in Remove: a descriptor closed while poll waits on it could be another file's a moment later.
                foreach (Pidfd pidfd in _toClose) pidfd.Dispose();
                _toClose.Clear();
                if (_stop) break;
                for (int i = _watched.Count - 1; i >= 0; i--)
                {
                    if (_watched[i].Pidfd is not null) continue;
                    dead.Add(_watched[i]);
                    _watched.RemoveAt(i);
                }
                asked = [.. _watched];
            }
            foreach (Watched watched in dead) watched.Died(watched.Identity);
            if (dead.Count > 0)
            {
                dead.Clear();
                continue; // a callback may have added or removed
            }

            descriptors = new Libc.PollDescriptor[asked.Length + 1];
            descriptors[0] = new() { Fd = _wake, Events = Libc.PollIn };
            for (int i = 0; i < asked.Length; i++) descriptors[i + 1] = new() { Fd = asked[i].Pidfd!.Fd, Events = Libc.PollIn };
            int ready;
            fixed (Libc.PollDescriptor* first = descriptors) ready = Libc.Poll(first, (ulong)descriptors.Length, -1);
            if (ready < 0)
            {
                int errno = Marshal.GetLastPInvokeError();
                if (errno is Errno.Interrupted or Errno.Again) continue;
                throw new KernelException("wait for processes to die", errno);
            }

            if (descriptors[0].Returned != 0)
            {
                ulong count;
                _ = Libc.Read(_wake, &count, sizeof(ulong));
            }
            lock (_lock)
            {
                for (int i = 0; i < asked.Length; i++)
                {
                    if (descriptors[i + 1].Returned == 0) continue;
                    int index = _watched.IndexOf(asked[i]);
                    if (index < 0) continue; // removed meanwhile: nobody wants to know
                    dead.Add(asked[i]);
                    Take(index);
                }
            }
            foreach (Watched watched in dead) watched.Died(watched.Identity);
            dead.Clear();
        }

        lock (_lock)
        {
            foreach (Watched watched in _watched) watched.Pidfd?.Dispose();
            _watched.Clear();
        }
        _ = Libc.Close(_wake);
    }

    /// <summary>The lock is held.</summary>
    private void Take(int index)
    {
        if (_watched[index].Pidfd is { } pidfd) _toClose.Add(pidfd);
        _watched.RemoveAt(index);
    }

    /// <summary>The lock is held, and _stop was not set before: the thread closes the eventfd once it has seen _stop.</summary>
    private void Wake()
    {
        ulong one = 1;
        _ = Libc.Write(_wake, &one, sizeof(ulong));
    }
}
