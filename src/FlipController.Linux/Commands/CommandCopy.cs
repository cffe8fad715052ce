using System.Collections.Immutable;
using System.Text;
using FlipController.Core;
using FlipController.Linux.Haproxy;
using FlipController.Linux.State;

namespace FlipController.Linux.Commands;

/// <summary>The copy of a command pair's configuration for one generation: the files as they are, with the placeholders in them filled.</summary>
public static class CommandCopy
{
    /// <param name="taken">Ports of the block that somebody has already.</param>
    /// <exception cref="FlipException">A service finds no port, or a file asks for the port of a service that there is none of.</exception>
    public static RenderedConfiguration Render(
        PairOptions pair, Snapshot snapshot, GenerationPlace place, Slot slot, PortBlock block, IReadOnlySet<int> taken)
    {
        var ports = new PrivatePorts(block, taken, onFronts: false);
        foreach ((string name, Service service) in pair.Command!.Services)
            if (ports.For(service, null, out string? fault) is null) throw new FlipException($"the service {name} ({service}) {fault}");
        var words = new CommandWords(pair, place, slot, ports.Services);
        return new RenderedConfiguration([.. snapshot.Files.Select(f => Copy(f, words))], ports.Services, null);
    }

    private static RenderedFile Copy(SnapshotFile file, CommandWords words)
    {
        // Byte for byte: the file may be in any encoding, and our words are ASCII but for a path.
        string[] lines = Encoding.Latin1.GetString(file.Content).Split('\n');
        for (int i = 0; i < lines.Length; i++)
        {
            int number = i + 1;
            lines[i] = Placeholders.Fill(lines[i], name => words.Value(name) is { } value
                ? Encoding.Latin1.GetString(Encoding.UTF8.GetBytes(value))
                // Braces are in many a configuration's own grammar; {port:...} is nobody's but ours.
                : name.StartsWith(Placeholders.Port, StringComparison.Ordinal)
                    ? throw new FlipException($"{file.Path}:{number}: {{{name}}} is the port of no service; there are {string.Join(", ", words.Pair.Command!.Services.Keys)}")
                    : null);
        }
        return new RenderedFile(
            words.CopyOf(file.Path), file.Path, Encoding.Latin1.GetBytes(string.Join('\n', lines)),
            [.. Enumerable.Range(1, lines.Length).Select(n => new RenderedLine(n, []))]);
    }
}
