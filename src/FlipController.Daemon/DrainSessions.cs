using System.Collections.Concurrent;
using FlipController.Linux.Haproxy;

namespace FlipController.Daemon;

/// <summary>
/// The sessions with a pair's soft-stopped HAProxys, by generation. They cannot be opened again, so they outlive a reload that takes the
/// pair up anew; and each keeps its HAProxy from ending, so whoever leaves a pair to itself lets go of them.
/// </summary>
internal sealed class DrainSessions
{
    private readonly ConcurrentDictionary<int, AdminSession> _sessions = new();

    /// <summary>Null: it is not told to stop yet, or a controller that is gone did it.</summary>
    public AdminSession? Find(int generation) => _sessions.GetValueOrDefault(generation);

    /// <summary>One a generation: two would keep it alive for each other.</summary>
    public async ValueTask KeepAsync(int generation, AdminSession session)
    {
        if (!_sessions.TryAdd(generation, session)) await session.DisposeAsync();
    }

    /// <summary>HAProxy ends when nothing else keeps it. Tolerates absence.</summary>
    public async ValueTask LetGoAsync(int generation)
    {
        if (_sessions.TryRemove(generation, out AdminSession? session)) await session.DisposeAsync();
    }

    public async ValueTask LetAllGoAsync()
    {
        foreach (int generation in _sessions.Keys) await LetGoAsync(generation);
    }
}
