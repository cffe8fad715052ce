using System.Net;
using System.Net.Sockets;

namespace FlipController.Linux.Haproxy;

/// <summary>
/// What the user's HAProxy would find around its files, as far as they ask for it. A projection is pure: whatever it must know of
/// the host it is told here, and what it is not told, and needs, it refuses by file and line.
/// </summary>
public sealed record HaproxySurroundings
{
    /// <summary>Nothing is known.</summary>
    public static HaproxySurroundings Unknown { get; } = new();

    /// <summary>The environment HAProxy will be started with; null: not known, so that only what the files set themselves is.</summary>
    public IReadOnlyDictionary<string, string>? Environment { get; init; }

    /// <summary>The program that will read the copy; null: not known.</summary>
    public HaproxyBuild? Build { get; init; }

    /// <summary>
    /// The address HAProxy would bind for a host name, of this family or, for <see cref="AddressFamily.Unspecified"/>, of either;
    /// null: there is none.
    /// </summary>
    public Func<string, AddressFamily, IPAddress?> Resolve { get; init; } = (_, _) => null;

    /// <summary>
    /// What the program itself answers to a condition (<c>haproxy -cc</c>) that is not worth doing again here: the TLS library and
    /// what is switched on. Null: it could not be asked, or does not know such a condition.
    /// </summary>
    public Func<string, bool?> Condition { get; init; } = _ => null;
}
