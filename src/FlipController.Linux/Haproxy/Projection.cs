using System.Collections.Immutable;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using FlipController.Core;

namespace FlipController.Linux.Haproxy;

/// <param name="Path">The absolute path; relative names in the file are resolved against it where HAProxy would.</param>
public sealed record SourceFile(string Path, byte[] Content);

/// <summary>Where a slot's copy lives and what it may use.</summary>
/// <param name="Directory">The slot's own directory, absolute.</param>
/// <param name="AdminSocket">The path of our own stats socket.</param>
/// <param name="TakenPorts">Ports of the block that something else still holds.</param>
/// <param name="LocalPeer">What HAProxy's -L would say: the name under which this host stands in <c>peers</c> sections.</param>
/// <param name="OnFronts">It listens on the front addresses themselves, beside the active one.</param>
/// <param name="Tables">Where it stands among the generations that share their stick tables; null: tables stay separate.</param>
public sealed record SlotPlace(
    string Directory, string AdminSocket, PortBlock Ports, IReadOnlySet<int> TakenPorts, string LocalPeer, TablePeer? Tables = null,
    bool OnFronts = false)
{
    /// <summary>The path of the user's own stats socket <paramref name="number"/>, from 1: beside ours, where others can reach it.</summary>
    public string StatsSocket(int number) => Path.ChangeExtension(AdminSocket, string.Create(CultureInfo.InvariantCulture, $".{number}.sock"));
}

/// <summary>A copy, or every reason why there is none.</summary>
public sealed record ProjectionResult(RenderedConfiguration? Configuration, ImmutableArray<ConfigurationFault> Faults)
{
    [MemberNotNullWhen(true, nameof(Configuration))]
    public bool IsRendered => Configuration is not null;
}

/// <summary>
/// Makes a slot's copy of the user's HAProxy configuration, so that two processes with the same configuration live side by side:
/// <code>
///   user                          copy
///   (nothing)                     DIR/0-flipcontroller.cfg   our stats socket, our peers section
///   /etc/haproxy/haproxy.cfg      DIR/1-haproxy.cfg          every front address on a private port,
///   /etc/haproxy/more.cfg         DIR/2-more.cfg             sockets and files both would write under DIR
/// </code>
/// Pure: it reads and writes no file. Whatever it does not name stays as it is, byte for byte, and is HAProxy's to judge; but no
/// address that would listen passes unmoved, since the copy would then take connections away from the active process.
/// </summary>
public static class Projection
{
    /// <param name="surroundings">Null: <see cref="HaproxySurroundings.Unknown"/>.</param>
    public static ProjectionResult Render(IReadOnlyList<SourceFile> files, SlotPlace place, HaproxySurroundings? surroundings = null) =>
        new SlotCopy(files, place, surroundings ?? HaproxySurroundings.Unknown).Render();

    public const string OwnFile = "0-flipcontroller.cfg";
}
