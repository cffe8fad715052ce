using FlipController.Core;
using FlipController.Linux;

namespace FlipController.Daemon;

/// <summary>
/// Whether the kernel may give the pair's private ports to outgoing connections: one might sit there just when a standby must listen. A
/// pair of which nothing lives is not taken up then; one that lives goes on, since whoever is connected to it needs somebody.
/// </summary>
internal sealed class PrivatePorts(PairEdge edge)
{
    private volatile bool _isTakenUp;

    /// <summary>What is wrong and both ways out, in a sentence without its end; null: nothing is.</summary>
    private string? Trouble
    {
        get
        {
            if (edge.Options.Redirect.Method == RedirectMethod.Listener || EphemeralPorts.Read() is not { } ephemeral) return null;
            PortBlock[] met = [.. new[] { edge.Blue, edge.Green }.Where(ephemeral.Meets)];
            return met.Length == 0 ? null
                : $"the private ports {string.Join(" and ", met)} are within net.ipv4.ip_local_port_range {ephemeral.Range}, where an outgoing connection may have one "
                    + $"just when a standby must listen on it; keep them out (`{ephemeral.Reserving(met)}`), or choose others (pairs.{edge.Name}.ports)";
        }
    }

    /// <summary>For a status: what refuses the pair is its fault, and stands there.</summary>
    public string? Warning => _isTakenUp ? Trouble : null;

    /// <summary>Why nothing of the pair may start; null: it may.</summary>
    public string? Refusal => _isTakenUp ? null : Trouble;

    /// <summary>Something of the pair lives.</summary>
    public void TakeUp()
    {
        _isTakenUp = true;
        if (Trouble is { } trouble) edge.Log.LogWarning(new EventId(166, "EphemeralPorts"), "pair {Pair}: {Trouble}", edge.Name, trouble);
    }

    /// <exception cref="FlipException">Nothing of the pair has lived since it was configured here, and its ports are not its own.</exception>
    public void Refuse()
    {
        if (Refusal is { } refusal) throw new FlipException(refusal);
        _isTakenUp = true;
    }
}
