using System.Collections.Immutable;
using FlipController.Core;
using FlipController.Linux.Kernel;

namespace FlipController.Linux.Hold;

/// <summary>
/// Makes NEW connections wait, in order and unharmed, for a short time. Made ready by each kind's own <c>Prepare</c>, which leaves nothing
/// behind when it fails; from then on one thread at a time:
/// <code>
///   Prepare --&gt; Rehearse --&gt; [arm the dead-man's switch] --&gt; Close --&gt; Open --&gt; [disarm] --&gt; Tally --&gt; Dispose
///                                                           |____ hot ____|
/// </code>
/// </summary>
public abstract class Hold(HoldScope scope) : IDisposable
{
    public HoldScope Scope { get; } = scope;

    /// <summary>plug, queue, drop or none.</summary>
    public abstract string Method { get; }

    /// <summary>What opens it without this process; for <see cref="DeadMan"/>.</summary>
    public abstract ImmutableArray<ForcedOpening> ForcedOpenings { get; }

    /// <summary>Goes every step of <see cref="Close"/> and <see cref="Open"/> without holding anybody, so that no first use falls inside.</summary>
    /// <exception cref="KernelException">The kernel would not take it.</exception>
    public abstract void Rehearse();

    /// <summary>From now on NEW connections wait. 0, or an errno, and then nobody waits. Allocates, logs and throws nothing.</summary>
    public abstract int Close();

    /// <summary>Who waits goes on, and nobody waits any more. 0, or an errno. Allocates, logs and throws nothing.</summary>
    public abstract int Open();

    /// <summary>What an errno of <see cref="Close"/> or <see cref="Open"/> meant, in words.</summary>
    public abstract KernelException Failure { get; }

    /// <summary>Who waited in the last close; after <see cref="Open"/>.</summary>
    public abstract HoldTally Tally();

    /// <summary>Runs a kind's Prepare; what the kernel refused for want of rights is told as that.</summary>
    private protected static T Explained<T>(HoldScope scope, string method, Func<T> prepare)
    {
        try
        {
            return prepare();
        }
        catch (KernelException e) when (e.Errno == Errno.Perm)
        {
            throw new FlipException(
                $"cannot prepare the hold of {scope.Owner} ({method}): {e.Message}; nothing is held; it takes CAP_NET_ADMIN: run it as root", e);
        }
    }

    /// <summary>Opens it, and removes what it made. Tolerates that others were there before.</summary>
    public abstract void Dispose();
}
